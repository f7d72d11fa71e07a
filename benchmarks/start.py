"""How long ``medtool --help`` takes against ``python -c "import typer, rich"``, in one run.

Run: python benchmarks/start.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15
PEER = [sys.executable, "-c", "import typer, rich"]
OURS = [sys.executable, "-m", "medtool", "--help"]


def seconds(command: list[str]) -> float:
    before = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - before


def main() -> None:
    for command in (PEER, OURS):
        seconds(command)
    pairs = [(seconds(PEER), seconds(OURS)) for _ in range(ROUNDS)]
    peer = statistics.median(pair[0] for pair in pairs)
    ours = statistics.median(pair[1] for pair in pairs)
    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
    print(f"import typer, rich   {peer * 1000:6.0f} ms (median of {ROUNDS})")
    print(f"medtool --help       {ours * 1000:6.0f} ms")
    print(f"ratio                {ratio:6.2f} (goal: at most 2)")


if __name__ == "__main__":
    main()

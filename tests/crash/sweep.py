"""Stop a command at any of its write calls, or at any moment, or let a write call fail.

Needs strace. A write call is one of :data:`WRITES` on a path below the work folder. strace counts calls per name and
per thread, so commands are run with one numerical thread.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WRITES = (
    "write,pwrite64,writev,pwritev,ftruncate,fsync,fdatasync,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
ACTIONS = {
    "kill": "signal=KILL",
    "disk full": "error=ENOSPC",
    "disk broken": "error=EIO",
    "interrupted call": "error=EINTR",
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Point:
    """The ``nth`` call of one name in a thread."""

    call: str
    nth: int


@dataclass(frozen=True)
class Ended:
    """How a process ended; ``code`` is negative for a signal."""

    code: int
    out: str
    err: str


def run(command: Sequence[str], cwd: Path) -> Ended:
    """Run a command to its end."""
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def write_points(command: Sequence[str], work: Path, log: Path, *, all_threads: bool = True) -> list[Point]:
    """Run the command to its end under strace and return every write call that touched ``work``.

    ``all_threads`` is for commands whose threads write files. Threads of polars wake one another by writing to
    descriptors that are no files; one that fails there sleeps for good, which no disk can bring about.
    """
    follow = ["-f"] if all_threads else []
    ended = run(["strace", *follow, "-qq", "-y", "-e", f"trace={WRITES}", "-o", str(log), *command], work)
    assert ended.code == 0, ended.err
    return points_of(log, work)


def points_of(log: Path, work: Path) -> list[Point]:
    """Return every write call in strace's log that touched ``work``."""
    counts: dict[tuple[str | None, str], int] = {}
    points = set()
    for line in log.read_text(errors="replace").splitlines():
        found = re.match(r"(?:(\d+)\s+)?(\w+)\(", line)
        if found is None:
            continue
        counts[found.group(1, 2)] = counts.get(found.group(1, 2), 0) + 1
        # Paths are relative in some calls and absolute in others; -y resolves descriptors to absolute ones.
        if str(work) in line or re.match(r"(?:\d+\s+)?(rename|link|unlink|mkdir|rmdir)\w*\(\"[^/]", line):
            points.add(Point(found.group(2), counts[found.group(1, 2)]))
    return sorted(points, key=lambda point: (point.call, point.nth))


def stop_at(point: Point, action: str, command: Sequence[str], cwd: Path, *, all_threads: bool = True) -> Ended:
    """Run the command with one call killed or failed; ``all_threads`` as in :func:`write_points`.

    A disk that is full stays so; but ``write`` fails once, as strace cannot tell the disk from stderr.
    """
    lasting = "+" if action == "disk full" and point.call != "write" else ""
    inject = f"inject={point.call}:{ACTIONS[action]}:when={point.nth}{lasting}"
    follow = ["-f"] if all_threads else []
    return run(["strace", *follow, "-qq", "-e", f"trace={WRITES}", "-e", inject, "-o", os.devnull, *command], cwd)


def kill_after(seconds: float, command: Sequence[str], cwd: Path) -> int:
    """Run the command and kill it and nothing else after a while; return how it ended."""
    process = subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait()


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

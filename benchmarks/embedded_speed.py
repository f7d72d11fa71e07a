"""Images a second and memory of ``medtool segment`` with the embedded segmenter, at 512 px, as a user runs it.

The peer does the same work in a plain loop in one process: decode with Pillow, the same saliency map, points and
segmenter, write with Pillow. Memory is the largest of the command's processes, for 200 and for 2,000 images.

Run: python benchmarks/embedded_speed.py [FOLDER OF IMAGES] [--memory]
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "isic2017-hires" / "images"
SIDE_PX = 512
N_SPEED = 72
N_MEMORY = (200, 2000)


def make_folder(source: Path, target: Path, *, n: int, side_px: int) -> None:
    """Fill ``target`` with ``n`` JPEGs of one side length, the sources in turn, each slightly different."""
    target.mkdir(parents=True)
    paths = itertools.cycle(sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".png")))
    for index in range(n):
        with Image.open(next(paths)) as picture:
            resized = picture.convert("RGB").resize((side_px, side_px))
        pixels = np.array(resized)
        pixels[0, 0] = (index % 256, index // 256, 0)
        Image.fromarray(pixels).save(target / f"{index:05}.jpg", quality=92)


def plain_loop(folder: Path, out: Path) -> None:
    """Segment in one process with the parts of medtool, as a script would."""
    from medtool.protocols import Prompt
    from medtool.segment.clean import clean_mask
    from medtool.segment.options import CleanOptions, PromptOptions
    from medtool.segment.prompts import choose_points
    from medtool.segment.random_walker import RandomWalker
    from medtool.segment.saliency import saliency_map

    out.mkdir()
    segmenter = RandomWalker(weights=None, device="cpu", precision="fp32")
    for path in sorted(folder.iterdir()):
        rgb = np.array(Image.open(path).convert("RGB"))
        heatmap = saliency_map(rgb)
        points, labels = choose_points(heatmap, PromptOptions(), seed_text=path.name)
        answer = segmenter.segment(segmenter.embed(rgb), Prompt(points, labels, heatmap))
        mask = clean_mask(answer.masks[int(answer.scores.argmax())], points, CleanOptions())
        Image.fromarray(mask.astype(np.uint8)).save(out / f"{path.stem}.png")


def run_medtool(folder: Path, out: Path, *more: str) -> tuple[float, float]:
    """Return seconds and the peak MiB of all processes of the command together."""
    command = [sys.executable, "-m", "medtool", "segment", str(folder), "--out", str(out), *more]
    before = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    seconds = time.perf_counter() - before
    watcher.join()
    return seconds, peak[0]


def _watch(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    import psutil

    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for member in (root, *_children(root)):
            try:
                total += member.memory_info().rss
            except psutil.Error:
                continue
        peak[0] = max(peak[0], total / 2**20)
        time.sleep(0.1)


def _children(root: object) -> list[object]:
    import psutil

    try:
        return root.children(recursive=True)  # type: ignore[attr-defined]
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", nargs="?", type=Path, default=SHARED)
    parser.add_argument("--memory", action="store_true", help="also measure memory for 200 and 2,000 images at 128 px")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="medtool-bench-"))
    try:
        make_folder(options.source, work / "images", n=N_SPEED, side_px=SIDE_PX)
        before = time.perf_counter()
        plain_loop(work / "images", work / "plain")
        plain = time.perf_counter() - before
        one, _ = run_medtool(work / "images", work / "one", "--workers", "1")
        two, _ = run_medtool(work / "images", work / "two", "--workers", "2")
        print(f"{N_SPEED} images of {SIDE_PX} px, random-walker")
        print(f"plain loop, one process       {N_SPEED / plain:6.2f} images/s")
        print(f"medtool segment --workers 1   {N_SPEED / one:6.2f} images/s, start included ({plain / one:.2f} x)")
        print(f"medtool segment --workers 2   {N_SPEED / two:6.2f} images/s, start included ({plain / two:.2f} x)")
        if options.memory:
            for n in N_MEMORY:
                make_folder(options.source, work / f"many{n}", n=n, side_px=128)
                _, peak = run_medtool(work / f"many{n}", work / f"out{n}")
                print(f"memory, {n:5} images of 128 px  {peak:6.0f} MiB, all processes together")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()

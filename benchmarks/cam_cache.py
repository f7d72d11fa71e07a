"""What the cache of ``medtool cam`` costs: bytes an image, its share of a run's time, and memory as images grow many.

    python benchmarks/cam_cache.py [--model mobilenetv2] [--size 224] [--images 256] [--many 2000] [--rows 200000]

The share is that of loading, hashing, parts and the final file in the processor's time of a whole call, on pictures of
the demo; by the clock it is printed too, where waiting for the disk counts. Memory is the peak of a process of its own,
above what it held when all was imported: for 200 images and ``--many`` images through a small network, and for adding
ten rows to a cache of ``--rows``. A finished cache is timed with the small network, whose images all have to be hashed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES, MAX_SHARE, MAX_GROWTH_MIB = 2048, 0.05, 100
GRIDS = ((7, 7), (14, 14), (16, 16))
SMALL = "timm/test_resnet"


class Quiet:
    """Progress that nobody looks at."""

    def advance(self, label: str = "") -> None:
        """Do nothing."""


@contextlib.contextmanager
def no_steps(total: int) -> Iterator[Quiet]:
    """Give progress that nobody looks at."""
    yield Quiet()


@dataclass
class Spent:
    """Seconds by the clock and of the processor."""

    wall: float = 0.0
    processor: float = 0.0

    @contextlib.contextmanager
    def counted(self, processor: Callable[[], float] = time.thread_time) -> Iterator[None]:
        """Add what the block takes."""
        wall, start = time.perf_counter(), processor()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - wall
            self.processor += processor() - start

    def count(self, owner: Any, name: str) -> None:
        """Add every call of a function from now on."""
        plain = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            with self.counted():
                return plain(*arguments, **named)

        setattr(owner, name, wrapped)


def trained(folder: Path, name: str, model: str, size: int) -> Path:
    """Return a run of one epoch from chance: how well it answers does not matter here."""
    network = ["--model", model, "--size", str(size), "--weights", "none"]
    command = ["train", "demo/split.csv", *network, "--epochs", "1", "--batch-size", "16", "--out", name, "-q"]
    subprocess.run([sys.executable, "-m", "medtool", *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / name


def call(run: Path, images: list[Path], out: Path) -> Any:
    """Make the heatmaps of images, each under a name of its own, and return the summary."""
    from medtool.cam.job import Job, Watch, make_heatmaps
    from medtool.cam.options import CamOptions
    from medtool.runs.asked import Asked
    from medtool.runs.folder import run_at

    asked = [Asked(f"{place:08}/{path.name}", path.name, path) for place, path in enumerate(images)]
    return make_heatmaps(asked, [run_at(run)], CamOptions(), job=Job(out), watch=Watch(lambda line: None, no_steps))


def share(run: Path, images: list[Path], folder: Path) -> float:
    """Print and return which share of a call's time is the cache's own."""
    from medtool.cam import job
    from medtool.cam.store import Store

    call(run, images[:16], folder / "warm.h5")
    cache, whole = Spent(), Spent()
    for owner, name in ((Store, "load"), (Store, "add"), (job, "_concluded")):
        cache.count(owner, name)
    with whole.counted(time.process_time):
        call(run, images, folder / "cams.h5")
    hashing = Spent()
    with hashing.counted():
        for path in images:
            hashlib.sha256(path.read_bytes()).hexdigest()
    by_processor = (cache.processor + hashing.processor) / whole.processor
    by_clock = (cache.wall + hashing.wall) / whole.wall
    print(
        f"{len(images)} images in {whole.processor:.1f} s of the processor: parts and the file {cache.processor:.2f} s,"
        f" hashing {hashing.processor:.2f} s: {by_processor:.1%} (goal: at most {MAX_SHARE:.0%}); by the clock"
        f" {by_clock:.1%}"
    )
    return by_processor


def bytes_of(size: tuple[int, int], folder: Path, n_images: int = 1000) -> float:
    """Return the bytes that an image takes in a file, with an id of 24 characters."""
    path = folder / "size.h5"
    write(path, n_images, size=size, lineage={})
    return path.stat().st_size / n_images


def write(path: Path, n_images: int, *, size: tuple[int, int], lineage: dict[str, Any]) -> None:
    """Write a file of noise as ``medtool cam`` writes it."""
    from medtool.heatmaps.format import Head, HeatmapAttributes
    from medtool.heatmaps.writing import Layout, write_rows

    head = Head(HeatmapAttributes("gradcam"), (), json.dumps(lineage).encode())
    write_rows(path, head, Layout(n_images, size, 24, 16), noise(0, n_images, size))


def noise(start: int, stop: int, size: tuple[int, int]) -> Iterator[Any]:
    """Yield rows of random maps."""
    from medtool.heatmaps.format import Row

    rng = np.random.default_rng(start)
    for number in range(start, stop):
        maps = rng.normal(size=(1, *size)).astype(np.float32)
        digest = hashlib.sha256(f"{number}".encode()).hexdigest()
        yield Row(
            f"site/image-{number:08}.png"[:24], digest, maps, rng.random(1), np.zeros(1, np.uint8), None, "benign"
        )


def peak_mib() -> float:
    """Return the most memory that this process has held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


def many(run: Path, images: list[Path], out: Path, counts: tuple[int, int], answers: Any) -> None:
    """In a process of its own: give the peak after few and after many images, and the time when all is there."""
    call(run, images[: counts[0]], out.with_name("few.h5"))
    few = peak_mib()
    call(run, images, out)
    grown = peak_mib() - few
    call(run, images[:1], out.with_name("none.h5"))
    again = Spent()
    with again.counted(time.process_time):
        assert call(run, images, out).was_finished
    alone = Spent()
    with alone.counted(time.process_time):
        call(run, images[:1], out.with_name("none.h5"))
    answers.put((grown, again.processor - alone.processor))


def added(path: Path, n_rows: int, size: tuple[int, int], answers: Any) -> None:
    """In a process of its own: add ten rows to a large cache, and give the growth of memory and the time."""
    from medtool.cam.store import open_store
    from medtool.heatmaps.format import Head, HeatmapAttributes
    from medtool.heatmaps.writing import Layout

    lineage = {"format": "medtool-lineage", "version": 1, "command": "cam", "status": "finished", "made_with": {}}
    write(path, n_rows, size=size, lineage=lineage)
    before = peak_mib()
    head, spent = Head(HeatmapAttributes("gradcam"), (), json.dumps(lineage).encode()), Spent()
    with spent.counted(), open_store(path) as store:
        store.load(lineage, overwrite=False)
        store.add(head, list(noise(n_rows, n_rows + 10, size)), layout=Layout(10, size, 24, 16))
        store.finish(head, {}, layout=Layout(0, size, 24, 16))
        assert len(store.known) == n_rows + 10
    answers.put((peak_mib() - before, spent.processor))


def in_own_process(work: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Run a function in a new process and return what it answers."""
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    process = spawn.Process(target=work, args=(*arguments, answers))
    process.start()
    found: tuple[float, float] = answers.get()
    process.join()
    return found


def main() -> int:
    """Measure and print; the exit status is 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="mobilenetv2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=200_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {grid: bytes_of(grid, folder) for grid in GRIDS}
        print("bytes an image: " + ", ".join(f"{h} × {w} {taken:.0f}" for (h, w), taken in sizes.items()))
        rows_mib, rows_s = in_own_process(added, folder / "large.h5", given.rows, (14, 14))
        print(f"10 rows added to {given.rows}: {rows_mib:.0f} MiB more, {rows_s:.1f} s of the processor")
        medtool = [sys.executable, "-m", "medtool"]
        for command in (
            ["demo", "demo", "--images", "60"],
            ["split", "make", "demo/manifest.csv", "--out", "demo/split.csv"],
        ):
            subprocess.run([*medtool, *command, "-q"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        pictures = sorted((folder / "demo/images").rglob("*.png"))
        images = (pictures * (max(given.images, given.many) // len(pictures) + 1))[: max(given.images, given.many)]
        small = trained(folder, "small", SMALL, 64)
        many_mib, again_s = in_own_process(many, small, images[: given.many], folder / "many.h5", (200, given.many))
        print(f"200 images, then {given.many}: {many_mib:.0f} MiB more (goal: at most {MAX_GROWTH_MIB})")
        print(f"a finished cache of {given.many}: {again_s / given.many * 1e3:.2f} ms of the processor an image")
        run = trained(folder, "run", given.model, given.size)
        taken = share(run, images[: given.images], folder)
    held = max(sizes.values()) <= MAX_BYTES and taken <= MAX_SHARE and max(many_mib, rows_mib) <= MAX_GROWTH_MIB
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())

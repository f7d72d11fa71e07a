"""Images a second of ``medtool predict`` beside a plain loop on the same network and images, in one run.

    python benchmarks/predict.py [--model mobilenetv2] [--size 224] [--images 512] [--rounds 3]
    python benchmarks/predict.py --run runs/first --folder photos/

The plain loop is what people write: PIL, torchvision's resize, to-tensor and normalise, a DataLoader of batches of 32
with two workers, the network as it is, softmax. medtool's time is that of the whole call behind the command: loading
and checking the network, reading, hashing, predicting, writing the table and the lineage; the loop's is that of the
loop alone. Both are in fp32, and the probabilities must agree within 1e-3. On a machine that does other work too, the
processors' time, of all threads and workers together, says more than the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from medtool.inputs import find_images
from medtool.runs.asked import Asked
from medtool.runs.folder import Run, run_at
from medtool.runs.network import load_network
from medtool.train.ensemble import members_of
from medtool.train.predict import Job, Watch, predict_images
from medtool.train.predict_options import PredictOptions

GOAL = 1.5
WITHIN = 1e-3


@dataclass(frozen=True)
class Spent:
    """What a peer took: by the clock, and of the processors."""

    wall_s: float
    processor_s: float

    @classmethod
    def since(cls, wall: float, times: os.times_result) -> Spent:
        """Return what was spent since a moment."""
        now = os.times()
        return cls(time.perf_counter() - wall, sum(now[:4]) - sum(times[:4]))


class Files(Dataset[torch.Tensor]):
    """Image files, prepared as the network wants them."""

    def __init__(self, paths: list[Path], run: Run) -> None:
        way = run.card.preprocessing
        self.paths = paths
        self.prepare = transforms.Compose(
            [
                transforms.Resize((way.height, way.width)),
                transforms.ToTensor(),
                transforms.Normalize(way.mean, way.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            return self.prepare(image.convert("RGB"))


def by_loop(network: torch.nn.Module, files: Files) -> tuple[Spent, np.ndarray]:
    """Return what the plain loop took, and the probabilities."""
    start = time.perf_counter(), os.times()
    found = []
    with torch.no_grad():
        for batch in DataLoader(files, batch_size=32, num_workers=2):
            found.append(torch.softmax(network(batch), dim=1))
    return Spent.since(*start), torch.cat(found).numpy()


class Quiet:
    """Progress that nobody looks at."""

    def advance(self, label: str = "") -> None:
        """Do nothing."""


@contextlib.contextmanager
def no_steps(total: int) -> Iterator[Quiet]:
    """Give progress that nobody looks at."""
    yield Quiet()


def by_medtool(run: Run, asked: list[Asked], out: Path, options: PredictOptions) -> tuple[Spent, np.ndarray]:
    """Return what the whole call took, and the probabilities."""
    start = time.perf_counter(), os.times()
    summary = predict_images(asked, members_of([run]), options, job=Job(out), watch=Watch(lambda line: None, no_steps))
    spent = Spent.since(*start)
    with summary.table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return spent, np.array([[float(row[f"probability/{name}"]) for name in run.card.classes] for row in rows])


def trained(folder: Path, model: str, size: int) -> Run:
    """Return a run of one epoch from chance: how well it answers does not matter here."""
    medtool = [sys.executable, "-m", "medtool"]
    network = ["--model", model, "--size", str(size), "--weights", "none", "--unfreeze", "1:head"]
    for command in (
        ["demo", "demo", "--images", "60"],
        ["split", "make", "demo/manifest.csv", "--out", "demo/split.csv"],
        ["train", "demo/split.csv", *network, "--epochs", "1", "--batch-size", "16", "--out", "run"],
    ):
        subprocess.run([*medtool, *command, "-q"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return run_at(folder / "run")


def main() -> int:
    """Measure and print; the exit status is 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="mobilenetv2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="images of your own")
    parser.add_argument("--run", type=Path, help="a run of your own; by default one of a single epoch")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.run and not given.folder:
        parser.error("--run needs --folder: images that it can answer for")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = run_at(given.run) if given.run else trained(folder, given.model, given.size)
        items = find_images([str(given.folder or folder / "demo" / "images")]).items
        items = (items * (given.images // len(items) + 1))[: given.images]
        asked = [Asked(f"{place}", str(item.relative), item.path) for place, item in enumerate(items)]
        files = Files([item.path for item in items], run)
        network = load_network(run.checkpoint, run.card)
        options = PredictOptions(calibrate=False)
        by_loop(network, Files(files.paths[:32], run))  # the first batches of a process are slower
        pairs = []
        for turn in range(given.rounds):
            loop, theirs = by_loop(network, files)
            own, ours = by_medtool(run, asked, folder / f"out{turn}", options)
            pairs.append((loop, own))
            print(f"round {turn + 1}: plain loop {loop.wall_s:.2f} s, medtool {own.wall_s:.2f} s", flush=True)
        apart = float(np.abs(ours - theirs).max())
    way = run.card.preprocessing
    what = f"{run.card.architecture} at {way.width} px, {len(items)} images, fp32"
    print(f"{what}, {torch.get_num_threads()} threads, medians of {given.rounds} rounds:")
    ratio = shown("by the clock", [(loop.wall_s, own.wall_s) for loop, own in pairs], len(items))
    shown("by the processors' time", [(loop.processor_s, own.processor_s) for loop, own in pairs], len(items))
    print(f"probabilities, {theirs.min():.3f} to {theirs.max():.3f}, differ by at most {apart:.1e} (goal: {WITHIN})")
    return 0 if ratio >= GOAL and apart <= WITHIN else 1


def shown(how: str, pairs: list[tuple[float, float]], n_images: int) -> float:
    """Print images a second of both, and return the median of the rounds' ratios."""
    ratios = sorted(loop / own for loop, own in pairs)
    loop, own = (n_images / statistics.median(pair[place] for pair in pairs) for place in (0, 1))
    ratio = statistics.median(ratios)
    rounds = ", ".join(f"{each:.2f}" for each in ratios)
    print(f"{how}: plain loop {loop:.1f} images/s, medtool {own:.1f}, ratio {ratio:.2f} (rounds {rounds}; goal {GOAL})")
    return ratio


if __name__ == "__main__":
    sys.exit(main())

"""Images a second of ``medtool predict`` beside a plain loop on the same network and images, in one run.

    python benchmarks/predict.py [--model mobilenetv2] [--size 224] [--images 512] [--folder FOLDER] [--rounds 3]

The plain loop is what people write: PIL, torchvision's resize, to-tensor and normalise, a DataLoader of batches of 32
with two workers, the network as it is, softmax. medtool's time is that of the whole call behind the command: loading
and checking the network, reading, hashing, predicting, writing the table and the lineage; the loop's is that of the
loop alone. Both are in fp32, and the probabilities must agree within 1e-3.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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


def by_loop(network: torch.nn.Module, files: Files) -> tuple[float, np.ndarray]:
    """Return the seconds of the plain loop, and the probabilities."""
    start = time.perf_counter()
    found = []
    with torch.no_grad():
        for batch in DataLoader(files, batch_size=32, num_workers=2):
            found.append(torch.softmax(network(batch), dim=1))
    return time.perf_counter() - start, torch.cat(found).numpy()


class Quiet:
    """Progress that nobody looks at."""

    def advance(self, label: str = "") -> None:
        """Do nothing."""


@contextlib.contextmanager
def no_steps(total: int) -> Iterator[Quiet]:
    """Give progress that nobody looks at."""
    yield Quiet()


def by_medtool(run: Run, asked: list[Asked], out: Path, options: PredictOptions) -> tuple[float, np.ndarray]:
    """Return the seconds of the whole call, and the probabilities."""
    start = time.perf_counter()
    summary = predict_images(asked, members_of([run]), options, job=Job(out), watch=Watch(lambda line: None, no_steps))
    seconds = time.perf_counter() - start
    with summary.table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return seconds, np.array([[float(row[f"probability/{name}"]) for name in run.card.classes] for row in rows])


def trained(folder: Path, model: str, size: int, n_images: int) -> Run:
    """Return a run of one epoch from chance: how well it answers does not matter here."""
    medtool = [sys.executable, "-m", "medtool"]
    network = ["--model", model, "--size", str(size), "--weights", "none"]
    for command in (
        ["demo", "demo", "--images", str(n_images)],
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
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = trained(folder, given.model, given.size, 60)
        items = find_images([str(given.folder or folder / "demo" / "images")]).items
        items = (items * (given.images // len(items) + 1))[: given.images]
        asked = [Asked(f"{place}", str(item.relative), item.path) for place, item in enumerate(items)]
        files = Files([item.path for item in items], run)
        network = load_network(run.checkpoint, run.card)
        options = PredictOptions(calibrate=False)
        by_loop(network, Files(files.paths[:64], run))  # the first batches of a process are slower
        pairs = []
        for turn in range(given.rounds):
            loop_s, theirs = by_loop(network, files)
            ours_s, ours = by_medtool(run, asked, folder / f"out{turn}", options)
            pairs.append((loop_s, ours_s))
            print(f"round {turn + 1}: plain loop {loop_s:.2f} s, medtool {ours_s:.2f} s, ratio {loop_s / ours_s:.2f}")
        apart = float(np.abs(ours - theirs).max())
    n_images = len(items)
    loop_s, ours_s = (statistics.median(pair[place] for pair in pairs) for place in (0, 1))
    ratio = statistics.median(loop_s / ours_s for loop_s, ours_s in pairs)
    print(f"{given.model} at {given.size} px, {n_images} images, fp32, {torch.get_num_threads()} threads, medians:")
    print(f"plain loop        {n_images / loop_s:7.1f} images/s")
    print(f"medtool predict   {n_images / ours_s:7.1f} images/s")
    print(f"ratio             {ratio:7.2f} (goal: at least {GOAL})")
    print(f"probabilities differ by at most {apart:.1e} (goal: {WITHIN})")
    return 0 if ratio >= GOAL and apart <= WITHIN else 1


if __name__ == "__main__":
    sys.exit(main())

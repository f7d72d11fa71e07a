"""Images a second of training, beside a plain loop of timm and a DataLoader, on the same images in one run.

Both train the same network of timm from the same start on the same JPEGs, with AdamW, the same batch, size and
precision, and vary each image: the loop by torchvision's transforms (resize, flip, quarter turn, affine, colours), the
same kinds that ``--augment standard`` draws. The loop reads with as many DataLoader workers as there are processors; it
runs with images laid out as people leave them, and channels last, as medtool is told to. Peers take turns, ratios are
of the same turn, and each turn's first epoch, in which workers start and caches fill, is left out. Without
../shared/data the images are noise.

    python benchmarks/train.py [--model mobilenetv2_100] [--size 128] [--images 256] [--turns 3]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from medtool.cli.app import run
from medtool.parallel import cpu_count

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PICTURE = (1024, 768)
EPOCHS = 3
PLAIN = "timm + DataLoader"
LEAST_CACHED = 1.2


def main() -> int:
    """Print the figures of all peers; the exit code is 1 where medtool is slower than it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenetv2_100", help="as timm calls it")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medtool-bench-") as folder:
        manifest = make_images(Path(folder), given.images)
        found: dict[str, list[float]] = {}
        for turn in range(given.turns):
            for name, speed in turns(given, manifest, turn):
                found.setdefault(name, []).append(speed)
                print(f"turn {turn + 1}: {name}: {speed:.1f} images/s", flush=True)
    print(f"\n{given.model}, {given.size} px, batch {given.batch_size}, {given.precision}, {given.device},")
    print(f"{torch.get_num_threads()} threads; medians over {given.turns} turns, and ratios of one turn")
    ratios = {}
    for name, speeds in found.items():
        of_turns = sorted(own / loop for own, loop in zip(speeds, found[PLAIN], strict=True))
        ratios[name] = statistics.median(of_turns)
        span = f"({of_turns[0]:.2f} to {of_turns[-1]:.2f})"
        print(f"{name:32} {statistics.median(speeds):8.1f} images/s  {ratios[name]:5.2f}x {span}")
    return 0 if ratios["medtool --cache none"] >= 1 and ratios["medtool --cache ram"] >= LEAST_CACHED else 1


def turns(given: argparse.Namespace, manifest: Path, turn: int) -> Iterator[tuple[str, float]]:
    """Yield each peer's images a second in one turn."""
    yield PLAIN, plain_loop(given, manifest)
    yield f"{PLAIN}, channels last", plain_loop(given, manifest, layout=torch.channels_last)
    for cache in ("none", "ram", "disk"):
        yield f"medtool --cache {cache}", medtool(given, manifest, cache, turn)


def plain_loop(
    given: argparse.Namespace, manifest: Path, *, layout: torch.memory_format = torch.contiguous_format
) -> float:
    """Return the median images a second of a plain training loop's epochs after the first."""
    torch.manual_seed(905)
    device = torch.device(given.device)
    network = timm.create_model(given.model, num_classes=2).to(device, memory_format=layout).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    loss = torch.nn.CrossEntropyLoss()
    loader = DataLoader(
        Pictures(manifest, given.size),
        batch_size=given.batch_size,
        shuffle=True,
        num_workers=cpu_count(),
        persistent_workers=True,
        pin_memory=device.type == "cuda",
        drop_last=True,
    )
    speeds = []
    for _ in range(EPOCHS):
        began, count = time.perf_counter(), 0
        for images, targets in loader:
            with torch.autocast(device.type, torch.bfloat16, enabled=given.precision == "bf16"):
                moved = images.to(device, non_blocking=True, memory_format=layout)
                value = loss(network(moved), targets.to(device))
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            count += len(images)
        if device.type == "cuda":
            torch.cuda.synchronize()
        speeds.append(count / (time.perf_counter() - began))
    return statistics.median(speeds[1:])


class Pictures(Dataset):
    """Images as most training scripts read them."""

    def __init__(self, manifest: Path, size: int) -> None:
        with manifest.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["split"] == "train"]
        self.paths = [manifest.parent / row["image"] for row in rows]
        self.targets = [int(row["label"] == "b") for row in rows]
        self.transform = v2.Compose(
            [
                v2.Resize((size, size), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.Lambda(lambda image: image.rotate(90 * random.randrange(4))),
                v2.RandomAffine(30, translate=(0.08, 0.08), scale=(0.8, 1.25), shear=5),
                v2.ColorJitter(0.2, 0.2, 0.2, 0.02),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.targets[index]


def medtool(given: argparse.Namespace, manifest: Path, cache: str, turn: int) -> float:
    """Return the median images a second of medtool's epochs after the first."""
    out = manifest.parent / f"run-{cache}-{turn}"
    arguments = [
        *("train", str(manifest), "--model", f"timm/{given.model}", "--weights", "none", "--size", str(given.size)),
        *("--batch-size", str(given.batch_size), "--epochs", str(EPOCHS), "--precision", given.precision),
        *("--device", given.device, "--channels-last", "--cache", cache, "--out", str(out), "-q"),
    ]
    stdout = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            code = run(arguments)
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)
    assert code == 0, code
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return statistics.median(line["images_per_s"] for line in lines[1:])


def make_images(folder: Path, count: int) -> Path:
    """Write JPEGs of 1024 × 768 and their manifest: most are in train, a few in val and test."""
    (folder / "images").mkdir()
    sources = sorted((SHARED / "isic2017" / "images").glob("*.jpg"))[: count + 16]
    rows = ["image,label,split"]
    for index in range(count + 16):
        if sources:
            with Image.open(sources[index % len(sources)]) as image:
                picture = image.convert("RGB").resize(PICTURE, Image.Resampling.BICUBIC)
        else:
            picture = Image.effect_noise(PICTURE, 40).convert("RGB")
        picture.save(folder / f"images/{index:04}.jpg", quality=92)
        part = "train" if index < count else ("val", "test")[index % 4 > 1]
        rows.append(f"images/{index:04}.jpg,{'ab'[index % 2]},{part}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "manifest.csv"


if __name__ == "__main__":
    sys.exit(main())

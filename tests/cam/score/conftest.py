"""A small network that was trained on pictures with a bright square, and heatmaps of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SIZE = 96
FEW = ("--model", "timm/test_resnet", "--size", SIZE, "--batch-size", 8, "--threads", 2, "--device", "cpu", "-q")


def write_pictures(folder: Path, *, n_patients: int = 20, seed: int = 1) -> Path:
    """Write two pictures of each patient, their masks and a manifest with a split; return the manifest."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows = ["image,image_id,patient,label,mask,split"]
    for index in range(2 * n_patients):
        patient = index // 2
        label = ("benign", "malignant")[patient % 2]
        pixels = rng.integers(60, 120, (80, SIZE, 3)).astype(np.uint8)
        y, x = rng.integers(4, 40, 2)
        mask = np.zeros((80, SIZE), np.uint8)
        mask[y : y + 30, x : x + 36] = 255
        pixels[mask > 0, (2, 0)[patient % 2]] = 220
        Image.fromarray(pixels).save(folder / f"images/{index:02}.png")
        Image.fromarray(mask).save(folder / f"masks/{index:02}.png")
        where = ("train", "train", "val", "test", "test")[patient // 2 % 5]
        rows.append(f"images/{index:02}.png,i{index:02},P{patient:02},{label},masks/{index:02}.png,{where}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def medtool(*words: object) -> int:
    """Run a command in this process."""
    from medtool.cli.app import run

    return run([str(word) for word in words])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread: for networks this small more of them only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest of 40 pictures of 20 patients, 16 of them in test."""
    return write_pictures(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="session")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on these pictures."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert medtool("train", pictures, *FEW, "--epochs", 4, "--lr", 0.01, "--out", folder) == 0
    return folder


def heatmaps(run: Path, manifest: Path, out: Path, *more: object) -> Path:
    """Return the heatmaps of a run for the parts val and test of a manifest."""
    words = ("cam", run, manifest, "--split", "val,test", "--device", "cpu", "--out", out, "-q")
    assert medtool(*words, *more) == 0
    return out


@pytest.fixture(scope="session")
def gradcam(trained: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return Grad-CAM's heatmaps."""
    return heatmaps(trained, pictures, tmp_path_factory.mktemp("cams") / "gradcam.h5", "--method", "gradcam")


@pytest.fixture(scope="session")
def eigencam(trained: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return Eigen-CAM's heatmaps, which have nothing to do with the classifier."""
    return heatmaps(trained, pictures, tmp_path_factory.mktemp("cams") / "eigencam.h5", "--method", "eigencam")

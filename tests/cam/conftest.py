"""Small runs that heatmaps are made with: trained on pictures whose class is a red square."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import Ended
from tests.train.conftest import MODEL, write_pictures

Run = Callable[..., Ended]
SIZE = 96  # three cells a side at the last layer
FEW = ("--batch-size", 8, "--threads", 2, "--device", "cpu", "--epochs", 1, "--lr", 0.01, "-q")


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Compute with one thread: for networks this small more of them only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(manifest: Path, out: Path, *more: object) -> Path:
    """Return a run on a manifest."""
    from medtool.cli.app import run

    words = ("train", manifest, "--out", out, *FEW, *(("--model", MODEL, "--size", SIZE) if not more else ()), *more)
    assert run([str(word) for word in words]) == 0
    return out


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest of 20 pictures of 10 patients with a split, an age and a sex."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), n_patients=10)


@pytest.fixture(scope="session")
def runs(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def one(manifest: Path, runs: Path, one_thread: None) -> Path:
    """Return a run."""
    return trained(manifest, runs / "one")


@pytest.fixture(scope="session")
def two(manifest: Path, runs: Path, one_thread: None) -> Path:
    """Return a run of another seed and input size."""
    return trained(manifest, runs / "two", "--model", MODEL, "--size", 128, "--seed", 7)


@pytest.fixture(scope="session")
def fused(manifest: Path, runs: Path, one_thread: None) -> Path:
    """Return a run that takes metadata beside the image."""
    options = ("--model", f"fusion/{MODEL}", "--metadata", "age,sex", "--size", SIZE)
    return trained(manifest, runs / "fused", *options)


@pytest.fixture(scope="session")
def transformer(manifest: Path, runs: Path, one_thread: None) -> Path:
    """Return a run of a vision transformer, which is made for one size of images."""
    return trained(manifest, runs / "transformer", "--model", "timm/test_vit", "--size", SIZE)

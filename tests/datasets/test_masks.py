"""Images and masks, paired by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medtool.datasets.masks import MasksDataset
from medtool.errors import InputError, UsageError


def _pairs(root: Path, **options: str) -> dict[str, str]:
    return {row["image"]: row.get("mask", "") for row in MasksDataset().manifest(root, **options).rows()}


@pytest.mark.parametrize(
    "names",
    [
        ("images/a.jpg", "masks/a.png"),
        ("images/a.jpg", "masks/a_segmentation.png"),
        ("imgs/p1/a.jpg", "labels/p1/a_mask.png"),
        ("images/a_image.nii.gz", "ground_truth/a_label.nii.gz"),
        ("a.jpg", "a_mask.png"),
        ("case1/a.jpg", "case1/a_seg.png"),
        ("h_001_image.nii.gz", "h_001_label.nii.gz"),
        ("a.jpg", "masks/a.png"),
    ],
)
def test_pairs_are_found_by_their_names(make: Callable[..., Path], names: tuple[str, str]) -> None:
    image, mask = names
    assert _pairs(make(*names)) == {image: mask}


def test_folders_and_endings_can_be_said(make: Callable[..., Path]) -> None:
    root = make("x/a-in.png", "x/a-other.png", "y/a-out.png", "y/a-note.png")
    assert _pairs(root, images="x", masks="y", image_ending="-in", mask_ending="-out") == {"x/a-in.png": "y/a-out.png"}
    for folder in ("nowhere", ".."):
        with pytest.raises(UsageError, match="--set images="):
            _pairs(root, images=folder)


def test_an_image_without_a_mask_is_kept_and_a_mask_without_an_image_is_a_problem(make: Callable[..., Path]) -> None:
    root = make("images/a.png", "images/b.png", "masks/a.png", "masks/c.png")
    assert _pairs(root) == {"images/a.png": "masks/a.png", "images/b.png": ""}
    manifest = MasksDataset().manifest(root)
    assert [problem.image_id for problem in manifest.problems] == ["masks/c.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("images/a.png", "images/a.jpg", "masks/a.png"), "would share a mask"),
        (("images/a.png", "masks/a.png", "masks/a_mask.png"), "are both masks of images/a.png"),
        (("images/a.png", "masks/b.png"), "no mask has the name of an image"),
        (("images/a.png",), "no mask has the name of an image"),
    ],
)
def test_pairs_that_are_not_clear_are_refused(make: Callable[..., Path], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        MasksDataset().manifest(make(*names))
    assert "--set" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("folder", "count", "options"),
    [
        ("nuclei", 120, {}),
        ("monuseg", 8, {"patient": "TCGA-..-...."}),
        ("nifti-hippocampus", 6, {}),
        ("isic2017-hires", 36, {}),
        ("ham10000", 2511, {"mask_ending": "_segmentation"}),
    ],
)
def test_real_pairs_are_complete(shared_data: Path, folder: str, count: int, options: dict[str, str]) -> None:
    manifest = MasksDataset().manifest(shared_data / folder, **options)
    assert len(manifest) == count
    assert len(manifest.counts("mask")) == count
    assert manifest.problems == ()
    assert len(manifest.counts("patient")) == (count if options.get("patient") else 0)

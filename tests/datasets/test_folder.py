"""Class folders, with and without splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medtool.datasets.folder import FolderDataset
from medtool.errors import InputError, UsageError


def test_the_folders_name_is_the_label(make: Callable[..., Path]) -> None:
    root = make("nevus/b.png", "nevus/deep/a.png", "melanoma/c.jpg", "readme.txt")
    assert FolderDataset().manifest(root).table.to_dicts() == [
        {"image": "melanoma/c.jpg", "image_id": "melanoma/c.jpg", "label": "melanoma"},
        {"image": "nevus/b.png", "image_id": "nevus/b.png", "label": "nevus"},
        {"image": "nevus/deep/a.png", "image_id": "nevus/deep/a.png", "label": "nevus"},
    ]


def test_folders_named_like_splits_are_splits(make: Callable[..., Path]) -> None:
    root = make("train/a/1.png", "valid/a/2.png", "Test/b/3.png", "train/4.png")
    manifest = FolderDataset().manifest(root)
    assert {row["image"]: (row["split"], row["label"]) for row in manifest.rows()} == {
        "train/a/1.png": ("train", "a"),
        "valid/a/2.png": ("val", "a"),
        "Test/b/3.png": ("test", "b"),
        "train/4.png": ("train", ""),
    }
    assert manifest.notes == ("1 of 4 images lie in no class folder: without a label",)


def test_classes_that_are_called_like_splits_can_be_told_apart(make: Callable[..., Path]) -> None:
    root = make("train/1.png", "bus/2.png")
    with pytest.raises(UsageError, match="'train' is named like a split and 'bus' is not"):
        FolderDataset().manifest(root)
    assert FolderDataset().manifest(root, splits="no").counts("label") == {"bus": 1, "train": 1}
    with pytest.raises(UsageError, match="'bus' is not"):
        FolderDataset().manifest(root, splits="yes")
    with pytest.raises(UsageError, match="must be yes, no or auto"):
        FolderDataset().manifest(root, splits="maybe")


@pytest.mark.parametrize(
    ("pattern", "columns"),
    [
        (r"P\d+", {"patient": "P12"}),
        (r"P(\d+)", {"patient": "12"}),
        (
            r"(?P<site>[A-Z]+)-(?P<patient>P\d+)_x(?P<magnification>\d+)",
            {"site": "UKB", "patient": "P12", "magnification": "40"},
        ),
    ],
)
def test_patients_and_other_columns_are_read_out_of_the_path(
    make: Callable[..., Path], pattern: str, columns: dict[str, str]
) -> None:
    root = make("a/UKB-P12_x40.png", "a/other.png")
    found, other = sorted(FolderDataset().manifest(root, patient=pattern).rows(), key=lambda row: row["image"])
    assert {name: found[name] for name in columns} == columns
    assert all(other[name] == "" for name in columns)
    assert "not found in 1 of 2 paths" in FolderDataset().manifest(root, patient=pattern).notes[0]


@pytest.mark.parametrize("pattern", ["(", "(?P<image>x)", "(?P<split>x)"])
def test_a_pattern_that_cannot_be_used_is_refused(make: Callable[..., Path], pattern: str) -> None:
    with pytest.raises(UsageError, match="--set patient="):
        FolderDataset().manifest(make("a/x.png"), patient=pattern)


def test_no_image_and_no_folder_are_told_apart(make: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image found"):
        FolderDataset().manifest(make("a/x.txt"))
    with pytest.raises(InputError, match="does not exist"):
        FolderDataset().manifest(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not a folder"):
        FolderDataset().manifest(tmp_path / "root" / "a" / "x.txt")


def test_what_a_manifest_cannot_name_is_a_problem(make: Callable[..., Path], tmp_path: Path) -> None:
    root = make("a/x.png", "b/y.png")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "z.png").touch()
    try:
        (root / "c").symlink_to(tmp_path / "outside", target_is_directory=True)
    except OSError:
        pytest.skip("this system does not let us make links")
    manifest = FolderDataset().manifest(root)
    assert manifest.counts("label") == {"a": 1, "b": 1}
    assert [(problem.image_id, problem.reason) for problem in manifest.problems] == [
        ("c/z.png", "a link leads out of the manifest's folder")
    ]


def test_a_folder_that_holds_pairs_is_pointed_to_the_right_data_set(make: Callable[..., Path]) -> None:
    root = make("images/a.png", "masks/a.png")
    assert any("medtool manifest masks" in note for note in FolderDataset().manifest(root).notes)


def test_real_breakhis_names_give_label_patient_and_magnification(shared_data: Path) -> None:
    pattern = r"SOB_(?P<label>[BM])_(?P<type>[A-Z]+)-\d+-(?P<patient>\w+)-(?P<magnification>\d+)-"
    manifest = FolderDataset().manifest(shared_data / "breakhis", patient=pattern)
    assert len(manifest) == 30
    assert sum(manifest.counts("label").values()) == 30
    assert len(manifest.counts("type")) == 8
    assert set(manifest.counts("magnification")) <= {"40", "100", "200", "400"}
    assert manifest.notes == ()

"""ISIC 2017 as published, and in three short names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medtool.datasets.isic2017 import Isic2017
from medtool.errors import InputError, ManifestError

TRUTH = "image_id,melanoma,seborrheic_keratosis\n"


def test_the_published_layout_gives_labels_masks_metadata_and_splits(make: Callable[..., Path]) -> None:
    root = make(
        "ISIC-2017_Training_Data/ISIC_1.jpg",
        "ISIC-2017_Training_Data/ISIC_1_superpixels.png",
        "ISIC-2017_Training_Data/ISIC_2.jpg",
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_1_segmentation.png",
        "ISIC-2017_Training_Part2_GroundTruth/ISIC_1_features.json",
        "ISIC-2017_Validation_Data/ISIC-2017_Validation_Data/ISIC_3.jpg",
        "ISIC-2017_Test_v2_Data/ISIC_4.jpg",
        texts={
            "ISIC-2017_Training_Part3_GroundTruth.csv": TRUTH + "ISIC_1,1.0,0.0\nISIC_2,0.0,0.0\n",
            "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv": (
                "image_id,age_approximate,sex\nISIC_1,55,female\nISIC_2,unknown,unknown\n"
            ),
            "ISIC-2017_Validation_Part3_GroundTruth.csv": TRUTH + "ISIC_3,0,1\n",
        },
    )
    manifest = Isic2017().manifest(root)
    mask = "ISIC-2017_Training_Part1_GroundTruth/ISIC_1_segmentation.png"
    assert [tuple(row.values()) for row in manifest.rows()] == [
        ("ISIC-2017_Training_Data/ISIC_1.jpg", "ISIC_1", "melanoma", mask, "train", "55", "female"),
        ("ISIC-2017_Training_Data/ISIC_2.jpg", "ISIC_2", "nevus", "", "train", "", ""),
        (
            "ISIC-2017_Validation_Data/ISIC-2017_Validation_Data/ISIC_3.jpg",
            "ISIC_3",
            "seborrheic_keratosis",
            "",
            "val",
            "",
            "",
        ),
        ("ISIC-2017_Test_v2_Data/ISIC_4.jpg", "ISIC_4", "", "", "test", "", ""),
    ]
    assert manifest.columns == ["image", "image_id", "label", "mask", "split", "age", "sex"]
    assert manifest.problems == ()
    assert len(manifest.notes) == 1
    assert "no table of diagnoses" in manifest.notes[0]


def test_rows_without_an_image_and_images_without_a_row_are_both_said(make: Callable[..., Path]) -> None:
    root = make(
        "images/ISIC_1.jpg",
        "images/ISIC_9.jpg",
        "masks/ISIC_7_segmentation.png",
        texts={"labels.csv": TRUTH + "ISIC_1,0,0\nISIC_2,1,0\n"},
    )
    manifest = Isic2017().manifest(root)
    assert [(row["image_id"], row["label"]) for row in manifest.rows()] == [("ISIC_1", "nevus"), ("ISIC_9", "")]
    assert [problem.image_id for problem in manifest.problems] == ["ISIC_2"]
    assert manifest.notes == (
        "1 image not named in labels.csv: kept without a label",
        "1 mask without an image: left out",
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("ISIC_1,1,1\n", "line 2: ISIC_1 is both melanoma and seborrheic keratosis"),
        ("ISIC_1,0,2\n", "line 2: seborrheic_keratosis is '2'; it must be 0 or 1"),
        ("ISIC_1,0,0\nISIC_1,1,0\n", "line 3: image_id 'ISIC_1' is taken already"),
        (",0,0\n", "line 2: image_id is empty"),
    ],
)
def test_a_wrong_table_of_diagnoses_is_refused_with_its_line(
    make: Callable[..., Path], rows: str, message: str
) -> None:
    root = make("images/ISIC_1.jpg", texts={"labels.csv": TRUTH + rows})
    with pytest.raises(ManifestError, match=message):
        Isic2017().manifest(root)


def test_another_layout_and_another_table_are_refused(make: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="holds neither ISIC-2017_Training_Data"):
        Isic2017().manifest(make("pictures/a.jpg"))
    with pytest.raises(ManifestError, match="no column is called 'melanoma'"):
        Isic2017().manifest(make("images/a.jpg", texts={"labels.csv": "image_id,dx\na,mel\n"}))


def test_the_real_training_set_has_its_published_counts(shared_data: Path) -> None:
    manifest = Isic2017().manifest(shared_data / "isic2017")
    assert manifest.counts("label") == {"melanoma": 374, "nevus": 1372, "seborrheic_keratosis": 254}
    assert len(manifest.counts("mask")) == 2000
    assert set(manifest.counts("sex")) == {"female", "male"}
    assert "patient" not in manifest.columns
    assert "split" not in manifest.columns
    assert (manifest.problems, manifest.notes) == ((), ())
    assert set(manifest.counts("label")) == set(Isic2017.classes)


def test_the_real_high_resolution_part_has_no_ages(shared_data: Path) -> None:
    manifest = Isic2017().manifest(shared_data / "isic2017-hires")
    assert len(manifest) == 36
    assert manifest.columns == ["image", "image_id", "label", "mask"]

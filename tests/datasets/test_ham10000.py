"""HAM10000: lesions are known, patients are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medtool.datasets.ham10000 import Ham10000
from medtool.errors import InputError, ManifestError

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
ROW = "HAM_1,ISIC_1,mel,histo,60.0,male,unknown\n"


@pytest.mark.parametrize("table", ["HAM10000_metadata.csv", "HAM10000_metadata"])
def test_the_published_layout_gives_lesions_and_no_patients(make: Callable[..., Path], table: str) -> None:
    root = make(
        "HAM10000_images_part_1/ISIC_1.jpg",
        "HAM10000_images_part_2/ISIC_2.jpg",
        "HAM10000_segmentations_lesion_tschandl/HAM10000_segmentations_lesion_tschandl/ISIC_2_segmentation.png",
        texts={table: HEADER + ROW + "HAM_1,ISIC_2,mel,histo,,unknown,back\n"},
    )
    manifest = Ham10000().manifest(root)
    one, two = manifest.rows()
    assert one == {
        "image": "HAM10000_images_part_1/ISIC_1.jpg",
        "image_id": "ISIC_1",
        "label": "mel",
        "mask": "",
        "lesion": "HAM_1",
        "dx_type": "histo",
        "age": "60",
        "sex": "male",
        "localization": "",
    }
    assert (two["mask"][-23:], two["age"], two["sex"]) == ("ISIC_2_segmentation.png", "", "")
    assert "patient" not in manifest.columns
    assert any("2 images of 1 lesion;" in note for note in manifest.notes)


def test_rows_whose_image_is_missing_are_problems(make: Callable[..., Path]) -> None:
    root = make(
        "images/ISIC_1.jpg", texts={"HAM10000_metadata.csv": HEADER + ROW + "HAM_2,ISIC_2,nv,histo,5,male,back\n"}
    )
    manifest = Ham10000().manifest(root)
    assert [problem.image_id for problem in manifest.problems] == ["ISIC_2"]
    assert len(manifest) == 1


def test_what_is_not_this_data_set_is_refused(make: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"does not hold HAM10000_metadata\.csv"):
        Ham10000().manifest(make("images/ISIC_1.jpg"))
    make(texts={"HAM10000_metadata.csv": HEADER + "HAM_1,ISIC_1,wart,histo,5,male,back\n"})
    with pytest.raises(ManifestError, match="line 2: dx is 'wart'; it must be one of akiec"):
        Ham10000().manifest(make())


def test_one_image_in_both_parts_is_refused(make: Callable[..., Path]) -> None:
    root = make(
        "HAM10000_images_part_1/ISIC_1.jpg",
        "HAM10000_images_part_2/ISIC_1.jpg",
        texts={"HAM10000_metadata": HEADER + ROW},
    )
    with pytest.raises(InputError, match="are both 'ISIC_1'"):
        Ham10000().manifest(root)


def test_the_real_part_has_its_images_and_lesions(shared_data: Path) -> None:
    manifest = Ham10000().manifest(shared_data / "ham10000")
    assert len(manifest) == 2511
    assert len(manifest.counts("lesion")) == 1867
    assert len(manifest.counts("mask")) == 2511
    assert set(manifest.counts("label")) == set(Ham10000.classes)
    assert manifest.problems == ()
    assert all(age.isdecimal() for age in manifest.counts("age"))

"""Any table, its columns named by options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medtool.datasets.csv import CsvDataset
from medtool.errors import ManifestError, UsageError
from medtool.manifest import Manifest


def _manifest(root: Path, **options: str) -> Manifest:
    return CsvDataset().manifest(root, **options)


def test_columns_are_mapped_and_the_rest_is_metadata(make: Callable[..., Path]) -> None:
    root = make("img/1.png", "m/1.png", texts={"t.csv": "file,dx,pid,seg,age\nimg/1.png,mel,007,m/1.png,55\n"})
    manifest = _manifest(root, table="t.csv", image="file", label="dx", patient="pid", mask="seg")
    assert list(manifest.rows()) == [
        {
            "image": "img/1.png",
            "image_id": "img/1.png",
            "patient": "007",
            "label": "mel",
            "mask": "m/1.png",
            "age": "55",
        }
    ]


def test_paths_are_made_from_templates(make: Callable[..., Path]) -> None:
    root = make("img/x_1.jpg", "m/1.png", texts={"t.csv": "id,site,kind\n1,UKB,x\n"})
    (row,) = _manifest(root, image_template="img/{kind}_{id}.jpg", mask_template="m/{id}.png", image_id="id").rows()
    assert row == {"image": "img/x_1.jpg", "image_id": "1", "site": "UKB", "mask": "m/1.png", "kind": "x"}


def test_one_hot_columns_become_one_label(make: Callable[..., Path]) -> None:
    root = make("1.png", "2.png", "3.png", texts={"t.csv": "image,MEL,NV\n1.png,1.0,0.0\n2.png,0,1\n3.png,0,\n"})
    assert [row["label"] for row in _manifest(root, label_columns="MEL, NV").rows()] == ["MEL", "NV", ""]
    assert [row["label"] for row in _manifest(root, label_columns="MEL", negative="other").rows()] == [
        "MEL",
        "other",
        "other",
    ]
    (root / "t.csv").write_text("image,MEL,NV\n1.png,0,0\n2.png,1,1\n")
    with pytest.raises(ManifestError, match="line 3: MEL and NV are all 1"):
        _manifest(root, label_columns="MEL,NV")
    (root / "t.csv").write_text("image,MEL,NV\n1.png,0.7,0\n")
    with pytest.raises(ManifestError, match=r"line 2: MEL is '0\.7'; it must be 0 or 1"):
        _manifest(root, label_columns="MEL,NV")


def test_splits_of_other_spelling_are_understood_and_unknown_ones_refused(make: Callable[..., Path]) -> None:
    root = make("1.png", "2.png", texts={"t.csv": "image,fold,split\n1.png,0,Training\n2.png,1,validation\n"})
    assert [row["split"] for row in _manifest(root).rows()] == ["train", "val"]
    (root / "t.csv").write_text("image,split\n1.png,holdout\n")
    with pytest.raises(ManifestError, match="line 2: split is 'holdout'"):
        _manifest(root)


def test_missing_images_are_problems_and_unnamed_ones_are_noted(make: Callable[..., Path]) -> None:
    root = make("d/1.png", "d/3.png", "d/notes.txt", texts={"t.csv": "image,label\nd/1.png,a\nd/2.png,b\n"})
    manifest = _manifest(root)
    assert [(problem.image_id, problem.reason) for problem in manifest.problems] == [("d/2.png", "does not exist")]
    assert manifest.notes == ("1 image beside those of the table in no row, left out; the first: d/3.png",)


def test_windows_and_absolute_paths_below_the_folder_are_made_relative(make: Callable[..., Path]) -> None:
    root = make("d/1.png", "d/2.png", "3.png")
    (root / "t.csv").write_text(f"image\nd\\1.png\n{root / 'd' / '2.png'}\n{root.parent / 'x.png'}\n../root/3.png\n")
    manifest = _manifest(root)
    assert [row["image"] for row in manifest.rows()] == ["d/1.png", "d/2.png"]
    assert len(manifest.problems) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "none.csv"}, "--set table=none.csv: .* is not a file"),
        ({"image": "fil"}, "has no column 'fil'; did you mean 'file'"),
        ({"image": "file", "image_template": "{file}"}, "both say where the image comes from"),
        ({"image": "file", "label": "dx", "label_columns": "a"}, "both say where the label comes from"),
        ({"image": "file", "negative": "x"}, "give label_columns too"),
        ({"image_template": "{flie}.png"}, "has no column 'flie'; did you mean 'file'"),
        ({"image": "file", "patients": "dx"}, "has no option 'patients'"),
        ({}, "has no column 'image'"),
    ],
)
def test_options_that_cannot_be_are_refused(make: Callable[..., Path], options: dict[str, str], message: str) -> None:
    root = make("1.png", texts={"t.csv": "file,dx,a\n1.png,mel,0\n"})
    with pytest.raises(UsageError, match=message):
        _manifest(root, **options)


def test_one_of_several_tables_must_be_named(make: Callable[..., Path]) -> None:
    root = make("1.png", texts={"a.csv": "image\n1.png\n", "manifest.csv": "image\n1.png\n"})
    assert len(_manifest(root)) == 1
    (root / "b.csv").write_text("image\n1.png\n")
    with pytest.raises(UsageError, match=r"which table\? .*a\.csv, b\.csv"):
        _manifest(root)


def test_an_image_named_twice_is_refused_with_both_lines(make: Callable[..., Path]) -> None:
    root = make("1.png", texts={"t.csv": "image\n1.png\n1.png\n"})
    with pytest.raises(ManifestError, match=r"line 3: '1\.png' is named already \(.*line 2\)"):
        _manifest(root)


def test_a_column_whose_name_is_taken_is_left_out_with_a_note(make: Callable[..., Path]) -> None:
    root = make("1.png", texts={"t.csv": "image,label,dx\n1.png,old,new\n"})
    manifest = _manifest(root, label="dx")
    assert [row["label"] for row in manifest.rows()] == ["new"]
    assert manifest.notes == ("the column 'label' of t.csv is left out: label comes from elsewhere",)


def test_the_real_isic_table_gives_what_its_own_data_set_gives(shared_data: Path) -> None:
    from medtool.datasets.isic2017 import Isic2017

    root = shared_data / "isic2017"
    ours = _manifest(
        root,
        table="labels.csv",
        image_template="images/{image_id}.jpg",
        mask_template="masks/{image_id}_segmentation.png",
        label_columns="melanoma,seborrheic_keratosis",
        negative="nevus",
    )
    columns = ["image", "image_id", "label", "mask"]
    assert ours.table.select(columns).equals(Isic2017().manifest(root).table.select(columns))
    assert ours.notes == ()

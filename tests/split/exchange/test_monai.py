"""MONAI's datalists: what is written, what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medtool.errors import InputError, ManifestError, UsageError
from medtool.manifest import Manifest
from medtool.split.exchange.format import Imported
from medtool.split.exchange.monai import export, read
from medtool.split.exchange.options import ExportOptions, ImportOptions, LabelSource, Naming, Unnamed
from tests.split.exchange.manifests import manifest_of, roles_by_fold

GOLDEN = """{
    "training": [
        {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz", "fold": 0},
        {"image": "imagesTr/b.nii.gz", "label": "labelsTr/b.nii.gz", "fold": 1},
        {"image": "imagesTr/c.nii.gz", "label": "labelsTr/c.nii.gz"}
    ],
    "testing": [
        {"image": "imagesTs/d.nii.gz"}
    ]
}
"""


def volumes(tmp_path: Path, *rows: dict[str, str]) -> Manifest:
    """Return a manifest of three training volumes with masks and a test volume without."""
    made = [
        {"image": f"imagesTr/{name}.nii.gz", "image_id": f"{name}{name}", "mask": f"labelsTr/{name}.nii.gz"}
        for name in "abc"
    ]
    made.append({"image": "imagesTs/d.nii.gz", "image_id": "dd"})
    return Manifest.from_rows([row | more for row, more in zip(made, rows or [{}] * 4, strict=True)], tmp_path)


def imported(tmp_path: Path, document: Any, manifest: Manifest, **options: Any) -> Imported:
    path = tmp_path / "datalist.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read(manifest, [path], ImportOptions(**options))


def test_the_file_is_the_datalist_that_monai_reads_and_reads_back(tmp_path):
    manifest = volumes(tmp_path, {"fold": "0"}, {"fold": "1"}, {"split": "train"}, {"split": "test"})
    made = export(manifest, ExportOptions())
    assert made.files == {"datalist.json": GOLDEN.encode()}
    assert made.notes == ("1 image of the split has no mask: items without label",)
    back = imported(tmp_path, GOLDEN, volumes(tmp_path))
    assert back.manifest.table.select("split", "fold").rows() == [("", "0"), ("", "1"), ("train", ""), ("test", "")]
    assert back.notes == ()


def test_a_hold_out_split_has_a_list_a_part_and_none_for_an_empty_one():
    rows = [{"split": "train"}, {"split": "test"}, {"split": "test"}, {}]
    document = json.loads(export(manifest_of(rows), ExportOptions()).files["datalist.json"])
    assert document == {
        "training": [{"image": "images/im_000.png"}],
        "testing": [{"image": "images/im_001.png"}, {"image": "images/im_002.png"}],
    }


def test_a_class_is_its_number_among_the_sorted_names():
    rows = [{"split": "train", "label": "nevus"}, {"split": "train"}, {"split": "val", "label": "melanoma"}]
    rows.append({"label": "basal"})  # in no part, but a class all the same
    made = export(manifest_of(rows), ExportOptions())
    assert json.loads(made.files["datalist.json"]) == {
        "labels": {"0": "basal", "1": "melanoma", "2": "nevus"},
        "training": [{"image": "images/im_000.png", "label": 2}, {"image": "images/im_001.png"}],
        "validation": [{"image": "images/im_002.png", "label": 1}],
    }
    assert "1 image of the split has no label: items without label" in made.notes
    assert any("is_segmentation=False" in note for note in made.notes)


def test_masks_come_before_classes_unless_asked_otherwise(tmp_path):
    rows = [{"split": "train", "label": "x", "mask": "m/0.png"}, {"split": "val", "label": "y", "mask": "m/1.png"}]

    def labels(source: LabelSource) -> list[Any]:
        document = json.loads(export(manifest_of(rows), ExportOptions(label=source)).files["datalist.json"])
        return [item.get("label") for key in ("training", "validation") for item in document[key]]

    assert labels(LabelSource.AUTO) == labels(LabelSource.MASK) == ["m/0.png", "m/1.png"]
    assert labels(LabelSource.CLASS) == [0, 1]
    assert labels(LabelSource.NONE) == [None, None]
    for source in (LabelSource.MASK, LabelSource.NONE):
        notes = export(manifest_of(rows), ExportOptions(label=source)).notes
        assert not any("is_segmentation" in note for note in notes)
    with pytest.raises(UsageError, match="--label mask: the manifest has no masks"):
        export(manifest_of([{"split": "train"}]), ExportOptions(label=LabelSource.MASK))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"fold": "0", "val_fold": "1"}, {"fold": "1"}, {"fold": "2"}], r"'im_000' is test in fold 0; val in fold 1"),
        ([{"fold": "0"}, {"fold": "1"}, {"split": "val"}, {"split": "test"}], r"'im_002' is val in folds 0, 1"),
        ([{"fold": "0"}, {"fold": "1"}, {"split": "test", "fold": "2"}], "fold 2 holds out no image"),
    ],
)
def test_folds_that_no_datalist_can_hold_are_refused(rows, words):
    with pytest.raises(ManifestError, match=words):
        export(manifest_of(rows), ExportOptions())


def test_one_of_such_folds_can_be_written():
    rows = [{"fold": "0", "val_fold": "1"}, {"fold": "1"}, {"fold": "2"}]
    document = json.loads(export(manifest_of(rows), ExportOptions(fold=1)).files["datalist.json"])
    assert {key: [item["image"] for item in items] for key, items in document.items()} == {
        "training": ["images/im_002.png"],
        "validation": ["images/im_000.png"],
        "testing": ["images/im_001.png"],
    }


def test_folds_that_auto3dseg_would_not_take_are_written_and_said():
    made = export(manifest_of([{"fold": "1"}, {"fold": "3"}]), ExportOptions())
    assert [item["fold"] for item in json.loads(made.files["datalist.json"])["training"]] == [1, 3]
    assert "MONAI's AutoRunner wants folds from 0 on without gaps; these are 1, 3" in made.notes


@pytest.mark.parametrize(
    "text", ["imagesTr/a.nii.gz", "./imagesTr/a.nii.gz", "imagesTr//x/../a.nii.gz", "imagesTr\\a.nii.gz"]
)
def test_paths_are_compared_in_their_simplest_form(tmp_path, text):
    made = imported(tmp_path, {"training": [{"image": text}]}, volumes(tmp_path))
    assert roles_by_fold(made.manifest) == {None: ["train", "", "", ""]}
    assert not any("found by" in note for note in made.notes)


def test_paths_may_be_relative_to_the_datalists_folder_or_to_another_that_is_given(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    document = {"training": [{"image": "a.nii.gz"}, {"image": str(tmp_path.resolve() / "imagesTr" / "b.nii.gz")}]}
    made = imported(tmp_path / "imagesTr", document, volumes(tmp_path))
    assert roles_by_fold(made.manifest) == {None: ["train", "train", "", ""]}
    assert "images are found by path from the datalist's folder, not by image_id" in made.notes
    made = imported(tmp_path, document, volumes(tmp_path), base=tmp_path / "imagesTr")
    assert roles_by_fold(made.manifest) == {None: ["train", "train", "", ""]}
    with pytest.raises(ManifestError, match=r"no image 'a\.nii\.gz' \(1 of 2 names is unknown, by path from"):
        imported(tmp_path, document, volumes(tmp_path), base=tmp_path)


def test_images_are_found_by_file_name_whatever_the_folder_and_ending_and_it_is_said(tmp_path):
    document = {"training": [{"image": "/elsewhere/a.png"}, {"image": "../b.nii"}], "test": ["C:\\data\\d.nii.gz"]}
    made = imported(tmp_path, document, volumes(tmp_path))
    assert roles_by_fold(made.manifest) == {None: ["train", "train", "", "test"]}
    assert "images are found by file name without ending, not by image_id" in made.notes


def test_images_of_one_name_in_several_folders_are_not_guessed(tmp_path):
    manifest = Manifest.from_rows([{"image": f"case_{n}/imaging.nii.gz"} for n in range(2)], tmp_path)
    document = {"training": ["/data/case_0/imaging.nii.gz"]}
    with pytest.raises(ManifestError, match=r"may mean 'case_0/imaging\.nii\.gz' or 'case_1/imaging\.nii\.gz'"):
        imported(tmp_path, document, manifest)
    with pytest.raises(ManifestError, match=r"may mean 'case_0/imaging\.nii\.gz' or 'case_1/imaging\.nii\.gz'"):
        imported(tmp_path, document, manifest, naming=Naming.STEM)


def test_image_ids_are_taken_too(tmp_path):
    made = imported(tmp_path, {"training": ["aa"], "validation": ["bb"]}, volumes(tmp_path), naming=Naming.ID)
    assert roles_by_fold(made.manifest) == {None: ["train", "val", "", ""]}


def test_all_images_of_an_item_get_its_role_and_further_ones_may_be_missing(tmp_path):
    document = {"training": [{"image": ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "imagesTr/z.nii.gz"], "fold": 0}]}
    made = imported(tmp_path, document, volumes(tmp_path))
    assert made.manifest.table.get_column("fold").to_list() == ["0", "0", "", ""]
    assert "1 further path of images of several files are not in the manifest" in made.notes
    with pytest.raises(ManifestError, match="has no image 'imagesTr/z"):
        imported(tmp_path, {"training": [{"image": ["imagesTr/z.nii.gz", "imagesTr/a.nii.gz"]}]}, volumes(tmp_path))


@pytest.mark.parametrize("keys", [("training", "validation", "testing"), ("train", "val", "test")])
def test_the_parts_have_the_names_of_published_datalists(tmp_path, keys):
    document = dict(zip(keys, (["aa"], ["bb"], ["cc"]), strict=True))
    made = imported(tmp_path, document, volumes(tmp_path))
    assert roles_by_fold(made.manifest) == {None: ["train", "val", "test", ""]}


def test_one_fold_can_be_taken(tmp_path):
    made = imported(tmp_path, GOLDEN, volumes(tmp_path), fold=1)
    assert roles_by_fold(made.manifest) == {None: ["train", "val", "train", "test"]}
    with pytest.raises(UsageError, match=r"has no such fold \(there are: 0, 1\)"):
        imported(tmp_path, GOLDEN, volumes(tmp_path), fold=2)


def test_images_that_are_not_listed_are_test_when_asked(tmp_path):
    made = imported(tmp_path, {"training": ["aa"], "val": ["bb"]}, volumes(tmp_path), unnamed=Unnamed.TEST)
    assert roles_by_fold(made.manifest) == {None: ["train", "val", "test", "test"]}


def test_an_image_in_training_and_in_testing_is_named_with_both_places(tmp_path):
    document = {"testing": ["aa"], "training": [{"image": "bb", "fold": 1}, {"image": "aa", "fold": 0}]}
    with pytest.raises(ManifestError) as raised:
        imported(tmp_path, document, volumes(tmp_path))
    where = f"{tmp_path / 'datalist.json'}: "
    assert f'{where}["training"][1]: \'aa\' is in fold 0 of training, and in test at {where}["testing"][0]' in str(
        raised.value
    )


def test_an_image_that_two_folds_hold_out_is_refused(tmp_path):
    document = {"training": [{"image": "aa", "fold": 0}, {"image": "aa", "fold": 1}]}
    with pytest.raises(ManifestError, match="'aa' is in fold 1 of training, and in fold 0 of training at"):
        imported(tmp_path, document, volumes(tmp_path))


def test_an_image_twice_in_training_counts_once_and_is_said(tmp_path):
    made = imported(tmp_path, {"training": ["aa", "bb", "aa"]}, volumes(tmp_path))
    assert made.folds[0].train == 2
    assert any("1 name is given again in its part" in note and '["training"][2]' in note for note in made.notes)


def test_other_lists_and_keys_are_passed_over_and_lists_said(tmp_path):
    document = {
        "name": "x",
        "labels": {"0": "background"},
        "modality": ["CT"],
        "numTest": 0,
        "training": [{"image": "aa", "label": [0, 1], "box": [[1.5]], "fold": None}],
        "unlabeled": [{"image": "bb"}],
    }
    made = imported(tmp_path, document, volumes(tmp_path))
    assert roles_by_fold(made.manifest) == {None: ["train", "", "", ""]}
    assert any("the list 'unlabeled' is not read" in note for note in made.notes)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "holds a list; a datalist is an object with 'training'"),
        ({"images": []}, r"has no key 'training' \(there are: 'images'\)"),
        ({"training": {}}, r'\["training"\] is an object; it must be a list of items'),
        ({"training": [{"img": "a"}]}, r'\["training"\]\[0\] has no key \'image\' \(there are: \'img\'\)'),
        ({"training": ["aa", 3]}, r'\["training"\]\[1\]\["image"\] is 3; it must be a path or a list of paths'),
        ({"training": [None]}, r'\["training"\]\[0\]\["image"\] is null'),
        ({"training": [{"image": []}]}, r'\["training"\]\[0\]\["image"\] is an empty list'),
        ({"training": [{"image": ["aa", {}]}]}, r'\["image"\] is an object'),
        ({"training": [""]}, r"\[\"image\"\] is ''"),
        (
            {"training": [{"image": "aa", "fold": "0"}]},
            r'\["training"\]\[0\]\["fold"\] is \'0\'; it must be a whole number',
        ),
        ({"training": [{"image": "aa", "fold": -1}]}, r'\["fold"\] is -1'),
        ({"training": [{"image": "aa", "fold": 0.5}]}, r'\["fold"\] is 0.5'),
        ({"training": [{"image": "aa", "fold": True}]}, r'\["fold"\] is True'),
        ({"training": [{"image": "aa", "fold": [0]}]}, r'\["fold"\] is a list'),
        ({"training": [{"image": "aa", "fold": 10**50}]}, r'\["fold"\] is 10+; 9,999 is the most'),
        (
            {"training": ["aa"], "train": ["bb"]},
            "has the lists 'training' and 'train', which are two names of one part",
        ),
        ({"training": ["aa"], "testing": [], "test": ["bb"]}, "has the lists 'testing' and 'test'"),
        ({"training": [{"image": "aa", "fold": 0}], "validation": ["bb"]}, "says fold in .* and has a validation list"),
        ({"training": ["aa"], "validation_fold0": ["bb"]}, "has a list for each fold, such as 'validation_fold0'"),
        ({"training": [], "testing": []}, "names no image"),
        ({"training": ["aa", "x\0.png"]}, r"\[1\]: the manifest has no image 'x\\x00.png'"),
    ],
)
def test_what_is_no_datalist_is_refused_with_its_place(tmp_path, document, words):
    with pytest.raises(InputError, match=words):
        imported(tmp_path, document, volumes(tmp_path))


def test_two_files_are_one_too_many(tmp_path):
    with pytest.raises(UsageError, match="monai has one file for all parts; 2 were given"):
        read(volumes(tmp_path), [tmp_path, tmp_path], ImportOptions())


def test_numbers_of_folds_are_bounded_alike_both_ways(tmp_path):
    manifest = manifest_of([{"fold": "0"}, {"fold": "9999"}], tmp_path)
    back = imported(tmp_path, export(manifest, ExportOptions()).files["datalist.json"].decode(), manifest)
    assert roles_by_fold(back.manifest) == roles_by_fold(manifest)
    with pytest.raises(ManifestError, match="has a fold 10000; in a datalist, 9,999 is the most"):
        export(manifest_of([{"fold": "0"}, {"fold": "10000"}], tmp_path), ExportOptions())


def test_one_file_in_two_rows_with_different_roles_is_refused():
    rows = [{"image": "a.png", "split": "train"}, {"image": "a.png", "split": "val"}]
    with pytest.raises(ManifestError, match=r"one name, 'a\.png', for images with different roles"):
        export(manifest_of(rows), ExportOptions())

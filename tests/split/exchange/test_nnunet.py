"""nnU-Net's splits_final.json: what is written, what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medtool.errors import InputError, ManifestError, MedtoolError, UsageError
from medtool.manifest import Manifest
from medtool.split.exchange.nnunet import export, read
from medtool.split.exchange.options import ExportOptions, ImportOptions, Naming, Unnamed
from tests.split.exchange.manifests import manifest_of, roles_by_fold

GOLDEN = """[
    {
        "train": [
            "la_004",
            "la_009"
        ],
        "val": [
            "la_003"
        ]
    },
    {
        "train": [
            "la_003"
        ],
        "val": [
            "la_004",
            "la_009"
        ]
    }
]
"""


def exported(manifest: Manifest, **options: Any) -> list[dict[str, list[str]]]:
    made = export(manifest, ExportOptions(**options))
    document: list[dict[str, list[str]]] = json.loads(made.files["splits_final.json"])
    return document


def imported(tmp_path: Path, document: Any, manifest: Manifest, **options: Any) -> Manifest:
    path = tmp_path / "splits_final.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read(manifest, [path], ImportOptions(**options)).manifest


def cases(*names: str) -> Manifest:
    return manifest_of([{"image_id": name} for name in names])


def test_the_file_is_the_list_that_nnunet_reads_and_reads_back(tmp_path):
    manifest = manifest_of([{"image_id": f"la_{n:03}", "fold": fold} for n, fold in ((3, "0"), (4, "1"), (9, "1"))])
    made = export(manifest, ExportOptions())
    assert made.files == {"splits_final.json": GOLDEN.encode()}
    back = imported(tmp_path, GOLDEN, cases("la_003", "la_004", "la_009", "la_010"))
    assert back.table.get_column("fold").to_list() == ["0", "1", "1", ""]
    assert "split" not in back.columns


def test_the_val_part_inside_training_is_val_and_the_part_held_out_is_in_no_list():
    rows = [{"fold": "0", "val_fold": "1"}, {"fold": "1", "val_fold": "2"}, {"fold": "2", "val_fold": "0"}]
    made = export(manifest_of(rows), ExportOptions())
    assert json.loads(made.files["splits_final.json"]) == [
        {"train": ["im_001"], "val": ["im_002"]},
        {"train": ["im_002"], "val": ["im_000"]},
        {"train": ["im_000"], "val": ["im_001"]},
    ]
    assert "each fold's test part (1, 1, 1 images) is left out of its entry: nnU-Net's file has none" in made.notes


def test_a_fixed_test_part_is_left_out_and_counted():
    rows = [{"split": "test"}, {"split": "test"}, {"fold": "0"}, {"fold": "1"}, {}]
    made = export(manifest_of(rows), ExportOptions())
    assert b"im_000" not in made.files["splits_final.json"]
    assert "the test part, 2 images, is left out: nnU-Net's file has none" in made.notes
    assert made.n_unused == 1


def test_folds_that_do_not_count_from_0_are_said_to_be_renumbered():
    made = export(manifest_of([{"fold": "1"}, {"fold": "2"}, {"fold": "5"}]), ExportOptions())
    assert "nnU-Net counts folds from 0: 1, 2, 5 of the manifest are 0 to 2 in the file" in made.notes
    assert "train folds 0 to 2 only: for any other, nnU-Net draws a random split of its own" in made.notes


def test_five_folds_from_0_need_no_word_about_numbers():
    made = export(manifest_of([{"fold": str(fold)} for fold in range(5)]), ExportOptions())
    assert made.notes == ("what a fold holds out is its val part in nnU-Net's words",)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"split": "train"}, {"split": "test"}], "the split has no val part"),
        ([{"split": "val"}], "the split has no train part"),
        ([{"fold": "0"}, {"fold": "1"}, {"split": "test", "fold": "2"}], "fold 2 has no val part"),
        ([{"label": "x"}], "has no split"),
    ],
)
def test_a_part_that_nnunet_cannot_be_without_is_named(rows, words):
    with pytest.raises(ManifestError, match=words):
        exported(manifest_of(rows))


def test_files_named_as_nnunet_names_them_give_the_case_without_channel_once():
    rows = [
        {"image": f"imagesTr/la_{case:03}_{channel:04}.nii.gz", "image_id": f"{case}-{channel}", "fold": str(case % 2)}
        for case in range(4)
        for channel in range(2)
    ]
    made = export(manifest_of(rows), ExportOptions())
    assert json.loads(made.files["splits_final.json"])[0] == {
        "train": ["la_001", "la_003"],
        "val": ["la_000", "la_002"],
    }
    assert "cases are called by file name without ending and channel, not by image_id" in made.notes


def test_numbers_of_photographs_are_not_taken_for_channels():
    rows = [{"image": f"IMG_{n:04}.png", "image_id": f"IMG_{n:04}", "fold": str(n % 2)} for n in range(4)]
    assert exported(manifest_of(rows))[0] == {"train": ["IMG_0001", "IMG_0003"], "val": ["IMG_0000", "IMG_0002"]}


@pytest.mark.parametrize("channels", [("0001", "0001"), ("0000", "0001"), ("0007", "0000")])
def test_endings_that_do_not_count_from_0000_are_no_channels(channels):
    rows = [
        {"image": f"scan{case}_{channel}.png", "image_id": f"{case}", "fold": str(case)}
        for case, channel in enumerate(channels)
    ]
    one, other = (f"scan{case}_{channel}" for case, channel in enumerate(channels))
    assert exported(manifest_of(rows), naming=Naming.STEM)[0] == {"train": [other], "val": [one]}


def test_channels_of_one_case_with_different_roles_are_refused():
    rows = [
        {"image": f"la_{case}_{channel:04}.png", "image_id": f"{case}{channel}", "fold": str(case if case else channel)}
        for case in range(2)
        for channel in range(2)
    ]
    with pytest.raises(ManifestError, match=r"one name, 'la_0', for images with different roles: 'la_0_0000\.png' is"):
        exported(manifest_of(rows))


def test_an_image_id_that_is_a_path_gives_way_to_the_file_name():
    manifest = Manifest.from_rows([{"image": "a/x.nii.gz", "fold": "0"}, {"image": "b/y.nii.gz", "fold": "1"}], Path())
    made = export(manifest, ExportOptions())
    assert json.loads(made.files["splits_final.json"]) == [
        {"train": ["y"], "val": ["x"]},
        {"train": ["x"], "val": ["y"]},
    ]
    assert "cases are called by file name without ending, not by image_id" in made.notes
    with pytest.raises(UsageError, match=r"'a/x\.nii\.gz' cannot be the name of a case"):
        exported(manifest, naming=Naming.ID)


def test_two_files_of_one_name_are_refused_where_the_name_is_written():
    manifest = Manifest.from_rows([{"image": "a/x.png", "fold": "0"}, {"image": "b/x.png", "fold": "1"}], Path())
    with pytest.raises(ManifestError, match=r"'a/x\.png' and 'b/x\.png' would both be called 'x' in the file"):
        exported(manifest)


def test_a_file_name_that_is_the_image_id_of_another_is_refused():
    rows = [
        {"image": "a.png", "image_id": "b", "fold": "0"},
        {"image": "b.png", "image_id": "a", "fold": "1"},
        {"image": "c.png", "image_id": "x/c"},
    ]
    with pytest.raises(
        ManifestError, match=r"'a.png' would be called 'a' in the file, which is the image_id of 'b.png'"
    ):
        exported(manifest_of(rows))


def test_cases_are_found_by_file_name_with_and_without_channel_and_it_is_said(tmp_path):
    document = [{"train": ["la_1"], "val": ["la_0"]}, {"train": ["la_0"], "val": ["la_1"]}]
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(document))
    for ending in ("", "_0000"):
        manifest = Manifest.from_rows([{"image": f"t/la_{n}{ending}.nii.gz"} for n in range(2)], tmp_path)
        made = read(manifest, [tmp_path], ImportOptions())
        assert made.manifest.table.get_column("fold").to_list() == ["0", "1"]
        without = "file name without ending" + (" and channel" if ending else "")
        assert f"images are found by {without}, not by image_id" in made.notes


def test_every_channel_of_a_case_gets_its_role(tmp_path):
    manifest = Manifest.from_rows(
        [{"image": f"t/la_{case}_{channel:04}.png"} for case in range(2) for channel in range(3)], tmp_path
    )
    back = imported(tmp_path, [{"train": ["la_1"], "val": ["la_0"]}], manifest)
    assert roles_by_fold(back) == {None: ["val"] * 3 + ["train"] * 3}


def test_a_case_that_is_always_in_train_stays_so_and_one_in_no_list_is_unused(tmp_path):
    document = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}]
    back = imported(tmp_path, document, cases("a", "b", "c", "d"))
    assert roles_by_fold(back) == {0: ["test", "train", "train", ""], 1: ["train", "test", "train", ""]}


def test_a_case_that_one_entry_leaves_out_is_the_test_part_of_that_fold(tmp_path):
    document = [{"train": ["b"], "val": ["c"]}, {"train": ["c"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]
    back = imported(tmp_path, document, cases("a", "b", "c"))
    assert back.table.select("fold", "val_fold").rows() == [("0", "1"), ("1", "2"), ("2", "0")]
    with pytest.raises(UsageError, match="leave out 3 images that others name"):
        imported(tmp_path, document, cases("a", "b", "c", "d"), unnamed=Unnamed.TEST)


def test_images_that_no_entry_names_are_test_when_asked(tmp_path):
    document = [{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]
    back = imported(tmp_path, document, cases("a", "b", "c"), unnamed=Unnamed.TEST)
    assert roles_by_fold(back) == {0: ["val", "train", "test"], 1: ["train", "val", "test"]}


def test_test_images_of_the_manifest_that_become_unused_are_counted(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('[{"train": ["im_000"], "val": ["im_001"]}]')
    manifest = manifest_of([{"split": "train"}, {"split": "val"}, {"split": "test"}, {}])
    made = read(manifest, [path], ImportOptions())
    expected = (
        "2 images are not named: in no part (1 of them test in the manifest; --unnamed test makes all of them so)"
    )
    assert expected in made.notes
    assert "the manifest's own split is replaced" in made.notes


def test_entries_that_are_all_the_same_are_one_hold_out_split(tmp_path):
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 5))
    made = read(cases("a", "b"), [path], ImportOptions())
    assert roles_by_fold(made.manifest) == {None: ["train", "val"]}
    assert any("all 5 folds" in note for note in made.notes)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        # A case that is val in two folds; the first in the manifest's order is named, and they are counted.
        (
            [
                {"train": ["b", "c"], "val": ["a"]},
                {"train": ["c"], "val": ["a", "b"]},
                {"train": ["a", "b"], "val": ["c"]},
            ],
            r"image 'a' is val in folds 0, 1; train in fold 2; a manifest with folds can say .* \(1 image that",
        ),
        # One entry leaves a case out, while others are left out by none.
        (
            [{"train": ["b"], "val": ["c"]}, {"train": ["a", "c"], "val": ["b"]}],
            r"image 'a' is train in fold 1; in no part in fold 0; .* \(1 image left out by some folds, 2 by none\)",
        ),
        (
            [{"train": ["c"], "val": ["a", "b"]}, {"train": ["a"], "val": ["c", "b"]}],
            r"image 'b' is val in every fold, others in one",
        ),
        ([{"train": ["a"], "val": ["b"]}, {"train": ["a", "b"], "val": []}], "fold 1 holds out no image"),
    ],
)
def test_folds_that_no_manifest_can_hold_are_refused_with_the_case_and_a_way_out(tmp_path, document, words):
    with pytest.raises(ManifestError, match=words) as raised:
        imported(tmp_path, document, cases("a", "b", "c"))
    assert "--fold" in str(raised.value.hint)


def test_one_fold_of_them_can_be_taken(tmp_path):
    document = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["c"], "val": ["a", "b"]}]
    back = imported(tmp_path, document, cases("a", "b", "c", "d"), fold=1)
    assert roles_by_fold(back) == {None: ["val", "val", "train", ""]}
    with pytest.raises(UsageError, match=r"--fold 2: .* has 2 folds, counted from 0"):
        imported(tmp_path, document, cases("a", "b", "c", "d"), fold=2)


def test_a_case_in_both_parts_of_a_fold_is_named_with_both_places(tmp_path):
    document = [{"train": ["a", "b", "c"], "val": ["c", "b"]}]
    with pytest.raises(ManifestError) as raised:
        imported(tmp_path, document, cases("a", "b", "c"))
    assert f"{tmp_path / 'splits_final.json'}: [0][\"val\"][0]: 'c' is in val, and in train at " in raised.value.message
    assert '[0]["train"][2] (2 images of that kind)' in raised.value.message


def test_a_split_of_one_patient_over_two_parts_comes_in_so_that_it_can_be_audited(tmp_path):
    manifest = manifest_of([{"image_id": "a", "patient": "P1"}, {"image_id": "b", "patient": "P1"}])
    back = imported(tmp_path, [{"train": ["a"], "val": ["b"]}], manifest)
    assert back.table.select("patient", "split").rows() == [("P1", "train"), ("P1", "val")]


def test_unknown_cases_are_named_and_counted(tmp_path):
    document = [{"train": ["a", "x", "y"], "val": ["b"]}]
    with pytest.raises(ManifestError) as raised:
        imported(tmp_path, document, cases("a", "b"))
    assert (
        "[0][\"train\"][1]: the manifest has no image 'x' (2 of 4 names are unknown, by image_id)"
        in raised.value.message
    )
    assert "such as 'a'" in str(raised.value.hint)


def test_a_name_twice_in_one_list_counts_once_and_is_said(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('[{"train": ["a", "b", "a"], "val": ["c"]}]')
    made = read(cases("a", "b", "c"), [path], ImportOptions())
    assert made.folds[0].train == 2
    assert any(
        "1 name is given again in its part, and counts once" in note and '["train"][2]' in note for note in made.notes
    )


def test_further_keys_are_said_not_to_be_read(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('[{"train": ["a"], "val": ["b"], "test": ["c"]}]')
    made = read(cases("a", "b", "c"), [path], ImportOptions())
    assert any("'test' is not read; nnU-Net reads train and val" in note for note in made.notes)
    assert roles_by_fold(made.manifest) == {None: ["train", "val", ""]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "holds an object; nnU-Net's is a list with an object a fold"),
        ("[]", "holds an empty list"),
        ("[1]", r"\[0\] is a number; it must be an object with 'train' and 'val'"),
        ('[{"train": ["a"], "validation": ["b"]}]', r"\[0\] has no key 'val' \(there are: 'train', 'validation'\)"),
        ('[{"train": "a", "val": []}]', r'\[0\]\["train"\] is a text; it must be a list of case identifiers'),
        ('[{"train": ["a", 12], "val": []}]', r'\[0\]\["train"\]\[1\] is a number 12; identifiers are text'),
        ('[{"train": [null], "val": []}]', r'\[0\]\["train"\]\[0\] is null; identifiers are text'),
        ('[{"train": [["a"]], "val": []}]', r'\[0\]\["train"\]\[0\] is a list; identifiers are text'),
        ('[{"train": [""], "val": []}]', r"is a text ''; identifiers are text"),
        ('[{"train": [], "val": []}]', "names no image"),
    ],
)
def test_what_is_not_nnunets_is_refused_with_its_place(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        imported(tmp_path, text, cases("a", "b"))


def test_two_files_are_one_too_many(tmp_path):
    with pytest.raises(UsageError, match="nnunet has one file for all folds; 2 were given"):
        read(cases("a"), [tmp_path, tmp_path], ImportOptions())


@pytest.mark.parametrize("name", ["a\x1b[2J", "../../etc/passwd", "=1+1", "a\u202eb", "x" * 100_000])
def test_a_hostile_name_is_no_more_than_an_unknown_one(tmp_path, name):
    with pytest.raises(MedtoolError) as raised:
        imported(tmp_path, [{"train": [name], "val": ["a"]}], cases("a"))
    assert "the manifest has no image" in raised.value.message
    assert "\x1b" not in raised.value.message
    assert len(raised.value.message) < 500


def test_a_leak_in_another_fold_does_not_keep_one_from_being_taken(tmp_path):
    document = [{"train": ["a"], "val": ["b"]}, {"train": ["a"], "val": ["a", "x"]}]
    assert roles_by_fold(imported(tmp_path, document, cases("a", "b"), fold=0)) == {None: ["train", "val"]}


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "splits_final.pkl"
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="is a pickle"):
        read(cases("a"), [path], ImportOptions())


def test_more_folds_than_memory_are_refused_before_any_is_taken(tmp_path):
    document = [{"train": ["a"], "val": []}] * 300_000
    with pytest.raises(ManifestError, match="300,000 folds of 1,000 images are more than can be held"):
        imported(tmp_path, document, cases("a", *(f"b{number}" for number in range(999))))


def test_the_folds_that_nnunet_draws_by_itself_come_in_as_they_are(tmp_path):
    """nnU-Net's own split is scikit-learn's KFold, shuffled with the seed 12345, of the sorted cases."""
    from sklearn.model_selection import KFold

    names = [f"case_{number:03}" for number in range(23)]
    drawn = list(KFold(5, shuffle=True, random_state=12345).split(names))
    document = [{"train": [names[at] for at in train], "val": [names[at] for at in val]} for train, val in drawn]
    back = imported(tmp_path, document, cases(*names))
    held_out = {names[at]: str(fold) for fold, (_, val) in enumerate(drawn) for at in val}
    assert back.table.get_column("fold").to_list() == [held_out[name] for name in names]
    assert exported(back) == document

"""Which images train, choose and measure."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.errors import ManifestError
from medtool.manifest import Manifest
from medtool.roles import folds_of, has_fixed_test, parts_of, roles_of


def manifest_of(*rows: dict[str, str]) -> Manifest:
    return Manifest.from_rows([{"image": f"{number}.png", **row} for number, row in enumerate(rows)], Path())


def test_without_folds_a_role_is_the_split():
    manifest = manifest_of({"split": "train"}, {"split": "val"}, {"split": "test"}, {"split": ""})
    assert roles_of(manifest).to_list() == ["train", "val", "test", ""]
    assert parts_of(manifest).to_list() == ["train", "val", "test", ""]


def test_the_fold_held_out_is_the_test_part_and_the_others_train_or_choose():
    manifest = manifest_of({"fold": "0"}, {"fold": "1"}, {"fold": "1", "val_fold": "0"}, {"fold": "2"}, {"fold": ""})
    assert folds_of(manifest) == [0, 1, 2]
    assert roles_of(manifest, 0).to_list() == ["test", "train", "val", "train", ""]
    assert roles_of(manifest, 1).to_list() == ["train", "test", "test", "train", ""]
    assert parts_of(manifest).to_list() == ["fold 0", "fold 1", "fold 1, val of fold 0", "fold 2", ""]


def test_with_a_fixed_test_part_the_fold_held_out_chooses():
    manifest = manifest_of({"split": "test"}, {"split": "train", "fold": "0"}, {"split": "train", "fold": "1"})
    assert has_fixed_test(manifest)
    assert roles_of(manifest, 0).to_list() == ["test", "val", "train"]
    assert roles_of(manifest, 1).to_list() == ["test", "train", "val"]
    assert parts_of(manifest).to_list() == ["test", "fold 0", "fold 1"]


def test_a_row_of_the_test_part_with_a_fold_is_never_trained_on():
    manifest = manifest_of({"split": "test", "fold": "0"}, {"fold": "0"}, {"fold": "1"})
    assert roles_of(manifest, 1).to_list() == ["test", "train", "val"]


def test_a_row_that_always_trains_needs_no_fold():
    manifest = manifest_of({"split": "train"}, {"fold": "0"}, {"fold": "1"})
    assert roles_of(manifest, 0).to_list() == ["train", "test", "train"]


@pytest.mark.parametrize(
    ("row", "fold", "words"),
    [
        ({"split": "train"}, 0, r"no fold 0 \(there are: none\)"),
        ({"fold": "1"}, 0, r"no fold 0 \(there are: 1\)"),
        ({"fold": "1"}, None, r"has folds \(1\); say which one"),
        ({"label": "x"}, None, "has no split"),
    ],
)
def test_a_fold_that_is_not_there_is_refused(row, fold, words):
    with pytest.raises(ManifestError, match=words):
        roles_of(manifest_of(row), fold)


row = st.fixed_dictionaries(
    {
        "split": st.sampled_from(["", "train", "val", "test"]),
        "fold": st.sampled_from(["", "0", "1", "2"]),
        "val_fold": st.sampled_from(["", "0", "1", "2"]),
    }
)


@given(st.lists(row, min_size=1, max_size=12))
def test_rows_of_one_part_have_one_role_in_every_fold(rows):
    manifest = manifest_of(*rows)
    parts = parts_of(manifest).to_list()
    folds = folds_of(manifest) or ([None] if manifest.counts("split") else [])
    histories: dict[str, set[tuple[str, ...]]] = {}
    roles = [roles_of(manifest, fold).to_list() for fold in folds]
    for number, part in enumerate(parts):
        histories.setdefault(part, set()).add(tuple(role[number] for role in roles))
    assert all(len(history) == 1 for history in histories.values())
    # The other way round, two parts differ in some fold, except where a val_fold says nothing new.
    for number, part in enumerate(parts):
        assert (part == "") == all(role[number] == "" for role in roles)

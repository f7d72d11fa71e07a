"""What the parts are used for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.split.findings import Severity
from medtool.split.rules.folds import folds_ensembled, folds_incomplete, groups_partly_used, validation_used_as_test
from tests.split.rules.tables import only, reordered, seen, table_of

FIVE = [{"fold": str(place % 5)} for place in range(10)]
WITH_VAL = [{"fold": str(place % 5), "val_fold": str((place + 1) % 5) if place < 5 else ""} for place in range(10)]
FIXED = [*FIVE, {"split": "test", "fold": ""}]


def test_folds_that_vote_together_need_a_fixed_test_part():
    (found,) = folds_ensembled(table_of(WITH_VAL), are_folds_ensembled=True)
    (case,) = found.cases
    assert (found.rule.code, found.severity, case.subject, case.rows) == ("F301", Severity.HIGH, "folds 0 to 4", ())
    assert "4 of them have trained on or chosen with it" in case.detail
    assert folds_ensembled(table_of(WITH_VAL), are_folds_ensembled=False) == []
    assert folds_ensembled(table_of(FIXED), are_folds_ensembled=True) == []
    assert folds_ensembled(table_of([{"split": "train"}]), are_folds_ensembled=True) == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (FIVE, {("F302", "medium"): {"held-out folds"}}),
        (WITH_VAL, {}),
        (FIXED, {}),
        ([{"split": "train"}, {"split": "val"}], {("F302", "medium"): {"val"}}),
        ([{"split": "train"}, {"split": "test"}], {("F302", "low"): {"test"}}),
        ([{"split": "train"}, {"split": "val"}, {"split": "test"}], {}),
        ([{"split": "test"}], {}),
        ([{"split": "train"}], {}),
        ([{"label": "a"}], {}),
    ],
)
def test_a_part_that_chooses_and_measures_is_told(rows, expected):
    assert seen(validation_used_as_test(table_of(rows))) == expected


def test_only_the_folds_without_a_val_part_are_named():
    rows = [{**row, "val_fold": "" if row["val_fold"] in ("1", "3") else row["val_fold"]} for row in WITH_VAL]
    assert (
        only(validation_used_as_test(table_of(rows)), "F302").cases[0].detail.startswith("folds 1 and 3: no val part")
    )


def test_a_patient_of_whom_some_images_were_chosen_is_told():
    rows = [
        {"patient": "a", "split": "train"},
        {"patient": "a", "split": ""},
        {"patient": "a", "split": ""},
        {"patient": "b", "split": "test"},
        {"patient": "c", "split": ""},
        {"patient": "", "split": "test"},
        {"patient": "", "split": ""},
    ]
    (case,) = only(groups_partly_used(table_of(rows)), "F303").cases
    assert (case.subject, case.rows, case.detail) == ("patient a", ("i0", "i1", "i2"), "1 in train, 2 in no part")
    assert groups_partly_used(table_of([{"patient": "a"}, {"patient": "a"}])) == []


def test_images_left_out_for_want_of_a_label_were_not_chosen():
    rows = [{"patient": "a", "split": "train", "label": "m"}, {"patient": "a", "split": "", "label": ""}]
    assert groups_partly_used(table_of(rows)) == []
    assert seen(groups_partly_used(table_of([rows[0], {**rows[1], "label": "n"}]))) == {
        ("F303", "medium"): {"patient a"}
    }


def test_a_labelled_image_left_out_for_an_unlabelled_one_was_chosen():
    rows = [{"patient": "a", "split": "train", "label": ""}, {"patient": "a", "split": "", "label": "m"}]
    assert seen(groups_partly_used(table_of(rows))) == {("F303", "medium"): {"patient a"}}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["train", "test", ""])), min_size=1), st.randoms())
def test_partly_used_patients_are_those_of_a_plain_group_by(pairs, random):
    table = table_of([{"patient": who, "split": part} for who, part in pairs])
    partly = {who for who, part in pairs if part} & {who for who, part in pairs if not part}
    found = groups_partly_used(table)
    assert {case.subject for one in found for case in one.cases} == {f"patient {who}" for who in partly}
    assert found == groups_partly_used(reordered(table, random.sample(range(len(pairs)), len(pairs))))


@pytest.mark.parametrize("rows", [FIVE, WITH_VAL, FIXED, [{"fold": "1"}, {"fold": "2"}], [{"split": "train"}]])
def test_folds_that_cover_the_images_once_each_are_right(rows):
    assert folds_incomplete(table_of(rows)) == []


@pytest.mark.parametrize(
    ("row", "subject"),
    [
        ({"fold": "7", "split": "", "val_fold": ""}, "numbers of the folds"),
        ({"fold": "1", "split": "test", "val_fold": ""}, "in a fold and in test"),
        ({"fold": "1", "split": "val", "val_fold": ""}, "in a fold and in val"),
        ({"fold": "", "split": "train", "val_fold": "1"}, "val_fold and no fold"),
        ({"fold": "1", "split": "", "val_fold": "1"}, "val_fold is the row's own fold"),
        ({"fold": "1", "split": "", "val_fold": "9"}, "val_fold is no fold"),
    ],
)
def test_folds_that_cannot_be_meant_are_told(row, subject):
    table = table_of([*WITH_VAL, row, {**row, "val_fold": ""}] if row["fold"] == "7" else [*WITH_VAL, row])
    (found,) = folds_incomplete(table)
    assert seen([found]) == {("F304", "medium"): {subject}}
    assert found.cases[0].rows == (() if subject.startswith("numbers") else ("i10",))


def test_one_fold_is_none():
    assert seen(folds_incomplete(table_of([{"fold": "0"}, {"fold": "0"}]))) == {("F304", "medium"): {"number of folds"}}


def test_missing_numbers_are_counted_not_listed():
    (found,) = folds_incomplete(table_of([{"fold": "2"}, {"fold": "20240131"}]))
    assert found.cases[0].detail == "folds 2 and 20240131 of 1 to 20240131 are there: 20,240,129 missing"


def test_rows_of_no_fold_and_unequal_folds_are_odd():
    rows = [*FIVE, *[{"fold": "1"}] * 2, {"fold": ""}]
    found = folds_incomplete(table_of(rows))
    assert seen(found) == {("F304", "low"): {"in no part", "sizes of the folds"}}
    assert [case.detail for case in found[0].cases] == [
        "1 row of 13 in no fold and in no other part",
        "fold 1 has 4 images, fold 0 has 2",
    ]


def test_folds_that_are_sites_may_be_unequal():
    sites = [{"fold": "0", "site": "a"}, *[{"fold": "1", "site": "b"}] * 3]
    assert folds_incomplete(table_of(sites)) == []
    assert seen(folds_incomplete(table_of([*sites, {"fold": "1", "site": "a"}]))) == {
        ("F304", "low"): {"sizes of the folds"}
    }

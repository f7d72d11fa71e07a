"""What must not be cut."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medtool.datasets.ham10000 import Ham10000
from medtool.manifest import Manifest
from medtool.split.findings import Severity
from medtool.split.rules.groups import (
    groups_at_two_sites,
    groups_in_both,
    groups_in_two_parts,
    groups_with_two_labels,
    ids_equal_when_normalised,
    unknown_groups,
)
from medtool.split.rules.identifiers import normalised
from medtool.split.table import AuditTable
from tests.split.rules.tables import leaking_groups, only, reordered, seen, table_of

IDS = st.text("aB01 é", min_size=1, max_size=4).filter(lambda text: text.strip() != "")
HOLD_OUT = st.sampled_from([{"split": part} for part in ("train", "val", "test", "")])
FOLDS = st.builds(
    lambda fold, step, split: (
        {"fold": "", "val_fold": "", "split": split}
        if split
        else {"fold": str(fold), "val_fold": str((fold + step) % 4) if step else "", "split": ""}
    ),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(["", "", "", "", "test", "train"]),
)


@st.composite
def clean_rows(draw: st.DrawFn) -> list[dict[str, str]]:
    """Rows of a grouped split: all rows of a patient are in one place, those of nobody anywhere."""
    place = draw(st.sampled_from([HOLD_OUT, FOLDS]))
    patients = draw(st.dictionaries(IDS, st.tuples(place, st.integers(1, 4)), min_size=1, max_size=8))
    rows = [{"patient": who, **where} for who, (where, n) in patients.items() for _ in range(n)]
    rows += [{"patient": "", **where} for where in draw(st.lists(place, max_size=4))]
    return draw(st.permutations(rows))


@given(clean_rows())
def test_a_clean_grouped_split_is_never_flagged(rows):
    assert groups_in_two_parts(table_of(rows)) == []


@st.composite
def leaky_rows(draw: st.DrawFn) -> tuple[list[dict[str, str]], str]:
    """Rows of a grouped split of which one was moved out of its patient's part; and that patient."""
    rows = draw(clean_rows())
    row = draw(st.sampled_from(rows))
    who = row["patient"] or "somebody"
    places = [{"split": part} for part in ("train", "val", "test")]
    if "fold" in row:
        places = [{"split": "", "fold": number, "val_fold": ""} for number in "0123"]
    here, there = draw(st.permutations(places))[:2]
    kept = [other for other in rows if other["patient"] != who]
    more = draw(st.integers(1, 3))
    moved = [{"patient": who, **here} for _ in range(more)] + [{"patient": who, **there}]
    return draw(st.permutations(kept + moved)), who


@settings(max_examples=60)
@given(leaky_rows())
def test_any_row_moved_away_from_its_patient_is_found_with_exactly_the_patients_rows(rows_and_patient):
    rows, who = rows_and_patient
    table = table_of(rows)
    (found,) = groups_in_two_parts(table)
    (case,) = found.cases
    assert (case.subject, found.severity) == (f"patient {who}", Severity.HIGH)
    assert case.rows == tuple(sorted(f"i{place}" for place, row in enumerate(rows) if row["patient"] == who))
    assert leaking_groups(table, "patient") == {who: set(case.rows)}


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), HOLD_OUT | FOLDS), min_size=1, max_size=20))
def test_groups_with_two_roles_in_some_fold_are_those_of_a_plain_group_by(pairs):
    table = table_of([{"patient": who, **where} for who, where in pairs])
    assume(table.groups)
    cases = [case for found in groups_in_two_parts(table) for case in found.cases]
    expected = leaking_groups(table, "patient")
    assert {case.subject.removeprefix("patient ") for case in cases} == set(expected)
    for case in cases:
        assert set(case.rows) <= expected[case.subject.removeprefix("patient ")]


def test_the_parts_of_a_cut_patient_are_told_and_every_column_is_looked_at():
    table = table_of(
        [
            {"patient": "1", "lesion": "1", "split": "test"},
            {"patient": "1", "lesion": "1", "split": "train"},
            {"patient": "1", "lesion": "2", "split": "train"},
            {"patient": "2", "lesion": "3", "split": "val"},
            {"patient": "2", "lesion": "3", "split": ""},
            {"patient": "3", "lesion": "4", "split": "val"},
            {"patient": "", "lesion": "4", "split": "test"},
        ]
    )
    cases = only(groups_in_two_parts(table), "G101").cases
    assert [(case.subject, case.rows, case.detail) for case in cases] == [
        ("lesion 4", ("i5", "i6"), "1 in val, 1 in test"),
        ("patient 1", ("i0", "i1", "i2"), "2 in train, 1 in test"),
    ]
    assert dict(cases[1].values) == {"train": 2, "test": 1}


@pytest.mark.parametrize("groups", [("patient", "lesion"), ("lesion", "patient")])
def test_a_lesion_within_a_cut_patient_is_no_case_of_its_own_whatever_column_comes_first(groups):
    rows = [("1", "a", "train"), ("1", "a", "test"), ("1", "b", "train"), ("2", "c", "train"), ("2", "c", "test")]
    rows += [("3", "d", "train"), ("4", "d", "test")]
    table = table_of([{"patient": who, "lesion": which, "split": part} for who, which, part in rows], groups)
    widest = {"patient": "patient 2", "lesion": "lesion c"}[groups[0]]
    assert seen(groups_in_two_parts(table)) == {("G101", "high"): {"patient 1", widest, "lesion d"}}


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "p", "q"]), st.sampled_from(["", "a", "b", "c"]), HOLD_OUT | FOLDS),
        min_size=1,
        max_size=14,
    )
)
def test_every_row_of_a_cut_group_is_in_a_case_and_no_case_is_within_another(rows):
    rows = [("r", "r", {"split": ""}), *rows]
    table = table_of([{"patient": who, "lesion": which, **where} for who, which, where in rows], ("patient", "lesion"))
    found = groups_in_two_parts(table)
    told = {row for one in found for case in one.cases for row in case.rows}
    for column in table.groups:
        for group, its_rows in leaking_groups(table, column).items():
            assert its_rows & told, group
    for one in found:
        for case in one.cases:
            others = [other for other in one.cases if other.subject.split()[0] != case.subject.split()[0]]
            assert not any(set(case.rows) <= set(other.rows) for other in others)


def test_folds_and_parts_are_two_findings():
    rows = [{"fold": "0", "patient": "a"}, {"fold": "10", "patient": "a"}, {"split": "test", "patient": "a"}]
    rows += [
        {"fold": "1", "patient": "b"},
        {"fold": "1", "val_fold": "2", "patient": "b"},
        {"fold": "2", "patient": "c"},
    ]
    found = groups_in_two_parts(table_of(rows))
    assert [(case.subject, case.rows, case.detail) for case in only(found, "G101").cases] == [
        ("patient a", ("i0", "i1", "i2"), "1 in test, 1 in fold 0, 1 in fold 10"),
        ("patient b", ("i3", "i4"), "1 in fold 1, 1 in fold 1 (val of fold 2)"),
    ]
    assert [(case.subject, case.rows) for case in only(found, "G102").cases] == [("patient a", ("i0", "i1"))]


@pytest.mark.parametrize("val_fold", ["1", "9"])
def test_a_val_fold_that_has_no_effect_cuts_nobody(val_fold):
    rows = [{"fold": "1", "val_fold": val_fold}, {"fold": "1", "val_fold": ""}]
    assert groups_in_two_parts(table_of([{"patient": "a", **row} for row in rows])) == []


VARIANTS = st.sampled_from(
    [str.upper, str.lower, lambda text: f" {text}", lambda text: f"{text}\u00a0", lambda text: f"\u200b{text}"]
)


@settings(max_examples=40)
@given(clean_rows(), VARIANTS, st.data())
def test_a_planted_spelling_is_found_as_a_spelling_only(rows, vary, data):
    places = [place for place, row in enumerate(rows) if row["patient"]]
    place = data.draw(st.sampled_from(places))
    spelling = vary(rows[place]["patient"])
    assume(spelling not in {row["patient"] for row in rows})
    varied = [{**row, "patient": spelling} if number == place else row for number, row in enumerate(rows)]
    table = table_of(varied)
    assert groups_in_two_parts(table) == []
    forms = dict(zip(table.frame["image_id"], normalised(table.frame["patient"]), strict=True))
    assert forms[f"i{place}"] == normalised(pl.Series([rows[place]["patient"]]))[0]
    alike = {i for i, form in forms.items() if form == forms[f"i{place}"]}
    cases = [case for found in ids_equal_when_normalised(table) for case in found.cases]
    assert len(alike) == 1 or alike in [set(case.rows) for case in cases]


def test_spellings_across_parts_are_worse_than_within_one():
    rows = [
        {"patient": "P1", "split": "train"},
        {"patient": "p01", "split": "test"},
        {"patient": "P2", "split": "train"},
        {"patient": "p2", "split": "train"},
        {"patient": "P3", "split": "test"},
        {"patient": "p3", "split": ""},
        {"patient": "P4", "split": "test"},
    ]
    found = ids_equal_when_normalised(table_of(rows))
    assert seen(found) == {
        ("G103", "medium"): {"patient P1 = p01"},
        ("G103", "low"): {"patient P2 = p2", "patient P3 = p3"},
    }
    assert found[0].cases[0].detail == "1 in train, 1 in test; the ids differ in case and leading zeros"


def test_unknown_patients_are_counted_and_never_grouped():
    rows = [
        {"patient": who, "split": "train" if place % 2 else "test"} for place, who in enumerate(["", "", " ", "nan"])
    ]
    table = table_of([*rows, {"patient": "a", "split": "train"}, {"patient": "", "split": ""}])
    assert groups_in_two_parts(table) == []
    assert ids_equal_when_normalised(table) == []
    (case,) = only(unknown_groups(table), "G104", Severity.LOW).cases
    assert (case.subject, case.rows) == ("patient", ("i0", "i1", "i2", "i3"))
    assert case.detail == "4 of 5 rows name no patient; 2 in train, 2 in test; 1 of them say 'nan'"


def test_where_nobody_is_known_a_split_cannot_be_judged():
    rows = [{"split": "train"}, {"split": "test"}]
    assert seen(unknown_groups(table_of(rows))) == {("G104", "medium"): {"no such column"}}
    unnamed = table_of([{**row, "slide": "nan"} for row in rows])
    assert seen(unknown_groups(unnamed)) == {("G104", "medium"): {"slide"}}
    assert unknown_groups(table_of([{"label": "a"}])) == []


def test_two_sites_and_two_labels_of_one_group_are_told():
    rows = [
        {"patient": "a", "site": "x", "label": "m"},
        {"patient": "a", "site": "y", "label": "m"},
        {"patient": "b", "site": "x", "label": "m"},
        {"patient": "b", "site": "", "label": "n"},
        {"patient": "", "site": "y", "label": "n"},
        {"patient": "c", "site": "y", "label": ""},
        {"patient": "c", "site": "y", "label": "n"},
    ]
    table = table_of(rows)
    (site,) = only(groups_at_two_sites(table), "G105").cases
    assert (site.subject, site.rows, site.detail) == ("patient a", ("i0", "i1"), "1 of site x, 1 of site y")
    (label,) = only(groups_with_two_labels(table), "G106").cases
    assert (label.subject, label.rows, label.detail) == ("patient b", ("i2", "i3"), "1 of label m, 1 of label n")


def test_patients_of_another_manifest_are_found_as_they_are_written_and_by_their_form():
    here = table_of(
        [{"patient": who, "split": part} for who, part in [("a", "test"), ("a", "test"), ("B", "test"), ("c", "")]]
    )
    there = table_of([{"patient_id": who} for who in ("a", "b", "c", "d", "")])
    found = groups_in_both(here, there)
    (same,) = only(found, "G107", Severity.HIGH).cases
    assert (same.subject, same.rows, same.detail) == ("patient a", ("i0", "i1"), "2 here, 1 in the other manifest")
    (alike,) = only(found, "G108", Severity.MEDIUM).cases
    assert (alike.subject, alike.rows) == ("patient B = b", ("i2",))


def test_manifests_without_a_common_column_cannot_be_held_against_each_other():
    assert seen(groups_in_both(table_of([{"patient": "a"}]), table_of([{"lesion": "a"}]))) == {
        ("G104", "medium"): {"no such column in both"}
    }


@settings(max_examples=30)
@given(clean_rows(), st.randoms())
def test_the_order_of_rows_changes_nothing(rows, random):
    varied = [{**row, "site": random.choice("xy"), "label": random.choice("mn")} for row in rows]
    varied = [{**row, "split": random.choice(["train", "test"])} if random.random() < 0.2 else row for row in varied]
    table = table_of(varied)
    other = reordered(table, random.sample(range(len(rows)), len(rows)))
    rules = (
        groups_in_two_parts,
        ids_equal_when_normalised,
        unknown_groups,
        groups_at_two_sites,
        groups_with_two_labels,
    )
    for rule in rules:
        assert rule(table) == rule(other)


@pytest.fixture(scope="module")
def ham10000(shared_data) -> Manifest:
    return Ham10000().manifest(shared_data / "ham10000")


def test_lesions_cut_by_a_split_of_images_are_those_of_a_plain_group_by(ham10000):
    parts = np.random.default_rng(0).choice(["train", "val", "test"], len(ham10000), p=[0.7, 0.15, 0.15])
    by_image = ham10000.table.with_columns(pl.Series("split", parts))
    cases = only(groups_in_two_parts(AuditTable.of(Manifest(by_image, ham10000.root))), "G101").cases
    where: dict[str, set[str]] = {}
    for lesion, part in zip(by_image["lesion"], parts, strict=True):
        where.setdefault(lesion, set()).add(part)
    cut = {f"lesion {lesion}" for lesion, its in where.items() if len(its) > 1}
    assert len(cut) > 100
    assert {case.subject for case in cases} == cut
    by_lesion = dict(zip(where, np.random.default_rng(1).choice(["train", "test"], len(where)), strict=True))
    clean = ham10000.table.with_columns(pl.Series("split", [by_lesion[lesion] for lesion in ham10000.table["lesion"]]))
    assert groups_in_two_parts(AuditTable.of(Manifest(clean, ham10000.root))) == []

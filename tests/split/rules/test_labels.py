"""How the labels are spread."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.split.rules.labels import class_imbalance, classes_missing, classes_of_few_groups, rows_without_label
from tests.split.rules.tables import only, reordered, seen, table_of

RULES = (class_imbalance, classes_missing, classes_of_few_groups, rows_without_label)


def labelled(labels: Sequence[str], part: str = "train") -> list[dict[str, str]]:
    return [{"label": label, "split": part} for label in labels]


def test_ten_to_one_is_an_imbalance():
    (case,) = only(class_imbalance(table_of(labelled(["a"] * 20 + ["b"] * 2 + [""] * 9))), "B801").cases
    assert (case.subject, case.detail) == ("label", "20 images of a, 2 of b: 10 to 1")
    assert class_imbalance(table_of(labelled(["a"] * 19 + ["b"] * 2))) == []
    assert class_imbalance(table_of(labelled(["a"] * 30))) == []
    assert class_imbalance(table_of(labelled(["a", "b"]) + labelled(["a"] * 50, part=""))) == []


def test_classes_that_a_part_lacks_are_told():
    rows = labelled("aabc") + labelled("ab", "val") + labelled("abb", "test") + labelled("d", "")
    found = classes_missing(table_of(rows))
    assert seen(found) == {("B802", "medium"): {"c in test", "c in val"}}
    assert found[0].cases[0].detail == "none of the 3 images with a label in test is of c"


def test_classes_that_a_fold_or_its_val_part_lacks_are_told():
    rows = [{"label": label, "fold": str(fold)} for fold in range(3) for label in "ab"]
    assert classes_missing(table_of(rows)) == []
    in_val = [{**row, "val_fold": "1" if n == 0 else ""} for n, row in enumerate(rows)]
    assert seen(classes_missing(table_of(in_val))) == {("B802", "medium"): {"b in val of fold 1"}}
    assert classes_missing(table_of([{**row, "val_fold": "7" if n == 0 else ""} for n, row in enumerate(rows)])) == []
    assert seen(classes_missing(table_of(rows[:-1]))) == {("B802", "medium"): {"b in fold 2"}}


def test_a_part_without_any_label_lacks_no_class():
    rows = labelled("ab") + labelled(["", ""], "test")
    assert classes_missing(table_of(rows)) == []
    (case,) = only(rows_without_label(table_of(rows)), "B804").cases
    assert (case.subject, case.rows, case.detail) == ("test", ("i2", "i3"), "2 in test")


def test_rows_without_label_count_in_parts_and_where_others_have_one():
    assert rows_without_label(table_of(labelled("a") + labelled([""], ""))) == []
    assert rows_without_label(table_of([{"split": "train", "label": ""}])) == []


def test_few_patients_of_a_class_are_told_where_scores_are_made():
    rows = [{"patient": f"P{n}", "label": "a", "split": "test"} for n in range(10)]
    rows += [{"patient": f"Q{n // 5}", "label": "b", "split": "test"} for n in range(40)]
    rows += [{"patient": "R", "label": "b", "split": "train"}]
    (case,) = only(classes_of_few_groups(table_of(rows)), "B803").cases
    assert (case.subject, len(case.rows)) == ("b in test", 40)
    assert dict(case.values) == {"groups": 8, "images": 40}
    unknown = [{**row, "patient": ""} if row["patient"] == "Q7" else row for row in rows]
    assert classes_of_few_groups(table_of(unknown)) == []


def test_without_patients_few_images_are_few_patients():
    rows = labelled(["a"] * 10 + ["b"] * 9, "val")
    (case,) = only(classes_of_few_groups(table_of(rows)), "B803").cases
    assert (case.subject, case.detail) == ("b in val", "9 images, patients unknown")


def test_measurements_are_no_classes():
    rows = [{"label": f"{n / 7:.4f}", "split": ("train", "test")[n % 2]} for n in range(100)]
    assert [rule(table_of(rows)) for rule in RULES] == [[], [], [], []]


@pytest.mark.parametrize("rule", RULES)
def test_a_table_without_labels_or_parts_says_nothing(rule):
    assert rule(table_of([{"split": "train"}, {"split": "test"}])) == []
    assert rule(table_of([{"label": "a"}, {"label": "b"}])) == []


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b", "c"]), st.sampled_from(["train", "val", "test", ""])), min_size=1
    ),
    st.randoms(),
)
def test_missing_classes_are_those_of_a_plain_group_by_in_every_order(pairs, random):
    table = table_of([{"label": label, "split": part} for label, part in pairs])
    there = {pair for pair in pairs if all(pair)}
    lacking = {
        f"{label} in {part}"
        for label in {label for label, _ in there}
        for part in {part for _, part in there}
        if (label, part) not in there
    }
    assert {case.subject for found in classes_missing(table) for case in found.cases} == lacking
    other = reordered(table, random.sample(range(len(pairs)), len(pairs)))
    assert [rule(table) for rule in RULES] == [rule(other) for rule in RULES]

"""One vote a patient."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.split.rules.votes import cross_table, votes
from tests.split.rules.tables import reordered, table_of

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "patient": st.sampled_from(["", "nan", "a", "b", "c"]),
            "lesion": st.sampled_from(["", "a", "b"]),
            "label": st.sampled_from(["", "m", "n"]),
            "split": st.sampled_from(["train", "test", ""]),
        }
    ),
    min_size=1,
    max_size=20,
)


def test_a_patient_votes_once_for_each_label_and_the_unknown_once_a_row():
    rows = [{"patient": "a", "label": "m"}] * 5 + [{"patient": "a", "label": "n"}] + [{"patient": "", "label": "m"}] * 2
    assert votes(table_of(rows))["label"].to_list() == ["m", "n", "m", "m"]


def test_where_the_patient_is_unknown_the_lesion_votes():
    rows = [{"patient": who, "lesion": "x", "label": "m"} for who in ("", "", "a", "b")]
    assert votes(table_of(rows)).height == 3


def test_rows_of_no_part_and_without_a_label_have_no_vote():
    rows = [{"label": "m", "split": "train"}, {"label": "m", "split": ""}, {"label": "", "split": "train"}]
    assert votes(table_of(rows)).height == 1
    assert votes(table_of([{"split": "train"}])).height == 0


@settings(max_examples=50)
@given(ROWS, st.randoms())
def test_the_votes_are_one_row_of_each_and_the_same_in_every_order(rows, random):
    table = table_of(rows)
    if "label" not in table.manifest.columns:
        return
    drawn = votes(table)
    expected = defaultdict(set)
    used = [row for row in rows if row["split"]] or rows
    for place, row in enumerate(rows):
        if row in used and row["label"]:
            known = [(name, row[name]) for name in table.groups if row[name] not in ("", "nan")]
            expected[known[0] if known else place, row["label"]].add(f"i{place}")
    assert drawn.height == len(expected)
    assert all(len(its & set(drawn["image_id"])) == 1 for its in expected.values())
    again = votes(reordered(table, random.sample(range(len(rows)), len(rows))))
    assert set(again["image_id"]) == set(drawn["image_id"])


def test_pairs_are_counted():
    rows = votes(table_of([{"label": "n", "site": "b"}, {"label": "m", "site": "b"}, {"label": "n", "site": "a"}]))
    counts, sites, labels = cross_table(rows["site"], rows["label"])
    assert (counts.tolist(), sites, labels) == ([[0, 1], [1, 1]], ["a", "b"], ["m", "n"])

"""Rows that name one file."""

from __future__ import annotations

from collections import defaultdict
from posixpath import normpath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.split.rules.paths import same_path_twice
from tests.split.rules.tables import seen, table_of


@pytest.mark.parametrize("again", ["a/b.png", "./a/b.png", "a//b.png", "a/./b.png", "././a///././b.png"])
def test_one_file_in_two_parts_is_a_leak_however_its_path_is_written(again):
    table = table_of([{"image": "a/b.png", "split": "train"}, {"image": again, "split": "test"}])
    (found,) = same_path_twice(table)
    assert seen([found]) == {("D201", "high"): {"a/b.png"}}
    assert (found.cases[0].rows, found.cases[0].detail) == (("i0", "i1"), "1 in train, 1 in test")


def test_one_file_twice_in_one_part_counts_too_much_and_leaks_nothing():
    rows = [{"image": "b.png", "split": "test"}, {"image": "b.png", "split": ""}, {"image": "b.png", "split": "test"}]
    assert seen(same_path_twice(table_of(rows))) == {("D201", "low"): {"b.png"}}


@pytest.mark.parametrize("other", ["A.png", "a.PNG", "a.png ", "b/a.png", ".a.png", "a..png"])
def test_paths_that_may_be_two_files_are_two(other):
    assert same_path_twice(table_of([{"image": "a.png", "split": "train"}, {"image": other, "split": "test"}])) == []


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text("ab./", min_size=1, max_size=6), st.sampled_from(["train", "test"])), min_size=1))
def test_files_named_twice_are_those_of_a_plain_group_by(named):
    named = [(path.replace("..", "b").lstrip("/") or "b", part) for path, part in named]
    rows: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for place, (path, part) in enumerate(named):
        rows[normpath(path)].append((f"i{place}", part))
    found = same_path_twice(table_of([{"image": path, "split": part} for path, part in named]))
    assert {case.subject: set(case.rows) for one in found for case in one.cases} == {
        path: {row for row, _ in its} for path, its in rows.items() if len(its) > 1
    }
    assert seen(found).get(("D201", "high"), set()) == {
        path for path, its in rows.items() if len({part for _, part in its}) > 1
    }

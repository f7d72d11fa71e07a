"""How rows are spread over the parts, in words."""

from __future__ import annotations

import polars as pl

from medtool.split.rules.tally import held_out, in_order, name_of, told, used
from tests.split.rules.tables import table_of


def test_parts_are_read_in_one_order_and_folds_by_number():
    parts = ["", "fold 10", "fold 2, val of fold 10", "test", "fold 2", "fold 2, val of fold 3", "val", "train"]
    assert in_order(parts) == [
        "train",
        "val",
        "test",
        "fold 2",
        "fold 2, val of fold 10",
        "fold 2, val of fold 3",
        "fold 10",
        "",
    ]


def test_numbers_are_told_by_part():
    assert told({"test": 1, "train": 2000}) == "2,000 in train, 1 in test"
    assert told({"": 1, "fold 1, val of fold 2": 3}) == "3 in fold 1 (val of fold 2), 1 in no part"
    assert [name_of(part) for part in ("", "val", "fold 7")] == ["no part", "val", "fold 7"]


def test_a_part_without_its_val_folds_is_where_a_row_is_held_out():
    parts = pl.DataFrame({"_part": ["train", "fold 2, val of fold 3", "fold 2, val of fold a\nb", "fold 12", ""]})
    assert parts.select(held_out()).to_series().to_list() == ["train", "fold 2", "fold 2", "fold 12", ""]


def test_rows_of_no_part_count_only_where_no_row_is_in_one():
    assert used(table_of([{"split": "train"}, {"split": ""}])).height == 1
    assert used(table_of([{"label": "a"}, {"label": "b"}])).height == 2

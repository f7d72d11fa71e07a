"""What is in each part: images, patients, classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from medtool.split.rules.identifiers import is_known
from medtool.split.rules.tally import held_out, in_order
from medtool.split.table import PART, AuditTable

#: Classes with a column of their own; of more, the page shows none.
MAX_CLASSES = 10


@dataclass(frozen=True, slots=True)
class PartCount:
    """What one part holds.

    Attributes
    ----------
    name
        train, val, test, or ``fold`` and its number; empty for what no part uses.
    groups
        How many patients (lesions, ...), by column; rows that name none do not count.
    labels
        How many images, by class.
    """

    name: str
    n_images: int
    groups: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)


def count_parts(table: AuditTable) -> list[PartCount]:
    """Return what each part holds: train, val and test first, then the folds, then what no part uses."""
    rows = table.frame.with_columns(held_out().alias(PART))
    known = [pl.col(name).filter(is_known(name)).n_unique().alias(f"group {name}") for name in table.groups]
    counted = {row[PART]: row for row in rows.group_by(PART).agg(pl.len().alias("images"), *known).rows(named=True)}
    labels: dict[str, dict[str, int]] = {part: {} for part in counted}
    if "label" in rows.columns and rows.get_column("label").n_unique() <= MAX_CLASSES:
        classes = sorted(set(rows.get_column("label")) - {""})
        labels = {part: dict.fromkeys(classes, 0) for part in counted}
        for part, label, n in rows.filter(pl.col("label") != "").group_by(PART, "label").len().iter_rows():
            labels[part][label] = n
    return [
        PartCount(part, row["images"], {name: row[f"group {name}"] for name in table.groups}, labels[part])
        for part, row in ((part, counted[part]) for part in in_order(counted))
    ]

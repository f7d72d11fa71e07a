"""Rows that name one file, as far as the table alone tells."""

from __future__ import annotations

import posixpath

import polars as pl

from medtool.split.catalogue import SAME_PATH
from medtool.split.findings import Finding, Severity, finding
from medtool.split.rules.tally import cases_of
from medtool.split.table import PART, AuditTable


def same_path_twice(table: AuditTable) -> list[Finding]:
    """Return the files that several rows name (D201): high where the rows are in different parts, else low.

    ``a//b.png`` and ``a/./b.png`` are ``a/b.png``; capitals count, since on many systems they tell files apart.
    """
    rows = table.frame.select(plain_paths(table.frame.get_column("image")).alias("group"), PART, "image_id")
    rows = rows.filter(pl.col("group").is_duplicated())
    is_across = pl.col(PART).filter(pl.col(PART) != "").n_unique().over("group") > 1
    across = cases_of(rows.filter(is_across), str)
    within = cases_of(rows.filter(~is_across), str)
    return finding(SAME_PATH, across) + finding(SAME_PATH, within, severity=Severity.LOW)


def plain_paths(paths: pl.Series) -> pl.Series:
    """Return each path without spare slashes and dots, so that two that name one file in one way are equal."""
    places = paths.str.contains(r"//|(?:\A|/)\.(?:/|\z)|/\z").arg_true()
    if not len(places):
        return paths
    return paths.clone().scatter(places, pl.Series([posixpath.normpath(path) for path in paths.gather(places)]))

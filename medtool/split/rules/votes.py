"""One vote a patient: the rows that tests of association count, so that repeated images do not pass for evidence."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import polars as pl

from medtool.split.rules.association import Counts
from medtool.split.rules.identifiers import is_known
from medtool.split.rules.tally import used
from medtool.split.table import AuditTable


def votes(table: AuditTable) -> pl.DataFrame:
    """Return one row of each patient and label, of the rows in a part that have a label; none where no row has.

    A hundred images of one patient at one site say one thing, not a hundred. What a patient is, the widest column says
    that is known for the row; rows of unknown patients each have a vote. Of a patient's rows with one label, a checksum
    of ``image_id`` draws one: the same in every order of rows and on every machine, and no more likely of one value
    than of another. A patient with two labels has a vote in each.
    """
    if "label" not in table.manifest.columns:
        return table.frame.clear().with_columns(pl.lit("").alias("label"))
    rows = used(table).filter(pl.col("label") != "")
    if not table.groups:
        return rows
    who = [pl.when(is_known(name)).then(pl.lit(f"{place} ") + pl.col(name)) for place, name in enumerate(table.groups)]
    voters = rows.select(
        pl.coalesce(*who).fill_null(pl.lit("? ") + pl.col("image_id")).alias("voter"),
        "label",
        "image_id",
        pl.int_range(pl.len()).alias("row"),
    )
    several = voters.filter(pl.struct("voter", "label").is_duplicated())
    ballots = np.fromiter((zlib.crc32(name.encode()) for name in several.get_column("image_id")), np.uint32)
    several = several.with_columns(pl.Series("ballot", ballots)).sort("ballot", "image_id")
    not_drawn = several.filter(~several.select(pl.struct("voter", "label").is_first_distinct()).to_series())
    return rows.filter(~pl.int_range(pl.len()).is_in(not_drawn.get_column("row").implode()))


def cross_table(first: pl.Series, second: pl.Series) -> tuple[Counts, list[str], list[str]]:
    """Return how many rows have each pair of values, and the values of both, sorted."""
    pairs = pl.DataFrame({"first": first, "second": second}).group_by("first", "second").len()
    of_first, of_second = (sorted(pairs.get_column(name).unique()) for name in ("first", "second"))
    counts = np.zeros((len(of_first), len(of_second)), dtype=np.int64)
    counts[_places(pairs, "first", of_first), _places(pairs, "second", of_second)] = pairs.get_column("len").to_numpy()
    return counts, of_first, of_second


def _places(pairs: pl.DataFrame, name: str, values: Sequence[str]) -> Counts:
    place = {value: number for number, value in enumerate(values)}
    return np.array([place[value] for value in pairs.get_column(name)], dtype=np.int64)

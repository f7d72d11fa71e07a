"""What a split must keep together: which columns say so, what they join, and what they leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from medtool.errors import ManifestError
from medtool.manifest import Manifest
from medtool.split.options import NO_COLUMN
from medtool.split.rules.identifiers import is_known, normalised
from medtool.split.rules.paths import plain_paths
from medtool.split.table import AuditTable
from medtool.split.units import units_of

_MAX_NAMED = 5


@dataclass(frozen=True, eq=False)
class Grouping:
    """The rows that must stay together.

    Attributes
    ----------
    columns
        That say so, widest first; empty for a split by image.
    frame
        Of each row: these columns, where a cell that names nobody is empty; without columns, ``image_id``.
    units
        The unit of each row, from 0 without gaps, shape ``(rows,)``.
    unknown
        How many rows each column names nobody for, by column; and ``""`` for those that no column names anybody for.
    noun
        What one unit is: ``image``, the widest column if each unit is one value of it, else ``group``.
    notes
        What the user should know, a line each.
    """

    columns: tuple[str, ...]
    frame: pl.DataFrame
    units: npt.NDArray[np.int64]
    unknown: dict[str, int]
    noun: str
    notes: tuple[str, ...]

    def counted(self, count: int) -> str:
        """Return a number of units in words, such as ``1,867 lesions``."""
        return f"{count:,} {plural(self.noun, count)}"

    def named(self, units: Sequence[int] | npt.NDArray[np.int64]) -> str:
        """Return the first few of these units in words, by what their cells say."""
        rows = self.frame.with_columns(pl.Series("", self.units)).filter(pl.col("").is_in(list(units)))
        texts: dict[int, dict[str, None]] = {}
        for *values, unit in rows.unique().sort(rows.columns).iter_rows():
            filled = [f"{name} {value!r}" for name, value in zip(self.frame.columns, values, strict=True) if value]
            texts.setdefault(unit, {})[", ".join(filled) or "unknown"] = None
        shown = sorted(" with ".join(list(known)[:_MAX_NAMED]) for known in texts.values())
        more = f" and {len(shown) - _MAX_NAMED:,} more" if len(shown) > _MAX_NAMED else ""
        return "; ".join(shown[:_MAX_NAMED]) + more


def plural(noun: str, count: int) -> str:
    """Return a noun as it is said of so many."""
    if count == 1:
        return noun
    ends_in_ies = noun.endswith("y") and noun[-2:-1].lower() not in ("", "a", "e", "i", "o", "u")
    return f"{noun[:-1]}ies" if ends_in_ies else f"{noun}s"


def grouping_of(manifest: Manifest, asked: Sequence[str], joined: Sequence[tuple[int, int]]) -> Grouping:
    """Return what must stay together; rows that name one file always do.

    Parameters
    ----------
    asked
        As :attr:`medtool.split.options.MakeOptions.group`.
    joined
        Pairs of row numbers.

    Raises
    ------
    ManifestError
        If a column is not there or names nobody at all, or no column says what belongs together and none was asked for.
    """
    by_image = tuple(asked) == (NO_COLUMN,)
    columns = () if by_image else AuditTable.of(manifest, asked).groups
    if not by_image and not columns:
        raise ManifestError(
            f"no column names patients, lesions or the like (there are: {', '.join(manifest.columns)}); images of one"
            " patient in two parts would leak",
            hint=f"--group COLUMN, or --group {NO_COLUMN} if every image is of another patient",
        )
    known = [pl.when(is_known(name)).then(name).otherwise(pl.lit("")).alias(name) for name in columns]
    frame = manifest.table.select(known or ["image_id"])
    for name in columns:
        if not (frame.get_column(name) != "").any():
            raise ManifestError(
                f"the column {name!r} names nobody: it is empty, or says unknown, in all {len(manifest):,} rows",
                hint=f"--group with another column, or --group {NO_COLUMN} to split by image",
            )
    tied = frame.with_columns(_repeated_files(manifest).alias("image"))
    units = units_of(tied, [*columns, "image"], joined)
    unknown = {name: int((frame.get_column(name) == "").sum()) for name in columns}
    if columns:
        unknown[""] = frame.filter(pl.all_horizontal(pl.all() == "")).height
    links = _on_links(frame, columns, units)
    noun = "image"
    if columns:
        is_widest = len(columns) == 1 or not (links or unknown[columns[0]])
        noun = columns[0].removesuffix("_id") if is_widest else "group"
    notes = [*_on_unknown(frame, unknown), *on_spelling(frame.select(columns)), *links]
    return Grouping(columns, frame, units, unknown, noun, tuple(notes))


def _repeated_files(manifest: Manifest) -> pl.Series:
    """Return the file that each row names, empty where no other row names it."""
    paths = plain_paths(manifest.table.get_column("image"))
    return paths.to_frame("image").select(pl.when(pl.col("image").is_duplicated()).then("image").otherwise(pl.lit("")))[
        "image"
    ]


def _on_unknown(frame: pl.DataFrame, unknown: dict[str, int]) -> list[str]:
    notes = []
    for name, n_rows in unknown.items():
        if name and n_rows:
            notes.append(f"{name} is unknown for {n_rows:,} of {frame.height:,} images")
    if unknown.get(""):
        lone = "is one of its own" if unknown[""] == 1 else "are units of their own"
        notes.append(f"{unknown['']:,} of {frame.height:,} images name none and {lone}: what they share is not known")
    return notes


def on_spelling(frame: pl.DataFrame) -> list[str]:
    """Say of each column which of its values differ in spelling only."""
    notes = []
    for name in frame.columns:
        ids = frame.get_column(name).unique()
        spellings = pl.DataFrame({"id": ids, "form": normalised(ids)}).filter(
            (pl.col("id") != "") & pl.col("form").is_duplicated()
        )
        if spellings.height:
            first = spellings.filter(pl.col("form") == spellings.get_column("form").min()).get_column("id").sort()
            notes.append(
                f"{name}: {spellings.height:,} ids equal another one but for case, white space, leading zeros and the"
                f" like, such as {first[0]!r} and {first[1]!r}; they are kept apart: write those of one {name} alike"
            )
    return notes


def _on_links(frame: pl.DataFrame, columns: Sequence[str], units: npt.NDArray[np.int64]) -> list[str]:
    """Say how many groups of the widest column are linked to another one."""
    if not columns:
        return []
    widest = columns[0]
    linked = frame.select(pl.col(widest).alias("id")).with_columns(pl.Series("unit", units)).filter(pl.col("id") != "")
    per_unit = linked.unique().group_by("unit").len().filter(pl.col("len") > 1)
    if not per_unit.height:
        return []
    n_ids, largest = int(per_unit.get_column("len").sum()), int(per_unit.get_column("len").to_numpy().max())
    by = ", ".join([*columns[1:], "copies and files named twice"])
    return [
        f"{n_ids:,} different {plural(widest, n_ids)} are linked into {per_unit.height:,}"
        f" {plural('unit', per_unit.height)} by {by}; the largest has {largest:,}"
    ]

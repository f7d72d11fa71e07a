"""The columns that a split is stratified by; numbers of many values, such as ages, by fifths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from medtool.errors import ManifestError
from medtool.manifest import Manifest
from medtool.split.options import NO_COLUMN

MAX_VALUES = 64  # of a column that is taken as it is, whatever it holds

_N_BINS = 5


def stratified(manifest: Manifest, asked: Sequence[str]) -> tuple[pl.DataFrame, tuple[str, ...], list[str]]:
    """Return the columns to stratify by, their names, and what the user should know.

    A column of more than :data:`MAX_VALUES` values that are all numbers is cut into fifths of about equal numbers of
    images; ``label`` never is, whose values are classes.

    Parameters
    ----------
    asked
        As :attr:`medtool.split.options.MakeOptions.stratify`.

    Raises
    ------
    ManifestError
        If a column is not there, or has so many values that nearly every image has one of its own.
    """
    if tuple(asked) == (NO_COLUMN,):
        return manifest.table.select(), (), []
    if not asked and not manifest.counts("label"):
        return manifest.table.select(), (), ["the images have no label, so nothing is spread equally but their number"]
    columns = tuple(asked) or ("label",)
    notes = []
    if "label" not in columns and manifest.counts("label"):
        flags = " ".join(f"--stratify {name}" for name in ("label", *columns))
        notes.append(f"label is not spread; {flags} spreads {'both' if len(columns) == 1 else 'all'}")
    series = []
    for name in columns:
        if name not in manifest.columns:
            raise ManifestError(
                f"the manifest has no column {name!r} to stratify by (there are: {', '.join(manifest.columns)})"
            )
        values = manifest.table.get_column(name)
        n_values = values.filter(values != "").n_unique()
        if n_values > MAX_VALUES and name != "label" and (numbers := _numbers(values)) is not None:
            values = _fifths(values, numbers)
            shown = "; ".join(values.filter(values != "").unique().sort())
            notes.append(f"{name} has {n_values:,} different numbers and is spread by fifths: {shown}")
        elif n_values > MAX_VALUES and n_values > len(manifest) / 2:
            raise ManifestError(
                f"--stratify {name}: the column has {n_values:,} values in {len(manifest):,} rows; what nearly every"
                " image has for itself cannot be spread over parts"
            )
        series.append(values.alias(name))
    n_unlabelled = int((series[0] == "").sum())
    if n_unlabelled:
        notes.append(f"{columns[0]} is unknown for {n_unlabelled:,} images; they are spread like a class of their own")
    return pl.DataFrame(series), columns, notes


def _numbers(values: pl.Series) -> dict[str, float] | None:
    """Return the number that each known value is, or None when one is none."""
    numbers = {}
    for text in values.filter(values != "").unique():
        try:
            numbers[text] = float(text)
        except ValueError:
            return None
        if not math.isfinite(numbers[text]):
            return None
    return numbers


def _fifths(values: pl.Series, numbers: dict[str, float]) -> pl.Series:
    ordered = sorted(numbers[text] for text in values if text)
    ends = sorted({ordered[(len(ordered) * part + _N_BINS - 1) // _N_BINS - 1] for part in range(1, _N_BINS)})
    names = {text: _bin_name(number, ends) for text, number in numbers.items()}
    return values.replace_strict({**names, "": ""}, return_dtype=pl.String)


def _bin_name(number: float, ends: list[float]) -> str:
    place = sum(number > end for end in ends)
    if place == 0:
        return f"{ends[0]:g} or less"
    if place == len(ends):
        return f"more than {ends[-1]:g}"
    return f"{ends[place - 1]:g} to {ends[place]:g}"

"""Metadata of images as numbers for a network, fitted on the training rows alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from medtool.errors import InputError, UnknownNameError, UsageError
from medtool.manifest import COLUMNS

FORMAT = "medtool-metadata-encoder"
VERSION = 1

# How tables spell a value that nobody knows, in any case.
UNKNOWN = ("", "unknown", "nan", "na", "n/a")

# A column of more values than this is a name of rows rather than a property of them.
MAX_CATEGORIES = 256

# What names an image, tells its answer or its part in the experiment; the site of a multi-centre study may be metadata.
_NO_METADATA = tuple(name for name in COLUMNS if name != "site")

# The interquartile range of a normal distribution is 1.349 standard deviations.
_IQR_PER_SD = 1.349


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """``(value − median) / scale``, 0 where the value is unknown, and 1 beside it where it is.

    Attributes
    ----------
    median, scale
        Of the training rows; the scale is their interquartile range over 1.349, and 1 where that is 0.
    """

    name: str
    median: float
    scale: float

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns that it becomes."""
        return (self.name, f"{self.name}=missing")

    def encode(self, cells: pl.Series) -> npt.NDArray[np.float64]:
        """Return ``(n, 2)`` for cells without outer white space."""
        values = cells.cast(pl.Float64, strict=False)
        is_known = _is_known(cells)
        wrong = is_known & ~_is_finite(values)
        if wrong.any():
            row = int(wrong.arg_true()[0])
            raise InputError(
                f"metadata column {self.name!r} held numbers in training; row {row + 1} holds {cells[row]!r}",
                hint="give a number, or leave the cell empty where it is unknown",
            )
        known = is_known.to_numpy()
        scaled = np.zeros(len(cells))
        scaled[known] = (values.filter(is_known).to_numpy() - self.median) / self.scale
        return np.column_stack([scaled, ~known])

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"name": self.name, "kind": "numeric", "median": self.median, "scale": self.scale}


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """One of the values of the training rows, or none of them.

    Attributes
    ----------
    values
        Sorted, without the spellings of an unknown value.
    """

    name: str
    values: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns that it becomes."""
        return (*(f"{self.name}={value}" for value in self.values), f"{self.name}=unknown")

    def encode(self, cells: pl.Series) -> npt.NDArray[np.float64]:
        """Return ``(n, values + 1)``, one-hot; a value that training did not hold is unknown."""
        places = {value: place for place, value in enumerate(self.values)}
        hot = np.zeros((len(cells), len(self.values) + 1))
        hot[np.arange(len(cells)), [places.get(cell, len(self.values)) for cell in cells]] = 1
        return hot

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"name": self.name, "kind": "categorical", "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class MetadataEncoder:
    """How the columns of a manifest become the numbers that a network takes."""

    columns: tuple[NumericColumn | CategoricalColumn, ...]

    @classmethod
    def fit(cls, table: pl.DataFrame, columns: Sequence[str]) -> MetadataEncoder:
        """Return the encoder of these columns.

        A column is numeric where each known value is a finite number, such as ``55`` or ``1.5e-3``, and categorical
        otherwise. Values are compared without outer white space, and as they are written.

        Parameters
        ----------
        table
            The training rows and no others.
        columns
            In the order in which the network takes them.

        Raises
        ------
        UsageError
            If no column is named or one is named twice, names the image, its answer or its part in the experiment, has
            no known value, or has more than :data:`MAX_CATEGORIES` values that are no numbers.
        UnknownNameError
            If the table has no such column.
        """
        if not columns:
            raise UsageError("no column of metadata is named")
        twice = sorted({name for name in columns if list(columns).count(name) > 1})
        if twice:
            raise UsageError(f"metadata column {twice[0]!r} is named twice")
        return cls(tuple(_fitted(table, name) for name in columns))

    @property
    def width(self) -> int:
        """How many numbers an image gets."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers: ``age``, ``age=missing``, ``sex=female``, ``sex=male``, ``sex=unknown``."""
        return tuple(name for column in self.columns for name in column.names)

    def encode(self, table: pl.DataFrame) -> npt.NDArray[np.float32]:
        """Return float32 ``(n, width)``, finite.

        Raises
        ------
        InputError
            If the table lacks a column, or holds something else than a number, or one out of all proportion, where
            training held numbers.
        """
        absent = [column.name for column in self.columns if column.name not in table.columns]
        if absent:
            raise InputError(
                f"the table has no column {absent[0]!r}, which the network takes as metadata",
                hint=f"columns needed: {', '.join(column.name for column in self.columns)}; unknown cells may be empty",
            )
        parts = [column.encode(_cells(table, column.name)) for column in self.columns]
        encoded = np.concatenate(parts, axis=1)
        high = np.argwhere(np.abs(encoded) > np.finfo(np.float32).max)
        if len(high):
            row, place = high[0]
            raise InputError(
                f"metadata {self.names[place]!r} of row {row + 1} is too large for a number: check its unit"
            )
        return encoded.astype(np.float32)

    def document(self) -> dict[str, Any]:
        """Return the encoder as JSON."""
        return {"format": FORMAT, "version": VERSION, "columns": [column.document() for column in self.columns]}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> MetadataEncoder:
        """Return the encoder that :meth:`document` wrote.

        Raises
        ------
        InputError
            If it is none, or of a later version.
        """
        if document.get("format") != FORMAT or document.get("version") != VERSION:
            found = f"{document.get('format')!r} version {document.get('version')!r}"
            raise InputError(f"{found} is no {FORMAT} version {VERSION}")
        try:
            return cls(tuple(_read(column) for column in document["columns"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a {FORMAT} is damaged: {type(error).__name__}: {error}") from error


def _fitted(table: pl.DataFrame, name: str) -> NumericColumn | CategoricalColumn:
    if name in _NO_METADATA:
        raise UsageError(
            f"column {name!r} cannot be metadata: it names the image, its answer or its part in the experiment"
        )
    if name not in table.columns:
        candidates = [column for column in table.columns if column not in _NO_METADATA]
        raise UnknownNameError(
            "metadata column", name, known=candidates, hint=f"columns: {', '.join(candidates) or 'none'}"
        )
    cells = _cells(table, name)
    known = cells.filter(_is_known(cells))
    if known.is_empty():
        raise UsageError(f"metadata column {name!r} has no known value in the {table.height} training rows")
    numbers = known.cast(pl.Float64, strict=False)
    if _is_finite(numbers).all():
        low, median, high = (float(value) for value in np.percentile(numbers.to_numpy(), [25, 50, 75]))
        scale = (high - low) / _IQR_PER_SD
        return NumericColumn(name, median=median, scale=scale if scale > 0 else 1.0)
    values = tuple(sorted(known.unique()))
    if len(values) > MAX_CATEGORIES:
        raise UsageError(
            f"metadata column {name!r} has {len(values)} values that are no numbers, of {MAX_CATEGORIES} at most",
            hint="group them, or leave the column out if it names rows",
        )
    return CategoricalColumn(name, values)


def _cells(table: pl.DataFrame, name: str) -> pl.Series:
    return table.get_column(name).cast(pl.String).fill_null("").str.strip_chars()


def _is_known(cells: pl.Series) -> pl.Series:
    return ~cells.str.to_lowercase().is_in(UNKNOWN)


def _is_finite(numbers: pl.Series) -> pl.Series:
    return numbers.is_finite().fill_null(False)


def _read(column: Mapping[str, Any]) -> NumericColumn | CategoricalColumn:
    name = str(column["name"])
    if column["kind"] == "numeric":
        median, scale = float(column["median"]), float(column["scale"])
        if not (math.isfinite(median) and math.isfinite(scale) and scale > 0):
            raise ValueError(f"column {name!r} has median {median} and scale {scale}")
        return NumericColumn(name, median=median, scale=scale)
    if column["kind"] == "categorical":
        return CategoricalColumn(name, values=tuple(str(value) for value in column["values"]))
    raise ValueError(f"column {name!r} is of kind {column['kind']!r}")

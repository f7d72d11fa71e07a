"""What is to be spread equally over the parts of a split: each unit's images by label, site and the like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

# How much a deviation counts, relative to one another: the number of images, each column's values, those of the first
# column (which are the classes), values of all columns at once, and the number of units.
IMPORTANCE_OF_ALL = 2
IMPORTANCE_OF_CLASS = 8
IMPORTANCE_OF_VALUE = 4
IMPORTANCE_OF_JOINT = 1
IMPORTANCE_OF_UNITS = 1


@dataclass(frozen=True, slots=True)
class Stratum:
    """Images with these values in these columns; without columns, all images.

    Attributes
    ----------
    columns, values
        One column for a margin; all stratified columns for a joint stratum. The empty value is *unknown*.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Strata:
    """How many images of each stratum every unit has.

    Attributes
    ----------
    strata
        What each column of ``counts`` counts; the last column, of no stratum, is 1 for every unit.
    counts
        A scipy CSR array of int64, shape ``(units, strata + 1)``.
    importance
        Shape ``(strata + 1,)``.
    is_class
        Whether a stratum is a known value of the first column, shape ``(strata + 1,)``.
    """

    strata: tuple[Stratum, ...]
    counts: Any
    importance: npt.NDArray[np.int64]
    is_class: npt.NDArray[np.bool_]

    def needed(self) -> npt.NDArray[np.bool_]:
        """Return which columns of the counts no part may lack: all images, and those of each class."""
        needed = self.is_class.copy()
        needed[0] = True
        return needed


def strata_of(
    frame: pl.DataFrame, columns: Sequence[str], units: npt.NDArray[np.int64], *, least_units: int, least_images: int
) -> Strata:
    """Count each unit's images by stratum.

    Strata are ordered by their text, so no order of rows changes the columns.

    Parameters
    ----------
    columns
        Columns of text without nulls; may be empty.
    units
        The unit of each row, from 0 without gaps.
    least_units, least_images
        How many a joint stratum must have to be looked at for itself.
    """
    from scipy.sparse import coo_array, csr_array, hstack

    n_units = int(units.max()) + 1
    combinations, row_codes = _combinations(frame, columns, len(units))
    counts = coo_array(
        (np.ones(len(units), dtype=np.int64), (units, row_codes)), shape=(n_units, combinations.height)
    ).tocsr()
    strata = [Stratum((), ())]
    importance = [IMPORTANCE_OF_ALL]
    members = [np.arange(combinations.height)]
    for place, column in enumerate(columns):
        values = combinations.get_column(column)
        for value, codes in zip(*_places_of(values), strict=True):
            strata.append(Stratum((column,), (value,)))
            importance.append(IMPORTANCE_OF_VALUE if place else IMPORTANCE_OF_CLASS)
            members.append(codes)
    if len(columns) > 1:
        images = np.bincount(row_codes, minlength=combinations.height)
        holders = np.bincount(counts.indices, minlength=combinations.height)
        for code in np.flatnonzero((images >= least_images) & (holders >= least_units)):
            strata.append(Stratum(tuple(columns), combinations.row(int(code))))
            importance.append(IMPORTANCE_OF_JOINT)
            members.append(np.array([code]))
    stratum_of = np.repeat(np.arange(len(strata)), [len(codes) for codes in members])
    ones = np.ones(len(stratum_of), dtype=np.int64)
    belongs = coo_array((ones, (np.concatenate(members), stratum_of)), shape=(combinations.height, len(strata))).tocsr()
    each_unit = csr_array(np.ones((n_units, 1), dtype=np.int64))
    is_class = [bool(columns) and stratum.columns == (columns[0],) and stratum.values != ("",) for stratum in strata]
    return Strata(
        tuple(strata),
        hstack([counts @ belongs, each_unit], format="csr"),
        np.array([*importance, IMPORTANCE_OF_UNITS], dtype=np.int64),
        np.array([*is_class, False]),
    )


def _places_of(values: pl.Series) -> tuple[list[str], list[npt.NDArray[np.int64]]]:
    """Return the distinct values in the order of their text, and where each of them is."""
    places = pl.DataFrame({"value": values}).with_row_index("place").group_by("value").agg("place").sort("value")
    return places.get_column("value").to_list(), [np.array(of) for of in places.get_column("place")]


def _combinations(
    frame: pl.DataFrame, columns: Sequence[str], n_rows: int
) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
    """Return the combinations of values that there are, ordered by their text, and the number of each row's."""
    codes = np.zeros(n_rows, dtype=np.int64)
    first = codes[:1]
    for column in columns:
        ranks = frame.get_column(column).rank("dense").to_numpy().astype(np.int64)
        _, first, codes = np.unique(codes * (ranks.max() + 1) + ranks, return_index=True, return_inverse=True)
    return frame.select(columns)[first] if columns else pl.DataFrame({"": [""]}), codes

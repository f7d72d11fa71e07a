"""Which duplicate pairs the page shows, and what it says of either image."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from medtool.errors import InputError
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.frames import ties_of
from medtool.split.rules.tally import in_order
from medtool.split.table import PART, AuditTable

#: Most pairs on a page: 240 thumbnails are about 4 MB.
MAX_PAIRS = 120


class Place(enum.StrEnum):
    """Where the two images of a pair are, the worst first; last those that show nobody, such as a slate."""

    TWO_PARTS = "two parts"
    TWO_MANIFESTS = "two manifests"
    ONE_PART = "one part"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Side:
    """One image of a pair.

    Attributes
    ----------
    image
        The path as the manifest gives it.
    path
        The file, or why it cannot be shown.
    part
        Of its own manifest; empty where no part uses it.
    facts
        Its values of ``label`` and of the columns that must not be cut, by column.
    """

    image_id: str
    image: str
    path: Path | str
    part: str
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ShownPair:
    """Two images that show the same picture, and where they are; of two parts, the one that is trained on is first."""

    first: Side
    second: Side
    place: Place
    kind: Kind
    similarity: float
    alteration: str

    @property
    def what(self) -> str:
        """What makes the second of the first, in words."""
        if self.kind is Kind.NEAR:
            return self.alteration or "altered copy"
        return "same file" if self.kind is Kind.BYTES else "same pixels"

    @property
    def differing(self) -> tuple[str, ...]:
        """The columns in which both have a value and not the same."""
        mine, its = self.first.facts, self.second.facts
        return tuple(name for name in mine if mine[name] and its.get(name) and mine[name] != its[name])


@dataclass(frozen=True, slots=True)
class Selection:
    """The pairs to show, the worst first.

    Attributes
    ----------
    totals
        How many pairs there are, shown or not, by place.
    """

    pairs: tuple[ShownPair, ...]
    totals: Mapping[Place, int]


def select_pairs(
    table: AuditTable, duplicates: Duplicates, *, other: AuditTable | None = None, most: int = MAX_PAIRS
) -> Selection:
    """Return the pairs that are worth looking at.

    Pairs in two parts come first, then those in both manifests. Among either, pairs whose label or patient differs come
    first. Where there are more than ``most``, no place crowds out another. Pairs within ``other`` are no business of
    this audit.

    Parameters
    ----------
    duplicates
        Of the rows of ``table``, then those of ``other``.
    """
    n_rows = table.frame.height
    columns = [name for name in ("label", *table.groups) if name in table.frame.columns]
    images = pl.concat([_rows(each, columns) for each in (table, other) if each is not None])
    pairs = [pair for pair in duplicates.pairs if pair.first < n_rows]
    ends = [images[[getattr(pair, side) for pair in pairs]] for side in ("first", "second")]
    differ = pl.zeros(len(pairs), dtype=pl.Boolean, eager=True)
    for name in columns:
        one, its = (end.get_column(name) for end in ends)
        differ |= (one != "") & (its != "") & (one != its)
    tying = set(ties_of(duplicates, table.frame, table.groups, other=other).joined)
    by_place: dict[Place, list[tuple[bool, int]]] = defaultdict(list)
    parts = zip(*(end.get_column(PART) for end in ends), strict=True)
    for place, (pair, (first, second), is_differing) in enumerate(zip(pairs, parts, differ, strict=True)):
        if (pair.first, pair.second) not in tying:
            where = Place.NOBODY
        elif pair.second >= n_rows:
            where = Place.TWO_MANIFESTS
        else:
            where = Place.TWO_PARTS if first and second and first != second else Place.ONE_PART
        by_place[where].append((not is_differing, place))
    totals = {place: len(by_place[place]) for place in Place if place in by_place}
    shown = [
        _described(pairs[place], where, images, columns, (table, other))
        for where, share in _shares(totals, most).items()
        for _, place in sorted(by_place[where])[:share]
    ]
    return Selection(tuple(shown), totals)


def _rows(table: AuditTable, columns: list[str]) -> pl.DataFrame:
    known = [pl.col(name) if name in table.frame.columns else pl.lit("").alias(name) for name in columns]
    return table.frame.select("image_id", "image", PART, *known)


def _described(
    pair: DuplicatePair,
    place: Place,
    images: pl.DataFrame,
    columns: list[str],
    tables: tuple[AuditTable, AuditTable | None],
) -> ShownPair:
    first, second = (_side(row, images, columns, tables) for row in (pair.first, pair.second))
    alteration = pair.alteration
    if place is not Place.TWO_MANIFESTS and in_order([first.part, second.part])[0] != first.part:
        first, second = second, first
        alteration = pair.alteration_from(pair.second)
    return ShownPair(first, second, place, pair.kind, pair.similarity, alteration)


def _side(row: int, images: pl.DataFrame, columns: list[str], tables: tuple[AuditTable, AuditTable | None]) -> Side:
    cells = images.row(row, named=True)
    table, other = tables
    manifest = table.manifest if row < table.frame.height or other is None else other.manifest
    try:
        path: Path | str = manifest.locate(cells["image"])
    except InputError as error:
        path = error.message
    return Side(cells["image_id"], cells["image"], path, cells[PART], {name: cells[name] for name in columns})


def _shares(totals: Mapping[Place, int], most: int) -> dict[Place, int]:
    """Return how many pairs of each place are shown: as many of each, and what one leaves over goes to the others."""
    shares: dict[Place, int] = {}
    left = most
    for waiting, place in zip(range(len(totals), 0, -1), sorted(totals, key=lambda place: totals[place]), strict=True):
        shares[place] = min(totals[place], -(-left // waiting))
        left -= shares[place]
    return {place: shares[place] for place in totals}

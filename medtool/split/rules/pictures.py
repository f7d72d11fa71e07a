"""Copies of one picture: across parts, within a part, with other labels or patients, in both manifests (D202 to D208).

Copies are linked by the pairs that were found, and copies of copies by the chain of pairs between them: every row that
shows a picture of another part is in a case, whether it is half of a pair or only the end of a chain. Copies that show
nobody (:mod:`medtool.split.frames`) leak nothing, and are told once each.
"""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from medtool.split import catalogue
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.findings import Case, Finding, Rule, finding
from medtool.split.frames import Frame, Ties, ties_of
from medtool.split.grouping import plural
from medtool.split.rules.identifiers import is_known
from medtool.split.rules.tally import told
from medtool.split.table import PART, AuditTable
from medtool.split.units import units_of

if TYPE_CHECKING:
    import numpy.typing as npt

_KINDS = (Kind.BYTES, Kind.PIXELS, Kind.NEAR)  # the closest first
_ACROSS: Mapping[Kind, Rule] = {
    Kind.BYTES: catalogue.SAME_FILE,
    Kind.PIXELS: catalogue.SAME_PIXELS,
    Kind.NEAR: catalogue.NEAR_DUPLICATE,
}
_SAME: Mapping[Kind, str] = {Kind.BYTES: "same bytes", Kind.PIXELS: "same pixels", Kind.NEAR: "altered copy"}
_LISTED = 5  # how many values a line names


def duplicate_findings(table: AuditTable, duplicates: Duplicates, *, other: AuditTable | None = None) -> list[Finding]:
    """Return what copies of pictures do to a split.

    A case of D202, D203, D204 and D208 is a pair that can be shown side by side: its ``rows`` are two, the one that is
    trained on first, for D208 the one of ``table`` first. All pairs that were found to cross are there, and one for
    each further row that only a chain of pairs links to another part; such a case names the row in between. A case of
    the other rules is a picture with all its rows.

    Rows in no part leak nothing, but a chain may run through them, and through rows of the other manifest. Rows that
    name one file are left to D201, and are a case here only beside another file. Without parts, all rows count as in
    one.

    Blank images that equal one another are a case of D205, and a picture that many patients share, such as a slate, is
    one of D207; neither is a case of any other rule.

    Parameters
    ----------
    duplicates
        Of the rows of ``table``, then those of ``other``.
    """
    ties = ties_of(duplicates, table.frame, table.groups, other=other)
    album = _Album.of(table, ties, other)
    findings: list[Finding] = []
    across = album.across_parts()
    for kind in _KINDS:
        findings += finding(_ACROSS[kind], across[kind])
    findings += finding(catalogue.DUPLICATE_IN_ONE_PART, [*album.in_one_part(), *album.of_blanks(ties.blanks)])
    findings += finding(catalogue.DUPLICATE_WITH_OTHER_LABEL, list(album.with_other("label")))
    others = [case for column in table.groups for case in album.with_other(column)]
    others += album.of_frames(ties.frames, ties.noun)
    findings += finding(catalogue.DUPLICATE_WITH_OTHER_PATIENT, others)
    if other is not None:
        findings += finding(catalogue.DUPLICATE_IN_BOTH_MANIFESTS, album.in_both())
    return findings


@dataclass(frozen=True, slots=True, eq=False)
class _Links:
    """Which pictures are the same, where pairs of ``kind`` and the closer ones count.

    Attributes
    ----------
    numbers
        A number for each image; the same for those that a chain of pairs links.
    members
        The images of each picture that has several, ascending, by its number.
    """

    kind: Kind
    numbers: npt.NDArray[np.int64]
    members: Mapping[int, list[int]]


@dataclass(frozen=True, slots=True, eq=False)
class _Album:
    """The linked images of one or two manifests; places below ``count`` are the table's rows."""

    table: AuditTable
    count: int
    ids: Mapping[int, str]
    paths: Mapping[int, str]
    parts: Mapping[int, str]
    pairs: Mapping[tuple[int, int], DuplicatePair]
    links: Sequence[_Links]
    ways: _Ways

    @classmethod
    def of(cls, table: AuditTable, ties: Ties, other: AuditTable | None) -> _Album:
        columns = ("image_id", "image", PART)
        frames = [each.frame.select(columns) for each in (table, other) if each is not None]
        shared = [place for picture in (*ties.blanks, *(each.places for each in ties.frames)) for place in picture]
        shown = np.unique([*np.ravel(ties.joined), *shared]).astype(np.int64)
        rows = pl.concat(frames)
        cells = rows[shown]
        ids, paths, parts = (dict(zip(shown.tolist(), cells.get_column(name), strict=True)) for name in columns)
        links = []
        for level, kind in enumerate(_KINDS):
            kept = [(pair.first, pair.second) for pair in ties.pairs if pair.kind in _KINDS[: level + 1]]
            numbers = units_of(rows, (), kept)
            members: dict[int, list[int]] = defaultdict(list)
            for place in shown.tolist():
                members[int(numbers[place])].append(place)
            several = {number: places for number, places in members.items() if len(places) > 1}
            links.append(_Links(kind, numbers, several))
        paths = {place: posixpath.normpath(path) for place, path in paths.items()}
        pairs = {(pair.first, pair.second): pair for pair in ties.pairs}
        return cls(table, table.frame.height, ids, paths, parts, pairs, links, _Ways(pairs))

    def across_parts(self) -> dict[Kind, list[Case]]:
        """Return the cases of D202, D203 and D204."""
        found: dict[Kind, list[Case]] = {}
        is_covered = set(self._rows_of_same_path())
        for links in self.links:
            cases = []
            for (first, second), pair in self.pairs.items():
                if pair.kind is links.kind and second < self.count and self._is_leak(first, second):
                    if self.paths[first] != self.paths[second]:
                        shown = self._trained_first(first, second)
                        cases.append(self._side_by_side(*shown, self._detail(pair, shown[0])))
                    is_covered.update((first, second))
            for members in links.members.values():
                used = [row for row in members if row < self.count and self.parts[row]]
                for row, partner in _unpaired(used, [self.parts[row] for row in used], is_covered):
                    shown = self._trained_first(row, partner)
                    cases.append(self._side_by_side(*shown, self._chain(links.kind, shown, goal=partner)))
                    is_covered.update((row, partner))
            found[links.kind] = cases
        return found

    def in_both(self) -> list[Case]:
        """Return the cases of D208, in the same way; the rows of the table come first."""
        cases = []
        is_covered: set[int] = set()
        for links in self.links:
            for (first, second), pair in self.pairs.items():
                if pair.kind is links.kind and first < self.count <= second:
                    cases.append(self._side_by_side(first, second, self._detail(pair, first)))
                    is_covered.update((first, second))
            for members in links.members.values():
                sides = ["here" if row < self.count else "there" for row in members]
                for row, partner in _unpaired(members, sides, is_covered):
                    shown = min(row, partner), max(row, partner)
                    cases.append(self._side_by_side(*shown, self._chain(links.kind, shown, goal=partner)))
                    is_covered.update((row, partner))
        return cases

    def in_one_part(self) -> Iterator[Case]:
        """Yield the cases of D205: the rows of one picture in one part."""
        for members in self.links[-1].members.values():
            by_part: dict[str, list[int]] = defaultdict(list)
            for row in members:
                if row < self.count:
                    by_part[self.parts[row]].append(row)
            for part, rows in by_part.items():
                is_counted = part or not self.table.has_parts
                if is_counted and len({self.paths[row] for row in rows}) > 1:
                    where = f" in {part}" if part else ""
                    yield self._together(rows, f"{len(rows)} times{where}: {self._closeness(rows)}")

    def with_other(self, column: str) -> Iterator[Case]:
        """Yield the pictures whose rows differ in a column; cells that name nothing differ from nothing."""
        if column not in self.table.frame.columns:
            return
        is_named = pl.col(column) != "" if column == "label" else is_known(column)
        values = self.table.frame.select(pl.when(is_named).then(column).otherwise(pl.lit(""))).to_series()
        for members in self.links[-1].members.values():
            rows = [row for row in members if row < self.count and values[row]]
            counts = Counter(values[row] for row in rows)
            if len(counts) > 1:
                shown = [f"{value} ({n})" for value, n in sorted(counts.items())]
                text = f"{_listed(shown)}: {self._closeness(rows)}"
                yield self._together(rows, text, column=column)

    def of_blanks(self, blanks: Sequence[Sequence[int]]) -> Iterator[Case]:
        """Yield the blank images that equal one another."""
        for places in blanks:
            rows = [row for row in places if row < self.count and (self.parts[row] or not self.table.has_parts)]
            if len({self.paths[row] for row in rows}) > 1:
                yield self._together(rows, f"a blank image {len(rows):,} times: it shows nobody, and is no leak")

    def of_frames(self, frames: Sequence[Frame], noun: str) -> Iterator[Case]:
        """Yield the pictures that many patients share, with the number of their patients and rows."""
        for each in frames:
            rows = [row for row in each.places if row < self.count]
            if not rows:
                continue
            counts = Counter(self.parts[row] for row in rows)
            where = f", {told(counts)}" if self.table.has_parts else ""
            elsewhere = len(each.places) - len(rows)
            there = f", {elsewhere:,} in the other manifest" if elsewhere else ""
            text = (
                f"one picture in {each.n_owners:,} {plural(noun, each.n_owners)}{where}{there}:"
                " a slate or a colour card? It is not counted as a leak"
            )
            yield self._together(rows, text, column=noun, owners=each.n_owners)

    def _rows_of_same_path(self) -> Iterator[int]:
        """Yield the rows whose file is named in another part as well."""
        parts: dict[str, set[str]] = defaultdict(set)
        used = [row for row in self.parts if row < self.count and self.parts[row]]
        for row in used:
            parts[self.paths[row]].add(self.parts[row])
        return (row for row in used if len(parts[self.paths[row]]) > 1)

    def _is_leak(self, first: int, second: int) -> bool:
        parts = self.parts[first], self.parts[second]
        return "" not in parts and parts[0] != parts[1]

    def _trained_first(self, first: int, second: int) -> tuple[int, int]:
        ordered = sorted((first, second), key=lambda row: (_rank(self.parts[row]), row))
        return ordered[0], ordered[1]

    def _side_by_side(self, first: int, second: int, detail: str) -> Case:
        pair = self.pairs.get((min(first, second), max(first, second)))
        values: dict[str, float | int | str] = {"first_part": self.parts[first], "second_part": self.parts[second]}
        if pair is not None:
            values |= {"similarity": round(pair.similarity, 4), "alteration": pair.alteration_from(first)}
        parts = [self.parts[row] or "no part" for row in (first, second)]
        where = " and ".join(parts) if second < self.count else f"{parts[0]} here, {parts[1]} there"
        rows = (self.ids[first], self.ids[second])
        return Case(f"{rows[0]}, {rows[1]}", rows, f"{where}: {detail}", values)

    def _together(self, rows: Sequence[int], detail: str, *, column: str = "", owners: int = 0) -> Case:
        ids = tuple(sorted(self.ids[row] for row in rows))
        more = f" and {len(ids) - 2} more" if len(ids) > 2 else ""
        about = f"{column} of " if column else ""
        values: dict[str, float | int | str] = {"copies": len(ids)}
        if owners:
            values["owners"] = owners
        return Case(f"{about}{', '.join(ids[:2])}{more}", ids, detail, values)

    def _detail(self, pair: DuplicatePair, first: int) -> str:
        if pair.kind is not Kind.NEAR:
            return _SAME[pair.kind]
        return f"{pair.alteration_from(first) or _SAME[pair.kind]} (similarity {pair.similarity:.3f})"

    def _closeness(self, rows: Sequence[int]) -> str:
        """Return in words how close the farthest of these copies are."""
        return next(_SAME[links.kind] for links in self.links if len(set(links.numbers[rows].tolist())) == 1)

    def _chain(self, kind: Kind, shown: tuple[int, int], *, goal: int) -> str:
        if kind is not Kind.NEAR:
            return _SAME[kind]  # what equals an equal one is equal
        first, second = shown
        start = first if goal == second else second
        count = self.ways.length(start, goal) - 1
        if count > _LISTED:
            return f"linked by way of {count:,} others"
        places = self.ways.between(start, goal)
        between = [
            self.ids[place] if place < self.count else f"{self.ids[place]} of the other manifest"
            for place in (places if start == first else places[::-1])
        ]
        return f"linked by way of {', '.join(between)}"


class _Ways:
    """The shortest chains of pairs between images; those to one goal are looked for once."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        self._neighbours: dict[int, list[int]] = defaultdict(list)
        for first, second in pairs:
            self._neighbours[first].append(second)
            self._neighbours[second].append(first)
        self._towards: dict[int, dict[int, tuple[int, int]]] = {}

    def length(self, start: int, goal: int) -> int:
        """Return how many pairs a chain has."""
        return self._tree(goal)[start][1]

    def between(self, start: int, goal: int) -> list[int]:
        """Return the images that a chain from ``start`` to ``goal`` runs through."""
        following = self._tree(goal)
        found = []
        while (start := following[start][0]) != goal:
            found.append(start)
        return found

    def _tree(self, goal: int) -> dict[int, tuple[int, int]]:
        """Return for every image that a chain links to ``goal`` the next one on the way, and how far it is."""
        if goal not in self._towards:
            following = {goal: (goal, 0)}
            queue = deque([goal])
            while queue:
                place = queue.popleft()
                for near in self._neighbours[place]:
                    if near not in following:
                        following[near] = place, following[place][1] + 1
                        queue.append(near)
            self._towards[goal] = following
        return self._towards[goal]


def _unpaired(rows: Sequence[int], sides: Sequence[str], is_covered: Set[int]) -> Iterator[tuple[int, int]]:
    """Yield every row that is in no case yet, with a row of another side; ``is_covered`` may grow on the way."""
    if len(set(sides)) < 2:
        return
    side_of = dict(zip(rows, sides, strict=True))
    ordered = sorted(rows, key=lambda row: (_rank(side_of[row]), row))
    first = ordered[0]
    second = next(row for row in ordered if side_of[row] != side_of[first])
    for row in ordered:
        if row not in is_covered:
            yield row, (second if side_of[row] == side_of[first] else first)


def _rank(part: str) -> int:
    """Return 0 for what is trained on, 2 for what is tested on; of two folds, each trains on the other."""
    return {"val": 1, "test": 2}.get(part, 0)


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return ", ".join(texts[:_LISTED]) + more

"""A split without its leaks: the fewest images moved, and none into a test part.

Rows that must be together (those of one patient, lesion, ..., those that name one file, and the copies of one picture)
form a *unit*, also where several of these link them. Units do not touch one another, so the fewest moves of each are
the fewest of all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from medtool.manifest import Manifest
from medtool.roles import VAL_FOLD, folds_of, has_fixed_test, parts_of
from medtool.split.rules.identifiers import is_known
from medtool.split.rules.paths import plain_paths
from medtool.split.rules.tally import held_out, in_order
from medtool.split.table import PART, AuditTable
from medtool.split.units import units_of

_CELLS = ("split", "fold", VAL_FOLD)
# Columns of the tables below; what the manifest calls its own columns does not matter to them.
_ROW, _COPY, _UNIT, _HOLDER = "row", "copy", "unit", "holder"


@dataclass(frozen=True, slots=True)
class Move:
    """One image that is in another part now.

    Attributes
    ----------
    image_id
        Which one.
    before, after
        The parts, as :func:`medtool.roles.parts_of` names them.
    because
        What was cut: a column and its value, such as ``patient P1``, or ``copies of`` and an ``image_id``.
    """

    image_id: str
    before: str
    after: str
    because: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A class that a part had, and of which it has no image any more.

    Attributes
    ----------
    part
        train, val, test, or ``fold`` and the number of the fold that holds the rows out.
    label
        The class.
    n_before
        How many images of it the part had.
    """

    part: str
    label: str
    n_before: int


@dataclass(frozen=True, eq=False)
class Repair:
    """A repaired manifest and what the repair cost.

    Attributes
    ----------
    manifest
        The rows and columns of the old one in its order; only split, fold and val_fold of moved rows differ.
    moves
        In the order of the rows.
    before, after
        How many images each part has: train, val, test, or ``fold`` and its number.
    lost
        Classes that a part has no image of any more; an emptied part is in ``notes`` instead.
    notes
        What the user should know, a line each.
    """

    manifest: Manifest
    moves: tuple[Move, ...]
    before: Mapping[str, int]
    after: Mapping[str, int]
    lost: tuple[Lost, ...]
    notes: tuple[str, ...]

    def as_document(self) -> dict[str, Any]:
        """Return all but the manifest, ready for JSON."""
        return {
            "n_moves": len(self.moves),
            "before": dict(self.before),
            "after": dict(self.after),
            "lost": [{"part": lost.part, "label": lost.label, "n_before": lost.n_before} for lost in self.lost],
            "notes": list(self.notes),
            "moves": [
                {"image_id": move.image_id, "before": move.before, "after": move.after, "because": move.because}
                for move in self.moves
            ],
        }


def repair(table: AuditTable, *, joined: Sequence[tuple[int, int]] = ()) -> Repair:
    """Return the split in which no unit is in two parts, made by moving the fewest images.

    A unit goes to the part that holds most of its rows. Rows leave a test part and none comes into one; folds without a
    fixed test part are measured in turn, so among them rows may move either way. Between train and val, train wins a
    tie; between folds, the one with the fewest images. Rows that are in no part stay there; they link no patients, but
    two pictures of which both are copies are copies of each other.

    Parameters
    ----------
    table
        The split to repair, with the columns whose values must not be cut.
    joined
        Pairs of row numbers that show the same picture. Numbers beyond the last row are images elsewhere, such as those
        of another manifest: they move nothing, and link their copies.
    """
    rows = _rows(table, joined)
    holders = Counter(dict(rows.group_by(_HOLDER).len().iter_rows()))
    cut: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.filter(pl.col(PART).n_unique().over(_UNIT) > 1).iter_rows(named=True):
        cut[row[_UNIT]].append(row)
    are_folds_measured = not has_fixed_test(table.manifest)
    cells: dict[int, dict[str, str]] = {}
    moves: dict[int, Move] = {}
    # By id, not by place: the same rows in another order are repaired in the same way.
    for unit in sorted(cut.values(), key=lambda unit: min(row["image_id"] for row in unit)):
        target = _target(unit, holders, are_folds_measured=are_folds_measured)
        reasons = _reasons(unit, _ties(table))
        for row, reason in zip(unit, reasons, strict=True):
            if row[PART] != target[PART]:
                cells[row[_ROW]] = _moved_cells(row, target)
                moves[row[_ROW]] = Move(row["image_id"], row[PART], target[PART], reason)
                holders[row[_HOLDER]] -= 1
                holders[target[_HOLDER]] += 1
    return _repaired(table.manifest, cells, [moves[row] for row in sorted(moves)])


def _rows(table: AuditTable, joined: Sequence[tuple[int, int]]) -> pl.DataFrame:
    """Return the rows that are in a part: their cells, their unit, and which copies of one picture they are."""
    manifest, frame = table.manifest, table.frame
    ties = [f"tie {place}" for place in range(len(_ties(table)))]
    files = plain_paths(frame.get_column("image")).alias(ties[-1])
    known = [
        pl.when(is_known(name)).then(name).otherwise(pl.lit("")).alias(tie)
        for name, tie in zip(table.groups, ties, strict=False)
    ]
    n_images = max((frame.height, *(max(pair) + 1 for pair in joined)))
    copies = units_of(pl.DataFrame({_ROW: range(n_images)}), (), joined)[: frame.height]
    rows = frame.select(
        pl.int_range(pl.len()).alias(_ROW),
        pl.Series(_COPY, copies),
        pl.col("image_id"),
        pl.col(PART),
        held_out().alias(_HOLDER),
        *[pl.col(name) if name in manifest.columns else pl.lit("").alias(name) for name in _CELLS],
        *known,
        files,
    ).filter(pl.col(PART) != "")
    # Copies of one picture, one after the other: links between rows that are in a part, whatever they were found by.
    numbered = rows.select(pl.int_range(pl.len()).alias("second"), _COPY)
    links = numbered.with_columns(pl.col("second").shift(1).over(_COPY).alias("first")).drop_nulls()
    units = units_of(rows, ties, links.select("first", "second").rows())
    return rows.with_columns(pl.Series(_UNIT, units))


def _ties(table: AuditTable) -> tuple[str, ...]:
    """Return the columns whose values must not be cut; one file that several rows name is one picture."""
    return (*table.groups, "image")


def _target(
    unit: Sequence[Mapping[str, Any]], holders: Mapping[str, int], *, are_folds_measured: bool
) -> Mapping[str, Any]:
    """Return a row that is in the part to which the unit goes."""

    def times_measured(row: Mapping[str, Any]) -> int:
        if row[_HOLDER] == "test":
            return 2
        return 1 if are_folds_measured and row["fold"] else 0

    least = min(times_measured(row) for row in unit)
    possible = {row[PART]: row for row in reversed(unit) if times_measured(row) == least}
    counts = Counter(row[PART] for row in unit)

    def preference(part: str) -> tuple[int, bool, int, int, str]:
        row = possible[part]
        return -counts[part], part != "train", holders[row[_HOLDER]], int(row["fold"] or 0), part

    target: Mapping[str, Any] = possible[min(possible, key=preference)]
    return target


def _moved_cells(row: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, str]:
    """Return split, fold and val_fold of a row that goes to the part of ``target``; what has no effect stays."""
    if target[_HOLDER] == "train" or target[_HOLDER] == "val":
        val_fold = "" if row["fold"] else row[VAL_FOLD]
        return {"split": target[_HOLDER], "fold": "", VAL_FOLD: val_fold}
    split = "" if row["split"] == "test" else row["split"]
    return {"split": split, "fold": target["fold"], VAL_FOLD: target[VAL_FOLD]}


def _reasons(unit: Sequence[Mapping[str, Any]], ties: Sequence[str]) -> list[str]:
    """Return for each row of a unit what ties it to another part."""
    parts: dict[tuple[int, str], set[str]] = defaultdict(set)
    copies: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in unit:
        copies[row[_COPY]].append(row)
        for place in range(len(ties)):
            if value := row[f"tie {place}"]:
                parts[place, value].add(row[PART])
    cut = {key: f"{ties[key[0]]} {key[1]}" for key in sorted(parts) if len(parts[key]) > 1}
    copied = {
        copy: f"copies of {min(row['image_id'] for row in rows)}"
        for copy, rows in copies.items()
        if len({row[PART] for row in rows}) > 1
    }
    of_unit = next(iter([*cut.values(), *copied.values()]))

    def reason(row: Mapping[str, Any]) -> str:
        own = (cut.get((place, row[f"tie {place}"])) for place in range(len(ties)))
        return next((text for text in own if text), copied.get(row[_COPY], of_unit))

    return [reason(row) for row in unit]


def _repaired(manifest: Manifest, cells: Mapping[int, Mapping[str, str]], moves: Sequence[Move]) -> Repair:
    table = manifest.table
    places = np.array(sorted(cells), dtype=np.int64)
    for name in _CELLS:
        if name in manifest.columns and len(places):
            values = pl.Series([cells[place][name] for place in places.tolist()], dtype=pl.String)
            table = table.with_columns(table.get_column(name).scatter(places, values))
    repaired = replace(manifest, table=table, _known={})
    before, after = _counts(manifest), _counts(repaired)
    n_before, n_after = _by_part(before), _by_part(after)
    lost = [
        Lost(part, label, n)
        for (part, label), n in sorted(before.items())
        if label and part in n_after and (part, label) not in after
    ]
    notes = _notes(manifest, [part for part in n_before if part not in n_after])
    return Repair(repaired, tuple(moves), n_before, n_after, tuple(lost), tuple(notes))


def _counts(manifest: Manifest) -> dict[tuple[str, str], int]:
    """Return how many images each part has of each class."""
    label = pl.col("label") if "label" in manifest.columns else pl.lit("")
    rows = manifest.table.select(label.alias("label"), parts_of(manifest).alias(PART)).filter(pl.col(PART) != "")
    counted = rows.group_by(held_out().alias(_HOLDER), "label").len()
    return {(part, label): n for part, label, n in counted.iter_rows()}


def _by_part(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for (part, _), n in counts.items():
        total[part] += n
    return {part: total[part] for part in in_order(total)}


def _notes(manifest: Manifest, emptied: Sequence[str]) -> list[str]:
    notes = [f"{part} has no image any more; medtool split make MANIFEST makes a new split" for part in emptied]
    if "test" in emptied and folds_of(manifest):
        notes.append("without a fixed test part, the images that a fold holds out are its test part")
    return notes

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
_ROW, _COPY, _UNIT, _HOLDER, _TO = "row", "copy", "unit", "holder", " to"


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
    cut = rows.filter(pl.col(PART).n_unique().over(_UNIT) > 1)
    holders = Counter(dict(rows.group_by(_HOLDER).len().iter_rows()))
    targets = _targets(cut, holders, are_folds_measured=not has_fixed_test(table.manifest))
    told = cut.with_columns(_reasons(cut, _ties(table)))
    moved = told.join(targets, on=_UNIT, suffix=_TO).filter(pl.col(PART) != pl.col(PART + _TO)).sort(_ROW)
    moves = moved.select("image_id", PART, PART + _TO, "because").iter_rows()
    return _repaired(table.manifest, moved, tuple(Move(*move) for move in moves))


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


def _targets(cut: pl.DataFrame, holders: Counter[str], *, are_folds_measured: bool) -> pl.DataFrame:
    """Return for each unit the part that it goes to, with the cells of a row there.

    Parameters
    ----------
    cut
        The rows of all units that are in several parts.
    holders
        How many images train, val, test and each fold have; kept up to date.
    """
    in_test, in_fold = pl.col(_HOLDER) == "test", pl.col("fold") != ""
    times_measured = pl.when(in_test).then(2).when(in_fold & pl.lit(are_folds_measured)).then(1).otherwise(0)
    cells = (pl.col(name).first() for name in (_HOLDER, "fold", VAL_FOLD))
    parts = cut.group_by(_UNIT, PART).agg(pl.len().alias("n"), times_measured.first().alias("measured"), *cells)
    for wanted in (-pl.col("measured"), pl.col("n"), (pl.col(PART) == "train").cast(pl.Int8)):
        parts = parts.filter(wanted == wanted.max().over(_UNIT))
    is_settled = pl.len().over(_UNIT) == 1
    settled, tied = parts.filter(is_settled), parts.filter(~is_settled)
    leaving = cut.join(settled, on=_UNIT, suffix=_TO)
    holders.subtract(leaving.get_column(_HOLDER).to_list())
    holders.update(leaving.get_column(_HOLDER + _TO).to_list())
    return pl.concat([settled, _untied(tied, cut, holders)])


def _untied(tied: pl.DataFrame, cut: pl.DataFrame, holders: Counter[str]) -> pl.DataFrame:
    """Return one of the parts of each unit: that of the fold with the fewest images when its turn comes."""
    rows = cut.filter(pl.col(_UNIT).is_in(tied.get_column(_UNIT).unique().implode()))
    leaving = rows.group_by(_UNIT).agg(pl.col("image_id").min(), _HOLDER)
    possible: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for part in tied.iter_rows(named=True):
        possible[part[_UNIT]].append(part)
    chosen = []
    # By id, not by place: the same rows in another order are repaired in the same way.
    for unit, _, held in leaving.sort("image_id").iter_rows():
        target = min(possible[unit], key=lambda part: (holders[part[_HOLDER]], int(part["fold"] or 0), part[PART]))
        holders.subtract(held)
        holders[target[_HOLDER]] += len(held)
        chosen.append(target)
    return pl.DataFrame(chosen, schema=tied.schema)


def _reasons(cut: pl.DataFrame, ties: Sequence[str]) -> pl.Series:
    """Return what ties each row to another part: a value of its own, the copies of its picture, else its unit's."""
    cut_in = {
        f"tie {place}": pl.format("{} {}", pl.lit(name), pl.col(f"tie {place}")) for place, name in enumerate(ties)
    }
    cut_in[_COPY] = pl.format("copies of {}", pl.col("image_id").min().over(_COPY))
    texts = cut.select(
        _UNIT,
        *[
            pl.when((pl.col(name).cast(pl.String) != "") & (pl.col(PART).n_unique().over(name) > 1))
            .then(text)
            .alias(name)
            for name, text in cut_in.items()
        ],
    )
    of_unit = (pl.col(name).min().over(_UNIT) for name in cut_in)
    return texts.select(pl.coalesce(*cut_in, *of_unit).alias("because")).to_series()


def _repaired(manifest: Manifest, moved: pl.DataFrame, moves: tuple[Move, ...]) -> Repair:
    table, rows = manifest.table, moved.get_column(_ROW)
    cells = moved.select(**_moved_cells())
    for name in _CELLS:
        if name in manifest.columns:
            changed = table.get_column(name).clone().scatter(rows, cells.get_column(name))
            table = table.with_columns(changed)
    repaired = replace(manifest, table=table, _known={})
    before, after = _counts(manifest), _counts(repaired)
    n_before, n_after = _by_part(before), _by_part(after)
    lost = [
        Lost(part, label, n)
        for (part, label), n in sorted(before.items())
        if label and part in n_after and (part, label) not in after
    ]
    notes = _notes(manifest, [part for part in n_before if part not in n_after])
    return Repair(repaired, moves, n_before, n_after, tuple(lost), tuple(notes))


def _moved_cells() -> dict[str, pl.Expr]:
    """Return split, fold and val_fold of a row that goes to another part; a cell that has no effect there stays."""
    target = pl.col(_HOLDER + _TO)
    has_fold = pl.col("fold" + _TO) != ""
    had_fold = pl.col("fold") != ""
    return {
        "split": pl.when(~has_fold).then(target).when(pl.col("split") == "test").then(pl.lit("")).otherwise("split"),
        "fold": pl.col("fold" + _TO),
        VAL_FOLD: pl.when(has_fold).then(VAL_FOLD + _TO).when(had_fold).then(pl.lit("")).otherwise(VAL_FOLD),
    }


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

"""How the rows of a group are spread over the parts, as cases and in words."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping

import polars as pl

from medtool.manifest import SPLITS
from medtool.split.findings import Case
from medtool.split.table import PART, AuditTable

_FOLD = re.compile(r"fold (\d+)(?:, val of fold (.*))?", re.DOTALL)


def used(table: AuditTable) -> pl.DataFrame:
    """Return the rows that are in a part; all of them where no row is."""
    return table.frame.filter(pl.col(PART) != "") if table.has_parts else table.frame


def held_out(part: str = PART) -> pl.Expr:
    """Return the part of each row without its val folds: train, val, test, ``fold 2`` or an empty text."""
    return pl.col(part).str.replace(r"(?s), val of fold .*", "")


def in_order(parts: Iterable[str]) -> list[str]:
    """Return parts as they are read: train, val, test, the folds by number, no part."""
    return sorted(parts, key=_place)


def told(counts: Mapping[str, int]) -> str:
    """Return the number of rows in each part in words: ``2 in train, 1 in test``."""
    return ", ".join(f"{counts[part]:,} in {name_of(part)}" for part in in_order(counts))


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 image``, ``1,200 images``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def subject_of(name: str, written: Callable[[str], str] = str) -> Callable[[str], str]:
    """Return what a case of a group is called, from the group's value: the column ``name`` and the value."""
    return lambda group: f"{name} {written(group)}"


def cases_of(
    rows: pl.DataFrame,
    subject: Callable[[str], str],
    detail: Callable[[str, str], str] = lambda _, spread: spread,
) -> list[Case]:
    """Return a case for each group of ``rows``, with the number of its rows in each part.

    Parameters
    ----------
    rows
        With the columns ``group``, :data:`PART` and ``image_id``.
    subject
        From the group's value.
    detail
        From the group's value, and its rows in each part in words.
    """
    in_parts = rows.group_by("group", PART).agg(pl.len().alias("n"), "image_id").sort("group", PART)
    groups = in_parts.group_by("group", maintain_order=True).agg(PART, "n", pl.col("image_id").explode().sort())
    cases = []
    for group, parts, numbers, images in groups.iter_rows():
        counts, spread = _spread(tuple(parts), tuple(numbers))
        cases.append(Case(subject(group), tuple(images), detail(group, spread), dict(counts)))
    return cases


@functools.lru_cache(maxsize=4096)
def name_of(part: str) -> str:
    """Return a part in words; ``no part`` where it is empty."""
    fold = _FOLD.fullmatch(part)
    return f"fold {fold[1]} (val of fold {fold[2]})" if fold and fold[2] else part or "no part"


@functools.lru_cache(maxsize=4096)
def _spread(parts: tuple[str, ...], numbers: tuple[int, ...]) -> tuple[Mapping[str, int], str]:
    """Return numbers of rows by the parts' names, and in words; cached, since of many groups most are spread alike."""
    counts = dict(zip(parts, numbers, strict=True))
    return {name_of(part): counts[part] for part in in_order(parts)}, told(counts)


@functools.lru_cache(maxsize=4096)
def _place(part: str) -> tuple[int, int, str]:
    if part in SPLITS:
        return SPLITS.index(part), 0, ""
    fold = _FOLD.fullmatch(part)
    return (len(SPLITS), int(fold[1]), fold[2] or "") if fold else (len(SPLITS) + 1, 0, part)

"""The mark of a leak that was allowed: it goes from the lineage of a result to that of everything made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medtool.errors import LineageError

MARK = "leaks"


@dataclass(frozen=True, slots=True)
class Leak:
    """A rule of high severity that is broken by what a result was made from.

    Attributes
    ----------
    code
        That of the rule, such as ``G101``.
    n_cases
        In how many cases, such as patients.
    """

    code: str
    n_cases: int

    def __str__(self) -> str:
        return f"{self.code} ({self.n_cases:,} {'case' if self.n_cases == 1 else 'cases'})"


def leaks_of(lineage: Mapping[str, Any]) -> tuple[Leak, ...]:
    """Return the leaks that a result rests on, by its lineage; empty where ``made_with`` has no such mark.

    Raises
    ------
    LineageError
        If the mark is there and cannot be understood: what cannot be read must not pass as clean.
    """
    mark = lineage.get("made_with", {}).get(MARK, [])
    is_sound = isinstance(mark, list) and all(
        isinstance(item, dict) and isinstance(item.get("code"), str) and type(item.get("n_cases")) is int
        for item in mark
    )
    if not is_sound:
        raise LineageError(
            f"the lineage is damaged: made_with.{MARK} is {mark!r}, not a list of codes and numbers of cases"
        )
    return tuple(Leak(item["code"], item["n_cases"]) for item in mark)


def is_leaky(lineage: Mapping[str, Any]) -> bool:
    """Tell whether a result, or anything that it was made from, rests on a leak that was allowed."""
    return bool(leaks_of(lineage))


def inherited(*of_each: Iterable[Leak]) -> tuple[Leak, ...]:
    """Return the leaks of a result made from several others, ordered by code.

    A rule that several of them break is there once, with the most cases that one of them has: they may be the same.
    """
    most: dict[str, int] = {}
    for leaks in of_each:
        for leak in leaks:
            most[leak.code] = max(leak.n_cases, most.get(leak.code, 0))
    return tuple(Leak(code, n) for code, n in sorted(most.items()))


def marks_of(leaks: Iterable[Leak]) -> dict[str, list[dict[str, Any]]]:
    """Return leaks as ``made_with`` holds them: ``{"leaks": [{"code": "G101", "n_cases": 3}]}``, or an empty list."""
    return {MARK: [{"code": leak.code, "n_cases": leak.n_cases} for leak in leaks]}

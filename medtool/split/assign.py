"""Which unit goes to which part, so that every stratum is spread as equally as whole units allow.

The cost of an assignment is the sum over parts and strata of ``importance * (images there - images wanted)**2 / images
wanted``, as in Pearson's chi-squared statistic; a part that lacks a class which it must have comes before any cost.

1. Units with the same counts are alike. Of each kind of them, most are dealt out by their shares at once.
2. The others are given one by one to the part where they cost least: units of the rarest stratum first, of these the
   largest.
3. Single units are moved, then pairs swapped between parts, as long as this lowers the cost (:mod:`.improve`). A part
   that lacks a class comes first.

All of it is done in whole numbers, and in an order that only the seed and the units themselves decide, so the result
is the same on every machine and for every order of rows.

References
----------
Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011 (rarest first, largest need
first); largest remainders and exchange are additions for units of several images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from medtool.split.balance import LIMIT, Balance, Ints
from medtool.split.improve import improve

SHARE_UNIT = 1_000_000  # shares are whole millionths

_WEIGHT_UNIT = 16


@dataclass(frozen=True, eq=False)
class Problem:
    """Units to be shared out.

    Attributes
    ----------
    counts
        A scipy CSR array of int64, shape ``(units, strata)``: how many images of each stratum a unit has. Its first
        column counts all images.
    importance
        Shape ``(strata,)``, positive.
    kinds
        Shape ``(units,)``: which row of ``shares`` holds for a unit.
    shares
        Shape ``(kinds, parts)``, in millionths, each row adding up to :data:`SHARE_UNIT`: how much of the units of a
        kind a part should get. Units never go where their share is 0.
    required
        Shape ``(parts, strata)``: whether a part must have an image of a stratum.
    places
        Shape ``(units,)``: their place in the seeded order.
    """

    counts: Any
    importance: Ints
    kinds: Ints
    shares: Ints
    required: npt.NDArray[np.bool_]
    places: Ints


def assign(problem: Problem) -> tuple[Ints, bool]:
    """Return the part of each unit, shape ``(units,)``, and whether every part has the strata that it must have."""
    alike, first, n_units = _alike(problem)
    balance = _empty(problem, first, n_units)
    left = _deal(balance, problem.shares[problem.kinds[first]], n_units)
    _place_rest(balance, left, _first_place(problem.places, alike, len(first)))
    improve(balance)
    return _of_units(balance.spread, alike, problem.places), balance.n_missing() == 0


def _alike(problem: Problem) -> tuple[Ints, Ints, Ints]:
    """Group units that have the same counts and kind, in an order that depends on these alone.

    Returns
    -------
    alike
        The group of each unit.
    first, n_units
        A unit of each group, and how many there are.
    """
    counts = problem.counts
    owner = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    cells = pl.DataFrame({"unit": owner, "stratum": counts.indices, "images": counts.data}).sort("unit", "stratum")
    texts = (
        cells.with_columns(pl.format("{}:{}", "stratum", "images").alias("text"))
        .group_by("unit", maintain_order=True)
        .agg(pl.col("text").str.join(","))
        .get_column("text")
    )
    keys = pl.DataFrame({"kind": problem.kinds, "text": texts})
    rank = keys.select(pl.format("{} {}", "kind", "text").rank("dense")).to_series().to_numpy().astype(np.int64) - 1
    _, first, n_units = np.unique(rank, return_index=True, return_counts=True)
    return rank, first.astype(np.int64), n_units.astype(np.int64)


def _empty(problem: Problem, first: Ints, n_units: Ints) -> Balance:
    counts = problem.counts[first]
    counts.sort_indices()
    squares, has = counts.copy(), counts.copy()
    squares.data = squares.data**2
    has.data = np.ones_like(has.data)
    n_parts = problem.shares.shape[1]
    kinds = problem.kinds[first]
    total = np.zeros((problem.shares.shape[0], counts.shape[1]), dtype=np.int64)
    for kind in range(len(total)):
        total[kind] = counts[kinds == kind].T @ n_units[kinds == kind]
    n_images = int(total.sum(axis=0)[0])
    wanted_millionths = problem.shares.T @ total
    wanted = np.maximum(wanted_millionths // SHARE_UNIT, 1)
    scale, weight_unit = 1024, _WEIGHT_UNIT
    largest = counts.max(axis=0).toarray().ravel().tolist()
    totals = total.sum(axis=0).tolist()
    while True:
        weights = np.maximum(problem.importance * weight_unit * n_images // wanted, 1)
        heaviest = weights.max(axis=0).tolist()
        reach = sum(4 * x * w * t for x, w, t in zip(largest, heaviest, totals, strict=True)) * scale
        if reach < LIMIT or scale == weight_unit == 1:
            break
        scale, weight_unit = max(scale // 2, 1), weight_unit if scale > 1 else max(weight_unit // 2, 1)
    deviation = -(wanted_millionths * scale // SHARE_UNIT)
    return Balance(
        counts=counts,
        squares=squares,
        has=has,
        allowed=problem.shares[kinds] > 0,
        weights=weights,
        scale=scale,
        deviation=deviation,
        holders=np.zeros((n_parts, counts.shape[1]), dtype=np.int64),
        required=problem.required,
        spread=np.zeros((len(first), n_parts), dtype=np.int64),
    )


def _deal(balance: Balance, shares: Ints, n_units: Ints) -> Ints:
    """Deal out alike units by their shares and return how many of each are left.

    Twice as many as there are parts are held back, so that a class of few units can still reach every part.
    """
    n_parts = shares.shape[1]
    dealt = np.maximum(n_units - 2 * n_parts, 0)[:, np.newaxis] * shares // SHARE_UNIT
    balance.spread += dealt
    balance.deviation += (balance.counts.T @ dealt).T * balance.scale
    balance.holders += (balance.has.T @ dealt).T
    left: Ints = n_units - dealt.sum(axis=1)
    return left


def _first_place(places: Ints, alike: Ints, n_alike: int) -> Ints:
    first = np.full(n_alike, len(places), dtype=np.int64)
    np.minimum.at(first, alike, places)
    return first


def _place_rest(balance: Balance, left: Ints, places: Ints) -> None:
    """Give the units that are left, one by one, to the part where they cost least."""
    images = np.asarray(balance.counts.T @ balance.spread.sum(axis=1) + balance.counts.T @ left).ravel()
    rarity = np.minimum.reduceat(images[balance.counts.indices], balance.counts.indptr[:-1])
    size = balance.counts[:, [0]].toarray().ravel()
    weighted = balance.weights * balance.deviation
    for alike in np.lexsort((places, -size, rarity)).tolist():
        strata, own = balance.row(alike)
        once = (balance.weights[:, strata] * (own * own * balance.scale)).sum(axis=1)
        is_forbidden = ~balance.allowed[alike]
        for _ in range(int(left[alike])):
            change = once + 2 * (weighted[:, strata] * own).sum(axis=1)
            part = int(np.lexsort((change, is_forbidden))[0])
            balance.put(alike, part, 1)
            weighted[part, strata] = balance.weights[part, strata] * balance.deviation[part, strata]


def _of_units(spread: Ints, alike: Ints, places: Ints) -> Ints:
    """Return the part of each unit: alike ones, in the seeded order, fill their parts one after the other."""
    by_group = np.lexsort((places, alike))
    parts = np.repeat(np.tile(np.arange(spread.shape[1]), len(spread)), spread.ravel())
    result = np.empty(len(alike), dtype=np.int64)
    result[by_group] = parts
    return result

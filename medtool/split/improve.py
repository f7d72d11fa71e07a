"""Exchange units between the parts of a split as long as it makes them more equal.

Single units are moved, then pairs of units swapped, always the best first. Where few units are left in a local optimum,
some are moved at random and the search goes on from there, a fixed number of times; what is better is kept. All numbers
are whole, the random ones always the same, so the result depends on the units alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from medtool.split.balance import LIMIT, Balance, Ints

_MISSING = 2 * LIMIT  # what it costs that a part lacks a class: more than any change
_MOST_MISSING = 12  # counted at once, so that sums stay below 2**63
_NEVER = np.iinfo(np.int64).max

_CANDIDATES = 192  # a part, when pairs are swapped
_MOST_CELLS = 400_000_000  # of all tables together that are looked at for one improvement
_KICKS = 24
_MOST_ALIKES_FOR_KICKS = 3_000
_MOST_DENSE = 2_000_000  # numbers


def improve(balance: Balance) -> None:
    """Lower the cost of ``balance`` in place; a part never loses the last image of a class that it must have."""
    search = _Search(balance)
    search.descend()
    if len(balance.spread) > _MOST_ALIKES_FOR_KICKS:
        return
    best = (balance.n_missing(), balance.cost())
    for _ in range(_KICKS):
        if search.cells_left <= 0 or _is_as_equal_as_can_be(balance):
            return
        before = balance.spread.copy(), balance.deviation.copy(), balance.holders.copy(), search.unsettled.copy()
        search.kick()
        search.descend()
        now = (balance.n_missing(), balance.cost())
        if now < best:
            best = now
        else:
            balance.spread, balance.deviation, balance.holders, search.unsettled = before


def _is_as_equal_as_can_be(balance: Balance) -> bool:
    """Tell whether no stratum is an image or more away from what is wanted anywhere."""
    return not balance.n_missing() and bool((np.abs(balance.deviation) < balance.scale).all())


@dataclass(slots=True)
class _Gains:
    """What it costs to take one unit of each alike from each part, and to add it, shape ``(alikes, parts)``."""

    take: Ints
    add: Ints


class _Search:
    def __init__(self, balance: Balance) -> None:
        self._balance = balance
        self._n_parts = balance.spread.shape[1]
        # Pairs of parts that have changed since swaps between them were last looked for in vain.
        self.unsettled = np.ones((self._n_parts, self._n_parts), dtype=bool)
        self._own = (balance.squares @ balance.weights.T) * balance.scale
        self._required = np.flatnonzero(balance.required.any(axis=0))
        self._has_required = balance.has[:, self._required]
        # Rows of a small table are looked up often; those of a large one are made when they are asked for.
        self._table: Ints | None = balance.counts.toarray() if np.prod(balance.counts.shape) <= _MOST_DENSE else None
        self._random = random.Random(0)
        self.cells_left = _MOST_CELLS

    def descend(self) -> None:
        """Move, then swap, until nothing gets better or the work is used up."""
        while self.cells_left > 0:
            gains = self._gains(range(self._n_parts), None)
            while self._move_best(gains) and self.cells_left > 0:
                pass
            if not self._swap_best_of_each_pair(gains):
                return

    def kick(self) -> None:
        """Move some units at random."""
        balance = self._balance
        for _ in range(3 + self._below(4)):
            alike = self._below(len(balance.spread))
            sources = np.flatnonzero(balance.spread[alike])
            targets = np.flatnonzero(balance.allowed[alike])
            source, target = (int(places[self._below(len(places))]) for places in (sources, targets))
            self._move(alike, source, target)

    def _below(self, limit: int) -> int:
        return int(self._random.random() * limit)  # the one method whose numbers Python promises to keep

    def _move(self, alike: int, source: int, target: int) -> None:
        self._balance.put(alike, source, -1)
        self._balance.put(alike, target, 1)
        for part in (source, target):
            self.unsettled[part] = self.unsettled[:, part] = True

    def _gains(self, parts: Sequence[int], old: _Gains | None) -> _Gains:
        """Return the gains, those of ``parts`` new."""
        balance = self._balance
        chosen = np.array(parts)
        self.cells_left -= balance.counts.nnz * len(chosen)
        linear = 2 * (balance.counts @ (balance.weights[chosen] * balance.deviation[chosen]).T)
        required, holders = self._of_required(chosen)
        losing = self._has_required @ (required & (holders == 1)).T.astype(np.int64)
        winning = self._has_required @ (required & (holders == 0)).T.astype(np.int64)
        own = self._own[:, chosen]
        take = own - linear + _MISSING * np.minimum(losing, _MOST_MISSING)
        add = own + linear - _MISSING * np.minimum(winning, _MOST_MISSING)
        if old is None:
            return _Gains(take, add)
        old.take[:, chosen], old.add[:, chosen] = take, add
        return old

    def _of_required(self, parts: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
        """Return, for these parts and the strata that any part must have, whether they must, and how many units do."""
        return self._balance.required[parts][:, self._required], self._balance.holders[parts][:, self._required]

    def _move_best(self, gains: _Gains) -> bool:
        """Move the unit that lowers the cost most; False when none does."""
        balance = self._balance
        best, found = 0, None
        for source in range(self._n_parts):
            alikes = np.flatnonzero(balance.spread[:, source])
            if not len(alikes):
                continue
            self.cells_left -= len(alikes) * self._n_parts
            change = gains.take[alikes, source, np.newaxis] + gains.add[alikes]
            change[~balance.allowed[alikes]] = _NEVER
            change[:, source] = _NEVER
            place = int(change.argmin())
            if change.flat[place] < best:
                best = int(change.flat[place])
                found = int(alikes[place // self._n_parts]), source, place % self._n_parts
        if found is None:
            return False
        self._move(*found)
        self._gains(found[1:], gains)
        return True

    def _swap_best_of_each_pair(self, gains: _Gains) -> bool:
        """Swap, for every two parts, the two units that lower the cost most; False when none do."""
        is_better = False
        for one, other in combinations(range(self._n_parts), 2):
            if self.cells_left <= 0:
                return False
            if not self.unsettled[one, other]:
                continue
            swap = self._best_swap(gains, one, other)
            if swap is None:
                self.unsettled[one, other] = False
                continue
            self._move(swap[0], one, other)
            self._move(swap[1], other, one)
            self._gains((one, other), gains)
            is_better = True
        return is_better

    def _best_swap(self, gains: _Gains, one: int, other: int) -> tuple[int, int] | None:
        """Return which alikes of the two parts to exchange; None where it would not lower the cost."""
        balance = self._balance
        from_one = gains.take[:, one] + gains.add[:, other]
        from_other = gains.take[:, other] + gains.add[:, one]
        ones = self._candidates((balance.spread[:, one] > 0) & balance.allowed[:, other], from_one)
        others = self._candidates((balance.spread[:, other] > 0) & balance.allowed[:, one], from_other)
        if not len(ones) or not len(others):
            return None
        change = from_one[ones, np.newaxis] + from_other[others] - self._shared(ones, others, np.array([one, other]))
        place = int(change.argmin())
        return (int(ones[place // len(others)]), int(others[place % len(others)])) if change.flat[place] < 0 else None

    def _candidates(self, is_there: npt.NDArray[np.bool_], change: Ints) -> Ints:
        """Return which alikes are tried in a swap: all, or those that are best by themselves and some others."""
        alikes = np.flatnonzero(is_there)
        if len(alikes) <= _CANDIDATES:
            return alikes
        by_change = alikes[np.argsort(change[alikes], kind="stable")]
        half = _CANDIDATES // 2
        rest = by_change[half:]
        picked = [self._below(len(rest)) for _ in range(half)]
        return np.unique(np.concatenate([by_change[:half], rest[picked]]))

    def _shared(self, ones: Ints, others: Ints, parts: Ints) -> Ints:
        """Return by how much a swap costs less than its two moves do: what both units have changes nothing."""
        balance = self._balance
        mine, theirs = self._rows(ones), self._rows(others)
        self.cells_left -= len(ones) * theirs.size
        shared: Ints = 2 * balance.scale * ((mine * balance.weights[parts].sum(axis=0)) @ theirs.T)
        required, holders = self._of_required(parts)
        last = (required & (holders == 1)).sum(axis=0)
        if last.any():
            both = ((mine[:, self._required] > 0) * last) @ (theirs[:, self._required] > 0).T.astype(np.int64)
            shared += _MISSING * np.minimum(both, _MOST_MISSING)
        return shared

    def _rows(self, alikes: Ints) -> Ints:
        """Return the counts of these alikes, shape ``(alikes, strata)``."""
        return self._balance.counts[alikes].toarray() if self._table is None else self._table[alikes]

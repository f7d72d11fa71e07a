"""Which units are the val part inside each fold's training part.

A class that a fold trains on must stay there, and comes before one in its val part: where sharing out has put all who
have a class into the val part, one of them is trained on again. Which one: whoever leaves the fewest classes missing in
the val part, then the one that brings it nearest to what is wanted of it. A class that is missing there after all is
added where that takes none from training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.split.assign import SHARE_UNIT, Problem, assign
from medtool.split.balance import Ints
from medtool.split.strata import Strata

_NONE = -1


def val_folds(strata: Strata, fold: Ints, places: Ints, fraction: float) -> Ints:
    """Return the fold in whose val part each unit is, or -1; each unit once at most, and never in its own fold's.

    Parameters
    ----------
    fold, places
        Of each unit, shape ``(units,)``: where it is held out, and its place in the seeded order.
    fraction
        How much of all other folds a val part is; at most 1 / (folds - 1).
    """
    n_folds, share = int(fold.max()) + 1, int(fraction * SHARE_UNIT)
    shares = np.full((n_folds, n_folds + 1), share, dtype=np.int64)
    np.fill_diagonal(shares, 0)
    shares[:, n_folds] = 0
    shares[:, n_folds] = SHARE_UNIT - shares.sum(axis=1)
    needed = np.flatnonzero(strata.needed())
    has = strata.counts[:, needed]
    has.data = np.ones_like(has.data)
    required = np.zeros((n_folds + 1, strata.counts.shape[1]), dtype=bool)
    for number in range(n_folds):  # one for val, one that is trained on
        required[number, needed] = _sums(has, fold != number) >= 2
    part, _ = assign(Problem(strata.counts, strata.importance, fold, shares, required, places))
    choice = _Choice(strata, has, fold, places, share, np.where(part == n_folds, _NONE, part))
    for number in range(n_folds):
        choice.train_on_each_class(number)
        choice.add_classes(number)
    return choice.val_fold


def _sums(counts: Any, units: npt.NDArray[np.bool_]) -> Ints:
    """Return the sum of the counts over these units."""
    sums: Ints = counts[np.flatnonzero(units)].sum(axis=0)
    return sums


@dataclass(frozen=True, eq=False)
class _Choice:
    """The val parts so far.

    Attributes
    ----------
    has
        CSR array of 0 and 1, shape ``(units, needed)``: which units have any image, and one of each class.
    share
        Of a val part, in millionths.
    val_fold
        Of each unit; -1 for none.
    """

    strata: Strata
    has: Any
    fold: Ints
    places: Ints
    share: int
    val_fold: Ints

    def train_on_each_class(self, fold: int) -> None:
        """Take units out of the val part until its fold trains on all that is in other folds."""
        while True:
            n_val = _sums(self.has, self.val_fold == fold)
            missing = (n_val > 0) & (_sums(self.has, self._trained_on(fold)) == 0)
            if not missing.any():
                return
            able = np.flatnonzero((self.val_fold == fold) & (self.has @ missing > 0))
            lost = self.has[able] @ (n_val == 1)  # of how many classes the val part would have no other
            self.val_fold[self._best(able, lost, fold, -1)] = _NONE

    def add_classes(self, fold: int) -> None:
        """Add units to the val part that bring it what it lacks, as long as its fold trains on others that have it."""
        while True:
            missing = _sums(self.has, self.val_fold == fold) == 0
            n_trained = _sums(self.has, self._trained_on(fold))
            is_free = (self.val_fold == _NONE) & (self.fold != fold)
            able = np.flatnonzero(is_free & (self.has @ missing > 0) & (self.has @ (n_trained == 1) == 0))
            if not len(able):
                return
            self.val_fold[self._best(able, -(self.has[able] @ missing), fold, 1)] = fold

    def _trained_on(self, fold: int) -> npt.NDArray[np.bool_]:
        is_trained_on: npt.NDArray[np.bool_] = (self.fold != fold) & (self.val_fold != fold)
        return is_trained_on

    def _best(self, units: Ints, penalties: Ints, fold: int, sign: int) -> int:
        """Return the unit of the least penalty that, added (1) or taken (-1), brings the val part nearest its share."""
        least = units[penalties == penalties.min()]
        pool = _sums(self.strata.counts, self.fold != fold).tolist()
        there = _sums(self.strata.counts, self.val_fold == fold).tolist()
        importance = self.strata.importance.tolist()

        def cost(unit: int) -> int:
            own = self.strata.counts[[unit]].toarray().ravel().tolist()
            return sum(
                weight * (SHARE_UNIT * (got + sign * images) - self.share * n) ** 2 // max(self.share * n, 1)
                for weight, got, images, n in zip(importance, there, own, pool, strict=True)
            )

        return int(min(least, key=lambda unit: (cost(int(unit)), int(self.places[unit]))))

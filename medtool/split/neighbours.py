"""The nearest neighbours of images among others: all, without those that leak, and without as many that do not.

An image is described by the colours of 8 × 8 parts of it, sorted, so that it does not matter where they are, and by how
much there is of each of 255 waves across it, whichever way it is mirrored. Both descriptions are standardised over the
data set and count the same. Distances are Euclidean between points of whole numbers, small enough that all sums are
exact: neither the machine nor the order of the rows decides between two neighbours, unless they are equally far.

References
----------
Cover and Hart, "Nearest neighbor pattern classification", IEEE Transactions on Information Theory 13 (1967).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.split.duplicates.fingerprints import Fingerprints

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

_TEST_BLOCK, _TRAIN_BLOCK = 256, 8_192
_MOST_DRAWN = 4_000_000  # places held at once
_FITTED = 20_000  # images that the standardisation is taken from
_LEVELS, _FARTHEST = 16, 4.0  # steps to a standard deviation, and standard deviations that are told apart


class Describer:
    """Turns rows into points whose distances say how unlike their images look."""

    def __init__(self, fingerprints: Fingerprints, rows: Ints) -> None:
        self._fingerprints = fingerprints
        fitted = rows[:: -(-len(rows) // _FITTED)]
        raw = self._raw(fitted)
        self._mean, spread = raw.mean(axis=0), raw.std(axis=0)
        colours = 8 * 8 * 3
        # Each of the two descriptions counts as a whole, whatever the number of its columns.
        weight = np.where(np.arange(raw.shape[1]) < colours, 1.0, np.sqrt(colours / (raw.shape[1] - colours)))
        self._scale = np.divide(_LEVELS * weight, spread, out=np.zeros_like(spread), where=spread > 1e-6)
        self._most = np.rint(_LEVELS * _FARTHEST * weight)

    def __call__(self, rows: Ints) -> npt.NDArray[np.float32]:
        """Return whole numbers, shape ``(rows, columns)``, whose products add up exactly in 24 bits."""
        steps = np.rint((self._raw(rows) - self._mean) * self._scale)
        points: npt.NDArray[np.float32] = np.clip(steps, -self._most, self._most).astype(np.float32)
        return points

    def _raw(self, rows: Ints) -> npt.NDArray[np.float32]:
        colours = self._fingerprints.colours[rows].reshape(len(rows), -1, 3).astype(np.float32)
        red, green, blue = np.moveaxis(colours, -1, 0)
        opponents = np.stack([(red + green + blue) / 3, red - green, green - blue], axis=1)
        opponents.sort(axis=2)
        waves = np.abs(self._fingerprints.spectra[rows].reshape(len(rows), -1)[:, 1:].astype(np.float32))
        return np.concatenate([opponents.reshape(len(rows), -1), waves], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the classifier answered.

    Attributes
    ----------
    rows
        Shape ``(n,)``: the scored rows.
    right
        Shape ``(n, 3)``, 0 or 1: with the leaks, without them, without as many others.
    n_left_out
        Shape ``(n,)``.
    has_answer
        Shape ``(n,)``: whether there is a training image in all three ways, not only leaks.
    """

    rows: Ints
    right: Floats
    n_left_out: Ints
    has_answer: npt.NDArray[np.bool_]

    @classmethod
    def joined(cls, several: Sequence[Answers]) -> Answers:
        """Return those of several rounds as one."""
        return cls(
            np.concatenate([one.rows for one in several]),
            np.concatenate([one.right for one in several]),
            np.concatenate([one.n_left_out for one in several]),
            np.concatenate([one.has_answer for one in several]),
        )

    def kept(self, are_kept: npt.NDArray[np.bool_]) -> Answers:
        """Return those for some of the rows."""
        return Answers(self.rows[are_kept], self.right[are_kept], self.n_left_out[are_kept], self.has_answer[are_kept])


def answers_of(test: Ints, training: Training, describe: Describer, rng: np.random.Generator) -> Answers:
    """Return the answers for ``test``, so many at a time that what is drawn for their control fits into memory."""
    n_left_out = training.n_leaks(test)
    pieces = np.cumsum(n_left_out) // _MOST_DRAWN
    right = np.zeros((len(test), 3))
    for piece in np.unique(pieces):
        these = np.flatnonzero(pieces == piece)
        right[these] = _right(test[these], training, describe, rng)
    return Answers(test, right, n_left_out, n_left_out < len(training.rows))


def _right(test: Ints, training: Training, describe: Describer, rng: np.random.Generator) -> Floats:
    """Return whether the nearest neighbour has the label, in each of the three ways: shape ``(test, 3)``, 0 or 1."""
    points = describe(test)
    drawn = [training.others(row, rng) for row in test]
    owners = np.repeat(np.arange(len(test)), [len(places) for places in drawn])
    others = np.concatenate(drawn)
    by_place = np.argsort(others, kind="stable")
    owners, others = owners[by_place], others[by_place]
    nearest = np.full((3, len(test)), np.inf, np.float32)
    answer = np.full((3, len(test)), -1)
    for first in range(0, len(training.rows), _TRAIN_BLOCK):
        block = training.rows[first : first + _TRAIN_BLOCK]
        against = describe(block)
        low, high = np.searchsorted(others, [first, first + len(block)])
        for start in range(0, len(test), _TEST_BLOCK):
            here = slice(start, start + _TEST_BLOCK)
            count = len(test[here])
            far = np.square(against).sum(axis=1) - 2 * (points[here] @ against.T)  # less a constant of each row
            is_leak = training.units[test[here]][:, None] == training.units[block][None]
            is_drawn = np.zeros_like(is_leak)
            is_owned = (owners[low:high] >= start) & (owners[low:high] < start + count)
            is_drawn[owners[low:high][is_owned] - start, others[low:high][is_owned] - first] = True
            for way, is_left_out in enumerate((None, is_leak, is_drawn)):
                kept = far if is_left_out is None else np.where(is_left_out, np.float32(np.inf), far)
                place = kept.argmin(axis=1)
                least = kept[np.arange(count), place]
                is_nearer = least < nearest[way, here]
                nearest[way, here][is_nearer] = least[is_nearer]
                answer[way, here][is_nearer] = training.classes[block[place[is_nearer]]]
    right: Floats = (answer == training.classes[test]).T.astype(np.float64)
    return right


class Training:
    """The rows that are trained on in one round, with the class and the unit of every row of the table."""

    def __init__(self, rows: Ints, classes: Ints, units: Ints) -> None:
        self.rows, self.classes, self.units = rows, classes, units
        self._by_unit = np.argsort(units[rows], kind="stable")
        self._sorted = units[rows][self._by_unit]
        self._of_class = {int(label): np.flatnonzero(classes[rows] == label) for label in np.unique(classes[rows])}

    def n_leaks(self, test: Ints) -> Ints:
        """Return how many training rows leak into each row."""
        low, high = (np.searchsorted(self._sorted, self.units[test], side=side) for side in ("left", "right"))
        return high - low

    def others(self, row: int, rng: np.random.Generator) -> Ints:
        """Draw places in ``rows``: as many of each label as leak into a row, none of which does.

        Where a label has not so many others, all of them.
        """
        unit = self.units[row]
        low, high = np.searchsorted(self._sorted, [unit, unit + 1])
        leaks = self.rows[self._by_unit[low:high]]
        drawn = [np.zeros(0, np.int64)]
        for label, count in zip(*np.unique(self.classes[leaks], return_counts=True), strict=True):
            places = self._of_class[int(label)]
            # Among twice as many there are enough, as at most ``count`` of them leak themselves.
            some = places[rng.choice(len(places), size=min(2 * count, len(places)), replace=False)]
            drawn.append(some[self.units[self.rows[some]] != unit][:count])
        return np.concatenate(drawn)

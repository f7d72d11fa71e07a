"""Intervals by the bootstrap: whole patients are drawn, since images of one patient say less than those of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.errors import InputError, UsageError

DRAWS = 2000
LEVEL = 0.95
_AT_ONCE = 1 << 21  # weights of images that are held at a time

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
#: Takes weights ``(draws, images)`` and gives each score of each draw, ``(draws,)``, NaN where it is undefined.
Scores = Callable[[Floats], Mapping[str, Floats]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A score and how far it may be off.

    Attributes
    ----------
    value
        The score itself; None where it is undefined.
    low, high
        Ends of the interval; None where the score is undefined, or in more than a twentieth of the draws.
    n_undefined
        Draws in which the score was undefined, such as an AUC without a positive.
    """

    value: float | None
    low: float | None
    high: float | None
    n_undefined: int

    def document(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n_undefined": self.n_undefined}


def clusters_of(groups: Sequence[str]) -> Places:
    """Return the number of each image's cluster, from 0, by its group's name; an empty name is a cluster of its own."""
    numbers: dict[str | int, int] = {}
    keys = [name.strip() or place for place, name in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def clustered_intervals(
    scores: Scores, clusters: Places, *, seed: int, draws: int = DRAWS, level: float = LEVEL
) -> dict[str, Interval]:
    """Return percentile intervals of several scores of the same images.

    Parameters
    ----------
    scores
        Of images that count as often as their weights say.
    clusters
        Shape ``(images,)``: the number of each image's patient, from 0. As many are drawn as there are, with
        replacement.
    seed
        The same gives the same intervals.
    level
        Share of the distribution between the ends, between 0 and 1.

    Raises
    ------
    UsageError
        If ``draws`` is less than 100 or ``level`` out of range.
    InputError
        If there is no image.

    References
    ----------
    Efron and Tibshirani, "An introduction to the bootstrap", Chapman & Hall (1993), chapter 13; Field and Welsh,
    "Bootstrapping clustered data", JRSS B 69 (2007).
    """
    if draws < 100 or not 0 < level < 1:
        raise UsageError(f"{draws} draws at level {level:g}; it must be 100 draws or more, and a level between 0 and 1")
    if not len(clusters):
        raise InputError("there is no image to draw from")
    chance = np.random.default_rng(seed)
    given = scores(np.ones((1, len(clusters))))
    n_clusters = int(clusters.max()) + 1
    at_once = max(1, _AT_ONCE // len(clusters))
    drawn: dict[str, list[Floats]] = {name: [] for name in given}
    for start in range(0, draws, at_once):
        picked = chance.integers(0, n_clusters, (min(at_once, draws - start), n_clusters))
        rows = np.arange(len(picked))[:, None] * n_clusters
        counts = np.bincount((picked + rows).ravel(), minlength=picked.size).reshape(picked.shape)
        for name, values in scores(counts[:, clusters].astype(np.float64)).items():
            drawn[name].append(values)
    return {
        name: _interval(float(values[0]), np.concatenate(drawn[name]), level=level) for name, values in given.items()
    }


def _interval(value: float, drawn: Floats, *, level: float) -> Interval:
    known = drawn[~np.isnan(drawn)]
    n_undefined = len(drawn) - len(known)
    if np.isnan(value) or n_undefined > len(drawn) / 20:
        return Interval(None if np.isnan(value) else value, None, None, n_undefined)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n_undefined)

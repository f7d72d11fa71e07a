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

Scores = Mapping[str, float | None]
Places = npt.NDArray[np.int64]


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


def clusters_of(groups: Sequence[str]) -> list[Places]:
    """Return the places of each group's members; an empty name is a group of its own."""
    members: dict[str | int, list[int]] = {}
    for place, name in enumerate(groups):
        members.setdefault(name.strip() or place, []).append(place)
    return [np.array(places, dtype=np.int64) for places in members.values()]


def clustered_intervals(
    scores: Callable[[Places], Scores],
    clusters: Sequence[Places],
    *,
    seed: int,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Return percentile intervals of several scores of the same images.

    Parameters
    ----------
    scores
        Gives the scores of the images at these places, of which some come several times.
    clusters
        Places of the images of each patient; as many clusters are drawn as there are, with replacement.
    seed
        The same gives the same intervals.
    level
        Share of the distribution between the ends, between 0 and 1.

    Raises
    ------
    UsageError
        If ``draws`` is less than 100 or ``level`` out of range.
    InputError
        If there is no cluster.

    References
    ----------
    Efron and Tibshirani, "An introduction to the bootstrap", Chapman & Hall (1993), chapter 13; Field and Welsh,
    "Bootstrapping clustered data", JRSS B 69 (2007).
    """
    if draws < 100 or not 0 < level < 1:
        raise UsageError(f"{draws} draws at level {level:g}; it must be 100 draws or more, and a level between 0 and 1")
    if not clusters:
        raise InputError("there is no image to draw from")
    chance = np.random.default_rng(seed)
    given = scores(np.sort(np.concatenate(clusters)))
    drawn: dict[str, list[float]] = {name: [] for name in given}
    for _ in range(draws):
        picked = chance.integers(0, len(clusters), len(clusters))
        for name, value in scores(np.concatenate([clusters[place] for place in picked])).items():
            if value is not None:
                drawn[name].append(value)
    found = {}
    for name, value in given.items():
        n_undefined = draws - len(drawn[name])
        if value is None or n_undefined > draws / 20:
            found[name] = Interval(value, None, None, n_undefined)
            continue
        low, high = np.quantile(drawn[name], [(1 - level) / 2, (1 + level) / 2])
        found[name] = Interval(value, float(low), float(high), n_undefined)
    return found

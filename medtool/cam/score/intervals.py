"""From scores of images to those of all of them: means, intervals over patients, and whether two methods differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.cam.score.metrics import Floats
from medtool.statistics.bootstrap import Interval, Places, clustered_intervals, clusters_of

#: Random signs of the test; with so few patients that there are fewer, all of them are taken.
SIGNS = 10_000
_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over images.

    Attributes
    ----------
    interval
        The mean and the ends of its 95% interval.
    n_images, n_groups
        How many images have the score, and of how many patients they are; an unknown patient counts as one of its own.
    """

    interval: Interval
    n_images: int
    n_groups: int

    def document(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**self.interval.document(), "n_images": self.n_images, "n_patients": self.n_groups}


def means_of(scores: Mapping[str, Floats], groups: Sequence[str], *, seed: int) -> dict[str, Mean]:
    """Return the mean of each score over the images that have it, patients being drawn.

    Parameters
    ----------
    scores
        Of each image, NaN for none.
    groups
        Of each image: its patient; empty is one of its own.
    """
    found: dict[str, Mean] = {}
    by_known: dict[bytes, list[str]] = {}
    for name, values in scores.items():
        by_known.setdefault((~np.isnan(values)).tobytes(), []).append(name)
    for known, names in by_known.items():
        places = np.flatnonzero(np.frombuffer(known, np.bool_)).tolist()
        if not len(places):
            found |= {name: Mean(Interval(None, None, None, 0), 0, 0) for name in names}
            continue
        clusters = clusters_of([groups[place] for place in places])
        columns = np.stack([scores[name][places] for name in names], 1)
        intervals = clustered_intervals(_Means(names, columns), clusters, seed=seed)
        n_groups = int(clusters.max()) + 1
        # Of one patient all draws are the same: that tells nothing of others.
        if n_groups < 2:
            intervals = {name: Interval(each.value, None, None, each.n_undefined) for name, each in intervals.items()}
        found |= {name: Mean(intervals[name], len(places), n_groups) for name in names}
    return {name: found[name] for name in scores}


class _Means:
    """Means of several scores for many weightings of the same images."""

    def __init__(self, names: Sequence[str], columns: Floats) -> None:
        self._names, self._columns = names, columns

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        found = weights @ self._columns / weights.sum(axis=1, keepdims=True)
        return {name: found[:, place] for place, name in enumerate(self._names)}


@dataclass(frozen=True, slots=True)
class Difference:
    """How two methods differ on the images that both have a score of.

    Attributes
    ----------
    mean
        Of the second minus the first.
    p_value
        Of the test that they do not differ; None where there is no image.
    """

    mean: Mean
    p_value: float | None


def difference_of(first: Floats, second: Floats, groups: Sequence[str], *, seed: int) -> Difference:
    """Return the paired difference of two scores of the same images, second minus first."""
    apart = second - first
    (mean,) = means_of({"difference": apart}, groups, seed=seed).values()
    places = np.flatnonzero(~np.isnan(apart)).tolist()
    if not len(places):
        return Difference(mean, None)
    clusters = clusters_of([groups[place] for place in places])
    return Difference(mean, sign_flip_p(apart[places], clusters, seed=seed))


def sign_flip_p(apart: Floats, clusters: Places, *, seed: int, signs: int = SIGNS) -> float:
    """Return how often a sum of differences as far from 0 as this one comes from turning patients' signs over.

    If two methods are alike, the differences of a patient's images may as well have the other sign, all together. With
    few patients all turns are taken, and the value is exact; else ``signs`` random ones, this one counted among them.

    Parameters
    ----------
    apart
        Shape ``(images,)``, finite.
    clusters
        Shape ``(images,)``: the number of each image's patient, from 0.

    References
    ----------
    Winkler et al., "Permutation inference for the general linear model", NeuroImage 92 (2014), section on sign
    flipping and exchangeability blocks.
    """
    sums = np.bincount(clusters, weights=apart)
    seen = abs(sums.sum())
    # What differs by rounding alone is as far.
    least = seen - 1e-12 * np.abs(sums).sum()
    n = len(sums)
    if 2**n <= signs:
        turns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(np.abs((1 - 2 * turns) @ sums) >= least))
    chance = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // n)
    as_far = 0
    for start in range(0, signs, at_once):
        turns = chance.integers(0, 2, (min(at_once, signs - start), n), dtype=np.int8)
        as_far += int((np.abs((1 - 2 * turns) @ sums) >= least).sum())
    return (1 + as_far) / (1 + signs)


def adjusted(p_values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return p-values that allow for their number, by Holm's steps.

    References
    ----------
    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6 (1979).
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(p)
    found[order] = np.minimum(stepped, 1)
    return found

"""How equal a split is while it is being made: the parts, what they hold, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

LIMIT = 1 << 56  # of a change of cost; leaves room for the penalty of a missing class in 64 bits


@dataclass(eq=False)
class Balance:
    """How units are spread over the parts so far. Units with the same counts are *alike* and share one row.

    Attributes
    ----------
    counts, squares, has
        CSR arrays of int64, shape ``(alikes, strata)``: images of each stratum, their squares, and 1 if there are any.
        The first stratum is all images.
    allowed
        Shape ``(alikes, parts)``: whether they may go there.
    weights
        Shape ``(parts, strata)``: what the square of a deviation costs.
    scale
        Deviations are in units of 1 / scale of an image.
    deviation
        Shape ``(parts, strata)``: images there minus images wanted.
    holders
        Shape ``(parts, strata)``: how many units there have an image of the stratum.
    required
        Shape ``(parts, strata)``: whether the part must have an image of the stratum.
    spread
        Shape ``(alikes, parts)``: how many of them are in each part.
    """

    counts: Any
    squares: Any
    has: Any
    allowed: npt.NDArray[np.bool_]
    weights: Ints
    scale: int
    deviation: Ints
    holders: Ints
    required: npt.NDArray[np.bool_]
    spread: Ints

    def row(self, alike: int) -> tuple[Ints, Ints]:
        """Return the strata that these units have images of, and how many."""
        start, end = self.counts.indptr[alike : alike + 2]
        return self.counts.indices[start:end], self.counts.data[start:end]

    def put(self, alike: int, part: int, n_units: int) -> None:
        """Add so many of these units to a part; a negative number takes them away."""
        strata, images = self.row(alike)
        self.spread[alike, part] += n_units
        self.deviation[part, strata] += n_units * self.scale * images
        self.holders[part, strata] += n_units

    def n_missing(self) -> int:
        """Return how many times a part lacks a stratum that it must have."""
        return int((self.required & (self.holders == 0)).sum())

    def cost(self) -> int:
        """Return the cost: the sum of weights times squared deviations, a whole number of any size."""
        terms = zip(self.weights.ravel().tolist(), self.deviation.ravel().tolist(), strict=True)
        return sum(weight * deviation**2 for weight, deviation in terms)

"""Seeded randomness and smooth random fields that all phantoms are drawn from.

Every stream comes from PCG64 with a key of whole numbers, so a phantom is a function of its key and of nothing else.
Fields are sums of B-splines with normally distributed weights: smooth, and defined between the pixels, so that
one structure can be drawn at any magnification and in any pose.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Field: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]

# Standard deviation of a two-dimensional cubic B-spline sum with weights of unit variance, averaged over positions.
_CUBIC_SD = 151 / 315


def generator(*key: int) -> np.random.Generator:
    """Return the random stream of this key."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(key))))


def smoothstep(values: Any, low: float, high: float) -> Field:
    """Return 0 below ``low``, 1 above ``high``, and a cubic ramp between."""
    t = np.asarray((np.asarray(values, dtype=np.float64) - low) * (1.0 / (high - low)))
    np.clip(t, 0.0, 1.0, out=t)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def grid(shape: tuple[int, int]) -> tuple[Field, Field]:
    """Return x and y of every pixel centre, each of ``shape`` (height, width)."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    return x, y


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], *, period_px: float) -> Field:
    """Return a field of mean 0 and variance 1 (over many draws) with structures of about ``period_px`` pixels."""
    rows, columns = (_spline_weights(length, period_px) for length in shape)
    weights = rng.standard_normal((rows.shape[1], columns.shape[1]))
    return np.asarray(rows @ weights @ columns.T / _CUBIC_SD)


def octaves(rng: np.random.Generator, shape: tuple[int, int], *, coarse_px: float, count: int, gain: float) -> Field:
    """Return a sum of ``count`` noise fields, each of half the last one's period and ``gain`` times its size."""
    total = np.zeros(shape)
    size = 1.0
    norm = 0.0
    for octave in range(count):
        total += size * smooth_noise(rng, shape, period_px=coarse_px / 2**octave)
        norm += size**2
        size *= gain
    return np.asarray(total / np.sqrt(norm))


class Lattice:
    """A noise field over the whole plane, repeating after ``cells`` periods in both directions.

    Parameters
    ----------
    rng
        Gives the square of ``cells`` by ``cells`` weights.
    period
        Distance between two weights, in whatever unit ``at`` is called with.
    """

    def __init__(self, rng: np.random.Generator, *, period: float, cells: int = 32) -> None:
        # A table of the splines, fine enough to be read linearly, is ten times faster than splines at every place.
        self._fineness = max(2, 512 // cells)
        spline = _periodic_weights(cells, self._fineness)
        self._table = (spline @ rng.standard_normal((cells, cells)) @ spline.T / _CUBIC_SD).astype(np.float32)
        self._period = period

    def at(self, x: Field, y: Field) -> Field:
        """Return the field at the given places: mean 0, variance 1 over many draws."""
        scale = self._fineness / self._period
        columns, rows = (np.atleast_2d(place * scale).astype(np.float32) for place in (x, y))
        values = cv2.remap(self._table, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return np.asarray(values, dtype=np.float64).reshape(np.shape(x))


def standardised(values: Field, where: Mask, *, limit: float) -> Field:
    """Return ``values`` with mean 0 and standard deviation 1 over ``where``, cut at ± ``limit``.

    What is drawn with it has the same mean and contrast whatever its pattern, so neither gives the pattern away.
    """
    inside = values[where]
    spread = float(inside.std()) if inside.size else 0.0
    if spread <= 0.0:
        return np.zeros_like(values)
    clipped = np.clip((values - inside.mean()) / spread, -limit, limit)
    inside = clipped[where]
    return np.asarray((clipped - inside.mean()) / inside.std())


def _spline_weights(length: int, period: float) -> Field:
    """Return the (length, n) matrix that sums n cubic B-splines, ``period`` pixels apart, at every pixel."""
    places = np.arange(length) / period
    knots = np.arange(-1, int(np.ceil(length / period)) + 2)
    return _cubic(np.abs(places[:, None] - knots[None, :]))


@functools.cache
def _periodic_weights(cells: int, fineness: int) -> Field:
    """Return the matrix that sums ``cells`` splines on a circle, ``fineness`` places a cell."""
    distance = np.abs(np.arange(cells * fineness)[:, None] / fineness - np.arange(cells)[None, :])
    return _cubic(np.minimum(distance, cells - distance))


def _cubic(distance: Field) -> Field:
    """Return the cubic B-spline at a distance from its centre, in knots."""
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0.0, None) ** 3 / 6
    return np.asarray(np.where(distance < 1, near, far))

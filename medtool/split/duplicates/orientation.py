"""The eight ways of turning and mirroring a picture, and what each does to its spectrum and to its hash: exactly.

An orientation is a number from 0 to 7, three bits: 4 exchanges rows and columns, then 2 reverses the rows, then 1
reverses the columns. A cosine of a whole number of half waves is even or odd about the middle, so reversing the columns
only changes the sign of the coefficients with an odd number of half waves along a row, and exchanging rows and columns
exchanges the two numbers of half waves. A hash of signs follows by exchanging bits and flipping some of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

N_ORIENTATIONS: Final = 8
TRANSPOSED: Final = 4
ROWS_REVERSED: Final = 2
COLUMNS_REVERSED: Final = 1

#: What each orientation does to a picture, in words for a report.
NAMES: Final = (
    "",
    "mirrored",
    "flipped upside down",
    "turned by 180°",
    "transposed",
    "turned by 90° to the right",
    "turned by 90° to the left",
    "transposed about the other diagonal",
)

#: Numbers of half waves (down a column, along a row) of the coefficient behind each bit of a hash, bit 0 first: all
#: with a sum of 1 to 10 but (5, 5), so that there are 64, and that exchanging rows and columns stays among them.
HASHED: Final = tuple((u, v) for u in range(11) for v in range(11) if 1 <= u + v <= 10 and (u, v) != (5, 5))


def of_exif(orientation: int) -> int:
    """Return the orientation that makes a picture stored in an EXIF orientation, 1 to 8, upright."""
    return (
        TRANSPOSED * (orientation in (5, 6, 7, 8))
        + ROWS_REVERSED * (orientation in (3, 4, 7, 8))
        + COLUMNS_REVERSED * (orientation in (2, 3, 6, 7))
    )


def inverse(orientation: int) -> int:
    """Return the orientation that undoes another."""
    if orientation & TRANSPOSED:
        # Reversed rows become reversed columns when rows and columns are exchanged after it.
        return TRANSPOSED | (orientation & 1) << 1 | (orientation & 2) >> 1
    return orientation


def turn(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return ``(height, width[, channels])`` pixels in another orientation; a view where numpy can."""
    if orientation & TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation & ROWS_REVERSED:
        pixels = pixels[::-1]
    if orientation & COLUMNS_REVERSED:
        pixels = pixels[:, ::-1]
    return pixels


def turn_spectra(spectra: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return the spectra ``(..., s, s)`` of pictures after :func:`turn`; the last two axes are half waves (u, v)."""
    if orientation & TRANSPOSED:
        spectra = spectra.swapaxes(-1, -2)
    signs = np.where(np.arange(spectra.shape[-1]) % 2, -1, 1).astype(spectra.dtype)
    if orientation & ROWS_REVERSED:
        spectra = spectra * signs[:, None]
    if orientation & COLUMNS_REVERSED:
        spectra = spectra * signs
    return spectra


def turned(hashes: npt.NDArray[np.uint64], orientation: int) -> npt.NDArray[np.uint64]:
    """Return the hashes, of any shape, of pictures after :func:`turn`.

    Exact but for coefficients that are zero, which have no sign: of a picture that is its own mirror image.
    """
    if orientation & TRANSPOSED:
        hashes = _transposed(hashes)
    return hashes ^ _flipped_bits(orientation)


@lru_cache(N_ORIENTATIONS)
def _flipped_bits(orientation: int) -> np.uint64:
    flips = 0
    for bit, (u, v) in enumerate(HASHED):
        is_flipped = bool(orientation & ROWS_REVERSED and u % 2) != bool(orientation & COLUMNS_REVERSED and v % 2)
        flips |= int(is_flipped) << bit
    return np.uint64(flips)


def _transposed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    found = np.zeros_like(hashes)
    for shift, mask in _moves():
        found |= (hashes & mask) << np.uint64(shift) if shift >= 0 else (hashes & mask) >> np.uint64(-shift)
    return found


@lru_cache(1)
def _moves() -> tuple[tuple[int, np.uint64], ...]:
    """Return how far which bits move when rows and columns are exchanged."""
    masks: dict[int, int] = {}
    for bit, (u, v) in enumerate(HASHED):
        shift = HASHED.index((v, u)) - bit
        masks[shift] = masks.get(shift, 0) | 1 << bit
    return tuple((shift, np.uint64(mask)) for shift, mask in masks.items())

"""The eight ways of turning and mirroring a picture, and what each does to its spectrum: exactly.

An orientation is a number from 0 to 7, three bits: 4 exchanges rows and columns, then 2 reverses the rows, then 1
reverses the columns. A cosine of a whole number of half waves is even or odd about the middle, so reversing the columns
only changes the sign of the coefficients with an odd number of half waves along a row, and exchanging rows and columns
exchanges the two numbers of half waves.
"""

from __future__ import annotations

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

"""How values become 8-bit RGB: the rules of docs/reference/images.md in code."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.errors import ImageError
from medtool.images.image import Raster, ValueTable, Window

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.protocols import RGB8

#: Changes whenever the same file may be shown differently; part of every lineage.
VERSION = "1"
#: One pixel in so many may lie outside the window at each end, if it lies far outside.
OUTLIER_SHARE = 1000
#: Fewer pixels than this have no outliers.
OUTLIER_LEAST = 16
#: Values that fill this share of a natural range are shown on that range.
NATURAL_SHARE = 0.5
MID_GREY = 128
_BLOCK_PIXELS = 1 << 20


def show(raster: Raster) -> tuple[RGB8, tuple[float, float] | None, tuple[str, ...]]:
    """Return RGB ``(height, width, 3)``, the values shown black and white (None: as they are), and notes."""
    pixels = raster.pixels
    if pixels.dtype == np.bool_:
        return _as_rgb(_finished(pixels.astype(np.uint8) * np.uint8(255), raster)), None, ()
    notes: list[str] = []
    if raster.table is not None:
        table = raster.table
        shown = _through_table(pixels, table)
        if not _is_flat(shown, pixels):
            last = table.first + len(table.brightness) - 1
            return _as_rgb(_finished(shown, raster)), (float(table.first), float(last)), ()
        notes.append("the file's own VOI table would show one flat tone; a window of the data is used")
    if raster.window is not None:
        shown = _through_window(pixels, raster.window)
        if not _is_flat(shown, pixels):
            rgb = _as_rgb(_finished(shown, raster))
            return rgb, (raster.window.low, raster.window.high), (*notes, *_not_finite(pixels))
        notes.append("the file's own window would show one flat tone; a window of the data is used")
    if pixels.dtype == np.uint8 and raster.full_range is None and not raster.is_measured and not notes:
        return _as_rgb(_finished(pixels, raster)), None, ()
    window, more = data_window(raster)
    notes += more
    is_constant = window.low == window.high
    shown = np.full(pixels.shape, MID_GREY, np.uint8) if is_constant else _through_window(pixels, window)
    notes += _not_finite(pixels)
    return _as_rgb(_finished(shown, raster)), (window.low, window.high), tuple(notes)


def data_window(raster: Raster) -> tuple[Window, list[str]]:
    """Return the window that the values themselves suggest, and notes about it.

    It spans least to greatest finite value. An end that lies further from all but one in :data:`OUTLIER_SHARE` of the
    pixels than those are spread is an outlier, and the window ends where they end. Values ≥ 0 that fill at least half
    of 0 to 2^k - 1 (k ≥ 8; integers) or of 0 to 1 (floats) are shown on that range instead. Padding does not count.
    """
    if raster.full_range is not None:
        return Window(float(raster.full_range[0]), float(raster.full_range[1])), []
    values = _counted(raster)
    if not len(values):
        raise ImageError("no pixel is a finite number")
    low, high = _trimmed_bounds(values)
    notes = []
    if low == high:
        return Window(low, high), [f"every pixel is {low:g}: shown as mid-grey"]
    natural = _natural_top(high, values.dtype)
    if low >= 0 and high - low >= NATURAL_SHARE * natural:
        low, high = 0.0, natural
    outside = int(np.count_nonzero((values < low) | (values > high)))
    if outside:
        what = "1 value far from all others lies" if outside == 1 else f"{outside} values far from all others lie"
        notes.append(f"{what} outside the window {low:g} to {high:g}")
    return Window(low, high), notes


def _counted(raster: Raster) -> npt.NDArray[Any]:
    pixels = raster.pixels
    values = pixels
    if raster.padding is not None:
        values = pixels[~raster.padding]
        if not values.size:
            values = pixels
    values = values.reshape(-1)
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _trimmed_bounds(values: npt.NDArray[Any]) -> tuple[float, float]:
    count = len(values)
    if count < OUTLIER_LEAST:
        return float(values.min()), float(values.max())
    rank = math.ceil(count / OUTLIER_SHARE)
    least, inner_low, inner_high, greatest = _order_statistics(values, (0, rank, count - 1 - rank, count - 1))
    spread = inner_high - inner_low
    if spread <= 0:
        return least, greatest
    low = inner_low if inner_low - least > spread else least
    high = inner_high if greatest - inner_high > spread else greatest
    return low, high


def _order_statistics(values: npt.NDArray[Any], ranks: tuple[int, ...]) -> list[float]:
    if values.dtype in (np.uint8, np.int8, np.uint16, np.int16):
        offset = int(np.iinfo(values.dtype).min)
        shifted = values if offset == 0 else (values.astype(np.int32) - offset)
        cumulative = np.cumsum(np.bincount(shifted))
        return [float(np.searchsorted(cumulative, rank, side="right")) + offset for rank in ranks]
    ordered = np.partition(values, ranks)
    return [float(ordered[rank]) for rank in ranks]


def _natural_top(high: float, dtype: np.dtype[Any]) -> float:
    """Return the end of the natural range that holds ``high``: 1 for floats, 2^k - 1 for integers; inf: none does."""
    if dtype.kind not in "iu":
        return 1.0 if high <= 1 else math.inf
    return float(min((1 << max(8, int(high).bit_length())) - 1, int(np.iinfo(dtype).max)))


def _through_window(pixels: npt.NDArray[Any], window: Window) -> npt.NDArray[np.uint8]:
    size = pixels.dtype.itemsize
    if pixels.dtype in (np.uint8, np.int8, np.uint16, np.int16) and pixels.size > 1 << (8 * size):
        every = np.arange(1 << (8 * size), dtype=f"u{size}").view(pixels.dtype)
        return _spread(every, window).take(pixels.view(f"u{size}"))
    shown = np.empty(pixels.shape, np.uint8)
    rows = max(1, _BLOCK_PIXELS // max(1, pixels[0].size))
    for start in range(0, len(pixels), rows):
        shown[start : start + rows] = _spread(pixels[start : start + rows], window)
    return shown


def _spread(values: npt.NDArray[Any], window: Window) -> npt.NDArray[np.uint8]:
    # Halves keep the width of any two finite float64 values finite.
    with np.errstate(over="ignore", invalid="ignore"):
        offset = values.astype(np.float64) / 2 - window.low / 2
        share = offset / (window.high / 2 - window.low / 2)
        if window.curve == "sigmoid":
            share = 1 / (1 + np.exp(-4 * (share - 0.5)))
    share = np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    return np.floor(share * 255 + 0.5).astype(np.uint8)


def _through_table(pixels: npt.NDArray[Any], table: ValueTable) -> npt.NDArray[np.uint8]:
    entries = np.floor(table.brightness * 255 + 0.5).astype(np.uint8)
    places = np.nan_to_num(pixels.astype(np.float64) - table.first, nan=0.0)
    return entries[np.clip(np.rint(places), 0, len(entries) - 1).astype(np.intp)]


def _is_flat(shown: npt.NDArray[np.uint8], pixels: npt.NDArray[Any]) -> bool:
    """Return whether a picture of one tone stands for pixels of many values."""
    return bool((shown == shown.flat[0]).all()) and not bool((pixels == pixels.flat[0]).all())


def _finished(shown: npt.NDArray[np.uint8], raster: Raster) -> npt.NDArray[np.uint8]:
    if raster.is_inverted:
        shown = 255 - shown
    hidden = raster.padding
    if raster.pixels.dtype.kind == "f":
        missing = np.isnan(raster.pixels)
        hidden = missing if hidden is None or missing.ndim == 3 else hidden | missing
    if hidden is not None and hidden.any():
        shown = np.where(hidden, np.uint8(0), shown)
    return shown


def _not_finite(pixels: npt.NDArray[Any]) -> tuple[str, ...]:
    if pixels.dtype.kind != "f":
        return ()
    count = int(np.count_nonzero(~np.isfinite(pixels)))
    return (
        (f"{count} values are not finite: NaN is shown black, infinities as the ends of the window",) if count else ()
    )


def _as_rgb(shown: npt.NDArray[np.uint8]) -> RGB8:
    if shown.ndim == 3:
        return shown
    return np.repeat(shown[..., np.newaxis], 3, axis=2)

"""Palettes, CMYK and alpha, brought to grey or RGB without touching what the numbers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.errors import ImageError

if TYPE_CHECKING:
    import numpy.typing as npt


def look_up(indices: npt.NDArray[Any], palette: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the colours of palette indices; a palette of greys gives a grey image.

    Parameters
    ----------
    indices
        Shape ``(height, width)``, integers.
    palette
        Shape ``(n, 3)``.
    """
    highest = int(indices.max())
    if highest >= len(palette):
        raise ImageError(f"palette index {highest} in a palette of {len(palette)} colours")
    is_grey = bool((palette == palette[:, :1]).all())
    return np.take(palette[:, 0] if is_grey else palette, indices, axis=0)


def cmyk_to_rgb(cmyk: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return RGB as (1 - ink) × (1 - black), in the same type; ink amounts ``(height, width, 4)``, 0 is no ink."""
    full = 255 if cmyk.dtype == np.uint8 else 65535
    light = full - cmyk.astype(np.uint32)
    product = light[..., :3] * light[..., 3:]
    return ((product + full // 2) // full).astype(cmyk.dtype)


def over_white(pixels: npt.NDArray[Any], alpha: npt.NDArray[np.float32], *, is_premultiplied: bool) -> npt.NDArray[Any]:
    """Return pixels laid over white, in the same type.

    White is 255 for 8-bit pixels, 1 for 1-bit ones, and for all others the highest value of a visible pixel: a 12-bit
    image in a 16-bit file must not be dwarfed by its own background.

    Parameters
    ----------
    pixels
        Shape ``(height, width)`` or ``(height, width, 3)``.
    alpha
        Shape ``(height, width)``, 0 to 1; somewhere above 0.
    """
    if bool((alpha >= 1).all()):
        return pixels
    if pixels.dtype == np.bool_:
        return pixels | (alpha < 0.5)
    weight: npt.NDArray[Any] = alpha if pixels.ndim == 2 else alpha[..., np.newaxis]
    values: npt.NDArray[Any] = pixels.astype(np.float32 if pixels.dtype.itemsize <= 2 else np.float64)
    visible = pixels[(alpha > 0) & np.isfinite(pixels if pixels.ndim == 2 else pixels.sum(-1))]
    white = 255.0 if pixels.dtype == np.uint8 else float(visible.max(initial=0))
    blended = (values if is_premultiplied else values * weight) + white * (1 - weight)
    if is_premultiplied:
        blended = np.minimum(blended, white)
    # Under full transparency a pixel may hold anything, NaN included.
    blended = np.where(weight > 0, blended, white)
    if pixels.dtype.kind == "f":
        return blended.astype(pixels.dtype)
    return np.floor(blended + 0.5).astype(pixels.dtype)

"""Maps at the size of their images, without a shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from medtool.protocols import Heatmap


def resize_heatmap(heatmap: Heatmap, size: tuple[int, int]) -> Heatmap:
    """Return a map at another size, bilinear, with pixel centres at half-integers and edges held.

    Parameters
    ----------
    heatmap
        Shape ``(h, w)``, finite.
    size
        (height, width) wanted, in pixels.
    """
    top, bottom, down = _neighbours(heatmap.shape[0], size[0])
    left, right, across = _neighbours(heatmap.shape[1], size[1])
    rows: Heatmap = heatmap[top] * (1 - down)[:, None] + heatmap[bottom] * down[:, None]
    resized: Heatmap = rows[:, left] * (1 - across) + rows[:, right] * across
    return resized


def _neighbours(old: int, new: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return, for each of ``new`` pixels along an axis, the two old ones beside it and the weight of the second."""
    if new < 1:
        raise ValueError(f"a size must be 1 or more pixels, not {new}")
    centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(centres).astype(np.intp)
    return first, np.minimum(first + 1, old - 1), (centres - first).astype(np.float32)

"""Between the image's own size and the reduced one that the embedded path computes at.

Both ways keep pixel centres where they are: the centre of pixel ``i`` of ``n`` lies at ``(i + 0.5) / n`` of the image.
Pillow does the work: it averages when it reduces, runs in one thread, and gives the same on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.protocols import RGB8, Heatmap

_LEAST_SIDE = 8  # a very thin image keeps this much of its short side, or all of it


def reduced_size(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """Return (height, width) of which the longer is at most ``long_side``; a smaller image stays as it is."""
    scale = min(1.0, long_side / max(size))
    height, width = (max(min(side, _LEAST_SIDE), round(side * scale)) for side in size)
    return height, width


def resize_rgb(rgb: RGB8, size: tuple[int, int]) -> RGB8:
    """Return an image ``(height, width, 3)`` uint8 at another (height, width)."""
    if rgb.shape[:2] == size:
        return rgb
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resize_plane(plane: Heatmap, size: tuple[int, int]) -> Heatmap:
    """Return one plane ``(height, width)`` at another size, float32, bilinear; averaged on the way down."""
    if plane.shape == size:
        return plane.astype(np.float32, copy=False)
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def denoised(lab: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return an image ``(height, width, 3)`` with the median of 5 by 5 pixels in each channel; edges are repeated.

    OpenCV's, because it takes a hundredth of SciPy's time for the same values.
    """
    return np.asarray(cv2.medianBlur(np.ascontiguousarray(lab), 5))


def to_reduced(
    points: npt.NDArray[np.float64], size: tuple[int, int], reduced: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Return points (x, y) of an image of one (height, width) in pixels of the reduced one."""
    scale = np.array([reduced[1] / size[1], reduced[0] / size[0]])
    return np.asarray((points + 0.5) * scale - 0.5)

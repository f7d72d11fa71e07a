"""Where in one picture another lies, to a fraction of a pixel.

Both pictures are squeezed to one square, so that a crop, a resized copy and a changed aspect ratio are all the same
thing: a scale and an offset along each axis. The hashes know them to about a hundredth; here they are refined by Gauss
and Newton's least squares on what is left of the brightness without its slow changes. A slant along each axis is found
too: whoever scans a slide again lays it down a little askew.

References
----------
Baker and Matthews, "Lucas-Kanade 20 Years On: A Unifying Framework" (2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from medtool.split.duplicates.orientation import turn

#: Pixels of the square, each way.
SIDE: Final = 128

_LEVELS: Final = (SIDE // 2, SIDE)
_MOST_ROUNDS: Final = 8
_MOST_STEP: Final = 0.05  # of the side, in one round
_STILL_PX: Final = 0.03
_LEAST_CONTRAST: Final = 0.05  # of the one picture in the other's units, both clipped to a deviation of 1
_LEAST_SHARE: Final = 0.5  # of the smaller picture's side that must lie within the larger one
_SCALES: Final = (0.5, 2.0)
_MOST_SLANT: Final = 0.2

Grey = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Frame:
    """Where the smaller picture's frame lies in the larger picture; both are 1 wide and 1 high.

    The point at ``(u, v)`` from the smaller picture's middle lies at ``centre + matrix @ (u, v)`` in the larger one.

    Attributes
    ----------
    centre
        Shape ``(2,)``: x, y.
    matrix
        Shape ``(2, 2)``: width and height on its diagonal, slants beside it.
    """

    centre: npt.NDArray[np.float64]
    matrix: npt.NDArray[np.float64]

    @classmethod
    def cutting(cls, top: float, bottom: float, left: float, right: float) -> Frame:
        """Return the frame that leaves away so much of the larger picture on each side."""
        return cls(
            np.array([(1 + left - right) / 2, (1 + top - bottom) / 2]), np.diag([1 - left - right, 1 - top - bottom])
        )

    @property
    def width(self) -> float:
        """The smaller picture's width, in widths of the larger."""
        return float(self.matrix[0, 0])

    @property
    def height(self) -> float:
        """The smaller picture's height, in heights of the larger."""
        return float(self.matrix[1, 1])

    @property
    def is_usable(self) -> bool:
        """Whether it is about upright and of about the same size."""
        low, high = _SCALES
        slants = abs(self.matrix[[0, 1], [1, 0]])
        return bool(low <= self.width <= high and low <= self.height <= high and slants.max() <= _MOST_SLANT)

    def within(self, side: int) -> tuple[slice, slice] | None:
        """Return the rows and columns of the smaller picture that lie within the larger; None if too few."""
        if not self.is_usable:
            return None
        spans = []
        for axis in (1, 0):
            length, slant = self.matrix[axis, axis], abs(self.matrix[axis, 1 - axis]) / 2
            # Pixel i has its centre at (i + 1/2) / side; the larger picture's outermost pixels are left out.
            low, high = 1 / side + slant - self.centre[axis], 1 - 1 / side - slant - self.centre[axis]
            first = max(0, int(np.ceil((low / length + 0.5) * side - 0.5)))
            last = min(side, int(np.floor((high / length + 0.5) * side - 0.5)) + 1)
            if last - first < _LEAST_SHARE * side:
                return None
            spans.append(slice(first, last))
        return spans[0], spans[1]


@dataclass(frozen=True, eq=False)
class Square:
    """A picture's brightness, squeezed to a square.

    Attributes
    ----------
    grey
        Shape ``(128, 128)``, 0 to 255.
    """

    grey: Grey

    @classmethod
    def of(cls, grey: npt.NDArray[np.integer[Any]] | npt.NDArray[np.floating[Any]]) -> Square:
        """Return the square of a picture ``(height, width)``: means where it shrinks, interpolated where it grows."""
        squeezed = grey.astype(np.float32)
        for axis in (0, 1):
            length = squeezed.shape[axis]
            if length != SIDE:
                size = (SIDE, squeezed.shape[0]) if axis else (squeezed.shape[1], SIDE)
                way = cv2.INTER_AREA if length > SIDE else cv2.INTER_LINEAR
                squeezed = np.asarray(cv2.resize(squeezed, size, interpolation=way), np.float32)
        return cls(squeezed)

    def turned(self, orientation: int) -> Square:
        """Return the same picture in another orientation."""
        return self if orientation == 0 else Square(np.ascontiguousarray(turn(self.grey, orientation)))

    @cached_property
    def levels(self) -> tuple[Grey, ...]:
        """What is aligned: detail at half and full size, strong edges clipped so that no ruler outweighs the rest."""
        half = np.asarray(cv2.resize(self.grey, (_LEVELS[0], _LEVELS[0]), interpolation=cv2.INTER_AREA), np.float32)
        return _clipped(band(half, 0.7, 4.0)), _clipped(band(self.grey, 1.0, 4.0))


def band(grey: Grey, fine_px: float, coarse_px: float) -> Grey:
    """Return the detail between two sizes: a difference of Gaussians with these deviations in pixels."""
    found = cv2.GaussianBlur(grey, (0, 0), fine_px) - cv2.GaussianBlur(grey, (0, 0), coarse_px)
    return np.asarray(found, np.float32)


def aligned(smaller: Square, larger: Square, start: Frame) -> Frame | None:
    """Return the frame of ``smaller`` in ``larger``, refined from one that is right to a few hundredths.

    None where there is nothing to go by, or the two overlap too little.
    """
    frame = start
    for side, one, other in zip(_LEVELS, smaller.levels, larger.levels, strict=True):
        for _ in range(_MOST_ROUNDS):
            found = _improved(one, other, frame, side)
            if found is None:
                return None
            frame, moved = found
            if moved * side < _STILL_PX:
                break
    return frame


def common(smaller: Square, larger: Square, frame: Frame) -> tuple[Grey, Grey] | None:
    """Return what both show, pixel on pixel in the frame of the smaller; None where they overlap too little."""
    within = frame.within(SIDE)
    if within is None:
        return None
    rows, columns = within
    return np.ascontiguousarray(smaller.grey[rows, columns]), _fetched(larger.grey, frame, rows, columns)


def _clipped(detail: Grey) -> Grey:
    limit = 2 * float(detail.std())
    found: Grey = np.clip(detail, -limit, limit)
    return found / np.float32(max(float(found.std()), 1e-6))


def _improved(smaller: Grey, larger: Grey, frame: Frame, side: int) -> tuple[Frame, float] | None:
    """Return the frame after one round of least squares, and how far it moved the picture at most."""
    within = frame.within(side)
    if within is None:
        return None
    rows, columns = within
    wanted = smaller[rows, columns]
    here = _fetched(larger, frame, rows, columns)
    slope_x = cv2.Sobel(here, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    slope_y = cv2.Sobel(here, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    u = ((np.arange(columns.start, columns.stop) + 0.5) / side - 0.5).astype(np.float32)
    v = ((np.arange(rows.start, rows.stop) + 0.5) / side - 0.5).astype(np.float32)[:, None]
    # wanted = contrast · (here + slopes · moves) + brightness, and a move is a shift, a stretch and a slant.
    causes = np.empty((8, *here.shape), np.float32)
    causes[0], causes[1] = slope_x, slope_y
    np.multiply(slope_x, u, out=causes[2])
    np.multiply(slope_x, v, out=causes[3])
    np.multiply(slope_y, u, out=causes[4])
    np.multiply(slope_y, v, out=causes[5])
    causes[6], causes[7] = here, 1
    flat = causes.reshape(8, -1)
    normal = (flat @ flat.T).astype(np.float64)
    normal.flat[::9] = normal.flat[::9] * (1 + 1e-5) + 1e-5
    solution = np.linalg.solve(normal, (flat @ wanted.ravel()).astype(np.float64))
    if solution[6] < _LEAST_CONTRAST:
        return None
    moves = np.clip(solution[:6] / solution[6] / side, -_MOST_STEP, _MOST_STEP)
    shift, change = moves[:2], moves[2:].reshape(2, 2)
    better = Frame(frame.centre + frame.matrix @ shift, frame.matrix @ (np.eye(2) + change))
    return better, float((abs(shift) + abs(change).sum(1) / 2).max())


def _fetched(larger: Grey, frame: Frame, rows: slice, columns: slice) -> Grey:
    """Return the larger picture where the smaller one's pixels lie."""
    side = len(larger)
    first = np.array([columns.start + 0.5, rows.start + 0.5]) - side / 2
    offset = frame.centre * side + frame.matrix @ first - 0.5
    size = (columns.stop - columns.start, rows.stop - rows.start)
    found = cv2.warpAffine(
        larger,
        np.column_stack((frame.matrix, offset)),
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(found, np.float32)

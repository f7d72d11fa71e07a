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

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from medtool.split.duplicates.orientation import turn

#: Pixels of the square, each way.
SIDE: Final = 128

_COARSE_SIDE: Final = SIDE // 2
_MARGIN_PX: Final = 5  # along the edges, where detail is not known: the picture's frame must not pull the other's to it
_MOST_ROUNDS: Final = 6
_MOST_STEP: Final = 0.05  # of the side, in one round
_STILL_PX: Final = 0.05
_LEAST_LIKENESS: Final = 0.2  # how much of the one picture's detail is seen in the other's
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

    @property
    def displacement(self) -> float:
        """Distance by which a corner lies from the larger picture's corner at most, along either axis."""
        return float((abs(self.centre - 0.5) + abs(self.matrix - np.eye(2)).sum(axis=1) / 2).max())

    @property
    def shares(self) -> tuple[float, float]:
        """Share of the larger picture's area that the smaller shows, and of the smaller's that the larger shows."""
        of_larger, of_smaller = 1.0, 1.0
        for centre, length in zip(self.centre.tolist(), np.diag(self.matrix).tolist(), strict=True):
            common = max(0.0, min(1.0, centre + length / 2) - max(0.0, centre - length / 2))
            of_larger *= common
            of_smaller *= common / length
        return of_larger, of_smaller

    def within(self, side: int, *, margin_px: int) -> tuple[slice, slice] | None:
        """Return the rows and columns of the smaller picture that lie within the larger; None if too few.

        Parameters
        ----------
        side
            Pixels of both pictures, each way.
        margin_px
            Pixels along the larger picture's edge that are left out.
        """
        if not self.is_usable:
            return None
        spans = []
        for axis in (1, 0):
            length, slant = self.matrix[axis, axis], abs(self.matrix[axis, 1 - axis]) / 2
            # Pixel i has its centre at (i + 1/2) / side.
            low = margin_px / side + slant - self.centre[axis]
            high = 1 - margin_px / side - slant - self.centre[axis]
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
    def of(cls, grey: npt.NDArray[Any]) -> Square:
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
        half = np.asarray(cv2.resize(self.grey, (_COARSE_SIDE, _COARSE_SIDE), interpolation=cv2.INTER_AREA), np.float32)
        return _clipped(band(half, 0.7, 4.0)), _clipped(band(self.grey, 1.0, 4.0))


def band(grey: Grey, fine_px: float, coarse_px: float) -> Grey:
    """Return the detail between two sizes: a difference of Gaussians with these deviations in pixels."""
    found = cv2.GaussianBlur(grey, (0, 0), fine_px) - cv2.GaussianBlur(grey, (0, 0), coarse_px)
    return np.asarray(found, np.float32)


def aligned(smaller: Square, larger: Square, start: Frame) -> Frame | None:
    """Return the frame of ``smaller`` in ``larger``, refined from one that is right to a few hundredths.

    None where there is nothing to go by, the two plainly differ, or they overlap too little.
    """
    frame: Frame | None = start
    for one, other in zip(smaller.levels, larger.levels, strict=True):
        if frame is not None:
            frame = _refined(one, other, frame)
    return frame


def common(smaller: Square, larger: Square, frame: Frame) -> tuple[Grey, Grey] | None:
    """Return what both show, pixel on pixel in the frame of the smaller; None where they overlap too little."""
    within = frame.within(SIDE, margin_px=1)
    if within is None:
        return None
    rows, columns = within
    return np.ascontiguousarray(smaller.grey[rows, columns]), _fetched(larger.grey, frame, rows, columns)


def _clipped(detail: Grey) -> Grey:
    limit = 2 * _strength(detail)
    found: Grey = np.clip(detail, -limit, limit)
    return found / np.float32(max(_strength(found), 1e-6))


def _strength(detail: Grey) -> float:
    # The mean of detail is zero; numpy's own deviation takes several times as long.
    return math.sqrt(float(np.vdot(detail, detail)) / detail.size)


def _refined(smaller: Grey, larger: Grey, frame: Frame) -> Frame | None:
    """Return the frame that fits best at one level, by least squares; None if no frame near the first one fits."""
    side = len(smaller)
    within = frame.within(side, margin_px=_MARGIN_PX)
    if within is None:
        return None
    # The detail is smooth enough for every second pixel of the finer level to say as much as all of them.
    every = side // _COARSE_SIDE
    rows, columns = (slice(max(span.start, _MARGIN_PX), min(span.stop, side - _MARGIN_PX), every) for span in within)
    causes = _causes(smaller, rows, columns)
    normal = (causes @ causes.T).astype(np.float64)
    normal.flat[::9] = normal.flat[::9] * (1 + 1e-5) + 1e-5
    inverse = np.linalg.inv(normal)
    for _ in range(_MOST_ROUNDS):
        here = _fetched(larger, frame, rows, columns)
        *moves, likeness, _ = inverse @ (causes @ here.ravel()).astype(np.float64)
        if likeness < _LEAST_LIKENESS:
            return None
        steps = np.clip(np.array(moves) / likeness / side, -_MOST_STEP, _MOST_STEP)
        shift, change = steps[:2], steps[2:].reshape(2, 2)
        # Moved so, the smaller picture would look like what is there: the frame is moved back by as much.
        matrix = frame.matrix @ _inverse(np.eye(2) + change)
        frame = Frame(frame.centre - matrix @ shift, matrix)
        if not frame.is_usable:
            return None
        if (abs(shift) + abs(change).sum(1) / 2).max() * side < _STILL_PX:
            break
    return frame


def _causes(smaller: Grey, rows: slice, columns: slice) -> npt.NDArray[np.float32]:
    """Return what changes the smaller picture: ``(8, pixels)``.

    A shift to the right and down, a stretch and a slant of each, a change of contrast and of brightness.
    """
    side = len(smaller)
    u = ((np.arange(side)[columns] + 0.5) / side - 0.5).astype(np.float32)
    v = ((np.arange(side)[rows] + 0.5) / side - 0.5).astype(np.float32)[:, None]
    causes = np.empty((8, len(v), len(u)), np.float32)
    causes[0] = cv2.Sobel(smaller, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)[rows, columns]
    causes[1] = cv2.Sobel(smaller, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)[rows, columns]
    for slope in (0, 1):
        np.multiply(causes[slope], u, out=causes[2 + 2 * slope])
        np.multiply(causes[slope], v, out=causes[3 + 2 * slope])
    causes[6], causes[7] = smaller[rows, columns], 1
    return causes.reshape(8, -1)


def _inverse(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    (a, b), (c, d) = matrix.tolist()
    determinant = a * d - b * c
    return np.array([[d / determinant, -b / determinant], [-c / determinant, a / determinant]])


def _fetched(larger: Grey, frame: Frame, rows: slice, columns: slice) -> Grey:
    """Return the larger picture where the smaller one's pixels lie."""
    side = len(larger)
    every = columns.step or 1
    first = np.array([columns.start + 0.5, rows.start + 0.5]) - side / 2
    offset = frame.centre * side + frame.matrix @ first - 0.5
    size = len(range(side)[columns]), len(range(side)[rows])
    found = cv2.warpAffine(
        larger,
        np.column_stack((frame.matrix * every, offset)),
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(found, np.float32)

"""Boxes of connected parts, and how well one image's boxes agree with the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects
from skimage import measure

if TYPE_CHECKING:
    from medtool.protocols import BoolMask, Heatmap

Boxes = npt.NDArray[np.int64]


def boxes_of_labels(labels: npt.NDArray[np.integer[Any]]) -> Boxes:
    """Return the boxes ``(n, 4)`` of the connected parts of a mask: x0, y0, and x1, y1 just beyond.

    Parts of one value that touch at a side or a corner are one; parts of two values are two, however close.
    """
    parts = measure.label(labels, background=0, connectivity=2)  # type: ignore[no-untyped-call]
    found = find_objects(parts)
    return np.array([(across.start, down.start, across.stop, down.stop) for down, across in found], np.int64).reshape(
        -1, 4
    )


def boxes_of_map(heatmap: Heatmap, threshold: float) -> tuple[Boxes, npt.NDArray[np.float32]]:
    """Return the boxes of the connected parts from a value on, and the highest value in each part."""
    boxes, numbers = _parts(heatmap >= threshold)
    if len(boxes) == 1:
        return boxes, heatmap.max(keepdims=True)[0]
    peaks = np.empty(len(boxes), np.float32)
    for place, (left, top, right, bottom) in enumerate(boxes.tolist()):
        inside = heatmap[top:bottom, left:right]
        # The box may hold pixels of other parts.
        peaks[place] = inside[numbers[top:bottom, left:right] == place + 1].max()
    return boxes, peaks


def _parts(mask: BoolMask) -> tuple[Boxes, npt.NDArray[np.int32]]:
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    left, top, width, height = stats[1:, :4].T.astype(np.int64)
    return np.stack([left, top, left + width, top + height], 1), np.asarray(numbers, np.int32)


def overlaps(given: Boxes, true: Boxes) -> npt.NDArray[np.float64]:
    """Return the intersection over union of each given box ``(n, 4)`` with each true one ``(m, 4)``."""
    low = np.maximum(given[:, None, :2], true[None, :, :2])
    high = np.minimum(given[:, None, 2:], true[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (given, true)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / union)


def average_precision(ranks: npt.NDArray[np.floating[Any]], shares: npt.NDArray[np.float64], least: float) -> float:
    """Return the area under one image's curve of precision over recall.

    As in PASCAL VOC from 2010 on: boxes are taken in the order of their ranks; each is right if the true box that it
    overlaps most is overlapped by ``least`` or more and is not taken; precision is made to fall, and its area is taken
    over all recalls.

    Parameters
    ----------
    ranks
        Shape ``(n,)``: the higher, the earlier.
    shares
        Shape ``(n, m)``, m ≥ 1: the overlap of each given box with each true one.

    References
    ----------
    Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 111 (2015).
    """
    n_true = shares.shape[1]
    is_taken = np.zeros(n_true, bool)
    hits = np.zeros(len(ranks), bool)
    for place, row in enumerate(np.argsort(-ranks, kind="stable")):
        best = int(shares[row].argmax())
        if shares[row, best] >= least and not is_taken[best]:
            is_taken[best] = hits[place] = True
    recall = np.cumsum(hits) / n_true
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * falling).sum())

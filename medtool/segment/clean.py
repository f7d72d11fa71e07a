"""Tidying a mask after the segmenter: one component, no holes, not too small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medtool.errors import InputError
from medtool.segment.options import CleanOptions

if TYPE_CHECKING:
    from medtool.protocols import BoolMask, Points

VERSION = "1"
"""Changes whenever the same mask may be cleaned differently; part of the lineage."""

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def clean_mask(mask: BoolMask, positive_points: Points, options: CleanOptions) -> BoolMask:
    """Return the mask with the chosen component kept, holes filled and specks dropped, in that order.

    Cleaning twice gives the same as cleaning once. The input is not changed.

    Parameters
    ----------
    mask
        Shape ``(height, width)``, bool.
    positive_points
        Shape ``(n, 2)``, (x, y) in pixels; a point belongs to the pixel whose centre is nearest. May be empty. Points
        outside the image touch nothing.
    options
        What is done; each step can be switched off.

    Returns
    -------
    cleaned
        Shape ``(height, width)``, bool, a new array.

    Raises
    ------
    InputError
        If the mask is not a two-dimensional bool array or the points are not ``(n, 2)``.

    Notes
    -----
    Components are 8-connected. A hole is background that no 4-connected path joins to the image's edge. Of components
    of equal size, the one that comes first in reading order is kept.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise InputError(f"the mask is {mask.dtype} of shape {mask.shape}; wanted bool of shape (height, width)")
    if positive_points.ndim != 2 or positive_points.shape[1] != 2:
        raise InputError(f"the points have shape {positive_points.shape}; wanted (n, 2)")
    cleaned = np.zeros_like(mask)
    window = _bounding_box(mask)
    if window is None:
        return cleaned
    part = mask[window]
    if options.largest_component:
        offset = np.array([window[1].start, window[0].start])
        part = _component(part, positive_points - offset)
    if options.fill_holes:
        part = _fill_holes(part)
    if np.count_nonzero(part) >= options.min_area_px:
        cleaned[window] = part
    return cleaned


def _bounding_box(mask: BoolMask) -> tuple[slice, slice] | None:
    """Return the smallest window that holds the mask: all later work is done in it."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _component(mask: BoolMask, points: Points) -> BoolMask:
    """Return the largest component that a point touches, or the largest of all when none is touched."""
    labels, count = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
    if count == 1:
        return mask
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    finite = points[np.isfinite(points).all(axis=1)]
    columns, rows = np.floor(finite + 0.5).T
    inside = (columns >= 0) & (rows >= 0) & (columns < mask.shape[1]) & (rows < mask.shape[0])
    touched = labels[rows[inside].astype(np.intp), columns[inside].astype(np.intp)]
    touched = np.unique(touched[touched > 0])
    choice = touched[np.argmax(areas[touched])] if touched.size else np.argmax(areas)
    return np.asarray(labels == choice)


def _fill_holes(mask: BoolMask) -> BoolMask:
    """Fill every 4-connected background component that does not reach the window's edge.

    Labelling takes one pass; growing the outside step by step, as ``binary_fill_holes`` does, takes many.
    """
    labels, count = ndimage.label(~mask)
    is_open = np.zeros(count + 1, dtype=bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        is_open[edge] = True
    is_open[0] = False
    return np.asarray(~is_open[labels])

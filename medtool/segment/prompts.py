"""From a heatmap to point prompts, the same on every machine and in every order.

Coordinates are (x, y) in pixels of the original, upright image; every point lies on a pixel's centre.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medtool.errors import InputError
from medtool.segment.heatmap import otsu_threshold
from medtool.segment.options import PromptOptions, Strategy

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.protocols import BoolMask, Heatmap, Points

    Pixels = list[tuple[int, int]]  # (row, column)

VERSION = "1"
"""Changes whenever the same heatmap may give other points; part of the lineage."""

PEAK_SEPARATION = 0.05
"""How far apart ``peaks`` stay when no minimum distance is asked for, as a share of the image's shorter side."""

_FEWER = "ask for fewer points or a smaller minimum distance"
_CHUNK_PIXELS = 1 << 21  # weights are made in strips of about this many pixels, so that 100 megapixels need no 800 MB
_TINY_TOTAL = 1e-200  # below this the weights are scaled anew: every weight left is close to underflow


def choose_points(heatmap: Heatmap, options: PromptOptions, *, seed_text: str) -> tuple[Points, npt.NDArray[np.int64]]:
    """Return exactly as many distinct points as the options ask for, positives first.

    Parameters
    ----------
    heatmap
        Shape ``(height, width)``, finite, ≥ 0, not constant; on no fixed scale.
    options
        How many points, how they are chosen, how far they stay apart, and the seed.
    seed_text
        What the image is, such as the hash of its content. With the seed it alone decides the random numbers, so that
        neither the order of the images nor the other images matter.

    Returns
    -------
    points
        Shape ``(points + negatives, 2)``, float64, (x, y) of pixel centres.
    labels
        Shape ``(points + negatives,)``, int64: 1 for positive, 0 for negative.

    Raises
    ------
    InputError
        If the heatmap is constant, negative, not finite or not two-dimensional, or if fewer admissible pixels are left
        than points are asked for: never fewer points than asked, never one twice.

    Notes
    -----
    ``power`` draws one pixel after another with probability proportional to heatmap ** power among those not yet drawn
    and at least the minimum distance from those drawn. ``peaks`` takes local maxima from the highest down, and when
    there are too few of them goes on with the highest pixels that are far enough away. ``centroid`` parts the pixels
    from Otsu's threshold up along their long axis into as many pieces of equal heat as there are points, and takes the
    pixel of each that is nearest to its weighted centroid. ``grid`` lays the widest square grid of which enough nodes
    fall on pixels from Otsu's threshold up, and takes the hottest of those.

    Negatives are drawn like ``power``, with (1 - heatmap / maximum) ** power for weights, whatever the strategy.
    """
    _check(heatmap)
    seed = hashlib.sha256(f"{options.seed}:{seed_text}".encode()).digest()
    random = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
    choose = {
        Strategy.POWER: _power_pixels,
        Strategy.PEAKS: _peak_pixels,
        Strategy.CENTROID: _centroid_pixels,
        Strategy.GRID: _grid_pixels,
    }[options.strategy]
    positives = choose(heatmap, options, random)
    negatives = _draw(
        heatmap,
        options.negatives,
        random,
        power=options.power,
        min_distance_px=options.min_distance_px,
        taken=positives,
        is_low_wanted=True,
    )
    pixels = np.array(positives + negatives, dtype=np.float64)
    labels = np.repeat(np.array([1, 0], dtype=np.int64), [len(positives), len(negatives)])
    return np.ascontiguousarray(pixels[:, ::-1]), labels


def _check(heatmap: Heatmap) -> None:
    if heatmap.ndim != 2 or heatmap.size == 0:
        raise InputError(f"the heatmap has shape {heatmap.shape}; wanted (height, width)")
    low, high = float(heatmap.min()), float(heatmap.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the heatmap holds values that are not finite, so no point can be chosen from it")
    if low < 0:
        raise InputError(f"the heatmap goes down to {low:g}; wanted 0 or more")
    if low == high:
        raise InputError(f"the heatmap is constant ({low:g} everywhere), so no point is better than another")


def _too_few(kind: str, found: int, wanted: int, min_distance_px: float) -> InputError:
    apart = f" at least {min_distance_px:g} px apart" if min_distance_px > 0 else ""
    return InputError(
        f"only {found} of {wanted} {kind} points can be placed{apart}",
        hint=_FEWER,
    )


def _power_pixels(heatmap: Heatmap, options: PromptOptions, random: np.random.Generator) -> Pixels:
    return _draw(
        heatmap, options.points, random, power=options.power, min_distance_px=options.min_distance_px, taken=[]
    )


def _draw(
    heatmap: Heatmap,
    count: int,
    random: np.random.Generator,
    *,
    power: float,
    min_distance_px: float,
    taken: Pixels,
    is_low_wanted: bool = False,
) -> Pixels:
    """Draw pixels one after another, with weights that are recomputed only in the rows a new pixel shuts off.

    The base of the power is scaled to a maximum of 1, so nothing overflows; when all that is left underflows, it is
    scaled anew to what is left.
    """
    if count == 0:
        return []
    top = float(heatmap.max())
    shut = list(taken)
    scale = 1.0

    def base_of(rows: slice) -> npt.NDArray[np.float64]:
        base = heatmap[rows].astype(np.float64) / top
        if is_low_wanted:
            base = 1.0 - base
        for row, column in shut:
            _shut_off(base, row - rows.start, column, min_distance_px)
        return base

    def sums_of(rows: slice) -> npt.NDArray[np.float64]:
        return np.asarray(((base_of(rows) / scale) ** power).sum(axis=1))

    def all_sums() -> npt.NDArray[np.float64]:
        return np.concatenate([sums_of(rows) for rows in _strips(heatmap.shape)])

    drawn: Pixels = []
    row_sums = all_sums()
    while len(drawn) < count:
        if row_sums.sum() < _TINY_TOTAL:
            scale = max(float(base_of(rows).max()) for rows in _strips(heatmap.shape))
            if scale <= 0:
                raise _too_few("negative" if is_low_wanted else "positive", len(drawn), count, min_distance_px)
            row_sums = all_sums()
        row = _pick(row_sums, random.random())
        column = _pick((base_of(slice(row, row + 1))[0] / scale) ** power, random.random())
        drawn.append((row, column))
        shut.append((row, column))
        reach = int(np.ceil(min_distance_px))
        touched = slice(max(0, row - reach), min(heatmap.shape[0], row + reach + 1))
        for rows in _strips(heatmap.shape, within=touched):
            row_sums[rows] = sums_of(rows)
    return drawn


def _strips(shape: tuple[int, ...], *, within: slice | None = None) -> Iterator[slice]:
    start, stop = (within.start, within.stop) if within else (0, shape[0])
    step = max(1, _CHUNK_PIXELS // shape[1])
    for first in range(start, stop, step):
        yield slice(first, min(stop, first + step))


def _shut_off(base: npt.NDArray[np.float64], row: int, column: int, min_distance_px: float) -> None:
    """Set everything nearer than the minimum distance to 0, the pixel itself always; ``row`` may lie outside."""
    reach = int(np.ceil(min_distance_px))
    top, bottom = max(0, row - reach), min(base.shape[0], row + reach + 1)
    left, right = max(0, column - reach), min(base.shape[1], column + reach + 1)
    if top >= bottom:
        return
    down = np.arange(top, bottom)[:, np.newaxis] - row
    along = np.arange(left, right)[np.newaxis] - column
    distance = np.hypot(down, along)
    base[top:bottom, left:right][(distance < min_distance_px) | (distance == 0)] = 0.0


def _pick(weights: npt.NDArray[np.float64], uniform: float) -> int:
    """Return an index with probability proportional to its weight; never one whose weight is 0."""
    cumulative = np.cumsum(weights)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return index if index < weights.size else int(np.flatnonzero(weights)[-1])


def _peak_pixels(heatmap: Heatmap, options: PromptOptions, random: np.random.Generator) -> Pixels:
    distance = options.min_distance_px or PEAK_SEPARATION * min(heatmap.shape)
    left = heatmap.astype(np.float64)
    chosen: Pixels = []
    for row, column in _local_maxima(heatmap):
        if len(chosen) == options.points:
            return chosen
        if left[row, column] > 0:
            chosen.append((row, column))
            _shut_off(left, row, column, distance)
    while len(chosen) < options.points:
        row, column = (int(at) for at in np.unravel_index(int(np.argmax(left)), left.shape))
        if left[row, column] <= 0:
            raise _too_few("positive", len(chosen), options.points, distance)
        chosen.append((row, column))
        _shut_off(left, row, column, distance)
    return chosen


def _local_maxima(heatmap: Heatmap) -> Pixels:
    """Return one pixel a local maximum, highest first; of a plateau the pixel that is nearest to its centroid."""
    is_peak = (heatmap == ndimage.maximum_filter(heatmap, size=3, mode="nearest")) & (heatmap > 0)
    labels, count = ndimage.label(is_peak, structure=np.ones((3, 3)))
    rows, columns = np.nonzero(is_peak)
    plateau = labels[rows, columns]
    sizes = np.bincount(plateau, minlength=count + 1)
    middle_row = np.bincount(plateau, rows, count + 1)[plateau] / sizes[plateau]
    middle_column = np.bincount(plateau, columns, count + 1)[plateau] / sizes[plateau]
    off = (rows - middle_row) ** 2 + (columns - middle_column) ** 2
    order = np.lexsort((columns, rows, off, -heatmap[rows, columns].astype(np.float64)))
    _, first = np.unique(plateau[order], return_index=True)
    return [(int(rows[at]), int(columns[at])) for at in order[np.sort(first)]]


def _hot(heatmap: Heatmap) -> BoolMask:
    threshold, _ = otsu_threshold(heatmap)
    return np.asarray(heatmap >= threshold)


def _centroid_pixels(heatmap: Heatmap, options: PromptOptions, random: np.random.Generator) -> Pixels:
    rows, columns = np.nonzero(_hot(heatmap))
    if rows.size < options.points:
        raise _too_few("positive", rows.size, options.points, options.min_distance_px)
    heat = heatmap[rows, columns].astype(np.float64)
    heat /= heat.sum()
    place = np.stack([rows, columns]).astype(np.float64)
    from_middle = place - np.sum(place * heat, axis=1, keepdims=True)
    down, across, both = (
        round(float(np.sum(from_middle[one] * from_middle[other] * heat)), 6) for one, other in ((0, 0), (1, 1), (0, 1))
    )
    angle = 0.5 * np.arctan2(2 * both, down - across)  # of the long axis, from the vertical
    along = np.cos(angle) * from_middle[0] + np.sin(angle) * from_middle[1]
    order = np.argsort(np.round(along, 6), kind="stable")  # equals stay in reading order
    cuts = np.searchsorted(np.cumsum(heat[order]), np.arange(1, options.points) / options.points)
    lowest = np.arange(1, options.points)  # every piece keeps at least one pixel
    cuts = np.clip(np.maximum.accumulate(cuts - lowest) + lowest, lowest, rows.size - options.points + lowest)
    chosen: Pixels = []
    for piece in np.split(order, cuts):
        centre = np.sum(place[:, piece] * heat[piece], axis=1, keepdims=True) / heat[piece].sum()
        off = np.round(((place[:, piece] - centre) ** 2).sum(axis=0), 6)
        nearest = piece[off == off.min()].min()
        chosen.append((int(rows[nearest]), int(columns[nearest])))
    if not _are_apart(chosen, options.min_distance_px):
        raise InputError(
            f"the {options.points} centroids lie less than {options.min_distance_px:g} px apart", hint=_FEWER
        )
    return chosen


def _are_apart(pixels: Pixels, min_distance_px: float) -> bool:
    places = np.array(pixels, dtype=np.float64)
    distance = np.hypot(*np.moveaxis(places[:, np.newaxis] - places[np.newaxis], -1, 0))
    np.fill_diagonal(distance, np.inf)
    return bool((distance >= min_distance_px).all())


def _grid_pixels(heatmap: Heatmap, options: PromptOptions, random: np.random.Generator) -> Pixels:
    hot = _hot(heatmap)
    rows, columns = np.flatnonzero(hot.any(axis=1)), np.flatnonzero(hot.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    least = max(1, int(np.ceil(min(options.min_distance_px, max(hot.shape)))))
    found = 0
    for step in _shrinking(max(bottom - top, right - left), least):
        grid = np.ix_(_centred(top, bottom, step), _centred(left, right, step))
        at = np.argwhere(hot[grid])
        found = max(found, len(at))
        if len(at) >= options.points:
            places = np.stack([grid[0].ravel()[at[:, 0]], grid[1].ravel()[at[:, 1]]])
            heat = heatmap[places[0], places[1]].astype(np.float64)
            order = np.lexsort((places[1], places[0], -heat))[: options.points]
            return [(int(places[0, node]), int(places[1, node])) for node in np.sort(order)]
    raise _too_few("positive", found, options.points, options.min_distance_px)


def _shrinking(widest: int, least: int) -> Iterator[int]:
    """Yield grid steps from the widest to the least, a tenth less each time."""
    step = max(widest, least)
    while step > least:
        yield step
        step = max(least, min(step - 1, int(step * 0.9)))
    yield least


def _centred(first: int, last: int, step: int) -> npt.NDArray[np.intp]:
    """Return every ``step``-th whole number from ``first`` to ``last``, with what is left over split evenly."""
    spare = (last - first) % step
    return np.arange(first + spare // 2, last + 1, step, dtype=np.intp)

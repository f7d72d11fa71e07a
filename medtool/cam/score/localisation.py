"""Whether a map lies on what the mask marks: its hottest pixel, its energy, its area and its boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medtool.cam.score.boxes import average_precision, boxes_of_labels, boxes_of_map, overlaps
from medtool.cam.score.metrics import Floats, Kind, Measured, Metric

if TYPE_CHECKING:
    from medtool.protocols import BoolMask, Heatmap

#: Shares of a map's peak at which it is cut.
THRESHOLDS = np.arange(1, 20) / 20
#: Where there is no val part to choose on, and none was named.
FIXED = 0.5
#: Least overlap of a box with a true one.
OVERLAPS = (0.5, 0.75)

_CUT = ("iou", "box_ap50", "box_ap75")


@dataclass(frozen=True, slots=True)
class Located:
    """How one map lies on one mask.

    Attributes
    ----------
    is_hit
        Whether the hottest pixel lies on the mask.
    energy
        Share of the map's sum that lies on the mask.
    area
        Share of the image that the mask marks: what a map that knows nothing has inside, on average.
    by_threshold
        Shape ``(3, thresholds)``: intersection over union, and the average precision of boxes at an overlap of 0.5 and
        of 0.75.
    """

    is_hit: bool
    energy: float
    area: float
    by_threshold: Floats


def located(
    heatmap: Heatmap,
    labels: npt.NDArray[np.integer[Any]],
    *,
    tolerance_px: float = 0.0,
    thresholds: Floats = THRESHOLDS,
) -> Located:
    """Return how a map lies on a mask.

    Parameters
    ----------
    heatmap
        Shape ``(height, width)``, finite, ≥ 0, not 0 everywhere.
    labels
        Shape ``(height, width)``: what is not 0 is marked, somewhere. Connected parts of one value are objects with a
        box each.
    tolerance_px
        How far from the mask the hottest pixel still is a hit.
    thresholds
        Shares of the map's peak, above 0.

    References
    ----------
    Zhang et al., "Top-Down Neural Attention by Excitation Backprop", ECCV 2016 (the pointing game); Wang et al.,
    "Score-CAM", CVPR Workshops 2020 (energy); Choe et al., "Evaluating Weakly Supervised Object Localization Methods
    Right", CVPR 2020 (thresholds and boxes).
    """
    mask = labels != 0
    scaled = heatmap / heatmap.max()
    y, x = np.unravel_index(int(scaled.argmax()), scaled.shape)
    energy = float(scaled[mask].sum(dtype=np.float64) / scaled.sum(dtype=np.float64))
    true = boxes_of_labels(labels)
    found = np.empty((len(_CUT), len(thresholds)))
    for place, threshold in enumerate(thresholds):
        found[0, place] = _iou(scaled >= threshold, mask)
        boxes, peaks = boxes_of_map(scaled, threshold)
        shares = overlaps(boxes, true)
        found[1:, place] = [average_precision(peaks, shares, least) for least in OVERLAPS]
    return Located(_distance_px(mask, int(x), int(y)) <= tolerance_px, energy, float(mask.mean()), found)


def _iou(given: BoolMask, true: BoolMask) -> float:
    shared = np.count_nonzero(given & true)
    return shared / (np.count_nonzero(given) + np.count_nonzero(true) - shared)


def _distance_px(mask: BoolMask, x: int, y: int) -> float:
    if mask[y, x]:
        return 0.0
    rows, columns = np.nonzero(mask)
    return float(np.sqrt(((rows - y) ** 2 + (columns - x) ** 2).min()))


def thresholds_with(fixed: float | None) -> Floats:
    """Return the thresholds to look at, with one that was fixed beforehand among them."""
    return THRESHOLDS if fixed is None else np.union1d(THRESHOLDS, [fixed])


def measured_of(
    found: list[Located | None], chosen_on: list[Located], *, thresholds: Floats, fixed: float | None
) -> list[Measured]:
    """Return the scores of some images, each cut at a threshold that other images chose, and at the best one.

    Parameters
    ----------
    found
        Of the scored images; None where there is none.
    chosen_on
        Of the images of the val part, none of which is among the scored ones; may be empty.
    thresholds
        Those that were looked at.
    fixed
        The one to take, if it was fixed beforehand.
    """
    n_cut = len(thresholds)
    missing = Located(False, np.nan, np.nan, np.full((len(_CUT), n_cut), np.nan))
    rows = [each or missing for each in found]
    curves = np.array([row.by_threshold for row in rows]).reshape(len(rows), len(_CUT), n_cut)
    hits = np.array([np.nan if each is None else float(each.is_hit) for each in found])
    measured = [
        Measured(Metric("pointing_game", Kind.LOCALISATION, "higher"), hits),
        Measured(Metric("energy_inside", Kind.LOCALISATION, "higher"), np.array([row.energy for row in rows])),
        Measured(Metric("mask_area", Kind.LOCALISATION, ""), np.array([row.area for row in rows])),
    ]
    is_known = ~np.isnan(hits)
    for number, name in enumerate(_CUT):
        if fixed is None and chosen_on:
            means = np.mean([each.by_threshold[number] for each in chosen_on], axis=0)
            place, source = int(means.argmax()), f"best of {n_cut} on {len(chosen_on)} images of the val part"
        else:
            place = int(np.abs(thresholds - (FIXED if fixed is None else fixed)).argmin())
            source = "fixed beforehand" if fixed is not None else "fixed, as no val part could choose it"
        metric = Metric(name, Kind.LOCALISATION, "higher", False, float(thresholds[place]), source)
        measured.append(Measured(metric, curves[:, number, place]))
        if is_known.any():
            place = int(curves[is_known, number].mean(0).argmax())
            source = f"best of {n_cut} on the scored images"
            metric = Metric(f"{name}_best", Kind.LOCALISATION, "higher", True, float(thresholds[place]), source)
            measured.append(Measured(metric, curves[:, number, place]))
    return measured

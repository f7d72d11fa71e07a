"""Where maps lie on masks; thresholds that others chose."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from medtool.cam.score.localisation import THRESHOLDS, Located, located, measured_of, thresholds_with
from medtool.heatmaps.resize import resize_heatmap
from medtool.images import read_labels


@given(st.integers(0, 2**16))
def test_iou_and_energy_are_those_of_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heatmap = resize_heatmap(rng.random((4, 5)).astype(np.float32), (24, 30))
    mask = rng.random((24, 30)) < 0.3
    mask[0, 0] = True
    found = located(heatmap, mask.astype(np.uint8))
    for place, threshold in enumerate(THRESHOLDS):
        given_mask = heatmap / heatmap.max() >= threshold
        assert found.by_threshold[0, place] == pytest.approx(jaccard_score(mask.ravel(), given_mask.ravel()))
    assert found.energy == pytest.approx(heatmap[mask].sum() / heatmap.sum(), rel=1e-5)
    assert found.area == mask.mean()
    y, x = np.argwhere(heatmap == heatmap.max())[0]
    assert found.is_hit == bool(mask[y, x])


def test_a_near_miss_is_a_hit_within_the_tolerance() -> None:
    heatmap = np.zeros((20, 30), np.float32)
    heatmap[4, 5] = 1
    mask = np.zeros((20, 30), np.uint8)
    mask[8:, 8:] = 1  # 4 down and 3 to the right: 5 pixels
    assert not located(heatmap, mask).is_hit
    assert not located(heatmap, mask, tolerance_px=4.9).is_hit
    assert located(heatmap, mask, tolerance_px=5).is_hit


def test_a_map_that_is_the_mask_is_right_in_everything() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[5:15, 30:45] = 255
    mask[25:30, 3:9] = 255
    found = located((mask / 255).astype(np.float32), mask)
    assert found.is_hit
    assert found.energy == 1
    assert (found.by_threshold == 1).all()


def curve(values: np.ndarray, *, area: float = 0.2) -> Located:
    return Located(True, 0.5, area, np.stack([values, values, values]))


def test_the_threshold_is_chosen_by_others_and_the_best_one_is_an_oracle() -> None:
    rising, falling = np.linspace(0, 1, len(THRESHOLDS)), np.linspace(1, 0, len(THRESHOLDS))
    found = {
        each.metric.name: each
        for each in measured_of([curve(rising), None], [curve(falling)], thresholds=THRESHOLDS, fixed=None)
    }
    iou, best = found["iou"], found["iou_best"]
    assert (iou.metric.threshold, iou.metric.is_oracle, iou.values[0]) == (THRESHOLDS[0], False, 0)
    assert "1 images of the val part" in iou.metric.threshold_from
    assert (best.metric.threshold, best.metric.is_oracle, best.values[0]) == (THRESHOLDS[-1], True, 1)
    assert all(np.isnan(each.values[1]) for each in found.values())


def test_a_threshold_that_was_fixed_is_taken_and_without_any_it_is_a_half() -> None:
    thresholds = thresholds_with(0.33)
    assert len(thresholds) == len(THRESHOLDS) + 1
    rising = np.arange(len(thresholds), dtype=float)
    scores = measured_of([curve(rising)], [curve(-rising)], thresholds=thresholds, fixed=0.33)
    assert {each.metric.threshold for each in scores if each.metric.name in ("iou", "box_ap50", "box_ap75")} == {0.33}
    scores = measured_of([curve(rising[1:])], [], thresholds=THRESHOLDS, fixed=None)
    (iou,) = (each for each in scores if each.metric.name == "iou")
    assert iou.metric.threshold == 0.5
    assert "no val part" in iou.metric.threshold_from


def test_coarse_maps_of_real_lesions_lie_on_them_only_as_they_are(shared_data: Path) -> None:
    turns = {
        "as it is": lambda raw: raw,
        "mirrored": lambda raw: raw[:, ::-1],
        "upside down": lambda raw: raw[::-1],
        "transposed": lambda raw: raw.T,
    }
    hits: dict[str, list[bool]] = {turn: [] for turn in turns}
    energies: dict[str, list[float]] = {turn: [] for turn in turns}
    for path in sorted((shared_data / "isic2017" / "masks").iterdir())[:400]:
        labels = read_labels(path)
        rows, columns = np.nonzero(labels)
        offsets = abs(rows.mean() - labels.shape[0] / 2), abs(columns.mean() - labels.shape[1] / 2)
        if max(offsets) < 25 or (labels != 0).mean() > 0.25:
            continue  # a lesion in the middle is where it is, however the map is turned
        raw = cv2.resize((labels != 0).astype(np.float32), (7, 7), interpolation=cv2.INTER_AREA)
        for turn, turned in turns.items():
            found = located(resize_heatmap(turned(raw), labels.shape), labels)
            hits[turn].append(found.is_hit)
            energies[turn].append(found.energy)
    assert len(hits["as it is"]) >= 5
    assert np.mean(hits["as it is"]) == 1
    for turn in ("mirrored", "upside down", "transposed"):
        assert np.mean(energies[turn]) < np.mean(energies["as it is"]) - 0.1

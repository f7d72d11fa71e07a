"""Boxes of connected parts, and the average precision of one image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torchvision.ops import box_iou

from medtool.cam.score.boxes import average_precision, boxes_of_labels, boxes_of_map, overlaps


def test_each_part_of_a_mask_has_a_box_and_touching_instances_have_one_each() -> None:
    labels = np.zeros((8, 10), np.uint16)
    labels[1:3, 2:5] = 255
    labels[3, 5] = 255  # touches at a corner
    labels[6:8, 0:2] = 255
    assert boxes_of_labels(labels).tolist() == [[2, 1, 6, 4], [0, 6, 2, 8]]
    labels[6:8, 2:4] = 7
    assert sorted(boxes_of_labels(labels).tolist()) == [[0, 6, 2, 8], [2, 1, 6, 4], [2, 6, 4, 8]]
    assert boxes_of_labels(np.zeros((3, 3), np.uint8)).shape == (0, 4)


def test_boxes_of_a_map_carry_the_highest_value_of_their_part() -> None:
    heatmap = np.zeros((6, 9), np.float32)
    heatmap[1:3, 1:3] = 0.5
    heatmap[2, 2] = 0.75
    heatmap[3:6, 6:9] = 0.6
    boxes, peaks = boxes_of_map(heatmap, 0.5)
    assert boxes.tolist() == [[1, 1, 3, 3], [6, 3, 9, 6]]
    assert peaks.tolist() == pytest.approx([0.75, 0.6])
    boxes, peaks = boxes_of_map(heatmap, 0.7)
    assert boxes.tolist() == [[2, 2, 3, 3]]
    assert peaks.tolist() == pytest.approx([0.75])


corners = st.integers(0, 20)
boxes = st.lists(
    st.tuples(corners, corners, st.integers(1, 9), st.integers(1, 9)).map(
        lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    ),
    min_size=1,
    max_size=6,
)


@given(boxes, boxes)
def test_overlaps_are_those_of_torchvision(one: list[list[int]], other: list[list[int]]) -> None:
    found = overlaps(np.array(one), np.array(other))
    assert found == pytest.approx(box_iou(tensor(one).float(), tensor(other).float()).numpy(), abs=1e-6)


def voc_2010(ranks: list[float], shares: np.ndarray, least: float) -> float:
    """The definition, recall by recall: the highest precision at any place that reaches it."""
    order = sorted(range(len(ranks)), key=lambda place: -ranks[place])
    taken: set[int] = set()
    curve = []
    for n, row in enumerate(order, 1):
        best = max(range(shares.shape[1]), key=lambda column: shares[row, column])
        if shares[row, best] >= least and best not in taken:
            taken.add(best)
        curve.append((len(taken) / shares.shape[1], len(taken) / n))
    levels = [level / shares.shape[1] for level in range(1, shares.shape[1] + 1)]
    reached = [max((p for r, p in curve if r >= level - 1e-9), default=0.0) for level in levels]
    return sum(reached) / len(levels)


@given(st.integers(0, 7), st.integers(1, 4), st.integers(0, 2**16))
def test_average_precision_follows_its_definition(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranks, shares = rng.permutation(n).astype(float), rng.random((n, m))
    assert average_precision(ranks, shares, 0.5) == pytest.approx(voc_2010(list(ranks), shares, 0.5))


def test_a_false_box_before_the_right_one_halves_the_precision_and_one_after_it_costs_nothing() -> None:
    shares = np.array([[0.9], [0.1]])
    assert average_precision(np.array([2.0, 1.0]), shares, 0.5) == 1
    assert average_precision(np.array([1.0, 2.0]), shares, 0.5) == 0.5
    assert average_precision(np.array([2.0, 1.0]), shares, 0.95) == 0

"""The reliability diagram is a whole SVG that shows what was measured."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from medtool.errors import InputError
from medtool.runs.choices import Task
from medtool.train.calibration import expected_calibration_error
from medtool.train.reliability import reliability_diagram

SVG = "{http://www.w3.org/2000/svg}"


def binary(n: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    honest = rng.random(n)
    sure = 1 / (1 + (1 / np.clip(honest, 1e-6, 1 - 1e-6) - 1) ** 4)
    truth = (rng.random(n) < honest).astype(int)
    return np.stack([1 - sure, sure], axis=1), np.stack([1 - honest, honest], axis=1), np.eye(2)[truth]


def test_the_diagram_gives_both_errors_and_every_bin_with_its_count() -> None:
    before, after, targets = binary()
    drawn = reliability_diagram(before, after, targets, task=Task.SINGLE, bins=10, method="temperature", note="val")
    root = ElementTree.fromstring(drawn)
    words = [text.text for text in root.iter(f"{SVG}text")]
    for p in (before, after):
        assert f"ECE {expected_calibration_error(p, targets, task=Task.SINGLE, bins=10):.3f}" in words
    assert {"before", "after temperature", "val", "Reliability on 500 images"} <= set(words)
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    counts = [int(found[1]) for title in titles if (found := re.search(r": (\d+) claims", title))]
    assert len(counts) == 20
    assert sum(counts) == 2 * 500


def test_bars_and_gaps_are_as_high_as_what_was_claimed_and_came_true() -> None:
    p, targets = np.array([[0.4], [0.4], [0.9], [0.9]]), np.array([[0], [1], [1], [0]])
    root = ElementTree.fromstring(reliability_diagram(p, p, targets, task=Task.MULTI, bins=2))
    heights: dict[str, list[float]] = {}
    for group in root.findall(f"{SVG}g/{SVG}g"):
        for box in group.iter(f"{SVG}rect"):
            heights.setdefault(box.get("fill", ""), []).append(float(box.get("height", "nan")) / 260)
    both = 2  # panels, of the same probabilities
    assert heights["#6f9fc8"] == pytest.approx([0.4, 0.5] * both)  # the lower of claimed and observed
    assert heights["#7a5195"] == pytest.approx([0.1] * both)  # 0.4 claimed, 0.5 came true
    assert heights["#f0a04b"] == pytest.approx([0.4] * both)  # 0.9 claimed, 0.5 came true
    assert len(set(heights["#9fb3c8"])) == 1


@pytest.mark.parametrize("task", Task)
def test_nothing_is_drawn_outside_and_nothing_is_loaded_from_elsewhere(task: Task) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), size=60)
    targets = np.eye(4)[np.arange(60) % 4]
    drawn = reliability_diagram(p, p, targets, task=task)
    root = ElementTree.fromstring(drawn)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for box in root.iter(f"{SVG}rect"):
        x, y, wide, tall = (float(box.get(key, "nan")) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= width
        assert 0 <= y <= y + tall <= height
    assert "nan" not in drawn
    assert not re.search(r"href|<script|<style|url\(", drawn)
    assert [found for found in re.findall(r"https?://[^\"]*", drawn) if "w3.org" not in found] == []


def test_words_of_others_are_escaped() -> None:
    before, after, targets = binary(20)
    drawn = reliability_diagram(before, after, targets, task=Task.SINGLE, method="<b>", note='"&<script>')
    assert "<script" not in drawn
    assert "after <b>" in [text.text for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")]


def test_a_single_image_is_drawn_and_none_is_refused() -> None:
    before, after, targets = binary(20)
    assert "on 1 image<" in reliability_diagram(before[:1], after[:1], targets[:1], task=Task.SINGLE)
    with pytest.raises(InputError, match="no image"):
        reliability_diagram(before[:0], after[:0], targets[:0], task=Task.SINGLE)

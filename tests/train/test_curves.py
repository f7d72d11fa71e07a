"""The learning curves are drawn where the numbers say."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from medtool.train.curves import Stroke, Text, as_png, as_svg, curves

EPOCHS = [
    {"epoch": 1, "train_loss": 0.8, "val": {"loss": 0.9, "auc": 0.5, "balanced_accuracy": None, "f1": 0.25}},
    {"epoch": 2, "train_loss": 0.4, "val": {"loss": 0.5, "auc": 1.0, "balanced_accuracy": None, "f1": 0.75}},
    {"epoch": 3, "train_loss": 0.2, "val": {"loss": 0.6, "auc": 0.75, "balanced_accuracy": None, "f1": 0.5}},
]


def lines_of(colour: str) -> list[Stroke]:
    drawing = curves(EPOCHS, monitor="auc", best_epoch=2)
    return [each for each in drawing if isinstance(each, Stroke) and each.colour == colour and len(each.points) > 2]


def test_a_higher_score_lies_higher_and_a_later_epoch_further_right() -> None:
    losses, scores = lines_of("#1f6f8b")
    for line, values in ((losses, [0.8, 0.4, 0.2]), (scores, [0.5, 1.0, 0.75])):
        xs, ys = zip(*line.points, strict=True)
        assert list(xs) == sorted(xs)
        slope = np.diff(ys) / np.diff(values)
        np.testing.assert_allclose(slope, slope[0])
        assert slope[0] < 0  # pixels are counted from above


def test_a_score_that_is_never_known_is_left_out_and_the_best_epoch_is_marked() -> None:
    drawing = curves(EPOCHS, monitor="auc", best_epoch=2)
    texts = [each.text for each in drawing if isinstance(each, Text)]
    assert "balanced accuracy" not in texts
    assert {"train loss", "val loss", "auc", "f1", "val (best epoch 2 by auc)"} <= set(texts)
    marks = [each for each in drawing if isinstance(each, Stroke) and each.is_dashed]
    assert [mark.points[0][0] for mark in marks] == [line.points[1][0] for line in lines_of("#1f6f8b")]


def test_a_monitored_class_has_its_curve_and_markup_in_its_name_is_inert() -> None:
    name = 'recall/<b>"'
    epochs = [{**line, "val": {**line["val"], name: 0.5}} for line in EPOCHS]
    svg = as_svg(curves(epochs, monitor=name, best_epoch=1))
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]
    assert name in texts


def test_a_single_epoch_is_a_dot_and_svg_and_png_have_one_size() -> None:
    drawing = curves(EPOCHS[:1], monitor="auc", best_epoch=1)
    svg = ElementTree.fromstring(as_svg(drawing))
    assert any(element.tag.endswith("circle") for element in svg.iter())
    with Image.open(io.BytesIO(as_png(drawing))) as png:
        assert png.size == (2 * int(svg.get("width", "0")), 2 * int(svg.get("height", "0")))
        assert len(png.getcolors(1 << 16) or []) > 5

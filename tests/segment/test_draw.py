"""Overlays and sheets: lines and points where they belong."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medtool.segment import draw


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    ys, xs = np.mgrid[:height, :width]
    return np.hypot(xs - x, ys - y) < radius


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


@pytest.fixture
def own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw small images at their own size."""
    monkeypatch.setattr(draw, "LEAST_OVERLAY_PX", 1)


def is_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (pixels == np.array(colour, np.uint8)).all(axis=-1)


@pytest.mark.usefixtures("own_size")
def test_the_contour_lies_on_the_masks_edge_and_inside_it() -> None:
    mask = disc(60, 80, 40, 30, 15)
    shown = draw.draw_overlay(grey(60, 80), mask, np.empty((0, 2)), [], long_side_px=4096)
    line = is_colour(shown, draw.CONTOUR)
    assert line.any()
    assert not (line & ~mask).any()
    ys, xs = np.nonzero(line)
    radii = np.hypot(xs - 40, ys - 30)
    assert radii.min() > 12.5
    assert (xs.mean(), ys.mean()) == pytest.approx((40, 30), abs=0.3)
    untouched = ~disc(60, 80, 40, 30, 18)
    assert (shown[untouched] == 128).all()


@pytest.mark.parametrize("scale", [1, 4])
def test_points_are_drawn_on_their_pixel_also_when_the_image_is_scaled_down(scale: int) -> None:
    height, width = 120 * scale, 160 * scale
    points = np.array([[20.0 * scale + (scale - 1) / 2, 90.0 * scale + (scale - 1) / 2]])
    shown = draw.draw_overlay(grey(height, width), np.zeros((height, width), bool), points, [1], long_side_px=160)
    assert shown.shape == (120, 160, 3)
    ys, xs = np.nonzero(is_colour(shown, draw.POSITIVE))
    assert (xs.mean(), ys.mean()) == pytest.approx((20, 90), abs=0.6)


@pytest.mark.usefixtures("own_size")
def test_positive_and_negative_points_look_different() -> None:
    points = np.array([[10.0, 10.0], [40.0, 20.0]])
    shown = draw.draw_overlay(grey(40, 60), np.zeros((40, 60), bool), points, [1, 0], long_side_px=4096)
    assert is_colour(shown, draw.POSITIVE)[:, :25].any()
    assert is_colour(shown, draw.NEGATIVE)[:, 25:].any()
    assert not is_colour(shown, draw.NEGATIVE)[:, :25].any()


def test_the_image_given_is_not_drawn_on() -> None:
    image = grey(30, 30)
    draw.draw_overlay(image, disc(30, 30, 15, 15, 8), np.array([[3.0, 3.0]]), [1], long_side_px=4096)
    assert (image == 128).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_thin_and_tiny_images_are_drawn_too(height: int, width: int) -> None:
    points = np.array([[0.0, 0.0]])
    shown = draw.draw_overlay(grey(height, width), np.ones((height, width), bool), points, [1], long_side_px=100)
    assert max(shown.shape[:2]) == 100


def test_small_images_are_enlarged_with_their_points_on_their_pixels() -> None:
    mask = np.zeros((30, 40), bool)
    mask[10:20, 12:24] = True
    shown = draw.draw_overlay(grey(30, 40), mask, np.array([[17.0, 14.0]]), [1], long_side_px=4096)
    assert shown.shape == (180, 240, 3)
    ys, xs = np.nonzero(is_colour(shown, draw.POSITIVE))
    assert (xs.mean(), ys.mean()) == pytest.approx((17.5 * 6 - 0.5, 14.5 * 6 - 0.5), abs=0.6)
    ys, xs = np.nonzero(is_colour(shown, draw.CONTOUR))
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (72, 143, 60, 119)


def test_a_sheet_picks_evenly_with_both_ends() -> None:
    assert draw.pick_evenly(3) == [0, 1, 2]
    picked = draw.pick_evenly(1000)
    assert len(picked) == len(set(picked)) == draw.MAX_TILES
    assert (picked[0], picked[-1]) == (0, 999)
    assert max(np.diff(picked)) - min(np.diff(picked)) <= 1


def test_a_sheet_holds_every_tile_and_odd_captions() -> None:
    tiles = [draw.Tile(np.full((50, 100, 3), 10 * index, np.uint8), "\udcff病\n" * 60) for index in range(7)]
    sheet = draw.lay_out([*tiles, draw.Tile(None, "größe.png", "too large\nby far " * 30)])
    for index in range(1, 7):
        assert (sheet == 10 * index).all(axis=-1).sum() >= 100 * 50


def test_label_pngs_are_8_bit_grey_zeros_and_ones() -> None:
    mask = disc(21, 33, 16, 10, 6)
    with Image.open(io.BytesIO(draw.to_label_png(mask))) as picture:
        assert picture.mode == "L"
        assert (np.array(picture) == mask).all()

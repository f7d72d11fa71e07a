from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medtool.segment.resample import denoised, reduced_size, resize_plane, resize_rgb, to_reduced

SIZES = [(480, 640), (333, 257), (101, 1999), (64, 64), (31, 17)]


def disc(size: tuple[int, int], middle: tuple[float, float], radius: float) -> np.ndarray:
    """Return an antialiased disc; ``middle`` is (x, y)."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.clip(radius + 0.5 - np.hypot(x - middle[0], y - middle[1]), 0, 1).astype(np.float32)


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(8, 512))
def test_the_reduced_image_fits_and_keeps_small_sides(height, width, long_side):
    reduced = reduced_size((height, width), long_side)
    assert all(1 <= small <= side for small, side in zip(reduced, (height, width), strict=True))
    assert max(reduced) <= long_side
    assert all(small >= min(side, 8) for small, side in zip(reduced, (height, width), strict=True))


def test_a_small_image_is_not_enlarged():
    assert reduced_size((30, 40), 160) == (30, 40)


@pytest.mark.parametrize("size", SIZES)
def test_down_and_up_again_does_not_shift(size):
    middle = (size[1] * 0.41, size[0] * 0.57)
    plane = disc(size, middle, min(size) * 0.3)
    back = resize_plane(resize_plane(plane, reduced_size(size, 160)), size)
    before, after = np.array(ndimage.center_of_mass(plane)), np.array(ndimage.center_of_mass(back))
    assert np.abs(before - after).max() < 0.1


@pytest.mark.parametrize("size", SIZES)
def test_points_go_where_the_pixels_go(size):
    middle = np.array([[size[1] * 0.41, size[0] * 0.57]])
    reduced = reduced_size(size, 100)
    small = resize_plane(disc(size, (middle[0, 0], middle[0, 1]), min(size) * 0.3), reduced)
    y, x = ndimage.center_of_mass(small)
    assert to_reduced(middle, size, reduced)[0] == pytest.approx([x, y], abs=0.1)


def test_colours_are_averaged_on_the_way_down():
    checks = np.indices((400, 400)).sum(axis=0) % 2 * 255
    small = resize_rgb(np.repeat(checks[..., np.newaxis], 3, axis=2).astype(np.uint8), (100, 100))
    assert np.abs(small[5:-5, 5:-5].astype(int) - 128).max() <= 2


def test_speckle_goes_and_values_are_scipys():
    lab = np.random.default_rng(905).normal(50, 20, (23, 31, 3)).astype(np.float32)
    expected = ndimage.median_filter(lab, size=(5, 5, 1), mode="nearest")
    np.testing.assert_array_equal(denoised(lab), expected)

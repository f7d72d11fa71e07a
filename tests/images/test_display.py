from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from medtool.errors import ImageError
from medtool.images.display import MID_GREY, show
from medtool.images.image import Raster, ValueTable, Window

NUMBER_TYPES = ("uint16", "int8", "int16", "uint32", "int32", "int64", "float32", "float64")


def ramp(low, high, dtype, size=64):
    return np.linspace(low, high, size * size).reshape(size, size).astype(dtype)


def test_8_bit_values_are_shown_as_they_are():
    dark = ramp(0, 9, np.uint8)
    rgb, window, notes = show(Raster(dark))
    assert window is None
    assert notes == ()
    assert np.array_equal(rgb, np.stack([dark] * 3, axis=-1))


def test_1_bit_pixels_are_black_and_white():
    rgb, window, _ = show(Raster(np.eye(5, dtype=bool)))
    assert window is None
    assert np.array_equal(rgb[..., 1], np.eye(5) * 255)


def test_16_bit_copies_of_8_bit_pictures_look_the_same(colours):
    rgb, window, _ = show(Raster(colours.astype(np.uint16) * 257))
    assert window == (0, 65535)
    assert np.array_equal(rgb, colours)


def test_float_copies_of_8_bit_pictures_look_the_same(colours):
    rgb, window, _ = show(Raster(colours.astype(np.float32) / 255))
    assert window == (0, 1)
    assert np.array_equal(rgb, colours)


def test_12_bit_values_in_16_bit_pixels_span_black_to_white():
    rgb, window, _ = show(Raster(ramp(0, 4000, np.uint16)))
    assert window == (0, 4095)
    assert rgb.max() > 240


def test_low_contrast_is_spread_over_black_to_white():
    rgb, window, _ = show(Raster(ramp(1000, 1100, np.uint16)))
    assert window == (1000, 1100)
    assert (rgb.min(), rgb.max()) == (0, 255)


def test_one_hot_pixel_does_not_black_out_the_rest():
    pixels = ramp(100, 4000, np.uint16)
    pixels[5, 5] = 65535
    rgb, window, notes = show(Raster(pixels))
    assert window == (0, 4095)
    assert rgb[5, 5, 0] == 255
    assert np.median(rgb) > 100
    assert "1 value far from all others" in notes[0]


def test_a_few_bright_pixels_on_flat_ground_are_not_lost():
    pixels = np.zeros((100, 100), np.float32)
    pixels[3, 3:6] = 7
    rgb, window, _ = show(Raster(pixels))
    assert window == (0, 7)
    assert rgb[3, 3, 0] == 255


@pytest.mark.parametrize("dtype", NUMBER_TYPES)
def test_constant_images_are_mid_grey_whatever_their_value(dtype):
    rgb, window, notes = show(Raster(np.full((4, 4), 7, dtype)))
    assert (rgb == MID_GREY).all()
    assert window == (7, 7)
    assert "every pixel is 7" in notes[0]


def test_signed_values_run_from_least_to_greatest():
    rgb, window, _ = show(Raster(ramp(-1000, 2000, np.int16)))
    assert window == (-1000, 2000)
    assert (rgb[0, 0, 0], rgb[-1, -1, 0]) == (0, 255)


def test_pixels_that_are_not_finite_are_black_or_at_the_ends_and_counted():
    pixels = ramp(0, 100, np.float64)
    pixels[0, :3] = np.nan, np.inf, -np.inf
    rgb, window, notes = show(Raster(pixels))
    assert 0 <= window[0] < window[1] == 100
    assert rgb[0, :3, 0].tolist() == [0, 255, 0]
    assert "3 values are not finite" in notes[0]


def test_missing_pixels_are_black_in_an_inverted_image_too():
    pixels = ramp(0, 100, np.float32)
    pixels[0, 0] = np.nan
    rgb, _, _ = show(Raster(pixels, is_inverted=True))
    assert rgb[0, 0, 0] == 0
    assert rgb[0, 1, 0] > 250


def test_an_image_without_a_finite_pixel_is_refused():
    with pytest.raises(ImageError, match="no pixel is a finite number"):
        show(Raster(np.full((3, 3), np.nan)))


def test_padding_counts_for_nothing_and_is_black():
    pixels = ramp(-100, 300, np.int16)
    pixels[:10] = -32000
    rgb, window, _ = show(Raster(pixels, padding=pixels == -32000))
    assert window[0] > -101
    assert (rgb[:10] == 0).all()


def test_a_window_that_misses_all_values_gives_way_to_the_data():
    rgb, window, notes = show(Raster(ramp(0, 3000, np.uint16), window=Window(-500, -100)))
    assert window == (0, 4095)
    assert len(np.unique(rgb)) > 100
    assert "one flat tone" in notes[0]


def test_a_table_goes_before_a_window():
    table = ValueTable(10, np.array([0.0, 0.5, 1.0]))
    pixels = np.array([[0, 10, 11], [12, 99, 11]], np.int16)
    rgb, window, _ = show(Raster(pixels, table=table, window=Window(0, 100)))
    assert rgb[..., 0].tolist() == [[0, 0, 128], [255, 255, 128]]
    assert window == (10, 12)


@given(
    numpy_strategies.arrays(
        st.sampled_from(NUMBER_TYPES).map(np.dtype), st.tuples(st.integers(1, 12), st.integers(1, 12))
    )
)
def test_any_numbers_give_a_picture_that_keeps_their_order(pixels):
    if not np.isfinite(pixels).any():
        return
    rgb, (low, high), _ = show(Raster(pixels))
    assert rgb.shape == (*pixels.shape, 3)
    assert rgb.dtype == np.uint8
    assert low <= high
    finite = np.isfinite(pixels)
    values, shown = pixels[finite], rgb[..., 0][finite]
    order = np.argsort(values, kind="stable")
    assert (np.diff(shown[order].astype(int)) >= 0).all()
    # Values that float64 cannot tell apart have one tone.
    if np.float64(values.min()) < np.float64(values.max()):
        assert shown.min() < shown.max()

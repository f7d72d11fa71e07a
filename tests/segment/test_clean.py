from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from medtool.errors import InputError
from medtool.segment.clean import clean_mask
from medtool.segment.options import CleanOptions

NO_POINTS = np.empty((0, 2))
EIGHT = np.ones((3, 3))

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))
points = hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(2)), elements=st.floats(-3, 17, allow_nan=False))
settings = st.builds(
    CleanOptions, largest_component=st.booleans(), fill_holes=st.booleans(), min_area_px=st.integers(0, 30)
)


def drawn(*rows: str) -> np.ndarray:
    return np.array([[mark == "#" for mark in row] for row in rows])


@given(masks, points, settings)
def test_cleaning_twice_is_cleaning_once(mask, at, options):
    once = clean_mask(mask, at, options)
    np.testing.assert_array_equal(clean_mask(once, at, options), once)


@given(masks, points, settings)
def test_the_input_is_left_as_it_was(mask, at, options):
    before = mask.copy()
    clean_mask(mask, at, options)
    np.testing.assert_array_equal(mask, before)


@given(masks, points)
def test_without_filling_nothing_is_added(mask, at):
    cleaned = clean_mask(mask, at, CleanOptions(fill_holes=False))
    assert not (cleaned & ~mask).any()


@given(masks, points)
def test_filling_alone_equals_scipys(mask, at):
    cleaned = clean_mask(mask, at, CleanOptions(largest_component=False))
    np.testing.assert_array_equal(cleaned, ndimage.binary_fill_holes(mask))


@given(masks, points)
def test_one_component_without_holes_is_left_and_a_touched_one_if_any_is(mask, at):
    cleaned = clean_mask(mask, at, CleanOptions())
    _, count = ndimage.label(cleaned, structure=EIGHT)
    assert count == min(1, mask.sum())
    labels, _ = ndimage.label(mask, structure=EIGHT)
    x, y = np.floor(at + 0.5).astype(int).T
    is_inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    touched = set(labels[y[is_inside], x[is_inside]]) - {0}
    areas = {label: (labels == label).sum() for label in (touched or set(range(1, labels.max() + 1)))}
    if areas:
        kept = set(labels[cleaned & mask]) & set(areas)
        assert any(areas[label] == max(areas.values()) for label in kept)


@given(masks, points, st.integers(0, 60))
def test_a_mask_below_the_minimum_area_becomes_empty_and_no_other(mask, at, area):
    plain = clean_mask(mask, at, CleanOptions())
    cleaned = clean_mask(mask, at, CleanOptions(min_area_px=area))
    np.testing.assert_array_equal(cleaned, plain if plain.sum() >= area else np.zeros_like(plain))


def test_a_small_touched_component_wins_over_a_large_untouched_one():
    mask = drawn("###..", "###..", "....#")
    cleaned = clean_mask(mask, np.array([[4.2, 1.8]]), CleanOptions())
    np.testing.assert_array_equal(cleaned, drawn(".....", ".....", "....#"))


def test_a_point_just_beyond_the_edge_touches_nothing():
    mask = drawn("###..", "###..", "....#")
    cleaned = clean_mask(mask, np.array([[4.6, 2.0]]), CleanOptions())
    np.testing.assert_array_equal(cleaned, drawn("###..", "###..", "....."))


def test_diagonal_neighbours_are_one_component_and_do_not_leak():
    ring = drawn(".#.", "#.#", ".#.")
    np.testing.assert_array_equal(clean_mask(ring, NO_POINTS, CleanOptions()), drawn(".#.", "###", ".#."))


def test_with_all_steps_off_the_mask_stays():
    mask = drawn("#.#", "...", "#.#")
    options = CleanOptions(largest_component=False, fill_holes=False)
    np.testing.assert_array_equal(clean_mask(mask, NO_POINTS, options), mask)


@pytest.mark.parametrize("mask", [np.ones((3, 3)), np.ones(3, dtype=bool), np.ones((3, 3, 1), dtype=bool)])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(InputError, match="the mask is"):
        clean_mask(mask, NO_POINTS, CleanOptions())


def test_points_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"wanted \(n, 2\)"):
        clean_mask(np.ones((3, 3), dtype=bool), np.zeros((2, 3)), CleanOptions())

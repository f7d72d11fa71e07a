"""Lesion phantoms: whole masks, one lesion in several photographs, and nothing trivial that tells the label."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from scipy import ndimage

from medtool.demo.folder import cases_of, draw
from medtool.demo.options import Kind
from medtool.demo.phantom import Case, Phantom


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Case, Phantom]]:
    return [(case, draw(case)) for case in islice(cases_of(Kind.LESION, 11), 7)]


def test_a_phantom_is_a_colour_picture_with_a_mask_of_its_size(drawn: list[tuple[Case, Phantom]]) -> None:
    for case, phantom in drawn:
        size = {"A": (360, 480), "B": (400, 400)}[case.patient.site]
        assert phantom.pixels.dtype == phantom.mask.dtype == np.uint8
        assert phantom.pixels.shape == (*size, 3)
        assert phantom.mask.shape == size


def test_a_mask_is_one_piece_without_holes_and_of_a_lesions_size(drawn: list[tuple[Case, Phantom]]) -> None:
    for _, phantom in drawn:
        assert set(np.unique(phantom.mask)) == {0, 255}
        mask = phantom.mask == 255
        assert ndimage.label(mask)[1] == 1
        assert (ndimage.binary_fill_holes(mask) == mask).all()
        assert 0.02 < mask.mean() < 0.6


def test_the_lesion_is_darker_than_the_skin_around_it(drawn: list[tuple[Case, Phantom]]) -> None:
    for _, phantom in drawn:
        mask = phantom.mask == 255
        ring = ndimage.binary_dilation(mask, iterations=14) & ~ndimage.binary_dilation(mask, iterations=8)
        assert np.median(phantom.pixels[mask]) < np.median(phantom.pixels[ring])


def test_drawing_again_gives_the_same_pixels(drawn: list[tuple[Case, Phantom]]) -> None:
    case, phantom = drawn[3]
    again = draw(case)
    np.testing.assert_array_equal(again.pixels, phantom.pixels)
    np.testing.assert_array_equal(again.mask, phantom.mask)


def test_a_patients_first_two_photographs_show_one_lesion_and_are_not_equal(drawn: list[tuple[Case, Phantom]]) -> None:
    (one, first), (two, second), (three, _) = drawn[:3]
    assert one.patient == two.patient
    assert one.columns["lesion"] == two.columns["lesion"]
    assert one.columns["lesion"] != three.columns["lesion"] or three.patient != one.patient
    assert not np.array_equal(first.pixels, second.pixels)
    areas = [float((phantom.mask > 0).sum()) for phantom in (first, second)]
    assert 0.6 < areas[0] / areas[1] < 1.7


def test_other_seeds_give_other_pictures() -> None:
    pictures = [draw(next(cases_of(Kind.LESION, seed))).mask for seed in (1, 2)]
    assert pictures[0].shape != pictures[1].shape or not np.array_equal(*pictures)

"""Chest phantoms: 16-bit grey in each detector's own range, masks of opacities, empty ones of normal chests."""

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
    return [(case, draw(case)) for case in islice(cases_of(Kind.XRAY, 905), 6)]


def test_numbers_are_16_bit_and_in_the_detectors_range(drawn: list[tuple[Case, Phantom]]) -> None:
    for case, phantom in drawn:
        assert phantom.pixels.dtype == np.uint16
        assert phantom.pixels.ndim == 2
        top = {"A": 2**12, "B": 2**14}[case.patient.site]
        assert top / 2 < phantom.pixels.max() < top
        assert len(np.unique(phantom.pixels)) > 256


def test_normal_chests_have_empty_masks_and_others_one_opacity(drawn: list[tuple[Case, Phantom]]) -> None:
    labels = set()
    for case, phantom in drawn:
        labels.add(case.patient.label)
        if case.patient.label == "normal":
            assert not phantom.mask.any()
        else:
            assert ndimage.label(phantom.mask)[1] == 1
            assert 0.001 < (phantom.mask == 255).mean() < 0.1
    assert labels == {"normal", "opacity"}


def test_an_opacity_is_denser_than_the_same_chest_without_it(drawn: list[tuple[Case, Phantom]]) -> None:
    from dataclasses import replace

    case, phantom = next((case, phantom) for case, phantom in drawn if case.patient.is_positive)
    without = draw(replace(case, patient=replace(case.patient, is_positive=False)))
    mask = phantom.mask > 0
    assert phantom.pixels[mask].mean() > 1.05 * without.pixels[mask].mean()
    assert not without.mask.any()


def test_a_patients_radiographs_differ(drawn: list[tuple[Case, Phantom]]) -> None:
    assert drawn[0][0].patient == drawn[1][0].patient
    assert not np.array_equal(drawn[0][1].pixels, drawn[1][1].pixels)

"""Tissue phantoms: the same structures at every magnification, and masks of classes."""

from __future__ import annotations

from itertools import islice

import cv2
import numpy as np
import pytest

from medtool.demo.folder import cases_of, draw
from medtool.demo.options import Kind
from medtool.demo.phantom import Case, Phantom
from medtool.demo.tissue import CLASSES, MAGNIFICATIONS


@pytest.fixture(scope="module")
def field() -> dict[int, tuple[Case, Phantom]]:
    """Return the four magnifications of one field of view."""
    return {int(case.columns["magnification"]): (case, draw(case)) for case in islice(cases_of(Kind.TISSUE, 905), 4)}


def test_a_field_has_every_magnification_and_one_patient(field: dict[int, tuple[Case, Phantom]]) -> None:
    assert tuple(field) == MAGNIFICATIONS
    assert len({case.patient for case, _ in field.values()}) == 1
    assert len({case.columns["field"] for case, _ in field.values()}) == 1
    assert len({case.name for case, _ in field.values()}) == 4


def test_masks_hold_classes(field: dict[int, tuple[Case, Phantom]]) -> None:
    for _, phantom in field.values():
        assert phantom.mask.max() < len(CLASSES)
        assert phantom.mask.shape == phantom.pixels.shape[:2]
    assert set(np.unique(field[100][1].mask)) >= {1, 2, 3, 4}


@pytest.mark.parametrize(("low", "high"), [(40, 100), (100, 200), (200, 400)])
def test_the_middle_of_a_picture_is_the_next_magnification(
    field: dict[int, tuple[Case, Phantom]], low: int, high: int
) -> None:
    wide, close = (field[magnification][1].mask == 1 for magnification in (low, high))
    height, width = wide.shape
    ratio = high / low
    matrix = np.array([[ratio, 0, (width - 1) / 2 * (1 - ratio)], [0, ratio, (height - 1) / 2 * (1 - ratio)]])
    zoomed = cv2.warpAffine(wide.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST) > 0
    assert (zoomed == close).mean() > 0.93


def test_nuclei_are_bluer_than_stroma(field: dict[int, tuple[Case, Phantom]]) -> None:
    _, phantom = field[200]
    nuclei, stroma = (phantom.pixels[phantom.mask == name].mean(axis=0) for name in (3, 1))
    assert nuclei[0] < stroma[0]
    assert nuclei[2] - nuclei[0] > stroma[2] - stroma[0]


def test_malignant_nuclei_are_larger_and_less_alike() -> None:
    from skimage.measure import label, regionprops_table

    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for case in islice((case for case in cases_of(Kind.TISSUE, 3) if case.columns["magnification"] == "200"), 5):
        area = regionprops_table(label(draw(case).mask == 3), properties=("area",))["area"]
        area = area[area > 20]
        found[case.patient.is_positive].append((float(np.median(area)), float(area.std() / area.mean())))
    benign, malignant = (np.array(found[flag]).mean(axis=0) for flag in (False, True))
    assert malignant[0] > 1.3 * benign[0]
    assert malignant[1] > 1.3 * benign[1]

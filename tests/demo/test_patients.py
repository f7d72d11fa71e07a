"""Patients are the same for every number of images, balanced over sites, and their metadata goes with the label."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medtool.demo.options import Kind
from medtool.demo.patients import LABELS, Patient, patients


def first(count: int, kind: Kind = Kind.LESION, seed: int = 905) -> list[Patient]:
    return list(islice(patients(kind, seed), count))


@pytest.mark.parametrize("kind", list(Kind))
def test_every_four_patients_hold_both_labels_at_both_sites(kind: Kind) -> None:
    people = first(40, kind)
    for start in range(0, 40, 4):
        assert {(person.site, person.label) for person in people[start : start + 4]} == {
            (site, label) for site in "AB" for label in LABELS[kind]
        }


def test_the_list_begins_the_same_however_long_it_gets() -> None:
    assert first(5) == first(50)[:5]


def test_kinds_and_seeds_have_other_patients() -> None:
    ages = [tuple(person.age for person in people) for people in (first(9), first(9, seed=1), first(9, Kind.XRAY))]
    assert len(set(ages)) == 3


def test_names_count_from_one_and_sort_like_numbers() -> None:
    assert [person.name for person in first(3)] == ["P0001", "P0002", "P0003"]


@pytest.mark.parametrize("kind", [Kind.LESION, Kind.TISSUE, Kind.XRAY])
def test_age_goes_with_the_label_and_does_not_settle_it(kind: Kind) -> None:
    people = first(800, kind)
    auc = roc_auc_score([person.is_positive for person in people], [person.age for person in people])
    assert 0.6 < auc < 0.8
    assert all(18 <= person.age <= 90 for person in people)


def test_sex_and_localization_go_with_the_label() -> None:
    people = first(1200)
    for is_like, more in [
        (lambda person: person.sex == "male", True),
        (lambda person: person.localization == "back", True),
        (lambda person: person.localization == "abdomen", False),
    ]:
        rates = [
            np.mean([is_like(person) for person in people if person.is_positive is flag]) for flag in (False, True)
        ]
        assert bool(rates[1] > rates[0]) is more
        assert all(0 < rate < 1 for rate in rates)


def test_streams_of_patients_differ() -> None:
    one, two = first(2)
    draws = [person.stream(*key).random() for person in (one, two) for key in [(1,), (2,), (1, 0)]]
    assert len(set(draws)) == 6

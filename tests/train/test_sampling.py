from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.errors import InputError, UsageError
from medtool.train.sampling import Sampling, epoch_order

GOLDEN = {
    "natural": [1, 5, 3, 2, 0, 4],
    "balanced": [1, 4, 2, 5, 5, 5],
    "patient-balanced": [4, 0, 3, 2, 5, 4],
}

images = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", " ", "p1", "p2", "p3"])), min_size=1, max_size=25)
ways = st.sampled_from(Sampling)
seeds = st.integers(-(2**70), 2**70)


def orders(rows: list[tuple[int, str]], sampling: Sampling, *, seed: int, epochs: int) -> list[np.ndarray]:
    labels, patients = [row[0] for row in rows], [row[1] for row in rows]
    return [epoch_order(labels, patients, sampling=sampling, seed=seed, epoch=epoch) for epoch in range(epochs)]


@given(images, ways, seeds, st.integers(0, 10**6))
def test_an_epoch_has_as_many_images_as_there_are_and_is_the_same_every_time(
    rows: list[tuple[int, str]], sampling: Sampling, seed: int, epoch: int
) -> None:
    labels, patients = [row[0] for row in rows], [row[1] for row in rows]
    order = epoch_order(labels, patients, sampling=sampling, seed=seed, epoch=epoch)
    assert order.dtype == np.int64
    assert order.shape == (len(rows),)
    assert order.min() >= 0
    assert order.max() < len(rows)
    np.testing.assert_array_equal(order, epoch_order(labels, patients, sampling=sampling, seed=seed, epoch=epoch))


@given(images, seeds)
def test_natural_epochs_are_permutations(rows: list[tuple[int, str]], seed: int) -> None:
    for order in orders(rows, Sampling.NATURAL, seed=seed, epochs=3):
        assert sorted(order) == list(range(len(rows)))


@given(images, seeds, st.integers(1, 6))
def test_balanced_epochs_show_all_classes_and_all_images_of_a_class_equally_often(
    rows: list[tuple[int, str]], seed: int, epochs: int
) -> None:
    shown = np.concatenate(orders(rows, Sampling.BALANCED, seed=seed, epochs=epochs))
    of_class = Counter({label: 0 for label, _ in rows}) + Counter(rows[place][0] for place in shown)
    counts = [of_class[label] for label in {label for label, _ in rows}]
    assert max(counts) - min(counts) <= 1
    for label in {label for label, _ in rows}:
        of_image = [int(np.sum(shown == place)) for place, row in enumerate(rows) if row[0] == label]
        assert max(of_image) - min(of_image) <= 1


@given(images, seeds, st.integers(1, 6))
def test_patient_balanced_epochs_show_all_patients_and_all_images_of_a_patient_equally_often(
    rows: list[tuple[int, str]], seed: int, epochs: int
) -> None:
    shown = np.concatenate(orders(rows, Sampling.PATIENT_BALANCED, seed=seed, epochs=epochs))
    of: dict[object, list[int]] = {}
    for place, (_, patient) in enumerate(rows):
        of.setdefault(patient.strip() or place, []).append(int(np.sum(shown == place)))
    totals = [sum(counts) for counts in of.values()]
    assert max(totals) - min(totals) <= 1
    assert all(max(counts) - min(counts) <= 1 for counts in of.values())


def test_images_of_unknown_patients_are_patients_of_their_own() -> None:
    rows = [(0, "p1")] * 90 + [(0, "")] * 10
    order = orders(rows, Sampling.PATIENT_BALANCED, seed=1, epochs=1)[0]
    assert sum(place < 90 for place in order) in {9, 10}  # one patient of eleven


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    rows = [(place % 3, f"p{place % 7}") for place in range(50)]
    for sampling in Sampling:
        several = [order for seed in (0, 1, 2**64 - 1) for order in orders(rows, sampling, seed=seed, epochs=4)]
        assert len({order.tobytes() for order in several}) == len(several)


def test_every_place_of_an_epoch_gets_every_image_equally_likely() -> None:
    n, epochs = 5, 4000
    table = np.zeros((n, n))
    for epoch in range(epochs):
        order = epoch_order([0] * n, [""] * n, sampling=Sampling.NATURAL, seed=3, epoch=epoch)
        table[np.arange(n), order] += 1
    expected = epochs / n
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert chi2 < 45  # 16 degrees of freedom: exceeded once in 7,000 times by chance


def test_a_rare_class_is_not_shown_in_the_order_of_its_rounds() -> None:
    rows = [(0, "")] * 97 + [(1, "")] * 3
    order = orders(rows, Sampling.BALANCED, seed=0, epochs=1)[0]
    rare = [int(place) for place in order if place >= 97]
    assert len(rare) == 50
    assert len({tuple(rare[start : start + 3]) for start in range(0, 48, 3)}) > 6
    assert {place >= 97 for place in order[:10]} == {True, False}


def test_orders_do_not_change_from_release_to_release() -> None:
    labels, patients = [0, 0, 0, 0, 0, 1], ["a", "a", "a", "b", "", "b"]
    found = {way.value: epoch_order(labels, patients, sampling=way, seed=905, epoch=2).tolist() for way in Sampling}
    assert found == GOLDEN


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(InputError, match="no image"):
        epoch_order([], [], sampling=Sampling.NATURAL, seed=0, epoch=0)
    with pytest.raises(InputError, match="2 labels and 1 patients"):
        epoch_order([0, 1], ["a"], sampling=Sampling.NATURAL, seed=0, epoch=0)
    with pytest.raises(UsageError, match="epoch is -1"):
        epoch_order([0], ["a"], sampling=Sampling.NATURAL, seed=0, epoch=-1)

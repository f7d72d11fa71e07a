"""Means over images with intervals over patients, and the test of a paired difference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test

from medtool.cam.score.intervals import adjusted, difference_of, means_of, sign_flip_p


def test_means_count_only_the_images_that_have_the_score() -> None:
    scores = {"a": np.array([1.0, np.nan, 3.0, 5.0]), "b": np.array([np.nan] * 4), "c": np.array([0.0, 1.0, 0.0, 1.0])}
    found = means_of(scores, ["P1", "P2", "P1", ""], seed=1)
    assert list(found) == ["a", "b", "c"]
    assert (found["a"].interval.value, found["a"].n_images, found["a"].n_groups) == (3.0, 3, 2)
    assert (found["b"].interval.value, found["b"].n_images, found["b"].n_groups) == (None, 0, 0)
    assert (found["c"].interval.value, found["c"].n_groups) == (0.5, 3)


def test_one_patient_alone_has_no_interval() -> None:
    (found,) = means_of({"a": np.array([1.0, 2.0, 3.0])}, ["P1"] * 3, seed=1).values()
    assert (found.interval.value, found.interval.low, found.interval.high) == (2.0, None, None)


def test_copies_of_a_patients_images_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(30)
    once = means_of({"a": values}, [f"P{n}" for n in range(30)], seed=1)["a"].interval
    often = means_of({"a": np.repeat(values, 5)}, [f"P{n}" for n in range(30) for _ in range(5)], seed=1)["a"].interval
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


@pytest.mark.parametrize("n", [4, 9, 12])
def test_the_test_of_few_patients_is_exact(n: int) -> None:
    apart = np.random.default_rng(n).normal(0.4, 1, n)
    expected = permutation_test(
        (apart,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(apart, np.arange(n), seed=1) == pytest.approx(expected.pvalue)


def test_the_test_of_many_patients_comes_near_the_exact_one() -> None:
    apart = np.random.default_rng(5).normal(0.4, 1, 13)
    exact = sign_flip_p(apart, np.arange(13), seed=1)
    drawn = sign_flip_p(apart, np.arange(13), seed=1, signs=8000)
    assert drawn == pytest.approx(exact, abs=0.02)
    assert drawn != exact


def test_images_of_one_patient_turn_together() -> None:
    apart = np.full(20, 0.1)
    assert sign_flip_p(apart, np.arange(20) // 10, seed=1) == 0.5  # two patients: the least that there is
    assert sign_flip_p(apart, np.arange(20), seed=1) < 0.001


def test_a_true_null_is_rejected_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(8)
    clusters = np.arange(30) // 3
    found = [sign_flip_p(np.repeat(rng.normal(size=10), 3) + rng.normal(size=30), clusters, seed=1) for _ in range(400)]
    assert 0.025 < np.mean(np.array(found) <= 0.05) < 0.085


def test_a_difference_is_of_the_images_that_both_have() -> None:
    first, second = np.array([1.0, np.nan, 2.0, 0.0]), np.array([2.0, 5.0, np.nan, 2.0])
    found = difference_of(first, second, ["a", "b", "c", "d"], seed=1)
    assert (found.mean.interval.value, found.mean.n_images, found.p_value) == (1.5, 2, 0.5)
    none = difference_of(first, np.full(4, np.nan), ["a", "b", "c", "d"], seed=1)
    assert (none.mean.interval.value, none.p_value) == (None, None)


def test_adjusted_values_are_holms() -> None:
    assert adjusted([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjusted([0.6, 0.9]).tolist() == [1, 1]
    assert adjusted([]).tolist() == []

"""Intervals draw whole patients, and cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medtool.errors import InputError, UsageError
from medtool.statistics.bootstrap import clustered_intervals, clusters_of


def mean_of(values: np.ndarray):
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_without_patients_it_is_the_bootstrap_of_scipy() -> None:
    values = np.random.default_rng(1).normal(size=80)
    found = clustered_intervals(mean_of(values), clusters_of([""] * 80), seed=1, draws=4000)["mean"]
    peer = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(peer.low, abs=0.02)
    assert found.high == pytest.approx(peer.high, abs=0.02)


def test_images_that_repeat_their_patient_do_not_narrow_the_interval() -> None:
    patients = np.random.default_rng(2).normal(size=40)
    images = np.repeat(patients, 10)
    names = [f"P{index // 10}" for index in range(400)]
    by_patient = clustered_intervals(mean_of(images), clusters_of(names), seed=1)["mean"]
    by_image = clustered_intervals(mean_of(images), clusters_of([""] * 400), seed=1)["mean"]
    alone = clustered_intervals(mean_of(patients), clusters_of([""] * 40), seed=1)["mean"]
    width, naive, true = (each.high - each.low for each in (by_patient, by_image, alone))
    assert width == pytest.approx(true, rel=0.1)
    assert naive < 0.5 * width


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(150):
        effects = rng.normal(size=30)
        values = np.repeat(effects, 3) + rng.normal(size=90)
        names = [f"P{index // 3}" for index in range(90)]
        found = clustered_intervals(mean_of(values), clusters_of(names), seed=trial, draws=300)["mean"]
        hits += found.low <= 0 <= found.high
    assert 0.86 <= hits / 150 <= 0.99


def test_unknown_patients_stand_alone_and_known_ones_together() -> None:
    assert clusters_of(["a", "", "b", "a", " ", ""]).tolist() == [0, 1, 2, 0, 3, 4]


def test_a_score_that_is_undefined_in_many_draws_has_no_interval() -> None:
    truth = np.array([True] + [False] * 9)

    def recall(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"recall": np.where((weights @ truth) > 0, 1.0, np.nan), "n": weights.sum(axis=1)}

    found = clustered_intervals(recall, clusters_of([""] * 10), seed=1)
    assert found["recall"].value == 1.0
    assert found["recall"].low is None
    assert found["recall"].n_undefined > 500
    assert (found["n"].low, found["n"].high) == (10.0, 10.0)


def test_the_same_seed_gives_the_same_interval_and_bad_options_are_refused() -> None:
    values = np.arange(20.0)
    one, same, other = (
        clustered_intervals(mean_of(values), clusters_of([""] * 20), seed=seed, draws=200)["mean"] for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
    with pytest.raises(UsageError, match="99 draws"):
        clustered_intervals(mean_of(values), clusters_of([""] * 20), seed=1, draws=99)
    with pytest.raises(InputError, match="no image"):
        clustered_intervals(mean_of(values), clusters_of([]), seed=1)

"""Calibration agrees with scikit-learn and with sums done by hand, and keeps its promises."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from medtool.errors import InputError, UsageError
from medtool.runs.choices import Task
from medtool.runs.probabilities import probabilities_of
from medtool.train.calibration import (
    Calibration,
    CalibrationMethod,
    binned,
    calibration_report,
    cross_fitted,
    expected_calibration_error,
    fit,
)
from medtool.train.calibration_maps import MAX_TEMPERATURE, log_odds
from medtool.train.metrics import nll

METHODS = list(CalibrationMethod)


def sure_of_itself(n_classes: int, n: int = 600, *, by: float = 4.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are ``by`` times as large as they should be, and what was true."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(n, n_classes)) * 1.5
    p = probabilities_of(honest, Task.SINGLE)
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, n_classes - 1)
    labels[:n_classes] = np.arange(n_classes)
    return honest * by, np.eye(n_classes)[labels]


def sure_labels(n_labels: int = 2, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    honest = rng.normal(-0.5, 1.5, size=(n, n_labels))
    return 3 * honest + 1, (rng.random(honest.shape) < probabilities_of(honest, Task.MULTI)).astype(float)


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_temperature_is_the_one_with_the_least_log_loss(n_classes: int) -> None:
    logits, targets = sure_of_itself(n_classes)
    found = fit(CalibrationMethod.TEMPERATURE, logits, targets, task=Task.SINGLE).document()["temperature"]

    def loss(temperature: float) -> float:
        return float(log_loss(targets, probabilities_of(logits / temperature, Task.SINGLE)))

    best = minimize_scalar(loss, bounds=(0.1, 50), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(best.x, rel=1e-4)
    assert 3 < found < 5


def test_temperature_of_labels_is_the_one_with_the_least_log_loss() -> None:
    logits, targets = sure_labels()
    found = fit(CalibrationMethod.TEMPERATURE, logits, targets, task=Task.MULTI).document()["temperature"]
    best = minimize_scalar(
        lambda t: nll(probabilities_of(logits / t, Task.MULTI), targets, task=Task.MULTI),
        bounds=(0.1, 50),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found == pytest.approx(best.x, rel=1e-4)


@st.composite
def fitted_on(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Task]:
    task, n_classes = draw(st.sampled_from(Task)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(n_classes, 30))
    logits = rng.normal(size=(n, n_classes)) * 10 ** draw(st.floats(-6, 4))
    labels = np.append(np.arange(n_classes), rng.integers(n_classes, size=n - n_classes))
    if draw(st.booleans()):
        logits += np.eye(n_classes)[labels] * np.abs(logits).max() * draw(st.floats(-3, 3))
    return logits, np.eye(n_classes)[labels], task


@given(fitted_on())
def test_temperature_never_makes_the_likelihood_worse_on_what_it_was_fitted_on(
    drawn: tuple[np.ndarray, np.ndarray, Task],
) -> None:
    logits, targets, task = drawn
    fitted = fit(CalibrationMethod.TEMPERATURE, logits, targets, task=task)
    before, after = probabilities_of(logits, task), fitted.apply(logits)
    assert nll(after, targets, task=task) <= nll(before, targets, task=task) + 1e-12


@given(fitted_on())
def test_temperature_never_changes_what_is_most_probable_nor_the_side_of_a_half(
    drawn: tuple[np.ndarray, np.ndarray, Task],
) -> None:
    logits, targets, task = drawn
    after = fit(CalibrationMethod.TEMPERATURE, logits, targets, task=task).apply(logits)
    if task is Task.MULTI:
        np.testing.assert_array_equal(after >= 0.5, probabilities_of(logits, task) >= 0.5)
        return
    most = np.take_along_axis(after, logits.argmax(axis=1, keepdims=True), axis=1)[:, 0]
    np.testing.assert_array_equal(most, after.max(axis=1))


@given(fitted_on(), st.sampled_from(METHODS))
def test_what_comes_out_are_probabilities_also_of_logits_far_beyond_those_fitted_on(
    drawn: tuple[np.ndarray, np.ndarray, Task], method: CalibrationMethod
) -> None:
    logits, targets, task = drawn
    fitted = fit(method, logits, targets, task=task)
    for values in (logits, 1e6 * logits, np.zeros((1, logits.shape[1]))):
        p = fitted.apply(values)
        assert p.shape == values.shape
        assert ((p >= 0) & (p <= 1)).all()
        if task is Task.SINGLE:
            np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)


@given(fitted_on(), st.sampled_from(METHODS))
def test_a_calibration_comes_back_from_json_as_it_was(
    drawn: tuple[np.ndarray, np.ndarray, Task], method: CalibrationMethod
) -> None:
    logits, targets, task = drawn
    fitted = fit(method, logits, targets, task=task)
    again = Calibration.of(json.loads(json.dumps(fitted.document(), allow_nan=False)))
    assert again == fitted
    np.testing.assert_array_equal(again.apply(logits), fitted.apply(logits))


def test_classes_told_apart_without_error_keep_their_logits_and_useless_ones_are_flattened() -> None:
    targets = np.eye(2)[[0, 0, 1, 1]]
    for logits, limit in ((targets, 1.0), (1 - targets, MAX_TEMPERATURE)):
        found = fit(CalibrationMethod.TEMPERATURE, logits, targets, task=Task.SINGLE).document()["temperature"]
        assert found == pytest.approx(limit)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose decision is its only feature."""

    def fit(self, values: np.ndarray, truth: np.ndarray) -> Given:
        self.classes_ = np.array([0, 1])
        return self

    def decision_function(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0]

    def predict(self, values: np.ndarray) -> np.ndarray:
        return (values[:, 0] > 0).astype(int)


def test_platt_is_that_of_scikit_learn() -> None:
    logits, targets = sure_of_itself(2)
    odds, truth = logits[:, 1] - logits[:, 0], targets[:, 1]
    oracle = CalibratedClassifierCV(Given(), method="sigmoid", ensemble=False, cv=2)
    oracle.fit(odds[:, None], truth)
    p = fit(CalibrationMethod.PLATT, logits, targets, task=Task.SINGLE).apply(logits)
    np.testing.assert_allclose(p, oracle.predict_proba(odds[:, None]), atol=2e-5)


def test_platt_nears_a_logistic_regression_without_penalty_as_images_grow_in_number() -> None:
    logits, targets = sure_labels(2, 20_000)
    p = fit(CalibrationMethod.PLATT, logits, targets, task=Task.MULTI).apply(logits)
    for place in range(2):
        oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, [place]], targets[:, place])
        np.testing.assert_allclose(p[:, place], oracle.predict_proba(logits[:, [place]])[:, 1], atol=1e-3)


def test_isotonic_is_that_of_scikit_learn_short_of_certainty() -> None:
    logits, targets = sure_labels()
    least = 1 / (len(logits) + 2)
    fitted = fit(CalibrationMethod.ISOTONIC, logits, targets, task=Task.MULTI)
    for place in range(2):
        other = np.sort(np.concatenate([logits[:, place], [-40, 40]]))  # at what was seen, and beyond
        p = fitted.apply(np.stack([other, other], axis=1))
        oracle = IsotonicRegression(out_of_bounds="clip").fit(logits[:, place], targets[:, place])
        np.testing.assert_allclose(p[:, place], np.clip(oracle.predict(other), least, 1 - least), atol=1e-9)
        assert (np.diff(p[:, place]) >= 0).all()


@pytest.mark.parametrize("method", [CalibrationMethod.PLATT, CalibrationMethod.ISOTONIC])
def test_of_two_classes_each_is_calibrated_as_the_mirror_of_the_other(method: CalibrationMethod) -> None:
    logits, targets = sure_of_itself(2, 200)
    single = fit(method, logits, targets, task=Task.SINGLE).apply(logits)
    odds = log_odds(logits, Task.SINGLE)[:, 1:]
    label = fit(method, odds, targets[:, 1:], task=Task.MULTI).apply(odds)
    np.testing.assert_allclose(single[:, 1], label[:, 0], atol=1e-7)


@pytest.mark.parametrize("method", [CalibrationMethod.PLATT, CalibrationMethod.ISOTONIC])
def test_a_constant_logit_gives_the_share_of_the_label(method: CalibrationMethod) -> None:
    targets = (np.arange(1000) < 250).astype(float)[:, None]
    p = fit(method, np.full((1000, 1), 0.3), targets, task=Task.MULTI).apply(np.array([[0.3]]))
    assert p[0, 0] == pytest.approx(0.25, abs=2e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_every_method_mends_logits_that_are_too_sure(method: CalibrationMethod, n_classes: int) -> None:
    logits, targets = sure_of_itself(n_classes, 4000)
    fitted = fit(method, logits[:2000], targets[:2000], task=Task.SINGLE)
    rest, truth = logits[2000:], targets[2000:]
    report = calibration_report(
        probabilities_of(rest, Task.SINGLE), fitted.apply(rest), truth, task=Task.SINGLE, bins=10
    )
    assert report["n_images"] == 2000
    for name in ("ece", "adaptive_ece", "brier", "nll"):
        assert report["after"][name] < report["before"][name]
    assert report["before"]["ece"] > 0.1
    assert report["after"]["ece"] < 0.04


@pytest.mark.parametrize("method", METHODS)
def test_a_class_without_an_example_is_refused_with_its_name_and_the_counts(method: CalibrationMethod) -> None:
    logits, targets = sure_of_itself(3, 40)
    keep = targets[:, 2] == 0
    counts = targets[keep].sum(axis=0).astype(int)
    names = ("nevus", "melanoma", "keratosis")
    wanted = rf"'keratosis'.*no image of it.*nevus {counts[0]}, melanoma {counts[1]}, keratosis 0"
    with pytest.raises(InputError, match=wanted):
        fit(method, logits[keep], targets[keep], task=Task.SINGLE, classes=names)
    with pytest.raises(InputError, match="class '2'"):
        fit(method, logits[keep], targets[keep], task=Task.SINGLE)


def test_a_label_that_every_image_has_is_refused() -> None:
    with pytest.raises(InputError, match="no image without it among 2 images"):
        fit(CalibrationMethod.PLATT, np.zeros((2, 1)), np.ones((2, 1)), task=Task.MULTI)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        ([[0.0, np.inf], [1, 2]], [[1, 0], [0, 1]], "image 0"),
        ([[0.0, 1.0]], [[1, 0], [0, 1]], r"\(2, 2\)"),
        ([[0.0, 1], [1, 2]], [[0.5, 0.5], [0, 1]], "mixtures"),
        ([0.0, 1.0], [0, 1], r"\(2,\)"),
        ([[0.0], [1.0]], [[1], [1]], "single column"),
        (np.empty((0, 2)), np.empty((0, 2)), "among 0 images"),
    ],
)
def test_what_cannot_be_fitted_is_refused(logits: Any, targets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(CalibrationMethod.PLATT, np.array(logits), np.array(targets), task=Task.SINGLE)


def test_logits_of_another_number_of_classes_are_refused() -> None:
    fitted = fit(CalibrationMethod.TEMPERATURE, *sure_of_itself(3), task=Task.SINGLE)
    with pytest.raises(InputError, match="3 classes"):
        fitted.apply(np.zeros((4, 2)))


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_document_is_refused(method: CalibrationMethod) -> None:
    document = fit(method, *sure_of_itself(3, 60), task=Task.SINGLE).document()
    key = {"temperature": "temperature", "platt": "platt", "isotonic": "isotonic"}[method]
    for broken in ({key: None}, {key: []}, {key: "nan"}, {"method": "guess"}, {"n_classes": None}):
        with pytest.raises(InputError, match="damaged"):
            Calibration.of({**document, **broken})
    for other in ({"format": "medtool-lineage"}, {"version": 99}):
        with pytest.raises(InputError, match="version"):
            Calibration.of({**document, **other})


def test_the_error_of_two_classes_is_that_of_a_sum_by_hand() -> None:
    second = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9])
    p, targets = np.stack([1 - second, second], axis=1), np.eye(2)[[0, 0, 1, 1, 0, 1]]
    # Below 0.5: claimed 0.2, observed 1/3; above: claimed 2.2/3, observed 2/3.
    expected = (3 * (1 / 3 - 0.2) + 3 * (2.2 / 3 - 2 / 3)) / 6
    found = expected_calibration_error(p, targets, task=Task.SINGLE, bins=2)
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_error_of_several_classes_is_that_of_the_most_probable_by_hand() -> None:
    p = np.array([[0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.9, 0.1, 0.0]])
    targets = np.eye(3)[[0, 1, 0, 0]]
    # Up to 0.5: 0.4 claimed, right; above: 2.3/3 claimed, 2 of 3 right.
    expected = (1 * (1 - 0.4) + 3 * abs(2.3 / 3 - 2 / 3)) / 4
    found = expected_calibration_error(p, targets, task=Task.SINGLE, bins=2)
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_error_of_labels_is_the_mean_over_labels_by_hand() -> None:
    p, targets = np.array([[0.2, 1.0], [0.4, 0.5]]), np.array([[0, 1], [1, 1]])
    # First: 0.3 claimed, 0.5 observed. Second: 0.5 (lower bin) and 1 claimed, both came true.
    found = expected_calibration_error(p, targets, task=Task.MULTI, bins=2)
    assert found == pytest.approx((0.2 + (0.5 + 0) / 2) / 2, abs=1e-12)


def test_bins_of_equal_mass_tell_apart_what_bins_of_equal_width_put_together() -> None:
    p, targets = np.array([[0.9], [0.92], [0.96], [0.98]]), np.array([[0], [1], [1], [1]])
    # One wide bin: 0.94 claimed, 0.75 observed. Halves: 0.91 and 0.5; 0.97 and 1.
    assert expected_calibration_error(p, targets, task=Task.MULTI, bins=2) == pytest.approx(0.19)
    halves = expected_calibration_error(p, targets, task=Task.MULTI, bins=2, adaptive=True)
    assert halves == pytest.approx((0.41 + 0.03) / 2)


@given(st.lists(st.sampled_from([0.0, 0.2, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=30), st.integers(1, 20))
def test_bins_hold_every_claim_once_within_their_ends_whatever_the_order(values: list[float], bins: int) -> None:
    confidence = np.array(values)
    truth = confidence > 0.3
    for adaptive in (False, True):
        found = binned(confidence, truth, bins=bins, adaptive=adaptive)
        assert found.counts.sum() == len(values)
        assert len(found.counts) <= bins
        assert (found.counts > 0).all()
        assert ((found.low <= found.confidence + 1e-12) & (found.confidence <= found.high + 1e-12)).all()
        turned = binned(confidence[::-1], truth[::-1], bins=bins, adaptive=adaptive)
        assert turned.error == pytest.approx(found.error, abs=1e-12)


def test_different_confidences_fill_bins_of_equal_mass_equally() -> None:
    found = binned(np.random.default_rng(0).random(100), np.ones(100, dtype=bool), bins=15, adaptive=True)
    assert len(found.counts) == 15
    assert set(found.counts.tolist()) <= {6, 7}


def test_errors_need_an_image_and_a_bin() -> None:
    with pytest.raises(InputError, match="no image"):
        expected_calibration_error(np.empty((0, 2)), np.empty((0, 2)), task=Task.SINGLE)
    with pytest.raises(UsageError, match="bins is 0"):
        expected_calibration_error(np.array([[0.5]]), np.array([[1]]), task=Task.MULTI, bins=0)


def test_crossed_fits_are_made_without_the_images_of_the_same_patient() -> None:
    logits, targets = sure_of_itself(2, 300)
    patients = [f"p{place // 3}" for place in range(300)]
    method = CalibrationMethod.ISOTONIC
    p = cross_fitted(method, logits, targets, task=Task.SINGLE, groups=patients)
    again = cross_fitted(method, logits, targets, task=Task.SINGLE, groups=patients)
    np.testing.assert_array_equal(p, again)
    turned = targets.copy()
    turned[:3] = 1 - turned[:3]
    alone = fit(method, logits[3:], targets[3:], task=Task.SINGLE).apply(logits[:3])
    whole = cross_fitted(method, logits, turned, task=Task.SINGLE, groups=[*["x"] * 3, *["y"] * 297], folds=2)
    np.testing.assert_array_equal(whole[:3], alone)


def test_crossed_errors_are_no_flattery() -> None:
    logits, targets = sure_of_itself(2, 200, seed=5)
    method, groups = CalibrationMethod.ISOTONIC, list(range(200))
    inside = fit(method, logits, targets, task=Task.SINGLE).apply(logits)
    crossed = cross_fitted(method, logits, targets, task=Task.SINGLE, groups=groups)
    errors = [expected_calibration_error(p, targets, task=Task.SINGLE, adaptive=True) for p in (inside, crossed)]
    assert errors[0] < 0.03 < errors[1]


def test_too_few_groups_for_crossed_fits_are_refused() -> None:
    logits, targets = sure_of_itself(2, 30)
    method = CalibrationMethod.PLATT
    with pytest.raises(InputError, match="3 groups do not fill 5 folds"):
        cross_fitted(method, logits, targets, task=Task.SINGLE, groups=[place % 3 for place in range(30)])
    with pytest.raises(InputError, match="29 groups for 30 images"):
        cross_fitted(method, logits, targets, task=Task.SINGLE, groups=range(29))
    with pytest.raises(UsageError, match="folds is 1"):
        cross_fitted(method, logits, targets, task=Task.SINGLE, groups=range(30), folds=1)
    rare = np.eye(2)[(np.arange(30) == 4).astype(int)]
    with pytest.raises(InputError, match="'yes' cannot be calibrated"):
        cross_fitted(method, logits, rare, task=Task.SINGLE, groups=range(30), classes=("no", "yes"))

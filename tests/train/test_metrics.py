"""Scores are those of scikit-learn, and None where they are undefined."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from medtool.errors import InputError, UnknownNameError, UsageError
from medtool.runs.choices import Task
from medtool.train.metrics import METRICS, area_under_curve, brier, decided, is_better, is_higher_better, nll, score

CLASSES = ("nevus", "melanoma", "keratosis")


def answers(n_classes: int, n: int = 400, seed: int = 0, *, grid: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)])
    logits = rng.normal(size=(n, n_classes)) + 1.2 * np.eye(n_classes)[labels]
    logits = np.round(logits * grid) / grid if grid else logits
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), np.eye(n_classes)[labels]


def labels_of(n_labels: int, n: int = 300, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.random((n, n_labels)) < 0.3
    return np.clip(rng.normal(0.35 + 0.3 * targets, 0.2), 0, 1), targets.astype(np.float32)


@pytest.mark.parametrize("grid", [0, 1])  # 1: many ties
def test_scores_of_several_classes_are_those_of_scikit_learn(grid: int) -> None:
    p, targets = answers(3, grid=grid)
    truth, said = targets.argmax(axis=1), p.argmax(axis=1)
    found = score(p, targets, task=Task.SINGLE, classes=CLASSES)
    areas = [sklearn_metrics.roc_auc_score(targets[:, place], p[:, place]) for place in range(3)]
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(truth, said),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(truth, said),
        "auc": sklearn_metrics.roc_auc_score(truth, p, multi_class="ovr", average="macro"),
        "f1": sklearn_metrics.f1_score(truth, said, average="macro"),
        "nll": sklearn_metrics.log_loss(truth, p),
        "brier": sklearn_metrics.brier_score_loss(truth, p),
    }
    for metric, values in {
        "recall": sklearn_metrics.recall_score(truth, said, average=None),
        "specificity": [sklearn_metrics.recall_score(truth != place, said != place) for place in range(3)],
        "precision": sklearn_metrics.precision_score(truth, said, average=None),
        "f1": sklearn_metrics.f1_score(truth, said, average=None),
        "auc": areas,
    }.items():
        expected |= {f"{metric}/{name}": value for name, value in zip(CLASSES, values, strict=True)}
    assert found == pytest.approx(expected, abs=1e-12)


def test_scores_of_two_classes_are_those_of_the_second() -> None:
    p, targets = answers(2)
    found = score(p, targets, task=Task.SINGLE, classes=("benign", "malignant"))
    area = sklearn_metrics.roc_auc_score(targets[:, 1], p[:, 1])
    assert found["auc"] == found["auc/benign"] == found["auc/malignant"] == pytest.approx(area, abs=1e-12)
    assert found["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(targets[:, 1], p[:, 1]), abs=1e-12)


def test_the_second_class_is_ranked_by_its_own_column_where_the_first_is_rounded_to_one() -> None:
    small = np.array([1e-30, 1e-25, 1e-20, 1e-18])
    targets = np.eye(2)[[0, 0, 1, 1]]
    found = score(np.stack([1 - small, small], axis=1), targets, task=Task.SINGLE, classes=("no", "yes"))
    assert found["auc"] == found["auc/no"] == 1.0


def test_scores_of_labels_are_those_of_scikit_learn() -> None:
    p, targets = labels_of(3)
    said = p >= 0.5
    found = score(p, targets, task=Task.MULTI, classes=CLASSES)
    balanced = [sklearn_metrics.balanced_accuracy_score(targets[:, k], said[:, k]) for k in range(3)]
    assert found["accuracy"] == pytest.approx(1 - sklearn_metrics.hamming_loss(targets, said))
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    assert found["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(targets, p, average="macro"))
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(targets, said, average="macro"))
    losses = [sklearn_metrics.log_loss(targets[:, k], p[:, k]) for k in range(3)]
    assert found["nll"] == pytest.approx(np.mean(losses))
    squares = [sklearn_metrics.brier_score_loss(targets[:, k], p[:, k]) for k in range(3)]
    assert found["brier"] == pytest.approx(np.mean(squares))


@given(
    hnp.arrays(np.float64, st.integers(2, 40), elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])),
    st.randoms(use_true_random=False),
)
def test_the_area_is_that_of_scikit_learn_whatever_the_ties(scores: np.ndarray, random: Any) -> None:
    truths = np.array([True, False, *(random.random() < 0.5 for _ in scores[2:])])
    area = area_under_curve(scores, truths)
    assert area == pytest.approx(sklearn_metrics.roc_auc_score(truths, scores), abs=1e-12)
    turned = area_under_curve(1 - scores, truths)
    assert area is not None
    assert turned == pytest.approx(1 - area, abs=1e-12)


def test_one_score_for_all_is_chance() -> None:
    assert area_under_curve(np.full(10, 0.7), np.arange(10) < 3) == 0.5


def test_what_an_absent_class_leaves_undefined_is_none_and_the_rest_is_there() -> None:
    p, targets = answers(3)
    keep = targets[:, 2] == 0
    found = score(p[keep], targets[keep], task=Task.SINGLE, classes=CLASSES)
    undefined = {name for name, value in found.items() if value is None}
    of_class = {f"{name}/keratosis" for name in ("recall", "precision", "f1", "auc")}
    assert undefined == {"balanced_accuracy", "auc", "f1"} | of_class
    assert all(np.isfinite(value) for value in found.values() if value is not None)


def test_a_single_class_has_no_area_and_no_specificity() -> None:
    p, targets = answers(2)
    keep = targets[:, 1] == 1
    found = score(p[keep], targets[keep], task=Task.SINGLE, classes=("no", "yes"))
    assert found["auc"] is found["auc/yes"] is found["specificity/yes"] is found["recall/no"] is None
    assert found["recall/yes"] == found["accuracy"]


def test_a_class_that_was_never_given_has_no_precision_and_an_f1_of_zero() -> None:
    p = np.tile([0.6, 0.4], (6, 1))
    found = score(p, np.eye(2)[[0, 0, 0, 1, 1, 1]], task=Task.SINGLE, classes=("no", "yes"))
    assert found["precision/yes"] is None
    assert found["f1/yes"] == 0
    assert found["recall/no"] == 1


@pytest.mark.parametrize("task", Task)
def test_without_an_image_every_score_is_undefined(task: Task) -> None:
    found = score(np.empty((0, 3)), np.empty((0, 3)), task=task, classes=CLASSES)
    assert set(found.values()) == {None}
    with pytest.raises(InputError, match="no image"):
        brier(np.empty((0, 3)), np.empty((0, 3)), task=task)


def test_all_promised_scores_are_there_in_every_case() -> None:
    names = {name for name in METRICS if name != "loss"}
    p, targets = labels_of(1)
    found = score(p, targets, task=Task.MULTI, classes=("effusion",))
    assert names < set(found)
    for name in found:
        assert is_higher_better(name) is (name not in ("nll", "brier"))


def test_equal_probabilities_give_the_first_class() -> None:
    assert decided(np.full((1, 3), 1 / 3), Task.SINGLE).tolist() == [[True, False, False]]
    assert decided(np.array([[0.5, 0.4999]]), Task.MULTI).tolist() == [[True, False]]


def test_a_probability_of_zero_for_what_happened_costs_much_but_not_everything() -> None:
    assert nll(np.array([[1.0, 0.0]]), np.array([[0, 1]]), task=Task.SINGLE) == pytest.approx(36.04, abs=0.01)


@pytest.mark.parametrize(
    ("p", "targets", "task", "message"),
    [
        ([[0.5, np.nan]], [[0, 1]], Task.SINGLE, "image 0"),
        ([[0.5, 0.5], [1.2, -0.2]], [[0, 1], [1, 0]], Task.SINGLE, "image 1"),
        ([[0.5, 0.5]], [[0.3, 0.7]], Task.SINGLE, "neither 0 nor 1"),
        ([[0.5, 0.5]], [[np.nan, 1]], Task.MULTI, "neither 0 nor 1"),
        ([[0.5, 0.5]], [[1, 1]], Task.SINGLE, "image 0 has 2 classes"),
        ([[0.5, 0.5]], [[0, 0]], Task.SINGLE, "image 0 has 0 classes"),
        ([[0.5, 0.5]], [[0, 1], [1, 0]], Task.SINGLE, r"\(2, 2\)"),
        ([0.5, 0.5], [0, 1], Task.MULTI, r"\(2,\)"),
        ([[0.5]], [[1]], Task.MULTI, r"\(1, 1\).*\(n, 2\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(p: Any, targets: Any, task: Task, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(np.array(p), np.array(targets), task=task, classes=("no", "yes"))


def test_better_is_lower_for_losses_and_higher_for_the_rest_by_more_than_the_least_gain() -> None:
    assert is_better("auc", 0.8, 0.7)
    assert not is_better("auc", 0.7, 0.8)
    assert is_better("loss", 0.7, 0.8)
    assert not is_better("loss", 0.8, 0.7)
    assert not is_better("auc", 0.75, 0.5, 0.25)
    assert not is_better("nll", 0.5, 0.75, 0.25)
    assert is_better("nll", 0.25, 0.75, 0.25)
    assert not is_better("recall/melanoma", 0.5, 0.5)
    assert is_better("recall/a/b", 0.6, 0.5)


def test_an_undefined_score_is_never_better_and_any_other_is_better_than_it() -> None:
    assert not is_better("auc", None, 0.5)
    assert not is_better("auc", None, None)
    assert not is_better("loss", float("nan"), 0.5)
    assert is_better("auc", 0.1, None)
    assert is_better("loss", 9.0, float("nan"))


@pytest.mark.parametrize("name", ["acu", "melanoma", "loss/melanoma", "balanced_accuracy/melanoma", ""])
def test_an_unknown_score_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError):
        is_better(name, 1.0, 0.0)


def test_a_negative_least_gain_is_refused() -> None:
    for value in (-0.1, float("nan")):
        with pytest.raises(UsageError, match="min_delta"):
            is_better("auc", 1.0, 0.0, value)


def test_a_hundred_thousand_images_are_scored_at_once() -> None:
    p, targets = answers(7, 100_000)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        score(p, targets, task=Task.SINGLE, classes=tuple("abcdefg"))
        times.append(time.perf_counter() - start)
    assert min(times) < 2  # about 0.1 s; a loop over images or pairs would take minutes

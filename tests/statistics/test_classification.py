"""Weighted scores are those of scikit-learn, and of images that are there several times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as peer

from medtool.runs.choices import Task
from medtool.statistics.classification import WeightedScores
from medtool.train.metrics import decided, score


def drawn(n_classes: int, task: Task, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities with ties, truths and weights of 40 images; every class is there and absent."""
    rng = np.random.default_rng(seed)
    p = np.round(rng.random((40, n_classes)), 1)
    if task is Task.SINGLE:
        p = (p + 0.01) / (p + 0.01).sum(axis=1, keepdims=True)
        truth = np.eye(n_classes, dtype=bool)[
            np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 40)])[:40]
        ]
    else:
        truth = rng.random((40, n_classes)) < 0.4
        truth[0], truth[1] = True, False
    return p, truth, rng.integers(0, 4, (5, 40)).astype(float)


@given(st.integers(0, 500), st.sampled_from([(2, Task.SINGLE), (4, Task.SINGLE), (1, Task.MULTI), (3, Task.MULTI)]))
def test_a_weight_is_how_often_an_image_is_there(seed: int, kind: tuple[int, Task]) -> None:
    n_classes, task = kind
    p, truth, weights = drawn(n_classes, task, seed)
    found = WeightedScores(p, decided(p, task), truth, is_exclusive=task is Task.SINGLE)(weights)
    for row, counts in enumerate(weights.astype(int)):
        places = np.repeat(np.arange(40), counts)
        expected = score(p[places], truth[places], task=task, classes=[str(c) for c in range(n_classes)])
        for name, values in found.items():
            assert values[row] == pytest.approx(np.nan if expected[name] is None else expected[name], nan_ok=True), name


def test_they_are_those_of_scikit_learn() -> None:
    p, truth, weights = drawn(4, Task.SINGLE, 1)
    found = WeightedScores(p, decided(p, Task.SINGLE), truth, is_exclusive=True)(weights)
    t, g = truth.argmax(axis=1), p.argmax(axis=1)
    for row, w in enumerate(weights):
        assert found["accuracy"][row] == pytest.approx(peer.accuracy_score(t, g, sample_weight=w))
        assert found["balanced_accuracy"][row] == pytest.approx(peer.balanced_accuracy_score(t, g, sample_weight=w))
        assert found["f1"][row] == pytest.approx(peer.f1_score(t, g, average="macro", sample_weight=w))
        each = [peer.roc_auc_score(truth[:, c], p[:, c], sample_weight=w) for c in range(4)]
        assert found["auc"][row] == pytest.approx(np.mean(each))

"""Scores and calibration errors are those of torchmetrics."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from medtool.runs.choices import Task
from medtool.train.calibration import expected_calibration_error
from medtool.train.metrics import score

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    from torchmetrics.functional import classification as peer


def drawn(n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of 300 images, some of them tied, and their classes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(n_classes, 300, p=np.linspace(1, 2, n_classes) / np.linspace(1, 2, n_classes).sum())
    logits = np.round(rng.normal(size=(300, n_classes)) + 1.2 * np.eye(n_classes)[truth], 1)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return p, truth


@pytest.mark.parametrize("n_classes", [3, 7])
def test_scores_of_several_classes(n_classes: int) -> None:
    p, truth = drawn(n_classes, seed=n_classes)
    found = score(p, np.eye(n_classes)[truth], task=Task.SINGLE, classes=[str(c) for c in range(n_classes)])
    q, t = torch.from_numpy(p), torch.from_numpy(truth)
    given: dict[str, Any] = {"num_classes": n_classes, "average": "macro"}
    assert found["accuracy"] == pytest.approx(float(peer.multiclass_accuracy(q, t, n_classes, average="micro")))
    assert found["balanced_accuracy"] == pytest.approx(float(peer.multiclass_recall(q, t, **given)))
    assert found["f1"] == pytest.approx(float(peer.multiclass_f1_score(q, t, **given)))
    assert found["auc"] == pytest.approx(float(peer.multiclass_auroc(q, t, **given)))
    each = peer.multiclass_specificity(q, t, n_classes, average="none")
    for place in range(n_classes):
        assert found[f"specificity/{place}"] == pytest.approx(float(each[place]))


def test_scores_of_two_classes() -> None:
    p, truth = drawn(2, seed=2)
    found = score(p, np.eye(2)[truth], task=Task.SINGLE, classes=["no", "yes"])
    q, t = torch.from_numpy(p[:, 1]), torch.from_numpy(truth)
    assert found["auc"] == pytest.approx(float(peer.binary_auroc(q, t)))
    assert found["recall/yes"] == pytest.approx(float(peer.binary_recall(q, t)))
    assert found["precision/yes"] == pytest.approx(float(peer.binary_precision(q, t)))
    assert found["f1/yes"] == pytest.approx(float(peer.binary_f1_score(q, t)))


def test_scores_of_labels() -> None:
    rng = np.random.default_rng(5)
    truth = (rng.random((300, 4)) < [0.1, 0.3, 0.5, 0.8]).astype(int)
    p = 1 / (1 + np.exp(-(rng.normal(size=(300, 4)) + truth)))
    found = score(p, truth, task=Task.MULTI, classes=list("abcd"))
    q, t = torch.from_numpy(p), torch.from_numpy(truth)
    assert found["auc"] == pytest.approx(float(peer.multilabel_auroc(q, t, 4, average="macro")))
    assert found["f1"] == pytest.approx(float(peer.multilabel_f1_score(q, t, 4, average="macro")))
    assert found["accuracy"] == pytest.approx(float(peer.multilabel_accuracy(q, t, 4, average="micro")))


@pytest.mark.parametrize("n_classes", [3, 7])
def test_the_calibration_error_of_several_classes(n_classes: int) -> None:
    p, truth = drawn(n_classes, seed=10 + n_classes)
    theirs = float(
        peer.multiclass_calibration_error(torch.from_numpy(p), torch.from_numpy(truth), n_classes, n_bins=15)
    )
    ours = expected_calibration_error(p, np.eye(n_classes)[truth], task=Task.SINGLE)
    assert ours == pytest.approx(theirs, abs=1e-5)  # theirs is in single precision

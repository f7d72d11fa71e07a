"""Scores of probabilities against what was true; a score that is undefined is None, never a number made up.

Two classes are a binary task: its area under the curve is that of the second class. Everything takes arrays of shape
``(n, classes)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.errors import InputError, UnknownNameError, UsageError
from medtool.runs.choices import Task

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

METRICS: Mapping[str, bool] = {  # whether higher is better
    "accuracy": True,
    "balanced_accuracy": True,
    "auc": True,
    "f1": True,
    "nll": False,
    "brier": False,
    "loss": False,
}
CLASS_METRICS = ("recall", "specificity", "precision", "f1", "auc")  # higher is better; named such as recall/melanoma


def score(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[Any],
    *,
    task: Task,
    classes: Sequence[str],
) -> dict[str, float | None]:
    """Return every score by name: those of :data:`METRICS` but for the loss, and :data:`CLASS_METRICS` of each class.

    One class of several is decided by the highest probability (the first, of equal ones), a label of its own from a
    probability of 0.5 on.

    - ``accuracy``: share of images with the right class; of labels, share of right decisions over images and labels.
    - ``balanced_accuracy``: mean recall of the classes; of labels, mean over labels of (recall + specificity) / 2.
    - ``auc``: mean over classes of each against the rest; of two classes, that of the second.
    - ``f1``: mean over classes.
    - ``nll``: mean negative log-likelihood in nats; of labels, over images and labels.
    - ``brier``: see :func:`brier`.

    Returns
    -------
    scores
        None where a score is undefined: all where there is no image; those of a class without an example (its AUC also
        without a counterexample), and every mean that such a class is part of; precision where the class was never
        given. A class with examples that was never given has an F1 of 0.

    Raises
    ------
    InputError
        See :func:`paired`.
    """
    p, truth = paired(probabilities, targets, task=task, n_classes=len(classes))
    given = decided(p, task)
    found: dict[str, float | None] = {
        "accuracy": _accuracy(given, truth, task),
        "balanced_accuracy": None,
        "auc": None,
        "f1": None,
        "nll": nll(p, truth, task=task) if len(p) else None,
        "brier": brier(p, truth, task=task) if len(p) else None,
    }
    by_class: dict[str, list[float | None]] = {name: [] for name in CLASS_METRICS}
    for place, name in enumerate(classes):
        for metric, value in _of_class(p, given, truth, place, task=task).items():
            by_class[metric].append(value)
            found[f"{metric}/{name}"] = value
    found["auc"] = _mean(by_class["auc"])
    found["f1"] = _mean(by_class["f1"])
    parts = by_class["recall"] if task is Task.SINGLE else by_class["recall"] + by_class["specificity"]
    found["balanced_accuracy"] = _mean(parts)
    return found


def is_better(name: str, new: float | None, old: float | None, min_delta: float = 0.0) -> bool:
    """Return whether a score improved on an earlier one by more than ``min_delta``.

    An undefined score is never better, and any defined one is better than an undefined one.

    Raises
    ------
    UsageError
        If no score is called so, or ``min_delta`` is negative.
    """
    if not min_delta >= 0:
        raise UsageError(f"min_delta is {min_delta:g}; it must be 0 or more")
    higher = is_higher_better(name)
    if new is None or math.isnan(new):
        return False
    if old is None or math.isnan(old):
        return True
    return new > old + min_delta if higher else new < old - min_delta


def is_higher_better(name: str) -> bool:
    """Return whether a score is better the higher it is; a class's, such as ``recall/melanoma``, always is.

    Raises
    ------
    UnknownNameError
        If no score is called so.
    """
    metric, of_class, _ = name.partition("/")
    if of_class and metric in CLASS_METRICS:
        return True
    if not of_class and metric in METRICS:
        return METRICS[metric]
    known = [*METRICS, *(f"{each}/CLASS" for each in CLASS_METRICS)]
    raise UnknownNameError("metric", name, known=known, hint=f"one of {', '.join(known)}")


def area_under_curve(scores: npt.NDArray[np.floating[Any]], truths: Bools) -> float | None:
    """Return the area under the ROC curve: how often a positive scores above a negative, a tie counting as a half.

    Counted exactly from ranks, in time n log n; None where there is no positive or no negative.

    Parameters
    ----------
    scores, truths
        Shape ``(n,)``.

    References
    ----------
    Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 143 (1982).
    """
    positives, negatives = scores[truths], np.sort(scores[~truths])
    if not len(positives) or not len(negatives):
        return None
    positives = np.sort(positives)  # neighbours are searched for near one another, which the cache likes
    below = np.searchsorted(negatives, positives, side="left").sum()
    up_to = np.searchsorted(negatives, positives, side="right").sum()
    return float((below + up_to) / (2 * len(positives) * len(negatives)))


def nll(probabilities: Floats, targets: npt.NDArray[Any], *, task: Task) -> float:
    """Return the mean negative log-likelihood in nats; a probability counts as 2.2e-16 at the least, so it is finite.

    Of labels, the mean over images and labels of the binary one.
    """
    p, truth = paired(probabilities, targets, task=task)
    _need_rows(p)
    of_truth = p[truth] if task is Task.SINGLE else np.where(truth, p, 1 - p)
    return float(-np.log(np.maximum(of_truth, np.finfo(np.float64).eps)).mean())


def brier(probabilities: Floats, targets: npt.NDArray[Any], *, task: Task) -> float:
    """Return the mean squared distance between probabilities and what was true; 0 is perfect.

    Of three classes and more it is the sum over classes, 0 to 2, as Brier defined it; of two classes half of that,
    which is the usual ``(p - y)²`` of the second, 0 to 1; of labels the mean of ``(p - y)²`` over images and labels.

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950).
    """
    p, truth = paired(probabilities, targets, task=task)
    _need_rows(p)
    squares = (p - truth) ** 2
    if task is Task.MULTI:
        return float(squares.mean())
    return float(squares.sum(axis=1).mean() / (2 if p.shape[1] == 2 else 1))


def decided(probabilities: Floats, task: Task) -> Bools:
    """Return what the probabilities say: the most probable class, or each label from 0.5 on; shape ``(n, classes)``."""
    if task is Task.MULTI:
        return np.asarray(probabilities >= 0.5)
    given = np.zeros(probabilities.shape, dtype=np.bool_)
    if len(probabilities):
        given[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
    return given


def paired(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[Any],
    *,
    task: Task,
    n_classes: int | None = None,
) -> tuple[Floats, Bools]:
    """Return the probabilities in double precision and the targets as true or false, checked.

    Raises
    ------
    InputError
        If the shapes are not both ``(n, classes)``, a probability is not in 0 to 1, a target is neither 0 nor 1, or an
        image of a task with one class of several has none or two.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    wanted = f"(n, {n_classes})" if n_classes is not None else "(n, classes)"
    if p.ndim != 2 or not p.shape[1] or (n_classes is not None and p.shape[1] != n_classes):
        raise InputError(f"probabilities have shape {p.shape}; it must be {wanted}")
    if task is Task.SINGLE and p.shape[1] < 2:
        raise InputError("one class of several was asked for, but the probabilities have a single column")
    wrong = ~((p >= 0) & (p <= 1)).all(axis=1)  # true of nan too
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"the probabilities of image {row} are {p[row].tolist()}; each must lie from 0 to 1")
    return p, true_or_false(targets, p.shape, task=task)


def true_or_false(targets: npt.NDArray[Any], shape: tuple[int, ...], *, task: Task) -> Bools:
    """Return targets of 0 and 1 as false and true, checked as :func:`paired` says."""
    values = np.asarray(targets)
    if values.shape != shape:
        raise InputError(f"targets have shape {values.shape}; it must be {shape}, that of what was predicted")
    truth = values == 1
    if not (truth | (values == 0)).all():
        raise InputError("a target is neither 0 nor 1; scores need what was true, not mixtures")
    if task is Task.SINGLE and len(truth) and (truth.sum(axis=1) != 1).any():
        row = int((truth.sum(axis=1) != 1).argmax())
        raise InputError(f"image {row} has {int(truth[row].sum())} classes; it must have exactly one")
    return np.asarray(truth)


def _of_class(p: Floats, given: Bools, truth: Bools, place: int, *, task: Task) -> dict[str, float | None]:
    said, is_so = given[:, place], truth[:, place]
    n_positive = int(is_so.sum())
    n_negative, n_said = len(is_so) - n_positive, int(said.sum())
    hits = int((said & is_so).sum())
    if task is Task.SINGLE and p.shape[1] == 2:
        # Both classes have one curve. That of the second is counted, as 1 - p may round different values to one.
        area = area_under_curve(p[:, 1], truth[:, 1])
    else:
        area = area_under_curve(p[:, place], is_so)
    return {
        "recall": hits / n_positive if n_positive else None,
        "specificity": (n_negative - (n_said - hits)) / n_negative if n_negative else None,
        "precision": hits / n_said if n_said and n_positive else None,
        "f1": 2 * hits / (n_said + n_positive) if n_positive else None,
        "auc": area,
    }


def _accuracy(given: Bools, truth: Bools, task: Task) -> float | None:
    if not len(given):
        return None
    return float((given == truth).all(axis=1).mean() if task is Task.SINGLE else (given == truth).mean())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _need_rows(p: Floats) -> None:
    if not len(p):
        raise InputError("there is no image to score; at least one is needed")

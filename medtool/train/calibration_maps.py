"""The maps from logits to calibrated probabilities, and how each is fitted.

Platt and isotonic take each class against the rest: the log-odds of a class, from the uncalibrated probabilities,
become its calibrated probability, and those of one class of several are then divided by their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from medtool.runs.choices import Task
from medtool.runs.probabilities import probabilities_of
from medtool.train.metrics import Bools, Floats

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
_NEWTON_STEPS, _HALVINGS = 100, 40


class Map(Protocol):
    """Logits ``(n, classes)`` to probabilities of the same shape."""

    @classmethod
    def fit(cls, logits: Floats, truth: Bools, task: Task) -> Self:
        """Fit to what was true; every class has an example and a counterexample."""
        ...

    @classmethod
    def of(cls, document: Mapping[str, Any], n_classes: int) -> Self:
        """Return what :meth:`document` gave; ``KeyError``, ``TypeError`` or ``ValueError`` where that is damaged."""
        ...

    def apply(self, logits: Floats, task: Task) -> Floats:
        """Return probabilities."""
        ...

    def document(self) -> dict[str, Any]:
        """Return the fitted numbers, ready for JSON."""
        ...


@dataclass(frozen=True, slots=True)
class Temperature:
    """Logits are divided by one number before softmax or sigmoids.

    The number with the least negative log-likelihood, from 0.01 to 100; at 100 the logits told nothing. Data that are
    told apart without any error have no such number, as ever smaller ones fit ever better and would make certainties of
    the next data: it is 1 then. 1 is among the choices, so the likelihood on these data is never lower than before.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML (2017).
    """

    value: float

    @classmethod
    def fit(cls, logits: Floats, truth: Bools, task: Task) -> Temperature:
        """Find where the likelihood's slope in 1 / temperature, in which its logarithm is concave, crosses zero."""
        from scipy.optimize import brentq

        def slope(inverse: float) -> float:
            return float(((probabilities_of(logits * inverse, task) - truth) * logits).sum(axis=1).mean())

        low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
        if slope(low) >= 0:
            inverse = low
        elif slope(high) <= 0:
            inverse = 1.0
        else:
            inverse = float(brentq(slope, low, high, xtol=1e-12, rtol=1e-12))
        # Rounding alone could make a loss out of no gain.
        gained = likelihood_loss(logits * inverse, truth, task) < likelihood_loss(logits, truth, task)
        return cls(1 / inverse if gained else 1.0)

    @classmethod
    def of(cls, document: Mapping[str, Any], n_classes: int) -> Temperature:
        """Return what the document holds."""
        value = float(document["temperature"])
        if not 0 < value < np.inf:
            raise ValueError(f"a temperature is {value}")
        return cls(value)

    def apply(self, logits: Floats, task: Task) -> Floats:
        """Return probabilities."""
        return probabilities_of(logits / self.value, task)

    def document(self) -> dict[str, Any]:
        """Return the temperature."""
        return {"temperature": self.value}


@dataclass(frozen=True, slots=True)
class Platt:
    """The log-odds of each class are scaled and shifted: a logistic regression of one variable.

    Its targets are Platt's, drawn in from 0 and 1 by one made-up image of either kind, so that it is finite for classes
    that are told apart without error. A slope below zero says that the class was ranked upside down.

    References
    ----------
    Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods" (1999).
    Lin, Lin and Weng, "A note on Platt's probabilistic outputs for support vector machines", Machine Learning 68
    (2007), on how it is solved.
    """

    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]

    @classmethod
    def fit(cls, logits: Floats, truth: Bools, task: Task) -> Platt:
        """Fit one regression a class."""
        odds = log_odds(logits, task)
        lines = [_fitted_line(odds[:, place], truth[:, place]) for place in range(odds.shape[1])]
        return cls(tuple(slope for slope, _ in lines), tuple(intercept for _, intercept in lines))

    @classmethod
    def of(cls, document: Mapping[str, Any], n_classes: int) -> Platt:
        """Return what the document holds."""
        lines = document["platt"]
        slopes, intercepts = (tuple(_numbers([line[key] for line in lines])) for key in ("slope", "intercept"))
        if len(lines) != n_classes:
            raise ValueError(f"{len(lines)} lines for {n_classes} classes")
        return cls(slopes, intercepts)

    def apply(self, logits: Floats, task: Task) -> Floats:
        """Return probabilities."""
        lines = log_odds(logits, task) * np.array(self.slopes) + np.array(self.intercepts)
        return _summing_to_one(probabilities_of(lines, Task.MULTI), task)

    def document(self) -> dict[str, Any]:
        """Return slope and intercept of each class."""
        lines = zip(self.slopes, self.intercepts, strict=True)
        return {"platt": [{"slope": slope, "intercept": intercept} for slope, intercept in lines]}


@dataclass(frozen=True, slots=True)
class Isotonic:
    """The log-odds of each class become probabilities by the best curve that never falls.

    Between its points the curve is a line, beyond them it is level. No probability is below 1 / (n + 2) or above
    (n + 1) / (n + 2) before they are made to sum to 1: n images that agree are no certainty (Laplace's rule).

    References
    ----------
    Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD (2002).
    """

    x: tuple[tuple[float, ...], ...]
    y: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, logits: Floats, truth: Bools, task: Task) -> Isotonic:
        """Fit one curve a class."""
        from sklearn.isotonic import IsotonicRegression

        odds, least = log_odds(logits, task), 1 / (len(logits) + 2)
        xs, ys = [], []
        for place in range(odds.shape[1]):
            curve = IsotonicRegression(increasing=True, out_of_bounds="clip")
            curve.fit(odds[:, place], truth[:, place].astype(np.float64))
            xs.append(tuple(float(value) for value in curve.X_thresholds_))
            ys.append(tuple(float(value) for value in np.clip(curve.y_thresholds_, least, 1 - least)))
        return cls(tuple(xs), tuple(ys))

    @classmethod
    def of(cls, document: Mapping[str, Any], n_classes: int) -> Isotonic:
        """Return what the document holds."""
        curves = document["isotonic"]
        xs, ys = (tuple(tuple(_numbers(curve[key])) for curve in curves) for key in ("x", "y"))
        whole = all(
            x and len(x) == len(y) and list(x) == sorted(x) and list(y) == sorted(y) and y[0] > 0 and y[-1] < 1
            for x, y in zip(xs, ys, strict=True)
        )
        if len(curves) != n_classes or not whole:
            raise ValueError("a curve is not one that never falls between 0 and 1, or there is not one a class")
        return cls(xs, ys)

    def apply(self, logits: Floats, task: Task) -> Floats:
        """Return probabilities."""
        odds = log_odds(logits, task)
        columns = [np.interp(odds[:, place], x, y) for place, (x, y) in enumerate(zip(self.x, self.y, strict=True))]
        return _summing_to_one(np.stack(columns, axis=1), task)

    def document(self) -> dict[str, Any]:
        """Return the points of each class's curve."""
        return {"isotonic": [{"x": list(x), "y": list(y)} for x, y in zip(self.x, self.y, strict=True)]}


def likelihood_loss(logits: Floats, truth: Bools, task: Task) -> float:
    """Return the mean negative log-likelihood in nats, from logits: exact where probabilities round to 0 or 1."""
    if task is Task.MULTI:
        return float(np.logaddexp(0, np.where(truth, -logits, logits)).mean())
    highest = logits.max(axis=1, keepdims=True)
    away = logits - highest
    return float((np.log(np.exp(away).sum(axis=1)) - away[truth]).mean())


def log_odds(logits: Floats, task: Task) -> Floats:
    """Return ``log(p / (1 - p))`` of each class; of labels the logits themselves are that."""
    if task is Task.MULTI:
        return logits
    columns = []
    for place in range(logits.shape[1]):
        others = np.delete(logits, place, axis=1)
        columns.append(logits[:, place] - np.logaddexp.reduce(others, axis=1))
    return np.stack(columns, axis=1)


def _summing_to_one(p: Floats, task: Task) -> Floats:
    if task is Task.MULTI:
        return p
    # Sigmoids of log-odds of some -800 are 0; where every class is that improbable, none is more so than another.
    p = np.maximum(p, np.finfo(np.float64).tiny)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _fitted_line(odds: Floats, truth: Bools) -> tuple[float, float]:
    """Return slope and intercept by Newton's method with halved steps; the loss is convex."""
    n_positive = int(truth.sum())
    n_negative = len(truth) - n_positive
    wanted = np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    # Log-odds of any size and offset are brought to the same, so that the steps are well conditioned.
    middle, spread = float(odds.mean()), float(odds.std())
    if spread <= 1e-12 * max(1.0, abs(middle)):  # a constant, but for rounding, tells nothing
        spread = 1.0
    design = np.stack([(odds - middle) / spread, np.ones(len(odds))], axis=1)

    def loss(line: Floats) -> float:
        given = design @ line
        return float((np.logaddexp(0, given) - wanted * given).mean())

    line = np.array([0.0, np.log((n_positive + 1) / (n_negative + 1))])
    current = loss(line)
    for _ in range(_NEWTON_STEPS):
        p = probabilities_of(design @ line[:, None], Task.MULTI)[:, 0]
        gradient = design.T @ (p - wanted) / len(p)
        curvature = (design * (p * (1 - p))[:, None]).T @ design / len(p) + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        for _ in range(_HALVINGS):
            if (tried := loss(line - size * step)) < current:
                break
            size /= 2
        else:
            break  # nothing is lower: this is the bottom, to rounding
        line, current = line - size * step, tried
    slope = line[0] / spread
    return float(slope), float(line[1] - slope * middle)


def _numbers(values: Sequence[Any]) -> list[float]:
    numbers = [float(value) for value in values]
    if not np.isfinite(numbers).all():
        raise ValueError("a number is not finite")
    return numbers

"""From which probability on an image counts as positive: chosen on val, applied to everything else.

A threshold that was chosen on the images that it is then scored on flatters; nothing here knows which part its images
are from, so callers pass the val part and only that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.errors import InputError
from medtool.runs.choices import Task
from medtool.train.choices import Costs, ThresholdRule, check_threshold
from medtool.train.metrics import Bools, Floats, paired


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold with what it gave where it was chosen.

    Attributes
    ----------
    value
        A score of this or more is positive. It lies midway between two scores that were seen, so that a later
        digit of either decides nothing.
    sensitivity, specificity
        0 to 1, on the images that it was chosen on: flattering there, and not what to expect elsewhere.
    n_positive, n_negative
        Images that it was chosen on.
    target, costs
        What the rule was given.
    """

    value: float
    rule: ThresholdRule
    sensitivity: float
    specificity: float
    n_positive: int
    n_negative: int
    target: float | None = None
    costs: Costs | None = None

    def decide(self, scores: npt.NDArray[np.floating[Any]]) -> Bools:
        """Return which scores are positive; any shape."""
        return np.asarray(np.asarray(scores, np.float64) >= self.value)

    def document(self) -> dict[str, Any]:
        """Return it ready for JSON; :meth:`of` gives back the same."""
        return {
            "value": self.value,
            "rule": self.rule.value,
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "n_positive": self.n_positive,
            "n_negative": self.n_negative,
            "target": self.target,
            "costs": None if self.costs is None else {"miss": self.costs.miss, "false_alarm": self.costs.false_alarm},
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Threshold:
        """Return the threshold that a document holds.

        Raises
        ------
        InputError
            If it is damaged.
        """
        try:
            target, costs = document["target"], document["costs"]
            found = cls(
                value=float(document["value"]),
                rule=ThresholdRule(document["rule"]),
                sensitivity=float(document["sensitivity"]),
                specificity=float(document["specificity"]),
                n_positive=int(document["n_positive"]),
                n_negative=int(document["n_negative"]),
                target=None if target is None else float(target),
                costs=None if costs is None else Costs(float(costs["miss"]), float(costs["false_alarm"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("a threshold is damaged: its numbers are missing or not what they must be") from error
        if not math.isfinite(found.value):
            raise InputError(f"a threshold is {found.value}; it must be finite")
        return found


def choose(
    rule: ThresholdRule,
    scores: npt.NDArray[np.floating[Any]],
    truths: npt.NDArray[Any],
    *,
    target: float | None = None,
    costs: Costs | None = None,
) -> Threshold:
    """Return the best threshold by a rule, among all that part the scores differently.

    Parameters
    ----------
    scores, truths
        Shape ``(n,)``: probabilities of the positive class, and 0 or 1; of the val part.
    target
        Least sensitivity or specificity, above 0 and at most 1; for these two rules, which need it.
    costs
        For the rule of costs, which needs them.

    Raises
    ------
    UsageError
        If a target or costs are missing, out of range, or given to a rule that has none.
    InputError
        If there is no positive or no negative, or a value is out of range.
    """
    check_threshold(rule, target, costs)
    column = np.asarray(scores, dtype=np.float64)
    if column.ndim != 1:
        raise InputError(f"scores have shape {column.shape}; it must be (n,)")
    p, truth = paired(column[:, None], np.asarray(truths)[..., None], task=Task.MULTI)
    values, is_so = p[:, 0], truth[:, 0]
    n_positive, n_negative = int(is_so.sum()), int((~is_so).sum())
    if not n_positive or not n_negative:
        raise InputError(
            f"no threshold can be chosen from {n_positive} positives and {n_negative} negatives; both are needed",
            hint="a val part with both, as medtool split make gives",
        )
    cuts, hits, alarms = _cuts(values, is_so)
    sensitivity, specificity = hits / n_positive, 1 - alarms / n_negative
    best = _best(rule, hits, alarms, n_positive, n_negative, target=target, costs=costs)
    return Threshold(
        value=float(cuts[best]),
        rule=ThresholdRule(rule),
        sensitivity=float(sensitivity[best]),
        specificity=float(specificity[best]),
        n_positive=n_positive,
        n_negative=n_negative,
        target=target,
        costs=costs,
    )


def choose_for_classes(
    rule: ThresholdRule,
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[Any],
    *,
    task: Task,
    classes: Sequence[str],
    target: float | None = None,
    costs: Costs | None = None,
) -> dict[str, Threshold]:
    """Return a threshold by class name: of two classes for the second only, else for each against the rest.

    Raises
    ------
    UsageError, InputError
        As :func:`choose`; what is wrong with one class is told with its name.
    """
    p, truth = paired(probabilities, targets, task=task, n_classes=len(classes))
    places = [1] if task is Task.SINGLE and len(classes) == 2 else range(len(classes))
    chosen = {}
    for place in places:
        try:
            chosen[classes[place]] = choose(rule, p[:, place], truth[:, place], target=target, costs=costs)
        except InputError as error:
            raise InputError(f"class {classes[place]!r}: {error.message}", hint=error.hint) from error
    return chosen


def _cuts(values: Floats, is_so: Bools) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return thresholds from the most to the least sensitive, with positives and negatives at or above each."""
    seen, place = np.unique(values, return_inverse=True)
    positives = np.bincount(place, weights=is_so, minlength=len(seen)).astype(np.int64)
    negatives = np.bincount(place, minlength=len(seen)) - positives
    # At or above each seen score, and above all.
    hits = np.append(np.cumsum(positives[::-1])[::-1], 0)
    alarms = np.append(np.cumsum(negatives[::-1])[::-1], 0)
    below, above = np.concatenate([[0.0], seen]), np.append(seen, 1.0)
    cuts = below + (above - below) / 2
    cuts = np.where(cuts > below, cuts, above)  # between neighbouring numbers there is none
    cuts[-1] = (
        cuts[-1] if cuts[-1] > seen[-1] else np.nextafter(1.0, 2.0)
    )  # a score of 1, and nothing is to be positive
    return cuts, hits, alarms


def _best(
    rule: ThresholdRule,
    hits: npt.NDArray[np.int64],
    alarms: npt.NDArray[np.int64],
    n_positive: int,
    n_negative: int,
    *,
    target: float | None,
    costs: Costs | None,
) -> int:
    """Return the place of the best; counts are compared as whole numbers where they can be, so that ties are ties."""
    quiet = n_negative - alarms
    if rule is ThresholdRule.SENSITIVITY:
        assert target is not None
        worth: npt.NDArray[Any] = np.where(hits >= _least(target, n_positive), quiet, -1)
    elif rule is ThresholdRule.SPECIFICITY:
        assert target is not None
        worth = np.where(quiet >= _least(target, n_negative), hits, -1)
    elif rule is ThresholdRule.YOUDEN:
        worth = hits * n_negative + quiet * n_positive
    elif rule is ThresholdRule.F1:
        worth = 2 * hits / (hits + alarms + n_positive)
    else:
        assert costs is not None
        lost = (n_positive - hits) * costs.miss + alarms * costs.false_alarm
        worth = -np.round(lost / max(costs.miss, costs.false_alarm), 9)
    # Sensitivity falls along the places, so the first of equals is the most sensitive; specificity's own ties apart:
    # of equal hits the one with the fewest false alarms.
    best = int(worth.argmax())
    if rule is ThresholdRule.SPECIFICITY:
        best = int(np.flatnonzero(worth == worth[best])[-1])
    return best


def _least(target: float, n: int) -> int:
    return math.ceil(target * n - 1e-9)  # 0.7 × 10 is 7.000000000000001 or less, and means 7

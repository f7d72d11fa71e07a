"""Probabilities that mean what they say: calibration maps fitted on val, and measures of how far off they were.

Errors are measured in bins of confidence. What confidence is depends on the task:

- two classes: the probability of the second, against how often it is the true one (Naeini et al.);
- three classes and more: the probability of the most probable one, against how often that is right (Guo et al.);
- labels: as two classes, for each label; the error is the mean over labels.

References
----------
Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI (2015).
Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML (2017).
Nixon, Dusenberry, Zhang, Jerfel and Tran, "Measuring calibration in deep learning", CVPR workshops (2019), on bins of
equal mass.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.errors import InputError, UsageError
from medtool.runs.choices import Task
from medtool.train.calibration_maps import Isotonic, Map, Platt, Temperature
from medtool.train.choices import CalibrationMethod
from medtool.train.metrics import Bools, Floats, brier, nll, paired, true_or_false

FORMAT = "medtool-calibration"
FORMAT_VERSION = 1
BINS = 15  # of Guo et al.

Numbers = npt.NDArray[np.floating[Any]]


_MAPS: Mapping[CalibrationMethod, type[Map]] = {
    CalibrationMethod.TEMPERATURE: Temperature,
    CalibrationMethod.PLATT: Platt,
    CalibrationMethod.ISOTONIC: Isotonic,
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted map from logits to probabilities.

    Temperature keeps the most probable class of every image and the side of 0.5 of every label. Platt and isotonic
    treat each class on its own, so they may change both; isotonic also makes ties, which may lower an AUC.

    Attributes
    ----------
    n_images
        How many it was fitted on.
    """

    method: CalibrationMethod
    task: Task
    n_classes: int
    n_images: int
    map: Map

    def apply(self, logits: Numbers) -> Floats:
        """Return probabilities ``(n, classes)``; they sum to 1 for one class of several.

        Raises
        ------
        InputError
            If the shape is another than ``(n, classes)``, or a logit is not finite.
        """
        values = _finite(logits)
        if values.shape[1] != self.n_classes:
            raise InputError(f"logits have shape {values.shape}; the calibration is for {self.n_classes} classes")
        return self.map.apply(values, self.task)

    def document(self) -> dict[str, Any]:
        """Return it ready for JSON; :meth:`of` gives back the same to the last bit."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "method": self.method.value,
            "task": self.task.value,
            "n_classes": self.n_classes,
            "n_images": self.n_images,
            **self.map.document(),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Calibration:
        """Return the calibration that a document holds.

        Raises
        ------
        InputError
            If it is something else, of a version that is not known, or damaged.
        """
        if document.get("format") != FORMAT or document.get("version") != FORMAT_VERSION:
            found = f"{document.get('format')!r} version {document.get('version')!r}"
            raise InputError(f"a calibration is {found}; this medtool reads {FORMAT!r} version {FORMAT_VERSION}")
        try:
            method, task = CalibrationMethod(document["method"]), Task(document["task"])
            n_classes, n_images = int(document["n_classes"]), int(document["n_images"])
            mapped = _MAPS[method].of(document, n_classes)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("a calibration is damaged: its numbers are missing or not what they must be") from error
        return cls(method, task, n_classes, n_images, mapped)


def fit(
    method: CalibrationMethod,
    logits: Numbers,
    targets: npt.NDArray[Any],
    *,
    task: Task,
    classes: Sequence[str] | None = None,
) -> Calibration:
    """Fit a calibration; use images that the network was not trained on, and not the test part.

    Parameters
    ----------
    logits, targets
        Shape ``(n, classes)``; targets are 0 or 1.
    classes
        Names for messages; without them classes are numbered from 0.

    Raises
    ------
    InputError
        If a class has no example or no counterexample, or shapes or values are wrong.
    """
    values = _finite(logits)
    truth = true_or_false(targets, values.shape, task=task)
    n, n_classes = values.shape
    if task is Task.SINGLE and n_classes < 2:
        raise InputError("one class of several was asked for, but the logits have a single column")
    names = [str(place) for place in range(n_classes)] if classes is None else list(classes)
    if len(names) != n_classes:
        raise InputError(f"there are {len(names)} names of classes for {n_classes} columns of logits")
    _check_counts(names, truth)
    return Calibration(CalibrationMethod(method), task, n_classes, n, _MAPS[method].fit(values, truth, task))


def cross_fitted(
    method: CalibrationMethod,
    logits: Numbers,
    targets: npt.NDArray[Any],
    *,
    task: Task,
    groups: Sequence[Hashable],
    folds: int = 5,
    classes: Sequence[str] | None = None,
) -> Floats:
    """Return each image's calibrated probabilities by a map that was fitted without its group.

    Measured on these, an error says what the calibration is worth on others; measured on what it was fitted on,
    isotonic looks nearly perfect by construction. Folds are made without chance.

    Parameters
    ----------
    groups
        What must not be on both sides, such as patients; an unknown one as a group of its own.

    Raises
    ------
    InputError
        If a class is missing from what remains without a fold (too few groups have it), or there are fewer groups than
        folds.
    """
    values = _finite(logits)
    truth = true_or_false(targets, values.shape, task=task)
    if folds < 2:
        raise UsageError(f"folds is {folds}; it must be 2 or more")
    if len(groups) != len(values):
        raise InputError(f"there are {len(groups)} groups for {len(values)} images; each image needs one")
    fold = _folds_of(truth, groups, folds)
    p = np.empty(values.shape)
    for held_out in range(folds):
        inside = fold == held_out
        if not inside.any():
            raise InputError(f"{len(set(groups))} groups do not fill {folds} folds")
        p[inside] = fit(method, values[~inside], truth[~inside], task=task, classes=classes).apply(values[inside])
    return p


@dataclass(frozen=True, slots=True)
class Bins:
    """Confidence against truth; empty bins are left out.

    Attributes
    ----------
    low, high
        Ends of each bin, 0 to 1; a confidence at an end belongs to the lower bin.
    confidence, observed
        Means in each bin: what was claimed, and how often it was so.
    counts
        Claims in each bin.
    """

    low: Floats
    high: Floats
    confidence: Floats
    observed: Floats
    counts: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """Return the mean gap between claimed and observed, weighed by counts."""
        return float((self.counts * np.abs(self.confidence - self.observed)).sum() / self.counts.sum())


def binned(confidence: Floats, truth: Bools, *, bins: int = BINS, adaptive: bool = False) -> Bins:
    """Return claims of shape ``(n,)`` in bins of equal width, or of equal mass if ``adaptive``.

    Equal confidences are never parted, so the order of images does not matter; bins of equal mass are then fewer or
    uneven where many are equal.

    Raises
    ------
    UsageError
        If ``bins`` is below 1.
    InputError
        If there is no claim.
    """
    if bins < 1:
        raise UsageError(f"bins is {bins}; it must be 1 or more")
    if not len(confidence):
        raise InputError("there is no image to measure calibration on; at least one is needed")
    if adaptive:
        last = -(-len(confidence) * np.arange(1, bins) // bins) - 1  # of each bin but the last, among the sorted
        ends = np.unique(np.sort(confidence)[np.maximum(last, 0)])
    else:
        ends = np.arange(1, bins) / bins
    place = np.searchsorted(ends, confidence, side="left")
    counts = np.bincount(place, minlength=len(ends) + 1)
    some = counts > 0
    claimed = np.bincount(place, weights=confidence, minlength=len(counts))[some] / counts[some]
    observed = np.bincount(place, weights=truth, minlength=len(counts))[some] / counts[some]
    low, high = np.concatenate([[0.0], ends]), np.concatenate([ends, [1.0]])
    return Bins(low[some], high[some], claimed, observed, counts[some].astype(np.int64))


def claims(probabilities: Numbers, targets: npt.NDArray[Any], *, task: Task) -> list[tuple[Floats, Bools]]:
    """Return confidences and whether they came true, each ``(n,)``: one pair, or for labels one a label.

    What is claimed is in the module's text.
    """
    p, truth = paired(probabilities, targets, task=task)
    if task is Task.MULTI:
        return [(p[:, place], truth[:, place]) for place in range(p.shape[1])]
    if p.shape[1] == 2:
        return [(p[:, 1], truth[:, 1])]
    best = p.argmax(axis=1, keepdims=True)
    return [(np.take_along_axis(p, best, axis=1)[:, 0], np.take_along_axis(truth, best, axis=1)[:, 0])]


def expected_calibration_error(
    probabilities: Numbers,
    targets: npt.NDArray[Any],
    *,
    task: Task,
    bins: int = BINS,
    adaptive: bool = False,
) -> float:
    """Return the mean gap between confidence and truth, 0 to 1; see the module's text for what is compared.

    Parameters
    ----------
    adaptive
        Bins of equal mass instead of equal width: high confidences, where most images are, are then told apart.
    """
    pairs = claims(probabilities, targets, task=task)
    return float(np.mean([binned(*pair, bins=bins, adaptive=adaptive).error for pair in pairs]))


def calibration_report(
    before: Numbers, after: Numbers, targets: npt.NDArray[Any], *, task: Task, bins: int = BINS
) -> dict[str, Any]:
    """Return the errors of two sets of probabilities of the same images, ready for JSON.

    Returns
    -------
    report
        ``n_images``, ``bins``, and under ``before`` and ``after``: ``ece``, ``adaptive_ece``, ``brier`` and ``nll``.
    """
    return {
        "n_images": len(before),
        "bins": bins,
        **{
            name: {
                "ece": expected_calibration_error(p, targets, task=task, bins=bins),
                "adaptive_ece": expected_calibration_error(p, targets, task=task, bins=bins, adaptive=True),
                "brier": brier(np.asarray(p, np.float64), targets, task=task),
                "nll": nll(np.asarray(p, np.float64), targets, task=task),
            }
            for name, p in (("before", before), ("after", after))
        },
    }


def _check_counts(names: Sequence[str], truth: Bools) -> None:
    counts, n = truth.sum(axis=0).tolist(), len(truth)
    for lacking, what in ((0, "no image of it"), (n, "no image without it")):
        if lacking in counts:
            listed = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
            raise InputError(
                f"class {names[counts.index(lacking)]!r} cannot be calibrated:"
                f" there is {what} among {n} images ({listed}); both are needed",
                hint="a val part with every class, as medtool split make gives, or no calibration",
            )


def _folds_of(truth: Bools, groups: Sequence[Hashable], folds: int) -> npt.NDArray[np.int64]:
    """Deal groups to folds, those of the rarest classes first, each to the fold that has least of what it brings."""
    place_of: dict[Hashable, int] = {}
    of_image = np.array([place_of.setdefault(group, len(place_of)) for group in groups], dtype=np.int64)
    brings = np.zeros((len(place_of), truth.shape[1] + 1))
    np.add.at(brings, of_image, np.concatenate([truth, np.ones((len(truth), 1))], axis=1))
    brings /= np.maximum(brings.sum(axis=0), 1)  # a share of a rare class weighs more than one of a frequent one
    order = np.argsort(-brings.max(axis=1), kind="stable")
    held, fold_of = np.zeros((folds, brings.shape[1])), np.empty(len(place_of), dtype=np.int64)
    for group in order:
        fold_of[group] = int((held @ brings[group]).argmin())
        held[fold_of[group]] += brings[group]
    return fold_of[of_image]


def _finite(logits: Numbers) -> Floats:
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise InputError(f"logits have shape {values.shape}; it must be (n, classes)")
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).any(axis=1).argmax())
        raise InputError(f"the logits of image {row} are {values[row].tolist()}; each must be finite")
    return values

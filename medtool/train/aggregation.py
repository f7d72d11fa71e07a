"""From probabilities of images to those of patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.errors import InputError, UsageError
from medtool.runs.choices import Task
from medtool.train.choices import Aggregation
from medtool.train.metrics import Bools, Floats, decided


@dataclass(frozen=True, slots=True)
class PatientProbabilities:
    """Probabilities of patients, in the order in which they first appear.

    Attributes
    ----------
    patients
        Empty for an image whose patient is unknown: it stands alone.
    probabilities
        Shape ``(patients, classes)``.
    n_images
        Shape ``(patients,)``.
    rows
        Shape ``(images,)``: the patient's place for each image.
    """

    patients: tuple[str, ...]
    probabilities: Floats
    n_images: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]


def by_patient(
    probabilities: npt.NDArray[np.floating[Any]],
    patients: Sequence[str],
    *,
    how: Aggregation,
    task: Task,
    decisions: Bools | None = None,
) -> PatientProbabilities:
    """Return one row of probabilities a patient; images of unknown patients are never put together.

    Parameters
    ----------
    probabilities
        Shape ``(n, classes)``, 0 to 1.
    patients
        Of each image; empty or blank is unknown.
    decisions
        Shape ``(n, classes)``, for votes: what was decided for each image, such as by thresholds. Without it the most
        probable class, or every label from 0.5 on.

    Raises
    ------
    InputError
        If shapes do not fit, or a probability is not in 0 to 1.
    UsageError
        If decisions are given to what is no vote.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not p.shape[1]:
        raise InputError(f"probabilities have shape {p.shape}; it must be (n, classes)")
    if len(patients) != len(p):
        raise InputError(
            f"there are {len(patients)} patients for {len(p)} images; each image needs one, or an empty one"
        )
    wrong = ~((p >= 0) & (p <= 1)).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"the probabilities of image {row} are {p[row].tolist()}; each must lie from 0 to 1")
    if decisions is not None and how is not Aggregation.VOTE:
        raise UsageError(f"decisions are for votes; patients are taken together by {how}")
    if decisions is not None and decisions.shape != p.shape:
        raise InputError(f"decisions have shape {decisions.shape}; it must be {p.shape}, that of the probabilities")

    names, rows = _rows_of(patients)
    counts = np.bincount(rows, minlength=len(names)).astype(np.int64)
    if how is Aggregation.MAX:
        together = _highest(p, rows, len(names), task)
    else:
        values = p if how is Aggregation.MEAN else decided(p, task) if decisions is None else decisions
        sums = np.zeros((len(names), p.shape[1]))
        np.add.at(sums, rows, values.astype(np.float64))
        together = np.minimum(sums / counts[:, None], 1.0)  # a mean of ones may round above one
    return PatientProbabilities(tuple(names), together, counts, rows)


def _rows_of(patients: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    names: list[str] = []
    place_of: dict[str, int] = {}
    rows = np.empty(len(patients), dtype=np.int64)
    for image, patient in enumerate(patients):
        name = patient if patient.strip() else ""
        place = place_of.get(name) if name else None
        if place is None:
            place = len(names)
            names.append(name)
            if name:
                place_of[name] = place
        rows[image] = place
    return names, rows


def _highest(p: Floats, rows: npt.NDArray[np.int64], n_patients: int, task: Task) -> Floats:
    if task is Task.SINGLE and p.shape[1] == 2:
        order = np.lexsort((-np.arange(len(p)), p[:, 1], rows))  # the first image, of equal ones
        last = np.append(np.flatnonzero(np.diff(rows[order])), len(p) - 1) if len(p) else np.empty(0, dtype=np.int64)
        return np.asarray(p[order[last]])
    highest = np.zeros((n_patients, p.shape[1]))
    np.maximum.at(highest, rows, p)
    return highest if task is Task.MULTI else np.asarray(highest / highest.sum(axis=1, keepdims=True))

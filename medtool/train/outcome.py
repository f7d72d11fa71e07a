"""What is said of a finished training: calibration and thresholds from the val part, predictions and scores of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtool.errors import InputError
from medtool.runs import predictions
from medtool.runs.checkpoints import Card
from medtool.runs.choices import Task
from medtool.runs.forward import Normaliser
from medtool.runs.network import load_network
from medtool.runs.predictions import Prediction
from medtool.runs.probabilities import probabilities_of
from medtool.statistics.bootstrap import DRAWS, clustered_intervals, clusters_of
from medtool.statistics.classification import WeightedScores
from medtool.storage import read_json, sha256_of, write_json, write_whole
from medtool.train.batches import Batches
from medtool.train.calibration import Calibration, calibration_report, cross_fitted, fit
from medtool.train.choices import CalibrationMethod
from medtool.train.decide import decisions_of, names_of
from medtool.train.loop import logits_of
from medtool.train.material import Material
from medtool.train.metrics import decided, score
from medtool.train.options import TrainOptions, WorkOptions
from medtool.train.reliability import reliability_diagram
from medtool.train.thresholds import Threshold, choose_for_classes

CALIBRATION_NAME = "calibration.json"
RELIABILITY_NAME = "reliability.svg"
SCORES_NAME = "scores.json"
NAMES = (CALIBRATION_NAME, RELIABILITY_NAME, SCORES_NAME, predictions.NAME)
FOLDS = 5  # of the calibration that is measured on images it was not fitted on
_FORMAT_VERSION = 1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibrated:
    """What ``calibration.json`` holds.

    Attributes
    ----------
    calibration
        None where the val part did not suffice for one.
    thresholds
        By class; empty where none were asked for.
    """

    calibration: Calibration | None
    thresholds: Mapping[str, Threshold]

    def probabilities(self, logits: npt.NDArray[np.floating[Any]], task: Task) -> Floats:
        """Return probabilities ``(n, classes)``, calibrated if that was possible."""
        return probabilities_of(logits, task) if self.calibration is None else self.calibration.apply(logits)


def write_outcome(
    out: Path,
    checkpoint: Path,
    *,
    card: Card,
    material: Material,
    batches: Batches,
    options: TrainOptions,
    work: WorkOptions,
    hashes: Mapping[str, str],
) -> dict[str, Any]:
    """Reload a checkpoint, calibrate it on the val part, and write what it says of the parts val and test.

    Returns
    -------
    outputs
        Hashes of the files, for the lineage.
    """
    device = torch.device(work.device)
    layout = torch.channels_last if work.channels_last else torch.contiguous_format
    network = load_network(checkpoint, card).to(device, memory_format=layout)  # type: ignore[call-overload]
    normalise = Normaliser(card.preprocessing, device, is_channels_last=work.channels_last)
    places = {part: material.places(part) for part in ("val", "test")}
    logits = {
        part: logits_of(network, batches, rows, normalise=normalise, precision=work.precision, limit=work.micro_batch)
        for part, rows in places.items()
    }
    patients = np.array(material.patients, dtype=object)
    chosen_on = places["val"]
    found = _calibrate(
        out, logits["val"], material.targets[chosen_on], patients[chosen_on].tolist(), card=card, options=options
    )
    scores: dict[str, Any] = {"format": "medtool-scores", "version": _FORMAT_VERSION}
    rows: list[Prediction] = []
    for part in ("val", "test"):
        p = found.probabilities(logits[part], card.task)
        targets = material.targets[places[part]]
        scores[part] = scored(p, targets, patients[places[part]].tolist(), card, seed=options.seed)
        given = names_of(decisions_of(p, found.thresholds, task=card.task, classes=card.classes), card.classes)
        rows += _rows(material, places[part], part, p=p, logits=logits[part], given=given, hashes=hashes)
    scores["val"]["note"] = "the best epoch, the calibration and any thresholds were chosen on this part"
    write_json(out / SCORES_NAME, scores)
    data = predictions.header_line(card.classes, has_logits=True)
    data += predictions.csv_lines(rows, card.classes, has_logits=True)
    write_whole(out / predictions.NAME, data)
    return {name: sha256_of(out / name) for name in (predictions.NAME, CALIBRATION_NAME, SCORES_NAME)}


def read_scores(out: Path) -> dict[str, Any]:
    """Return what ``scores.json`` of a run holds."""
    return read_json(out / SCORES_NAME)


def read_calibrated(out: Path) -> Calibrated:
    """Return what ``calibration.json`` of a run holds.

    Raises
    ------
    InputError
        If it is damaged or of another version.
    """
    document = read_json(out / CALIBRATION_NAME)
    if document.get("format") != "medtool-run-calibration" or document.get("version") != _FORMAT_VERSION:
        raise InputError(f"{out / CALIBRATION_NAME} is not the calibration of a run, of version {_FORMAT_VERSION}")
    inner, thresholds = document.get("calibration"), document.get("thresholds")
    if not isinstance(thresholds, dict):
        raise InputError(f"{out / CALIBRATION_NAME} is damaged: it has no thresholds")
    return Calibrated(
        None if inner is None else Calibration.of(inner),
        {name: Threshold.of(value) for name, value in thresholds.items()},
    )


def _calibrate(
    out: Path,
    logits: npt.NDArray[np.float32],
    targets: npt.NDArray[np.float32],
    patients: Sequence[str],
    *,
    card: Card,
    options: TrainOptions,
) -> Calibrated:
    """Fit calibration and thresholds on the val part, measure the calibration on patients it was not fitted on."""
    document: dict[str, Any] = {"format": "medtool-run-calibration", "version": _FORMAT_VERSION, "part": "val"}
    before = probabilities_of(logits, card.task)
    calibration: Calibration | None = None
    after, measured = before, "not calibrated"
    try:
        fitted = fit(options.calibration, logits, targets, task=card.task, classes=card.classes)
    except InputError as error:  # a label that all or none of the val part have
        document |= {"calibration": None, "reason": error.message}
    else:
        calibration = fitted
        after, measured = _measured(fitted, logits, targets, patients, card)
        document |= {"calibration": fitted.document(), "reason": ""}
    document |= {"measured": measured, "errors": calibration_report(before, after, targets, task=card.task)}
    found = Calibrated(calibration, {})
    if options.threshold is not None:
        thresholds = choose_for_classes(
            options.threshold,
            found.probabilities(logits, card.task),
            targets,
            task=card.task,
            classes=card.classes,
            target=options.threshold_target,
            costs=options.costs,
        )
        found = Calibrated(calibration, thresholds)
    document["thresholds"] = {name: each.document() for name, each in found.thresholds.items()}
    write_json(out / CALIBRATION_NAME, document)
    method = options.calibration.value if calibration is not None else CalibrationMethod.TEMPERATURE.value
    diagram = reliability_diagram(
        before, after, targets, task=card.task, method=method, note=f"{len(targets)} images of the val part; {measured}"
    )
    write_whole(out / RELIABILITY_NAME, diagram.encode())
    return found


def _measured(
    calibration: Calibration,
    logits: npt.NDArray[np.float32],
    targets: npt.NDArray[np.float32],
    patients: Sequence[str],
    card: Card,
) -> tuple[Floats, str]:
    """Return calibrated probabilities to measure the calibration by, and in words how they came about."""
    groups = [name.strip() or place for place, name in enumerate(patients)]
    try:
        fair = cross_fitted(
            calibration.method, logits, targets, task=card.task, groups=groups, folds=FOLDS, classes=card.classes
        )
    except InputError:
        return calibration.apply(logits), "measured on what it was fitted on, as there are too few patients of a class"
    return fair, f"measured by {FOLDS}-fold cross-fitting over patients"


def scored(
    p: Floats, targets: npt.NDArray[np.float32], patients: Sequence[str], card: Card, *, seed: int
) -> dict[str, Any]:
    """Return every score of a part, the main ones with an interval over patients."""
    scores = score(p, targets, task=card.task, classes=card.classes)
    clusters = clusters_of(patients)
    intervals = {}
    if len(p):
        weighted = WeightedScores(p, decided(p, card.task), targets > 0.5, is_exclusive=card.task is Task.SINGLE)
        found = clustered_intervals(weighted, clusters, seed=seed)
        intervals = {name: interval.document() for name, interval in found.items()}
    return {
        "n_images": len(p),
        "n_patients": len(set(clusters.tolist())),
        "n_unknown_patients": sum(not name.strip() for name in patients),
        "per_class": {name: int(count) for name, count in zip(card.classes, targets.sum(axis=0), strict=True)},
        "scores": scores,
        "intervals": intervals,
        "interval_method": f"percentile bootstrap over patients, {DRAWS} draws, 95%",
    }


def _rows(
    material: Material,
    places: npt.NDArray[np.int64],
    part: str,
    *,
    p: Floats,
    logits: npt.NDArray[np.float32],
    given: Sequence[str],
    hashes: Mapping[str, str],
) -> list[Prediction]:
    ids, images, patients = material.ids, material.column("image"), material.patients
    labels = names_of(material.targets > 0, material.classes)
    return [
        Prediction(
            image_id=ids[place],
            image=images[place],
            patient=patients[place],
            split=part,
            label=labels[place],
            predicted=given[row],
            probabilities=tuple(p[row].tolist()),
            logits=tuple(logits[row].astype(float).tolist()),
            seen="val" if part == "val" else "",
            image_sha256=hashes[ids[place]],
        )
        for row, place in enumerate(places.tolist())
    ]

"""``patients.csv``: what is said of each patient, from the predictions of its images."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medtool.runs import predictions
from medtool.runs.choices import SEPARATOR, Task
from medtool.train.aggregation import by_patient
from medtool.train.choices import Aggregation
from medtool.train.decide import decisions_of, names_of

NAME = "patients.csv"
_SEEN_ROLES = ("train", "val", "")  # what weighs most comes first


@dataclass
class _Images:
    """What the images say of one patient beside probabilities."""

    labels: dict[str, None] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    n_failed: int = 0


def patients_csv(table: Path, *, how: Aggregation, task: Task) -> bytes:
    """Return the table of patients as CSV, in the order in which they first appear.

    An image whose patient is unknown stands alone, by its id. Of all images the probabilities and the names of the
    patients are held in memory, eight bytes a class and a text each.

    Parameters
    ----------
    table
        A ``predictions.csv``.

    Raises
    ------
    InputError
        If it is damaged.
    """
    classes = predictions.classes_of(table)
    keys: dict[str, _Images] = {}
    names: list[str] = []  # of predicted images, as are the next two
    p: list[list[float]] = []
    decided: list[list[bool]] = []
    for row in predictions.read_rows(table):
        key = row["patient"].strip() or f"\0{row['image_id']}"
        of_patient = keys.setdefault(key, _Images())
        if row["label"].strip():
            of_patient.labels[row["label"]] = None
        if row["status"] != "done":
            of_patient.n_failed += 1
            continue
        of_patient.seen.add(row["seen"])
        names.append(key)
        p.append([float(row[f"probability/{name}"]) for name in classes])
        given = row["predicted"].split(SEPARATOR) if task is Task.MULTI else [row["predicted"]]
        decided.append([name in given for name in classes])
    together = by_patient(
        np.array(p, np.float64).reshape(-1, len(classes)),
        names,
        how=how,
        task=task,
        decisions=np.array(decided, np.bool_).reshape(-1, len(classes)) if how is Aggregation.VOTE else None,
    )
    said = names_of(decisions_of(together.probabilities, {}, task=task, classes=classes), classes)
    places = {key: place for place, key in enumerate(together.patients)}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            *("patient", "image_id", "label", "n_images", "n_failed", "predicted"),
            *(f"probability/{name}" for name in classes),
            "seen",
        ]
    )
    for key, images in keys.items():
        is_unknown = key.startswith("\0")
        place = places.get(key)
        label = next(iter(images.labels)) if len(images.labels) == 1 else ""
        writer.writerow(
            [
                "" if is_unknown else key,
                key[1:] if is_unknown else "",
                label,
                0 if place is None else int(together.n_images[place]),
                images.n_failed,
                "" if place is None else said[place],
                *(
                    [""] * len(classes)
                    if place is None
                    else [f"{value:.9g}" for value in together.probabilities[place]]
                ),
                next((role for role in _SEEN_ROLES if role in images.seen), ""),
            ]
        )
    return stream.getvalue().encode("utf-8", "surrogateescape")

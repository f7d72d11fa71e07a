"""``predictions.csv``: what networks say of images, a row an image."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtool.errors import InputError, reason_of

NAME = "predictions.csv"
_SEEN_ROLES = ("", "train", "val")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image's row; docs/reference/formats.md describes each column.

    Attributes
    ----------
    image_id, image, patient, split, label
        As in the manifest; empty where it says nothing.
    reason
        Why there is no prediction; empty where there is one.
    predicted
        The class, or the labels separated by ``|``.
    probabilities
        One a class.
    logits
        One a class, where one network gave them; else empty.
    seen
        Whether the network trained on the image's patient (``train``), or was chosen by it (``val``).
    """

    image_id: str
    image: str
    patient: str = ""
    split: str = ""
    label: str = ""
    reason: str = ""
    predicted: str = ""
    probabilities: tuple[float, ...] = ()
    logits: tuple[float, ...] = ()
    seen: str = ""
    image_sha256: str = ""


def header_of(classes: Sequence[str], *, has_logits: bool) -> list[str]:
    """Return the names of the columns."""
    return [
        *("image_id", "image", "patient", "split", "label", "status", "reason", "predicted"),
        *(f"probability/{name}" for name in classes),
        *((f"logit/{name}" for name in classes) if has_logits else ()),
        *("seen", "image_sha256"),
    ]


def csv_lines(rows: Iterable[Prediction], classes: Sequence[str], *, has_logits: bool) -> bytes:
    """Return rows as CSV, without the header: UTF-8, line feeds; numbers with the digits that tell them apart."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for row in rows:
        assert row.seen in _SEEN_ROLES, row.seen
        values = [f"{value:.9g}" for value in row.probabilities] or [""] * len(classes)
        if has_logits:
            values += [f"{value:.9g}" for value in row.logits] or [""] * len(classes)
        writer.writerow(
            [
                *(row.image_id, row.image, row.patient, row.split, row.label),
                *("failed" if row.reason else "done", row.reason, row.predicted),
                *values,
                *(row.seen, row.image_sha256),
            ]
        )
    return stream.getvalue().encode("utf-8", "surrogateescape")


def header_line(classes: Sequence[str], *, has_logits: bool) -> bytes:
    """Return the header as a line of CSV."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(header_of(classes, has_logits=has_logits))
    return stream.getvalue().encode("utf-8", "surrogateescape")


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield each row of a ``predictions.csv`` by the names of its columns, in order; only one is in memory at a time.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column that each such file has, or a row is cut off.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            lacking = [name for name in header_of((), has_logits=False) if name not in header]
            if lacking:
                raise InputError(f"{path} has no column {lacking[0]!r}; medtool predict and medtool train write it")
            for row in reader:
                if len(row) != len(header):
                    raise InputError(f"{path}, line {reader.line_num}: {len(row)} fields where there are {len(header)}")
                yield dict(zip(header, row, strict=True))
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    except csv.Error as error:
        raise InputError(f"{path} is damaged: {error}") from error


def classes_of(path: Path) -> tuple[str, ...]:
    """Return the classes that a ``predictions.csv`` has probabilities of, in their order.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            header = next(csv.reader(stream), [])
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    return tuple(name.removeprefix("probability/") for name in header if name.startswith("probability/"))

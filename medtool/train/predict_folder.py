"""The folder of a prediction: whose it is, what is finished in it, and how its files are put together."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtool import lineage
from medtool.errors import LineageError, UsageError
from medtool.runs import predictions
from medtool.runs.asked import Asked
from medtool.runs.choices import Task
from medtool.storage import PARTS_NAME, TEMPORARY_PREFIX, output_error, place, sha256_of, strangers, write_whole
from medtool.train.choices import Aggregation
from medtool.train.patients_table import NAME as PATIENTS_NAME
from medtool.train.patients_table import patients_csv

COMMAND = "predict"
PACKAGES = ("torch", "timm", "numpy", "Pillow")
_OVERWRITE = "another folder with --out, or --overwrite to replace what is there"
_HASHED_AT_ONCE = 256


@dataclass
class Summary:
    """What a call came to.

    Attributes
    ----------
    failed
        Ids and reasons.
    seen
        How many of the predicted images a run has seen: by ``train`` and ``val``.
    unknown_labels
        Labels of the manifest that no class of the runs is called by, with their numbers of images.
    was_finished
        Whether there was nothing left to do.
    patients
        The table of patients, if one was asked for.
    """

    out: Path
    n_done: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    unknown_labels: Counter[str] = field(default_factory=Counter)
    was_finished: bool = False
    patients: Path | None = None

    @property
    def table(self) -> Path:
        """Where ``predictions.csv`` lies."""
        return self.out / predictions.NAME


def opened(out: Path, now: Mapping[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """Return the lineage of an earlier result that may be gone on with, or None for a fresh start.

    Raises
    ------
    LineageError
        If the folder holds the result of something else.
    UsageError
        If it holds files that are no result of medtool.
    """
    before = lineage.read_lineage(out)
    if before is None:
        others = strangers(out)
        if others:
            raise UsageError(
                f"{out} holds other files ({', '.join(others[:3])}) and no result of medtool",
                hint="give a new or empty folder with --out",
            )
        clear_parts(out)
        return None
    if before.get("command") == COMMAND:
        is_same = not lineage.differences(before["made_with"], now["made_with"])
        has_nothing = not (out / predictions.NAME).exists() and not (out / PARTS_NAME).exists()
        goes_on = is_same and before["status"] == "unfinished"
        if (not is_same and has_nothing) or (overwrite and not goes_on):
            _clear(out)
            return None
        theirs, ours_now = before["made_with"].get("images"), now["made_with"]["images"]
        if theirs != ours_now:
            raise LineageError(f"{out} holds the predictions of other images, labels or patients", hint=_OVERWRITE)
    lineage.refuse_other(out, before, now)
    return before


def _clear(out: Path) -> None:
    """Remove what an earlier call wrote, and nothing else; the lineage last, which says whose the folder is."""
    for name in (predictions.NAME, PATIENTS_NAME):
        (out / name).unlink(missing_ok=True)
    clear_parts(out)
    (out / lineage.LINEAGE_NAME).unlink(missing_ok=True)


def clear_parts(out: Path) -> None:
    """Forget all finished chunks."""
    with contextlib.suppress(FileNotFoundError):
        try:
            shutil.rmtree(out / PARTS_NAME)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise output_error(out / PARTS_NAME, error) from error


def still_holds(out: Path, before: Mapping[str, Any], asked: Sequence[Asked], *, threads: int) -> bool:
    """Tell whether a finished result is still that of its images, and no image that failed has changed since.

    Raises
    ------
    LineageError
        If the table, or an image with a prediction, has changed since.
    """
    table = out / predictions.NAME
    if not table.is_file() or sha256_of(table) != before.get("outputs", {}).get(predictions.NAME):
        raise LineageError(f"{table} is gone, or was changed since it was written", hint=_OVERWRITE)
    paths = {each.image_id: each.path for each in asked}
    changed: list[str] = []
    is_mended = False
    rows = ((row["image_id"], row["status"], row["image_sha256"]) for row in predictions.read_rows(table))
    with ThreadPoolExecutor(threads) as pool:
        for block in _blocks(rows, _HASHED_AT_ONCE):
            hashes = pool.map(content_of, [paths.get(name) for name, _, _ in block])
            for (name, status, before_sha256), sha256 in zip(block, hashes, strict=True):
                if sha256 != before_sha256 and status == "done":
                    changed.append(name)
                is_mended |= sha256 != before_sha256
    if changed:
        raise LineageError(
            f"{len(changed)} images have changed since {table} was made, such as {changed[0]}", hint=_OVERWRITE
        )
    return not is_mended


def _blocks(rows: Iterable[tuple[str, str, str]], size: int) -> Iterator[list[tuple[str, str, str]]]:
    stream = iter(rows)
    while block := list(itertools.islice(stream, size)):
        yield block


def content_of(path: Path | None) -> str:
    """Return the SHA-256 of a file's bytes, empty where there is no regular file that can be read."""
    try:
        return sha256_of(path) if path is not None and path.is_file() else ""
    except OSError:
        return ""


def put_together(out: Path, header: bytes, parts: Sequence[Path]) -> None:
    """Write ``predictions.csv`` from the finished chunks, holding one of them at a time."""
    temporary = out / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as stream:
            stream.write(header)
            for part in parts:
                stream.write(part.read_bytes())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise output_error(out / predictions.NAME, error) from error
    place(temporary, out / predictions.NAME)


def conclude(summary: Summary, started: Mapping[str, Any], *, patients: Aggregation | None, task: Task) -> None:
    """Count what the table holds, write the table of patients, and finish the lineage; then forget the parts."""
    images: dict[str, str] = {}
    for row in predictions.read_rows(summary.table):
        if row["status"] == "done":
            summary.n_done += 1
            images[row["image_id"]] = row["image_sha256"]
            if row["seen"]:
                summary.seen[row["seen"]] += 1
        else:
            summary.failed.append((row["image_id"], row["reason"]))
    outputs: dict[str, Any] = {
        predictions.NAME: sha256_of(summary.table),
        "n_done": summary.n_done,
        "n_failed": len(summary.failed),
        "n_seen": {role: summary.seen[role] for role in ("train", "val")},
    }
    path = summary.out / PATIENTS_NAME
    if patients is not None:
        write_whole(path, patients_csv(summary.table, how=patients, task=task))
        summary.patients = path
        outputs |= {PATIENTS_NAME: sha256_of(path), "patients": patients.value}
    elif path.exists():
        earlier = started.get("outputs", {})
        outputs |= {name: earlier[name] for name in (PATIENTS_NAME, "patients") if name in earlier}
    document = lineage.finished(started, images=images, outputs=outputs)
    if document != started:
        lineage.write_lineage(summary.out, document)
    clear_parts(summary.out)


def lineage_now(made_with: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lineage of a result that begins, as it is read back."""
    document: dict[str, Any] = json.loads(json.dumps(lineage.new_lineage(COMMAND, made_with, packages=PACKAGES)))
    return document

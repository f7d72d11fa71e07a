"""Images to ``predictions.csv``: a bounded number at once, in chunks that are finished once and for all.

A chunk's rows are a file in a hidden folder, written whole and named by what they are of: ids, paths, sizes and times
of the files. The same call after an interruption goes on behind the finished chunks, and puts the same bytes together.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medtool import lineage
from medtool.errors import InputError, MedtoolError, reason_of
from medtool.images.reader import read_image
from medtool.protocols import Steps
from medtool.runs import predictions
from medtool.runs.asked import Asked, Labels, check_columns, encoded
from medtool.runs.predictions import Prediction
from medtool.runs.preprocessing import Pixels, Preprocessing, prepared
from medtool.storage import PARTS_NAME, locked, make_folder, sweep_temporaries, write_whole
from medtool.train.decide import decisions_of, names_of
from medtool.train.ensemble import Ensemble, Member
from medtool.train.predict_folder import Summary, conclude, content_of, lineage_now, opened, put_together, still_holds
from medtool.train.predict_options import PredictOptions

CHUNK = 256  # images that are finished together
_AHEAD = 3  # batches that are read before they are asked for
_SEEN = {"train": "the run was trained on this very image", "val": "the run was chosen by this very image"}
_NOT_FINITE = "the network's output for it is not a finite number"


@dataclass(frozen=True)
class Job:
    """Where predictions go, and what the runs are known to have seen.

    Attributes
    ----------
    out
        The result's folder.
    unit
        The manifest's column that says whose images belong together.
    seen_contents
        Train or val by the SHA-256 of each image that a run has seen.
    made_from
        JSON-ready facts for the lineage, such as marks of leaks.
    """

    out: Path
    unit: str = "patient"
    seen_contents: Mapping[str, str] = field(default_factory=dict)
    made_from: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Watch:
    """Who is told what happens: ``say`` takes a line, ``steps`` the number of images and gives the progress."""

    say: Callable[[str], None]
    steps: Callable[[int], AbstractContextManager[Steps]]


def predict_images(
    asked: Sequence[Asked], members: Sequence[Member], options: PredictOptions, *, job: Job, watch: Watch
) -> Summary:
    """Predict images into ``job.out``, going on where an earlier call was stopped.

    Parameters
    ----------
    asked
        In the order of the result; ids are unique.

    Raises
    ------
    LineageError
        If the folder holds a result of other runs, options or images.
    UsageError
        If the networks take columns of a manifest that some images do not have.
    InputError
        With ``strict``, at the first image that fails; or if a checkpoint is damaged.
    OutputError
        If a result cannot be written; what is finished is kept.
    """
    labels = Labels.of([member.run for member in members])
    made_with = {
        "members": [member.document() for member in members],
        "options": {
            "tta": options.views.value,
            "calibrate": options.calibrate,
            "allow_seen": options.allow_seen,
            "device": options.device.partition(":")[0],
            "precision": options.precision,
            "channels_last": options.channels_last,
        },
        "unit": job.unit,
        "images": lineage.digest_of(_facts(asked)),
        **job.made_from,
    }
    ensemble = Ensemble(members, options, say=watch.say)
    check_columns(asked, ensemble.columns)
    now = lineage_now(made_with)
    summary = Summary(job.out)
    for each in asked:
        label = each.columns.get("label", "")
        if not labels.is_known(label):
            summary.unknown_labels[label] += 1
    make_folder(job.out)
    with locked(job.out):
        sweep_temporaries(job.out)
        before = opened(job.out, now, overwrite=options.overwrite)
        if before is not None and before["status"] == "finished":
            summary.was_finished = still_holds(job.out, before, asked, threads=options.n_threads)
        started = before
        if started is None or (started["status"] == "finished" and not summary.was_finished):
            started = now
            lineage.write_lineage(job.out, started)
        if not summary.was_finished:
            with watch.steps(len(asked)) as progress:
                parts = _Work(ensemble, options, job, labels, progress).run(asked)
            header = predictions.header_line(ensemble.classes, has_logits=ensemble.is_lone)
            put_together(job.out, header, parts)
        conclude(summary, started, patients=options.patients, task=ensemble.task)
    return summary


def _facts(asked: Sequence[Asked]) -> Iterator[str]:
    """Yield a line on each image, ordered by id: whatever of the result is known before the files are read."""
    for each in sorted(asked, key=lambda one: one.image_id):
        cells = (f"{name}={value}" for name, value in sorted(each.columns.items()))
        yield "\0".join((each.image_id, each.split, each.seen, *cells))


@dataclass(frozen=True, slots=True)
class _Read:
    """An image as it came from the disk: pixels by the key of each preprocessing, or a reason."""

    sha256: str
    pixels: Mapping[str, Pixels] = field(default_factory=dict)
    reason: str = ""
    seen: str = ""


@dataclass(frozen=True)
class _Chunk:
    """Some images that are finished together, and the file that then holds their rows."""

    rows: Sequence[Asked]
    part: Path


class _Work:
    """The way from images to the parts of the table."""

    def __init__(self, ensemble: Ensemble, options: PredictOptions, job: Job, labels: Labels, progress: Steps) -> None:
        self._ensemble = ensemble
        self._options = options
        self._job = job
        self._labels = labels
        self._progress = progress

    def run(self, asked: Sequence[Asked]) -> list[Path]:
        """Return the parts, in order, once all of them are there."""
        parts: list[Path] = []
        make_folder(self._job.out / PARTS_NAME)
        rows: list[Prediction] = []
        with closing(self._read_ahead(self._unfinished(asked, parts))) as stream:
            for chunk, start, outcomes in stream:
                found = self._answered(chunk.rows[start : start + len(outcomes)], outcomes)
                if self._options.strict:
                    _refuse_failures(found)
                rows += found
                for each in found:
                    self._progress.advance(each.image_id)
                if len(rows) == len(chunk.rows):
                    data = predictions.csv_lines(rows, self._ensemble.classes, has_logits=self._ensemble.is_lone)
                    write_whole(chunk.part, data)
                    rows = []
        return parts

    def _unfinished(self, asked: Sequence[Asked], parts: list[Path]) -> Iterator[_Chunk]:
        """Yield the chunks that are left to do, and note the part of each chunk."""
        folder = self._job.out / PARTS_NAME
        for start in range(0, len(asked), CHUNK):
            rows = asked[start : start + CHUNK]
            part = folder / f"{start // CHUNK:08}-{_key_of(rows)}.csv"
            parts.append(part)
            if not part.exists():
                yield _Chunk(rows, part)
                continue
            for each in rows:
                self._progress.advance(each.image_id)

    def _read_ahead(self, chunks: Iterator[_Chunk]) -> Generator[tuple[_Chunk, int, list[_Read]]]:
        """Yield a batch of images at a time with its place in its chunk; few batches are in memory at once."""
        size, threads = self._options.n_batch, self._options.n_threads
        batches = ((chunk, start) for chunk in chunks for start in range(0, len(chunk.rows), size))
        ahead = max(_AHEAD, -(-2 * threads // size))
        waiting: deque[tuple[_Chunk, int, list[Future[_Read]]]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="medtool-images") as pool:
            try:
                while True:
                    while len(waiting) < ahead and (batch := next(batches, None)) is not None:
                        chunk, start = batch
                        rows = chunk.rows[start : start + size]
                        waiting.append((chunk, start, [pool.submit(self._read, each) for each in rows]))
                    if not waiting:
                        return
                    chunk, start, futures = waiting.popleft()
                    yield chunk, start, [future.result() for future in futures]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, asked: Asked) -> _Read:
        if asked.reason or asked.path is None:
            return _Read("", reason=asked.reason)
        try:
            image = read_image(asked.path)
            seen = self._job.seen_contents.get(image.sha256, "")
            if seen and not self._options.allow_seen:
                return _Read(image.sha256, reason=_SEEN[seen])
            ways: Mapping[str, Preprocessing] = self._ensemble.preprocessings
            return _Read(image.sha256, {key: prepared(image.rgb, way) for key, way in ways.items()}, seen=seen)
        except (MedtoolError, OSError) as error:
            return _Read(content_of(asked.path), reason=reason_of(error))

    def _answered(self, asked: Sequence[Asked], outcomes: Sequence[_Read]) -> list[Prediction]:
        """Return a row for each image of a batch."""
        ensemble = self._ensemble
        reasons = [outcome.reason for outcome in outcomes]
        metadata = encoded(asked, reasons, ensemble.columns, ensemble.metadata_of)
        good = [place for place, reason in enumerate(reasons) if not reason]
        found: dict[int, tuple[str, tuple[float, ...], tuple[float, ...]]] = {}
        if good:
            images = {
                key: torch.from_numpy(np.stack([outcomes[place].pixels[key] for place in good]))
                for key in ensemble.preprocessings
            }
            answer = ensemble.answer(images, [None if each is None else each[good] for each in metadata])
            p = answer.probabilities
            decisions = decisions_of(p, ensemble.thresholds, task=ensemble.task, classes=ensemble.classes)
            given = names_of(decisions, ensemble.classes)
            for row, place in enumerate(good):
                if np.isfinite(p[row]).all():
                    logits = () if answer.logits is None else tuple(answer.logits[row].astype(float).tolist())
                    found[place] = given[row], tuple(p[row].tolist()), logits
                else:
                    reasons[place] = _NOT_FINITE
        rows = []
        for place, (each, outcome) in enumerate(zip(asked, outcomes, strict=True)):
            predicted, probabilities, logits = found.get(place, ("", (), ()))
            roles = (each.seen, outcome.seen)
            rows.append(
                Prediction(
                    image_id=each.image_id,
                    image=each.image,
                    patient=each.columns.get(self._job.unit, ""),
                    split=each.split,
                    label=self._labels.known(each.columns.get("label", "")),
                    reason=reasons[place],
                    predicted=predicted,
                    probabilities=probabilities,
                    logits=logits,
                    seen=next((role for role in ("train", "val") if role in roles), ""),
                    image_sha256=outcome.sha256,
                )
            )
        return rows


def _refuse_failures(rows: Sequence[Prediction]) -> None:
    for row in rows:
        if row.reason:
            raise InputError(f"{row.image_id}: {row.reason}", hint="leave out --strict to go on with the others")


def _key_of(rows: Sequence[Asked]) -> str:
    """Return what decides a chunk's rows, as part of a file's name: which images, and whether a file has changed."""
    return lineage.digest_of(f"{each.image_id}\0{each.path}\0{each.reason}\0{_stamp(each.path)}" for each in rows)[:32]


def _stamp(path: Path | None) -> str:
    try:
        status = os.stat(path) if path is not None else None  # noqa: PTH116 - half the time of Path.stat
    except OSError:
        return "missing"
    return "" if status is None else f"{status.st_size} {status.st_mtime_ns}"

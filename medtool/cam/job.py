"""Images to ``cams.h5``: what is cached already is kept, the rest is made, a bounded number of images at once.

Which images pass through the network together depends on the list of images alone, never on what is cached: where an
image of a batch is kept or cannot be read, its place is left blank. So the result of an interrupted call equals that of
one that was not, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtool import lineage
from medtool.cam.ensemble import HeatmapEnsemble, Made, layers_of
from medtool.cam.options import TRUE_LABEL, CamOptions
from medtool.cam.store import Known, Store, open_store
from medtool.errors import InputError, MedtoolError, UsageError, reason_of
from medtool.hdf5 import MAX_TEXT_BYTES
from medtool.heatmaps.format import Flag, Head, HeatmapAttributes, Row, fault_of_id
from medtool.heatmaps.reading import open_heatmaps
from medtool.heatmaps.writing import Layout
from medtool.images.reader import read_image
from medtool.protocols import Steps
from medtool.runs.asked import Asked, Labels, check_columns, encoded
from medtool.runs.folder import Run
from medtool.runs.preprocessing import Pixels, prepared
from medtool.storage import sha256_of

COMMAND = "cam"
#: Changes whenever the same network and image may give another map.
METHODS_VERSION = 1
PACKAGES = ("torch", "timm", "grad-cam", "numpy", "Pillow", "h5py")

_AHEAD = 3  # batches that are read before they are asked for
_PART_S, _PART_ROWS, _PART_BYTES = 5.0, 1024, 16 << 20  # a part is written after so long, or when it is so large
_MAX_NAMED = 10_000  # failures that the lineage names


@dataclass(frozen=True)
class Job:
    """Where heatmaps go, and what the runs are known to have seen.

    Attributes
    ----------
    out
        The cache, usually named ``cams.h5``.
    seen_contents
        Train or val by the SHA-256 of each image that a run has seen.
    made_from
        JSON-ready facts for the lineage, such as marks of leaks.
    """

    out: Path
    seen_contents: Mapping[str, str] = field(default_factory=dict)
    made_from: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Watch:
    """Who is told what happens: ``say`` takes a line, ``steps`` the number of images and gives the progress."""

    say: Callable[[str], None]
    steps: Callable[[int], AbstractContextManager[Steps]]


@dataclass
class Summary:
    """What a call came to.

    Attributes
    ----------
    n_made, n_kept
        Images whose heatmaps were made now, and were there before.
    n_others
        Images in the cache that were not asked for.
    failed
        Ids and reasons.
    flagged
        How many maps of the images asked for have each flag.
    seen
        How many of these images a run has seen: by ``train`` and ``val``.
    was_finished
        Whether there was nothing left to do.
    """

    out: Path
    n_made: int = 0
    n_kept: int = 0
    n_others: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    flagged: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    size: tuple[int, int] = (0, 0)
    was_finished: bool = False


def make_heatmaps(
    asked: Sequence[Asked], runs: Sequence[Run], options: CamOptions, *, job: Job, watch: Watch
) -> Summary:
    """Make the heatmaps of images into ``job.out``, keeping those that are there.

    Parameters
    ----------
    asked
        Ids are unique.
    runs
        Whose heatmaps are averaged; trained for the same classes.

    Raises
    ------
    LineageError
        If the cache was made with other weights or options.
    UsageError
        If the options do not fit the runs, or the networks take columns of a manifest that some images do not have.
    InputError
        With ``strict``, at the first image that fails; or if a checkpoint is damaged.
    BusyError
        If another process works on the cache.
    OutputError
        If it cannot be written; what is finished is kept.
    """
    if job.out.is_dir():
        raise UsageError(
            f"--out {job.out} is a folder, and heatmaps go into one file", hint=f"--out {job.out / 'cams.h5'}"
        )
    if job.out.exists() and not job.out.is_file():
        raise UsageError(f"--out {job.out} is a device or a pipe, and heatmaps go into a file")
    asked = sorted(asked, key=lambda one: one.image_id)
    now = lineage_of(runs, options, job)
    with open_store(job.out) as store:
        for note in store.load(now, overwrite=options.overwrite):
            watch.say(note)
        ensemble = HeatmapEnsemble(runs, options, say=watch.say)
        check_columns(asked, ensemble.columns)
        with watch.steps(len(asked)) as progress:
            work = _Work(ensemble, runs, options, job=job, store=store, progress=progress)
            work.run(asked)
        return _concluded(work, store, asked, now)


def lineage_of(runs: Sequence[Run], options: CamOptions, job: Job) -> dict[str, Any]:
    """Return the lineage of a cache that begins, as it is read back; it does not depend on the images."""
    made_with = {
        "members": {
            str(number): {
                "model": run.card.architecture,
                "checkpoint_sha256": run.card.sha256,
                "preprocessing": run.card.preprocessing.document(),
                "layers": list(layers_of(run, options)),
            }
            for number, run in enumerate(runs)
        },
        "classes": list(runs[0].card.classes),
        "methods": METHODS_VERSION,
        "options": {
            "method": options.method.value,
            "target": options.target,
            "scales": list(options.scales),
            "flip": options.flip,
            "uncertainty": options.uncertainty,
            "device": options.device.partition(":")[0],
            "precision": options.precision,
            "channels_last": options.channels_last,
        },
        "oracle": options.target == TRUE_LABEL,
        **job.made_from,
    }
    document: dict[str, Any] = json.loads(json.dumps(lineage.new_lineage(COMMAND, made_with, packages=PACKAGES)))
    return document


def attributes_of(runs: Sequence[Run], options: CamOptions) -> HeatmapAttributes:
    """Return what the cache says of its maps: lists are joined by commas, or are hashed where they are too long."""
    preprocessings = [run.card.preprocessing.document() for run in runs]
    different = [each for place, each in enumerate(preprocessings) if each not in preprocessings[:place]]
    multi_scale = ""
    if options.n_views > 1:
        multi_scale = json.dumps({"scales": list(options.scales), "flip": options.flip})
    return HeatmapAttributes(
        method=options.method.value,
        weights=_short(",".join(run.card.sha256 for run in runs)),
        preprocessing=_short(json.dumps(different[0] if len(different) == 1 else different)),
        layer=_short(",".join(dict.fromkeys(name for run in runs for name in layers_of(run, options)))),
        target=options.class_name or options.target,
        multi_scale=multi_scale,
    )


def _short(text: str) -> str:
    if len(text.encode()) <= MAX_TEXT_BYTES:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class _Read:
    """An image as it came from the disk: pixels by the key of each preprocessing, or a reason, or the word to keep."""

    sha256: str
    pixels: Mapping[str, Pixels] = field(default_factory=dict)
    reason: str = ""
    is_kept: bool = False


@dataclass(frozen=True)
class _Batch:
    """Images that pass through the network together, with all that is known before they are read.

    Attributes
    ----------
    reasons
        Why an image cannot be used; empty where it may be tried.
    metadata
        As of :meth:`HeatmapEnsemble.metadata_of`.
    labels
        The class of each image, where the true one is the target; else None.
    keys
        As of :class:`medtool.heatmaps.format.Row`.
    """

    rows: Sequence[Asked]
    reasons: list[str]
    metadata: list[npt.NDArray[np.float32] | None]
    labels: npt.NDArray[np.int64] | None
    keys: Sequence[int]


class _Work:
    """The way from images to parts of the cache.

    Attributes
    ----------
    head, layout
        Of the cache.
    made, kept
        Ids, in the order of the work.
    failed
        Ids and reasons.
    seen
        What is known of each image's being seen, by id.
    """

    def __init__(
        self,
        ensemble: HeatmapEnsemble,
        runs: Sequence[Run],
        options: CamOptions,
        *,
        job: Job,
        store: Store,
        progress: Steps,
    ) -> None:
        self._ensemble = ensemble
        self._options = options
        self._job = job
        self._store = store
        self._progress = progress
        self._labels = Labels.of(runs)
        self._has_keys = bool(ensemble.columns) or options.target == TRUE_LABEL
        self.head = Head(attributes_of(runs, options), ensemble.asked_classes)
        longest = max((len(name.encode()) for name in ensemble.classes), default=0)
        self.layout = Layout(0, ensemble.size, 0, longest, options.uncertainty, self._has_keys)
        self.made: list[str] = []
        self.kept: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.seen: dict[str, str] = {}

    def run(self, asked: Sequence[Asked]) -> None:
        """Make what is missing, and write it in parts."""
        waiting: list[Row] = []
        last = time.monotonic()
        height, width = self._ensemble.size
        most = min(_PART_ROWS, max(1, _PART_BYTES // (4 * height * width * max(1, len(self.head.classes)))))
        with closing(self._read_ahead(asked)) as stream:
            for batch, outcomes in stream:
                waiting += self._made(batch, outcomes)
                if waiting and (time.monotonic() - last >= _PART_S or len(waiting) >= most):
                    self._write(waiting)
                    waiting = []
                    last = time.monotonic()
        if waiting:
            self._write(waiting)

    def _write(self, rows: Sequence[Row]) -> None:
        self._store.add(self.head, rows, layout=self.layout_of(len(rows), (row.image_id for row in rows)))

    def layout_of(self, n: int, ids: Iterator[str]) -> Layout:
        """Return the layout of a file of these images."""
        longest = max((len(each.encode("utf-8", "surrogateescape")) for each in ids), default=0)
        plain = self.layout
        return Layout(n, plain.size, longest, plain.target_bytes, plain.has_spread, plain.has_keys)

    def _read_ahead(self, asked: Sequence[Asked]) -> Generator[tuple[_Batch, list[_Read]]]:
        """Yield a batch at a time; few batches are in memory at once."""
        size, threads = self._options.n_batch, self._options.n_threads
        starts = iter(range(0, len(asked), size))
        ahead = max(_AHEAD, -(-2 * threads // size))
        waiting: deque[tuple[_Batch, list[Future[_Read]]]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="medtool-images") as pool:
            try:
                while True:
                    while len(waiting) < ahead and (start := next(starts, None)) is not None:
                        batch = self._prepared(asked[start : start + size])
                        futures = [
                            pool.submit(self._read, *each)
                            for each in zip(batch.rows, batch.reasons, batch.keys, strict=True)
                        ]
                        waiting.append((batch, futures))
                    if not waiting:
                        return
                    batch, futures = waiting.popleft()
                    yield batch, [future.result() for future in futures]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _prepared(self, rows: Sequence[Asked]) -> _Batch:
        reasons = [each.reason or _fault_of_name(each.image_id) for each in rows]
        metadata = encoded(rows, reasons, self._ensemble.columns, self._ensemble.metadata_of)
        labels = self._label_places(rows, reasons) if self._options.target == TRUE_LABEL else None
        keys = [0] * len(rows)
        if self._has_keys:
            keys = [self._key(place, metadata, labels) for place in range(len(rows))]
        return _Batch(rows, reasons, metadata, labels, keys)

    @staticmethod
    def _key(
        place: int, metadata: Sequence[npt.NDArray[np.float32] | None], labels: npt.NDArray[np.int64] | None
    ) -> int:
        digest = hashlib.sha256()
        for numbers in metadata:
            digest.update(b"-" if numbers is None else np.ascontiguousarray(numbers[place], "<f4").tobytes())
        digest.update(b"" if labels is None else int(labels[place]).to_bytes(8, "little"))
        return int.from_bytes(digest.digest()[:8], "little")

    def _label_places(self, rows: Sequence[Asked], reasons: list[str]) -> npt.NDArray[np.int64]:
        """Return the place of each image's label among the classes; an image without one gets its reason."""
        places = np.zeros(len(rows), np.int64)
        classes = self._ensemble.classes
        for place, each in enumerate(rows):
            label = each.columns.get("label", "")
            known = self._labels.known(label).strip()
            if known in classes:
                places[place] = classes.index(known)
            else:
                what = f"its label {label!r} is none of the run's classes" if label.strip() else "it has no label"
                reasons[place] = reasons[place] or f"{what}, and --target {TRUE_LABEL} asks for it"
        return places

    def _read(self, asked: Asked, reason: str, key: int) -> _Read:
        if reason or asked.path is None:
            return _Read("", reason=reason)
        try:
            known = self._store.known.get(asked.image_id)
            if known is not None and self._is_kept(known, asked.path, key):
                return _Read(known.image_sha256, is_kept=True)
            image = read_image(asked.path)
            ways = self._ensemble.preprocessings
            return _Read(image.sha256, {name: prepared(image.rgb, way) for name, way in ways.items()})
        except (MedtoolError, OSError) as error:
            return _Read("", reason=reason_of(error))

    @staticmethod
    def _is_kept(known: Known, path: Path, key: int) -> bool:
        return known.key == key and path.is_file() and sha256_of(path) == known.image_sha256

    def _made(self, batch: _Batch, outcomes: Sequence[_Read]) -> list[Row]:
        """Return the new rows of a batch, and note what became of the others."""
        new: list[int] = []
        for place, (each, outcome) in enumerate(zip(batch.rows, outcomes, strict=True)):
            if outcome.reason:
                if self._options.strict:
                    raise InputError(
                        f"{each.image_id}: {outcome.reason}", hint="leave out --strict to go on with the others"
                    )
                stays = "; the heatmap of its earlier contents stays" if self._stays(batch, place) else ""
                self.failed.append((each.image_id, outcome.reason + stays))
            else:
                self.seen[each.image_id] = self._seen(each, outcome.sha256)
                if outcome.is_kept:
                    self.kept.append(each.image_id)
                else:
                    new.append(place)
        rows = self._rows(batch, outcomes, new) if new else []
        self.made += [row.image_id for row in rows]
        for each in batch.rows:
            self._progress.advance(each.image_id)
        return rows

    def _stays(self, batch: _Batch, place: int) -> bool:
        """Return whether an image that cannot be used keeps an earlier map, and forget the map if it does not.

        A map says which image file it is of, and is right for that one; of which label or metadata it is, it does not.
        """
        asked = batch.rows[place]
        known = self._store.known.get(asked.image_id)
        if known is None:
            return False
        is_misfit = bool(batch.reasons[place]) and not asked.reason
        if is_misfit or known.key != batch.keys[place]:
            del self._store.known[asked.image_id]
            return False
        return True

    def _seen(self, asked: Asked, sha256: str) -> str:
        roles = (asked.seen, self._job.seen_contents.get(sha256, ""))
        return next((role for role in ("train", "val") if role in roles), "")

    def _rows(self, batch: _Batch, outcomes: Sequence[_Read], new: Sequence[int]) -> list[Row]:
        images = {}
        for name, way in self._ensemble.preprocessings.items():
            stack = np.zeros((len(batch.rows), 3, way.height, way.width), np.uint8)
            for place in new:
                stack[place] = outcomes[place].pixels[name]
            images[name] = torch.from_numpy(stack)
        made = self._ensemble.make(images, batch.metadata, labels=batch.labels)
        return [self._row(batch, outcomes[place].sha256, made, place) for place in new]

    def _row(self, batch: _Batch, sha256: str, made: Made, place: int) -> Row:
        image_id = batch.rows[place].image_id
        is_one = not self._ensemble.asked_classes
        return Row(
            image_id,
            sha256,
            made.raw[place],
            made.scores[place],
            made.flags[place],
            None if made.spread is None else made.spread[place],
            self._ensemble.classes[int(made.targets[place, 0])] if is_one else "",
            self.seen[image_id],
            batch.keys[place],
        )


def _fault_of_name(image_id: str) -> str:
    """Return why an image cannot be in a cache by this id; empty if it can."""
    fault = fault_of_id(image_id)
    return f"its id {fault}" if fault else ""


def _concluded(work: _Work, store: Store, asked: Sequence[Asked], now: Mapping[str, Any]) -> Summary:
    """Write the cache, unless it is what it was, and count what it holds."""
    summary = Summary(store.out, len(work.made), len(work.kept), failed=work.failed, size=work.layout.size)
    summary.seen = Counter(role for role in work.seen.values() if role)
    names = {each.image_id for each in asked}
    before = store.before or {}
    earlier: dict[str, str] = before.get("outputs", {}).get("failed", {})
    failed = {name: reason for name, reason in earlier.items() if name not in names and name not in store.known}
    failed |= dict(work.failed)
    summary.n_others = sum(name not in names for name in store.known)
    document = lineage.finished(
        now,
        images={name: known.image_sha256 for name, known in store.known.items()},
        outputs={
            "n_done": len(store.known),
            "n_failed": len(failed),
            "failed": dict(sorted(failed.items())[:_MAX_NAMED]),
            "n_seen": dict(sorted(Counter(_roles(work, store)).items())),
        },
    )
    said = {**before, "packages": document["packages"], "medtool": document["medtool"]}
    is_seen_alike = all(store.known[name].seen == role for name, role in work.seen.items())
    summary.was_finished = not store.has_parts and document == said and is_seen_alike
    if not summary.was_finished:
        head = Head(work.head.attributes, work.head.classes, json.dumps(document).encode())
        store.finish(head, work.seen, layout=work.layout_of(len(store.known), iter(store.known)))
    with open_heatmaps(store.out) as file:
        flags = file.flags()
        for number in np.flatnonzero(flags.any(axis=1)).tolist():
            if file.ids[number] in names:
                summary.flagged.update(Flag(flag).name.lower() for flag in flags[number] if flag)
    return summary


def _roles(work: _Work, store: Store) -> Iterator[str]:
    for name, known in store.known.items():
        role = work.seen.get(name, known.seen)
        if role:
            yield role

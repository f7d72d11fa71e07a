"""One training from a manifest to a finished run folder; the same call goes on with what an interrupted one left."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from PIL import Image as Pillow
from torch import nn

from medtool import lineage
from medtool.architectures.metadata import MetadataEncoder
from medtool.errors import InputError, LineageError, MedtoolError, OutputError, UsageError
from medtool.manifest import Manifest
from medtool.protocols import Problem
from medtool.runs import checkpoints
from medtool.runs.checkpoints import Card
from medtool.runs.network import build, sized, start_from
from medtool.runs.preprocessing import Preprocessing, read_picture
from medtool.storage import locked, make_folder, sweep_temporaries, write_json, write_whole
from medtool.train import outcome
from medtool.train.batches import Batches
from medtool.train.choices import TrackerName
from medtool.train.curves import as_png, as_svg, curves
from medtool.train.environment import environment_of
from medtool.train.freezing import check_unfreezing
from medtool.train.loop import RESUME_NAME, Fitted, Lessons, Training, Watch
from medtool.train.material import Material, check_metadata, look_at_images, material_of
from medtool.train.metrics import is_higher_better
from medtool.train.options import TrainOptions, WorkOptions
from medtool.train.pictures import Pictures
from medtool.train.preview import preview_sheet
from medtool.train.sampling import epoch_order
from medtool.train.team import Alone, Team
from medtool.train.trackers import FOLDERS as TRACKERS_FOLDERS
from medtool.train.trackers import NAME as TRACKERS_NAME
from medtool.train.trackers import Trackers

CONFIG_NAME = "config.toml"
SPLIT_NAME = "split.csv"
ENVIRONMENT_NAME = "environment.json"
METRICS_NAME = "metrics.jsonl"
CURVES_NAME, CURVES_PNG_NAME = "curves.svg", "curves.png"
_FILES = (
    CONFIG_NAME,
    SPLIT_NAME,
    ENVIRONMENT_NAME,
    METRICS_NAME,
    CURVES_NAME,
    CURVES_PNG_NAME,
    RESUME_NAME,
    TRACKERS_NAME,
    "seen.csv",
)
_PREVIEWED = 8
PACKAGES = ("torch", "timm", "numpy")


@dataclass(frozen=True)
class Start:
    """The weights that a training starts from; with none of these it starts from chance.

    Attributes
    ----------
    pretrained
        A file of published weights, for the backbone.
    checkpoint
        The weights' file of a checkpoint of another run.
    """

    pretrained: Path | None = None
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Job:
    """Where a run goes, and what it is made from beside the manifest and the options.

    Attributes
    ----------
    out
        The run's folder.
    start
        The weights to start from.
    fold
        Which fold is held out; None without folds.
    unit
        The column that says whose images belong together.
    config
        The resolved options as the command line takes them, for ``config.toml``.
    trackers
        Programs that are told of each epoch.
    overwrite
        Whether to replace another run in ``out``.
    """

    out: Path
    start: Start = Start()
    fold: int | None = None
    unit: str = "patient"
    config: Mapping[str, Any] = field(default_factory=dict)
    trackers: tuple[TrackerName, ...] = ()
    overwrite: bool = False


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Attributes
    ----------
    checkpoint
        The best one.
    card
        What is known of it.
    scores
        Of the parts val and test, as in ``scores.json``.
    problems
        Images that could not be used.
    n_unlabelled
        Rows with a part and no label, which were left out.
    was_finished
        Whether there was nothing left to do.
    """

    out: Path
    checkpoint: Path
    card: Card
    scores: Mapping[str, Any]
    problems: tuple[Problem, ...]
    n_unlabelled: int
    was_finished: bool


OnContents = Callable[[Mapping[str, str], Mapping[str, str]], Mapping[str, Any]]
OnImages = Callable[[Mapping[str, str]], None]


def train_run(
    manifest: Manifest,
    roles: pl.Series,
    options: TrainOptions,
    work: WorkOptions,
    *,
    job: Job,
    watch: Watch,
    on_contents: OnContents,
    on_images: OnImages,
    team: Team | None = None,
) -> Summary:
    """Train a network, choose its best epoch on the val part, calibrate it there, and score it on the test part once.

    Parameters
    ----------
    roles
        Train, val, test or an empty text for each row of the manifest, as of :func:`medtool.roles.roles_of`.
    on_contents
        Takes the SHA-256 of each image file that is used and its part, both by id, before anything is written; it may
        refuse them, and returns JSON-ready facts for the lineage: the marks of leaks.
    on_images
        Takes the SHA-256 of each image file that is used, by its id, before the training begins.
    team
        The processes that train together; each makes this call, and one of them writes.

    Raises
    ------
    LineageError
        If the folder holds the run of other options or other images.
    MedtoolError
        See :class:`medtool.train.loop.Training`, :func:`medtool.train.material.material_of` and the like.
    """
    team = team or Alone(work.device)
    check_unfreezing(options.unfreeze, options.epochs)
    material = _material(manifest, roles, options, unit=job.unit)
    card, encoder = _card(material, options)
    network = _fresh(card, job.start, seed=options.seed, say=watch.say)
    pictures = Pictures(
        material.paths,
        card.preprocessing,
        cache=work.cache,
        limit_bytes=int(work.cache_gib * 2**30),
        folder=work.cache_folder,
    )
    with _held(job.out, team):
        material = look_at_images(material, pictures, threads=work.n_threads, steps=watch.steps, team=team)
        hashes = _hashes(material, pictures)
        made_with = {
            "options": options.document(),
            "precision": work.precision,
            "fold": job.fold,
            "start": _describe(job.start),
            "classes": list(material.classes),
            "split": _split_digest(material, hashes),
            **on_contents(
                hashes, {name: role for name, role in zip(material.ids, material.roles, strict=True) if role}
            ),
        }
        started = _claim(job, made_with, team)
        if started["status"] == "finished":
            if team.rank == 0:
                (job.out / RESUME_NAME).unlink(missing_ok=True)  # a call that was killed at its very end left it
            return _summary(job.out, material, was_finished=True)
        _prepare_torch(work)
        if team.rank == 0:
            on_images(hashes)
            _write_opening(job, material, work, n_processes=team.size)
        team.wait()
        metadata = None if encoder is None else encoder.encode(material.table)
        batches = Batches(pictures, material.targets, metadata, batch_size=options.batch_size, threads=work.n_threads)
        names = job.trackers if team.rank == 0 else ()
        trackers = Trackers(names, job.out, config=job.config, warn=watch.say)
        training = Training(
            network,
            _lessons(material, batches),
            options,
            work,
            card=card,
            augment=options.augmentation,
            folder=job.out,
            watch=Watch(watch.say, watch.steps, _recorder(job.out, watch, trackers)),
            team=team,
        )
        with trackers.begun(training.history):
            fitted = training.run()
            if team.rank == 0:
                _finish(
                    job.out,
                    fitted,
                    material=material,
                    batches=batches,
                    options=options,
                    work=work,
                    hashes=hashes,
                    started=started,
                    watch=watch,
                    trackers=trackers,
                )
        team.wait()
    return _summary(job.out, material, was_finished=False)


def _material(manifest: Manifest, roles: pl.Series, options: TrainOptions, *, unit: str) -> Material:
    """Return the material, and refuse what cannot be monitored or encoded, before any image is read."""
    is_higher_better(options.monitor)
    material = material_of(manifest, roles, task=options.task, positive=options.positive, unit=unit)
    if options.monitor.partition("/")[2] not in ("", *material.classes):
        raise UsageError(f"--monitor {options.monitor}: the classes are {', '.join(material.classes)}")
    check_metadata(material.table, options.metadata)
    return material


def _card(material: Material, options: TrainOptions) -> tuple[Card, MetadataEncoder | None]:
    """Return what will be known of every checkpoint, and how metadata are encoded, by the train part alone."""
    architecture = sized(options.model, options.size_px, metadata=options.metadata)
    height, width = architecture.input.size
    encoder = None
    if options.metadata:
        encoder = MetadataEncoder.fit(material.table[material.places("train").tolist()], options.metadata)
    card = Card(
        architecture=options.model,
        task=options.task,
        classes=material.classes,
        preprocessing=Preprocessing(height, width, architecture.input.mean, architecture.input.std, options.stain),
        metadata=None if encoder is None else encoder.document(),
        epoch=0,
        monitor=options.monitor.replace("/", "-"),
        score=0.0,
        seed=options.seed,
    )
    return card, encoder


@contextlib.contextmanager
def _held(out: Path, team: Team) -> Iterator[None]:
    """Hold the folder for the team: its first process has the lock."""
    if team.rank:
        yield
        return
    make_folder(out)
    with locked(out):
        sweep_temporaries(out, below=(checkpoints.FOLDER,))
        yield


def _hashes(material: Material, pictures: Pictures) -> dict[str, str]:
    return {
        name: sha256 for name, sha256, role in zip(material.ids, pictures.sha256s, material.roles, strict=True) if role
    }


def _split_digest(material: Material, hashes: Mapping[str, str]) -> str:
    """Return one hash over every used image's id, content, part, and what is learnt of it."""
    rows = zip(material.ids, material.roles, material.targets.astype(int).tolist(), strict=True)
    return lineage.digest_of(f"{name}\0{hashes[name]}\0{role}\0{target}" for name, role, target in sorted(rows) if role)


def _describe(start: Start) -> dict[str, Any]:
    for kind, path in (("pretrained", start.pretrained), ("checkpoint", start.checkpoint)):
        if path is not None:
            return {"kind": kind, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return {"kind": "chance", "sha256": None}


def _claim(job: Job, made_with: Mapping[str, Any], team: Team) -> dict[str, Any]:
    """Return the lineage of the run that the folder holds from now on, or has held already."""
    now = lineage.new_lineage("train", made_with, packages=PACKAGES)
    if team.rank:
        team.wait()
        found = lineage.read_lineage(job.out)
        if found is None:
            raise OutputError(f"{job.out} must lie on a file system that all machines of the team share")
        return found
    before = lineage.read_lineage(job.out)
    if before is not None and job.overwrite:
        _clear(job.out)
        before = None
    if before is not None:
        lineage.refuse_other(job.out, before, json.loads(json.dumps(now)))
    else:
        _refuse_foreign(job.out)
        lineage.write_lineage(job.out, now)  # first of all: a folder with anything else and without it is no run
    team.wait()
    return before or now


def _refuse_foreign(out: Path) -> None:
    try:
        others = sorted(path.name for path in out.iterdir() if not path.name.startswith(".medtool-"))
    except OSError as error:
        raise OutputError(f"cannot read {out}: {(error.strerror or str(error)).lower()}") from error
    if others:
        raise LineageError(f"{out} holds {others[0]}, and is no run of medtool", hint="give another folder with --out")


def _clear(out: Path) -> None:
    shutil.rmtree(out / checkpoints.FOLDER, ignore_errors=True)
    for name in TRACKERS_FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (*_FILES, *outcome.NAMES, lineage.LINEAGE_NAME):
        (out / name).unlink(missing_ok=True)


def _write_opening(job: Job, material: Material, work: WorkOptions, *, n_processes: int) -> None:
    make_folder(job.out / checkpoints.FOLDER)
    table = material.table.with_columns(pl.Series("split", material.roles))
    kept = [name for name in ("image_id", "patient", "label", "split") if name in table.columns]
    write_whole(job.out / SPLIT_NAME, table.select(kept).write_csv().encode())
    write_whole(job.out / CONFIG_NAME, toml_of("train", job.config).encode())
    write_json(job.out / ENVIRONMENT_NAME, environment_of(work.device, work.precision, n_processes=n_processes))


def _fresh(card: Card, start: Start, *, seed: int, say: Callable[[str], None]) -> nn.Module:
    torch.manual_seed(seed)
    network = build(card, pretrained=start.pretrained)
    if start.checkpoint is not None:
        left_out = start_from(network, start.checkpoint, card)
        if left_out:
            say(
                f"the classifier of {start.checkpoint.name} is for other classes; it begins anew: {', '.join(left_out)}"
            )
    return network


def _lessons(material: Material, batches: Batches) -> Lessons:
    train = material.places("train")
    patients = material.patients
    return Lessons(
        batches,
        train,
        material.places("val"),
        _rarest(material.targets[train]),
        [patients[place] for place in train],
        material.ids,
    )


def _rarest(targets: npt.NDArray[np.float32]) -> list[int]:
    """Return what each image counts for in sampling: of several labels the rarest; those with none are a class too."""
    rarity = np.argsort(np.argsort(targets.sum(axis=0), kind="stable"), kind="stable")
    rarest = np.where(targets > 0, rarity, len(rarity)).min(axis=1)
    return [int(place) for place in np.unique(rarest, return_inverse=True)[1]]


def _prepare_torch(work: WorkOptions) -> None:
    if work.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it CUDA's matrix products are refused
    torch.use_deterministic_algorithms(work.deterministic)
    torch.backends.cudnn.benchmark = not work.deterministic


def _recorder(out: Path, watch: Watch, trackers: Trackers) -> Callable[[Mapping[str, Any]], None]:
    """Return what writes down each epoch, for people to look at while it goes on."""

    def record(line: Mapping[str, Any]) -> None:
        path = out / METRICS_NAME
        earlier = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        lines = [text for text in earlier if json.loads(text)["epoch"] < line["epoch"]]
        lines.append(json.dumps(line, allow_nan=False))
        write_whole(path, "".join(f"{text}\n" for text in lines).encode())
        trackers.epoch(line)
        watch.epoch(line)

    return record


def _finish(
    out: Path,
    fitted: Fitted,
    *,
    material: Material,
    batches: Batches,
    options: TrainOptions,
    work: WorkOptions,
    hashes: Mapping[str, str],
    started: Mapping[str, Any],
    watch: Watch,
    trackers: Trackers,
) -> None:
    """Reload the best checkpoint, and write all that is said of the run."""
    history = "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in fitted.history)
    write_whole(out / METRICS_NAME, history.encode())
    card = checkpoints.read_card(fitted.best)
    drawing = curves(fitted.history, monitor=options.monitor, best_epoch=card.epoch)
    write_whole(out / CURVES_NAME, as_svg(drawing).encode())
    write_whole(out / CURVES_PNG_NAME, as_png(drawing))
    watch.say(f"epoch {card.epoch} is the best by val {options.monitor}; calibrating and scoring it")
    found = outcome.write_outcome(
        out,
        fitted.best,
        card=card,
        material=material,
        batches=batches,
        options=options,
        work=replace(work, micro_batch=fitted.history[-1]["micro_batch"]),  # what memory turned out to suffice for
        hashes=hashes,
    )
    trackers.conclude(len(fitted.history), card.epoch, outcome.read_scores(out))
    document = lineage.finished(
        started,
        images=hashes,
        outputs={
            "checkpoint": fitted.best.name,
            "checkpoint_sha256": card.sha256,
            "epochs": len(fitted.history),
            "micro_batch": fitted.history[-1]["micro_batch"],
            "n_unreadable": len(material.problems),
            **found,
        },
    )
    lineage.write_lineage(out, document)
    (out / RESUME_NAME).unlink(missing_ok=True)


def _summary(out: Path, material: Material, *, was_finished: bool) -> Summary:
    document = lineage.read_lineage(out)
    assert document is not None
    best = out / checkpoints.FOLDER / document["outputs"]["checkpoint"]
    return Summary(
        out,
        best,
        checkpoints.read_card(best),
        outcome.read_scores(out),
        material.problems,
        material.n_unlabelled,
        was_finished,
    )


def toml_of(table: str, values: Mapping[str, Any]) -> str:
    """Return a table of options as TOML; what is None is left out, as TOML has no word for it."""
    lines = [f"[{table}]"]
    for name, value in values.items():
        if value is not None:
            lines.append(f"{name} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, float) and not isinstance(value, bool):
        return repr(float(value))
    return json.dumps(value, ensure_ascii=False)  # texts, whole numbers and booleans are written alike in both


def draw_preview(manifest: Manifest, roles: pl.Series, options: TrainOptions, path: Path) -> int:
    """Draw the first images of the train part as they are prepared and as the first epochs vary them; return how many.

    Raises
    ------
    InputError
        If none of them can be read.
    """
    material = _material(manifest, roles, options, unit="patient")
    preprocessing = _card(material, options)[0].preprocessing
    train = material.places("train")
    patients = [material.patients[place] for place in train]
    labels = _rarest(material.targets[train])
    order = epoch_order(labels, patients, sampling=options.sampling, seed=options.seed, epoch=1)
    images, positions = [], []
    for position, place in enumerate(train[order].tolist()):
        with contextlib.suppress(MedtoolError, OSError):
            images.append(read_picture(material.paths[place], preprocessing)[0].transpose(1, 2, 0))
            positions.append(position)
        if len(images) == _PREVIEWED:
            break
    if not images:
        raise InputError("no image of the train part can be read")
    sheet = preview_sheet(images, options.augmentation, seed=options.seed, indices=positions)
    stream = io.BytesIO()
    Pillow.fromarray(sheet).save(stream, "PNG")
    write_whole(path, stream.getvalue())
    return len(images)

"""What a training learns from: images of a manifest that can be read, their targets, and what else is known of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from medtool.errors import InputError, ManifestError, MedtoolError, UsageError, reason_of
from medtool.manifest import Manifest
from medtool.protocols import Problem, Steps
from medtool.runs.choices import SEPARATOR, Task
from medtool.train.pictures import Pictures
from medtool.train.team import Alone, Team

ROLES = ("train", "val", "test")
_NOT_METADATA = ("label", "mask", "split", "fold", "val_fold", "image", "image_id", "patient")
_MAKE = "medtool split make MANIFEST, which keeps every class in every part as far as patients allow"


@dataclass(frozen=True, eq=False)
class Material:
    """The rows of a manifest that have a part of the split and a label.

    Attributes
    ----------
    table
        Those rows, in the manifest's order.
    paths
        Of the image files; one that cannot be used has the path where it was looked for.
    roles
        Train, val or test for each; empty once an image has turned out to be unusable.
    classes
        In the order of the targets.
    targets
        Shape ``(n, classes)``, float32: 1 where the label is there.
    unit
        The column that says whose images belong together: patients, or lesions where patients are not known.
    problems
        Images that cannot be used.
    n_unlabelled
        Rows with a part of the split and without a label, which are left out.
    """

    table: pl.DataFrame
    paths: tuple[Path, ...]
    roles: tuple[str, ...]
    classes: tuple[str, ...]
    targets: npt.NDArray[np.float32]
    unit: str
    problems: tuple[Problem, ...] = ()
    n_unlabelled: int = 0

    @property
    def ids(self) -> list[str]:
        """The images' ids."""
        return self.table.get_column("image_id").to_list()

    @property
    def patients(self) -> list[str]:
        """Whose images they are; empty where that is unknown."""
        return self.column(self.unit)

    def column(self, name: str) -> list[str]:
        """Return a column of the manifest; empty texts where there is none."""
        return self.table.get_column(name).to_list() if name in self.table.columns else [""] * len(self.paths)

    def places(self, role: str) -> npt.NDArray[np.int64]:
        """Return where the images of a part are."""
        return np.flatnonzero(np.array(self.roles) == role)


def material_of(
    manifest: Manifest, roles: pl.Series, *, task: Task, positive: str = "", unit: str = "patient"
) -> Material:
    """Return the material of a split, before any image has been opened.

    Parameters
    ----------
    roles
        Train, val, test or an empty text for each row, as of :func:`medtool.roles.roles_of`.
    positive
        The label that is told from the rest; empty tells all apart.

    Raises
    ------
    ManifestError
        If there are no labels, nothing to train or to choose on, or a part lacks a class.
    """
    if "label" not in manifest.columns:
        raise ManifestError(
            f"the manifest has no column 'label' (there are: {', '.join(manifest.columns)})",
            hint="medtool manifest csv, whose options name the column of the labels",
        )
    used = manifest.table.with_columns(roles.alias("_role")).filter(pl.col("_role").is_in(ROLES))
    known = used.filter(pl.col("label").str.strip_chars() != "")
    labels = [label.strip() for label in known.get_column("label")]
    if positive:
        labels, classes = _against_rest(labels, positive)
    else:
        classes = tuple(sorted({name for label in labels for name in _names_in(label, task)}))
    if len(classes) < (2 if task is Task.SINGLE else 1):
        have = f"has {', '.join(classes)} alone" if classes else "is empty"
        raise ManifestError(f"a classifier needs two classes, and the column 'label' {have} in the split's parts")
    targets = targets_of(labels, classes, task=task)
    material = Material(
        known.drop("_role"),
        tuple(manifest.root / image for image in known.get_column("image")),
        tuple(known.get_column("_role")),
        classes,
        targets,
        unit,
        n_unlabelled=used.height - known.height,
    )
    _check_parts(material)
    paths, problems = list(material.paths), []
    for place, image in enumerate(material.table.get_column("image")):
        try:
            paths[place] = manifest.locate(image)
        except MedtoolError as error:
            problems.append((place, reason_of(error)))
    return _without(material, paths, problems)


def targets_of(labels: Sequence[str], classes: Sequence[str], *, task: Task) -> npt.NDArray[np.float32]:
    """Return one-hot or multi-hot targets ``(n, classes)``; a label that is no class raises ``ManifestError``."""
    column = {name: place for place, name in enumerate(classes)}
    targets = np.zeros((len(labels), len(classes)), np.float32)
    for row, label in enumerate(labels):
        for name in _names_in(label, task):
            if name not in column:
                raise ManifestError(f"label {name!r} is none of the classes {', '.join(classes)}")
            targets[row, column[name]] = 1
    return targets


def look_at_images(
    material: Material,
    pictures: Pictures,
    *,
    threads: int,
    steps: Callable[[int, str], AbstractContextManager[Steps]],
    team: Team | None = None,
) -> Material:
    """Read every image once: note its content, fill the cache, and leave out what cannot be read.

    Parameters
    ----------
    team
        Each of its processes reads its share, and all learn what was found.

    Raises
    ------
    InputError
        If so much is left out that a part lacks a class.
    """
    bad = {problem.image_id for problem in material.problems}
    team = team or Alone()
    places = [place for place, name in enumerate(material.ids) if name not in bad][team.rank :: team.size]
    found: list[tuple[int, str, str]] = []

    def look(place: int) -> str:
        try:
            pictures.look(place)
        except (MedtoolError, OSError) as error:
            return reason_of(error)
        return ""

    with ThreadPoolExecutor(threads) as pool, steps(len(places), "reading images") as bar:
        try:
            for place, reason in zip(places, pool.map(look, places), strict=True):
                found.append((place, pictures.sha256s[place], reason))
                bar.advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    problems = []
    for place, sha256, reason in sorted(itertools.chain(*team.gathered(found))):
        pictures.sha256s[place] = sha256
        if reason:
            problems.append((place, reason))
    seen = _without(material, material.paths, problems)
    if problems:
        _check_parts(seen)
    return seen


def check_metadata(table: pl.DataFrame, columns: Sequence[str]) -> None:
    """Refuse metadata columns that are not there, or that say what is to be learnt.

    Raises
    ------
    UsageError
        Naming the column.
    """
    for name in columns:
        if name not in table.columns:
            raise UsageError(
                f"--metadata {name}: the manifest has no such column (there are: {', '.join(table.columns)})"
            )
        if name in _NOT_METADATA:
            raise UsageError(f"--metadata {name}: this column names or places the image, and describes nothing of it")


def _names_in(label: str, task: Task) -> list[str]:
    parts = label.split(SEPARATOR) if task is Task.MULTI else [label]
    return [part.strip() for part in parts if part.strip()]


def _against_rest(labels: Sequence[str], positive: str) -> tuple[list[str], tuple[str, ...]]:
    others = sorted(set(labels) - {positive})
    if positive not in labels or not others:
        raise UsageError(f"--positive {positive}: the labels are {', '.join(sorted(set(labels))) or 'all empty'}")
    rest = others[0] if len(others) == 1 else f"not {positive}"
    return [label if label == positive else rest for label in labels], (rest, positive)


def _without(material: Material, paths: Sequence[Path], problems: Sequence[tuple[int, str]]) -> Material:
    roles, ids = list(material.roles), material.ids
    for place, _ in problems:
        roles[place] = ""
    return Material(
        material.table,
        tuple(paths),
        tuple(roles),
        material.classes,
        material.targets,
        material.unit,
        (*material.problems, *(Problem(ids[place], Path(paths[place]), reason) for place, reason in problems)),
        material.n_unlabelled,
    )


def _check_parts(material: Material) -> None:
    """Refuse a train or val part without a class: it cannot be learnt, or nothing can be chosen by it."""
    for part, purpose in (("train", "to learn from"), ("val", "to choose the best epoch by")):
        counts = material.targets[material.places(part)].sum(axis=0)
        if not counts.any():
            problem = f"the {part} part has no labelled image {purpose}"
        elif not counts.all():
            lacking = [name for name, count in zip(material.classes, counts, strict=True) if not count]
            problem = f"the {part} part has no image of {', '.join(lacking)}"
        else:
            continue
        if material.problems:
            first = material.problems[0]
            raise InputError(
                f"{problem}, as {len(material.problems)} images cannot be used; the first is {first.image_id}:"
                f" {first.reason}"
            )
        raise ManifestError(problem, hint=_MAKE)

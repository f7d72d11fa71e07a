"""What a run has seen: the images and patients that it, and every run it started from, trained or chose on.

``seen.csv`` lies in the run's folder, beside ``lineage.json``. It has a row for each image and run, those of the run
itself first:

- ``run``: the run's name;
- ``role``: ``train``, or ``val`` for what chose an epoch, a threshold or a model;
- ``image_id``, and ``image_sha256`` of the image file's bytes, which may be empty;
- a column for each group column of the manifest, such as ``patient`` and ``lesion``; an empty cell is unknown.

Whether leaks were let through is in ``made_with.leaks`` of the lineage (:mod:`medtool.split.marks`). Both files hold
what the parents' hold too, so that the parents' folders may be deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from medtool.errors import InputError, LineageError, ManifestError, UsageError
from medtool.lineage import LINEAGE_NAME, read_lineage
from medtool.manifest import Manifest
from medtool.split.marks import Leak, inherited, leaks_of
from medtool.storage import write_whole
from medtool.tables import read_text_table

SEEN_NAME = "seen.csv"
COLUMNS = ("run", "role", "image_id", "image_sha256")
ROLES = ("train", "val")
_SHA256 = r"\A(?:[0-9a-f]{64})?\z"


@dataclass(frozen=True, eq=False)
class Seen:
    """What one run has seen.

    Attributes
    ----------
    run
        The run's name.
    frame
        The rows of ``seen.csv``: text without nulls, in the columns :data:`COLUMNS` and ``groups``.
    groups
        The group columns that the run knows.
    leaks
        What was let through when it, or a run that it started from, was trained.
    """

    run: str
    frame: pl.DataFrame
    groups: tuple[str, ...]
    leaks: tuple[Leak, ...] = ()

    @property
    def is_leaky(self) -> bool:
        """Whether it, or a run that it started from, was trained on a leaky split."""
        return bool(self.leaks)

    @property
    def parents(self) -> tuple[str, ...]:
        """The names of the runs that it started from, those of their parents included."""
        names = self.frame.get_column("run").unique(maintain_order=True).to_list()
        return tuple(name for name in names if name != self.run)


def seen_of(
    manifest: Manifest,
    roles: pl.Series,
    *,
    run: str,
    groups: Sequence[str],
    sha256s: Mapping[str, str] | None = None,
    leaks: Sequence[Leak] = (),
    parents: Sequence[Seen] = (),
) -> Seen:
    """Return what a run has seen that is trained on a manifest.

    Parameters
    ----------
    roles
        Train, val, test or an empty text for each row, as :func:`medtool.roles.roles_of` gives them.
    run
        The run's name; not that of a parent, unless it is the same run.
    groups
        Columns of the manifest whose values must not be cut.
    sha256s
        By ``image_id``: of the files' bytes. Images that it lacks are known by their id alone.
    leaks
        What is let through in this run; the parents' are added.
    parents
        What the runs have seen that this one starts from.

    Raises
    ------
    ManifestError
        If nothing is trained on, or a group column is not there or has a name of :data:`COLUMNS`.
    """
    names = [name for name in groups if name != "image_id"]
    for name in names:
        if name in COLUMNS:
            raise ManifestError(f"a group column is called {name!r}, which {SEEN_NAME} needs for itself")
        if name not in manifest.columns:
            raise ManifestError(f"the manifest has no column {name!r} (there are: {', '.join(manifest.columns)})")
    known = sha256s or {}
    has_seen = roles.is_in(ROLES)
    rows = manifest.table.filter(has_seen)
    own = rows.select(
        pl.lit(run).alias("run"),
        roles.filter(has_seen).alias("role"),
        "image_id",
        pl.Series("image_sha256", [known.get(name, "") for name in rows.get_column("image_id")], dtype=pl.String),
        *names,
    )
    if not (own.get_column("role") == "train").any():
        raise ManifestError("no row of the manifest is in the train part, so the run has seen nothing")
    frames = [own, *(parent.frame for parent in parents)]
    frame = pl.concat(frames, how="diagonal").fill_null("").unique(maintain_order=True)
    every = dict.fromkeys([*names, *(name for parent in parents for name in parent.groups)])
    let_through = inherited(leaks, *(parent.leaks for parent in parents))
    return Seen(run, frame.select(*COLUMNS, *every), tuple(every), let_through)


def write_seen(folder: Path, seen: Seen) -> None:
    """Write ``seen.csv`` into a run's folder, whole. The leaks belong into the lineage, under ``made_with.leaks``.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    empty_as_null = pl.when(pl.all() == "").then(None).otherwise(pl.all()).name.keep()
    write_whole(folder / SEEN_NAME, seen.frame.select(empty_as_null).write_csv(null_value="").encode())


def read_seen(folder: Path) -> Seen:
    """Return what the run in ``folder`` has seen.

    Raises
    ------
    UsageError
        If there is no such folder, or it is no run's.
    InputError
        If what it holds is damaged: ``seen.csv`` with its line, or ``lineage.json``.
    """
    path = folder / SEEN_NAME
    if not folder.is_dir():
        raise UsageError(f"{folder} is not there or is no folder; a run is the folder that medtool train wrote")
    if not path.is_file():
        raise UsageError(
            f"{folder} has no {SEEN_NAME}: it is not a run of medtool, or another program made it",
            hint="medtool split audit MANIFEST --against THE_RUNS_MANIFEST",
        )
    frame = _checked(path)
    lineage = read_lineage(folder)
    if lineage is None:
        raise InputError(f"{folder} has a {SEEN_NAME} and no lineage.json, so nothing says how the run was made")
    try:
        leaks = leaks_of(lineage)
    except LineageError as error:
        raise InputError(f"{folder / LINEAGE_NAME}: {error.message}") from error
    groups = tuple(name for name in frame.columns if name not in COLUMNS)
    return Seen(frame.item(0, "run"), frame.select(*COLUMNS, *groups), groups, leaks)


def _checked(path: Path) -> pl.DataFrame:
    table = read_text_table(path)
    lacking = [name for name in COLUMNS if name not in table.frame.columns]
    if lacking:
        raise ManifestError(f"{path}, line 1: no column is called {lacking[0]!r}; medtool train writes it")
    faults = {
        "run": pl.col("run") == "",
        "role": ~pl.col("role").is_in(ROLES),
        "image_id": pl.col("image_id") == "",
        "image_sha256": ~pl.col("image_sha256").str.contains(_SHA256),
    }
    wanted = {
        "run": "the name of a run",
        "role": "train or val",
        "image_id": "an image's id",
        "image_sha256": "64 hexadecimal digits or empty",
    }
    for name, is_bad in faults.items():
        row = table.frame.select(pl.arg_where(is_bad).first()).item()
        if row is not None:
            value = table.frame.item(row, name)
            raise ManifestError(f"{table.where(row)}: {name} is {value!r}; it must be {wanted[name]}")
    return table.frame

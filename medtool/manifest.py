"""The table of images: a row an image, every value text.

Columns with a meaning are ``image`` (the path, relative to the manifest's folder), ``image_id`` (unique), ``patient``,
``site``, ``label``, ``mask``, ``split``, ``fold`` and ``val_fold``; any further columns are metadata. See
docs/reference/manifest.md.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from medtool.errors import InputError, ManifestError, OutputError, UsageError, reason_of
from medtool.protocols import Problem
from medtool.storage import write_whole
from medtool.tables import read_text_table

COLUMNS = ("image", "image_id", "patient", "site", "label", "mask", "split", "fold", "val_fold")
SPLITS = ("train", "val", "test")
SUFFIXES = (".csv", ".parquet")

# What a path in a manifest must not be, on every system alike: a manifest made on one is read on another.
_PATH_FAULTS = (
    (r"\A[/\\]", "is absolute; paths are relative to the manifest's folder"),
    (r"\A[A-Za-z]:", "starts with a drive letter; paths are relative to the manifest's folder"),
    (r"\\", "holds a backslash; folders are separated by '/'"),
    (r"(?:\A|/)\.\.(?:/|\z)", "leaves the manifest's folder by '..'"),
    (r"\x00", "holds a NUL character"),
)
_ANY_PATH_FAULT = "|".join(pattern for pattern, _ in _PATH_FAULTS)
_ANY_PATH_FAULT_HERE = re.compile(_ANY_PATH_FAULT.replace(r"\z", r"\Z"))
_FOLD = r"\A(?:0|[1-9][0-9]*)?\z"

_TEXT_ONLY = ("image", "image_id", "patient", "site", "mask", "split")


def path_fault(text: str) -> str | None:
    """Return why ``text`` cannot be a path in a manifest, or None when it can."""
    if not _ANY_PATH_FAULT_HERE.search(text):
        return None
    return next(reason for pattern, reason in _PATH_FAULTS if re.search(_for_python(pattern), text))


def _for_python(pattern: str) -> str:
    return pattern.replace(r"\z", r"\Z")


@dataclass(frozen=True, eq=False)
class Manifest:
    """A checked manifest.

    Attributes
    ----------
    table
        Every column a string column without nulls; ``image`` and ``image_id`` are there, the others may be.
    root
        The folder that ``image`` and ``mask`` are relative to.
    problems
        Images that the data set should have and the disk has not; they have no row.
    notes
        What else whoever made the manifest should know, a line each.
    """

    table: pl.DataFrame
    root: Path
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    _known: dict[str, bool] = field(default_factory=dict, repr=False)

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, str]],
        root: Path,
        *,
        problems: Iterable[Problem] = (),
        notes: Iterable[str] = (),
    ) -> Manifest:
        """Return the manifest of these rows; a key that a row lacks is an empty cell, and so is a column that none has.

        Columns come in the order of :data:`COLUMNS`, then in the order they are first met in. Columns without any
        value are left out.

        Raises
        ------
        ManifestError
            If there is no row, a value is not text, or what :func:`read_manifest` refuses.
        """
        listed = list(rows)
        if not listed:
            raise ManifestError("a manifest needs one image or more")
        met = dict.fromkeys(name for row in listed for name in row)
        names = [name for name in COLUMNS if name in met] + [name for name in met if name not in COLUMNS]
        columns = [_series(name, [row.get(name, "") for row in listed]) for name in names]
        columns = [column for column in columns if column.name in ("image", "image_id") or (column != "").any()]
        table = _checked(pl.DataFrame(columns), lambda row: f"row {row + 1}", source="the table")
        return cls(table, root, tuple(problems), tuple(notes))

    def __len__(self) -> int:
        return self.table.height

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return self.table.columns

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield each row as a dict of text, in order."""
        return self.table.iter_rows(named=True)

    def counts(self, column: str) -> dict[str, int]:
        """Return how many images have each value of a column, by value; no value, no entry."""
        if column not in self.table.columns:
            return {}
        filled = self.table.get_column(column).to_frame().filter(pl.col(column) != "")
        return dict(sorted(filled.group_by(column).len().iter_rows()))

    def locate(self, text: str) -> Path:
        """Return the file that an ``image`` or ``mask`` cell names; see :func:`locate`."""
        return Path(locate(text, self.root, known=self._known))

    def images(self) -> tuple[list[Path | None], dict[int, str]]:
        """Return the image file of each row, None where it cannot be used, and why not, by the row."""
        files: list[Path | None] = []
        problems: dict[int, str] = {}
        for row, text in enumerate(self.table.get_column("image")):
            try:
                files.append(self.locate(text))
            except InputError as error:
                files.append(None)
                problems[row] = error.message
        return files, problems

    def seen_from(self, folder: Path) -> Manifest:
        """Return the same manifest with paths relative to ``folder``, which must be ``root`` or lie above it.

        Raises
        ------
        ManifestError
            If the images are not below ``folder``.
        """
        try:
            prefix = self.root.resolve().relative_to(folder.resolve()).as_posix()
        except ValueError as error:
            raise ManifestError(
                f"a manifest in {folder} cannot name images in {self.root}: paths must not leave the manifest's folder",
                hint=f"write it to {self.root / 'manifest.csv'} or to a folder above",
            ) from error
        if not is_unicode(prefix):
            raise ManifestError(f"the folder's name {prefix!r} is not valid Unicode, so a manifest cannot hold it")
        if prefix == ".":
            return self if folder == self.root else replace(self, root=folder, _known={})
        moved = [
            pl.when(pl.col(name) == "").then(pl.col(name)).otherwise(pl.lit(f"{prefix}/") + pl.col(name)).alias(name)
            for name in ("image", "mask")
            if name in self.table.columns
        ]
        table = _checked(self.table.with_columns(moved), lambda row: f"row {row + 1}", source="the table")
        return replace(self, table=table, root=folder, _known={})


def locate(text: str, root: Path, *, known: dict[str, bool]) -> str:
    """Return the file that ``text`` names below ``root``.

    Links are followed as long as they stay inside ``root``.

    Parameters
    ----------
    known
        Which folders lie inside ``root``; filled on the way, so that many files of few folders are located quickly.

    Raises
    ------
    InputError
        If the file is not there, is no file, or lies outside ``root`` by way of a link.
    """
    fault = path_fault(text)
    if fault:
        raise InputError(f"its path {fault}")
    # Text and os, not Path: a manifest may name a million files.
    path = f"{root}{os.sep}{text}"
    try:
        status = os.lstat(path)
        is_link = stat.S_ISLNK(status.st_mode)
        if not _is_inside(path if is_link else f"{root}{os.sep}{text.rpartition('/')[0]}", root, known):
            raise InputError("a link leads out of the manifest's folder")
        if is_link:
            status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise InputError("does not exist" if isinstance(error, FileNotFoundError) else reason_of(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError("is not a file")
    return path


def _is_inside(path: str, root: Path, known: dict[str, bool]) -> bool:
    if path not in known:
        boundary, real = os.path.realpath(root), os.path.realpath(path)
        known[path] = real == boundary or real.startswith(boundary.rstrip(os.sep) + os.sep)
    return known[path]


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest, CSV or Parquet by its suffix. Whether the images exist is not looked at.

    A manifest without an ``image_id`` column gets one: the text of ``image``.

    Raises
    ------
    ManifestError
        If it cannot be read, is not a table of text, has no ``image`` column, names an image twice by the same id,
        holds a path that leaves its folder, a split that is not train, val or test, or a fold that is not a whole
        number. The message gives the file and the line (of Parquet, the row).
    """
    if _suffix_of(path) == ".parquet":
        frame = _read_parquet(path)
        return Manifest(_checked(frame, lambda row: f"{path}, row {row + 1}", source=str(path)), path.parent)
    text = read_text_table(path)
    return Manifest(_checked(text.frame, text.where, source=f"{path}, line 1"), path.parent)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest whole, CSV or Parquet by its suffix; paths are made relative to the folder of ``path``.

    Raises
    ------
    ManifestError
        If the images do not lie below that folder.
    OutputError
        If the file cannot be written.
    """
    write_whole(path, manifest_bytes(manifest, path))


def manifest_bytes(manifest: Manifest, path: Path) -> bytes:
    """Return what :func:`write_manifest` would write; raises what it raises but for the writing itself."""
    suffix = _suffix_of(path)
    if not os.path.isdir(path.parent):  # noqa: PTH112 - never raises
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist")
    moved = manifest.seen_from(path.parent)
    return csv_bytes(moved) if suffix == ".csv" else _parquet_bytes(moved)


def csv_bytes(manifest: Manifest) -> bytes:
    """Return the manifest as CSV: UTF-8 without a mark, line feeds, quotes where needed, no value altered."""
    empty_as_null = pl.when(pl.all() == "").then(None).otherwise(pl.all()).name.keep()
    return manifest.table.select(empty_as_null).write_csv(null_value="").encode()


def _parquet_bytes(manifest: Manifest) -> bytes:
    buffer = io.BytesIO()
    manifest.table.write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()


def _suffix_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if path.is_dir():
        raise UsageError(
            f"{path}: a folder; a manifest is a .csv or .parquet file, which 'medtool manifest' makes of a folder"
        )
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: a manifest ends in .csv or .parquet, not in {path.suffix or 'nothing'!r}")
    return suffix


def _series(name: str, values: list[Any]) -> pl.Series:
    for row, value in enumerate(values, start=1):
        if not isinstance(value, str):
            kind = type(value).__name__
            raise ManifestError(f"row {row}: {name} is {value!r} ({kind}); every value must be text")
        if not is_unicode(value):
            raise ManifestError(f"row {row}: {name} is {value!r}, which is not valid Unicode")
    return pl.Series(name, values, dtype=pl.String)


def is_unicode(text: str) -> bool:
    """Tell whether text can be written as UTF-8; names of files need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {reason_of(error)}") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ManifestError(f"{path} is not a readable Parquet file: {reason_of(error)}") from error
    for name, kind in frame.schema.items():
        is_text = isinstance(kind, (pl.String, pl.Categorical, pl.Enum, pl.Null))
        if name in _TEXT_ONLY and not is_text:
            raise ManifestError(
                f"{path}: column {name!r} is stored as {kind}; it must be text",
                hint="write it as text where the table was made: a number has lost its leading zeros",
            )
        if not is_text and not (kind.is_numeric() or kind.is_temporal() or isinstance(kind, pl.Boolean)):
            raise ManifestError(f"{path}: column {name!r} is stored as {kind}; it must be text")
    return frame.select(pl.all().cast(pl.String).fill_null(""))


def _checked(frame: pl.DataFrame, where: Callable[[int], str], *, source: str) -> pl.DataFrame:
    """Return the frame with an ``image_id`` column after refusing whatever a manifest must not hold."""
    if "image" not in frame.columns:
        raise _no_image_column(frame.columns, source)
    if not frame.height:
        raise ManifestError(f"{source}: a manifest needs one image or more")
    _refuse(frame, pl.col("image") == "", lambda row: ManifestError(f"{where(row)}: image is empty"))
    for name in ("image", "mask"):
        if name in frame.columns:
            _refuse(frame, pl.col(name).str.contains(_ANY_PATH_FAULT), partial(_bad_path, frame, name, where))
    if "image_id" not in frame.columns:
        position = frame.columns.index("image") + 1
        frame = frame.clone().insert_column(position, frame.get_column("image").alias("image_id"))
    _refuse(frame, pl.col("image_id") == "", lambda row: ManifestError(f"{where(row)}: image_id is empty"))
    _refuse(frame, pl.col("image_id").is_duplicated(), lambda row: _duplicate(frame, row, where))
    if "split" in frame.columns:
        _refuse(frame, ~pl.col("split").is_in(["", *SPLITS]), lambda row: _bad_split(frame, row, where))
    for name in ("fold", "val_fold"):
        if name in frame.columns:
            _refuse(frame, ~pl.col(name).str.contains(_FOLD), partial(_bad_fold, frame, name, where))
    return frame


def _refuse(frame: pl.DataFrame, is_bad: pl.Expr, error: Callable[[int], ManifestError]) -> None:
    bad = frame.select(pl.arg_where(is_bad).first()).item()
    if bad is not None:
        raise error(int(bad))


def _no_image_column(columns: list[str], source: str) -> ManifestError:
    shown = ", ".join(columns[:8]) + (", ..." if len(columns) > 8 else "")
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        hint = "save the table with commas between the columns"
    elif near := difflib.get_close_matches("image", [name.strip().lower() for name in columns], n=1, cutoff=0.8):
        hint = f"rename the column {near[0]!r} to 'image'"
    else:
        hint = "medtool manifest csv ROOT --set table=TABLE.csv --set image=COLUMN"
    return ManifestError(f"{source}: no column is called 'image' (there are: {shown})", hint=hint)


def _bad_path(frame: pl.DataFrame, name: str, where: Callable[[int], str], row: int) -> ManifestError:
    text = frame.get_column(name)[row]
    return ManifestError(f"{where(row)}: {name} {text!r} {path_fault(text)}")


def _duplicate(frame: pl.DataFrame, row: int, where: Callable[[int], str]) -> ManifestError:
    value = frame.get_column("image_id")[row]
    second = int(frame.select(pl.arg_where(pl.col("image_id") == value)).to_series()[1])
    return ManifestError(
        f"{where(second)}: image_id {value!r} is taken already ({where(row)})",
        hint="give every row an image_id of its own, or leave the column out: the path in image then serves",
    )


def _bad_split(frame: pl.DataFrame, row: int, where: Callable[[int], str]) -> ManifestError:
    value = frame.get_column("split")[row]
    near = difflib.get_close_matches(value.strip().lower(), SPLITS, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return ManifestError(f"{where(row)}: split is {value!r}; it must be train, val, test or empty{guess}")


def _bad_fold(frame: pl.DataFrame, name: str, where: Callable[[int], str], row: int) -> ManifestError:
    value = frame.get_column(name)[row]
    is_fraction = re.fullmatch(r"[0-9]+\.0*", value) is not None
    hint = (
        f"pandas makes fractions of a column with empty cells: table[{name!r}].astype('Int64')" if is_fraction else None
    )
    return ManifestError(f"{where(row)}: {name} is {value!r}; it must be a whole number from 0 on, or empty", hint=hint)

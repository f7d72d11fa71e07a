"""The files of a split: the manifest, the list of patients and the report, none of them replaced unasked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from medtool.errors import InputError, OutputError, UsageError
from medtool.manifest import Manifest, csv_bytes, read_manifest, write_manifest
from medtool.split.make import Split
from medtool.storage import read_json, write_json, write_whole


@dataclass(frozen=True)
class Files:
    """Where a split is written.

    Attributes
    ----------
    manifest, groups, report
        ``x.csv`` (or ``.parquet``), ``x.patients.csv`` and ``x.json``.
    """

    manifest: Path
    groups: Path
    report: Path

    @classmethod
    def beside(cls, manifest: Path) -> Files:
        """Return the files that go with this manifest."""
        return cls(manifest, manifest.with_suffix(".patients.csv"), manifest.with_suffix(".json"))


def refuse_targets(files: Files, given: Path) -> None:
    """Refuse what can never be written, before anything is searched for or written.

    Parameters
    ----------
    given
        The manifest that is split.

    Raises
    ------
    UsageError
        If the list of patients or the report would replace that manifest.
    OutputError
        If a folder, or what else is no file, is in the place of one of the three, or there is no folder for them.
    """
    for path, what in ((files.groups, "the list of patients"), (files.report, "the report")):
        if _is_one_file(path, given):
            raise UsageError(
                f"--out {files.manifest}: {what} would replace the manifest that is split, {given}",
                hint="another file with --out",
            )
    _refuse_other_than_files(files)


def _is_one_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return os.path.normcase(one.resolve()) == os.path.normcase(other.resolve())


def _refuse_other_than_files(files: Files) -> None:
    folder = files.manifest.parent
    if not folder.is_dir():
        reason = "is no folder" if os.path.lexists(folder) else "does not exist"
        raise OutputError(f"cannot write {files.manifest}: {folder} {reason}", hint="another file with --out")
    for path in (files.manifest, files.groups, files.report):
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise OutputError(f"cannot write {path}: {kind} is there", hint="another file with --out, or remove it")


def write_split(split: Split, files: Files, *, overwrite: bool = False) -> bool:
    """Write the three files, each whole, the manifest last; those that are there already and equal are left alone.

    Whatever interrupts this, the same call goes on: what it finds of its own is equal.

    Returns
    -------
    is_new
        False where all was there already.

    Raises
    ------
    ManifestError
        If the images do not lie below the folder of the manifest; nothing is written.
    OutputError
        If one of the files is there and differs, and ``overwrite`` is not set, or is no file: all is as it was. Or if
        one cannot be written.
    """
    split.manifest.seen_from(files.manifest.parent)  # refuses a folder beside the images before anything is written
    _refuse_other_than_files(files)
    groups = _csv(split.groups)
    is_there = {
        files.groups: _bytes_of(files.groups) == groups,
        files.report: _same_report(files.report, split.report),
        files.manifest: _same_manifest(files.manifest, split.manifest),
    }
    others = [path for path, is_equal in is_there.items() if not is_equal and os.path.lexists(path)]
    if others and not overwrite:
        raise OutputError(
            f"{', '.join(map(str, others))} {'is' if len(others) == 1 else 'are'} there already and not the same",
            hint="--overwrite to replace, or another file with --out",
        )
    if not is_there[files.groups]:
        write_whole(files.groups, groups)
    if not is_there[files.report]:
        write_json(files.report, split.report)
    if not is_there[files.manifest]:
        write_manifest(split.manifest, files.manifest)
    return not all(is_there.values())


def _csv(table: pl.DataFrame) -> bytes:
    empty_as_null = pl.when(pl.all() == "").then(None).otherwise(pl.all()).name.keep()
    return table.select(empty_as_null).write_csv(null_value="").encode()


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _same_report(path: Path, report: Mapping[str, Any]) -> bool:
    """Tell whether a report is there that differs in the version of medtool at most: that makes no other split."""
    try:
        known = read_json(path)
    except InputError:
        return False
    return {**known, "medtool": ""} == {**json.loads(json.dumps(report)), "medtool": ""}


def _same_manifest(path: Path, manifest: Manifest) -> bool:
    try:
        moved = manifest.seen_from(path.parent)
        if path.suffix.lower() == ".parquet":
            return read_manifest(path).table.equals(moved.table)
        return _bytes_of(path) == csv_bytes(moved)
    except InputError:
        return False

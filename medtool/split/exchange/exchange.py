"""Exporting and importing by a format's name, and where the files go."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medtool.errors import OutputError, UsageError
from medtool.folders import is_folder
from medtool.manifest import Manifest
from medtool.split.exchange.files import write_files
from medtool.split.exchange.format import Exported, Imported, SplitFormat, format_of
from medtool.split.exchange.options import ExportOptions, FormatName, ImportOptions


def export_split(
    manifest: Manifest, name: FormatName, out: Path, options: ExportOptions, *, overwrite: bool
) -> tuple[Exported, list[Path]]:
    """Write a manifest's split as another program's files, and return what was written and where.

    Parameters
    ----------
    out
        For one file: the file, or a folder that is there, in which it gets its usual name. For a file a fold: the
        folder.
    overwrite
        Whether files that are there and differ are replaced.

    Raises
    ------
    UsageError
        If an option or ``out`` does not fit the format.
    ManifestError
        If there is no split, or one that the format cannot hold.
    OutputError
        If a file is there already, would be read as one of this split, or cannot be written.
    """
    options.check(name)
    kind = format_of(name)
    folder = _folder_for(kind, out)
    exported = kind.export(manifest, options)
    if kind.has_paths and folder.resolve() != manifest.root.resolve():
        note = f"paths are relative to {manifest.root}: give that to {kind.program} as base_dir or dataroot"
        exported = replace(exported, notes=(*exported.notes, note))
    files = dict(exported.files)
    if folder != out:
        files = {out.name: exported.files[kind.file_name]}
    elif kind.file_of_fold is not None:
        _refuse_strangers(kind, kind.file_of_fold, folder, exported)
    return exported, write_files(folder, files, overwrite=overwrite)


def _folder_for(kind: SplitFormat, out: Path) -> Path:
    """Return the folder to write to; ``out`` itself unless that names the file."""
    if kind.file_of_fold is not None:
        if out.suffix.lower() in (".csv", ".json"):
            raise UsageError(f"{out}: {kind.program} has a file a fold; give the folder for them")
        return out
    if is_folder(out):
        return out
    if out.suffix.lower() != ".json":
        raise UsageError(f"{out}: give a file that ends in .json, or a folder that is there, for {kind.file_name}")
    if not is_folder(out.parent):
        raise OutputError(f"cannot write {out}: the folder {out.parent} does not exist")
    return out.parent


def _refuse_strangers(kind: SplitFormat, pattern: re.Pattern[str], folder: Path, exported: Exported) -> None:
    """Refuse a folder with files of further folds, which the program would take for folds of this split."""
    if not is_folder(folder):
        return
    known = {os.path.normcase(name) for name in exported.files}
    for path in sorted(folder.iterdir()):
        if pattern.fullmatch(path.name) and os.path.normcase(path.name) not in known:
            raise OutputError(
                f"{path} is not of this split, and {kind.program} would take it for a fold of it",
                hint="give another folder, or remove it",
            )


def import_split(manifest: Manifest, name: FormatName, paths: Sequence[Path], options: ImportOptions) -> Imported:
    """Return the manifest with the split in another program's files.

    Raises
    ------
    UsageError
        If an option does not fit the format, or it has no such fold.
    InputError
        If a file cannot be read, is not of the format, names images that the manifest has not, or says what no
        manifest can hold.
    """
    options.check(name)
    return format_of(name).read(manifest, paths, options)

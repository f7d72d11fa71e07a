"""CLAM's ``splits_0.csv``, ``splits_1.csv``, ...: a table a fold, with the slides of its train, val and test part.

A file has the columns ``train``, ``val`` and ``test`` behind an index without a name; each lists slide ids from the
top, and the shorter columns are filled up with empty cells. Training and evaluation read these files only, by the names
of the columns. The ``splits_0_bool.csv`` and ``splits_0_descriptor.csv`` that CLAM's own script writes beside them are
read by nothing; they are neither written nor read here.

pandas reads the files, so it takes cells such as ``NA``, ``nan`` or ``None`` for empty. A slide of that name would be
lost without a word: it is refused on writing, and counted on reading.

CLAM draws each fold's parts anew, so its folds overlap, and a slide may be tested in several of them or in none. A
manifest holds each image out of one fold; of such files, one fold at a time can be imported.

References
----------
mahmoodlab/CLAM, create_splits_seq.py, dataset_modules/dataset_generic.py and main.py; pandas, ``read_csv``, parameter
``na_values`` (facts of the format).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medtool.errors import InputError, ManifestError, UsageError, reason_of
from medtool.folders import image_suffix, is_folder
from medtool.manifest import Manifest
from medtool.split.exchange.files import refuse_unless_file
from medtool.split.exchange.format import Exported, Imported, SplitFormat, numbers, shown
from medtool.split.exchange.names import BY_ID, BY_STEM, Part, Way, chosen, written_names
from medtool.split.exchange.options import ExportOptions, FormatName, ImportOptions, Naming
from medtool.split.exchange.reading import note_of_replaced, read_parts, with_unnamed
from medtool.split.exchange.role_table import TEST, TRAIN, VAL, RoleTable, roles_in, with_roles
from medtool.tables import TextTable, read_text_table

_WAYS = (BY_ID, BY_STEM)
_PARTS = (("train", TRAIN), ("val", VAL), ("test", TEST))
_NAME = re.compile(r"splits_(0|[1-9][0-9]*)\.csv")
_NEEDS_QUOTES = re.compile('[,"\r\n]')
# What pandas reads as an empty cell.
EMPTY_TO_PANDAS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"]
).union(["NULL", "NaN", "None", "n/a", "nan", "null"])


def file_name(fold: int) -> str:
    """Return what CLAM calls the file of a fold."""
    return f"splits_{fold}.csv"


def export(manifest: Manifest, options: ExportOptions) -> Exported:
    """Return a split as CLAM's files, one a fold; a hold-out split is fold 0.

    Raises
    ------
    ManifestError
        If the manifest has no split or not that fold, or slides cannot be named so that CLAM finds them.
    """
    table = roles_in(manifest, options.fold)
    way = _way_of(manifest, options.naming)
    names = written_names(manifest, way, table, read_in=_WAYS)
    _refuse_lost_names(names, table)
    folds = table.folds or (options.fold or 0,)
    files = {file_name(fold): _csv(names, table, column) for column, fold in enumerate(folds)}
    notes = [] if way is BY_ID else [f"slides are called by {way.words}, not by image_id"]
    notes += _notes(names, table, folds)
    return Exported(files, table.counts(), table.n_unused, tuple(notes))


def _way_of(manifest: Manifest, naming: Naming) -> Way:
    if naming != Naming.AUTO:
        return BY_ID if naming == Naming.ID else BY_STEM
    ids = manifest.table.get_column("image_id")
    return BY_STEM if any("/" in text or image_suffix(text) for text in ids) else BY_ID


def _refuse_lost_names(names: Sequence[str], table: RoleTable) -> None:
    for row in table.used_rows:
        name = names[row]
        if name in EMPTY_TO_PANDAS:
            raise ManifestError(
                f"CLAM would lose the slide {shown(name)}: pandas reads that text as an empty cell",
                hint="give the image another image_id",
            )
        if "\0" in name:
            raise ManifestError(f"the slide {shown(name)} holds a NUL character, which a CSV file cannot")


def _csv(names: Sequence[str], table: RoleTable, column: int) -> bytes:
    lists = [[_cell(names[row]) for row in table.rows_of(column, code)] for _, code in _PARTS]
    n_lines = max(len(each) for each in lists)
    padded = [each + [""] * (n_lines - len(each)) for each in lists]
    lines = [
        ",train,val,test",
        *(f"{index},{','.join(cells)}" for index, cells in enumerate(zip(*padded, strict=True))),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def _notes(names: Sequence[str], table: RoleTable, folds: Sequence[int]) -> list[str]:
    notes = []
    for column, fold in enumerate(folds):
        empty = [part for part, code in _PARTS if not (table.codes[:, column] == code).any()]
        if empty:
            notes.append(
                f"fold {fold} has no {' and no '.join(empty)} part; CLAM's training needs all three in every fold"
            )
            break
    if list(folds) == list(range(len(folds))):
        notes.append(f"CLAM takes them with --k {len(folds)}")
    elif list(folds) == list(range(folds[0], folds[0] + len(folds))):
        notes.append(f"CLAM takes them with --k_start {folds[0]} --k_end {folds[-1] + 1}")
    else:
        notes.append(f"CLAM takes a range of folds without gaps; these are {numbers(folds)}")
    used = [names[row] for row in table.used_rows]
    if all(name.isdecimal() for name in used):
        notes.append("every slide id is a number: CLAM takes them for numbers and fails; letters in them help")
    return notes


def read(manifest: Manifest, paths: Sequence[Path], options: ImportOptions) -> Imported:
    """Return the manifest with the split of CLAM's files.

    Parameters
    ----------
    paths
        Files, or folders that hold them. One file is a hold-out split, whatever its name.

    Raises
    ------
    InputError
        If a file cannot be read or is not what CLAM writes.
    ManifestError
        If files name images that the manifest has not, an image twice in one fold, or roles that no manifest can hold.
    """
    files = _files(paths, options)
    folds = sorted(files)
    source = str(paths[0]) if len(paths) == 1 else f"the {len(files)} files"
    parts: list[Part] = []
    n_lost = 0
    for column, fold in enumerate(folds):
        found, n_words = _parts_of(files[fold], column)
        parts += found
        n_lost += n_words
    columns = folds if len(folds) > 1 else ()
    codes, notes = read_parts(manifest, parts, columns, chosen(_WAYS, options.naming), source=source)
    if n_lost:
        cells = "cell is" if n_lost == 1 else "cells are"
        notes.append(f"{n_lost:,} {cells} a word that pandas, and so CLAM, reads as empty; passed over")
    codes, said_of_unnamed = with_unnamed(manifest, codes, options)
    new, said_of_columns = with_roles(manifest, RoleTable(tuple(columns), codes.astype(np.uint8)), source=source)
    notes += [*said_of_unnamed, *said_of_columns, *note_of_replaced(manifest, new)]
    held = roles_in(new)
    return Imported(new, held.counts(), held.n_unused, tuple(notes))


def _files(paths: Sequence[Path], options: ImportOptions) -> dict[int, Path]:
    """Return the files of the folds by number; a single file may have any name."""
    found: list[tuple[int | None, Path]] = []
    for path in paths:
        if is_folder(path):
            inside = _numbered(path)
            if not inside:
                raise InputError(f"{path} holds no splits_0.csv or the like")
            found += inside
        else:
            name = _NAME.fullmatch(path.name)
            found.append((int(name[1]) if name else None, path))
    if options.fold is not None:
        found = [(number, path) for number, path in found if number == options.fold]
        if not found:
            raise UsageError(f"--fold {options.fold}: there is no {file_name(options.fold)} in what was given")
    if len(found) == 1:
        return {0: found[0][1]}
    files: dict[int, Path] = {}
    for number, path in found:
        if number is None:
            raise UsageError(f"{path}: of several files, each must be called splits_NUMBER.csv, for the fold's number")
        if number in files:
            raise UsageError(f"{files[number]} and {path} are both fold {number}", hint="give one of them")
        files[number] = path
    return files


def _numbered(folder: Path) -> list[tuple[int | None, Path]]:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot list {folder}: {reason_of(error)}") from error
    matched = [(_NAME.fullmatch(name), name) for name in names]
    return [(int(found[1]), folder / name) for found, name in matched if found]


def _parts_of(path: Path, column: int) -> tuple[list[Part], int]:
    """Return the three lists of a file, and how many cells hold a word that CLAM passes over."""
    refuse_unless_file(path)
    text = read_text_table(path, may_have_index=True)
    for name, _ in _PARTS:
        if name not in text.frame.columns:
            known = ", ".join(shown(each) for each in text.frame.columns if each) or "none"
            raise ManifestError(f"{path}, line 1: no column is called {name!r} (there are: {known})")
    _refuse_truth_values(text)
    parts, n_lost = [], 0
    for name, code in _PARTS:
        cells = text.frame.get_column(name).to_list()
        filled = [index for index, cell in enumerate(cells) if cell not in EMPTY_TO_PANDAS]
        n_lost += sum(cell != "" for cell in cells) - len(filled)
        parts.append(Part(column, code, [cells[index] for index in filled], _place(text, name, filled)))
    return parts, n_lost


def _refuse_truth_values(text: TextTable) -> None:
    values = {value for name, _ in _PARTS for value in text.frame.get_column(name).unique()}
    if values <= {"True", "False"}:
        raise ManifestError(
            f"{text.path} says True and False of each slide; CLAM reads the file beside it that lists the slides",
            hint=f"{text.path.with_name(text.path.name.replace('_bool', ''))}",
        )


def _place(text: TextTable, column: str, rows: Sequence[int]) -> Callable[[int], str]:
    return lambda index: f"{text.where(rows[index])}, column {column}"


CLAM = SplitFormat(FormatName.CLAM, "CLAM", file_name(0), file_of_fold=_NAME, has_paths=False, export=export, read=read)

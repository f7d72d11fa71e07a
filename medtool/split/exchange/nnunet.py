"""nnU-Net's ``splits_final.json``: the train and val part of each fold, as case identifiers.

The file lies in ``nnUNet_preprocessed/DATASET``. It is a list with an object a fold, each with the keys ``train`` and
``val``, each a list of case identifiers: the names of the files without the channel (``_0000``) and the ending. Fold
``k`` is the entry ``k``, counted from 0; for a fold that the file has not, nnU-Net draws a random split of its own. It
has no test part: test images lie in ``imagesTs``, and nnU-Net never reads them in training.

How the two say the same:

- Plain folds: what the manifest holds out of fold ``k`` is the val part of entry ``k``. An image that is never held out
  is in train everywhere.
- Folds with a fixed test part: the same; the test part is not in the file.
- Folds with a val part inside the training part: entry ``k`` has train and val of fold ``k``; what fold ``k`` tests on
  is in neither. So an image that exactly one entry leaves out is in the test part of that fold.
- A hold-out split: one entry.

References
----------
MIC-DKFZ/nnUNet, documentation/manual_data_splits.md and documentation/dataset_format.md (facts of the format).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.errors import InputError, ManifestError, UsageError
from medtool.folders import is_folder
from medtool.manifest import Manifest
from medtool.split.exchange.files import json_bytes, kind_of, read_strict_json
from medtool.split.exchange.format import Exported, Imported, SplitFormat, counted, numbers, shown
from medtool.split.exchange.names import (
    BY_CASE,
    BY_ID,
    BY_STEM,
    Part,
    Way,
    can_be_file_name,
    channel_of,
    chosen,
    written_names,
)
from medtool.split.exchange.options import ExportOptions, FormatName, ImportOptions, Naming
from medtool.split.exchange.reading import note_of_replaced, read_parts, with_unnamed
from medtool.split.exchange.role_table import TEST, TRAIN, UNUSED, VAL, RoleTable, roles_in, with_roles

FILE_NAME = "splits_final.json"
_WAYS = (BY_ID, BY_STEM, BY_CASE)
_PARTS = (("train", TRAIN), ("val", VAL))
# nnU-Net trains folds 0 to 4 by default.
_USUAL_FOLDS = 5


def export(manifest: Manifest, options: ExportOptions) -> Exported:
    """Return a split as ``splits_final.json``.

    Raises
    ------
    ManifestError
        If the manifest has no split or not that fold, a fold has no train or val part, or images cannot be named.
    """
    table = roles_in(manifest, options.fold)
    written, notes = _as_train_and_val(table, has_folds=bool(table.folds) or options.fold is not None)
    _refuse_empty_parts(written)
    way = _way_of(manifest, options.naming)
    names = written_names(manifest, way, table, read_in=_WAYS)
    if way is not BY_ID:
        notes.append(f"cases are called by {way.words}, not by image_id")
    entries = []
    for column in range(written.codes.shape[1]):
        named = {part: [names[row] for row in written.rows_of(column, code)] for part, code in _PARTS}
        entries.append({part: list(dict.fromkeys(each)) for part, each in named.items()})
    notes += _notes_on_numbers(table.folds)
    return Exported({FILE_NAME: json_bytes(entries)}, table.counts(), table.n_unused, tuple(notes))


def _as_train_and_val(table: RoleTable, *, has_folds: bool) -> tuple[RoleTable, list[str]]:
    """Return the roles in nnU-Net's words, and what they leave out."""
    codes = table.codes
    if has_folds and not (codes == VAL).any():
        note = "what a fold holds out is its val part in nnU-Net's words"
        return RoleTable(table.folds, np.where(codes == TEST, VAL, codes).astype(np.uint8)), [note]
    is_test = codes == TEST
    if not is_test.any():
        return table, []
    if is_test.all(axis=1).sum() == is_test.any(axis=1).sum():
        note = f"the test part, {counted(int(is_test.any(axis=1).sum()))}, is left out: nnU-Net's file has none"
    else:
        n_tests = numbers([int(count) for count in is_test.sum(axis=0)])
        note = f"each fold's test part ({n_tests} images) is left out of its entry: nnU-Net's file has none"
    return RoleTable(table.folds, np.where(is_test, UNUSED, codes).astype(np.uint8)), [note]


def _refuse_empty_parts(written: RoleTable) -> None:
    for column in range(written.codes.shape[1]):
        for part, code in _PARTS:
            if not (written.codes[:, column] == code).any():
                fold = f"fold {written.folds[column]}" if written.folds else "the split"
                raise ManifestError(
                    f"{fold} has no {part} part, which nnU-Net needs", hint="medtool split make MANIFEST --folds 5"
                )


def _way_of(manifest: Manifest, naming: Naming) -> Way:
    """Return what cases are called by: the files' names where they are nnU-Net's, else image_id if it can be one."""
    stem = BY_CASE if _has_channels(manifest) else BY_STEM
    if naming == Naming.STEM:
        return stem
    unfit = [text for text in manifest.table.get_column("image_id") if not can_be_file_name(text)]
    if naming == Naming.ID:
        if unfit:
            raise UsageError(f"image_id {shown(unfit[0])} cannot be the name of a case", hint="--names stem")
        return BY_ID
    return stem if unfit or stem is BY_CASE else BY_ID


def _has_channels(manifest: Manifest) -> bool:
    """Tell whether the files are named as nnU-Net's: several cases, all with the same channels, from 0000 on.

    Names such as ``IMG_0001``, ``IMG_0002`` end in four digits as well, but are one case of many channels then.
    """
    channels: dict[str, set[str]] = {}
    for image in manifest.table.get_column("image"):
        folder, _, _ = image.rpartition("/")
        found = channel_of(BY_STEM.key(image, "") or "")
        if found is None:
            return False
        channels.setdefault(f"{folder}/{found[0]}", set()).add(found[1])
    wanted = {f"{number:04}" for number in range(len(next(iter(channels.values()))))}
    return len(channels) > 1 and all(each == wanted for each in channels.values())


def _notes_on_numbers(folds: Sequence[int]) -> list[str]:
    notes = []
    if folds and list(folds) != list(range(len(folds))):
        notes.append(
            f"nnU-Net counts folds from 0: {numbers(folds)} of the manifest are 0 to {len(folds) - 1} in the file"
        )
    n = max(1, len(folds))
    if n < _USUAL_FOLDS:
        which = "fold 0" if n == 1 else f"folds 0 to {n - 1}"
        notes.append(f"train {which} only: for any other, nnU-Net draws a random split of its own")
    return notes


def read(manifest: Manifest, paths: Sequence[Path], options: ImportOptions) -> Imported:
    """Return the manifest with the split of a ``splits_final.json``.

    Parameters
    ----------
    paths
        The file, or the folder that it lies in.

    Raises
    ------
    InputError
        If the file cannot be read or is not what nnU-Net writes.
    ManifestError
        If it names images that the manifest has not, an image twice in one fold, or roles that no manifest can hold.
    """
    if len(paths) != 1:
        raise UsageError(f"nnunet has one file for all folds; {len(paths)} were given")
    path = paths[0] / FILE_NAME if is_folder(paths[0]) else paths[0]
    if path.suffix.lower() == ".pkl":
        raise InputError(
            f"{path} is a pickle, as nnU-Net's first version wrote; opening one runs whatever program is in it",
            hint=f"save it as {FILE_NAME} where you trust it",
        )
    document = read_strict_json(path)
    if not isinstance(document, list) or not document:
        found = "an empty list" if isinstance(document, list) else kind_of(document)
        raise ManifestError(f"{path} holds {found}; nnU-Net's is a list with an object a fold")
    folds: Sequence[int] = range(len(document))
    if options.fold is not None:
        if options.fold >= len(document):
            raise UsageError(f"--fold {options.fold}: {path} has {counted(len(document), 'fold')}, counted from 0")
        folds = (options.fold,)
    parts: list[Part] = []
    notes: list[str] = []
    for column, number in enumerate(folds):
        parts += _parts_of(path, number, document[number], column)
        notes += _note_of_other_keys(path, number, document[number]) if not notes else []
    folds = folds if len(folds) > 1 else ()
    codes, said = read_parts(manifest, parts, folds, chosen(_WAYS, options.naming), source=str(path))
    codes, said_of_unnamed = with_unnamed(manifest, codes, options)
    in_file = RoleTable(tuple(folds), codes.astype(np.uint8))
    table, said_of_test = _with_test_parts(manifest, in_file, path)
    new, said_of_columns = with_roles(manifest, table, source=str(path), said=in_file)
    notes += [*said, *said_of_unnamed, *said_of_test, *said_of_columns, *note_of_replaced(manifest, new)]
    held = roles_in(new)
    return Imported(new, held.counts(), held.n_unused, tuple(notes))


def _parts_of(path: Path, number: int, entry: Any, column: int) -> list[Part]:
    where = f"{path}: [{number}]"
    if not isinstance(entry, dict):
        raise ManifestError(f"{where} is {kind_of(entry)}; it must be an object with 'train' and 'val'")
    parts = []
    for part, code in _PARTS:
        if part not in entry:
            known = ", ".join(shown(key) for key in list(entry)[:5]) or "none"
            raise ManifestError(f"{where} has no key {part!r} (there are: {known})")
        names, place = entry[part], f'{where}["{part}"]'
        if not isinstance(names, list):
            raise ManifestError(f"{place} is {kind_of(names)}; it must be a list of case identifiers")
        for index, name in enumerate(names):
            if not isinstance(name, str) or not name:
                value = shown(name) if isinstance(name, str | int | float) else ""
                raise ManifestError(f"{place}[{index}] is {kind_of(name)} {value}".rstrip() + "; identifiers are text")
        parts.append(Part(column, code, names, partial("{}[{}]".format, place)))
    return parts


def _note_of_other_keys(path: Path, number: int, entry: dict[str, Any]) -> list[str]:
    others = [key for key in entry if key not in ("train", "val")]
    return [f"{path}: [{number}]: {shown(others[0])} is not read; nnU-Net reads train and val"] if others else []


def _with_test_parts(manifest: Manifest, table: RoleTable, path: Path) -> tuple[RoleTable, list[str]]:
    """Return the roles in the manifest's words: what a fold holds out is its test part, unless there is a fixed one."""
    if not table.folds:
        return table, []
    codes = table.codes
    is_left_out: npt.NDArray[np.bool_] = table.is_used & (codes == UNUSED).any(axis=1)
    has_fixed_test = bool((codes == TEST).any())
    n = int(is_left_out.sum())
    if n and has_fixed_test:
        raise UsageError(
            f"--unnamed test: the folds of {path} leave out {counted(n)} that others name, their own test parts; a "
            "manifest cannot have a fixed test part besides"
        )
    is_in_all = (codes != UNUSED).all(axis=1) & (codes != codes[:, :1]).any(axis=1)
    if n and is_in_all.any():
        left_out = int(is_left_out.argmax())
        image = shown(manifest.table.get_column("image_id")[left_out])
        raise ManifestError(
            f"{path}: image {image} is {table.describe(left_out)}; either each image is in no part of one fold, which "
            f"tests on it, or none is ({counted(n)} left out by some folds, {int(is_in_all.sum()):,} by none)",
            hint="--fold 0 imports that fold alone, as a hold-out split",
        )
    if n:
        note = f"an image that one fold leaves out is taken as its test part ({counted(n)})"
        left_out = is_left_out[:, None] & (codes == UNUSED)
        return RoleTable(table.folds, np.where(left_out, TEST, codes).astype(np.uint8)), [note]
    if has_fixed_test:
        return table, []
    if (codes == codes[:, :1]).all():
        return table, []  # the same split in every fold
    always_val = np.flatnonzero((codes == VAL).all(axis=1)).tolist()
    if always_val:
        image = shown(manifest.table.get_column("image_id")[always_val[0]])
        raise ManifestError(
            f"{path}: image {image} is val in every fold, others in one; a manifest with folds alone cannot say both "
            f"({counted(len(always_val))} that it cannot hold)",
            hint="--fold 0 imports that fold alone, as a hold-out split",
        )
    note = "what nnU-Net calls val is what a fold holds out: with folds alone, the manifest calls it test"
    return RoleTable(table.folds, np.where(codes == VAL, TEST, codes).astype(np.uint8)), [note]


NNUNET = SplitFormat(
    FormatName.NNUNET, "nnU-Net", FILE_NAME, file_of_fold=None, has_paths=False, export=export, read=read
)

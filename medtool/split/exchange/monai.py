"""MONAI's datalists: a JSON file with the images of each part, and perhaps the fold in which each is held out.

A datalist is an object. Under ``training``, ``validation`` and ``testing`` (``test`` in data sets of the Medical
Segmentation Decathlon) it has lists of items; an item is an object with ``image``, a path or a list of paths, mostly
with ``label``, or a path alone. With ``fold`` in the items of ``training``, MONAI's Auto3DSeg and its tutorials train
fold ``k`` on the items with another ``fold`` or none, and validate on those with ``fold`` ``k``; ``validation`` is then
not read. Paths are relative to the datalist's folder, or to one that is given to MONAI (``base_dir``, ``dataroot``).

``label`` is the path of the mask, or for classification the number of the class: its place among the sorted names of
the classes, which stand under ``labels``. A class is not written as text, since MONAI takes texts in an item for paths.

So a datalist can hold a hold-out split, and folds with or without a fixed test part. It has no word for folds that
have a val and a test part each; one fold of them at a time can be written as a hold-out split.

References
----------
Project-MONAI/MONAI, monai/data/decathlon_datalist.py, monai/auto3dseg/utils.py and monai/apps/auto3dseg/auto_runner.py;
Project-MONAI/tutorials, auto3dseg/tasks (facts of the format).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.errors import ManifestError, UsageError
from medtool.manifest import Manifest
from medtool.split.exchange.files import json_bytes, kind_of, read_strict_json
from medtool.split.exchange.format import Exported, Imported, SplitFormat, counted, numbers, shown
from medtool.split.exchange.names import BY_ID, BY_PATH, BY_STEM_OF_PATH, Part, Way, by_path_from, written_names
from medtool.split.exchange.options import ExportOptions, FormatName, ImportOptions, LabelSource, Naming
from medtool.split.exchange.reading import note_of_replaced, read_parts, with_unnamed
from medtool.split.exchange.role_table import (
    ROLES,
    TEST,
    TRAIN,
    UNUSED,
    VAL,
    RoleTable,
    roles_in,
    with_columns,
    with_roles,
)

FILE_NAME = "datalist.json"
MAX_FOLD = 9_999  # the largest number of a fold
_PARTS = (("training", TRAIN), ("validation", VAL), ("testing", TEST))
# What published datalists call the parts.
_KEYS = {
    "training": TRAIN,
    "train": TRAIN,
    "validation": VAL,
    "val": VAL,
    "testing": TEST,
    "test": TEST,
}
_KEY_OF_ONE_FOLD = re.compile(r"(?:train|training|val|valid|validation|test|testing)_?fold_?[0-9]+", re.IGNORECASE)


def export(manifest: Manifest, options: ExportOptions) -> Exported:
    """Return a split as a datalist whose paths are relative to the manifest's folder.

    Raises
    ------
    ManifestError
        If the manifest has no split or not that fold, or the folds are of a kind that no datalist can hold.
    """
    table = roles_in(manifest, options.fold)
    if table.folds and max(table.folds) > MAX_FOLD:
        raise ManifestError(
            f"the manifest has a fold {shown(max(table.folds))}; in a datalist, {MAX_FOLD:,} is the most"
        )
    written, fold, notes = _as_listed(manifest, table)
    paths = written_names(manifest, BY_PATH, table, read_in=(BY_PATH,))
    labels, names, said = _labels(manifest, options.label, table)
    notes += said
    document: dict[str, Any] = {} if names is None else {"labels": {str(at): name for at, name in enumerate(names)}}
    for key, code in _PARTS:
        items = []
        for row in np.flatnonzero(written == code).tolist():
            item: dict[str, Any] = {"image": paths[row]}
            if labels[row] is not None:
                item["label"] = labels[row]
            if fold[row] >= 0:
                item["fold"] = table.folds[fold[row]]
            items.append(item)
        if items or code == TRAIN:
            document[key] = items
    return Exported({FILE_NAME: json_bytes(document)}, table.counts(), table.n_unused, tuple(notes))


def _as_listed(manifest: Manifest, table: RoleTable) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[str]]:
    """Return for each image the list that it goes into, and the place of its fold in ``table.folds``, or -1."""
    codes, no_fold = table.codes, np.full(len(table.codes), -1, dtype=np.int64)
    if not table.folds:
        return codes[:, 0], no_fold, []
    is_plain = not (codes == VAL).any()
    held_out = codes == (TEST if is_plain else VAL)
    is_constant = (codes == codes[:, :1]).all(axis=1) & ~(held_out.any(axis=1) & (len(table.folds) == 1))
    is_listed = is_constant & np.isin(codes[:, 0], (UNUSED, TRAIN, TEST))
    has_one_fold = ~is_constant & (held_out.sum(axis=1) == 1) & ((codes == TRAIN).sum(axis=1) == len(table.folds) - 1)
    bad = np.flatnonzero(~is_listed & ~has_one_fold)
    if len(bad):
        image = shown(manifest.table.get_column("image_id")[int(bad[0])])
        raise ManifestError(
            f"image {image} is {table.describe(int(bad[0]))}; a MONAI datalist can hold an image out of one fold, with "
            f"no test part but one for all folds ({counted(len(bad))} of which it cannot say the roles)",
            hint=f"--fold {table.folds[0]} writes that fold alone, as training, validation and testing",
        )
    idle = [fold for fold, count in zip(table.folds, held_out.sum(axis=0), strict=True) if not count]
    if idle:
        raise ManifestError(f"fold {idle[0]} holds out no image, which a MONAI datalist cannot say")
    fold = np.where(has_one_fold, held_out.argmax(axis=1), -1)
    lists = np.where(has_one_fold, TRAIN, codes[:, 0]).astype(np.uint8)
    notes = ["what a fold holds out is validation in MONAI's words"] if is_plain else []
    if list(table.folds) != list(range(len(table.folds))):
        notes.append(f"MONAI's AutoRunner wants folds from 0 on without gaps; these are {numbers(table.folds)}")
    return lists, fold, notes


def _labels(
    manifest: Manifest, source: LabelSource, table: RoleTable
) -> tuple[list[str | int | None], list[str] | None, list[str]]:
    """Return what goes under ``label`` for each image, the names of the classes if there are any, and notes."""
    n = len(manifest)
    n_masks, classes = sum(manifest.counts("mask").values()), list(manifest.counts("label"))
    if source == LabelSource.AUTO:
        source = LabelSource.MASK if n_masks else LabelSource.CLASS if classes else LabelSource.NONE
    if source == LabelSource.NONE:
        return [None] * n, None, []
    column = "mask" if source == LabelSource.MASK else "label"
    if not (n_masks if source == LabelSource.MASK else classes):
        raise UsageError(f"--label {source}: the manifest has no {column}s")
    cells = manifest.table.get_column(column).to_list()
    n_without = sum(not cells[row] for row in table.used_rows)
    notes = (
        [f"{counted(n_without)} of the split {'has' if n_without == 1 else 'have'} no {column}: items without label"]
        if n_without
        else []
    )
    if source == LabelSource.MASK:
        return [cell or None for cell in cells], None, notes
    notes.append("label is the number of a class: load_decathlon_datalist reads such a file with is_segmentation=False")
    number = {name: at for at, name in enumerate(classes)}
    return [number.get(cell) for cell in cells], classes, notes


@dataclass
class _List:
    """The images of one part, or of one fold of it.

    Attributes
    ----------
    names
        A path an item: the first, if there are several.
    further
        The other paths of items with several.
    """

    key: str
    names: list[str] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    further: list[str] = field(default_factory=list)
    items_of_further: list[int] = field(default_factory=list)

    def add(self, item: int, paths: Sequence[str]) -> None:
        self.names.append(paths[0])
        self.items.append(item)
        self.further += paths[1:]
        self.items_of_further += [item] * (len(paths) - 1)

    def parts(self, path: Path, code: int) -> list[Part]:
        def place(items: Sequence[int]) -> Callable[[int], str]:
            return lambda index: _place(path, self.key, items[index])

        required = Part(0, code, self.names, place(self.items))
        optional = Part(0, code, self.further, place(self.items_of_further), is_optional=True)
        return [required, optional] if self.further else [required]


def _place(path: Path, key: str, item: int) -> str:
    return f'{path}: ["{key}"][{item}]'


def read(manifest: Manifest, paths: Sequence[Path], options: ImportOptions) -> Imported:
    """Return the manifest with the split of a datalist.

    Parameters
    ----------
    paths
        The file.

    Raises
    ------
    InputError
        If the file cannot be read or is not a datalist.
    ManifestError
        If it names images that the manifest has not, or an image in two parts.
    """
    if len(paths) != 1:
        raise UsageError(f"monai has one file for all parts; {len(paths)} were given")
    path = paths[0]
    lists, notes = _lists_of(path, read_strict_json(path))
    folds = sorted(fold for _, fold in lists if fold is not None)
    if options.fold is not None and options.fold not in folds:
        raise UsageError(f"--fold {options.fold}: {path} has no such fold (there are: {numbers(folds) or 'none'})")
    code_of_fold = {fold: len(ROLES) + at for at, fold in enumerate(folds)}
    words = [*ROLES, *(f"fold {fold} of training" for fold in folds)]
    parts = []
    for (code, fold), listed in lists.items():
        parts += listed.parts(path, code if fold is None else code_of_fold[fold])
    codes, said = read_parts(manifest, parts, (), _ways(manifest, path, options), source=str(path), words=words)
    notes += said
    codes, said = with_unnamed(manifest, codes, options)
    notes += said
    mark = codes[:, 0]
    if options.fold is not None:
        in_fold = np.where(mark == code_of_fold[options.fold], VAL, np.where(mark >= len(ROLES), TRAIN, mark))
        new, _ = with_roles(manifest, RoleTable((), in_fold[:, None].astype(np.uint8)), source=str(path))
    else:
        split = [ROLES[code] if code < len(ROLES) else "" for code in mark]
        fold_cells = ["" if code < len(ROLES) else str(folds[code - len(ROLES)]) for code in mark]
        new = with_columns(manifest, split=split, fold=fold_cells)
        if folds and not (mark == TEST).any():
            notes.append(
                "what MONAI calls validation is what a fold holds out: with folds alone, the manifest calls it test"
            )
    held = roles_in(new)
    return Imported(new, held.counts(), held.n_unused, (*notes, *note_of_replaced(manifest, new)))


def _ways(manifest: Manifest, path: Path, options: ImportOptions) -> list[Way]:
    if options.naming != Naming.AUTO:
        return [BY_ID] if options.naming == Naming.ID else [BY_STEM_OF_PATH]
    if options.base is not None:
        return [by_path_from(options.base, manifest.root, words=f"path from {options.base}")]
    beside = by_path_from(path.parent, manifest.root, words="path from the datalist's folder")
    return [BY_PATH, beside, BY_ID, BY_STEM_OF_PATH]


def _lists_of(path: Path, document: Any) -> tuple[dict[tuple[int, int | None], _List], list[str]]:
    """Return the images by part and fold, and what else the file has that is not read."""
    if not isinstance(document, dict):
        raise ManifestError(f"{path} holds {kind_of(document)}; a datalist is an object with 'training'")
    known = [key for key in document if key in _KEYS]
    if not known:
        there = ", ".join(shown(key) for key in list(document)[:5]) or "none"
        raise ManifestError(f"{path} has no key 'training' (there are: {there})")
    one_fold = next((key for key in document if _KEY_OF_ONE_FOLD.fullmatch(key)), None)
    if one_fold is not None:
        raise ManifestError(
            f"{path} has a list for each fold, such as {shown(one_fold)}, which is not read",
            hint="keep the lists of one fold, as 'training' and 'validation'",
        )
    for code in (TRAIN, VAL, TEST):
        keys = [shown(key) for key in known if _KEYS[key] == code]
        if len(keys) > 1:
            raise ManifestError(
                f"{path} has the lists {keys[0]} and {keys[1]}, which are two names of one part; MONAI is told one of"
                " them, and reads only that",
                hint="keep the list that MONAI reads, and delete the other",
            )
    lists: dict[tuple[int, int | None], _List] = {}
    for key in known:
        code, items = _KEYS[key], document[key]
        if not isinstance(items, list):
            raise ManifestError(f'{path}: ["{key}"] is {kind_of(items)}; it must be a list of items')
        for at, item in enumerate(items):
            paths, fold = _item(path, key, at, item)
            listed = lists.setdefault((code, fold if code == TRAIN else None), _List(key))
            listed.add(at, paths)
    if any(fold is not None for _, fold in lists) and (VAL, None) in lists:
        raise ManifestError(
            f"{path} says fold in the items of training, and has a validation list too; MONAI reads one or the other",
            hint="delete the list, or the folds",
        )
    others = [key for key, value in document.items() if key not in _KEYS and _is_list_of_items(value)]
    notes = [f"{path}: the list {shown(others[0])} is not read: it is no part of a split"] if others else []
    return lists, notes


def _is_list_of_items(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) and "image" in item for item in value)


def _item(path: Path, key: str, at: int, item: Any) -> tuple[list[str], int | None]:
    """Return the paths of an item and the fold that it is held out in, if it says one."""
    where = _place(path, key, at)
    if not isinstance(item, dict):
        item = {"image": item}
    elif "image" not in item:
        there = ", ".join(shown(name) for name in list(item)[:5]) or "none"
        raise ManifestError(f"{where} has no key 'image' (there are: {there})")
    value = item["image"]
    paths = value if isinstance(value, list) else [value]
    if not paths or not all(isinstance(each, str) and each for each in paths):
        wrong = next((each for each in paths if not isinstance(each, str) or not each), value)
        found = shown(wrong) if isinstance(wrong, str | int | float) else kind_of(wrong) if paths else "an empty list"
        raise ManifestError(f'{where}["image"] is {found}; it must be a path or a list of paths')
    fold = item.get("fold")
    if fold is None:
        return paths, None
    if isinstance(fold, int) and fold > MAX_FOLD:
        raise ManifestError(f'{where}["fold"] is {shown(fold)}; {MAX_FOLD:,} is the most')
    if not isinstance(fold, int) or isinstance(fold, bool) or fold < 0:
        found = shown(fold) if isinstance(fold, str | int | float) else kind_of(fold)
        raise ManifestError(f'{where}["fold"] is {found}; it must be a whole number from 0 on')
    return paths, fold


MONAI = SplitFormat(FormatName.MONAI, "MONAI", FILE_NAME, file_of_fold=None, has_paths=True, export=export, read=read)

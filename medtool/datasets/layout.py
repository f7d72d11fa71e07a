"""What the data sets have in common: images and tables found on disk, put together into rows without losing any."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

from medtool.errors import InputError, ManifestError
from medtool.folders import is_folder, list_folder, readable, stem_of
from medtool.manifest import Manifest, is_unicode, locate, path_fault
from medtool.protocols import Problem
from medtool.tables import TextTable

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(slots=True)
class Draft:
    """A manifest that is being put together.

    Attributes
    ----------
    root
        The folder that image and mask paths are relative to.
    rows
        One dict an image; ``image`` is there, whether it exists or not.
    problems, notes
        As in :class:`~medtool.manifest.Manifest`.
    """

    root: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def images_in(self, folder: Path) -> list[str]:
        """Return the images below ``folder``, relative to the root with ``/``; what cannot be listed is a problem."""
        listing = list_folder(folder)
        prefix = folder.relative_to(self.root).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        self.notes.extend(listing.notes)
        for problem in listing.problems:
            name = folder.name if problem.image_id == "." else readable(prefix) + problem.image_id
            self.problems.append(Problem(name, problem.path, problem.reason))
        return [prefix + relative for relative, _ in listing.images]

    def by_stem(self, folders: Iterable[Path], *, ending: str = "", without: str = "") -> dict[str, str]:
        """Return the images in ``folders`` by the names that remain without suffix and ``ending``.

        Parameters
        ----------
        ending
            Only names that end so are taken.
        without
            Names that end so are left out.

        Raises
        ------
        InputError
            If two images have one name.
        """
        found: dict[str, str] = {}
        for folder in folders:
            for relative in self.images_in(folder):
                stem = stem_of(relative.rpartition("/")[2])
                if not stem.endswith(ending) or (without and stem.endswith(without)):
                    continue
                key = stem.removesuffix(ending)
                if key in found:
                    raise InputError(f"{self.root}: {found[key]} and {relative} are both {key!r}")
                found[key] = relative
        return found

    def join(
        self, images: Mapping[str, str], masks: Mapping[str, str], table: Mapping[str, Mapping[str, str]], *, name: str
    ) -> None:
        """Add a row for every image, in the order of the table and then of the images that it lacks.

        A row of the table without an image is a problem; an image without a row is kept, without a label, and noted.

        Parameters
        ----------
        images, masks
            Path by image_id.
        table
            Columns by image_id.
        name
            What the table is called in messages.
        """
        for image_id, columns in table.items():
            if image_id in images:
                row = {"image": images[image_id], "image_id": image_id, "mask": masks.get(image_id, "")}
                self.rows.append({**row, **columns})
            else:
                reason = f"named in {name}, and no image of that name is there"
                self.problems.append(Problem(image_id, self.root / image_id, reason))
        without_row = [image_id for image_id in images if image_id not in table]
        self.rows.extend(
            {"image": images[image_id], "image_id": image_id, "mask": masks.get(image_id, "")}
            for image_id in without_row
        )
        if without_row and table:
            self.notes.append(f"{counted(without_row, 'image')} not named in {name}: kept without a label")
        without_image = [image_id for image_id in masks if image_id not in images]
        if without_image:
            self.notes.append(f"{counted(without_image, 'mask')} without an image: left out")

    def finish(self) -> Manifest:
        """Return the manifest of the rows whose images exist; the others become problems.

        Raises
        ------
        InputError
            If no row is left.
        """
        known: dict[str, bool] = {}
        rows, lost_masks = [], []
        for row in self.rows:
            reason = self._fault(row["image"], known)
            if reason:
                image_id = readable(row.get("image_id") or row["image"])
                self.problems.append(Problem(image_id, self.root / row["image"], reason))
                continue
            mask = row.get("mask", "")
            mask_reason = self._fault(mask, known) if mask else ""
            if mask_reason:
                lost_masks.append(f"{readable(mask)} {mask_reason}")
            rows.append({**row, "mask": ""} if mask_reason else row)
        if lost_masks:
            self.notes.append(f"{counted(lost_masks, 'mask')} cannot be used; the first: {lost_masks[0]}")
        if not rows:
            facts = [f"{problem.image_id} {problem.reason}" for problem in self.problems[:1]] + self.notes[:1]
            raise InputError(f"no image found in {self.root}" + (f": {'; '.join(facts)}" if facts else ""))
        # A folder that is looked at twice says twice what is wrong with it.
        problems, notes = dict.fromkeys(self.problems), dict.fromkeys(self.notes)
        return Manifest.from_rows(rows, self.root, problems=problems, notes=notes)

    def _fault(self, text: str, known: dict[str, bool]) -> str:
        """Return why a path cannot be in this manifest, empty if it can."""
        if not is_unicode(text):
            return "its name is not valid Unicode; rename the file"
        fault = path_fault(text)
        if fault:
            return f"its path {fault}"
        try:
            locate(text, self.root, known=known)
        except InputError as error:
            return error.message
        return ""


def open_root(root: Path) -> Draft:
    """Return an empty draft for a folder.

    Raises
    ------
    InputError
        If it is not a folder.
    """
    if not is_folder(root):
        raise InputError(f"{root} {'is not a folder' if os.path.lexists(root) else 'does not exist'}")
    return Draft(root)


def first_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the folders that is there; one that holds only a folder of its own name gives that one."""
    for name in names:
        folder = root / name
        if is_folder(folder):
            nested = folder / name
            return nested if is_folder(nested) else folder
    return None


def first_file(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Return the first of the files that is there."""
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def keyed(table: TextTable, column: str) -> dict[str, tuple[int, dict[str, str]]]:
    """Return the rows of a table, each with its number counted from 0, by the value of ``column``.

    Raises
    ------
    ManifestError
        If the column is not there, or a value is empty or met twice.
    """
    need_columns(table, [column])
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for index, row in enumerate(table.rows()):
        key = row[column]
        if not key:
            raise ManifestError(f"{table.where(index)}: {column} is empty")
        if key in rows:
            raise ManifestError(
                f"{table.where(index)}: {column} {key!r} is taken already ({table.where(rows[key][0])})"
            )
        rows[key] = (index, row)
    return rows


def need_columns(table: TextTable, columns: Iterable[str]) -> None:
    """Refuse a table that lacks one of ``columns``.

    Raises
    ------
    ManifestError
        Naming the columns that there are.
    """
    for column in columns:
        if column not in table.frame.columns:
            there = ", ".join(table.frame.columns)
            raise ManifestError(f"{table.path}, line 1: no column is called {column!r} (there are: {there})")


def is_one(table: TextTable, index: int, column: str, value: str) -> bool:
    """Read a cell that says yes or no: 1 or 0, also as 1.0, 0.0, true, false or empty.

    Raises
    ------
    ManifestError
        If it says anything else.
    """
    text = value.strip().lower()
    if text in ("1", "1.0", "true"):
        return True
    if text in ("0", "0.0", "false", ""):
        return False
    raise ManifestError(f"{table.where(index)}: {column} is {value!r}; it must be 0 or 1")


def known_value(value: str) -> str:
    """Return a metadata value with whatever means unknown made empty, and ``55.0`` written as ``55``."""
    text = value.strip()
    if text.lower() in ("unknown", "nan", "na", "n/a", "none", "null"):
        return ""
    whole = text.removesuffix(".0")
    return whole if whole.isdecimal() else text


def counted(things: Sized, noun: str) -> str:
    """Return how many there are, in words: ``1 image``, ``2,511 images``."""
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"

"""Any table of images: which of its columns is what, given as options."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import ClassVar

from medtool.datasets.layout import SPLIT_NAMES, Draft, counted, is_one, need_columns, open_root
from medtool.errors import ManifestError, UsageError
from medtool.folders import image_suffix
from medtool.manifest import COLUMNS, Manifest, path_fault
from medtool.tables import TextTable, read_text_table

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


class CsvDataset:
    """A CSV table of one row an image, and images somewhere below the same folder."""

    classes: ClassVar[Sequence[str]] = ()
    licence = "that of the images"
    citation = ""
    options: ClassVar[dict[str, str]] = {
        "table": "The CSV file, relative to ROOT. Default: the only one there is in ROOT.",
        **{name: f"Column that holds the {name}. Default: {name!r}, if there is one." for name in COLUMNS},
        "image_template": "Path of the image, made from columns: 'images/{filename}.jpg'.",
        "mask_template": "Path of the mask, made from columns: 'masks/{filename}_mask.png'.",
        "label_columns": "Columns of 0 and 1, one a class, separated by commas: 'MEL,NV,BCC'.",
        "negative": "Label of rows in which all of label_columns are 0. Default: no label.",
    }

    def manifest(
        self,
        root: Path,
        *,
        table: str = "",
        image_template: str = "",
        mask_template: str = "",
        label_columns: str = "",
        negative: str = "",
        **columns: str,
    ) -> Manifest:
        """Return a row for each row of the table whose image exists; columns without a meaning stay as metadata.

        Paths are relative to ``root``; an absolute one below ``root`` is made so, and backslashes are read as ``/``.

        Raises
        ------
        UsageError
            If options contradict one another, or name a column or table that is not there.
        ManifestError
            If the table is wrong, names an image_id twice, or a row has several of the label columns.
        """
        draft = open_root(root)
        text = read_text_table(_table(root, table))
        one_hot = [name.strip() for name in label_columns.split(",") if name.strip()]
        _refuse_contradictions(columns, image_template, mask_template, one_hot, negative)
        templates = {"image": image_template, "mask": mask_template}
        made_of_others = {name for name, template in templates.items() if template} | ({"label"} if one_hot else set())
        sources = {name: column for name, column in _sources(text, columns).items() if name not in made_of_others}
        if not image_template and "image" not in sources:
            raise UsageError(
                f"{text.path} has no column 'image' (there are: {', '.join(text.frame.columns)})",
                hint="--set image=COLUMN, or --set image_template='images/{COLUMN}.jpg'",
            )
        need_columns(text, one_hot)
        used = {*sources.values(), *one_hot}
        lost = [name for name in text.frame.columns if name in COLUMNS and name not in used]
        draft.notes.extend(
            f"the column {name!r} of {text.path.name} is left out: {name} comes from elsewhere" for name in lost
        )
        lines: dict[str, int] = {}
        for index, row in enumerate(text.rows()):
            made = {name: row[column] for name, column in sources.items()}
            for name, template in templates.items():
                if template:
                    made[name] = _filled(text, template, row)
                if name in made:
                    made[name] = _relative(made[name], root)
            if one_hot:
                made["label"] = _label(text, index, row, one_hot, negative)
            if "split" in made:
                made["split"] = _split(text, index, made["split"])
            if not made["image"]:
                raise ManifestError(f"{text.where(index)}: the image is empty")
            key = made.get("image_id") or made["image"]
            if key in lines:
                raise ManifestError(f"{text.where(index)}: {key!r} is named already ({text.where(lines[key])})")
            lines[key] = index
            rest = {name: value for name, value in row.items() if name not in used and name not in COLUMNS}
            draft.rows.append({**made, **rest})
        _note_unnamed(draft)
        return draft.finish()


def _table(root: Path, name: str) -> Path:
    if name:
        path = root / name
        if not path.is_file():
            raise UsageError(f"--set table={name}: {path} is not a file")
        return path
    tables = sorted(path for path in root.glob("*.csv") if path.name != "manifest.csv")
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables[:5]) or "none"
        raise UsageError(f"which table? CSV files in {root}: {found}", hint="--set table=FILE.csv")
    return tables[0]


def _refuse_contradictions(
    columns: Mapping[str, str], image_template: str, mask_template: str, one_hot: list[str], negative: str
) -> None:
    pairs = (("image", image_template, "image_template"), ("mask", mask_template, "mask_template"))
    for name, template, option in (*pairs, ("label", one_hot, "label_columns")):
        if name in columns and template:
            raise UsageError(f"--set {name} and --set {option} both say where the {name} comes from; give one")
    if negative and not one_hot:
        raise UsageError("--set negative is the label of rows without any of label_columns; give label_columns too")
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise UsageError(f"the data set 'csv' has no option {unknown[0]!r}")


def _sources(text: TextTable, columns: Mapping[str, str]) -> dict[str, str]:
    """Return which column of the table each column of the manifest comes from."""
    there = text.frame.columns
    for name, column in columns.items():
        if column not in there:
            near = difflib.get_close_matches(column, there, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(there)})"
            raise UsageError(f"--set {name}={column}: {text.path} has no column {column!r}{guess}")
    return {name: columns.get(name, name) for name in COLUMNS if name in columns or name in there}


def _filled(text: TextTable, template: str, row: Mapping[str, str]) -> str:
    """Return a template with the row's values; where it names another column, say so."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in row:
            near = difflib.get_close_matches(match[1], list(row), n=1)
            guess = f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(row)})"
            raise UsageError(f"{template}: {text.path} has no column {match[1]!r}{guess}")
        return row[match[1]]

    return _PLACEHOLDER.sub(value, template)


def _relative(text: str, root: Path) -> str:
    path = text.replace("\\", "/")
    if PurePath(path).is_absolute() and PurePath(path).is_relative_to(root.absolute()):
        return PurePath(path).relative_to(root.absolute()).as_posix()
    return path


def _label(text: TextTable, index: int, row: Mapping[str, str], one_hot: Sequence[str], negative: str) -> str:
    positive = [name for name in one_hot if is_one(text, index, name, row[name])]
    if len(positive) > 1:
        raise ManifestError(f"{text.where(index)}: {' and '.join(positive)} are all 1; an image has one label")
    return positive[0] if positive else negative


def _split(text: TextTable, index: int, value: str) -> str:
    key = value.strip().lower()
    if key and key not in SPLIT_NAMES:
        raise ManifestError(f"{text.where(index)}: split is {value!r}; it must be train, val, test or empty")
    return SPLIT_NAMES.get(key, "")


def _note_unnamed(draft: Draft) -> None:
    """Count the images that lie beside those of the table and are in no row."""
    named = {row[name] for row in draft.rows for name in ("image", "mask") if row.get(name)}
    folders = {row["image"].rpartition("/")[0] for row in draft.rows if not path_fault(row["image"])}
    unnamed = []
    for folder in sorted(folders):
        try:
            names = sorted(path.name for path in (draft.root / folder).iterdir())
        except OSError:
            continue  # each of its images is a problem of its own
        prefix = f"{folder}/" if folder else ""
        unnamed += [prefix + name for name in names if image_suffix(name) and prefix + name not in named]
    if unnamed:
        draft.notes.append(
            f"{counted(unnamed, 'image')} beside those of the table in no row, left out; the first: {unnamed[0]}"
        )

"""What the three formats have in common: a record of each, and what exporting and importing give."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.split.exchange.options import ExportOptions, FormatName, ImportOptions

if TYPE_CHECKING:
    from medtool.manifest import Manifest


@dataclass(frozen=True, slots=True)
class FoldCounts:
    """How many images the parts of one fold have, in the words of the manifest.

    Attributes
    ----------
    fold
        Its number; None for a hold-out split.
    """

    fold: int | None
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Exported:
    """A split as another program's files.

    Attributes
    ----------
    files
        What each file holds, by its name.
    folds
        What the manifest says of each fold that is written; one entry for a hold-out split.
    n_unused
        How many images of the manifest are in no part of any of them.
    notes
        What the user should know, a line each: what the format cannot hold, and what it calls otherwise.
    """

    files: Mapping[str, bytes]
    folds: tuple[FoldCounts, ...]
    n_unused: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """Another program's split as a manifest.

    Attributes
    ----------
    manifest
        The one that was given, with other ``split``, ``fold`` and ``val_fold`` columns.
    folds
        What the new manifest says of each fold; one entry for a hold-out split.
    n_unused
        How many of its images are in no part of any of them.
    notes
        What the user should know, a line each.
    """

    manifest: Manifest
    folds: tuple[FoldCounts, ...]
    n_unused: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SplitFormat:
    """One program's way to keep a split in files.

    Attributes
    ----------
    name
        Its name on the command line.
    program
        The program's name in messages.
    file_name
        What the program calls the file by default; for one file a fold, that of fold 0.
    file_of_fold
        Matches the names of files that hold a fold each, in a folder; None for one file for all.
    has_paths
        Whether images are called by their paths, which are relative to the manifest's folder.
    export
        Turns a manifest into files.
    read
        Turns files into a manifest: takes the manifest, the paths that the user gave, and options.
    """

    name: FormatName
    program: str
    file_name: str
    file_of_fold: re.Pattern[str] | None
    has_paths: bool
    export: Callable[[Manifest, ExportOptions], Exported]
    read: Callable[[Manifest, Sequence[Path], ImportOptions], Imported]


def format_of(name: FormatName) -> SplitFormat:
    """Return the format of a name."""
    if name == FormatName.NNUNET:
        from medtool.split.exchange.nnunet import NNUNET

        return NNUNET
    if name == FormatName.CLAM:
        from medtool.split.exchange.clam import CLAM

        return CLAM
    from medtool.split.exchange.monai import MONAI

    return MONAI


def counted(number: int, word: str = "image") -> str:
    """Return a number with its word: ``1 image``, ``2,000 images``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def numbers(values: Sequence[int]) -> str:
    """Return numbers as a list for a message, the first ten of them."""
    shown = ", ".join(str(value) for value in values[:10])
    return f"{shown} and {len(values) - 10:,} more" if len(values) > 10 else shown


def shown(text: object) -> str:
    """Return a value from a file as it may stand in a message: quoted, escaped and cut after 80 characters."""
    quoted = repr(text[:200]) if isinstance(text, str) else repr(text)
    return quoted if len(quoted) <= 80 else f"{quoted[:77]}..."

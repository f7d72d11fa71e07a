"""Which images lie below a folder, in an order that does not depend on the file system.

The rules are those of docs/reference/inputs.md: hidden names and earlier results of medtool are passed over, links are
followed without going round in circles, and what cannot be listed is named.
"""

from __future__ import annotations

import functools
import heapq
import os
from dataclasses import dataclass, field
from pathlib import Path

from medtool.errors import reason_of
from medtool.protocols import Problem

RESULT_NAME = "lineage.json"
_DICOM_PREAMBLE_BYTES = 132


@dataclass(slots=True)
class FolderListing:
    """What was found below a folder.

    Attributes
    ----------
    images
        (path relative to the folder with ``/``, path of the file), sorted by the code points of the first.
    problems
        What looked like an image or a folder and cannot be used; the folder itself is called ``.``.
    notes
        What was passed over on purpose and should be said.
    n_other
        How many other files there are.
    """

    images: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_other: int = 0


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of images, in lower case; some have two dots."""
    from medtool.images.options import IMAGE_SUFFIXES

    return frozenset(IMAGE_SUFFIXES)


@functools.cache
def _suffixes_of_two_dots() -> tuple[str, ...]:
    return tuple(sorted(suffix for suffix in image_suffixes() if suffix.count(".") > 1))


def image_suffix(name: str) -> str:
    """Return the image suffix that a file name ends in, as it is written there; empty if it has none."""
    lower = name.lower()
    if lower.endswith(_suffixes_of_two_dots()):
        length = next(len(suffix) for suffix in _suffixes_of_two_dots() if lower.endswith(suffix))
        return name[-length:] if len(name) > length else ""
    dot = name.rfind(".")
    return name[dot:] if dot > 0 and lower[dot:] in image_suffixes() else ""


def stem_of(name: str) -> str:
    """Return a file name without its image suffix; a suffix that is none (``IM.1``) stays."""
    suffix = image_suffix(name)
    return name[: -len(suffix)] if suffix else name


def may_be_dicom(name: str) -> bool:
    """Tell whether a name is one that DICOM images without a suffix have: no dot, or digits after the last (UIDs).

    ``DICOMDIR`` is the table of contents of a disk, not an image.
    """
    _, dot, suffix = name.rpartition(".")
    return (not dot or suffix.isdecimal()) and name.upper() != "DICOMDIR"


def is_dicom(path: str) -> bool:
    """Tell whether a file has DICOM's mark at byte 128."""
    with Path(path).open("rb") as stream:
        return stream.read(_DICOM_PREAMBLE_BYTES)[128:] == b"DICM"


def is_folder(path: str | Path) -> bool:
    """Tell whether there is a folder; no if that cannot be told, where ``Path.is_dir`` raises on some versions."""
    return os.path.isdir(path)  # noqa: PTH112


def is_result(folder: str) -> bool:
    """Tell whether a folder holds an earlier result of medtool."""
    return os.path.lexists(f"{folder}{os.sep}{RESULT_NAME}")


def readable(text: str) -> str:
    r"""Return a name as valid Unicode: bytes that could not be decoded are written out as ``\udcNN``."""
    return text.encode("utf-8", "backslashreplace").decode()


def list_folder(folder: Path) -> FolderListing:
    """List the images below a folder.

    Real folders come first, then folders behind links, so that a folder that can be reached in both ways is listed
    under its own name. No folder is listed twice.
    """
    listing = FolderListing()
    pending: list[tuple[str, str]] = [("", str(folder))]
    links: list[tuple[str, str]] = []
    seen: set[object] = set()
    while pending or links:
        prefix, path = heapq.heappop(pending or links)
        try:
            identity = _identity(path)
            if identity in seen:
                continue
            seen.add(identity)
            _list_one(prefix, path, listing, pending, links)
        except OSError as error:
            listing.problems.append(_problem(prefix.rstrip("/") or ".", path, f"folder: {reason_of(error)}"))
    listing.images.sort()
    listing.problems.sort(key=lambda problem: problem.image_id)
    listing.notes.sort()
    return listing


def _list_one(
    prefix: str, path: str, listing: FolderListing, pending: list[tuple[str, str]], links: list[tuple[str, str]]
) -> None:
    with os.scandir(path) as scan:
        entries = list(scan)
    if any(entry.name == RESULT_NAME for entry in entries):
        listing.notes.append(f"passed over {readable(path)}: it holds a result of medtool ({RESULT_NAME})")
        return
    for entry in entries:
        name = entry.name
        if name.startswith("."):
            continue
        try:
            if entry.is_file():
                if image_suffix(name) or (may_be_dicom(name) and is_dicom(entry.path)):
                    listing.images.append((prefix + name, entry.path))
                else:
                    listing.n_other += 1
            elif entry.is_dir():
                heapq.heappush(links if entry.is_symlink() else pending, (f"{prefix}{name}/", entry.path))
            elif image_suffix(name):
                reason = "a link to nothing" if entry.is_symlink() else "is not a regular file"
                listing.problems.append(_problem(prefix + name, entry.path, reason))
            else:
                listing.n_other += 1
        except OSError as error:
            listing.problems.append(_problem(prefix + name, entry.path, reason_of(error)))


def _identity(path: str) -> object:
    status = Path(path).stat()
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _problem(relative: str, path: str, reason: str) -> Problem:
    return Problem(readable(relative), Path(path), reason)


def output_name(relative: str, suffix: str = ".png") -> str:
    """Return the relative path of what is made from an image: its image suffix replaced, or ``suffix`` appended.

    The rule looks at nothing but the name: ``a/x.nii.gz`` gives ``a/x.png``, ``IM.1`` gives ``IM.1.png``.
    """
    parent, slash, name = relative.rpartition("/")
    return f"{parent}{slash}{stem_of(name)}{suffix}"

"""What images are called in other programs' files: giving names that can be read back, and finding whom a name means.

A file is read in one way throughout: the first in which every name in it is known and means one thing. Mixing ways
name by name could take one image's identifier for another's file name.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medtool.errors import ManifestError
from medtool.folders import image_suffix, stem_of
from medtool.manifest import Manifest
from medtool.split.exchange.format import counted, shown
from medtool.split.exchange.options import Naming
from medtool.split.exchange.role_table import RoleTable

# nnU-Net's file names end in the number of the channel: CASE_0000.png, CASE_0001.png.
_CHANNEL = re.compile(r"(.+)_([0-9]{4})", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:")
# What a path holds that may not be in its simplest form already.
_NOT_PLAIN = re.compile(r"\A[./]|\A\Z|[\\:\0]|//|/\.|/\Z")


@dataclass(frozen=True)
class Way:
    """One way to call images.

    Attributes
    ----------
    words
        What a name is, for messages and notes.
    key
        The name of an image from its path and image_id; None if it has none.
    identity
        What two images must share so that one name may mean both.
    read
        What a name in a file is looked up as; None if it can mean no image.
    """

    words: str
    key: Callable[[str, str], str | None]
    identity: Callable[[str, str], str]
    read: Callable[[str], str | None] = field(default=lambda name: name)


def _stem(image: str, image_id: str) -> str:
    return stem_of(image.rpartition("/")[2])


def channel_of(stem: str) -> tuple[str, str] | None:
    """Return the case and the four digits of the channel in the name of one of nnU-Net's images; None for others."""
    found = _CHANNEL.fullmatch(stem)
    return (found[1], found[2]) if found else None


def _case(image: str, image_id: str) -> str | None:
    found = channel_of(_stem(image, image_id))
    return found[0] if found else None


def _folder_and_case(image: str, image_id: str) -> str:
    return f"{image.rpartition('/')[0]}/{_case(image, image_id)}"


def normal_path(text: str) -> str | None:
    """Return a relative path with ``/`` and without ``.`` and ``..``; None for what is no path below some folder."""
    if not _NOT_PLAIN.search(text):
        return text
    path = text.replace("\\", "/")
    if not path or "\0" in path or path.startswith("/") or _DRIVE.match(path):
        return None
    normal = posixpath.normpath(path)
    return None if normal == ".." or normal.startswith("../") else normal


def _id(image: str, image_id: str) -> str:
    return image_id


def _image_path(image: str, image_id: str) -> str:
    return normal_path(image) or image


BY_ID = Way("image_id", _id, _id)
BY_STEM = Way("file name without ending", _stem, _image_path)
BY_CASE = Way("file name without ending and channel", _case, _folder_and_case)
BY_PATH = Way("path", _image_path, _image_path, normal_path)
BY_STEM_OF_PATH = Way(
    "file name without ending",
    _stem,
    _image_path,
    lambda name: stem_of(name.replace("\\", "/").rpartition("/")[2]) or None,
)


def by_path_from(base: Path, root: Path, *, words: str) -> Way:
    """Return the way of paths that are relative to ``base``, or absolute; the manifest's are relative to ``root``."""
    # Text and os.path, not Path: a file may hold a million names.
    real_base = str(base.resolve())
    roots = {str(folder).rstrip(os.sep) + os.sep for folder in (root.resolve(), root.absolute())}

    def read(name: str) -> str | None:
        if not name or "\0" in name:
            return None
        path = os.path.normpath(os.path.join(real_base, name.replace("\\", "/")))  # noqa: PTH118
        inside = next((path[len(prefix) :] for prefix in roots if path.startswith(prefix)), None)
        return None if inside is None else inside.replace(os.sep, "/")

    return Way(words, _image_path, _image_path, read)


@dataclass(frozen=True, eq=False)
class Part:
    """A list of names in a file: those of one part of one fold.

    Attributes
    ----------
    column
        Which column of the table of roles it fills.
    code
        The role of the images in it.
    names
        As they stand in the file.
    place
        Where the name of a number, counted from 0, stands in the file, for messages.
    is_optional
        Whether names that no image has are passed over.
    """

    column: int
    code: int
    names: Sequence[str]
    place: Callable[[int], str]
    is_optional: bool = False


@dataclass(frozen=True, eq=False)
class Matched:
    """Which images the names of a file mean.

    Attributes
    ----------
    way
        How they were found.
    rows
        The rows of a name; several for the channels of one case.
    """

    way: Way
    rows: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class _Index:
    """The rows of a manifest by what they are called in one way, and the names that mean several things."""

    way: Way
    rows: Mapping[str, tuple[int, ...]]
    ambiguous: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, manifest: Manifest, way: Way) -> _Index:
        rows: dict[str, tuple[int, ...]] = {}
        first: dict[str, str] = {}
        ambiguous: dict[str, tuple[int, int]] = {}
        images, ids = _images_and_ids(manifest)
        for number, (image, image_id) in enumerate(zip(images, ids, strict=True)):
            key = way.key(image, image_id)
            if key is None:
                continue
            if key not in rows:
                rows[key] = (number,)
                continue
            earlier = rows[key][0]
            identity = first.setdefault(key, way.identity(images[earlier], ids[earlier]))
            if way.identity(image, image_id) != identity:
                ambiguous.setdefault(key, (earlier, number))
            rows[key] += (number,)
        return cls(way, rows, ambiguous)

    def find(self, name: str) -> tuple[int, ...]:
        key = self.way.read(name)
        return () if key is None else self.rows.get(key, ())

    def clash(self, name: str) -> tuple[int, int] | None:
        key = self.way.read(name)
        return None if key is None else self.ambiguous.get(key)


def _images_and_ids(manifest: Manifest) -> tuple[list[str], list[str]]:
    return manifest.table.get_column("image").to_list(), manifest.table.get_column("image_id").to_list()


def _image(manifest: Manifest, row: int) -> str:
    """Return the path of an image for a message."""
    return shown(manifest.table.get_column("image")[row])


def chosen(ways: Sequence[Way], naming: Naming) -> Sequence[Way]:
    """Return those of the ways that ``naming`` allows."""
    if naming == Naming.AUTO:
        return ways
    return [way for way in ways if (way is BY_ID) == (naming == Naming.ID)]


def match(manifest: Manifest, parts: Sequence[Part], ways: Sequence[Way]) -> Matched:
    """Return which images are meant by the names in a file.

    Raises
    ------
    ManifestError
        If in no way all names are known; the message names the first that is not, with its place and their number. Or
        if one may mean several images.
    """
    required = dict.fromkeys(name for part in parts if not part.is_optional for name in part.names)
    optional = dict.fromkeys(name for part in parts if part.is_optional for name in part.names)
    errors: list[tuple[int, ManifestError]] = []
    for way in ways:
        index = _Index.of(manifest, way)
        unknown = [name for name in required if not index.find(name)]
        if unknown:
            errors.append((len(unknown), _unknown(manifest, index, parts, unknown, len(required))))
            continue
        unclear = [name for name in (*required, *optional) if index.clash(name)]
        if unclear:
            errors.append((0, _unclear(manifest, index, parts, unclear)))
            continue
        return Matched(way, {name: index.find(name) for name in (*required, *optional)})
    raise min(errors, key=lambda found: found[0])[1]


def _unknown(
    manifest: Manifest, index: _Index, parts: Sequence[Part], unknown: Sequence[str], n_names: int
) -> ManifestError:
    name = unknown[0]
    example = next(iter(index.rows), None)
    as_number = next((each for each in unknown if index.find(each.removesuffix(".0"))), None)
    hint = None if example is None else f"names by {index.way.words} are such as {shown(example)} in the manifest"
    if as_number is not None:
        hint = f"{shown(as_number)} was written by a program that took it for a number: write the names as text"
    return ManifestError(
        f"{_place(parts, name)}: the manifest has no image {shown(name)} "
        f"({len(unknown):,} of {counted(n_names, 'name')} {'is' if len(unknown) == 1 else 'are'} unknown, "
        f"by {index.way.words})",
        hint=hint,
    )


def _unclear(manifest: Manifest, index: _Index, parts: Sequence[Part], unclear: Sequence[str]) -> ManifestError:
    first, second = (_image(manifest, row) for row in index.clash(unclear[0]) or (0, 0))
    return ManifestError(
        f"{_place(parts, unclear[0])}: {shown(unclear[0])} may mean {first} or {second} "
        f"({counted(len(unclear), 'name')} of that kind)",
        hint="name the images by image_id in the file",
    )


def _place(parts: Sequence[Part], name: str) -> str:
    return next(part.place(part.names.index(name)) for part in parts if name in part.names)


def written_names(manifest: Manifest, way: Way, table: RoleTable, *, read_in: Sequence[Way]) -> list[str]:
    """Return what each image is called in a file, after refusing names that could not be told apart on reading.

    Parameters
    ----------
    table
        The roles that will be written; images without any are not.
    read_in
        The ways in which the file will be read.

    Raises
    ------
    ManifestError
        If two images would have one name, or one name means an image to one way and another to the next.
    """
    index = _Index.of(manifest, way)
    is_used = table.is_used
    for name, clash in index.ambiguous.items():
        if any(is_used[row] for row in index.rows[name]):
            first, second = (_image(manifest, row) for row in clash)
            raise ManifestError(
                f"{first} and {second} would both be called {shown(name)} in the file",
                hint="give the images an image_id each that can be a file name, and --names id",
            )
    for name, rows in index.rows.items():
        if len(rows) == 1:
            continue
        other = next((row for row in rows if (table.codes[row] != table.codes[rows[0]]).any()), None)
        if other is not None:
            raise ManifestError(
                f"one name, {shown(name)}, for images with different roles: "
                f"{_image(manifest, rows[0])} is {table.describe(rows[0])}; "
                f"{_image(manifest, other)} is {table.describe(other)}"
            )
    names = [way.key(image, image_id) or "" for image, image_id in zip(*_images_and_ids(manifest), strict=True)]
    used = list(dict.fromkeys(name for name, is_in in zip(names, is_used, strict=True) if is_in))
    _refuse_misleading(manifest, used, index, read_in)
    return names


def _refuse_misleading(manifest: Manifest, names: Sequence[str], index: _Index, read_in: Iterable[Way]) -> None:
    """Refuse names that an earlier way of reading would take for others."""
    for way in read_in:
        if way is index.way:
            return
        other = _Index.of(manifest, way)
        if all(other.find(name) for name in names) and not any(other.clash(name) for name in names):
            wrong = next((name for name in names if other.find(name) != index.find(name)), None)
            if wrong is None:
                return
            first, second = (_image(manifest, found.find(wrong)[0]) for found in (index, other))
            raise ManifestError(
                f"{first} would be called {shown(wrong)} in the file, which is the {way.words} of {second}",
                hint="give the images an image_id each that can be a file name, and --names id",
            )


def can_be_file_name(text: str) -> bool:
    """Tell whether an image_id can be what a file is called, apart from its ending."""
    return not any(mark in text for mark in "/\\\0") and not image_suffix(text) and text not in (".", "..")

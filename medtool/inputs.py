"""What the user named on the command line -> the images that are meant.

An input is a file, a folder, a glob, a manifest, or ``-`` for paths on stdin. One bad input is one problem, named with
its reason; the others go on. The rules are in docs/reference/inputs.md.
"""

from __future__ import annotations

import contextlib
import difflib
import gc
import itertools
import os
import posixpath
import stat
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO, Generic, NamedTuple, TypeVar

from medtool.errors import InputError, UsageError, reason_of
from medtool.folders import (
    image_suffix,
    image_suffixes,
    is_dicom,
    is_folder,
    list_folder,
    may_be_dicom,
    output_name,
    readable,
)
from medtool.globs import expand_glob, has_magic
from medtool.protocols import Problem

__all__ = ["ImageItem", "Listing", "Problem", "find_images"]

_MANIFEST_SUFFIXES = (".csv", ".parquet")
_MISSING = "does not exist"
_MOST_NAMES_COMPARED = 2_000
_NO_COLUMNS: Mapping[str, str] = {}
_P = TypeVar("_P", bound=PurePath)


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image to work on.

    Attributes
    ----------
    image_id
        Unique in its listing: the manifest's, else ``relative`` as text.
    path
        The file; relative to the current folder where the input was.
    relative
        Where results of this image go, relative to the output folder, still with the image's own suffix.
    columns
        The image's row of the manifest; empty without one.
    mask
        The ground truth that the manifest names, checked to exist; None without one.
    """

    image_id: str
    path: Path
    relative: PurePosixPath
    columns: Mapping[str, str] = field(default_factory=dict)
    mask: Path | None = None

    @property
    def output_name(self) -> PurePosixPath:
        """The relative path of the mask made from this image; no two images of a listing have the same."""
        return PurePosixPath(output_name(str(self.relative)))


@dataclass(frozen=True, slots=True)
class Listing:
    """The images that the inputs mean, what is wrong with the others, and what the user should be told."""

    items: list[ImageItem]
    problems: list[Problem]
    notes: list[str]


class _Found(NamedTuple):
    """One image of one input, before all inputs are known; a tuple, because there may be a million."""

    base: str  # absolute folder that relative paths of this input start from
    relative: str  # with '/', below base
    path: str
    image_id: str | None = None
    columns: Mapping[str, str] = _NO_COLUMNS
    mask: Path | None = None


@dataclass(slots=True)
class _Failed:
    """One thing of one input that cannot be used; without a base, ``relative`` is an image_id already."""

    base: str | None
    relative: str
    path: Path
    reason: str


@dataclass(slots=True)
class _Search:
    """What has been found so far."""

    found: list[_Found] = field(default_factory=list)
    failed: list[_Failed] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_other: int = 0


def find_images(inputs: Sequence[str], *, stdin: BinaryIO | None = None, null_separated: bool = False) -> Listing:
    """Return the images that ``inputs`` mean, in the order given; inside a folder by the code points of their paths.

    Parameters
    ----------
    inputs
        Files, folders, globs, manifests, or ``-``.
    stdin
        Where ``-`` reads paths from; the process's own stdin if None.
    null_separated
        Whether the paths on stdin are ended by NUL bytes instead of line ends.

    Raises
    ------
    UsageError
        If there is no input at all, one is empty, or ``-`` is given twice.
    InputError
        If no image is left, a manifest is wrong, two images have one id, or results of two images would have one name.
    """
    if not inputs:
        raise UsageError("no input is given: name a file, a folder, a glob, a manifest, or - for paths on stdin")
    if "" in inputs:
        raise UsageError("an input is the empty text; is a variable of your shell not set?")
    if list(inputs).count("-") > 1:
        raise UsageError("- is given twice; stdin can be read once")
    with _no_collections():
        search = _Search()
        for given in inputs:
            if given == "-":
                for line in _paths_on(stdin or sys.stdin.buffer, null_separated=null_separated):
                    _add_path(search, line, from_stdin=True)
            elif has_magic(given) and not os.path.lexists(given):
                _add_glob(search, given)
            else:
                _add_path(search, given)
        listing = _listing(search)
    if not listing.items:
        raise _nothing_found(inputs, search, listing)
    return listing


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Hold back the garbage collector: it would take a third of the time to look at objects that all stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _paths_on(stdin: BinaryIO, *, null_separated: bool) -> list[str]:
    data = stdin.read().removeprefix(b"\xef\xbb\xbf")
    if b"\0" in data and not null_separated:
        raise InputError(
            "the paths on stdin are separated by NUL bytes, not by line ends", hint="the same command with -0"
        )
    lines = data.split(b"\0") if null_separated else [line.rstrip(b"\r") for line in data.split(b"\n")]
    decode = os.fsdecode if os.name != "nt" else lambda line: line.decode("utf-8", "surrogateescape")
    return [decode(line) for line in lines if line]


def _add_path(search: _Search, given: str, *, from_stdin: bool = False) -> None:
    """Add a path that is taken as it is written."""
    path = Path(given)
    base = _absolute(path if is_folder(path) else path.parent)
    search.bases.append(base)
    if is_folder(path):
        _add_folder(search, path, base, "")
        return
    reason = _fault_of(path)
    is_table = path.suffix.lower() in _MANIFEST_SUFFIXES
    if not reason and is_table and from_stdin:
        reason = "is a table, not an image; a manifest is given on the command line, not on stdin"
    if reason == _MISSING and not from_stdin and not search.failed:
        reason += _guess(path)
    if reason:
        search.failed.append(_Failed(base, path.name, path, reason))
    elif is_table:
        _add_manifest(search, path, base)
    else:
        search.found.append(_Found(base, path.name, str(path)))


def _fault_of(path: Path) -> str:
    """Return why a path that is no folder cannot be an input, empty if it can."""
    try:
        return "" if stat.S_ISREG(path.stat().st_mode) else "is not a regular file"
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else _MISSING
    except OSError as error:
        return reason_of(error)


def _guess(path: Path) -> str:
    """Return the name beside a missing file that is nearest to its name, as a question."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [other.name for other in itertools.islice(path.parent.iterdir(), _MOST_NAMES_COMPARED)]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return f"; did you mean {readable(near[0])!r}?" if near else ""


def _add_folder(search: _Search, folder: Path, base: str, prefix: str) -> None:
    listing = list_folder(folder)
    search.found.extend(_Found(base, prefix + relative, path) for relative, path in listing.images)
    for problem in listing.problems:
        relative = (prefix.rstrip("/") or folder.name) if problem.image_id == "." else prefix + problem.image_id
        search.failed.append(_Failed(base, relative, problem.path, problem.reason))
    search.notes.extend(listing.notes)
    search.n_other += listing.n_other


def _add_glob(search: _Search, pattern: str) -> None:
    """Add what matches: files by the rule of folders, and folders whole."""
    matches = expand_glob(pattern)
    base = _absolute(matches.base)
    search.bases.append(base)
    n_other = 0
    for relative, path in matches.found:
        if is_folder(path):
            _add_folder(search, path, base, f"{relative}/")
            continue
        is_image = image_suffix(path.name) != ""
        if not is_image and not may_be_dicom(path.name):
            n_other += 1
            continue
        try:
            reason = _fault_of(path)
            is_image = is_image or (not reason and is_dicom(str(path)))
        except OSError as error:
            reason = reason_of(error)
        if reason:
            search.failed.append(_Failed(base, relative, path, reason))
        elif is_image:
            search.found.append(_Found(base, relative, str(path)))
        else:
            n_other += 1
    for folder, reason in matches.unreadable:
        search.failed.append(_Failed(base, os.path.relpath(folder, matches.base), folder, f"folder: {reason}"))
    search.notes.extend(
        f"passed over {readable(str(folder))}: it holds a result of medtool" for folder in matches.results
    )
    search.n_other += n_other
    if not matches.found and not matches.unreadable:
        search.failed.append(_Failed(None, pattern, Path(pattern), "matches nothing"))
    elif n_other:
        search.notes.append(f"{pattern} matches {_files(n_other)} too that {'is' if n_other == 1 else 'are'} no image")


def _add_manifest(search: _Search, path: Path, base: str) -> None:
    from medtool.manifest import locate, read_manifest  # polars loads here

    manifest = read_manifest(path)
    known: dict[str, bool] = {}
    lost_masks: list[str] = []
    for row in manifest.rows():
        try:
            image = locate(row["image"], manifest.root, known=known)
        except InputError as error:
            search.failed.append(_Failed(None, row["image_id"], manifest.root / row["image"], error.message))
            continue
        mask = None
        if row.get("mask"):
            try:
                mask = Path(locate(row["mask"], manifest.root, known=known))
            except InputError as error:
                lost_masks.append(f"{row['mask']} {error.message}")
        search.found.append(_Found(base, posixpath.normpath(row["image"]), image, row["image_id"], row, mask))
    if lost_masks:
        search.notes.append(f"{path}: {len(lost_masks):,} of the masks cannot be used; the first: {lost_masks[0]}")


def _absolute(path: Path) -> str:
    # Not Path.resolve(): results keep the names that the user sees, links or not.
    return os.path.abspath(path)  # noqa: PTH100


def _listing(search: _Search) -> Listing:
    """Make paths relative to what all inputs have in common, and take every file once."""
    common = _common_parent(search.bases)
    prefixes = {base: _below(base, common) for base in search.bases}
    items: list[ImageItem] = []
    problems = [
        Problem(
            readable(prefixes[failed.base] if failed.base else "") + readable(failed.relative),
            failed.path,
            failed.reason,
        )
        for failed in search.failed
    ]
    seen: set[str] = set()
    ids: dict[str, ImageItem] = {}
    outputs: dict[str, ImageItem] = {}
    paths, relatives = _Paths(Path, os.sep), _Paths(PurePosixPath, "/")
    for found in search.found:
        relative = prefixes[found.base] + found.relative
        key = os.path.normcase(relative)
        if key in seen:
            continue
        seen.add(key)
        if not relative.isascii() and readable(relative) != relative:
            reason = "its name is not valid Unicode; rename the file"
            problems.append(Problem(readable(relative), Path(found.path), reason))
            continue
        image_id = found.image_id or relative
        item = ImageItem(image_id, paths.of(found.path), relatives.of(relative), found.columns, found.mask)
        if ids.setdefault(image_id, item) is not item:
            raise InputError(f"{ids[image_id].path} and {item.path} both have the image_id {image_id!r}")
        output = _as_on_disk(output_name(relative))
        if outputs.setdefault(output, item) is not item:
            raise _same_output(outputs[output], item)
        items.append(item)
    notes = list(dict.fromkeys(search.notes))
    n_repeated = len(search.found) - len(seen)
    if n_repeated:
        notes.append(f"{_files(n_repeated)} given more than once {'is' if n_repeated == 1 else 'are'} taken once")
    return Listing(items, list(dict.fromkeys(problems)), notes)


class _Paths(Generic[_P]):
    """Makes paths from text three times as fast as their class does, where many lie in one folder."""

    def __init__(self, kind: type[_P], separator: str) -> None:
        self._kind, self._separator = kind, separator
        self._parents: dict[str, _P] = {}

    def of(self, text: str) -> _P:
        parent, _, name = text.rpartition(self._separator)
        if not parent or parent.endswith(":"):  # the root of a file system or drive is not its name without a slash
            return self._kind(text)
        if parent not in self._parents:
            self._parents[parent] = self._kind(parent)
        return self._parents[parent] / name


def _common_parent(bases: Iterable[str]) -> str | None:
    """Return the deepest folder that holds all bases; None where they lie on different drives."""
    try:
        return os.path.commonpath(set(bases))
    except ValueError:
        return None


def _below(base: str, common: str | None) -> str:
    """Return the prefix that leads from ``common`` to ``base``: empty, or with ``/`` at its end."""
    if common is None:
        drive, rest = os.path.splitdrive(base)
        parts = [drive.replace(":", "").strip("\\/").replace("\\", "/"), rest.strip("\\/").replace("\\", "/")]
        return "".join(f"{part}/" for part in parts if part)
    relative = os.path.relpath(base, common).replace(os.sep, "/")
    return "" if relative == "." else f"{relative}/"


def _same_output(one: ImageItem, other: ImageItem) -> InputError:
    return InputError(
        f"the masks of {one.path} and {other.path} would both be called {other.output_name}",
        hint=f"choose one kind of file by a glob, such as 'FOLDER/**/*{image_suffix(one.path.name)}'",
    )


def _as_on_disk(name: str) -> str:
    """Return what two names have in common that are one file here; macOS and Windows do not tell case apart."""
    if sys.platform in ("win32", "darwin"):
        return unicodedata.normalize("NFC", name).casefold()
    return name


def _nothing_found(inputs: Sequence[str], search: _Search, listing: Listing) -> InputError:
    shown = ", ".join(readable(given) for given in inputs[:3]) + (", ..." if len(inputs) > 3 else "")
    if listing.problems:
        first = listing.problems[0]
        more = f" (and {len(listing.problems) - 1} more)" if len(listing.problems) > 1 else ""
        return InputError(f"no image in {shown}: {readable(str(first.path))} {first.reason}{more}")
    facts = list(listing.notes)
    if not search.bases:
        return InputError(
            f"no image in {shown}: no path came on stdin", hint="find FOLDER -name '*.png' | medtool ... -"
        )
    if search.n_other:
        facts.append(f"{_files(search.n_other)} there, none of them an image by its name")
    hint = f"images end in {', '.join(sorted(image_suffixes()))}; DICOM files may have no suffix"
    return InputError(f"no image in {shown}" + (f": {'; '.join(facts)}" if facts else ""), hint=hint)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"

"""Glob patterns, as a shell would expand them, but the same on every system.

``*``, ``?`` and ``[...]`` match inside one name, ``**`` any number of folders. Hidden names are matched only by a part
that starts with a dot itself. ``**`` does not follow links, and neither it nor a wildcard enters an earlier result.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from medtool.errors import UsageError, reason_of
from medtool.folders import is_folder, is_result

_MAGIC = re.compile(r"[*?\[]")


@dataclass(slots=True)
class Matches:
    """What a pattern matches.

    Attributes
    ----------
    base
        The folder named by the leading parts without wildcards.
    found
        (path relative to ``base`` with ``/``, path), sorted by the code points of the first; files and folders.
    results
        Folders passed over because they hold a result of medtool.
    unreadable
        (folder, reason) of folders that could not be listed.
    """

    base: Path
    found: list[tuple[str, Path]] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def has_magic(text: str) -> bool:
    """Tell whether a text is a pattern."""
    return _MAGIC.search(text) is not None


def expand_glob(pattern: str) -> Matches:
    """Return everything that a pattern matches, each path once.

    Raises
    ------
    UsageError
        If ``..`` comes after a wildcard: what it means would depend on what is there.
    """
    path = Path(pattern)
    anchor, parts = path.anchor, list(path.parts[1:] if path.anchor else path.parts)
    n_literal = next((index for index, part in enumerate(parts) if has_magic(part)), len(parts))
    # A pattern's last part names what is wanted, never where to start from.
    start = min(n_literal, len(parts) - 1)
    if ".." in parts[start:]:
        raise UsageError(f"{pattern}: '..' cannot come after a wildcard")
    matches = Matches(Path(anchor, *parts[:start]))
    if is_folder(matches.base):
        found: dict[str, Path] = {}
        _match(matches.base, "", parts[start:], matches, found)
        matches.found = sorted(found.items())
    return matches


def _match(folder: Path, prefix: str, parts: list[str], matches: Matches, found: dict[str, Path]) -> None:
    part, rest = parts[0], parts[1:]
    if part == "**":
        if not rest:
            _match(folder, prefix, ["*"], matches, found)
            return
        _match(folder, prefix, rest, matches, found)
        for entry in _entries(folder, matches):
            if not entry.name.startswith(".") and _is_real_folder(entry) and _may_enter(entry, matches):
                _match(folder / entry.name, f"{prefix}{entry.name}/", parts, matches, found)
        return
    if not has_magic(part):
        below = folder / part
        if os.path.lexists(below):
            _reach(below, f"{prefix}{part}", rest, matches, found)
        return
    is_match = _matcher(part)
    for entry in _entries(folder, matches):
        if is_match(entry.name) and (not rest or (is_folder(entry.path) and _may_enter(entry, matches))):
            _reach(folder / entry.name, prefix + entry.name, rest, matches, found)


def _reach(path: Path, relative: str, rest: list[str], matches: Matches, found: dict[str, Path]) -> None:
    if not rest:
        found[relative] = path
    elif is_folder(path):
        _match(path, f"{relative}/", rest, matches, found)


def _matcher(part: str) -> Callable[[str], bool]:
    compiled = re.compile(fnmatch.translate(os.path.normcase(part)))
    takes_hidden = part.startswith(".")

    def is_match(name: str) -> bool:
        return (takes_hidden or not name.startswith(".")) and compiled.match(os.path.normcase(name)) is not None

    return is_match


def _entries(folder: Path, matches: Matches) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scan:
            return list(scan)
    except OSError as error:
        matches.unreadable.append((folder, reason_of(error)))
        return []


def _is_real_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _may_enter(entry: os.DirEntry[str], matches: Matches) -> bool:
    if not is_result(entry.path):
        return True
    path = Path(entry.path)
    if path not in matches.results:
        matches.results.append(path)
    return False

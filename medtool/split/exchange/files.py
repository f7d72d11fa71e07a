"""Reading other programs' JSON without believing it, and writing files without losing others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtool.errors import InputError, ManifestError, OutputError, reason_of
from medtool.manifest import Manifest, read_manifest, write_manifest
from medtool.split.exchange.format import shown
from medtool.storage import make_folder, write_whole

# Five folds of a million images with names of 60 characters take 350 MB.
_MAX_BYTES = 512 * 2**20
_MAX_DIGITS = 100
_MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\x00\x00\xfe\xff", "UTF-32"))


def read_strict_json(path: Path) -> Any:
    """Return what a JSON file holds; UTF-8, with or without a byte order mark.

    Unlike :func:`medtool.storage.read_json`, it takes any value at the top, and refuses what JSON does not define: NaN,
    infinities, and a key twice in one object, of which a parser keeps only the last.

    Raises
    ------
    InputError
        With the file and, where the text is at fault, the line and column.
    """
    text = _text_of(path)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}: this is not JSON: {error.msg.lower()}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path}: the JSON is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _text_of(path: Path) -> str:
    refuse_unless_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    for mark, name in _MARKS:
        if data.startswith(mark):
            raise InputError(f"{path}, line 1: the file is {name}; it must be UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the mark.
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = 1 + data.count(b"\n", 0, offset)
        raise InputError(f"{path}, line {line}: byte 0x{data[offset]:02x} is not UTF-8") from error


def refuse_unless_file(path: Path) -> None:
    """Refuse what cannot be read as a whole: folders, devices, files of more than 512 MiB.

    Raises
    ------
    InputError
        With the reason.
    """
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    if not path.is_file():
        raise InputError(f"{path} is {'a folder, not a file' if path.is_dir() else 'not a regular file'}")
    if size_bytes > _MAX_BYTES:
        raise InputError(f"{path} has {size_bytes:,} bytes; the list of a split has {_MAX_BYTES:,} at most")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {shown(key)} stands twice in one object")
        made[key] = value
    return made


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def kind_of(value: Any) -> str:
    """Return what JSON calls a value, for messages."""
    if value is None:
        return "null"
    kinds = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list"}
    return kinds.get(type(value), "an object")


def json_bytes(document: Any) -> bytes:
    """Return a document as JSON: a name or an item a line, keys in the order given, non-ASCII escaped."""
    return f"{_spread(document, '')}\n".encode()


def _spread(value: Any, indent: str) -> str:
    """Return JSON over several lines, but for objects that hold no list or object: those take one."""
    inner = f"{indent}    "
    if isinstance(value, list) and value:
        lines = [_spread(item, inner) if isinstance(item, dict | list) else json.dumps(item) for item in value]
        open_, close = "[]"
    elif isinstance(value, dict) and any(isinstance(item, dict | list) for item in value.values()):
        lines = [f"{json.dumps(key)}: {_spread(item, inner)}" for key, item in value.items()]
        open_, close = "{}"
    else:
        return json.dumps(value, allow_nan=False)
    spread = f",\n{inner}".join(lines)
    return f"{open_}\n{inner}{spread}\n{indent}{close}"


def write_files(folder: Path, files: Mapping[str, bytes], *, overwrite: bool) -> list[Path]:
    """Write files into a folder, which is made if need be, and return where they are.

    None is written if one of them is there with other content, unless ``overwrite``; one that is there with the same
    content is left as it is.

    Raises
    ------
    OutputError
        If one is there already, or cannot be written.
    """
    paths = {folder / name: data for name, data in files.items()}
    changed = {path: data for path, data in paths.items() if not _is_same(path, data)}
    if not overwrite:
        for path in changed:
            if os.path.lexists(path):
                raise OutputError(
                    f"{path} is there already and differs", hint="--overwrite to replace it, or another place"
                )
    make_folder(folder)
    for path, data in changed.items():
        write_whole(path, data)
    return list(paths)


def _is_same(path: Path, data: bytes) -> bool:
    try:
        return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def write_imported(manifest: Manifest, path: Path, *, overwrite: bool) -> None:
    """Write a manifest; one that is there and says something else is replaced only with ``overwrite``.

    Raises
    ------
    OutputError
        If it is there already, or cannot be written.
    ManifestError
        If the images do not lie below its folder.
    """
    if os.path.lexists(path) and not overwrite:
        try:
            is_same = read_manifest(path).table.equals(manifest.seen_from(path.parent).table)
        except ManifestError:
            is_same = False
        if not is_same:
            raise OutputError(
                f"{path} is there already and differs", hint="--overwrite to replace it, or another --out"
            )
        return
    write_manifest(manifest, path)

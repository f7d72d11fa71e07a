"""Files that are there whole or not at all, the parts of a long job, and who may write to a folder.

A file is written to a temporary name in its own folder, flushed to the disk, and renamed; a reader sees the old file or
the new one, never half of one, whenever the process or the machine stops. A long job keeps the finished pieces of its
work as *parts* until the result is put together, so that the same command can go on where it was stopped.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medtool.errors import BusyError, InputError, OutputError

TEMPORARY_PREFIX = ".medtool-tmp-"
LOCK_NAME = ".medtool-lock"
PARTS_NAME = ".medtool-parts"

_LEFT_BY_DESKTOPS = frozenset((".ds_store", ".directory", "thumbs.db", "desktop.ini"))

_ADVICE = {
    errno.ENOSPC: "free some space, then run the same command again: what is finished is kept",
    errno.EDQUOT: "free some of your quota, then run the same command again: what is finished is kept",
    errno.EACCES: "give another folder with --out, or ask for the right to write to this one",
    errno.EPERM: "give another folder with --out, or ask for the right to write to this one",
    errno.EROFS: "give another folder with --out: this one cannot be written to",
    errno.EIO: "check the disk, then run the same command again: what is finished is kept",
}


def output_error(path: Path, error: OSError) -> OutputError:
    """Return the error to raise when ``path`` cannot be written."""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return OutputError(f"cannot write {path}: {reason}", hint=_ADVICE.get(error.errno or 0))


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that it is there whole or not at all, also after a power cut.

    Raises
    ------
    OutputError
        If the file cannot be written; an earlier file of that name is then as it was.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error


def place(temporary: Path, path: Path) -> None:
    """Rename a finished file to ``path``, in the same folder, so that it is there whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be done; an earlier file of that name is then as it was.
    """
    try:
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename last. Windows cannot open folders; some network file systems refuse to sync them."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document whole: UTF-8, two spaces, keys in the order given, no NaN."""
    text = json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False)
    write_whole(path, text.encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises
    ------
    InputError
        If it cannot be read or is not a JSON object.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds a JSON {type(document).__name__}, not an object")
    return document


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; fine if it is there.

    Raises
    ------
    OutputError
        If it cannot be made, or a file of that name is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def strangers(folder: Path) -> list[str]:
    """Return the names of what lies in a folder, sorted, but for medtool's own hidden files and what desktops leave.

    Raises
    ------
    OutputError
        If the folder cannot be listed.
    """
    own = (LOCK_NAME, PARTS_NAME, TEMPORARY_PREFIX)
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise OutputError(f"cannot list {folder}: {(error.strerror or str(error)).lower()}") from error
    return [name for name in names if not name.startswith((*own, "._")) and name.lower() not in _LEFT_BY_DESKTOPS]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sweep_temporaries(folder: Path, *, below: Iterable[str] = ()) -> None:
    """Remove what a killed process left half-written. Call it with the folder locked.

    Parameters
    ----------
    folder
        Only what lies in it directly is looked at: other results may lie deeper, and other processes write them.
    below
        Names of the sub-folders that are this result's own; they are searched to the bottom.
    """
    try:
        for found in folder.glob(f"{TEMPORARY_PREFIX}*"):
            found.unlink(missing_ok=True)
        for own in (PARTS_NAME, *below):
            for parent, _, names in os.walk(folder / own):
                for name in names:
                    if name.startswith(TEMPORARY_PREFIX):
                        (Path(parent) / name).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone; the operating system gives it back when the process dies.

    Raises
    ------
    BusyError
        If another live process holds it.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK_NAME
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        holder = _holder(path)
        raise BusyError(
            f"{folder} is being written by another medtool process{holder}",
            hint="wait for it to end, or give another folder with --out",
        ) from error
    except OSError as error:
        raise output_error(folder, error) from error
    try:
        with contextlib.suppress(OSError):
            path.write_text(f"{os.getpid()} {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        if os.name != "nt":
            path.unlink(missing_ok=True)  # while still held: whoever waits on it sees that it is gone
        lock.release()
        if os.name == "nt":
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _holder(path: Path) -> str:
    try:
        process, host = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ""
    return f" (process {process} on {host})"


class Parts:
    """The finished pieces of a job that has not ended, each a small JSON file written whole.

    Parameters
    ----------
    folder
        The job's output folder; the parts live in a hidden folder in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / PARTS_NAME

    def write(self, key: str, document: Mapping[str, Any]) -> None:
        """Keep one piece under ``key``, replacing an earlier one of that key."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        shelf = self.folder / digest[:2]  # folders with a million files are slow on many systems
        make_folder(shelf)
        write_whole(shelf / f"{digest}.json", json.dumps({"key": key, "part": document}).encode())

    def read(self) -> dict[str, dict[str, Any]]:
        """Return every piece by its key, in the order of the keys."""
        pieces = {}
        for path in sorted(self.folder.glob("*/*.json")):
            document = read_json(path)
            pieces[document["key"]] = document["part"]
        return dict(sorted(pieces.items()))

    def remove(self) -> None:
        """Forget all pieces; the result has been put together."""
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise output_error(self.folder, error) from error

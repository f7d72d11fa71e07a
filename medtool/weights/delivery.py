"""How weights come into the folder: from their publisher, or from a file carried by hand.

Either way the file gets its final name only after its SHA-256 has been compared with the published one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from medtool.errors import BusyError, InputError, NetworkError, OutputError
from medtool.storage import TEMPORARY_PREFIX, locked, make_folder, output_error, place
from medtool.weights.published import WeightsInfo, info
from medtool.weights.shelf import FOLDER_VARIABLE, Found, State, digest_of, folder, look_at, part_of, unreadable

if TYPE_CHECKING:
    from medtool.weights.download import Progress, Tell

SPARE_BYTES = 64 << 20
"""What a download leaves free on the disk."""
BLOCK_BYTES = 1 << 20
POLL_S = 1.0
"""How often a waiting process looks whether the folder is free."""


def get(name: str, *, overwrite: bool = False, progress: Progress | None = None, tell: Tell | None = None) -> Found:
    """Fetch weights, or go on fetching them, and verify them; what is there already is only verified.

    A second process that asks for weights while a first one fetches some waits for it.

    Parameters
    ----------
    overwrite
        Replace a file that is not the published one.
    progress
        Called with the bytes that are there and the bytes that there will be.
    tell
        Called with one line for the user now and then.

    Raises
    ------
    NetworkError
        If the file cannot be had; the message names the address, the hint where to put a file fetched otherwise.
    InputError
        If another file is there under this name and ``overwrite`` is False.
    OutputError
        If the folder cannot be written to, or the disk is full.
    """
    wanted = info(name)
    path = folder() / wanted.file_name
    progress, tell = progress or _silent, tell or _silent
    if (found := _accepted(name, overwrite=overwrite)) is not None:
        return found  # before the folder is held: somebody else's folder may be for reading only
    with _held(path.parent, tell):
        if (found := _accepted(name, overwrite=overwrite)) is not None:
            return found
        try:
            sha256 = _fetch(wanted, part_of(path), progress, tell)
        except NetworkError as error:
            error.hint = (
                f"fetch it on another machine, then: medtool weights get {name} --from {wanted.file_name}"
                f"   (or put it at {path}; its SHA-256 is {wanted.sha256})"
            )
            raise
        place(part_of(path), path)
    return Found(name, wanted, path, State.VERIFIED, wanted.size_bytes, sha256)


def install(
    name: str, source: Path, *, overwrite: bool = False, progress: Progress | None = None, tell: Tell | None = None
) -> Found:
    """Copy weights that were carried to this machine into the folder, verified; ``source`` stays as it is.

    Parameters
    ----------
    source
        The file, under any name, or a folder that holds it under its published name.

    Raises
    ------
    InputError
        If ``source`` cannot be read or is not the published file, or another file is there under this name.
    OutputError
        If the folder cannot be written to, or the disk is full.
    """
    wanted = info(name)
    source = source / wanted.file_name if source.is_dir() else source
    path = folder() / wanted.file_name
    progress, tell = progress or _silent, tell or _silent
    if (found := _accepted(name, overwrite=overwrite)) is not None:
        return found
    with _held(path.parent, tell):
        if (found := _accepted(name, overwrite=overwrite)) is not None:
            return found
        temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        try:
            sha256 = _copy(source, temporary, wanted, progress)
            place(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return Found(name, wanted, path, State.VERIFIED, wanted.size_bytes, sha256)


def _accepted(name: str, *, overwrite: bool) -> Found | None:
    """Return the published file if it is there already, None if there is work to do; refuse another file."""
    found = look_at(name, verify=True)
    if found.state is State.VERIFIED:
        return found
    if found.state is State.WRONG and not overwrite and found.info is not None:
        seen = f"SHA-256 {found.sha256}" if found.sha256 else f"{found.size_bytes:,} bytes"
        asked = found.info.sha256 if found.sha256 else f"{found.info.size_bytes:,}"
        raise _not_published(
            found.path, found.info, seen, asked, hint=f"medtool weights get {name} --overwrite, to replace it"
        )
    return None


def _fetch(wanted: WeightsInfo, part: Path, progress: Progress, tell: Tell) -> str:
    """Bring the whole file into ``part`` and return its SHA-256, which is the published one."""
    from medtool.weights.download import download, forget_part

    had_bytes = part.stat().st_size if part.is_file() else 0
    _refuse_full_disk(part.parent, wanted.size_bytes - had_bytes)
    download(wanted.url, part, size_bytes=wanted.size_bytes, progress=progress, tell=tell)
    sha256 = digest_of(part)
    if sha256 != wanted.sha256 and had_bytes:
        tell(f"what an earlier try left was damaged (SHA-256 {sha256}, not {wanted.sha256}); starting anew")
        forget_part(part)
        return _fetch(wanted, part, progress, tell)
    if sha256 != wanted.sha256:
        forget_part(part)
        raise NetworkError(
            f"{wanted.url} gave a file with SHA-256 {sha256}, not the published {wanted.sha256}; it was removed"
        )
    return sha256


def _copy(source: Path, temporary: Path, wanted: WeightsInfo, progress: Progress) -> str:
    """Copy ``source`` to ``temporary`` and return its SHA-256, which is the published one."""
    digest = hashlib.sha256()
    done = 0
    with contextlib.closing(_open(source)) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size != wanted.size_bytes:
            raise _not_published(source, wanted, f"{size:,} bytes", f"{wanted.size_bytes:,}")
        _refuse_full_disk(temporary.parent, size)
        try:
            with temporary.open("xb") as copy:
                while block := _read(stream, source):
                    digest.update(block)
                    copy.write(block)
                    done += len(block)
                    progress(done, size)
        except OSError as error:  # of the copy: the source's have become InputError
            raise output_error(temporary, error) from error
    if digest.hexdigest() != wanted.sha256:
        raise _not_published(source, wanted, f"SHA-256 {digest.hexdigest()}", wanted.sha256)
    return digest.hexdigest()


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error


def _read(stream: BinaryIO, path: Path) -> bytes:
    try:
        return stream.read(BLOCK_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error


def _not_published(path: Path, wanted: WeightsInfo, seen: str, asked: str, *, hint: str | None = None) -> InputError:
    return InputError(
        f"{path} is not the published {wanted.name}: it has {seen}, not {asked}",
        hint=hint or f"fetch {wanted.url} again",
    )


def _refuse_full_disk(where: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(where).free
    if free < needed_bytes + SPARE_BYTES:
        raise OutputError(
            f"{where} has {free / 1e6:,.0f} MB free; {(needed_bytes + SPARE_BYTES) / 1e6:,.0f} MB are needed"
        )


@contextlib.contextmanager
def _held(where: Path, tell: Tell) -> Iterator[None]:
    """Hold the weights folder, having waited for any other process that does, and sweep what a killed one left."""
    try:
        make_folder(where)
        with contextlib.ExitStack() as stack:
            _wait_for(stack, where, tell)
            for left in where.glob(f"{TEMPORARY_PREFIX}*"):
                left.unlink(missing_ok=True)
            yield
    except OutputError as error:
        error.hint = f"free some space there, or set {FOLDER_VARIABLE} to another folder"
        raise


def _wait_for(stack: contextlib.ExitStack, where: Path, tell: Tell) -> None:
    has_told = False
    while True:
        try:
            stack.enter_context(locked(where))
        except BusyError as error:
            if not has_told:
                tell(f"{error.message}; waiting for it")
            has_told = True
            time.sleep(POLL_S)
        else:
            return


def _silent(*_: object) -> None:
    """Show nothing."""

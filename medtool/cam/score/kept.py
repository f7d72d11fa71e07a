"""What a call has found so far, beside the document that it is for: after an interruption the same call goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medtool.storage import PARTS_NAME, Parts, locked, make_folder, sweep_temporaries

PREFIX = f"{PARTS_NAME}-"


class Kept:
    """Pieces that are finished, by their keys; without parts nothing is kept."""

    def __init__(self, parts: Parts | None = None) -> None:
        self._parts = parts
        self._found: dict[str, dict[str, Any]] = {} if parts is None else parts.read()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a piece of an earlier call; None if there is none."""
        return self._found.get(key)

    def add(self, key: str, piece: Mapping[str, Any]) -> None:
        """Keep a piece; raises ``OutputError``."""
        if self._parts is not None:
            self._parts.write(key, piece)

    def forget(self) -> None:
        """Remove all pieces: what they are for is written."""
        if self._parts is not None:
            self._parts.remove()


@contextlib.contextmanager
def kept_for(out: Path | None) -> Iterator[Kept]:
    """Yield what an earlier call has found for a document; the place is held for this process alone.

    Raises
    ------
    BusyError
        If another process works for the same document.
    OutputError
        If nothing can be written beside it.
    """
    if out is None:
        yield Kept()
        return
    folder = out.with_name(f"{PREFIX}{out.name}")
    make_folder(folder)
    try:
        with locked(folder):
            sweep_temporaries(folder)
            yield Kept(Parts(folder))
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # fails where pieces are left to go on with


def stamp_of(path: Path | None) -> str:
    """Return what tells that a file is the one it was, without reading it."""
    try:
        status = os.stat(path) if path is not None else None  # noqa: PTH116 - half the time of Path.stat
    except OSError:
        return "missing"
    return "" if status is None else f"{status.st_size} {status.st_mtime_ns}"

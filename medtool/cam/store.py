"""The cache of heatmaps while it is being made: what is there already, and the parts that a call adds.

Parts lie in a hidden folder beside the cache, each a small file of heatmaps that is made in memory and written whole.
Once all is there they are merged with the earlier cache into a new one, which takes its place. The folder is locked
while a process works, and gone when it has finished.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medtool import lineage
from medtool.errors import BusyError, InputError, LineageError, OutputError
from medtool.heatmaps.format import Head, Row
from medtool.heatmaps.reading import HeatmapFile, open_heatmaps
from medtool.heatmaps.writing import Layout, bytes_of, write_rows
from medtool.storage import locked, make_folder, output_error, sweep_temporaries, write_whole

PREFIX = ".medtool-parts-"
_SUFFIX = ".h5"
_BLOCKS, _FILES = 8, 16  # in memory, and open, at a time
_ATTEMPTS = 100
_OVERWRITE = "--overwrite makes it anew, or give another file with --out"


@dataclass(frozen=True, slots=True)
class Known:
    """A row that is there already.

    Attributes
    ----------
    path, number
        The file, and the place in it.
    image_sha256, key, seen
        As of :class:`medtool.heatmaps.format.Row`.
    """

    path: Path
    number: int
    image_sha256: str
    key: int
    seen: str


class Store:
    """Rows of heatmaps, held by this process alone; see :func:`open_store`.

    Attributes
    ----------
    out
        The cache.
    known
        What is there, by image id.
    before
        The lineage of the earlier cache; None where there is none, or it is not gone on with.
    has_parts
        Whether there are parts that are not in the cache yet.
    """

    def __init__(self, out: Path, folder: Path) -> None:
        self.out = out
        self.known: dict[str, Known] = {}
        self.before: dict[str, Any] | None = None
        self.has_parts = False
        self._folder = folder
        self._next = 0

    def load(self, now: Mapping[str, Any], *, overwrite: bool) -> list[str]:
        """Find what is there and was made in the same way, and return lines for the user on what cannot be used.

        Raises
        ------
        LineageError
            If the cache, or the parts of one that was not finished, were made in another way.
        """
        notes: list[str] = []
        started = lineage.read_lineage(self._folder)
        parts = sorted(self._folder.glob(f"*{_SUFFIX}"))
        if started is None or (overwrite and lineage.differences(started["made_with"], now["made_with"])):
            self._forget(parts)
            parts = []
        elif parts:
            lineage.refuse_other(self.out, started, now)
        if self.out.exists() and not overwrite:
            self._load_cache(now, notes)
        for path in parts:
            self._load_part(path, notes)
        self.has_parts = bool(parts)
        lineage.write_lineage(self._folder, now)
        self._next = 1 + max((int(path.stem) for path in parts), default=-1)
        return notes

    def _load_cache(self, now: Mapping[str, Any], notes: list[str]) -> None:
        try:
            with open_heatmaps(self.out, keeps_damaged=True) as file:
                before = file.lineage
                if before is None or before.get("command") != now["command"]:
                    raise LineageError(f"{self.out} was not made by medtool cam", hint=_OVERWRITE)
                changed = lineage.differences(before["made_with"], now["made_with"])
                if changed:
                    more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
                    raise LineageError(
                        f"{self.out} was made in another way: {'; '.join(changed[:3])}{more}", hint=_OVERWRITE
                    )
                if not file.has_checksums:
                    raise InputError(f"{self.out} is damaged: it has no checksums")
                self.before = before
                whole, damaged = _sorted_out(file)
                self.known |= whole
        except LineageError:
            raise
        except InputError as error:
            raise LineageError(f"{error.message}; it cannot be gone on with", hint=_OVERWRITE) from error
        if damaged:
            notes.append(
                f"{self.out}: {len(damaged)} heatmaps are damaged and left out, such as {min(damaged)}; those of images"
                " that are given now are made again"
            )

    def _load_part(self, path: Path, notes: list[str]) -> None:
        """Take the rows of a part; one that is damaged is removed, and what it held is made again."""
        try:
            with open_heatmaps(path) as file:
                whole, damaged = _sorted_out(file)
                if file.has_checksums and not damaged:
                    self.known |= whole
                    return
        except InputError:
            pass
        notes.append(f"{path} is damaged; its heatmaps are made again")
        self._forget([path])

    def add(self, head: Head, rows: Sequence[Row], *, layout: Layout) -> None:
        """Keep some rows for good."""
        path = self._folder / f"{self._next:08}{_SUFFIX}"
        write_whole(path, bytes_of(head, layout, rows))
        self._next += 1
        self.has_parts = True
        for number, row in enumerate(rows):
            self.known[row.image_id] = Known(path, number, row.image_sha256, row.key, row.seen)

    def finish(self, head: Head, seen: Mapping[str, str], *, layout: Layout) -> None:
        """Write the cache from all that is known, ordered by image id, and forget the parts.

        Parameters
        ----------
        seen
            What is known now of whether an image was seen, by image id; of others stays what was known.
        """
        write_rows(self.out, head, replace(layout, n=len(self.known)), self._merged(seen), work=self._folder)
        self._forget(self._folder.glob(f"*{_SUFFIX}"))

    def _merged(self, seen: Mapping[str, str]) -> Iterator[Row]:
        with _Blocks() as blocks:
            for image_id in sorted(self.known):
                known = self.known[image_id]
                row, fault = blocks.row(known.path, known.number)
                if fault or row.image_id != image_id:
                    raise InputError(
                        f"{known.path} was damaged while this process worked: the heatmap of {image_id!r} is not what"
                        " it was",
                        hint="check the disk, then run the same command again: that heatmap is made again",
                    )
                yield replace(row, seen=seen.get(image_id, row.seen))

    def leave(self) -> None:
        """Leave nothing behind in the folder where there are no parts to go on with."""
        if not any(self._folder.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(OSError):
                (self._folder / lineage.LINEAGE_NAME).unlink(missing_ok=True)

    @staticmethod
    def _forget(paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(path, error) from error


def _sorted_out(file: HeatmapFile) -> tuple[dict[str, Known], set[str]]:
    """Return the rows of a file that are whole, by image id, and the ids of the others."""
    whole: dict[str, Known] = {}
    damaged: set[str] = set()
    for number, (row, fault) in enumerate(file.examined()):
        if fault:
            damaged.add(row.image_id)
        else:
            whole[row.image_id] = Known(file.path, number, row.image_sha256, row.key, row.seen)
    return whole, damaged


@contextlib.contextmanager
def open_store(out: Path) -> Iterator[Store]:
    """Hold the cache ``out`` for this process alone.

    Raises
    ------
    BusyError
        If another live process holds it.
    OutputError
        If its folder cannot be written to.
    """
    make_folder(out.parent)
    folder = out.with_name(f"{PREFIX}{out.name}")
    try:
        with _held(folder):
            if not os.access(out.parent, os.W_OK):  # where parts of an earlier call lie, nothing else has tried it yet
                raise output_error(out, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
            sweep_temporaries(folder)
            store = Store(out, folder)
            try:
                yield store
            finally:
                store.leave()
    except BusyError as error:
        error.args = (error.message.replace(str(folder), str(out)),)
        error.message = error.args[0]
        raise
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # fails where parts are left, or another process has come


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Make a folder and hold it; a process that has just finished may take it away meanwhile."""
    with contextlib.ExitStack() as stack:
        for attempt in itertools.count(1):
            try:
                make_folder(folder)
                stack.enter_context(locked(folder))
                break
            except OutputError:
                if attempt == _ATTEMPTS or folder.exists():
                    raise
        yield


class _Blocks:
    """Rows of many files, read in blocks; few blocks are in memory and few files open."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, HeatmapFile] = OrderedDict()
        self._blocks: OrderedDict[tuple[Path, int], list[tuple[Row, str]]] = OrderedDict()

    def __enter__(self) -> _Blocks:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def row(self, path: Path, number: int) -> tuple[Row, str]:
        """Return a row of a file, and what is wrong with it."""
        file = self._file(path)
        key = path, number // file.block_rows
        if key not in self._blocks:
            start = key[1] * file.block_rows
            self._blocks[key] = list(file.examined(start, min(start + file.block_rows, len(file))))
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key][number % file.block_rows]

    def _file(self, path: Path) -> HeatmapFile:
        if path not in self._files:
            self._files[path] = open_heatmaps(path, keeps_damaged=True)
            if len(self._files) > _FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]

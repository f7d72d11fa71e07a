"""The cache of heatmaps while it is being made: what is there already, and the parts that a call adds.

Parts lie in a hidden folder beside the cache, each a small file of heatmaps that is made in memory and written whole.
Once all is there they are merged with the earlier cache into a new one, which takes its place. The folder is locked
while a process works, and gone when it has finished.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medtool import lineage
from medtool.errors import BusyError, InputError, LineageError
from medtool.heatmaps.format import Head, Row
from medtool.heatmaps.reading import HeatmapFile, open_heatmaps
from medtool.heatmaps.writing import Layout, bytes_of, write_rows
from medtool.storage import locked, make_folder, output_error, sweep_temporaries, write_whole

PREFIX = ".medtool-parts-"
_SUFFIX = ".h5"
_BLOCK_ROWS = 256
_BLOCKS, _FILES = 16, 16  # in memory, and open, at a time
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
            with open_heatmaps(self.out) as file:
                before = file.lineage
                if before is None or before.get("command") != now["command"]:
                    raise LineageError(f"{self.out} was not made by medtool cam", hint=_OVERWRITE)
                changed = lineage.differences(before.get("made_with", {}), now["made_with"])
                if changed:
                    more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
                    raise LineageError(
                        f"{self.out} was made in another way: {'; '.join(changed[:3])}{more}", hint=_OVERWRITE
                    )
                self.before = before
                faults = dict(file.faults())
                self._take(file, leave_out=faults)
        except LineageError:
            raise
        except InputError as error:
            raise LineageError(f"{error.message}; it cannot be gone on with", hint=_OVERWRITE) from error
        if faults:
            notes.append(f"{self.out}: {len(faults)} heatmaps are damaged and made again, such as {min(faults)}")

    def _load_part(self, path: Path, notes: list[str]) -> None:
        """Take the rows of a part; one that is damaged is removed, and what it held is made again."""
        try:
            with open_heatmaps(path) as file:
                if next(file.faults(), None) is None:
                    self._take(file, leave_out={})
                    return
        except InputError:
            pass
        notes.append(f"{path} is damaged; its heatmaps are made again")
        self._forget([path])

    def _take(self, file: HeatmapFile, *, leave_out: Mapping[str, str]) -> None:
        for number, image_id in enumerate(file.ids):
            if image_id not in leave_out:
                sha256, seen = file.sha256_of(image_id), file.seen_of(image_id)
                self.known[image_id] = Known(file.path, number, sha256, file.key_of(image_id), seen)

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
                row = blocks.row(known.path, known.number)
                assert row.image_id == image_id
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
    make_folder(folder)
    try:
        with locked(folder):
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


class _Blocks:
    """Rows of many files, read in blocks; few blocks are in memory and few files open."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, HeatmapFile] = OrderedDict()
        self._blocks: OrderedDict[tuple[Path, int], list[Row]] = OrderedDict()

    def __enter__(self) -> _Blocks:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def row(self, path: Path, number: int) -> Row:
        """Return a row of a file."""
        key = path, number // _BLOCK_ROWS
        if key not in self._blocks:
            file = self._file(path)
            start = key[1] * _BLOCK_ROWS
            self._blocks[key] = file.read_rows(start, min(start + _BLOCK_ROWS, len(file)))
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key][number % _BLOCK_ROWS]

    def _file(self, path: Path) -> HeatmapFile:
        if path not in self._files:
            self._files[path] = open_heatmaps(path)
            if len(self._files) > _FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]

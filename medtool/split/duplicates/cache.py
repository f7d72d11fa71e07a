"""Fingerprints that were made before, kept beside the manifest by the content of the files they are of.

The cache is a folder of *shards*, Parquet files that are written whole and never changed, so that a run that is killed
loses little, and any number of processes may use it at once. A fingerprint is taken from it only if the file has the
very bytes it was made of and the method is the same; each row has a checksum, so that damage costs time and nothing
else. It may be deleted at any time. Format: docs/reference/formats.md.
"""

from __future__ import annotations

import io
import secrets
import time
import zlib
from array import array
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from medtool.errors import BusyError, reason_of
from medtool.split.duplicates.fingerprint import N_COLOURS, N_WAVES, VERSION, Fingerprint
from medtool.storage import locked, make_folder, sweep_temporaries, write_whole

#: The folder's name, and the names of what is in it.
NAME: Final = "medtool.hashes"
SHARD: Final = "hashes-*.parquet"

_FLUSH_ROWS = 5000  # or so many seconds, whichever is first: what a kill loses
_FLUSH_S = 30.0
_SHARD_ROWS = 50_000  # at most
_SMALL_BYTES = 4_000_000  # of a shard that is put together with others
_MOST_SMALL = 8
_MOST_OTHERS = 100_000  # fingerprints of images that were not asked for; or as many as were, if those are more

#: A row as its checksum sees it: packed, little-endian.
_ROW: Final = np.dtype(
    [
        ("sha256", "u1", 32),
        ("width", "<i4"),
        ("height", "<i4"),
        ("format", "S8"),
        ("is_blank", "u1"),
        ("spectrum", "i1", N_WAVES * N_WAVES),
        ("colours", "u1", N_COLOURS * N_COLOURS * 3),
    ]
)
_BINARY: Final = ("sha256", "spectrum", "colours")

Rows = npt.NDArray[np.void]


def cache_path(manifest: Path) -> Path:
    """Return the folder in which fingerprints are kept: beside the manifest, for all manifests that lie there."""
    return manifest.with_name(NAME)


class Cache:
    """Fingerprints by the content of their files.

    Parameters
    ----------
    folder
        From :func:`cache_path`. It is made when there is something to keep. None keeps nothing.

    Attributes
    ----------
    notes
        What should be known, a line each: damaged shards, a folder that cannot be written to.
    """

    def __init__(self, folder: Path | None) -> None:
        self.notes: list[str] = []
        self._folder = folder
        self._damaged: list[Path] = []
        self._new: list[Fingerprint] = []
        self._used = array("Q")
        self._flushed = time.monotonic()
        self._shelves = [] if folder is None else self._read(folder)
        prefixes = np.concatenate([np.empty(0, np.uint64), *map(_prefixes, self._shelves)])
        order = np.argsort(prefixes, kind="stable")
        self.prefixes = prefixes[order]
        lengths = [len(rows) for rows in self._shelves]
        self._shelf = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[order]
        self._row = np.concatenate([np.empty(0, np.int32), *(np.arange(length, dtype=np.int32) for length in lengths)])
        self._row = self._row[order]

    def find(self, sha256: str) -> Fingerprint | None:
        """Return the fingerprint of the file of that content, or None."""
        prefix, digest = prefix_of(sha256), bytes.fromhex(sha256)
        place = int(np.searchsorted(self.prefixes, np.uint64(prefix)))
        while place < len(self.prefixes) and self.prefixes[place] == prefix:
            row = self._shelves[self._shelf[place]][self._row[place]]
            if row["sha256"].tobytes() == digest:
                self._used.append(prefix)
                return _fingerprint(row)
            place += 1
        return None

    def add(self, made: Fingerprint) -> None:
        """Keep a fingerprint; a file of several pages has none worth keeping."""
        if self._folder is None or made.note:
            return
        self._new.append(made)
        self._used.append(prefix_of(made.sha256))
        if len(self._new) >= _FLUSH_ROWS or time.monotonic() - self._flushed > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is new to the disk; a folder that cannot be written to is noted, and no more is kept."""
        new, self._new = self._new, []
        self._flushed = time.monotonic()
        if self._folder is None or not new:
            return
        try:
            make_folder(self._folder)
            _write(self._folder, _packed(new))
            while self._damaged:
                self._damaged.pop().unlink(missing_ok=True)
        except OSError as error:
            self.notes.append(f"fingerprints are not kept: {reason_of(error)}")
            self._folder = None

    def close(self) -> None:
        """Write what is new; make few shards of many small ones, and forget images that nobody asks for any more."""
        self.flush()
        if self._folder is None:
            return
        try:
            paths = _shards(self._folder)
            n_used = len(np.unique(np.frombuffer(self._used, np.uint64)))
            if len(self.prefixes) <= 2 * n_used + _MOST_OTHERS:
                paths = [path for path in paths if _is_small(path)]
                if len(paths) <= _MOST_SMALL:
                    return
            with locked(self._folder):
                self._compact(self._folder, paths)
        except BusyError:
            return  # another process does it
        except OSError as error:
            self.notes.append(f"the files in {self._folder.name} could not be put together: {reason_of(error)}")

    def _compact(self, folder: Path, paths: list[Path]) -> None:
        rows = np.concatenate([_no_rows(), *(_read_shard(path)[0] for path in paths)])
        rows = rows[np.unique(_digests(rows), return_index=True)[1]]
        is_used = np.isin(_prefixes(rows), np.frombuffer(self._used, np.uint64))
        others = np.flatnonzero(~is_used)[max(_MOST_OTHERS, int(is_used.sum())) :]
        rows = np.delete(rows, others)
        for start in range(0, len(rows), _SHARD_ROWS):
            _write(folder, rows[start : start + _SHARD_ROWS])
        for path in paths:
            path.unlink(missing_ok=True)
        sweep_temporaries(folder)

    def _read(self, folder: Path) -> list[Rows]:
        found: list[Rows] = []
        n_old = 0
        try:
            paths = _shards(folder)
            for path in paths:
                rows, is_whole, old = _read_shard(path)
                found.append(rows)
                n_old += old
                if not is_whole:
                    self._damaged.append(path)
        except OSError as error:
            self.notes.append(f"the fingerprints kept in {folder.name} cannot be read: {reason_of(error)}")
            return []
        if self._damaged:
            self.notes.append(f"{len(self._damaged)} of {len(paths)} files in {folder.name} are damaged: made anew")
        if n_old:
            self.notes.append(f"{n_old:,} fingerprints in {folder.name} are of another version: made anew")
        return found


def prefix_of(sha256: str) -> int:
    """Return the first eight bytes of a hash as a number."""
    return int(sha256[:16], 16)


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob(SHARD))


def _is_small(path: Path) -> bool:
    try:
        return path.stat().st_size < _SMALL_BYTES
    except FileNotFoundError:  # another process made it one with others
        return False


def _write(folder: Path, rows: Rows) -> None:
    import polars as pl  # the processes that make fingerprints load this module too, and need no tables

    columns = {name: [row.tobytes() for row in rows[name]] for name in _BINARY}
    frame = pl.DataFrame(
        {
            "version": pl.repeat(VERSION, len(rows), dtype=pl.Int16, eager=True),
            **{name: pl.Series(name, values, dtype=pl.Binary) for name, values in columns.items()},
            "width": rows["width"],
            "height": rows["height"],
            "format": pl.Series([text.decode() for text in rows["format"].tolist()], dtype=pl.String),
            "is_blank": rows["is_blank"].astype(bool),
            "crc32": _checksums(rows),
        }
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer, statistics=False)
    write_whole(folder / f"hashes-{secrets.token_hex(8)}.parquet", buffer.getvalue())


def _read_shard(path: Path) -> tuple[Rows, bool, int]:
    """Return the rows of one shard, whether it is whole, and how many rows of another version were passed over.

    A shard that another process made one with others in the meantime has no rows: its own rows are not needed badly.
    """
    import polars as pl

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _no_rows(), True, 0
    try:
        # Nothing but bytes comes from the file: what a damaged one makes of the reader is no reason to stop.
        frame = pl.read_parquet(io.BytesIO(data))
        is_ours = frame["version"] == VERSION
        n_old = len(frame) - int(is_ours.sum())
        frame = frame.filter(is_ours)
        rows = np.zeros(len(frame), _ROW)
        for name in _BINARY:
            rows[name] = np.frombuffer(b"".join(frame[name].to_list()), rows[name].dtype).reshape(rows[name].shape)
        for name in ("width", "height", "is_blank"):
            rows[name] = frame[name].to_numpy()
        rows["format"] = [text.encode() for text in frame["format"].to_list()]
        is_whole = np.array_equal(_checksums(rows), frame["crc32"].to_numpy())
    except Exception:
        is_whole, n_old = False, 0
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how polars ends on some damaged files
            raise
        is_whole, n_old = False, 0
    return (rows, True, n_old) if is_whole else (_no_rows(), False, 0)


def _no_rows() -> Rows:
    return np.zeros(0, _ROW)


def _prefixes(rows: Rows) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(rows["sha256"][:, :8]).view(">u8")[:, 0].astype(np.uint64)


def _digests(rows: Rows) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(rows["sha256"]).view("S32")[:, 0]


def _checksums(rows: Rows) -> npt.NDArray[np.uint32]:
    view = memoryview(rows.tobytes())
    size = _ROW.itemsize
    return np.array([zlib.crc32(view[at : at + size]) for at in range(0, len(view), size)], np.uint32)


def _packed(fingerprints: list[Fingerprint]) -> Rows:
    count = len(fingerprints)
    rows = np.zeros(count, _ROW)
    rows["sha256"] = np.frombuffer(bytes.fromhex("".join(one.sha256 for one in fingerprints)), np.uint8).reshape(-1, 32)
    rows["width"] = [one.width for one in fingerprints]
    rows["height"] = [one.height for one in fingerprints]
    rows["format"] = [one.format.encode() for one in fingerprints]
    rows["is_blank"] = [one.is_blank for one in fingerprints]
    rows["spectrum"] = np.array([one.spectrum for one in fingerprints], np.int8).reshape(count, -1)
    rows["colours"] = np.array([one.colours for one in fingerprints], np.uint8).reshape(count, -1)
    return rows


def _fingerprint(row: np.void) -> Fingerprint:
    return Fingerprint(
        row["sha256"].tobytes().hex(),
        int(row["width"]),
        int(row["height"]),
        row["format"].decode(),
        row["spectrum"].reshape(N_WAVES, N_WAVES).copy(),
        row["colours"].reshape(N_COLOURS, N_COLOURS, 3).copy(),
        bool(row["is_blank"]),
    )

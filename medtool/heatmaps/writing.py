"""Writing files of heatmaps: whole or not at all, and with a few rows in memory at a time.

The HDF5 library makes the description of an empty file, a few KiB, in memory; the rows are written by plain writes to
the places that it reserved for them. So it never meets a full disk, and the number of images costs no memory.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import numpy.typing as npt

from medtool.errors import InputError, OutputError
from medtool.hdf5 import MAX_TEXT_BYTES, string_type
from medtool.heatmaps.format import (
    FORMAT,
    FORMAT_VERSION,
    Flag,
    Head,
    HeatmapAttributes,
    Row,
    block_rows_of,
    fault_of_id,
    fault_of_length,
    fault_of_sha256,
    fault_of_shape,
)
from medtool.storage import TEMPORARY_PREFIX, output_error, place, write_whole


@dataclass(frozen=True, slots=True)
class Layout:
    """The data sets of a file, before its rows are known.

    Attributes
    ----------
    n
        Images.
    size
        (height, width) of the maps.
    id_bytes, target_bytes
        Of the longest image id, and of the longest class that a map speaks for.
    has_spread, has_keys
        Whether there is a spread for each map, and a key for each image.
    """

    n: int
    size: tuple[int, int]
    id_bytes: int
    target_bytes: int = 0
    has_spread: bool = False
    has_keys: bool = False

    def types(self, n_classes: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return the shape of one row, and the type, of each data set."""
        several = (n_classes,) if n_classes else ()
        maps = ((*several, *self.size), np.dtype("<f4"))
        found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "heatmaps": maps,
            "image_id": ((), string_type(self.id_bytes)),
            "image_sha256": ((), string_type(64)),
            "score": (several, np.dtype("<f8")),
            "flag": (several, np.dtype("u1")),
            "checksum": ((), np.dtype("<u4")),
            "seen": ((), string_type(5)),
        }
        if not n_classes:
            found["target"] = ((), string_type(self.target_bytes))
        if self.has_spread:
            found["spread"] = maps
        if self.has_keys:
            found["key"] = ((), np.dtype("<u8"))
        return found


def bytes_of(head: Head, layout: Layout, rows: Iterable[Row]) -> bytes:
    """Return a small file as it would be written; see :func:`write_rows`."""
    stream = io.BytesIO()
    _write(stream, head, layout, rows)
    return stream.getvalue()


def write_rows(path: Path, head: Head, layout: Layout, rows: Iterable[Row], *, work: Path | None = None) -> None:
    """Write a file of heatmaps, whole or not at all, holding few rows in memory.

    Parameters
    ----------
    rows
        As many as the layout says, and no longer.
    work
        Folder on the same file system, for the file until it is whole; by default that of ``path``.

    Raises
    ------
    OutputError
        If it cannot be written; an earlier file of that name is then as it was.
    """
    temporary = (work or path.parent) / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        try:
            with temporary.open("xb") as stream:
                _write(stream, head, layout, rows)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise output_error(path, error) from error
        place(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _write(stream: IO[bytes], head: Head, layout: Layout, rows: Iterable[Row]) -> None:
    types = layout.types(len(head.classes))
    description, places = _description(head, layout, types)
    size = description.seek(0, io.SEEK_END)
    stream.truncate(size)
    for start, piece in description.pieces.items():
        stream.seek(start)
        stream.write(piece)
    count = 0
    stream_of_rows = iter(rows)
    step = block_rows_of((layout.n, *types["heatmaps"][0]))
    while block := list(itertools.islice(stream_of_rows, step)):
        for name, (shape, dtype) in types.items():
            values = _column(name, block, shape, dtype)
            stream.seek(places[name] + count * dtype.itemsize * math.prod(shape))
            stream.write(values.tobytes())
        count += len(block)
    assert count == layout.n, f"{count} rows where {layout.n} were announced"


def _column(name: str, rows: Sequence[Row], shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if name in ("image_id", "image_sha256", "target", "seen"):
        texts = [getattr(row, name).encode("utf-8", "surrogateescape") for row in rows]
        assert max(map(len, texts)) <= dtype.itemsize, f"a text of {name} is longer than was announced"
        return np.array(texts, dtype=f"S{dtype.itemsize}")
    attribute = {"heatmaps": "heatmaps", "score": "scores", "flag": "flags"}.get(name, name)
    found = np.array([getattr(row, attribute) for row in rows], dtype=dtype)
    return found.reshape(len(rows), *shape)


class _Description(io.RawIOBase):
    """A file in memory that holds only what was written to it, however far apart; the rest reads as 0."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}
        self._size = 0
        self._place = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        end = min(self._place + len(buffer), self._size)
        found = bytearray(max(0, end - self._place))
        for start, piece in self.pieces.items():
            low, high = max(start, self._place), min(start + len(piece), end)
            if low < high:
                found[low - self._place : high - self._place] = piece[low - start : high - start]
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)

    def write(self, data: Any) -> int:
        self.pieces.pop(self._place, None)  # what is written later comes later
        self.pieces[self._place] = bytes(data)
        self._place += len(data)
        self._size = max(self._size, self._place)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._place if size is None else size
        return self._size


def _description(
    head: Head, layout: Layout, types: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
) -> tuple[_Description, dict[str, int]]:
    """Return the file without its rows, and where in it each data set begins."""
    stream = _Description()
    with h5py.File(stream, "w") as file:
        _write_text(file, "format", FORMAT)
        file.attrs["version"] = FORMAT_VERSION
        for name, text in asdict(head.attributes).items():
            _write_text(file, name, text)
        file.attrs["checksum"] = np.uint32(head.checksum)
        if head.classes:
            raw = [name.encode() for name in head.classes]
            file.create_dataset("classes", data=np.array(raw, dtype=string_type(max(map(len, raw)))))
        if head.lineage:
            file.create_dataset("lineage", data=np.frombuffer(head.lineage, np.uint8))
        places = {name: _reserve(file, name, (layout.n, *shape), dtype) for name, (shape, dtype) in types.items()}
    return stream, places


def _write_text(file: h5py.File, name: str, text: str) -> None:
    raw = text.encode()
    file.attrs.create(name, raw, dtype=string_type(len(raw)))


def _reserve(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Make a data set whose values the library does not write, and return where they belong."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_obj_track_times(False)  # the same maps give the same bytes
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(dtype, logical=True)
    made = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plan)
    return int(made.get_offset() or 0) if math.prod(shape) else 0


def write_heatmaps_file(
    path: Path,
    heatmaps: npt.ArrayLike,
    *,
    image_ids: Sequence[str],
    attributes: HeatmapAttributes,
    image_sha256: Mapping[str, str] | None = None,
    scores: Mapping[str, float] | None = None,
) -> None:
    """Write a file of heatmaps, whole or not at all: the way for any program to hand its maps to medtool.

    The same arguments give the same bytes.

    Parameters
    ----------
    path
        Usually named ``cams.h5``.
    heatmaps
        Shape ``(n, h, w)``, finite; each covers its whole upright image. Best raw and at the layer's own resolution.
    image_ids
        As ``medtool`` names the images: relative to the folder that is given to it.
    attributes
        Where the maps come from.
    image_sha256
        Image id to SHA-256 of the image file's bytes; what is missing is written as not known.
    scores
        Image id to the network's score of the target; what is missing is written as not known.

    Raises
    ------
    InputError
        If ids are empty or not unique, a map is not finite, or the shapes do not fit.
    OutputError
        If the file cannot be written.
    """
    maps = np.ascontiguousarray(heatmaps, dtype="<f4")
    image_sha256, scores = image_sha256 or {}, scores or {}
    _check_new(maps, image_ids, attributes, image_sha256=image_sha256, scores=scores)
    longest = max((len(each.encode("utf-8", "surrogateescape")) for each in image_ids), default=0)
    layout = Layout(len(maps), (maps.shape[1], maps.shape[2]), longest)

    def rows() -> Iterator[Row]:
        for image_id, heatmap in zip(image_ids, maps, strict=True):
            score = np.array([scores.get(image_id, math.nan)])
            flags = np.array([flag_of(heatmap)], np.uint8)
            yield Row(image_id, image_sha256.get(image_id, ""), heatmap[None], score, flags)

    write_whole(path, bytes_of(Head(attributes), layout, rows()))


def flag_of(heatmap: npt.NDArray[np.float32]) -> Flag:
    """Return what is wrong with a finite map."""
    high, low = heatmap.max(), heatmap.min()
    if high == low:
        return Flag.CONSTANT if high else Flag.ZERO
    return Flag.NONE if high > 0 else Flag.NEGATIVE


def _check_new(
    maps: npt.NDArray[np.float32],
    image_ids: Sequence[str],
    attributes: HeatmapAttributes,
    *,
    image_sha256: Mapping[str, str],
    scores: Mapping[str, float],
) -> None:
    if maps.ndim != 3 or len(maps) != len(image_ids):
        raise InputError(f"heatmaps must be ({len(image_ids)}, h, w), one an image id, not {maps.shape}")
    if fault := fault_of_shape(maps.shape):
        raise InputError(fault)
    if not attributes.method:
        raise InputError("attributes.method must say how the maps were made")
    for name, text in asdict(attributes).items():
        if fault_of_length(text) or "\0" in text:
            raise InputError(f"attributes.{name} must have at most {MAX_TEXT_BYTES} bytes and no NUL")
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    for row, image_id in enumerate(image_ids):
        if fault := fault_of_id(image_id):
            raise InputError(f"image id {row} {fault}")
        if rows[image_id] != row:
            raise InputError(f"image id {image_id!r} is given twice")
        if not np.isfinite(maps[row]).all():
            raise InputError(f"the heatmap of {image_id!r} holds NaN or infinite values")
    for image_id, sha256 in image_sha256.items():
        if fault := fault_of_sha256(sha256):
            raise InputError(f"image_sha256 of {image_id!r} {fault}")
    others = (image_sha256.keys() | scores.keys()) - rows.keys()
    if others:
        raise InputError(f"image_sha256 or scores name {min(others)!r}, which is no image id")

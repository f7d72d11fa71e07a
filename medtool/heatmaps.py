"""The file of cached heatmaps, ``cams.h5``: opened with suspicion, read one map at a time, and written whole.

Format, version 1 (docs/reference/formats.md): root attributes ``format`` (``medtool-heatmaps``), ``version``, and the
texts of :class:`HeatmapAttributes`; data sets ``heatmaps`` (n, h, w) float32, ``image_id`` and ``image_sha256`` (n,)
UTF-8 strings, ``score`` (n,) float. Every map covers its whole upright image, edge to edge, at the resolution of the
layer that it comes from, neither scaled nor resized: both are done on reading.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self

import h5py
import numpy as np
import numpy.typing as npt

from medtool.errors import InputError
from medtool.hdf5 import (
    MAX_TEXT_BYTES,
    VARIABLE_LENGTH,
    fault_of_links,
    fault_of_storage,
    open_hdf5,
    read_attribute,
    string_type,
)
from medtool.storage import sha256_of, write_whole

if TYPE_CHECKING:
    from types import TracebackType

    from medtool.protocols import Heatmap

FORMAT = "medtool-heatmaps"
FORMAT_VERSION = 1

MAX_IMAGES = 2_000_000
MAX_SIDE = 4096
_MAX_TEXTS_BYTES = 256 << 20
_BLOCK_STRINGS = 4096
_GUESSED_FROM = 500  # comparing with many ids would take longer than the image's own work


@dataclass(frozen=True, slots=True)
class HeatmapAttributes:
    """Where the heatmaps of a file come from; part of the lineage of what is made from them.

    Attributes
    ----------
    method
        How the maps were made, such as ``grad-cam``.
    weights
        SHA-256 of the network's weights file, or empty where there is none or it is not known.
    preprocessing
        What was done to an image before the network saw it; free text or JSON.
    layer
        Dotted name of the layer.
    target
        The class that the maps speak for, or how it was chosen.
    multi_scale
        Scales and flips that were averaged; empty for none.
    """

    method: str
    weights: str = ""
    preprocessing: str = ""
    layer: str = ""
    target: str = ""
    multi_scale: str = ""


def open_heatmaps(path: Path) -> HeatmapFile:
    """Open a file of heatmaps for reading; use it as a context manager.

    Raises
    ------
    InputError
        If it is not an HDF5 file, is cut short, is of another format or version, or breaks a rule of the format.
    """
    return HeatmapFile(path)


class HeatmapFile:
    """An open file of heatmaps; see :func:`open_heatmaps`.

    Attributes
    ----------
    path
        The file.
    attributes
        Where the maps come from.
    ids
        Image ids, in the order of the file.
    layer_size
        (height, width) of the maps as they are stored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_hdf5(path)
        try:
            with self._naming():
                self._check()
                self.attributes = self._read_attributes()
                self.ids = tuple(self._read_texts("image_id"))
                self._sha256 = tuple(self._read_texts("image_sha256"))
            self._rows = {image_id: row for row, image_id in enumerate(self.ids)}
            if len(self._rows) < len(self.ids):
                twice = next(image_id for row, image_id in enumerate(self.ids) if self._rows[image_id] != row)
                raise self._error(f"image_id {twice!r} is there twice")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._rows

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    @functools.cached_property
    def content_hash(self) -> str:
        """SHA-256 of the file's bytes, in hexadecimal; what ``sha256sum`` prints."""
        try:
            return sha256_of(self.path)
        except OSError as error:
            raise self._error(f"cannot be read: {(error.strerror or str(error)).lower()}") from error

    @property
    def layer_size(self) -> tuple[int, int]:
        """(height, width) of the maps as they are stored."""
        _, height, width = self._file["heatmaps"].shape
        return int(height), int(width)

    def sha256_of(self, image_id: str) -> str:
        """Return the SHA-256 of the image file that the map of ``image_id`` was made from; empty if not known.

        Raises
        ------
        InputError
            If there is no map for that image.
        """
        return self._sha256[self._row(image_id)]

    def score_of(self, image_id: str) -> float:
        """Return the network's score of the target for that image; NaN if not known.

        Raises
        ------
        InputError
            If there is no map for that image.
        """
        row = self._row(image_id)
        with self._naming():
            return float(self._file["score"][row])

    def get(self, image_id: str, *, size: tuple[int, int]) -> Heatmap:
        """Return the map of one image at the image's size.

        Values below 0 become 0, then the map is resized bilinearly with pixel centres at half-integers (what PyTorch
        calls ``align_corners=False``), so that it lies on the image without a shift. Values are not scaled.

        Parameters
        ----------
        image_id
            As in :attr:`ids`.
        size
            (height, width) of the upright image in pixels.

        Returns
        -------
        Heatmap
            Shape ``size``, float32, finite, ≥ 0, not constant.

        Raises
        ------
        InputError
            If there is no map for that image, or it says nothing: not finite, constant, or nowhere above 0.
        """
        row = self._row(image_id)
        with self._naming():
            stored = np.asarray(self._file["heatmaps"][row], dtype=np.float32)
        fault = _fault_of(stored)
        if fault:
            raise InputError(
                f"{self.path.name}: the heatmap of {image_id!r} {fault}",
                hint="leave it out, or make that heatmap again",
            )
        return resize_heatmap(np.maximum(stored, 0), size)

    def _row(self, image_id: str) -> int:
        try:
            return self._rows[image_id]
        except KeyError:
            near = difflib.get_close_matches(image_id, self.ids[:_GUESSED_FROM], n=1, cutoff=0.6)
            guess = f"; the nearest is {near[0]!r}" if near else ""
            reason = f"there is no heatmap of {image_id!r} among its {len(self.ids)}{guess}"
            raise InputError(
                f"{self.path.name}: {reason}", hint="add the image's heatmap to the file, or leave the image out"
            ) from None

    def _error(
        self, reason: str, *, hint: str = "make it again; docs/reference/formats.md has the format"
    ) -> InputError:
        return InputError(f"{self.path}: {reason}", hint=hint)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Give errors of the HDF5 library the file's name, on one line."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
            if isinstance(error, InputError):
                raise
            raise self._error(f"damaged: {' '.join(str(error).split())}") from error

    def _check(self) -> None:
        """Refuse whatever the format does not allow, from the file's structure alone."""
        file = self._file
        self._refuse(fault_of_links(file))
        if (found := self._attribute("format")) != FORMAT:
            raise self._error(f"its format is {found!r}, not {FORMAT!r}")
        if (version := self._attribute("version")) != FORMAT_VERSION:
            raise self._error(f"its format version is {version!r}; this medtool reads version {FORMAT_VERSION}")
        for name in ("heatmaps", "image_id", "image_sha256", "score"):
            self._refuse(fault_of_storage(file, name))
        maps = file["heatmaps"]
        if maps.ndim != 3 or maps.dtype.newbyteorder("=") != np.float32:
            raise self._error(f"heatmaps must be (n, h, w) float32, not {maps.shape} {maps.dtype}")
        self._refuse(_fault_of_shape(maps.shape))
        for name in ("image_id", "image_sha256"):
            text = file[name]
            kind = h5py.check_string_dtype(text.dtype)
            if text.shape != maps.shape[:1] or kind is None:
                raise self._error(f"{name} must be {maps.shape[:1]} strings, not {text.shape} {text.dtype}")
            if kind.length is None:
                raise self._error(f"{name} {VARIABLE_LENGTH}")
            if kind.length > MAX_TEXT_BYTES:
                raise self._error(f"{name} claims strings of {kind.length} bytes; at most {MAX_TEXT_BYTES}")
        score = file["score"]
        if score.shape != maps.shape[:1] or score.dtype.kind != "f":
            raise self._error(f"score must be {maps.shape[:1]} floats, not {score.shape} {score.dtype}")

    def _refuse(self, fault: str) -> None:
        if fault:
            raise self._error(fault)

    def _attribute(self, name: str) -> str | int | float | None:
        try:
            return read_attribute(self._file, name)
        except ValueError as error:
            raise self._error(str(error)) from error

    def _read_attributes(self) -> HeatmapAttributes:
        texts = {}
        for field in fields(HeatmapAttributes):
            value = self._attribute(field.name)
            if isinstance(value, str):
                texts[field.name] = value
            elif value is not None:
                raise self._error(f"attribute {field.name!r} must be a text, not {value!r}")
        if not texts.get("method"):
            raise self._error("attribute 'method' must say how the maps were made")
        return HeatmapAttributes(**texts)

    def _read_texts(self, name: str) -> Iterator[str]:
        """Yield the strings of a data set, a block at a time."""
        dataset = self._file[name]
        fault_of_text = _fault_of_id if name == "image_id" else _fault_of_sha256
        total = 0
        for start in range(0, len(dataset), _BLOCK_STRINGS):
            for row, raw in enumerate(dataset[start : start + _BLOCK_STRINGS], start):
                total += len(raw)
                if total > _MAX_TEXTS_BYTES:
                    raise self._error(f"{name} holds more than {_MAX_TEXTS_BYTES} bytes of text")
                text = raw.decode("utf-8", "surrogateescape")
                if fault := fault_of_text(text):
                    raise self._error(f"{name} {row} {fault}")
                yield text


def resize_heatmap(heatmap: Heatmap, size: tuple[int, int]) -> Heatmap:
    """Return a map at another size, bilinear, with pixel centres at half-integers and edges held.

    Parameters
    ----------
    heatmap
        Shape ``(h, w)``, finite.
    size
        (height, width) wanted, in pixels.
    """
    top, bottom, down = _neighbours(heatmap.shape[0], size[0])
    left, right, across = _neighbours(heatmap.shape[1], size[1])
    rows: Heatmap = heatmap[top] * (1 - down)[:, None] + heatmap[bottom] * down[:, None]
    resized: Heatmap = rows[:, left] * (1 - across) + rows[:, right] * across
    return resized


def _neighbours(old: int, new: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return, for each of ``new`` pixels along an axis, the two old ones beside it and the weight of the second."""
    if new < 1:
        raise ValueError(f"a size must be 1 or more pixels, not {new}")
    centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(centres).astype(np.intp)
    return first, np.minimum(first + 1, old - 1), (centres - first).astype(np.float32)


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
    _check_new(maps, image_ids, attributes, image_sha256, scores)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs.create("format", FORMAT.encode(), dtype=string_type(len(FORMAT)))
        file.attrs["version"] = FORMAT_VERSION
        for field in fields(attributes):
            raw = getattr(attributes, field.name).encode()
            file.attrs.create(field.name, raw, dtype=string_type(len(raw)))
        file.create_dataset("heatmaps", data=maps)
        sha256 = [image_sha256.get(image_id, "") for image_id in image_ids]
        for name, texts in (("image_id", list(image_ids)), ("image_sha256", sha256)):
            listed = [text.encode("utf-8", "surrogateescape") for text in texts]
            dtype = string_type(max(map(len, listed), default=0))
            file.create_dataset(name, data=np.array(listed, dtype=dtype))
        values = [scores.get(image_id, math.nan) for image_id in image_ids]
        file.create_dataset("score", data=np.array(values, dtype="<f8"))
    write_whole(path, stream.getvalue())


def _check_new(
    maps: Heatmap,
    image_ids: Sequence[str],
    attributes: HeatmapAttributes,
    image_sha256: Mapping[str, str],
    scores: Mapping[str, float],
) -> None:
    if maps.ndim != 3 or len(maps) != len(image_ids):
        raise InputError(f"heatmaps must be ({len(image_ids)}, h, w), one an image id, not {maps.shape}")
    if fault := _fault_of_shape(maps.shape):
        raise InputError(fault)
    if not attributes.method:
        raise InputError("attributes.method must say how the maps were made")
    for field in fields(attributes):
        text = getattr(attributes, field.name)
        if len(text.encode()) > MAX_TEXT_BYTES or "\0" in text:
            raise InputError(f"attributes.{field.name} must have at most {MAX_TEXT_BYTES} bytes and no NUL")
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    for row, image_id in enumerate(image_ids):
        if fault := _fault_of_id(image_id):
            raise InputError(f"image id {row} {fault}")
        if rows[image_id] != row:
            raise InputError(f"image id {image_id!r} is given twice")
        if not np.isfinite(maps[row]).all():
            raise InputError(f"the heatmap of {image_id!r} holds NaN or infinite values")
    for image_id, sha256 in image_sha256.items():
        if fault := _fault_of_sha256(sha256):
            raise InputError(f"image_sha256 of {image_id!r} {fault}")
    others = (image_sha256.keys() | scores.keys()) - rows.keys()
    if others:
        raise InputError(f"image_sha256 or scores name {min(others)!r}, which is no image id")


def _fault_of_shape(shape: tuple[int, ...]) -> str:
    """Return why maps of this shape are not read or written; empty if they are."""
    images, height, width = shape
    if images > MAX_IMAGES or not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        return f"heatmaps are {shape}; at least (0, 1, 1) and at most ({MAX_IMAGES}, {MAX_SIDE}, {MAX_SIDE}) can be"
    return ""


def _fault_of_id(image_id: str) -> str:
    """Return why a text cannot be an image id; empty if it can."""
    if not image_id or "\0" in image_id:
        return f"must have a character and no NUL, not {image_id[:80]!r}"
    length = len(image_id.encode("utf-8", "surrogateescape"))
    return f"has {length} bytes; at most {MAX_TEXT_BYTES}" if length > MAX_TEXT_BYTES else ""


def _fault_of_sha256(text: str) -> str:
    """Return why a text is not a SHA-256; empty if it is one, or is empty: not known."""
    return "" if not text or re.fullmatch("[0-9a-f]{64}", text) else f"is not 64 hexadecimal digits: {text[:80]!r}"


def _fault_of(heatmap: Heatmap) -> str:
    """Return why a stored map says nothing about where to look; empty if it does."""
    if not np.isfinite(heatmap).all():
        return "holds NaN or infinite values"
    if heatmap.max() <= 0:
        return "is nowhere above 0"
    if np.ptp(np.maximum(heatmap, 0)) == 0:
        return "has one value everywhere"
    return ""

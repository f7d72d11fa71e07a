"""Reading files of heatmaps: opened with suspicion, a map at a time."""

from __future__ import annotations

import contextlib
import difflib
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from medtool.errors import InputError
from medtool.hdf5 import (
    fault_of_links,
    open_hdf5,
    read_attribute,
)
from medtool.heatmaps.checking import fault_of_structure
from medtool.heatmaps.format import (
    FORMAT,
    FORMAT_VERSION,
    Head,
    HeatmapAttributes,
    Row,
    block_rows_of,
    fault_of_id,
    fault_of_length,
    fault_of_map,
    fault_of_seen,
    fault_of_sha256,
    fault_of_values,
)
from medtool.heatmaps.resize import resize_heatmap
from medtool.storage import sha256_of

if TYPE_CHECKING:
    from types import TracebackType

    from medtool.protocols import Heatmap

_MAX_TEXTS_BYTES = 256 << 20
_BLOCK_STRINGS = 4096
_GUESSED_FROM = 500  # comparing with many ids would take longer than the image's own work


def open_heatmaps(path: Path, *, keeps_damaged: bool = False) -> HeatmapFile:
    """Open a file of heatmaps for reading; use it as a context manager.

    Parameters
    ----------
    keeps_damaged
        Whether rows whose texts break a rule are no error of the whole file, if it has sums that tell which rows are
        whole; see :meth:`HeatmapFile.examined`.

    Raises
    ------
    InputError
        If it is not an HDF5 file, is cut short, is of another format or version, or breaks a rule of the format.
    """
    return HeatmapFile(path, keeps_damaged=keeps_damaged)


class HeatmapFile:
    """An open file of heatmaps; see :func:`open_heatmaps`.

    Attributes
    ----------
    path
        The file.
    attributes
        Where the maps come from.
    classes
        Where an image has a map for each of several classes: these, in order. Else empty.
    layer_size
        (height, width) of the maps as they are stored.
    """

    def __init__(self, path: Path, *, keeps_damaged: bool = False) -> None:
        self.path = path
        self._columns: dict[str, npt.NDArray[np.bytes_]] = {}
        self._file = open_hdf5(path)
        try:
            with self._naming():
                self._check()
                self._n = int(self._file["heatmaps"].shape[0])
                self._block_rows = block_rows_of(self._file["heatmaps"].shape)
                self.attributes = self._read_attributes()
                self.classes = self._read_classes()
                self._is_strict = not (keeps_damaged and self.has_checksums)
                if self._is_strict:
                    self._check_texts()
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
        return self._n

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._rows

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        """Image ids, in the order of the file."""
        with self._naming():
            return tuple(self._texts("image_id") if self._is_strict else self._block("image_id", 0, len(self)))

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.ids)}

    @functools.cached_property
    def content_hash(self) -> str:
        """SHA-256 of the file's bytes, in hexadecimal; what ``sha256sum`` prints."""
        try:
            return sha256_of(self.path)
        except OSError as error:
            raise self._error(f"cannot be read: {(error.strerror or str(error)).lower()}") from error

    @functools.cached_property
    def lineage(self) -> dict[str, Any] | None:
        """What the maps were made from, as :mod:`medtool.lineage` describes it; None where the file does not say."""
        raw = self._lineage
        if not raw:
            return None
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise self._error(f"damaged: its lineage is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise self._error("damaged: its lineage is no JSON object")
        outputs = document.get("outputs", {})
        parts = document.get("made_with"), outputs, outputs.get("failed", {}) if isinstance(outputs, dict) else None
        if not all(isinstance(part, dict) for part in parts):
            raise self._error("damaged: its lineage does not say what the maps were made with, or what became of them")
        return document

    @property
    def layer_size(self) -> tuple[int, int]:
        """(height, width) of the maps as they are stored."""
        height, width = self._file["heatmaps"].shape[-2:]
        return int(height), int(width)

    @property
    def has_spread(self) -> bool:
        """Whether there is a standard deviation beside each map."""
        return "spread" in self._file

    @property
    def has_checksums(self) -> bool:
        """Whether a flipped bit would be noticed; files of other programs may have no sums."""
        return "checksum" in self._file

    def sha256_of(self, image_id: str) -> str:
        """Return the SHA-256 of the image file that the map of ``image_id`` was made from; empty if not known.

        Raises
        ------
        InputError
            If there is no map for that image.
        """
        return self._text("image_sha256", self._row(image_id))

    def target_of(self, image_id: str) -> str:
        """Return the class that the map of ``image_id`` speaks for; empty if not known, or if there are several."""
        return self._text("target", self._row(image_id))

    def seen_of(self, image_id: str) -> str:
        """Return ``train`` or ``val`` if the network was made with that image or its patient; empty if not known."""
        return self._text("seen", self._row(image_id))

    def key_of(self, image_id: str) -> int:
        """Return the 64 bits that tell what else the map depends on; 0 for nothing."""
        row = self._row(image_id)
        with self._naming():
            return int(self._file["key"][row]) if "key" in self._file else 0

    def score_of(self, image_id: str, target: str = "") -> float:
        """Return the network's score of the target for that image; NaN if not known.

        Raises
        ------
        InputError
            If there is no map for that image.
        """
        row, place = self._row(image_id), self._place(target)
        with self._naming():
            return float(np.atleast_1d(self._file["score"][row])[place])

    def flag_of(self, image_id: str, target: str = "") -> int:
        """Return what is wrong with a map, as :class:`medtool.heatmaps.Flag`; 0 for nothing, or not known."""
        row, place = self._row(image_id), self._place(target)
        with self._naming():
            return int(np.atleast_1d(self._file["flag"][row])[place]) if "flag" in self._file else 0

    def flags(self) -> npt.NDArray[np.uint8]:
        """Return what is wrong with each map, ``(n, k)``, as :class:`medtool.heatmaps.Flag`; 0 for nothing."""
        with self._naming():
            if "flag" not in self._file:
                return np.zeros((len(self), max(1, len(self.classes))), np.uint8)
            return np.asarray(self._file["flag"][:], np.uint8).reshape(len(self), -1)

    def count_flags(self) -> dict[int, int]:
        """Return how many maps have each flag but 0, as :class:`medtool.heatmaps.Flag`; few are in memory at once."""
        total = np.zeros(256, np.int64)
        with self._naming():
            if "flag" in self._file:
                for start in range(0, len(self), _BLOCK_STRINGS):
                    block = np.asarray(self._file["flag"][start : start + _BLOCK_STRINGS], np.uint8)
                    total += np.bincount(block.ravel(), minlength=256)
        return {flag: int(total[flag]) for flag in np.flatnonzero(total).tolist() if flag}

    def raw(self, image_id: str, target: str = "") -> Heatmap:
        """Return a map as it is stored: neither cut at 0, nor scaled, nor resized.

        Parameters
        ----------
        image_id
            As in :attr:`ids`.
        target
            Of :attr:`classes`, where there are any.

        Raises
        ------
        InputError
            If there is no such map, or a bit of it has changed since it was written.
        """
        found: Heatmap = self._checked(self._row(image_id)).heatmaps[self._place(target)]
        return found

    def spread(self, image_id: str, target: str = "") -> Heatmap:
        """Return the standard deviation over what a map was averaged from, at the layer's own resolution.

        Raises
        ------
        InputError
            If there is none, or a bit of it has changed since it was written.
        """
        if not self.has_spread:
            raise InputError(
                f"{self.path.name} says nothing of how the maps that it averages differ",
                hint="medtool cam --uncertainty, with scales, flips or several runs",
            )
        found = self._checked(self._row(image_id)).spread
        assert found is not None
        spread: Heatmap = found[self._place(target)]
        return spread

    def get(self, image_id: str, *, size: tuple[int, int], target: str = "", is_normalised: bool = False) -> Heatmap:
        """Return the map of one image at the image's size.

        Values below 0 become 0, then the map is resized bilinearly with pixel centres at half-integers (what PyTorch
        calls ``align_corners=False``), so that it lies on the image without a shift.

        Parameters
        ----------
        image_id
            As in :attr:`ids`.
        size
            (height, width) of the upright image in pixels.
        target
            Of :attr:`classes`, where there are any.
        is_normalised
            Whether values are divided by the map's peak, so that they reach from 0 or more to 1. By default they are
            not scaled.

        Returns
        -------
        Heatmap
            Shape ``size``, float32, finite, ≥ 0, not constant.

        Raises
        ------
        InputError
            If there is no map for that image, or it says nothing: not finite, constant, or nowhere above 0; or if a bit
            of it has changed since it was written.
        """
        row, place = self._checked(self._row(image_id)), self._place(target)
        stored = row.heatmaps[place]
        fault = fault_of_map(stored, int(row.flags[place]))
        if fault:
            raise InputError(
                f"{self.path.name}: the heatmap of {image_id!r} {fault}",
                hint="leave it out, or make that heatmap again",
            )
        cut = np.maximum(stored, 0)
        return resize_heatmap(cut / cut.max() if is_normalised else cut, size)

    @property
    def block_rows(self) -> int:
        """How many rows are best read at once."""
        return self._block_rows

    def rows(self) -> Iterator[Row]:
        """Yield all that is stored of each image, in order, few at a time in memory; it is not checked."""
        for start, stop in self._blocks(0, len(self)):
            yield from self.read_rows(start, stop)

    def examined(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[Row, str]]:
        """Yield all that is stored of each image, in order, and what is wrong with it; few at a time in memory.

        Wrong is a row of which a bit has changed, or whose map is not finite. A file of another program has no sums to
        check, and then only its values are looked at.

        Parameters
        ----------
        start, stop
            Places in :attr:`ids`, of the first row and after the last; by default of all.
        """
        for low, high in self._blocks(start, len(self) if stop is None else stop):
            rows = self.read_rows(low, high)
            with self._naming():
                sums = self._file["checksum"][low:high].tolist() if self.has_checksums else None
            for place, row in enumerate(rows):
                is_changed = sums is not None and sums[place] != row.checksum
                yield row, _CHANGED if is_changed else fault_of_values(row)

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        return ((low, min(low + self._block_rows, stop)) for low in range(start, stop, self._block_rows))

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield the id of each image with which something is wrong, and what; see :meth:`examined`."""
        return ((row.image_id, fault) for row, fault in self.examined() if fault)

    def _checked(self, number: int) -> Row:
        """Return a row whose sum is right."""
        with self._naming():
            (row,) = self.read_rows(number, number + 1)
            if "checksum" in self._file and int(self._file["checksum"][number]) != row.checksum:
                raise self._error(f"the heatmap of {row.image_id!r} {_CHANGED}")
        return row

    def read_rows(self, start: int, stop: int) -> list[Row]:
        """Return all that is stored of some images, by their places in :attr:`ids`; it is not checked."""
        with self._naming():
            n, span = stop - start, slice(start, stop)
            maps = np.asarray(self._file["heatmaps"][span], dtype=np.float32)
            maps = maps.reshape(n, -1, *maps.shape[-2:])
            scores = np.asarray(self._file["score"][span], dtype=np.float64).reshape(n, -1)
            flags = np.zeros(scores.shape, np.uint8)
            if "flag" in self._file:
                flags = np.asarray(self._file["flag"][span]).reshape(n, -1)
            spread = None
            if self.has_spread:
                spread = np.asarray(self._file["spread"][span], dtype=np.float32).reshape(maps.shape)
            keys = self._file["key"][span] if "key" in self._file else np.zeros(n, np.uint64)
            texts = [list(self._block(name, start, stop)) for name in ("image_id", "image_sha256", "target", "seen")]
        return [
            Row(image_id, sha256, heatmaps, score, flag, None if spread is None else spread[place], target, seen, key)
            for place, (image_id, sha256, target, seen, heatmaps, score, flag, key) in enumerate(
                zip(*texts, maps, scores, flags, keys.tolist(), strict=True)
            )
        ]

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

    def check_target(self, target: str) -> None:
        """Raise ``InputError`` unless each image has a map for ``target``, or just one where that is empty."""
        self._place(target)

    def _place(self, target: str) -> int:
        """Return which of an image's maps speaks for a class."""
        if target in self.classes:
            return self.classes.index(target)
        if target and not self.classes:
            raise InputError(f"{self.path.name} has one map an image, and none for {target!r} beside it")
        if self.classes:
            named = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
            what = f"has no maps for {target!r}" if target else "has a map for each of several classes"
            raise InputError(f"{self.path.name} {what}; it has them for {named}", hint="name one of them: --target")
        return 0

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
        self._refuse(fault_of_links(self._file))
        if (found := self._attribute("format")) != FORMAT:
            raise self._error(f"its format is {found!r}, not {FORMAT!r}")
        if (version := self._attribute("version")) != FORMAT_VERSION:
            raise self._error(f"its format version is {version!r}; this medtool reads version {FORMAT_VERSION}")
        self._refuse(fault_of_structure(self._file))

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
        for name in HeatmapAttributes.__dataclass_fields__:
            value = self._attribute(name)
            if isinstance(value, str):
                texts[name] = value
            elif value is not None:
                raise self._error(f"attribute {name!r} must be a text, not {value!r}")
        if not texts.get("method"):
            raise self._error("attribute 'method' must say how the maps were made")
        return HeatmapAttributes(**texts)

    def _read_classes(self) -> tuple[str, ...]:
        """Return the classes, and the lineage's bytes by the way, if the sum over both is right."""
        classes = tuple(self._texts("classes")) if "classes" in self._file else ()
        if len(set(classes)) < len(classes):
            raise self._error("a class is there twice")
        self._lineage = bytes(self._file["lineage"][:]) if "lineage" in self._file else b""
        expected = self._attribute("checksum")
        if expected is not None and expected != Head(self.attributes, classes, self._lineage).checksum:
            raise self._error("what it says of its maps has changed since it was written: a bit was flipped")
        return classes

    def _check_texts(self) -> None:
        """Refuse texts that break a rule, wherever they stand."""
        for name in ("image_sha256", "target", "seen"):
            for _ in self._texts(name):
                pass
        if len(self._rows) < len(self):
            twice = next(image_id for row, image_id in enumerate(self.ids) if self._rows[image_id] != row)
            raise self._error(f"image_id {twice!r} is there twice")

    def _texts(self, name: str) -> Iterator[str]:
        """Yield the texts of a data set, which follow the rules; nothing if there is none of that name."""
        fault_of_text = _FAULTS_OF_TEXTS.get(name, fault_of_length)
        length = len(self._file[name]) if name in self._file else 0
        total = 0
        for start in range(0, length, _BLOCK_STRINGS):
            for row, text in enumerate(self._block(name, start, min(start + _BLOCK_STRINGS, length)), start):
                total += len(text)
                if total > _MAX_TEXTS_BYTES:
                    raise self._error(f"{name} holds more than {_MAX_TEXTS_BYTES} bytes of text")
                if fault := fault_of_text(text):
                    raise self._error(f"{name} {row} {fault}")
                yield text

    def _block(self, name: str, start: int, stop: int) -> Iterator[str]:
        """Yield some texts as they are; empty ones if there is no data set of that name."""
        if name not in self._file:
            return itertools.repeat("", stop - start)
        return (raw.decode("utf-8", "surrogateescape") for raw in self._file[name][start:stop].tolist())

    def _text(self, name: str, row: int) -> str:
        """Return one text; those of all images are read at once, and kept as bytes, which take little memory."""
        if name not in self._columns:
            with self._naming():
                self._columns[name] = self._file[name][:] if name in self._file else np.zeros(self._n, "S1")
        return bytes(self._columns[name][row]).decode("utf-8", "surrogateescape")


_CHANGED = "has changed since it was written: a bit was flipped"
_FAULTS_OF_TEXTS = {"image_id": fault_of_id, "image_sha256": fault_of_sha256, "seen": fault_of_seen}

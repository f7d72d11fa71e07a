"""What a file of heatmaps may hold, and the sums over it that give away a flipped bit."""

from __future__ import annotations

import enum
import json
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medtool.hdf5 import MAX_TEXT_BYTES

if TYPE_CHECKING:
    from medtool.protocols import Heatmap

FORMAT = "medtool-heatmaps"
FORMAT_VERSION = 1

MAX_IMAGES = 2_000_000
MAX_SIDE = 4096
MAX_CLASSES = 4096
MAX_ROW_BYTES = 256 << 20
MAX_LINEAGE_BYTES = 16 << 20
_BLOCK_ROWS, _BLOCK_BYTES = 256, 4 << 20
_F8, _F4, _U1 = np.dtype("<f8"), np.dtype("<f4"), np.dtype("u1")
SEEN = ("", "train", "val")


class Flag(enum.IntEnum):
    """What is wrong with a map; the first that holds, from the last to the first.

    ``NEGATIVE``: nowhere above 0, so that nothing of it is shown. ``CONSTANT``: the same everywhere. ``ZERO``: 0
    everywhere. ``INFINITE``, ``NOT_A_NUMBER``: so were values of the map, or of the network's answer; the map is 0.
    """

    NONE = 0
    NEGATIVE = 1
    CONSTANT = 2
    ZERO = 3
    INFINITE = 4
    NOT_A_NUMBER = 5


_LAST_FLAG = max(Flag).value

#: Why a map with a flag says nothing about where to look.
FAULTS = {
    Flag.NEGATIVE: "is nowhere above 0",
    Flag.CONSTANT: "has one value everywhere",
    Flag.ZERO: "is nowhere above 0",
    Flag.INFINITE: "was infinite, as it came from the network",
    Flag.NOT_A_NUMBER: "was NaN, as it came from the network",
}


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


@dataclass(frozen=True, slots=True)
class Row:
    """All that is stored of one image.

    Attributes
    ----------
    image_sha256
        Of the image file's bytes; empty where it is not known.
    heatmaps
        Shape ``(k, h, w)``, float32, finite: a map for each class of the file, or one.
    scores
        Shape ``(k,)``, float64: the network's score of each map's class; NaN where it is not known.
    flags
        Shape ``(k,)``, uint8; see :class:`Flag`.
    spread
        Shape of ``heatmaps``: the standard deviation over what was averaged; None where nothing was.
    target
        The class that the map speaks for, where it is one.
    seen
        Whether the network trained on this image or its patient (``train``), or was chosen by it (``val``).
    key
        Of what else the map depends on, for this image alone: metadata, or a class that was asked for. 64 bits.
    """

    image_id: str
    image_sha256: str
    heatmaps: Heatmap
    scores: npt.NDArray[np.float64]
    flags: npt.NDArray[np.uint8]
    spread: Heatmap | None = None
    target: str = ""
    seen: str = ""
    key: int = 0

    @property
    def checksum(self) -> int:
        """CRC-32 of everything in it."""
        texts = (self.image_id, self.image_sha256, self.target, self.seen)
        parts = [text.encode("utf-8", "surrogateescape") + b"\0" for text in texts]
        parts.append(self.key.to_bytes(8, "little"))
        for array, kind in ((self.scores, _F8), (self.flags, _U1), (self.heatmaps, _F4), (self.spread, _F4)):
            if array is not None:
                parts.append(array.astype(kind, copy=False).tobytes())
        return zlib.crc32(b"".join(parts))


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of all its maps together.

    Attributes
    ----------
    classes
        One for each map of an image, in order; empty where an image has one map.
    lineage
        The document of :mod:`medtool.lineage` as JSON; empty where there is none.
    """

    attributes: HeatmapAttributes
    classes: tuple[str, ...] = ()
    lineage: bytes = field(default=b"", repr=False)

    @property
    def checksum(self) -> int:
        """CRC-32 of everything in it."""
        said = json.dumps([asdict(self.attributes), list(self.classes)], sort_keys=True)
        return zlib.crc32(self.lineage, zlib.crc32(said.encode()))


def fault_of_shape(shape: Sequence[int]) -> str:
    """Return why maps of this shape are not read or written; empty if they are."""
    images, *classes, height, width = shape
    is_wrong = images > MAX_IMAGES or not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE
    if is_wrong or any(not 0 < count <= MAX_CLASSES for count in classes):
        return (
            f"heatmaps are {tuple(shape)}; at least (0, 1, 1) and at most ({MAX_IMAGES}, {MAX_SIDE}, {MAX_SIDE}) can be"
            f", and {MAX_CLASSES} classes"
        )
    row_bytes = row_bytes_of(shape)
    if row_bytes > MAX_ROW_BYTES:
        return f"heatmaps of an image take {row_bytes} bytes; at most {MAX_ROW_BYTES}"
    return ""


def row_bytes_of(shape: Sequence[int]) -> int:
    """Return how many bytes the maps of one image take, from the shape of those of all."""
    return 4 * math.prod(shape[1:])


def block_rows_of(shape: Sequence[int]) -> int:
    """Return of how many images the maps are held in memory at once, from the shape of those of all."""
    return max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // row_bytes_of(shape)))


def fault_of_id(image_id: str) -> str:
    """Return why a text cannot be an image id; empty if it can."""
    if not image_id or "\0" in image_id:
        return f"must have a character and no NUL, not {image_id[:80]!r}"
    return fault_of_length(image_id)


def fault_of_length(text: str) -> str:
    """Return why a text is too long; empty if it is not."""
    length = len(text.encode("utf-8", "surrogateescape"))
    return f"has {length} bytes; at most {MAX_TEXT_BYTES}" if length > MAX_TEXT_BYTES else ""


def fault_of_sha256(text: str) -> str:
    """Return why a text is not a SHA-256; empty if it is one, or is empty: not known."""
    return "" if not text or re.fullmatch("[0-9a-f]{64}", text) else f"is not 64 hexadecimal digits: {text[:80]!r}"


def fault_of_seen(text: str) -> str:
    """Return why a text does not say whether an image was seen; empty if it does."""
    return "" if text in SEEN else f"is none of {', '.join(map(repr, SEEN))}: {text[:80]!r}"


def fault_of_values(row: Row) -> str:
    """Return which value of a row cannot be, whoever wrote it; empty if all can."""
    if not np.isfinite(row.heatmaps).all():
        return "holds NaN or infinite values"
    if row.flags.max() > _LAST_FLAG:
        return f"has a flag that is none of 0 to {_LAST_FLAG}"
    return (
        fault_of_id(row.image_id)
        or fault_of_length(row.target)
        or fault_of_sha256(row.image_sha256)
        or fault_of_seen(row.seen)
    )


def fault_of_map(heatmap: Heatmap, flag: int = 0) -> str:
    """Return why a stored map says nothing about where to look; empty if it does."""
    if flag in FAULTS:
        return FAULTS[Flag(flag)]
    if not np.isfinite(heatmap).all():
        return "holds NaN or infinite values"
    if heatmap.max() <= 0:
        return FAULTS[Flag.ZERO]
    if np.ptp(np.maximum(heatmap, 0)) == 0:
        return FAULTS[Flag.CONSTANT]
    return ""

"""The size that a JPEG 2000 stream promises, read without decoding it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from medtool.errors import ImageError

_START = b"\xff\x4f\xff\x51"


@dataclass(frozen=True, slots=True)
class Size:
    """Image size from the SIZ segment (ISO/IEC 15444-1 A.5.1)."""

    width: int
    height: int
    components: int


def read_size(data: bytes) -> Size:
    """Return the size of a code stream, bare or in a JP2 file.

    Raises
    ------
    ImageError
        If there is no code stream.
    """
    start = 0 if data.startswith(_START) else data.find(_START)
    if start < 0 or len(data) < start + 42:
        raise ImageError("a JPEG 2000 stream without a size")
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    return Size(right - left, bottom - top, components)

"""The segments of a JPEG file: its size, its true end, and whether all of its picture is there."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.errors import ImageError

if TYPE_CHECKING:
    import numpy.typing as npt

_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_END = bytes((0xFF, _EOI))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_LOSSLESS = frozenset((0xC3, 0xC7, 0xCB, 0xCF))
#: A marker that ends entropy-coded data: not a stuffed zero, a restart or a fill byte.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
#: Mid-grey, and mid-grey of inverted inks.
_MID_GREYS = (127, 128)
#: Bytes without 0xff that decode to something other than flat grey; the start of any scan's missing rest.
_FILLER = bytes((place * 73 + 41) % 251 for place in range(256))


@dataclass(frozen=True, slots=True)
class Frame:
    """What the frame header of a JPEG stream promises.

    Attributes
    ----------
    precision
        Bits a sample, 2 to 16.
    """

    width: int
    height: int
    components: int
    precision: int
    is_lossless: bool
    is_progressive: bool


def read_frame(data: bytes) -> Frame:
    """Return the first frame header of a JPEG or JPEG-LS stream that starts at ``data[0]``.

    Raises
    ------
    ImageError
        If there is none.
    """
    for code, start, _ in _segments(data):
        if code in _FRAMES or code == 0xF7:
            if start + 6 > len(data):
                break
            precision, height, width, components = struct.unpack_from(">BHHB", data, start)
            return Frame(width, height, components, precision, code in _LOSSLESS, code in _PROGRESSIVE)
        if code in (_SOS, _EOI):
            break
    raise ImageError("a JPEG stream without a frame header")


def application_data(data: bytes, *, code: int, prefix: bytes) -> tuple[bytes, int]:
    """Return the first APPn segment's data after ``prefix`` and its offset in the file, or ``(b"", 0)``."""
    for found, start, end in _segments(data):
        if found == code and data.startswith(prefix, start):
            return data[start + len(prefix) : end], start + len(prefix)
        if found in (_SOS, _EOI):
            break
    return b"", 0


def check_whole(
    data: bytes, frame: Frame, pixels: npt.NDArray[Any], decode: Callable[[bytes], npt.NDArray[Any]]
) -> None:
    """Refuse a stream that was cut short, even when it was closed with an end marker again.

    libjpeg fills what is missing with mid-grey (or flat) blocks and tells nobody. Bytes added before the end marker are
    ignored when the picture is complete, and change it when it is not. A sequential 8-bit picture whose last pixel is
    not mid-grey is complete and spared the second decoding; refinements that a progressive one lacks show nowhere.

    Parameters
    ----------
    pixels
        What ``decode(data)`` gave.

    Raises
    ------
    ImageError
        If part of the picture, or the end marker, is missing.
    """
    is_plain = frame.precision == 8 and not (frame.is_progressive or frame.is_lossless)
    is_complete = is_plain and any(value not in _MID_GREYS for value in np.ravel(pixels[-1, -1]).tolist())
    if is_complete and data.endswith(_END):  # as nearly always: the scan need not be walked through
        return
    end = _end_of_image(data)
    if is_complete:
        return
    if not np.array_equal(pixels, decode(data[:end] + _FILLER + data[end:])):
        raise ImageError("a JPEG picture that is cut short: part of it is missing")


def _end_of_image(data: bytes) -> int:
    for code, start, _ in _segments(data):
        if code == _EOI:
            return start - 2
    raise ImageError("a JPEG picture that is cut short")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker code, start of its body, end of its body); what follows a scan header is skipped."""
    offset = 2
    while True:
        while data[offset : offset + 2] == b"\xff\xff":
            offset += 1
        if offset + 2 > len(data) or data[offset] != 0xFF:
            return
        code = data[offset + 1]
        start = offset + 2
        if code in (_EOI, _SOI, _TEM) or 0xD0 <= code <= 0xD7:
            yield code, start, start
            if code == _EOI:
                return
            offset = start
            continue
        if start + 2 > len(data):
            return
        end = start + int.from_bytes(data[start : start + 2], "big")
        yield code, start + 2, end
        offset = end
        if code == _SOS:
            found = _AFTER_SCAN.search(data, offset)
            if found is None:
                return
            offset = found.start()

"""The chain of directories (pages) in a TIFF or BigTIFF file, checked before a decoder follows it."""

from __future__ import annotations

import struct

from medtool.errors import ImageError

#: A directory with more entries is damage; so does tifffile see it.
_MOST_ENTRIES = 4096


def check_chain(data: bytes) -> int:
    """Return how many directories a file has.

    Raises
    ------
    ImageError
        If there is none, one lies outside the file, or the chain runs in a circle.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    header, count_format, pointer_format, entry_size = (8, "Q", "Q", 20) if is_big else (4, "H", "I", 12)
    count_size, pointer_size = struct.calcsize(f"={count_format}"), struct.calcsize(f"={pointer_format}")
    if len(data) < header + pointer_size:
        raise ImageError("a TIFF file that is cut short")
    (offset,) = struct.unpack_from(f"{order}{pointer_format}", data, header)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise ImageError("a damaged TIFF file: its directories run in a circle")
        seen.add(offset)
        if offset + count_size > len(data):
            raise ImageError(f"a TIFF file that is cut short: directory {len(seen)} lies after the file's end")
        (entries,) = struct.unpack_from(f"{order}{count_format}", data, offset)
        pointer = offset + count_size + entries * entry_size
        if not 1 <= entries <= _MOST_ENTRIES or pointer + pointer_size > len(data):
            raise ImageError(f"a damaged TIFF file: directory {len(seen)} has {entries} entries")
        (offset,) = struct.unpack_from(f"{order}{pointer_format}", data, pointer)
    if not seen:
        raise ImageError("a TIFF file without a page")
    return len(seen)

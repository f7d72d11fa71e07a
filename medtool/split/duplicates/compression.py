"""How coarsely a JPEG file was compressed: the steps to which it rounds its waves, read from its head.

References
----------
ITU-T T.81, B.2.4.1: quantization tables.
"""

from __future__ import annotations

from typing import Final

_START_OF_SCAN: Final = 0xDA
_TABLES: Final = 0xDB
_BARE: Final = (0x01, *range(0xD0, 0xD9))  # markers that no length follows
_ENTRIES: Final = 64


def jpeg_step(data: bytes) -> float:
    """Return the mean step of a JPEG file's first table, that of the brightness; 0 where there is none.

    About 58 at quality 50 of the usual tables, 92 at quality 30 and 140 at quality 20; 1 at quality 100.
    """
    if data[:2] != b"\xff\xd8":
        return 0.0
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or marker in _BARE:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == _START_OF_SCAN:
            break
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _TABLES and (found := _first_table(data[place + 4 : end])) is not None:
            return found
        place = end
    return 0.0


def _first_table(segment: bytes) -> float | None:
    place = 0
    while place < len(segment):
        width = 2 if segment[place] >> 4 else 1
        entries = segment[place + 1 : place + 1 + width * _ENTRIES]
        if len(entries) < width * _ENTRIES:
            return None
        if segment[place] & 15 == 0:
            high = 255 * sum(entries[::2]) if width == 2 else 0  # a step of two bytes is 256 times the first
            return (sum(entries) + high) / _ENTRIES
        place += 1 + len(entries)
    return None

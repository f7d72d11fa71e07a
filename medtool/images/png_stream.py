"""The chunks of a PNG file: checked whole before anything is unpacked, and stripped of what no pixel needs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from medtool.errors import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Chunks that pixels, transparency, frames and orientation come from. Text and colour profiles are never unpacked.
_NEEDED = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT"))
_CRITICAL = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
#: Left, top, horizontal and vertical step of the seven passes of an interlaced picture.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


@dataclass(frozen=True, slots=True)
class Header:
    """What a PNG file promises.

    Attributes
    ----------
    depth
        Bits a channel as stored: 1, 2, 4, 8 or 16.
    frames
        Pictures in the file, 1 unless it is animated.
    exif
        The EXIF data, or empty.
    bare
        The file without the chunks that no pixel needs, and without what follows its end.
    """

    width: int
    height: int
    depth: int
    channels: int
    has_palette: bool
    is_interlaced: bool
    frames: int
    exif: bytes
    bare: bytes

    @property
    def has_alpha_channel(self) -> bool:
        """Whether each pixel stores its own opacity."""
        return self.channels in (2, 4)

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes that a decoded pixel takes."""
        return (3 if self.has_palette else self.channels) * (2 if self.depth == 16 else 1)


def read_header(data: bytes) -> Header:
    """Check every chunk's length and checksum up to IEND, and return what the file promises.

    Raises
    ------
    ImageError
        If the file is cut short, a checksum is wrong, or it has a critical chunk that is not part of PNG.
    """
    kept: list[bytes | memoryview] = [SIGNATURE]
    header = exif = b""
    frames = 0
    default_is_frame = seen_pixels = False
    for kind, chunk in _chunks(data):
        body = chunk[8:-4]
        if not header and kind != b"IHDR":
            raise ImageError("a damaged PNG file: it does not start with IHDR")
        if kind == b"IHDR":
            header = bytes(body)
        elif kind == b"acTL" and len(body) >= 8 and not seen_pixels:
            (frames,) = struct.unpack_from(">I", body)
        elif kind == b"fcTL" and not seen_pixels:
            default_is_frame = True
        elif kind == b"eXIf":
            exif = bytes(body)
        seen_pixels = seen_pixels or kind == b"IDAT"
        if kind in _NEEDED:
            kept.append(chunk)
    if not seen_pixels:
        raise ImageError("a PNG file without pixel data")
    return _header(header, frames=frames, default_is_frame=default_is_frame, exif=exif, bare=b"".join(kept))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield each chunk's type and its bytes with length and checksum, up to IEND."""
    view = memoryview(data)
    offset = len(SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if offset + 12 > len(data):
            raise ImageError("a PNG file that is cut short")
        (length,) = struct.unpack_from(">I", data, offset)
        kind = data[offset + 4 : offset + 8]
        end = offset + 12 + length
        if end > len(data):
            raise ImageError("a PNG file that is cut short")
        if zlib.crc32(view[offset + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ImageError(f"a damaged PNG file: the checksum of chunk {kind!r} at byte {offset} is wrong")
        if kind[:1].isupper() and kind not in _CRITICAL:
            raise ImageError(f"a PNG file with the critical chunk {kind!r}, which is not part of PNG")
        yield kind, view[offset:end]
        offset = end


def _header(ihdr: bytes, *, frames: int, default_is_frame: bool, exif: bytes, bare: bytes) -> Header:
    if len(ihdr) != 13:
        raise ImageError(f"a damaged PNG file: IHDR has {len(ihdr)} bytes, not 13")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", ihdr)
    if compression or filtering or interlace > 1:
        raise ImageError("a damaged PNG file: an unknown compression, filter or interlace method")
    if depth not in _DEPTHS.get(colour, ()):
        raise ImageError(f"a damaged PNG file: colour type {colour} with {depth} bits")
    pictures = max(1, frames if default_is_frame or not frames else frames + 1)
    return Header(width, height, depth, _CHANNELS[colour], colour == 3, bool(interlace), pictures, exif, bare)


def unpacked(header: Header) -> bytes:
    """Return the first picture's file with its pixel data checked and stored without compression.

    libpng prints what it dislikes to stderr: give it nothing to dislike.

    Raises
    ------
    ImageError
        If the pixel data are damaged or too short.
    """
    size = _filtered_size(header)
    packed: list[memoryview] = []
    before: list[memoryview] = []
    for kind, chunk in _chunks(header.bare):
        if kind == b"IDAT":
            packed.append(chunk[8:-4])
        elif kind == b"IHDR" or (kind == b"tRNS" and len(chunk) - 12 == {1: 2, 3: 6}.get(header.channels)):
            before.append(chunk)
    unpacker = zlib.decompressobj()
    try:
        pixels = unpacker.decompress(b"".join(packed), size)
        # The end of the stream holds its checksum.
        unpacker.decompress(unpacker.unconsumed_tail, 64)
    except zlib.error as error:
        raise ImageError(f"a damaged PNG file: {error}") from error
    if len(pixels) < size:
        raise ImageError("a PNG file whose pixel data are cut short")
    return b"".join((SIGNATURE, *before, _chunk(b"IDAT", zlib.compress(pixels, 0)), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))))


def _filtered_size(header: Header) -> int:
    """Return the bytes of all rows with their filter bytes, interlaced (Adam7) or not."""
    size = 0
    for left, top, step_x, step_y in _ADAM7 if header.is_interlaced else ((0, 0, 1, 1),):
        width, height = -(-(header.width - left) // step_x), -(-(header.height - top) // step_y)
        if width > 0 and height > 0:
            size += height * (1 + (width * header.channels * header.depth + 7) // 8)
    return size

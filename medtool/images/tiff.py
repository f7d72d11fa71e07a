"""TIFF and BigTIFF, decoded by tifffile (with imagecodecs for what is compressed)."""

from __future__ import annotations

import io
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from medtool.errors import ImageError
from medtool.images import jpeg2000_stream, jpeg_stream, tiff_directory
from medtool.images.colour import cmyk_to_rgb, look_up
from medtool.images.image import Raster, check_bytes, check_limits, choose_page
from medtool.images.messages import Message, heard

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.images.formats import Format
    from medtool.images.options import ReadOptions

_JPEG = 7
_JPEG2000 = frozenset((33003, 33004, 33005, 34712))
#: Compressions whose decoder is given the size to fill, or whose own header is checked here.
_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34925, 50000)) | _JPEG2000
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
_REDUCED, _TRANSPARENCY_MASK = 1, 4
_PREMULTIPLIED, _STRAIGHT = 1, 2
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3


def decode(data: bytes, found: Format, options: ReadOptions) -> Raster:
    """Return the chosen page; reduced copies, thumbnails and transparency masks are no pages."""
    with heard() as said, _file(data) as file:
        page = _page(file, options)
        _refuse_damage(said)
        _check(page, data, options)
        samples = _samples(page, said)
    raster = _raster(page, samples)
    raster.orientation = _orientation(page)
    return raster


def decode_labels(data: bytes, found: Format, options: ReadOptions) -> tuple[npt.NDArray[np.integer[Any]], int]:
    """Return stored integers ``(height, width)`` and the orientation they are stored in."""
    with heard() as said, _file(data) as file:
        page = _page(file, options)
        _refuse_damage(said)
        kind = _photometric(page)
        if page.samplesperpixel != 1 or kind not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE):
            raise ImageError(
                f"{page.samplesperpixel} channels ({_name(kind)}), and a label image has one integer a pixel",
                hint="save the labels as grey or palette PNG",
            )
        if page.compression == _JPEG:
            raise ImageError("labels compressed as JPEG, which changes values", hint="save the labels as PNG")
        _check(page, data, options)
        labels = _samples(page, said)
    if labels.dtype.kind not in "iub":
        raise ImageError(f"labels stored as {labels.dtype}, and they must be integers")
    if page.bitspersample == 1:
        labels = labels.astype(np.bool_)
        labels = (~labels if kind == _WHITE_IS_ZERO else labels).astype(np.uint8)
    return labels, _orientation(page)


def _file(data: bytes) -> tifffile.TiffFile:
    tiff_directory.check_chain(data)
    return tifffile.TiffFile(io.BytesIO(data))


def _refuse_damage(said: list[Message]) -> None:
    """Refuse what tifffile logs as an error; its warnings are about metadata, and a broken EXIF tag spoils no pixel."""
    for message in said:
        if message.level >= logging.ERROR and "read_exif" not in message.text and "read_tags" not in message.text:
            raise ImageError(f"a damaged TIFF file: {' '.join(message.text.split())}")


def _page(file: tifffile.TiffFile, options: ReadOptions) -> tifffile.TiffPage:
    every = [page for page in file.pages if isinstance(page, tifffile.TiffPage)]
    first = every[0]
    pages = [page for page in every if _is_page(page)] or [first]
    if _is_aperio(first) or file.is_ndpi:
        # Slide formats whose levels, thumbnail, label and overview are not all marked as such.
        pages = [first]
    count = len(pages)
    if count == 1 and file.is_imagej:
        described = (file.imagej_metadata or {}).get("images", 1)
        count = described if isinstance(described, int) and described > 1 else 1
    chosen = choose_page(count, options=options)
    if chosen >= len(pages):
        raise ImageError("an ImageJ stack whose later images have no directory", hint="save it as a multi-page TIFF")
    return pages[chosen]


def _is_page(page: tifffile.TiffPage) -> bool:
    return not int(page.subfiletype) & (_REDUCED | _TRANSPARENCY_MASK)


def _is_aperio(page: tifffile.TiffPage) -> bool:
    return isinstance(page.description, str) and page.description.startswith("Aperio")


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


def _check(page: tifffile.TiffPage, data: bytes, options: ReadOptions) -> None:
    """Refuse what is too large, unreadable or not all there, before anything is decoded."""
    bits = page.bitspersample
    if not isinstance(bits, int) or not 1 <= bits <= 64:
        raise ImageError(f"channels of {bits} bits")
    if page.compression not in _COMPRESSIONS:
        raise ImageError(f"compressed as {_name(page.compression)}, which is not read", hint="save it uncompressed")
    if page.imagedepth != 1 or page.tiledepth != 1:
        raise ImageError(f"a volume of {page.imagedepth} planes in one page", hint="save it as a multi-page TIFF")
    size = page.samplesperpixel * math.ceil(bits / 8)
    if not 1 <= page.samplesperpixel <= 16:
        raise ImageError(f"{page.samplesperpixel} channels")
    check_limits(page.imagelength, page.imagewidth, bytes_per_pixel=size, options=options)
    if page.is_tiled:
        check_bytes(page.tilelength * page.tilewidth * size, options=options)
        if page.tilelength < 1 or page.tilewidth < 1:
            raise ImageError(f"tiles of {page.tilewidth} × {page.tilelength} pixels")
    elif page.rowsperstrip < 1:
        raise ImageError(f"strips of {page.rowsperstrip} rows")
    _check_segments(page, data)


def _check_segments(page: tifffile.TiffPage, data: bytes) -> None:
    kind = "tile" if page.is_tiled else "strip"
    wanted = math.prod(page.chunked)
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < wanted or len(counts) < wanted:
        raise ImageError(f"a damaged TIFF file: {min(len(offsets), len(counts))} of {wanted} {kind}s are listed")
    for number in range(wanted):
        offset, count = offsets[number], counts[number]
        if offset == 0 or count == 0:
            raise ImageError(f"{kind} {number} of {wanted} is missing: its pixels were never written")
        if offset + count > len(data):
            raise ImageError(f"a TIFF file that is cut short: {kind} {number} of {wanted} ends after the file")
        _check_stream(page, data[offset : offset + count] if page.compression in (_JPEG, *_JPEG2000) else b"")


def _check_stream(page: tifffile.TiffPage, stream: bytes) -> None:
    """Refuse a JPEG or JPEG 2000 stream that promises more pixels than its strip or tile has."""
    if not stream:
        return
    height = page.tilelength if page.is_tiled else page.rowsperstrip
    width = page.tilewidth if page.is_tiled else page.imagewidth
    frame = jpeg_stream.read_frame(stream) if page.compression == _JPEG else jpeg2000_stream.read_size(stream)
    # A last strip may be coded at full height.
    if frame.width > width or frame.height > max(height, page.imagelength):
        raise ImageError(f"a stream of {frame.width} × {frame.height} pixels in a segment of {width} × {height}")


def _samples(page: tifffile.TiffPage, said: list[Message]) -> npt.NDArray[Any]:
    """Return ``(height, width)`` or ``(height, width, channels)``; anything tifffile says meanwhile is damage."""
    before = len(said)
    # One thread: a warning in another would be heard by nobody.
    samples = page.asarray(maxworkers=1)
    if len(said) > before:
        raise ImageError(f"a damaged TIFF file: {' '.join(said[before].text.split())}")
    if samples.ndim == 3 and page.planarconfig == 2:
        samples = np.moveaxis(samples, 0, -1)
    if samples.shape[:2] != (page.imagelength, page.imagewidth):
        raise ImageError(f"a damaged TIFF file: it decodes to {samples.shape}")
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[..., 0]
    return samples


def _orientation(page: tifffile.TiffPage) -> int:
    value = page.tags.valueof(274, 1)
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def _photometric(page: tifffile.TiffPage) -> Any:
    """Return how samples become colours; where a file does not say, one is grey and three are RGB."""
    if 262 in page.tags:
        return page.photometric
    return _RGB if page.samplesperpixel >= 3 else _BLACK_IS_ZERO


def _raster(page: tifffile.TiffPage, samples: npt.NDArray[Any]) -> Raster:
    if samples.dtype.kind not in "biuf":
        raise ImageError(f"pixels of type {samples.dtype} are not read")
    bits = int(page.bitspersample)
    kind = _photometric(page)
    if kind == _PALETTE:
        return Raster(look_up(samples, _palette(page)))
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _SEPARATED: 4, _YCBCR: 3}.get(kind)
    if colours is None or (kind == _YCBCR and page.compression != _JPEG and page.compression not in _JPEG2000):
        raise ImageError(f"colours stored as {_name(kind)}, which is not read", hint="convert it to RGB")
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    if channels < colours:
        raise ImageError(f"{channels} channels for {_name(kind)} colours")
    extra = tuple(int(value) for value in page.extrasamples)
    if channels - colours > 1 or (channels > colours and extra[:1] not in ((0,), (_PREMULTIPLIED,), (_STRAIGHT,))):
        raise ImageError(
            f"{channels} channels ({_name(kind)}), and 1, 3 or 4 are wanted", hint="save one channel a page"
        )
    raster = Raster(_colours(page, samples, colours))
    if bits not in (8, 16, 32, 64) and page.sampleformat == _UNSIGNED and bits != 1:
        raster.full_range = (0, (1 << bits) - 1)
    if kind == _WHITE_IS_ZERO:
        _turn_white_is_zero(raster, bits)
    if channels > colours:
        _set_alpha(raster, samples[..., colours], extra[0], bits)
    return raster


def _colours(page: tifffile.TiffPage, samples: npt.NDArray[Any], colours: int) -> npt.NDArray[Any]:
    if samples.ndim == 2:
        return samples.astype(np.bool_) if page.bitspersample == 1 else samples
    if colours == 1:
        return samples[..., 0]
    if _photometric(page) == _SEPARATED:
        if page.tags.valueof(332, 1) != 1:
            raise ImageError("inks other than CMYK", hint="convert it to RGB")
        if samples.dtype not in (np.uint8, np.uint16):
            raise ImageError(f"CMYK of type {samples.dtype} is not read", hint="convert it to RGB")
        return cmyk_to_rgb(samples[..., :4])
    return samples[..., :3]


def _turn_white_is_zero(raster: Raster, bits: int) -> None:
    """Make high values bright: unsigned values are turned round, others keep their values and are shown inverted."""
    pixels = raster.pixels
    if pixels.dtype == np.bool_:
        raster.pixels = ~pixels
    elif pixels.dtype.kind == "u":
        raster.pixels = pixels.dtype.type((1 << bits) - 1) - pixels
    else:
        raster.is_inverted = True


def _set_alpha(raster: Raster, alpha: npt.NDArray[Any], meaning: int, bits: int) -> None:
    if meaning not in (_PREMULTIPLIED, _STRAIGHT):
        raster.notes += ("a channel beyond the colours has no stated meaning: it is ignored",)
        return
    full = 1.0 if alpha.dtype.kind == "f" else float((1 << bits) - 1)
    raster.alpha = np.clip(alpha.astype(np.float32) / np.float32(full), 0, 1)
    raster.is_premultiplied = meaning == _PREMULTIPLIED


def _palette(page: tifffile.TiffPage) -> npt.NDArray[np.uint8]:
    colours = page.colormap
    if colours is None or colours.ndim != 2 or colours.shape[0] != 3:
        raise ImageError("a palette image without its palette")
    # Some writers store 8-bit colours in the 16-bit entries.
    wide = colours if int(colours.max()) < 256 else colours >> 8
    return np.ascontiguousarray(wide.T.astype(np.uint8))

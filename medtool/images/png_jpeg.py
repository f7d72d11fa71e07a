"""PNG, JPEG, GIF, BMP, WebP and PNM, decoded by Pillow.

Two kinds that Pillow would cut down to 8 bits go to imagecodecs instead, chosen by the header: PNG with 16 bits a
channel (libpng) and JPEG that is lossless or has more than 8 bits (libjpeg-turbo).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, PpmImagePlugin, WebPImagePlugin
from PIL.Image import Exif

from medtool.errors import ImageError
from medtool.images import jpeg_stream, png_stream
from medtool.images.colour import cmyk_to_rgb, look_up
from medtool.images.formats import Format
from medtool.images.image import Raster, check_limits, choose_page
from medtool.images.messages import Message, heard

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.ImageFile import ImageFile

    from medtool.images.options import ReadOptions

_OPENERS: dict[Format, Callable[[io.BytesIO], ImageFile]] = {
    Format.PNG: PngImagePlugin.PngImageFile,
    Format.GIF: GifImagePlugin.GifImageFile,
    Format.BMP: BmpImagePlugin.BmpImageFile,
    Format.WEBP: WebPImagePlugin.WebPImageFile,
    Format.PNM: PpmImagePlugin.PpmImageFile,
}
_ORIENTATION = 0x0112
#: Pillow widens grey PNG pixels of 2 and 4 bits to 8 by these factors.
_WIDENED = {2: 85, 4: 17}
_MP_ENTRIES = 0xB002
_MP_THUMBNAILS = (0x010001, 0x010002)


def decode(data: bytes, found: Format, options: ReadOptions) -> Raster:
    """Return the chosen page of a file in one of this module's formats."""
    if found is Format.PNG:
        header = png_stream.read_header(data)
        check_limits(header.height, header.width, bytes_per_pixel=header.bytes_per_pixel, options=options)
        if header.depth == 16:
            return _deep_png(header, options)
        data = header.bare
    elif found is Format.JPEG:
        return _jpeg(_jpeg_page(data, options), options)
    with heard() as said:
        image = _open(data, found, options)
        if found is Format.PNG and "transparency" in image.info and image.mode == "L":
            image.info["transparency"] *= _WIDENED.get(header.depth, 1)
        raster = _pillow(image)
    _refuse_damage(said)
    return raster


def decode_labels(data: bytes, found: Format, options: ReadOptions) -> tuple[npt.NDArray[np.integer[Any]], int]:
    """Return stored integers ``(height, width)`` and the orientation they are stored in."""
    if found is Format.JPEG:
        raise ImageError("labels in a JPEG file, whose compression changes values", hint="save the labels as PNG")
    if found is Format.PNM:
        raise ImageError("labels in a PNM file, whose values are scaled on reading", hint="save the labels as PNG")
    widened = 1
    if found is Format.PNG:
        header = png_stream.read_header(data)
        check_limits(header.height, header.width, bytes_per_pixel=header.bytes_per_pixel, options=options)
        if header.depth == 16:
            raster = _deep_png(header, options)
            if raster.pixels.ndim == 3 or header.has_alpha_channel:
                raise _not_labels(header.channels)
            return raster.pixels, raster.orientation
        if header.channels == 1 and not header.has_palette:
            widened = _WIDENED.get(header.depth, 1)
        data = header.bare
    with heard() as said:
        image = _open(data, found, options)
        image.load()
    _refuse_damage(said)
    orientation, _ = _orientation(image.info.get("exif"))
    if image.mode not in ("1", "L", "P"):
        raise _not_labels(len(image.getbands()))
    labels = np.array(image)
    return (labels.astype(np.uint8) if labels.dtype == np.bool_ else labels // np.uint8(widened)), orientation


def _not_labels(channels: int) -> ImageError:
    return ImageError(
        f"{channels} channels, and a label image has one integer a pixel", hint="save the labels as grey or palette PNG"
    )


def _open(data: bytes, found: Format, options: ReadOptions) -> ImageFile:
    """Return the chosen page, its size checked, nothing decoded yet (but the canvas of earlier GIF frames)."""
    if found is Format.WEBP:
        width, height = _webp_size(data)
        check_limits(height, width, bytes_per_pixel=4, options=options)
    image = _OPENERS[found](io.BytesIO(data))
    check_limits(image.height, image.width, bytes_per_pixel=len(image.getbands()), options=options)
    pages = getattr(image, "n_frames", 1)
    page = choose_page(pages, options=options)
    if page:
        image.seek(page)
        check_limits(image.height, image.width, bytes_per_pixel=4, options=options)
    return image


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return canvas width and height, before libwebp allocates them."""
    kind, body = data[12:16], data[20:]
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise ImageError(f"a WebP file whose first chunk is {kind!r}")


def _orientation(exif: bytes | None) -> tuple[int, tuple[str, ...]]:
    """Return the EXIF orientation and notes; damaged EXIF data does not spoil the pixels."""
    if not exif:
        return 1, ()
    try:
        with heard():
            tags = Exif()
            tags.load(exif)
            value = tags.get(_ORIENTATION, 1)
    except Exception:
        return 1, ("the EXIF data is damaged: its orientation is ignored",)
    return (value if isinstance(value, int) and 1 <= value <= 8 else 1), ()


def _refuse_damage(said: list[Message]) -> None:
    if said:
        raise ImageError(f"a damaged file: {' '.join(said[0].text.split())}")


def _pillow(image: ImageFile) -> Raster:
    orientation, notes = _orientation(image.info.get("exif"))
    image.load()
    raster = _raster(image)
    raster.orientation, raster.notes = orientation, notes
    return raster


def _raster(image: ImageFile) -> Raster:
    mode = image.mode
    if mode == "P":
        return _palette_raster(image)
    pixels = np.array(image)
    transparency = image.info.get("transparency")
    if mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        if mode == "PA":
            pixels = np.array(image.convert("RGBA"))
        alpha = pixels[..., -1].astype(np.float32) / np.float32(255)
        colours = pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :3]
        return Raster(colours, alpha=alpha, is_premultiplied=mode.endswith("a"))
    if mode == "CMYK":
        return Raster(cmyk_to_rgb(pixels))
    if mode in ("1", "L", "RGB", "I", "F") or mode.startswith("I;16"):
        return Raster(_narrow(pixels) if mode == "I" else pixels, alpha=_keyed(pixels, transparency))
    raise ImageError(f"pixels of the kind {mode!r} are not read")


def _narrow(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return 16-bit pixels, which Pillow keeps in 32 bits, in 16."""
    fits = pixels.size and pixels.min() >= 0 and pixels.max() <= 65535
    return pixels.astype(np.uint16) if fits else pixels


def _keyed(pixels: npt.NDArray[Any], transparency: Any) -> npt.NDArray[np.float32] | None:
    """Return alpha where one grey value or colour stands for transparent."""
    if transparency is None:
        return None
    if pixels.ndim == 3:
        return np.asarray((pixels != np.asarray(transparency)).any(-1), np.float32)
    key = bool(transparency) if pixels.dtype == np.bool_ else transparency
    return np.asarray(pixels != key, np.float32)


def _palette_raster(image: ImageFile) -> Raster:
    indices = np.array(image)
    flat = image.getpalette("RGB") or []
    palette = np.asarray(flat, np.uint8).reshape(-1, 3)
    transparency = image.info.get("transparency")
    alpha = None
    if transparency is not None:
        opacity = np.full(256, 255, np.uint8)
        if isinstance(transparency, int):
            opacity[transparency] = 0
        else:
            opacity[: len(transparency)] = np.frombuffer(transparency, np.uint8)[:256]
        alpha = opacity[indices].astype(np.float32) / np.float32(255)
    return Raster(look_up(indices, palette), alpha=alpha)


def _deep_png(header: png_stream.Header, options: ReadOptions) -> Raster:
    import imagecodecs

    choose_page(header.frames, options=options)
    if options.page:
        raise ImageError("later frames of an animated 16-bit PNG are not read")
    # libpng widens a colour key (tRNS) to an alpha channel by itself.
    pixels = imagecodecs.png_decode(png_stream.unpacked(header))
    if pixels.dtype != np.uint16 or pixels.shape[:2] != (header.height, header.width):
        raise ImageError(f"the PNG decoder gave {pixels.shape} of {pixels.dtype}")
    orientation, notes = _orientation(header.exif)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        alpha = pixels[..., -1].astype(np.float32) / np.float32(65535)
        colours = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
        return Raster(colours, alpha=alpha, orientation=orientation, notes=notes)
    return Raster(pixels, orientation=orientation, notes=notes)


def _jpeg(data: bytes, options: ReadOptions, *, step: int = 1) -> Raster:
    frame = jpeg_stream.read_frame(data)
    check_limits(frame.height, frame.width, bytes_per_pixel=frame.components, options=options)
    if frame.precision != 8 or frame.is_lossless:
        return _deep_jpeg(data, frame)
    with heard() as said:
        image = _open_jpeg(data)
        check_limits(image.height, image.width, bytes_per_pixel=len(image.getbands()), options=options)
        raster = _pillow(_reduced(image, step))
        # Inks are converted by now; the decoder's own pixels tell.
        own = raster.pixels if image.mode in ("L", "RGB") else np.asarray(image)
        jpeg_stream.check_whole(data, frame, own, lambda stream: np.asarray(_reduced(_open_jpeg(stream), step)))
    _refuse_damage(said)
    return raster


def decode_reduced(data: bytes, options: ReadOptions, *, least_px: int) -> tuple[Raster, int, tuple[int, int]] | None:
    """Return the picture of a JPEG file at a half, a quarter or an eighth of its size, for far less than decoding it.

    Whatever makes a file unreadable for :func:`decode` is refused here with the same words.

    Parameters
    ----------
    least_px
        What is left of the shorter side, at least.

    Returns
    -------
    raster, step, size
        A pixel of the raster is the mean of ``step`` × ``step`` pixels (of fewer at the right and lower edges);
        ``size`` is the stored height and width. None where it must be decoded as it is: too small, progressive, inks,
        lossless or more than 8 bits.
    """
    stream = _jpeg_page(data, options)
    frame = jpeg_stream.read_frame(stream)
    step = next((step for step in (8, 4, 2) if min(frame.height, frame.width) >= step * least_px), 1)
    if step == 1 or frame.precision != 8 or frame.is_lossless or frame.components not in (1, 3):
        return None
    if frame.is_progressive:  # an eighth of it is in its first scan, and says nothing about the others
        return None
    return _jpeg(stream, options, step=step), step, (frame.height, frame.width)


def _open_jpeg(data: bytes) -> ImageFile:
    return JpegImagePlugin.JpegImageFile(io.BytesIO(data))


def _reduced(image: ImageFile, step: int) -> ImageFile:
    if step > 1:
        image.draft(None, (image.width // step, image.height // step))
    return image


def _deep_jpeg(data: bytes, frame: jpeg_stream.Frame) -> Raster:
    import imagecodecs

    if frame.components not in (1, 3):
        raise ImageError(f"a JPEG of {frame.precision} bits with {frame.components} channels is not read")
    pixels = imagecodecs.jpeg8_decode(data)
    if pixels.shape[:2] != (frame.height, frame.width):
        raise ImageError(f"the JPEG decoder gave {pixels.shape}")
    jpeg_stream.check_whole(data, frame, pixels, imagecodecs.jpeg8_decode)
    orientation, notes = _orientation(jpeg_stream.application_data(data, code=0xE1, prefix=b"Exif\0\0")[0])
    full_range = None if frame.precision in (8, 16) else (0, (1 << frame.precision) - 1)
    return Raster(pixels, orientation=orientation, full_range=full_range, notes=notes)


def _jpeg_page(data: bytes, options: ReadOptions) -> bytes:
    """Return the chosen picture of a JPEG file: several are in it when it is a multi-picture file (MPO)."""
    index, base = jpeg_stream.application_data(data, code=0xE2, prefix=b"MPF\0")
    starts = _picture_starts(data, index, base) if index else [0]
    start = starts[choose_page(len(starts), options=options)]
    return data[start:] if start else data


def _picture_starts(data: bytes, index: bytes, base: int) -> list[int]:
    """Return where the pictures of a multi-picture file start; thumbnails and gain maps are none.

    CIPA DC-007 (Multi-Picture Format): a TIFF-like directory with 16-byte entries under tag 0xB002.
    """
    order = "<" if index[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", index, 4)
    (count,) = struct.unpack_from(f"{order}H", index, directory)
    starts = [0]
    for place in range(count):
        tag, _, size, where = struct.unpack_from(f"{order}HHII", index, directory + 2 + 12 * place)
        if tag != _MP_ENTRIES:
            continue
        for number in range(1, min(size, len(index)) // 16):
            attributes, length, offset = struct.unpack_from(f"{order}III", index, where + 16 * number)
            start = base + offset
            if attributes & 0xFFFFFF in _MP_THUMBNAILS or _is_gain_map(data[start : start + length]):
                continue
            if data[start : start + 2] != b"\xff\xd8":
                raise ImageError(f"a multi-picture file whose picture {number} is missing")
            starts.append(start)
    return starts


def _is_gain_map(picture: bytes) -> bool:
    head = picture[:65536]
    return b"hdrgm:" in head or b"hdrgainmap" in head or b"HDRGainMap" in head

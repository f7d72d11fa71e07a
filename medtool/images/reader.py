"""Read one image file, or one label file: limits first, then the one decoder of its format, then the display rules."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import stat
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Pillow

from medtool.errors import ImageError, MissingExtraError
from medtool.images.colour import over_white
from medtool.images.display import show
from medtool.images.formats import HEAD_BYTES, Format, identify
from medtool.images.image import Image, Raster, ReducedImage, upright
from medtool.images.messages import heard
from medtool.images.options import ReadOptions

if TYPE_CHECKING:
    import numpy.typing as npt

_REASON_LENGTH = 160


def read_image(path: Path, options: ReadOptions | None = None) -> Image:
    """Read any image file to upright pixels that mean what they meant.

    Parameters
    ----------
    path
        A regular file; its first bytes, not its name, tell the format.
    options
        Page, slice and limits; None takes the defaults of :class:`ReadOptions`.

    Raises
    ------
    ImageError
        If the file is no image, damaged, too large, or holds several pages and none was chosen. One line, no path.
    MissingExtraError
        If its format needs an optional part of medtool that is not installed.
    """
    options = options or ReadOptions()
    data = _read_bytes(path, options)
    found = identify(data)
    backend = _backend(found)
    with _one_reason(found), heard():
        raster = _made_upright(backend.decode(data, found, options))
        rgb, window, notes = show(raster)
    sha256 = hashlib.sha256(data).hexdigest()
    return Image(raster.pixels, rgb, window, sha256, (*raster.notes, *notes))


def read_bytes(path: Path, options: ReadOptions | None = None) -> bytes:
    """Return the bytes of an image file, for :func:`reduced`.

    Raises
    ------
    ImageError
        If there is no such file, if it is no regular file, or has more bytes than the options allow.
    """
    return _read_bytes(path, options or ReadOptions())


def reduced(data: bytes, *, least_px: int, options: ReadOptions | None = None) -> ReducedImage:
    """Return a small copy of the image that a file's bytes hold; of a JPEG file little more than that is decoded.

    The same files are readable as with :func:`read_image`, and shown by the same rules.

    Parameters
    ----------
    least_px
        What is left of the shorter side, at least; smaller images keep their size. Less than twice that is left, but
        JPEG files are reduced to an eighth and not further.

    Raises
    ------
    ImageError
        As :func:`read_image` does.
    SeveralPagesError
        If it holds several pages or volumes and none was chosen.
    MissingExtraError
        If its format needs an optional part of medtool that is not installed.
    """
    options = options or ReadOptions()
    found = identify(data)
    backend = _backend(found)
    with _one_reason(found), heard():
        if found is Format.JPEG and (part := backend.decode_reduced(data, options, least_px=least_px)) is not None:
            raster, step, size = part
            small, _, _ = show(raster)
            if not _is_constant(small):
                return ReducedImage(small, step, size, raster.orientation, found.value, False)
        raster = _made_upright(backend.decode(data, found, options))
        rgb, _, _ = show(raster)
        is_constant = _is_constant(raster.pixels)
    height, width = rgb.shape[:2]
    step = max(1, min(height, width) // least_px)
    small = rgb if step == 1 else np.asarray(Pillow.fromarray(rgb).reduce(step))
    return ReducedImage(small, step, (height, width), 1, found.value, is_constant)


def _is_constant(pixels: npt.NDArray[Any]) -> bool:
    return bool((pixels[0] == pixels[0, 0]).all()) and bool((pixels == pixels[0, 0]).all())


def read_labels(path: Path, options: ReadOptions | None = None) -> npt.NDArray[np.integer[Any]]:
    """Read a label image (a mask) as exactly the integers it stores, upright.

    Palette indices stay indices, 0 and 255 stay 0 and 255, 1-bit pixels become 0 and 1. NIfTI slices are cut as
    :func:`read_image` cuts them, so that a label volume fits its image volume.

    Returns
    -------
    npt.NDArray[np.integer]
        Shape ``(height, width)``.

    Raises
    ------
    ImageError
        If it cannot be read, or has colours, alpha, fractions or lossy compression instead of labels.
    """
    options = options or ReadOptions()
    data = _read_bytes(path, options)
    found = identify(data)
    backend = _backend(found)
    with _one_reason(found), heard():
        labels, orientation = backend.decode_labels(data, found, options)
        return upright(labels, orientation)


def _read_bytes(path: Path, options: ReadOptions) -> bytes:
    """Return a file's bytes; refuse anything that is not a regular file within the byte limit before opening it."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size == 0:
            raise ImageError("the file is empty")
        with path.open("rb") as file:
            if status.st_size > options.max_bytes:
                identify(file.read(HEAD_BYTES))
                raise ImageError(
                    f"the file has {status.st_size:,} bytes; the limit is {options.max_bytes:,}",
                    hint=f"--max-bytes {status.st_size}",
                )
            data = file.read(status.st_size + 1)  # not up to the limit: room for that much is costly to get
            if len(data) > status.st_size:
                data += file.read(options.max_bytes + 1 - len(data))
    except OSError as error:
        raise ImageError((error.strerror or str(error)).lower()) from error
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"not a usable path: {error}") from error
    except MemoryError as error:
        raise ImageError("not enough memory to read the file") from error
    if len(data) > options.max_bytes:
        raise ImageError(f"the file grew beyond the limit of {options.max_bytes:,} bytes while it was read")
    return data


@contextlib.contextmanager
def _one_reason(found: Format) -> Iterator[None]:
    """Turn whatever a decoder raises into an :class:`ImageError` of one line."""
    try:
        yield
    except MissingExtraError:
        raise
    except ImageError as error:
        # Some reasons quote the file.
        raise type(error)(_one_line(error.message), hint=error.hint) from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it") from error
    except Exception as error:
        text = _one_line(str(error))
        reason = text if len(text) > 3 and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()
        raise ImageError(f"damaged or unusual {found.value}: {reason}") from error


def _one_line(text: str) -> str:
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= _REASON_LENGTH else f"{text[: _REASON_LENGTH - 1]}…"


def _backend(found: Format) -> ModuleType:
    """Return the module that decodes a format; its libraries load here, on first use."""
    name = {Format.TIFF: "tiff", Format.DICOM: "dicom", Format.NIFTI: "nifti"}.get(found, "png_jpeg")
    return importlib.import_module(f"medtool.images.{name}")


def _made_upright(raster: Raster) -> Raster:
    pixels, alpha, padding = raster.pixels, raster.alpha, raster.padding
    if alpha is not None:
        if bool((alpha > 0).any()):
            pixels = over_white(pixels, alpha, is_premultiplied=raster.is_premultiplied)
        else:
            raster.notes += ("every pixel is wholly transparent: transparency is ignored",)
    if raster.orientation != 1:
        pixels = upright(pixels, raster.orientation)
        padding = None if padding is None else upright(padding, raster.orientation)
    raster.pixels, raster.alpha, raster.padding = np.ascontiguousarray(pixels), None, padding
    return raster

"""What a decoder hands over (:class:`Raster`) and what medtool's users see (:class:`Image`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medtool.errors import ImageError, SeveralPagesError

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.images.options import ReadOptions
    from medtool.protocols import RGB8


@dataclass(frozen=True, slots=True)
class Window:
    """A range of values and how it is spread over black to white.

    Attributes
    ----------
    low, high
        Values shown black and white. For a sigmoid: centre ± width / 2, shown at 12% and 88%.
    curve
        ``linear``, or ``sigmoid`` (DICOM PS3.3 C.11.2.1.3.1).
    """

    low: float
    high: float
    curve: Literal["linear", "sigmoid"] = "linear"


@dataclass(frozen=True, slots=True, eq=False)
class ValueTable:
    """A table from values to brightness (a DICOM VOI LUT).

    Attributes
    ----------
    first
        The value that the first entry stands for; values below take it, values above the last take the last.
    brightness
        Shape ``(n,)``, float64, 0 (black) to 1 (white).
    """

    first: int
    brightness: npt.NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Raster:
    """One page as decoded: not yet upright, alpha still apart.

    Attributes
    ----------
    pixels
        Shape ``(height, width)`` grey or ``(height, width, 3)`` RGB; bool, integer or float.
    alpha
        Shape ``(height, width)``, float32, 0 (transparent) to 1, or None.
    is_premultiplied
        The colours are already multiplied by alpha.
    orientation
        EXIF and TIFF orientation, 1 to 8.
    is_inverted
        Low values are bright (DICOM MONOCHROME1).
    padding
        Shape ``(height, width)``, bool: pixels outside what was imaged, or None.
    window
        The window that the file itself asks for, or None.
    table
        The value table that the file itself asks for, or None; it goes before the window.
    is_measured
        8-bit values are measurements, not brightness; they are windowed as wider ones are.
    full_range
        Values that the container calls black and white where this is known, such as (0, 15) of 4-bit pixels.
    notes
        What a reader of the image should know, a line each.
    """

    pixels: npt.NDArray[Any]
    alpha: npt.NDArray[np.float32] | None = None
    is_premultiplied: bool = False
    orientation: int = 1
    is_inverted: bool = False
    padding: npt.NDArray[np.bool_] | None = None
    window: Window | None = None
    table: ValueTable | None = None
    is_measured: bool = False
    full_range: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One upright image.

    Attributes
    ----------
    pixels
        Values as they were meant: shape ``(height, width)`` grey, or ``(height, width, 3)`` RGB. 8- and 16-bit, signed
        and float values are kept; CT is in Hounsfield units; palettes are looked up; alpha is composited.
    rgb
        Shape ``(height, width, 3)``, uint8: the same for eyes and networks, by the rules of docs/reference/images.md.
        Shares memory with ``pixels`` where both are equal.
    window
        Values shown black and white, or None where 8-bit values are shown as they are.
    sha256
        Of the file's bytes, 64 hexadecimal digits.
    notes
        What was decided on the way, a line each, such as pixels that are not finite.
    """

    pixels: npt.NDArray[Any]
    rgb: RGB8
    window: tuple[float, float] | None
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def is_grey(self) -> bool:
        """Whether a pixel has one value rather than three."""
        return self.pixels.ndim == 2

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.pixels.shape[:2]
        return height, width


@dataclass(frozen=True, slots=True, eq=False)
class ReducedImage:
    """A small copy of an image, as it is stored: not yet upright.

    Attributes
    ----------
    rgb
        Shape ``(height / step, width / step, 3)``, rounded up, uint8: each pixel is the mean of ``step`` × ``step``
        pixels of the image, of fewer at the right and lower edges.
    step
        Pixels of the image beside one another in one of these, 1 or more.
    size
        Height and width in pixels of the image as it is stored.
    orientation
        EXIF orientation, 1 to 8, that :func:`upright` takes.
    format
        Name of the file's format, such as ``JPEG``.
    is_constant
        Whether every pixel of the image has one and the same value.
    """

    rgb: RGB8
    step: int
    size: tuple[int, int]
    orientation: int
    format: str
    is_constant: bool


def upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return ``(height, width[, 3])`` pixels turned and mirrored from an EXIF or TIFF orientation to upright."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def check_limits(height: int, width: int, *, bytes_per_pixel: float, options: ReadOptions) -> None:
    """Refuse a header's promises before anything is decoded.

    Raises
    ------
    ImageError
        If the image has no pixels, more than ``options.max_pixels``, or decodes to more than ``options.max_bytes``.
    """
    if height < 1 or width < 1:
        raise ImageError(f"the header asks for {width} × {height} pixels")
    if height * width > options.max_pixels:
        raise ImageError(
            f"{width} × {height} is {height * width:,} pixels; the limit is {options.max_pixels:,}",
            hint=f"--max-pixels {height * width}",
        )
    check_bytes(height * width * bytes_per_pixel, options=options)


def check_bytes(size: float, *, options: ReadOptions) -> None:
    """Refuse what would decode to more than ``options.max_bytes``."""
    if size > options.max_bytes:
        raise ImageError(
            f"it decodes to {int(size):,} bytes; the limit is {options.max_bytes:,}",
            hint=f"--max-bytes {int(size)}",
        )


def choose_page(pages: int, *, options: ReadOptions, noun: str = "pages") -> int:
    """Return the page to read; a file of several needs to be told which.

    Raises
    ------
    SeveralPagesError
        If there are several pages and none was chosen.
    ImageError
        If the chosen one does not exist.
    """
    if options.page is None:
        if pages > 1:
            raise SeveralPagesError(f"{pages} {noun}, and one image is wanted", hint=f"--page N (0 to {pages - 1})")
        return 0
    if options.page >= pages:
        raise ImageError(f"no page {options.page}: the file has {pages} {noun if pages != 1 else noun[:-1]}, from 0 on")
    return options.page

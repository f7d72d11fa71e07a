"""Whether two images show the same picture: the detail in every part of it has to agree.

Two pictures of one kind of thing share their outline, not their grain: the lines of the skin, the hairs, the edges of
cells. So both are laid on one another to a fraction of a pixel (:mod:`medtool.split.duplicates.alignment`), and the
correlation of their fine detail is taken around each point. What compression may have changed is allowed for: its noise
has about the same strength in every picture, so detail that is hardly stronger may disagree, and strong detail may not.
The pair is one picture if all but a fifth of it agrees; a fifth may be hidden under writing or a ruler. Strong
compression adds more noise, and takes faint detail away; more is allowed for only where one file says that it was
compressed so and both show the same view, to a pixel or two, as two photographs hardly ever do. How this was
chosen and how good it is: docs/explanation/duplicates.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from medtool.images.options import ReadOptions
from medtool.images.reader import read_bytes, read_image, reduced
from medtool.split.duplicates.alignment import SIDE, Frame, Grey, Square, aligned, band, common
from medtool.split.duplicates.orientation import NAMES, TRANSPOSED, inverse, of_exif
from medtool.split.duplicates.pairs import Kind
from medtool.split.duplicates.small import LEAST_PX, SmallPicture

#: Least similarity of two images that show the same picture.
LEAST_SIMILARITY: Final = 0.95

_FINE_PX = 1.5  # of the square: the detail that is compared lies between this deviation and twice it
_WINDOW_PX = 13
_EVERY_PX = 4  # windows overlap; so many pixels lie between the middles of two that are looked at
_MAY_DISAGREE = 0.2  # of the windows
_LEAST_WINDOWS = 0.02  # of all must have detail
_NOISE = (0.1, 4.0)  # grey levels squared: of the least and the most noise that is allowed for
_MORE_NOISE = (1.0, 3.0, 8.0)  # times as much, tried in turn; the latter two as said above
_COARSE_STEP = 85.0  # mean step of a JPEG file's brightness; quality 33 of the usual tables
_PLAIN_NOISE = 0.01  # grey levels squared, for rounding
_MOST_NOISE = 8.0  # grey levels squared: more, and neighbouring slices of a volume would be one picture
_SAME_VIEW_PX = 2.0  # of the square, at the corners of its frame
_STRONG = 16.0  # times the noise: detail that cannot have been lost

_CLIPPED = (4.0, 251.0)  # grey levels; means of pixels at 0 or 255 and of some that are not quite there
_LEAST_CLIPPED = 0.005  # of the pixels, below which nothing is left out
_LEAST_INSIDE = 0.1  # of the pixels, from which the change of the tones is known
_LEAST_SEEN = 0.25  # of a window's pixels

_SAME_SIZE = 0.015  # scales and shares nearer to 1 than this are 1
_SAME_CONTRAST = 0.08
_SAME_BRIGHTNESS = 8.0  # grey levels
_LEAST_TURN_DEG = 0.7
_PLAINLY_OTHER = 0.5  # similarity of a window below which something else is there
_LEAST_OTHER = 0.02  # of the windows
_SAME_EXACTLY = 0.01  # grey levels between the squares of equal pixels, for rounding
_SAME_DECODED = 1.5  # grey levels, on average, between equal pixels that were reduced in two ways


@dataclass(frozen=True, eq=False)
class Picture:
    """What is kept of an image file while it is compared.

    Attributes
    ----------
    path
        The file.
    square
        The upright picture's brightness.
    height, width
        In pixels of the file, upright.
    format
        Such as ``JPEG``.
    exif
        Orientation in which the file stores it, 1 to 8.
    step
        To which a JPEG file rounds its waves, on average, in grey levels; 0 for other files.
    """

    path: Path
    square: Square
    height: int
    width: int
    format: str
    exif: int
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Two images show the same picture.

    Attributes
    ----------
    kind
        Equal pixels, or nearly equal pictures. Equal bytes are not looked for here.
    similarity
        From :data:`LEAST_SIMILARITY` to 1: correlation of the detail, noise of compression allowed for, that four
        fifths of the common part reach. Nearly 1 for most copies; how far below 1 means little.
    alteration
        What makes the second of the first; "first cropped" where the first lacks what the second shows; empty for
        equal pixels.
    back
        What makes the first of the second, in the same way; None where these are the same words.
    """

    kind: Kind
    similarity: float
    alteration: str
    back: str | None = None


def picture_of(path: Path, options: ReadOptions | None = None, *, small: SmallPicture | None = None) -> Picture:
    """Return what is compared of an image; a JPEG file is decoded at a reduced size.

    Parameters
    ----------
    small
        What was read of it before; the file is then not read.

    Raises
    ------
    ImageError
        As :func:`medtool.images.read_image`.
    """
    if small is None:
        data = read_bytes(path, options)
        small = SmallPicture.of(reduced(data, least_px=LEAST_PX, options=options), data)
    turning = of_exif(small.exif)
    height, width = (small.width, small.height) if turning & TRANSPOSED else (small.height, small.width)
    return Picture(
        path, Square.of(small.grey).turned(turning), height, width, small.format, small.exif, small.jpeg_step
    )


def verify(
    first: Picture,
    second: Picture,
    orientation: int = 0,
    *,
    cut: tuple[float, float, float, float] = (0, 0, 0, 0),
    is_second_larger: bool = False,
    may_be_equal: bool = True,
) -> Verdict | None:
    """Return what two images have in common; None if they do not show the same picture, or too little to tell.

    Parameters
    ----------
    orientation
        ``turn(second, orientation)`` shows what the first shows; see :mod:`medtool.split.duplicates.orientation`.
    cut
        Share of the larger picture's height and width, as it is upright, that the smaller lacks at the top, bottom,
        left and right, to within about three hundredths.
    is_second_larger
        Which of the two is the larger.
    may_be_equal
        False where their pixels are known to differ.

    Raises
    ------
    ImageError
        If the pixels may be equal and cannot be read to the end.
    """
    is_alike = may_be_equal and orientation == 0 and _may_be_equal(first, second)
    if is_alike and has_equal_pixels(first.path, second.path):
        return Verdict(Kind.PIXELS, 1.0, "")
    larger, smaller = (second, first) if is_second_larger else (first, second)
    turning = inverse(orientation) if is_second_larger else orientation
    square = smaller.square.turned(turning)
    height, width = (smaller.width, smaller.height) if turning & TRANSPOSED else (smaller.height, smaller.width)
    start = Frame.cutting(*cut)
    step = max(first.step, second.step)
    # A copy that is not cropped mostly lies where it should, and its detail agrees without any alignment or allowance.
    found = None if any(cut) else _compared(square, larger, start, size=(height, width), is_plain=True)
    if found is None:
        frame = aligned(square, larger.square, start)
        found = None if frame is None else _compared(square, larger, frame, size=(height, width), step=step)
    if found is None:
        return None
    frame, shown, windows = found.frame, found.shown, found.windows
    across, down = width / (larger.width * frame.width), height / (larger.height * frame.height)
    shares = frame.shares
    if is_second_larger:
        across, down, shares = 1 / across, 1 / down, shares[::-1]
    elif turning & TRANSPOSED:
        across, down = down, across
    turn_, light, rest = _turn_in_words(frame, larger), _light_in_words(*shown), _rest_in_words(windows)
    across_back, down_back = (1 / down, 1 / across) if orientation & TRANSPOSED else (1 / across, 1 / down)
    there = [NAMES[inverse(orientation)], turn_, _crop_in_words(*shares), _scale_in_words(across, down), light, rest]
    back = [
        NAMES[orientation],
        turn_,
        _crop_in_words(*shares[::-1]),
        _scale_in_words(across_back, down_back),
        light,
        rest,
    ]
    return Verdict(Kind.NEAR, found.similarity, _in_words(there), _in_words(back))


@dataclass(frozen=True, eq=False)
class _Compared:
    """Two pictures that were found to be one.

    Attributes
    ----------
    frame
        Of the smaller in the larger.
    shown
        What both show.
    windows
        How alike that is in each window.
    similarity
        What most windows reach.
    """

    frame: Frame
    shown: tuple[Grey, Grey]
    windows: npt.NDArray[np.float32]
    similarity: float


def _compared(
    square: Square,
    larger: Picture,
    frame: Frame,
    *,
    size: tuple[int, int],
    step: float = 0.0,
    is_plain: bool = False,
) -> _Compared | None:
    """Return what the smaller picture has in common with the larger in a frame; None if they are not the same.

    Parameters
    ----------
    square
        The smaller picture, turned as the larger one is.
    size
        Its height and width.
    step
        The coarser step of both files; 0 allows for no more noise than usual.
    is_plain
        They must be the same even with next to no noise allowed for.
    """
    shown = common(square, larger.square, frame)
    if shown is None:
        return None
    side_px = min(*size, larger.height * frame.height, larger.width * frame.width)
    noise = float(np.clip((SIDE / side_px) ** 2, *_NOISE))
    is_coarse = step >= _COARSE_STEP and frame.displacement * SIDE <= _SAME_VIEW_PX
    windows = _Windows.of(*shown, unclipped(*shown))
    if is_plain and _similarity(windows.similarities(_PLAIN_NOISE)) < LEAST_SIMILARITY:
        return None
    for more in _MORE_NOISE if is_coarse else _MORE_NOISE[:1]:
        found = windows.similarities(min(more * noise, _MOST_NOISE))
        similarity = _similarity(found)
        if found is not None and similarity >= LEAST_SIMILARITY:
            return _Compared(frame, shown, found, similarity)
    return None


def unclipped(one: Grey, other: Grey) -> Grey | None:
    """Return where neither of two aligned pictures lost detail to black or white that the other still has.

    Brightening turns the lightest tones to white. Whatever is white in the one must be light in the other, as the
    change of the other tones foretells; a white label on dark skin is no lost detail.

    Returns
    -------
    npt.NDArray[np.float32] | None
        1 where it is so, else 0; None if that is nearly everywhere, or the change of tones cannot be told.
    """
    low, high = _CLIPPED
    is_low, is_high = (one <= low, other <= low), (one >= high, other >= high)
    differs = (is_low[0] ^ is_low[1]) | (is_high[0] ^ is_high[1])
    inside = ~(is_low[0] | is_low[1] | is_high[0] | is_high[1])
    if differs.mean() < _LEAST_CLIPPED or inside.mean() < _LEAST_INSIDE:
        return None
    tones, other_tones = one[inside], other[inside]
    gain = float(tones.std() / max(float(other_tones.std()), 1e-3))
    foretold = gain * (other - other_tones.mean()) + tones.mean()
    other_foretold = (one - tones.mean()) / max(gain, 1e-3) + other_tones.mean()
    is_lost = differs & (
        (is_low[0] & (foretold <= low))
        | (is_high[0] & (foretold >= high))
        | (is_low[1] & (other_foretold <= low))
        | (is_high[1] & (other_foretold >= high))
    )
    if is_lost.mean() < _LEAST_CLIPPED:
        return None
    # A pixel of the square beside lost ones is partly lost itself.
    return np.asarray(1 - cv2.dilate(is_lost.astype(np.float32), np.ones((3, 3), np.uint8)), np.float32)


def window_similarities(
    one: Grey, other: Grey, *, noise: float, seen: Grey | None = None
) -> npt.NDArray[np.float32] | None:
    """Return how alike the detail of two aligned pictures is in each window that has any, at most 1.

    Parameters
    ----------
    one, other
        Of one shape, in grey levels.
    noise
        Mean square, in grey levels, of what compression may have added to either in the band that is compared.
    seen
        1 where both are to be compared, 0 elsewhere; None is everywhere.

    Returns
    -------
    npt.NDArray[np.float32] | None
        Shape ``(n,)``; None if too few windows have detail.
    """
    return _Windows.of(one, other, seen).similarities(noise)


@dataclass(frozen=True, eq=False)
class _Windows:
    """The detail in each window of two aligned pictures.

    Attributes
    ----------
    power, other_power
        Mean square of each, in grey levels.
    products
        Mean product.
    n
        Windows, those that are not looked at included.
    """

    power: Grey
    other_power: Grey
    products: Grey
    n: int

    @classmethod
    def of(cls, one: Grey, other: Grey, seen: Grey | None) -> _Windows:
        """Return the windows of what :func:`window_similarities` takes."""
        detail, other_detail = _detail(one, seen), _detail(other, seen)
        products = (detail * detail, other_detail * other_detail, detail * other_detail)
        power, other_power, mean = (_means(product, seen) for product in products)
        n = mean.size
        if seen is not None:
            is_looked_at = _means(seen) >= _LEAST_SEEN
            power, other_power, mean = power[is_looked_at], other_power[is_looked_at], mean[is_looked_at]
        return cls(power, other_power, mean, n)

    def similarities(self, noise: float) -> npt.NDArray[np.float32] | None:
        """Return what :func:`window_similarities` returns."""
        correlation = self.products / np.sqrt(np.maximum(self.power * self.other_power, 1e-12))
        weaker, stronger = np.minimum(self.power, self.other_power), np.maximum(self.power, self.other_power)
        has_detail = weaker > noise / 4
        is_one_sided = ~has_detail & (stronger > _STRONG * noise)
        if has_detail.sum() + is_one_sided.sum() < _LEAST_WINDOWS * self.n:
            return None
        # Of two pictures that differ by noise only, the correlation is that of the weaker with itself plus the noise.
        expected = 1 / np.sqrt(1 + noise / weaker[has_detail])
        found = np.minimum(correlation[has_detail] / expected, 1)
        return np.concatenate((found, np.zeros(int(is_one_sided.sum()), np.float32))).astype(np.float32)


def _detail(grey: Grey, seen: Grey | None) -> Grey:
    if seen is None:
        return band(grey, _FINE_PX, 2 * _FINE_PX)
    # Each deviation's mean is that of the pixels that are seen, so that the edge of what is not is no detail.
    fine, coarse = (
        cv2.GaussianBlur(grey * seen, (0, 0), px) / np.maximum(cv2.GaussianBlur(seen, (0, 0), px), 1e-3)
        for px in (_FINE_PX, 2 * _FINE_PX)
    )
    return np.asarray((fine - coarse) * seen, np.float32)


def _means(values: Grey, seen: Grey | None = None) -> Grey:
    """Return the means in windows; of what is zero where it is not seen, those of the rest."""
    found = np.asarray(cv2.boxFilter(values, -1, (_WINDOW_PX, _WINDOW_PX), borderType=cv2.BORDER_REFLECT), np.float32)
    found = found[_EVERY_PX // 2 :: _EVERY_PX, _EVERY_PX // 2 :: _EVERY_PX]
    return found if seen is None else np.asarray(found / np.maximum(_means(seen), 1e-3), np.float32)


def has_equal_pixels(one: Path, other: Path) -> bool:
    """Tell whether two images have the same upright pixels; grey is colour of three equal channels."""
    return pixel_digest(one) == pixel_digest(other)


def pixel_digest(path: Path) -> bytes:
    """Return what is the same for images of the same upright pixels, and for no others.

    Raises
    ------
    ImageError
        As :func:`medtool.images.read_image`.
    """
    pixels = read_image(path).pixels
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    digest = hashlib.sha256(f"{pixels.dtype.newbyteorder('=').str} {pixels.shape}".encode())
    digest.update(pixels.astype(pixels.dtype.newbyteorder("="), copy=False).tobytes())
    return digest.digest()


def _may_be_equal(first: Picture, second: Picture) -> bool:
    """Tell whether full decoding may find equal pixels."""
    if (first.height, first.width) != (second.height, second.width):
        return False
    if (first.format == "JPEG") == (second.format == "JPEG") and first.exif == second.exif:
        return bool(abs(first.square.grey - second.square.grey).max() <= _SAME_EXACTLY)
    # A JPEG file is reduced while it is decoded, any other after it: only their coarse structure is then the same.
    coarse, other = (cv2.resize(one.square.grey, (16, 16), interpolation=cv2.INTER_AREA) for one in (first, second))
    return bool(abs(np.subtract(coarse, other)).mean() <= _SAME_DECODED)


def _similarity(windows: npt.NDArray[np.float32] | None) -> float:
    """Return the similarity that all windows reach but those that may disagree; 0 where too few have detail."""
    if windows is None:
        return 0.0
    rank = int(_MAY_DISAGREE * len(windows))
    return float(np.partition(windows, rank)[rank])


def _in_words(alterations: list[str]) -> str:
    return ", ".join(word for word in alterations if word) or "small changes of its pixels"


def _turn_in_words(frame: Frame, larger: Picture) -> str:
    shape = np.array([larger.width, larger.height])
    slants = frame.matrix * shape[:, None]
    # A turn moves a picture's right edge down as far as it moves its lower edge to the left; widths and heights differ.
    degrees = np.degrees(np.arctan2(slants[1, 0] - slants[0, 1], slants[0, 0] + slants[1, 1]))
    return f"turned by {abs(degrees):.0f}°" if abs(degrees) >= _LEAST_TURN_DEG else ""


def _crop_in_words(of_first: float, of_second: float) -> str:
    """Say what is left, from the share of the first's area that the second shows, and the other way round."""
    names = [("", of_first), ("first ", of_second)]
    return ", ".join(f"{name}cropped to {share:.0%} of the area" for name, share in names if share < 1 - _SAME_SIZE)


def _scale_in_words(across: float, down: float) -> str:
    """Say how many pixels of the second lie along one of the first; across and down are those of the second."""
    if abs(across / down - 1) > 2 * _SAME_SIZE:
        return f"resized ×{across:.2f} across and ×{down:.2f} down"
    scale = float(np.sqrt(across * down))
    return f"resized ×{scale:.2f}" if abs(scale - 1) > 2 * _SAME_SIZE else ""


def _light_in_words(one: Grey, other: Grey) -> str:
    # Of coarse parts: what resizing took from the detail is no change of the contrast.
    coarse, other_coarse = (cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA) for grey in (one, other))
    contrast = np.log(max(float(np.std(coarse)), 1e-3) / max(float(np.std(other_coarse)), 1e-3))
    brightness = float(np.mean(coarse)) - float(np.mean(other_coarse))
    is_changed = abs(contrast) > _SAME_CONTRAST or abs(brightness) > _SAME_BRIGHTNESS
    return "brightness or contrast changed" if is_changed else ""


def _rest_in_words(windows: npt.NDArray[np.float32]) -> str:
    share = float((windows < _PLAINLY_OTHER).mean())
    return f"something else in {share:.0%} of it" if share >= _LEAST_OTHER else ""

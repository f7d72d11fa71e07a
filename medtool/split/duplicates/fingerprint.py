"""The fingerprint of one image: what finds its copies, re-compressed, resized, mirrored, turned or cropped.

The picture's brightness is developed into cosines of up to 15 half waves across it (a discrete cosine transform of the
lowest frequencies). These 16 × 16 numbers, its *spectrum*, are all that is kept. From them follow, without the pixels:
the spectrum of the picture in any orientation (exactly) and of any part of it (nearly), and their hashes: 64 bits, one
for each of 64 coefficients, set where it is positive. Neither size, brightness nor contrast changes that, and
compression hardly.

References
----------
Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), on hashes of cosine transforms.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from medtool.errors import SeveralPagesError
from medtool.images.reader import read_bytes, reduced
from medtool.split.duplicates import orientation as orientations
from medtool.split.duplicates.orientation import of_exif, turn, turn_spectra
from medtool.split.duplicates.small import SmallPicture, is_small_picture

if TYPE_CHECKING:
    from medtool.images.image import ReducedImage
    from medtool.images.options import ReadOptions

#: Changes whenever the fingerprint of one file may come out differently; cached ones of other versions are not used.
VERSION: Final = 1
#: Half waves across the picture in its spectrum, from 0 on.
N_WAVES: Final = 16
#: Half waves (down a column, along a row) of the coefficient behind each bit of a hash, lowest bit first: all with a
#: sum of 1 to 10 but (5, 5), so that there are 64, and that exchanging rows and columns stays among them.
HASHED: Final = tuple((u, v) for u in range(11) for v in range(11) if 1 <= u + v <= 10 and (u, v) != (5, 5))
#: Grey levels above which a coefficient counts as positive. Without it the many that are nearly zero in a symmetric or
#: a plain picture would have signs of chance.
THRESHOLD: Final = 0.1
#: Pixels that are left of the shorter side.
LEAST_PX: Final = 64
#: Pixels of the small picture in colours, each way.
N_COLOURS: Final = 8

_MOST_KEPT_BYTES = 40_000  # of a small picture that may serve again
_STACKED_BYTES = 1_000_000  # of pictures whose fingerprints are made together
_FINEST = 0.05  # grey levels; the coarsest and finest coefficients that eight bits hold are 2^11.5 apart
_PER_OCTAVE = 11.0
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as JPEG has it


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """What is kept of one image.

    Attributes
    ----------
    sha256
        Of the file's bytes, 64 hexadecimal digits.
    width, height
        In pixels, upright; 0 where the file holds several pages.
    format
        Name of the file's format, such as ``JPEG``; empty where the file holds several pages.
    spectrum
        Shape ``(16, 16)``, int8: coefficients of the upright picture's brightness by the number of half waves down
        a column and along a row, on the logarithmic scale of :func:`decoded`.
    colours
        Shape ``(8, 8, 3)``, uint8: the upright picture, squeezed.
    is_blank
        Every pixel has one and the same value.
    note
        Why there is no picture to compare, as in a file of several pages; else empty.
    small
        The picture to compare on pixels, where the fingerprint was made just now and that is not large.
    """

    sha256: str
    width: int
    height: int
    format: str
    spectrum: npt.NDArray[np.int8]
    colours: npt.NDArray[np.uint8]
    is_blank: bool
    note: str = ""
    small: SmallPicture | None = None


def fingerprint(path: Path, options: ReadOptions | None = None) -> Fingerprint:
    """Return the fingerprint of one image file; a JPEG file is decoded at a reduced size.

    A file of several pages or volumes has no single picture: of it only the hash of its bytes is kept.

    Raises
    ------
    ImageError
        If :func:`medtool.images.read_image` cannot read it, with the same words.
    MissingExtraError
        If its format needs an optional part of medtool that is not installed.
    """
    data = read_bytes(path, options)
    return fingerprint_of(data, sha256=hashlib.sha256(data).hexdigest(), options=options)


def fingerprint_of(data: bytes, *, sha256: str, options: ReadOptions | None = None) -> Fingerprint:
    """Return the fingerprint of an image file, given its bytes and their hash; raises as :func:`fingerprint` does."""
    (made,) = completed([draft_of(data, sha256=sha256, options=options)])
    return made


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """An image file that was decoded, and of which the fingerprint is still to be made.

    Attributes
    ----------
    sha256, note, small
        As in :class:`Fingerprint`.
    image
        None where there is no picture to compare.
    """

    sha256: str
    image: ReducedImage | None
    note: str = ""
    small: SmallPicture | None = None


def draft_of(data: bytes, *, sha256: str, options: ReadOptions | None = None) -> Draft:
    """Decode an image file, given its bytes and their hash, for :func:`completed`; raises as :func:`fingerprint`."""
    try:
        image = reduced(data, least_px=LEAST_PX, options=options)
    except SeveralPagesError as error:
        return Draft(sha256, None, error.message)
    n_bytes = image.rgb.shape[0] * image.rgb.shape[1]
    is_kept = is_small_picture(image) and n_bytes <= _MOST_KEPT_BYTES
    return Draft(sha256, image, small=SmallPicture.of(image, data) if is_kept else None)


def completed(drafts: Sequence[Draft]) -> list[Fingerprint]:
    """Return the fingerprints of files that were decoded, in their order.

    Those of one size are made together, which spares time and comes to the same.
    """
    alike: dict[tuple[tuple[int, ...], tuple[int, int], int], list[int]] = {}
    for place, draft in enumerate(drafts):
        if draft.image is not None:
            alike.setdefault((draft.image.rgb.shape, draft.image.size, draft.image.step), []).append(place)
    spectra = np.zeros((len(drafts), N_WAVES, N_WAVES), np.float32)
    colours = np.zeros((len(drafts), N_COLOURS, N_COLOURS, 3), np.uint8)
    for (shape, size, step), places in alike.items():
        count = max(1, _STACKED_BYTES // math.prod(shape))
        for some in (places[start : start + count] for start in range(0, len(places), count)):
            pictures = [image.rgb for place in some if (image := drafts[place].image) is not None]
            spectra[some], colours[some] = spectrum_of(np.stack(pictures), size=size, step=step)
    return [_completed(*each) for each in zip(drafts, spectra, colours, strict=True)]


def _completed(draft: Draft, spectrum: npt.NDArray[np.float32], colours: npt.NDArray[np.uint8]) -> Fingerprint:
    image = draft.image
    if image is None:
        return Fingerprint(draft.sha256, 0, 0, "", encoded(spectrum), colours, False, draft.note)
    height, width = image.size
    turning = of_exif(image.orientation)
    if turning & orientations.TRANSPOSED:
        height, width = width, height
    return Fingerprint(
        draft.sha256,
        width,
        height,
        image.format,
        np.ascontiguousarray(turn_spectra(encoded(spectrum), turning)),
        turn(colours, turning).copy(),
        image.is_constant,
        small=draft.small,
    )


def spectrum_of(
    rgb: npt.NDArray[np.uint8], *, size: tuple[int, int] | None = None, step: int = 1
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return the lowest coefficients of the cosine transform of a picture's brightness, and its colours.

    Each pixel counts as the constant that it is over its area, so that the size of the picture hardly matters.

    Parameters
    ----------
    rgb
        Shape ``(..., height / step, width / step, 3)``, rounded up: one picture, or several of one size.
    size
        Height and width of the picture itself; None is that of ``rgb``.
    step
        Pixels of the picture beside one another in one of ``rgb``; fewer in the last row and column.

    Returns
    -------
    spectrum
        Shape ``(..., 16, 16)``, float32, in grey levels: by half waves down a column and along a row.
    colours
        Shape ``(..., 8, 8, 3)``, uint8: the mean of each of 8 × 8 equal parts.
    """
    height, width = rgb.shape[-3:-1] if size is None else size
    down, along = _means(height, step), _means(width, step)
    rows = rgb.reshape(*rgb.shape[:-2], -1).astype(np.float32)
    lines = (down @ rows).reshape(*rgb.shape[:-3], len(down), -1, 3)
    spectrum = (lines[..., :N_WAVES, :, :] @ _LUMA) @ along[:N_WAVES].T
    colours = np.rint(along[N_WAVES:] @ lines[..., N_WAVES:, :, :])
    return spectrum.astype(np.float32, copy=False), colours.clip(0, 255).astype(np.uint8)


@lru_cache(1024)
def _means(length: int, step: int) -> npt.NDArray[np.float32]:
    """Return what makes the 16 cosines and the 8 equal parts of a length from its pixels: ``(24, pixels)``.

    For a cosine, its mean over each pixel times the pixel's share of the whole; for a part, how much of it each fills.
    """
    edges = np.minimum(np.arange(-(-length // step) + 1) * step / length, 1.0)
    angles = np.pi * np.arange(1, N_WAVES)[:, None]
    waves = np.sqrt(2) * np.sin(angles * edges) / angles
    parts = np.clip(edges * N_COLOURS - np.arange(N_COLOURS)[:, None], 0, 1)
    means: npt.NDArray[np.float64] = np.diff(np.concatenate((edges[None], waves, parts)), axis=1)
    return means.astype(np.float32)


def encoded(spectrum: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int8]:
    """Return coefficients in eight bits: the sign, and the size on a logarithmic scale in steps of 6.5%."""
    steps = np.rint(_PER_OCTAVE * np.log2(1 + np.abs(spectrum) / _FINEST))
    signed: npt.NDArray[np.floating[Any]] = np.sign(spectrum) * np.minimum(steps, 127)
    return signed.astype(np.int8)


def decoded(spectra: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Return coefficients in grey levels from what :func:`encoded` made of them."""
    return _DECODED[spectra.astype(np.int16) + 128]


_LEVELS = np.arange(-128, 128)
_DECODED = (np.sign(_LEVELS) * _FINEST * (2 ** (np.abs(_LEVELS) / _PER_OCTAVE) - 1)).astype(np.float32)


def hashes_of(spectra: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
    """Return a hash for each spectrum ``(n, 16, 16)``: which of its coefficients are above :data:`THRESHOLD`."""
    columns = [u * N_WAVES + v for u, v in HASHED]
    return packed(decoded(spectra.reshape(-1, N_WAVES * N_WAVES).take(columns, axis=1)) > THRESHOLD)[:, 0]


def packed(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Return rows of bits as rows of numbers of 64 bits each, whose lowest bit is the first."""
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64)

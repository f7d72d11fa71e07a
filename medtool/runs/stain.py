"""Colours of H&E slides: normalisation to one appearance, and variation of the amounts of the stains.

Normalisation is a preparation, not an augmentation: a network that was trained on normalised images must be given
normalised images ever after, so it is done where images are decoded, for training, validation and prediction alike.

Both normalisations look at tissue pixels only, and return an image with too little tissue as it is: the colours of a
blank tile are those of glass, dust and noise, and would be blown up to look like stains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from medtool.errors import InputError
from medtool.runs.choices import StainNormalisation

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from medtool.protocols import RGB8, BoolMask

    Values = npt.NDArray[np.float64]
    Floats = npt.NDArray[np.float32]

_WHITE = 240.0  # grey value of the light without a slide, Macenko's Io
_LEAST_DENSITY = 0.15  # Macenko's beta, but of the channels' mean: bright eosin takes no red light at all
_PERCENTILE = 1.0  # of the angles between the stains, and from the top of their amounts, Macenko's alpha
_LEAST_SHARE = 0.02  # of the pixels that must be tissue
_LEAST_PIXELS = 50
_LEAST_ANGLE = np.radians(3.0)  # between the two stains: closer ones are one stain, or none, and its noise
_LEAST_AMOUNT = 1e-3
_MOST_STRETCH = 4.0  # of a colour axis by Reinhard's method: more only blows up noise


@dataclass(frozen=True, slots=True)
class Stains:
    """The two stains of an image.

    Attributes
    ----------
    haematoxylin, eosin
        Optical density in red, green and blue of one unit of the stain; each ≥ 0, of length 1.
    strongest
        99th percentile of the amounts of haematoxylin and of eosin over the tissue.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    strongest: tuple[float, float]

    @property
    def vectors(self) -> Values:
        """Shape ``(2, 3)``: haematoxylin and eosin."""
        return np.array([self.haematoxylin, self.eosin], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Colours:
    """The colours of tissue, in Ruderman's l-alpha-beta space (natural logarithms, RGB from 0 to 255).

    Attributes
    ----------
    mean, deviation
        Of l, alpha and beta over the tissue's pixels.
    """

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


REFERENCE_STAINS = Stains(
    haematoxylin=(0.5626, 0.7201, 0.4062), eosin=(0.2159, 0.8012, 0.5581), strongest=(1.9705, 1.0308)
)
"""The reference that Macenko et al. published with their program."""

REFERENCE_COLOURS = Colours(mean=(8.74108109, -0.12440419, 0.0444982), deviation=(0.6135447, 0.10989545, 0.0286032))
"""Of the slide TCGA-A2-A3XS-DX1, as in Amgad et al., Bioinformatics 35, 2019, and HistomicsTK."""

# Ruifrok and Johnston, "Quantification of histochemical staining by color deconvolution", 2001: optical densities of
# haematoxylin, eosin and DAB in red, green and blue. Not scaled to length 1, like scikit-image's.
_HED = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], dtype=torch.float64)
_HED_INVERSE = torch.linalg.inv(_HED)

_RGB_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_LMS_TO_LAB = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3.0], [6.0], [2.0]])


def normalised(rgb: RGB8, how: StainNormalisation) -> RGB8:
    """Return an H&E image in the reference's colours; as it is where there is too little tissue, or for ``none``.

    Parameters
    ----------
    rgb
        Shape ``(height, width, 3)``, uint8.
    how
        The option, or its text.

    Raises
    ------
    InputError
        If the array is not ``(height, width, 3)`` uint8.
    ValueError
        If there is no such normalisation.
    """
    match StainNormalisation(how):  # so that a plain text from a configuration does not quietly do nothing
        case StainNormalisation.MACENKO:
            return macenko(rgb)
        case StainNormalisation.REINHARD:
            return reinhard(rgb)
        case StainNormalisation.NONE:
            return rgb


def macenko(rgb: RGB8, *, reference: Stains = REFERENCE_STAINS) -> RGB8:
    """Return an H&E image with its two stains exchanged for those of the reference.

    What the two stains do not explain of a pixel, such as blue ink, is lost.

    Parameters
    ----------
    rgb
        Shape ``(height, width, 3)``, uint8.

    Returns
    -------
    rgb
        Of the same shape; the same pixels where :func:`find_stains` finds no two stains.

    References
    ----------
    Macenko et al., "A Method for Normalizing Histology Slides for Quantitative Analysis", ISBI 2009.
    """
    stains = find_stains(rgb)
    if stains is None:
        return rgb
    amounts = _optical_density(rgb).reshape(-1, 3) @ np.linalg.pinv(stains.vectors).astype(np.float32)
    stretch = np.array(reference.strongest) / np.array(stains.strongest)
    density = np.maximum(amounts, 0) @ (stretch[:, np.newaxis] * reference.vectors).astype(np.float32)
    return _to_uint8(_WHITE * np.exp(-density)).reshape(rgb.shape)


def find_stains(rgb: RGB8) -> Stains | None:
    """Return the two stains of an H&E image, or None where there are none to be told apart.

    There are none where tissue, pixels with a mean optical density above 0.15, is less than 2% of the image or 50
    pixels, and where the two differ by less than 3 degrees, as in grey images.

    Parameters
    ----------
    rgb
        Shape ``(height, width, 3)``, uint8.
    """
    _check(rgb)
    density = _optical_density(rgb).reshape(-1, 3)
    is_tissue = _tissue(density)
    if is_tissue is None:
        return None
    tissue = density[is_tissue].astype(np.float64)
    _, axes = np.linalg.eigh(np.cov(tissue, rowvar=False))
    plane = axes[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)  # so that densities lie around the first axis
    along = tissue @ plane
    angles = np.arctan2(along[:, 1], along[:, 0])
    low, high = np.percentile(angles, (_PERCENTILE, 100 - _PERCENTILE))
    if high - low < _LEAST_ANGLE:
        return None
    vectors = np.array([[np.cos(angle), np.sin(angle)] for angle in (low, high)]) @ plane.T
    vectors = np.maximum(vectors, 0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if lengths.min() <= 0:
        return None
    vectors = vectors / lengths
    # haematoxylin is blue: it takes more of the red light, and eosin hardly any
    vectors = vectors[np.argsort(-vectors[:, 0], kind="stable")]
    if vectors[0] @ vectors[1] > np.cos(_LEAST_ANGLE):
        return None
    strongest = np.percentile(tissue @ np.linalg.pinv(vectors), 100 - _PERCENTILE, axis=0)
    if strongest.min() < _LEAST_AMOUNT:
        return None
    haematoxylin, eosin = (tuple(map(float, vector)) for vector in vectors)
    return Stains(
        haematoxylin=(haematoxylin[0], haematoxylin[1], haematoxylin[2]),
        eosin=(eosin[0], eosin[1], eosin[2]),
        strongest=(float(strongest[0]), float(strongest[1])),
    )


def reinhard(rgb: RGB8, *, reference: Colours = REFERENCE_COLOURS) -> RGB8:
    """Return an H&E image whose tissue has the reference's mean and standard deviation of l, alpha and beta.

    Glass is mapped by the same rule as tissue, since a border between two rules would show. An axis is stretched or
    squeezed four times at most.

    Parameters
    ----------
    rgb
        Shape ``(height, width, 3)``, uint8.

    Returns
    -------
    rgb
        Of the same shape; the same pixels where :func:`find_colours` finds too little tissue.

    References
    ----------
    Reinhard et al., "Color Transfer between Images", IEEE Computer Graphics and Applications 21, 2001; the space is
    that of Ruderman et al., "Statistics of cone responses to natural images", 1998.
    """
    colours = find_colours(rgb)
    if colours is None:
        return rgb
    deviation = np.maximum(colours.deviation, 1e-6)
    stretch = np.clip(np.array(reference.deviation) / deviation, 1 / _MOST_STRETCH, _MOST_STRETCH)
    lab = (_to_lab(rgb.reshape(-1, 3)) - np.array(colours.mean)) * stretch + np.array(reference.mean)
    # the inverse of an orthogonal matrix is its transpose, and the pixels are rows
    lms = np.exp((lab @ _LMS_TO_LAB).astype(np.float32))
    return _to_uint8(lms @ np.linalg.inv(_RGB_TO_LMS).T.astype(np.float32)).reshape(rgb.shape)


def find_colours(rgb: RGB8) -> Colours | None:
    """Return the colours of the tissue of an H&E image, or None where tissue is less than 2% of it or 50 pixels.

    Parameters
    ----------
    rgb
        Shape ``(height, width, 3)``, uint8.
    """
    _check(rgb)
    is_tissue = _tissue(_optical_density(rgb).reshape(-1, 3))
    if is_tissue is None:
        return None
    lab = _to_lab(rgb.reshape(-1, 3)[is_tissue]).astype(np.float64)
    mean, deviation = lab.mean(axis=0), lab.std(axis=0)
    return Colours(
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        deviation=(float(deviation[0]), float(deviation[1]), float(deviation[2])),
    )


def hed_jittered(pixels: Tensor, *, factors: tuple[float, float, float], added: tuple[float, float, float]) -> Tensor:
    """Return an image with other amounts of haematoxylin, eosin and residual (DAB).

    Parameters
    ----------
    pixels
        Shape ``(3, height, width)``, float32, 0 to 255.
    factors
        What the amount of each stain is multiplied by.
    added
        What is added to each, in units of optical density (natural logarithm), everywhere.

    Returns
    -------
    pixels
        Of the same shape, float32, above 0, not clipped at 255. Amounts are not clipped at 0 either, so that factors
        of 1 and nothing added give the image back; black counts as one grey level.

    References
    ----------
    Tellez et al., "Whole-Slide Mitosis Detection in H&E Breast Histology Using PHH3 as a Reference to Train Distilled
    Stain-Invariant Convolutional Networks", IEEE Transactions on Medical Imaging 37, 2018.
    Ruifrok and Johnston, "Quantification of histochemical staining by color deconvolution", 2001.
    """
    # unmixing, changing and mixing again are one matrix on the logarithms: rows are outputs, columns are inputs
    mixing = (_HED_INVERSE @ (torch.tensor(factors, dtype=torch.float64)[:, None] * _HED)).T.float()
    more = (torch.tensor(added, dtype=torch.float64) @ _HED).float()
    log_light = pixels.clamp(min=1.0).div_(255.0).log_().flatten(1)
    changed = torch.addmm(-more[:, None], mixing, log_light)
    return changed.exp_().mul_(255.0).view_as(pixels)


def _check(rgb: RGB8) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise InputError(f"the image is {rgb.dtype} of shape {rgb.shape}; wanted uint8 of shape (height, width, 3)")


_DENSITIES = -np.log((np.arange(256) + 1) / _WHITE).astype(np.float32)


def _optical_density(rgb: RGB8) -> Floats:
    """Return how much light each channel lost, natural logarithm; a little below 0 for what is brighter than 240."""
    return np.asarray(np.take(_DENSITIES, rgb))


def _tissue(density: Floats) -> BoolMask | None:
    """Return which pixels are tissue, shape ``(n,)`` for densities ``(n, 3)``, or None where they are too few."""
    tissue = density.mean(axis=1) > _LEAST_DENSITY
    n = np.count_nonzero(tissue)
    return tissue if n >= max(_LEAST_PIXELS, _LEAST_SHARE * len(tissue)) else None


def _to_lab(pixels: RGB8) -> Floats:
    """Return pixels ``(n, 3)`` in Ruderman's space; black counts as one grey level, since it has no logarithm."""
    lms = np.maximum(pixels, 1).astype(np.float32) @ _RGB_TO_LMS.T.astype(np.float32)
    return np.asarray(np.log(lms) @ _LMS_TO_LAB.T.astype(np.float32))


def _to_uint8(pixels: Floats) -> RGB8:
    return np.rint(pixels).clip(0, 255).astype(np.uint8)

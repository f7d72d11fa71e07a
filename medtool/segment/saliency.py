"""A heatmap without any training: what differs in colour from the image's own background.

The method joins published ideas: the image's edge is mostly background (Wei 2012, Zhu 2014), an object is what differs
from it in CIELAB (Achanta 2009), and pictures are centred on what they are taken of. The background is fitted robustly
as a smooth surface in each channel, so that uneven light does not count as an object, and the distance saturates, so
that the pale parts of an object count nearly as much as its darkest part. docs/explanation/saliency.md has the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.color import rgb2lab

from medtool.errors import InputError
from medtool.segment.artefacts import field_of_view, find_stickers, ink_weight, is_coloured, without_hairs
from medtool.segment.resample import denoised, reduced_size, resize_plane, resize_rgb

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.protocols import RGB8, BoolMask, Heatmap

    Lab = npt.NDArray[np.float32]
    Values = npt.NDArray[np.float64]

METHOD = "saturating CIELAB distance from a smooth surface fitted robustly to the edge's colours, with a centre prior"
VERSION = "1"
CITATION = (
    "Wei et al., Geodesic Saliency Using Background Priors, ECCV 2012; "
    "Zhu et al., Saliency Optimization from Robust Background Detection, CVPR 2014; "
    "Achanta et al., Frequency-tuned Salient Region Detection, CVPR 2009"
)

# Chosen on images of ISIC 2017 and HAM10000 that benchmarks/embedded_iou.py does not score; see there.
_LONG_SIDE = 192  # px at which everything is computed
_EDGE_DEPTH = 0.25  # of the largest depth: how fast the belief that a pixel is background fades inwards
_FIT_ROUNDS = 8
_STRIDE = 3  # the fit looks at every third pixel of every third row
_FIT_TOLERANCE = 1.2  # in deviations: farther pixels hardly count as background (Welsch's weights)
_LEAST_FALL_OFF = 5.0  # in L, from the middle of the image to the middle of a side: less is no vignette
_LEAST_DEVIATION = np.array([4.0, 2.5, 2.5])  # of L, a and b: smaller differences are noise
_BRIGHTER_WEIGHT = 0.4  # of the lightness difference where a coloured image is brighter than its background: glare
_SATURATION = 2.5  # in deviations: where the distance begins to count as fully different
_PRIOR_WIDTH = 0.9  # standard deviation of the centre prior, in half image sides
_SMOOTHING_PX = 1.5
_NOTHING = 1e-6  # a map that stays below this everywhere is empty


def saliency_map(rgb: RGB8) -> Heatmap:
    """Return how much each pixel stands out from the image's background.

    Parameters
    ----------
    rgb
        Shape ``(height, width, 3)``, uint8. An image whose pixels have no colour is treated as grey: brighter and
        darker count alike, and nothing is taken for a frame, a sticker or a hair.

    Returns
    -------
    heatmap
        Shape ``(height, width)``, float32, 0 to 1 with maximum 1; all 0 when nothing stands out, as in a constant
        image.

    Raises
    ------
    InputError
        If the array is not ``(height, width, 3)`` uint8.

    Notes
    -----
    Computed at 192 px on the long side and interpolated, so the cost hardly grows with the image. No random numbers, no
    threads: equal on every run.

    References
    ----------
    Wei et al., "Geodesic Saliency Using Background Priors", ECCV 2012.
    Zhu et al., "Saliency Optimization from Robust Background Detection", CVPR 2014.
    Achanta et al., "Frequency-tuned Salient Region Detection", CVPR 2009.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise InputError(f"the image is {rgb.dtype} of shape {rgb.shape}; wanted uint8 of shape (height, width, 3)")
    size = (rgb.shape[0], rgb.shape[1])
    small = resize_rgb(rgb, reduced_size(size, _LONG_SIDE))
    lab = rgb2lab(small).astype(np.float32)
    has_colour = is_coloured(lab)
    inside = field_of_view(lab) if has_colour else np.ones(lab.shape[:2], dtype=bool)
    lab = denoised(without_hairs(lab) if has_colour else lab)
    background, deviation = _fit_background(lab, inside)
    difference = lab - background
    z = difference / deviation
    if has_colour:
        z[..., 0] *= np.where(z[..., 0] > 0, _BRIGHTER_WEIGHT, 1.0)
    distance = np.sqrt(np.sum(z * z, axis=-1))
    if has_colour:
        distance *= ink_weight(difference)
        inside = inside & ~find_stickers(difference, inside)
    salient = (1.0 - np.exp(-((distance / _SATURATION) ** 2) / 2)) * inside * _centre_prior(inside)
    salient = ndimage.gaussian_filter(salient, _SMOOTHING_PX)
    if float(salient.max()) < _NOTHING:
        return np.zeros(size, dtype=np.float32)
    full = np.maximum(resize_plane(salient, size), 0.0)
    return np.asarray(full / full.max(), dtype=np.float32)


def _axes(height: int, width: int) -> tuple[Values, Values]:
    """Return (y, x) of every pixel, each from -1 to 1 over the image."""
    down = (np.arange(height) + 0.5) / height * 2 - 1
    along = (np.arange(width) + 0.5) / width * 2 - 1
    return np.broadcast_to(down[:, np.newaxis], (height, width)), np.broadcast_to(along, (height, width))


def _centre_prior(inside: BoolMask) -> Values:
    """Return a Gaussian around the middle of the field of view."""
    y, x = _axes(*inside.shape)
    middle_y, middle_x = (float(y[inside].mean()), float(x[inside].mean())) if inside.any() else (0.0, 0.0)
    return np.asarray(np.exp(-((y - middle_y) ** 2 + (x - middle_x) ** 2) / (2 * _PRIOR_WIDTH**2)))


def _fit_background(lab: Lab, inside: BoolMask) -> tuple[Lab, Values]:
    """Fit a smooth surface to each channel by iteratively reweighted least squares, trusting pixels near the edge most.

    The surface is a plane, and a round fall-off where the light does fall off outwards: the other way round it would
    be an object's own darkness.

    Returns
    -------
    background
        Shape ``(height, width, 3)``, CIELAB.
    deviation
        Shape ``(3,)``: the background's own spread in L, a and b, at least the least deviation.
    """
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    trust = np.exp(-depth / max(1.0, float(depth.max())) / _EDGE_DEPTH) * inside + 1e-9
    y, x = _axes(*inside.shape)
    terms = np.stack([np.ones_like(x), x, y, x**2 + y**2], axis=-1)
    some_terms = terms[::_STRIDE, ::_STRIDE].reshape(-1, 4)
    values = lab[::_STRIDE, ::_STRIDE].reshape(-1, 3).astype(np.float64)
    some_trust = trust[::_STRIDE, ::_STRIDE].ravel()
    surface = np.zeros((4, 3))
    surface[0] = [_weighted_median(values[:, channel], some_trust) for channel in range(3)]
    for _ in range(_FIT_ROUNDS):
        off = values - _evaluate(some_terms, surface)
        deviation = _deviation(off, some_trust)
        weight = some_trust * np.exp(-np.sum((off / deviation) ** 2, axis=1) / (2 * _FIT_TOLERANCE**2)) + 1e-9
        surface = _solve(some_terms, values, weight)
        if surface[3, 0] > -_LEAST_FALL_OFF:
            surface = np.vstack([_solve(some_terms[:, :3], values, weight), np.zeros((1, 3))])
    deviation = _deviation(values - _evaluate(some_terms, surface), some_trust)
    return _evaluate(terms, surface).astype(np.float32), deviation


def _solve(terms: Values, values: Values, weight: Values) -> Values:
    """Return the weighted least-squares coefficients, shape ``(terms, channels)``, barely held back from extremes.

    Sums are taken without BLAS, whose order of adding depends on the number of threads.
    """
    weighted = terms * weight[:, np.newaxis]
    normal = np.sum(weighted[:, :, np.newaxis] * terms[:, np.newaxis], axis=0)
    normal[1:, 1:] += 1e-6 * weight.sum() * np.eye(terms.shape[1] - 1)
    return np.asarray(np.linalg.solve(normal, np.sum(weighted[:, :, np.newaxis] * values[:, np.newaxis], axis=0)))


def _evaluate(terms: Values, surface: Values) -> Values:
    total = terms[..., 0, np.newaxis] * surface[0]
    for term in range(1, 4):
        total = total + terms[..., term, np.newaxis] * surface[term]
    return np.asarray(total)


def _deviation(off: Values, trust: Values) -> Values:
    """Return the weighted median absolute deviation a channel, scaled to agree with a normal standard deviation."""
    spread = [1.4826 * _weighted_median(np.abs(off[:, channel]), trust) for channel in range(3)]
    return np.asarray(np.maximum(_LEAST_DEVIATION, spread))


def _weighted_median(values: Values, weights: Values) -> float:
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(cumulative, cumulative[-1] / 2)]])

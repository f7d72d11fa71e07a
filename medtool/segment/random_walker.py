"""scikit-image's random walker between seeds that points and heatmap give: the embedded segmenter, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from skimage.color import rgb2lab
from skimage.segmentation import random_walker

from medtool.errors import InputError
from medtool.protocols import Candidates, Prompt
from medtool.segment.clean import clean_mask
from medtool.segment.heatmap import otsu_threshold
from medtool.segment.options import CleanOptions
from medtool.segment.resample import denoised, reduced_size, resize_plane, resize_rgb, to_reduced

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.protocols import RGB8, BoolMask, Heatmap, Points

    Lab = npt.NDArray[np.float32]
    Plane = npt.NDArray[np.float64]
    Seeds = npt.NDArray[np.int64]

# Chosen on images of ISIC 2017 and HAM10000 that benchmarks/embedded_iou.py does not score; see there.
_LONG_SIDE = 160  # px at which the walker walks
_BETA = 1000.0  # how much harder it is to cross an edge
_CUTS = (0.7, 1.0, 1.4)  # one candidate each: where the border is looked for, in units of the usual cut
_LEAST_CUT = 0.35  # of the heat at the points: the usual cut lies no lower
_OBJECT, _BACKGROUND = 0.55, 0.35  # belief above and below which a pixel is a seed at the usual cut
_COLOUR_SHARE = 0.6  # of the belief; the heatmap has the rest
_ROUNDS = 3  # of telling the two sides' colours apart and parting the sides by it
_EVIDENCE_WEIGHT = 0.5  # of heatmap and colour likeness beside the three colour channels, each about 0 to 1
_LEAST_SAMPLE = 10  # pixels on either side that it takes to compare colours
_LEAST_VARIANCE = 2.0  # in CIELAB units squared: noise below this is not trusted
_LIKENESS_RANGE = (-0.5, 1.5)  # beyond this it is cut off
_RING = 0.25  # width of the ring that a candidate is compared with, in radii of a disc of its area; 2 px at least
_WHOLE = CleanOptions()


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What the walker keeps of an image.

    Attributes
    ----------
    size
        (height, width) of the image.
    colours
        Shape ``(reduced_height, reduced_width, 3)``, float32, CIELAB without speckle.
    """

    size: tuple[int, int]
    colours: Lab


class RandomWalker:
    """Seeds from points, heatmap and colour; a random walker decides on the pixels between them.

    Three candidates look for the border at a lower, the usual and a higher belief. A candidate's score, 0 to 1, is
    predicted from image and prompt alone: how much more the part that the points touch looks like the object than the
    ring around it does, times the square of that part's solidity (its area as a share of its convex hull's).

    Everything is computed at 160 px on the long side; the probabilities, not the masks, are interpolated to the image's
    size. Negative points are background seeds. The prompt's box is not used. Nothing is random.
    """

    version: ClassVar[str] = "1"
    licence: ClassVar[str] = "BSD-3-Clause"
    citation: ClassVar[str] = (
        "Grady, Random Walks for Image Segmentation, IEEE Trans. Pattern Analysis and Machine Intelligence, 2006; "
        "van der Walt et al., scikit-image: image processing in Python, PeerJ, 2014"
    )
    weights: ClassVar[str | None] = None
    needs_torch: ClassVar[bool] = False

    def __init__(self, *, weights: Path | None = None, device: str = "cpu", precision: str = "fp32") -> None:
        """Take and ignore what every segmenter is given: there is nothing to load."""

    def embed(self, image: RGB8) -> Embedding:
        """Return the image's colours, reduced."""
        size = (image.shape[0], image.shape[1])
        small = resize_rgb(image, reduced_size(size, _LONG_SIDE))
        return Embedding(size, denoised(rgb2lab(small).astype(np.float32)))

    def segment(self, embedding: Embedding, prompt: Prompt) -> Candidates:
        """Return three masks of the image's size.

        Raises
        ------
        InputError
            If the heatmap is constant, not finite, or not of the image's size.
        """
        if prompt.heatmap.shape != embedding.size:
            raise InputError(f"the heatmap has shape {prompt.heatmap.shape}, the image {embedding.size}")
        colours = embedding.colours
        size = (colours.shape[0], colours.shape[1])
        points = to_reduced(prompt.points, embedding.size, size)
        positive = points[prompt.point_labels == 1]
        negative = points[prompt.point_labels == 0]
        heat = _scaled(resize_plane(prompt.heatmap, size), positive)
        belief = heat
        for _ in range(_ROUNDS):
            core = clean_mask(belief > 0.5, positive, _WHOLE)
            likeness = _colour_likeness(colours, core, belief < 0.5, otherwise=heat)
            belief = _COLOUR_SHARE * likeness + (1 - _COLOUR_SHARE) * heat
        evidence = _EVIDENCE_WEIGHT * np.stack([heat, likeness], axis=-1)
        channels = np.concatenate([colours / 100.0, evidence], axis=-1)
        masks, scores = [], []
        for cut in _CUTS:
            probability = _walk(channels, _seeds(belief, cut, positive, negative))
            masks.append(resize_plane(probability, embedding.size) > 0.5)
            scores.append(_score(probability > 0.5, likeness, positive))
        return Candidates(masks=np.stack(masks), scores=np.array(scores))


def _scaled(heat: Heatmap, positive: Points) -> Plane:
    """Return the heatmap on a scale of its own: 0.5 parts object from background.

    That is Otsu's threshold, unless it lies far below the heat at the points: then the object is too small for its
    pixels to sway the threshold.
    """
    threshold, _ = otsu_threshold(heat)
    if len(positive):
        threshold = max(threshold, _LEAST_CUT * float(np.median(heat[_pixels(positive, heat.shape)])))
    return np.asarray(heat.astype(np.float64) / (2 * threshold))


def _pixels(points: Points, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return rows and columns of the pixels that points (x, y) lie in, those outside moved to the nearest edge."""
    rows, columns = (np.floor(points[:, axis] + 0.5).astype(np.intp) for axis in (1, 0))
    return rows.clip(0, shape[0] - 1), columns.clip(0, shape[1] - 1)


def _colour_likeness(colours: Lab, core: BoolMask, is_cold: BoolMask, *, otherwise: Plane) -> Plane:
    """Return how much each pixel's colour is the object's (1) rather than the background's (0).

    It is the projection onto Fisher's linear discriminant between the core and what lies around it. Where either has
    too few pixels or the two do not differ, it is the heat instead. Sums are taken without BLAS, whose order of adding
    depends on the number of threads.
    """
    otherwise = np.clip(otherwise, *_LIKENESS_RANGE)
    ground = is_cold & ~ndimage.binary_dilation(core, iterations=2)
    inner, outer = (colours[where].astype(np.float64) for where in (core, ground))
    if min(len(inner), len(outer)) < _LEAST_SAMPLE:
        return otherwise
    within = (_covariance(inner) + _covariance(outer)) / 2 + _LEAST_VARIANCE * np.eye(3)
    direction = np.linalg.solve(within, inner.mean(axis=0) - outer.mean(axis=0))
    projected = np.sum(colours * direction, axis=-1)
    low, high = float(np.median(projected[ground])), float(np.median(projected[core]))
    if not high - low > 1e-6:
        return otherwise
    return np.asarray(np.clip((projected - low) / (high - low), *_LIKENESS_RANGE))


def _covariance(values: Plane) -> Plane:
    off = values - values.mean(axis=0)
    return np.asarray(np.sum(off[:, :, np.newaxis] * off[:, np.newaxis, :], axis=0) / (len(values) - 1))


def _seeds(belief: Plane, cut: float, positive: Points, negative: Points) -> Seeds:
    """Return 1 for object, 2 for background, 0 for what the walker is to decide.

    What is nearer to a negative than to a positive point is not taken for the object by belief alone.
    """
    seeds = np.zeros(belief.shape, dtype=np.int64)
    seeds[belief <= _BACKGROUND * cut] = 2
    seeds[clean_mask(belief >= _OBJECT * cut, positive, _WHOLE)] = 1
    on, off = np.zeros(belief.shape, dtype=bool), np.zeros(belief.shape, dtype=bool)
    on[_pixels(positive, belief.shape)] = True
    off[_pixels(negative, belief.shape)] = True
    if on.any() and off.any():
        is_nearer_off = ndimage.distance_transform_edt(~off) < ndimage.distance_transform_edt(~on)
        seeds[(seeds == 1) & is_nearer_off] = 0
    seeds[ndimage.binary_dilation(off, structure=np.ones((3, 3)))] = 2
    seeds[on & ~off] = 1
    return seeds


def _walk(channels: Plane, seeds: Seeds) -> Heatmap:
    """Return the probability that a walker from each pixel meets an object seed first."""
    is_open = seeds == 0
    if not is_open.any() or not (seeds == 1).any() or not (seeds == 2).any() or np.ptp(channels) == 0:
        return np.asarray(seeds == 1, dtype=np.float32)
    both = random_walker(channels, seeds, beta=_BETA, mode="bf", return_full_prob=True, channel_axis=-1)
    return np.asarray(both[0], dtype=np.float32)


def _score(mask: BoolMask, likeness: Plane, positive: Points) -> float:
    part = clean_mask(mask, positive, _WHOLE)
    if part.all() or not part.any():
        return 0.0
    radius = np.sqrt(np.count_nonzero(part) / np.pi)
    ring = ~part & (ndimage.distance_transform_edt(~part) <= max(2.0, round(_RING * radius)))
    contrast = float(likeness[part].mean() - likeness[ring].mean()) / (_LIKENESS_RANGE[1] - _LIKENESS_RANGE[0])
    return max(0.0, contrast) * _solidity(part) ** 2


def _solidity(part: BoolMask) -> float:
    """Return the area as a share of the convex hull's, both over whole pixels."""
    rows = np.flatnonzero(part.any(axis=1))
    left = part[rows].argmax(axis=1)
    right = part.shape[1] - part[rows, ::-1].argmax(axis=1)
    corners = [np.stack([rows + down, side], axis=1) for down in (0, 1) for side in (left, right)]
    return float(np.count_nonzero(part) / ConvexHull(np.concatenate(corners)).volume)

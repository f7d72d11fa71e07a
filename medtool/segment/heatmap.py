"""The thresholded heatmap: the baseline that every other segmenter must beat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from medtool.errors import InputError
from medtool.protocols import Candidates, Prompt

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.protocols import RGB8, Heatmap

_BINS = 256


def otsu_threshold(heatmap: Heatmap) -> tuple[float, float]:
    """Return Otsu's threshold of a heatmap, and how well it parts the two sides.

    Parameters
    ----------
    heatmap
        Shape ``(height, width)``, finite, not constant.

    Returns
    -------
    threshold
        Values from it up are foreground: the edge between two of 256 equal bins from minimum to maximum, as the least
        number of the heatmap's own type that is not below it.
    separability
        Between-class variance as a share of the whole variance (Otsu's eta), 0 to 1, over the binned values.

    Raises
    ------
    InputError
        If the heatmap is constant or holds values that are not finite.

    References
    ----------
    Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Transactions on Systems, Man, and
    Cybernetics, 1979.
    """
    low, high = float(heatmap.min()), float(heatmap.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the heatmap holds values that are not finite")
    # Below the least normal number some processors, so set, take every difference for zero.
    if high - low < float(np.finfo(np.float32).tiny):
        raise InputError(f"the heatmap is constant ({low:g} everywhere), so no threshold parts it")
    counts = sum(np.bincount(_bins(part, low, high), minlength=_BINS) for part in _parts(heatmap))
    weights = counts / heatmap.size
    centres = (np.arange(_BINS) + 0.5) / _BINS
    below = np.cumsum(weights)[:-1]
    moment = np.cumsum(weights * centres)
    mean = moment[-1]
    spread = below * (1.0 - below)
    between = np.zeros_like(spread)
    np.divide((mean * below - moment[:-1]) ** 2, spread, out=between, where=spread > 0)
    best = int(np.argmax(between))
    whole = float(np.sum(weights * (centres - mean) ** 2))
    edge = low + (best + 1) * (high - low) / _BINS
    threshold = heatmap.dtype.type(edge)
    if threshold < edge:
        threshold = np.nextafter(threshold, heatmap.dtype.type(np.inf))
    return float(threshold), min(1.0, float(between[best]) / whole) if whole > 0 else 1.0


def _parts(heatmap: Heatmap) -> Iterator[Heatmap]:
    """Yield the heatmap in strips, so that binning a large one takes little memory."""
    rows = max(1, (1 << 20) // heatmap.shape[1])
    for first in range(0, heatmap.shape[0], rows):
        yield heatmap[first : first + rows]


def _bins(part: Heatmap, low: float, high: float) -> npt.NDArray[np.intp]:
    scaled = (part.astype(np.float64).ravel() - low) / (high - low) * _BINS
    return np.minimum(scaled.astype(np.intp), _BINS - 1)


class HeatmapThreshold:
    """Everything from Otsu's threshold of the prompt's heatmap up; the image and the points are not looked at.

    The score is Otsu's separability, 0 to 1.
    """

    version: ClassVar[str] = "1"
    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = (
        "Otsu, A Threshold Selection Method from Gray-Level Histograms, IEEE Trans. Systems, Man, and Cybernetics, 1979"
    )
    weights: ClassVar[str | None] = None
    needs_torch: ClassVar[bool] = False

    def __init__(self, *, weights: Path | None = None, device: str = "cpu", precision: str = "fp32") -> None:
        """Take and ignore what every segmenter is given: there is nothing to load."""

    def embed(self, image: RGB8) -> tuple[int, int]:
        """Return the image's (height, width); nothing else of it is used."""
        return image.shape[0], image.shape[1]

    def segment(self, embedding: tuple[int, int], prompt: Prompt) -> Candidates:
        """Return one mask: the heatmap from Otsu's threshold up.

        Raises
        ------
        InputError
            If the heatmap is constant, not finite, or not of the image's size.
        """
        if prompt.heatmap.shape != embedding:
            raise InputError(f"the heatmap has shape {prompt.heatmap.shape}, the image {embedding}")
        threshold, separability = otsu_threshold(prompt.heatmap)
        return Candidates(masks=(prompt.heatmap >= threshold)[np.newaxis], scores=np.array([separability]))

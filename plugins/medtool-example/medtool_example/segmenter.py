"""A segmenter of few lines: whatever has the colour of the points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from skimage.filters import gaussian, threshold_otsu

from medtool.protocols import Candidates, Prompt


class ExampleSegmenter:
    """Two masks by Otsu's threshold: of the distance to the points' colour, and of the same weighted by the heatmap."""

    version = "1"
    licence = "Apache-2.0"
    citation = "Otsu, A Threshold Selection Method from Gray-Level Histograms, IEEE Trans. SMC, 1979"
    weights = None
    needs_torch = False

    def __init__(self, *, weights: Path | None, device: str, precision: str) -> None:
        """Load nothing: there are no weights."""

    def embed(self, image: np.ndarray) -> np.ndarray:
        """Return the smoothed image, ``(height, width, 3)``, 0 to 1."""
        return gaussian(image, sigma=1, channel_axis=-1)

    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        """Return both masks; the score is how much closer in colour the mask is than the image as a whole."""
        xs, ys = prompt.points[prompt.point_labels == 1].round().astype(int).T
        distance = np.linalg.norm(embedding - embedding[ys, xs].mean(axis=0), axis=-1)
        heat = prompt.heatmap / max(float(prompt.heatmap.max()), 1e-12)
        masks = np.stack([plane <= threshold_otsu(plane) for plane in (distance, distance - 0.3 * heat)])
        whole = max(float(distance.mean()), 1e-12)
        return Candidates(masks=masks, scores=np.array([1 - distance[mask].mean() / whole for mask in masks]))

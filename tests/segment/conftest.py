"""A folder of images with one dark lesion each, and what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def lesion_image(index: int, *, height: int = 72, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Return a small skin-coloured image (uint8 RGB) with one dark disc, and the disc's mask."""
    rng = np.random.default_rng([905, index])
    ys, xs = np.mgrid[:height, :width]
    x, y, radius = rng.uniform(36, 60), rng.uniform(28, 44), rng.uniform(10, 18)
    mask = np.hypot(xs - x, ys - y) < radius
    pixels = np.full((height, width, 3), (215, 175, 160), np.float64) + rng.normal(0, 4, (height, width, 3))
    pixels[mask] -= (70, 80, 75)
    return pixels.clip(0, 255).astype(np.uint8), mask


@pytest.fixture
def lesion_folder(tmp_path: Path) -> Path:
    """Six images in two sub-folders."""
    folder = tmp_path / "photos"
    for index in range(6):
        target = folder / f"site{index % 2}" / f"image{index}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(lesion_image(index)[0]).save(target)
    return folder

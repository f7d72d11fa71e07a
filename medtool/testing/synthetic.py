"""Tiny images, prompts and folders to test plugins on: generated, seeded, without a licence of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtool.protocols import Prompt

if TYPE_CHECKING:
    from medtool.protocols import RGB8, BoolMask

SEED = 905


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """An image with one object and a prompt that points at it.

    Attributes
    ----------
    image
        Shape ``(height, width, 3)``, uint8: a dark, textured ellipse on lighter skin-coloured ground.
    mask
        Shape ``(height, width)``, bool: the ellipse; at least one pixel.
    prompt
        Points inside the object, and a heatmap that is highest in its middle.
    """

    image: RGB8
    mask: BoolMask
    prompt: Prompt


def make_case(height: int = 48, width: int = 64, *, points: int = 3, negatives: int = 0, seed: int = SEED) -> Case:
    """Return an image with one object and a prompt for it; the same arguments give the same case.

    Parameters
    ----------
    height, width
        In pixels; 1 or more.
    points, negatives
        How many points lie on the object and off it. Where an image has no such pixel, there are no such points.
    seed
        Another seed gives another place, shape and texture.
    """
    random = np.random.default_rng((seed, height, width))
    middle = np.array([height, width]) * random.uniform(0.4, 0.6, size=2)
    radii = np.maximum(np.array([height, width]) * random.uniform(0.2, 0.3, size=2), 0.6)
    rows, columns = np.mgrid[:height, :width] + 0.5
    distance = np.hypot((rows - middle[0]) / radii[0], (columns - middle[1]) / radii[1])
    mask = distance <= max(1.0, float(distance.min()))
    ground, object_colour = np.array([214, 172, 150]), np.array([112, 66, 58])
    image = np.where(mask[..., None], object_colour, ground) + random.normal(0, 9, size=(height, width, 3))
    heatmap = np.exp(-(distance**2)).astype(np.float32)
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    chosen = [random.permutation(inside)[:points], random.permutation(outside)[:negatives]]
    prompt = Prompt(
        points=np.concatenate(chosen)[:, ::-1].astype(np.float64),
        point_labels=np.repeat([1, 0], [len(chosen[0]), len(chosen[1])]).astype(np.int64),
        heatmap=heatmap,
    )
    return Case(image=np.clip(image, 0, 255).astype(np.uint8), mask=mask, prompt=prompt)


def prompt_at(points: Sequence[tuple[float, float]], *, height: int, width: int) -> Prompt:
    """Return a prompt of positive points, with a heatmap that is highest at them.

    Parameters
    ----------
    points
        (x, y) in pixels, inside the image.
    height, width
        Of the image in pixels.
    """
    rows, columns = np.mgrid[:height, :width]
    reach = max(1.0, 0.15 * max(height, width))
    humps = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * reach**2)) for x, y in points]
    return Prompt(
        points=np.array(points, dtype=np.float64).reshape(-1, 2),
        point_labels=np.ones(len(points), dtype=np.int64),
        heatmap=np.max(humps, axis=0).astype(np.float32),
    )


def write_class_folders(root: Path, classes: Sequence[str] = ("benign", "malignant"), *, images: int = 3) -> Path:
    """Write PNG images into one sub-folder a class, and return ``root``.

    Parameters
    ----------
    root
        Made if it is not there.
    images
        In each class; 40×56 pixels.
    """
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(images):
            case = make_case(40, 56, seed=SEED + 1000 * number + index)
            _write_png(root / name / f"{name}_{index:03d}.png", case.image)
    return root


def write_image_mask_pairs(root: Path, *, images: int = 3) -> Path:
    """Write ``images/NAME.png`` and ``masks/NAME.png`` (0 and 255), and return ``root``.

    Parameters
    ----------
    root
        Made if it is not there.
    images
        Pairs; 40×56 pixels.
    """
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(images):
        case = make_case(40, 56, seed=SEED + index)
        _write_png(root / "images" / f"case_{index:03d}.png", case.image)
        _write_png(root / "masks" / f"case_{index:03d}.png", case.mask.astype(np.uint8) * 255)
    return root


def _write_png(path: Path, pixels: RGB8) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)

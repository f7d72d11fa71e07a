"""Real pictures and altered copies of them, that the tests of fingerprints and of candidates share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtool.split.duplicates.fingerprints import Fingerprints, fingerprints_of

PLAIN = ("quality 30", "quality 75", "half size", "larger", "another size")
TURNED = ("mirrored", "upside down", "right", "half turn", "left")
CROPPED = ("cropped", "cropped at corners", "cropped, quality 50", "cropped to the limit")
BOTH = ("cropped and mirrored", "cropped and right")


def altered(picture: Image.Image, chance: np.random.Generator) -> Iterator[tuple[str, Image.Image, int]]:
    """Yield the name of an alteration, the altered picture and its JPEG quality."""

    def scaled(factor: float) -> Image.Image:
        size = (round(picture.width * factor), round(picture.height * factor))
        return picture.resize(size, Image.Resampling.BICUBIC)

    def cropped(cut: Callable[[], tuple[float, float]]) -> Image.Image:
        (left, right), (top, bottom) = cut(), cut()
        width, height = picture.size
        box = (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
        return picture.crop(box)

    def anywhere() -> tuple[float, float]:
        total = 0.1 * np.sqrt(chance.random())
        before = chance.random() * total
        return before, total - before

    def corner() -> tuple[float, float]:
        return ((0.1, 0.0), (0.0, 0.1), (0.05, 0.05))[chance.integers(3)]

    def limit() -> tuple[float, float]:
        before = chance.random() * 0.1
        return before, 0.1 - before

    turn = Image.Transpose
    yield "quality 30", picture, 30
    yield "quality 75", picture, 75
    yield "half size", scaled(0.5), 85
    yield "larger", scaled(1.5), 85
    yield "another size", scaled(chance.uniform(0.5, 1.5)), 85
    yield "mirrored", picture.transpose(turn.FLIP_LEFT_RIGHT), 90
    yield "upside down", picture.transpose(turn.FLIP_TOP_BOTTOM), 90
    yield "right", picture.transpose(turn.ROTATE_270), 90
    yield "half turn", picture.transpose(turn.ROTATE_180), 90
    yield "left", picture.transpose(turn.ROTATE_90), 90
    yield "cropped", cropped(anywhere), 90
    yield "cropped at corners", cropped(corner), 90
    yield "cropped, quality 50", cropped(anywhere), 50
    yield "cropped to the limit", cropped(limit), 90
    yield "cropped and mirrored", cropped(anywhere).transpose(turn.FLIP_LEFT_RIGHT), 80
    yield "cropped and right", cropped(anywhere).transpose(turn.ROTATE_270), 80


@pytest.fixture(scope="session")
def real_pictures(shared_data: Path) -> list[Path]:
    """Return 18 pictures of skin, breast tissue and cells."""
    return [
        *sorted((shared_data / "isic2017" / "images").glob("*.jpg"))[:140:14],
        *sorted((shared_data / "breakhis").rglob("*.png"))[::8],
        *sorted((shared_data / "nuclei" / "images").glob("*.png"))[::30],
    ]


@pytest.fixture(scope="session")
def copies(real_pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, Path]]:
    """Return originals (named ``original``) and altered copies: number of the original, alteration, file."""
    folder = tmp_path_factory.mktemp("copies")
    found = []
    for number, path in enumerate(real_pictures):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        found.append((number, "original", path))
        for name, copy, quality in altered(picture, np.random.default_rng(number)):
            target = folder / f"{number} {name}.jpg"
            copy.save(target, quality=quality)
            found.append((number, name, target))
    return found


@pytest.fixture(scope="session")
def copies_fingerprints(copies: list[tuple[int, str, Path]]) -> Fingerprints:
    """Return the fingerprints of :func:`copies`."""
    return fingerprints_of([path for _, _, path in copies], cache=None, workers=1)

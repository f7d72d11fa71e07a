"""Make five folds of skewed patients: medtool split make beside scikit-learn's StratifiedGroupKFold, in one run.

    python benchmarks/split_make.py [--rows 1000000]

Patients have a few or very many images (log-normal), some images of another class than the rest of their patient, and
one class is rare. Deviation is chi-squared per fold: the sum over folds and strata of
(images there - images wanted)^2 / images wanted, divided by the number of folds. With two columns scikit-learn is given
their combinations as classes. Much of the deviation on the smaller sets is that of single patients with very many
images, which no method can avoid.

The claims: medtool's folds are more equal on every set, in their classes and sizes together; and a million images are
split into train, val and test by three columns in under 60 seconds and 2 GiB, reading and writing included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.model_selection import StratifiedGroupKFold

from medtool.manifest import Manifest
from medtool.split.make import make_split
from medtool.split.options import MakeOptions

N_FOLDS = 5
LIMIT_S = 60.0
LIMIT_MIB = 2048
SETS = ((60, 1.0), (200, 1.0), (200, 1.4), (1000, 1.4), (5000, 1.4))

Ints = npt.NDArray[np.int64]


def patients(n_patients: int, sigma: float, *, seed: int, mean: float = 1.0) -> Manifest:
    """Return images of so many patients, whose number of images is log-normal with this spread."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), 1 + rng.lognormal(mean, sigma, n_patients).astype(int))
    own = rng.choice(5, n_patients, p=(0.55, 0.2, 0.12, 0.08, 0.05))
    own[: 3 * N_FOLDS] = np.arange(3 * N_FOLDS) % 5  # every class has patients enough
    label = np.where(rng.random(len(patient)) < 0.15, rng.integers(0, 5, len(patient)), own[patient])
    site = rng.integers(0, 4, n_patients)[patient]
    sex = rng.integers(0, 3, n_patients)[patient]
    return Manifest(
        pl.DataFrame({"image": np.arange(len(patient)), "patient": patient, "label": label, "site": site, "sex": sex})
        .select(
            pl.format("images/{}.png", "image").alias("image"), pl.col("image").alias("image_id"), pl.exclude("image")
        )
        .cast(pl.String),
        Path(),
    )


def codes(manifest: Manifest, columns: tuple[str, ...]) -> Ints:
    """Return the number of each image's stratum."""
    text = manifest.table.select(pl.concat_str(columns, separator=" ")).to_series()
    return text.rank("dense").to_numpy().astype(np.int64) - 1


def inequality(strata: Ints, fold: Ints) -> float:
    """Return the deviation of these strata, as the module's text says."""
    counts = np.zeros((N_FOLDS, strata.max() + 1))
    np.add.at(counts, (fold, strata), 1)
    wanted = counts.sum(axis=0) / N_FOLDS
    return float(((counts - wanted) ** 2 / wanted).sum() / N_FOLDS)


def by_medtool(manifest: Manifest, columns: tuple[str, ...], seed: int) -> Ints:
    """Return the fold of each image."""
    made = make_split(manifest, MakeOptions(folds=N_FOLDS, val_fraction=0, stratify=columns, seed=seed)).manifest
    return made.table.get_column("fold").cast(pl.Int64).to_numpy()


def by_sklearn(manifest: Manifest, columns: tuple[str, ...], seed: int) -> Ints:
    """Return the fold of each image."""
    groups = manifest.table.get_column("patient").to_numpy()
    splitter = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
    fold = np.empty(len(manifest), dtype=np.int64)
    for number, (_, held_out) in enumerate(splitter.split(groups, codes(manifest, columns), groups)):
        fold[held_out] = number
    return fold


def compare(n_patients: int, sigma: float, columns: tuple[str, ...], n_seeds: int) -> bool:
    """Print the mean deviation and time of both on a few sets, and tell whether ours is never worse."""
    rows = []
    for seed in range(n_seeds):
        manifest = patients(n_patients, sigma, seed=seed)
        classes, sizes = codes(manifest, ("label",)), np.zeros(len(manifest), dtype=np.int64)
        second = codes(manifest, columns[1:]) if len(columns) > 1 else sizes
        row = []
        for function in (by_medtool, by_sklearn):
            start = time.perf_counter()
            fold = function(manifest, columns, seed)
            taken_s = time.perf_counter() - start
            row += [inequality(classes, fold), inequality(second, fold), inequality(sizes, fold), taken_s]
        rows.append(row)
    values = np.array(rows)
    means = values.mean(axis=0)
    for name, (of_classes, of_second, of_sizes, taken_s) in (("medtool", means[:4]), ("scikit-learn", means[4:])):
        other = f"  {columns[1]} {of_second:8.3f}" if len(columns) > 1 else ""
        print(
            f"{n_patients:6,} patients, spread {sigma}, {' and '.join(columns):14s} {name:12s}"
            f"  classes {of_classes:8.3f}{other}  sizes {of_sizes:8.3f}  {taken_s:6.2f} s"
        )
    ours, theirs = (
        4 * part[:, 0] + 2 * part[:, 1] * (len(columns) > 1) + part[:, 2] for part in (values[:, :4], values[:, 4:])
    )
    print(
        f"{'':44s}ratio of the deviations {theirs.sum() / ours.sum():.2f}, never worse: {bool((ours <= theirs).all())}"
    )
    return bool((ours <= theirs).all())


def large(n_rows: int) -> bool:
    """Print time and memory of the whole command on many rows, and tell whether they are within the limits."""
    manifest = patients(int(n_rows * 0.3), 0.8, seed=0, mean=0.72)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "manifest.csv"
        manifest.table.write_csv(path)
        n_patients = manifest.table.get_column("patient").n_unique()
        columns = ("label", "site", "sex")
        command = [sys.executable, "-m", "medtool", "split", "make", str(path)]
        start = time.perf_counter()
        subprocess.run([*command, *(part for column in columns for part in ("--stratify", column))], check=True)
        taken_s = time.perf_counter() - start
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    facts = f"{len(manifest):,} images of {n_patients:,} patients by {', '.join(columns)}"
    print(f"{facts}: {taken_s:.1f} s, {peak_mib:,.0f} MiB")
    return taken_s < LIMIT_S and peak_mib < LIMIT_MIB


def main() -> int:
    """Measure and print; the exit status is 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    warnings.filterwarnings(
        "ignore", "The least populated class"
    )  # of combinations, which scikit-learn takes for classes
    holds = [
        compare(n_patients, sigma, columns, given.seeds)
        for columns in (("label",), ("label", "site"))
        for n_patients, sigma in SETS
    ]
    is_quick = large(given.rows)
    print(f"claim: more equal on every set: {'holds' if all(holds) else 'DOES NOT HOLD'}")
    print(f"claim: under {LIMIT_S:g} s and {LIMIT_MIB} MiB: {'holds' if is_quick else 'DOES NOT HOLD'}")
    return 0 if all(holds) and is_quick else 1


if __name__ == "__main__":
    sys.exit(main())

"""Sharing out units: against every possible way where there are few, against scikit-learn where there are many."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.model_selection import StratifiedGroupKFold

from medtool.manifest import Manifest
from medtool.split.assign import SHARE_UNIT, Problem, assign
from medtool.split.make import make_split
from medtool.split.options import MakeOptions

Ints = npt.NDArray[np.int64]


def problem_of(classes: list[list[int]], shares: list[int], *, required: bool = True) -> Problem:
    """Return the problem of units with these images of each class."""
    own = np.array(classes, dtype=np.int64)
    counts = np.hstack([own.sum(axis=1, keepdims=True), own])
    must = np.zeros((len(shares), counts.shape[1]), dtype=bool)
    must[:, 1:] = required & (own.sum(axis=0) > 0)
    return Problem(
        csr_array(counts),
        np.array([2] + [8] * own.shape[1], dtype=np.int64),
        np.zeros(len(own), dtype=np.int64),
        np.array([shares], dtype=np.int64),
        must,
        np.arange(len(own)),
    )


def held(problem: Problem, part: Ints) -> Ints:
    """Return how many images of each stratum each part has."""
    counts = np.zeros((problem.shares.shape[1], problem.counts.shape[1]), dtype=np.int64)
    np.add.at(counts, part, problem.counts.toarray())
    return counts


def cost(problem: Problem, part: Ints) -> float:
    """Return what the module's text says."""
    dense = problem.counts.toarray()
    wanted = problem.shares[0][:, np.newaxis] / SHARE_UNIT * dense.sum(axis=0)
    return float((problem.importance * (held(problem, part) - wanted) ** 2 / np.maximum(wanted, 1)).sum())


def n_missing(problem: Problem, part: Ints) -> int:
    return int((problem.required & (held(problem, part) == 0)).sum())


@st.composite
def small_problems(draw: st.DrawFn) -> Problem:
    n_classes = draw(st.integers(1, 3))
    unit = st.lists(st.integers(0, 4), min_size=n_classes, max_size=n_classes).filter(any)
    shares = draw(st.sampled_from([[700_000, 300_000], [600_000, 200_000, 200_000], [500_000, 250_000, 250_000]]))
    return problem_of(draw(st.lists(unit, min_size=3, max_size=7)), shares)


@given(small_problems())
@settings(max_examples=40)
def test_of_few_units_no_arrangement_has_more_classes_in_its_parts_and_hardly_any_is_more_equal(
    problem: Problem,
) -> None:
    part, is_complete = assign(problem)
    n_units, n_parts = problem.counts.shape[0], problem.shares.shape[1]
    everything = [np.array(way) for way in product(range(n_parts), repeat=n_units)]
    fewest = min(n_missing(problem, way) for way in everything)
    assert n_missing(problem, part) == fewest
    assert is_complete == (fewest == 0)
    best = min(cost(problem, way) for way in everything if n_missing(problem, way) == fewest)
    # Parts that are less than an image away from ideal are not improved any further.
    dense = problem.counts.toarray()
    wanted = problem.shares[0][:, np.newaxis] / SHARE_UNIT * dense.sum(axis=0)
    is_close = bool((np.abs(held(problem, part) - wanted) < 1).all())
    assert is_close or cost(problem, part) <= best * 1.1 + 1e-9


def test_alike_units_are_dealt_out_exactly_however_many_there_are() -> None:
    part, is_complete = assign(problem_of([[1, 0]] * 100_000 + [[0, 2]] * 1_000, [700_000, 150_000, 150_000]))
    assert is_complete
    assert np.bincount(part[:100_000]).tolist() == [70_000, 15_000, 15_000]
    assert np.bincount(part[100_000:]).tolist() == [700, 150, 150]


def test_a_class_of_as_many_units_as_parts_has_one_in_each() -> None:
    common = [[5, 0]] * 40
    for sizes in ([1, 1, 1], [9, 1, 1], [1, 50, 200]):
        part, is_complete = assign(problem_of(common + [[0, size] for size in sizes], [800_000, 100_000, 100_000]))
        assert is_complete
        assert sorted(part[40:]) == [0, 1, 2]


def test_units_never_go_where_they_have_no_share() -> None:
    problem = problem_of([[1, 0], [0, 3]] * 60, [0, 0, 0], required=False)
    shares = np.array([[0, 500_000, 500_000], [300_000, 0, 700_000], [SHARE_UNIT, 0, 0]], dtype=np.int64)
    kinds = np.arange(120) % 3
    part, _ = assign(
        Problem(problem.counts, problem.importance, kinds, shares, problem.required, problem.places),
    )
    assert (shares[kinds, part] > 0).all()
    counts = problem.counts.toarray()[:, 0]
    wanted = [counts[kinds == kind].sum() * shares[kind] / SHARE_UNIT for kind in range(3)]
    assert np.bincount(part, weights=counts) == pytest.approx(np.sum(wanted, axis=0), abs=2)


def test_one_giant_among_a_million_images_is_shared_out_in_whole_numbers() -> None:
    """Sums of squares of a million do not fit into 64 bits by themselves."""
    part, _ = assign(problem_of([[3_000_000, 0], [0, 2_000_000]] + [[1, 1]] * 200, [700_000, 300_000], required=False))
    assert part[0] == part[1] == 0


def skewed(n_patients: int, seed: int) -> Manifest:
    """Return patients with few or very many images, some with several of four classes, one of these rare."""
    rng = np.random.default_rng(seed)
    frequencies = (0.55, 0.25, 0.13, 0.07)
    rows = []
    for patient in range(n_patients):
        own = patient % 4 if patient < 20 else rng.choice(4, p=frequencies)
        for _ in range(1 + int(rng.lognormal(1.0, 1.1))):
            label = rng.choice(4, p=frequencies) if rng.random() < 0.2 else own
            rows.append({"image": f"{len(rows)}.png", "patient": f"P{patient}", "label": f"c{label}"})
    return Manifest.from_rows(rows, Path())


def inequality(labels: Ints, fold: Ints, n_folds: int) -> tuple[float, float]:
    """Return chi-squared of the classes over the folds, and of the folds' sizes."""
    counts = np.zeros((n_folds, labels.max() + 1))
    np.add.at(counts, (fold, labels), 1)
    wanted, size = counts.sum(axis=0) / n_folds, len(labels) / n_folds
    return float(((counts - wanted) ** 2 / wanted).sum()), float(((counts.sum(axis=1) - size) ** 2 / size).sum())


def test_folds_of_skewed_patients_are_more_equal_than_scikit_learns() -> None:
    ours, theirs = [], []
    for seed in range(16):
        manifest = skewed((25, 60, 150, 300)[seed % 4], seed)
        labels = manifest.table.get_column("label").str.slice(1).cast(int).to_numpy()
        patients = manifest.table.get_column("patient").to_numpy()
        made = make_split(manifest, MakeOptions(folds=5, val_fraction=0, seed=seed)).manifest
        ours.append(inequality(labels, made.table.get_column("fold").cast(int).to_numpy(), 5))
        fold = np.zeros(len(manifest), dtype=np.int64)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for number, (_, held_out) in enumerate(splitter.split(patients, labels, patients)):
            fold[held_out] = number
        theirs.append(inequality(labels, fold, 5))
    for (own_classes, own_sizes), (classes, sizes) in zip(ours, theirs, strict=True):
        assert 4 * own_classes + own_sizes <= 4 * classes + sizes + 1e-9
    assert np.mean([sum(pair) for pair in ours]) < 0.9 * np.mean([sum(pair) for pair in theirs])

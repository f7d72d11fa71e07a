from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.distance import cdist

from medtool.datasets.ham10000 import Ham10000
from medtool.demo.folder import cases_of, draw
from medtool.demo.options import Kind as DemoKind
from medtool.manifest import Manifest
from medtool.split import inflation as module
from medtool.split import neighbours
from medtool.split.duplicates.fingerprints import Fingerprints, fingerprints_of
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.inflation import Inflation, estimate
from medtool.split.table import AuditTable


def looks_of(centres: Sequence[int], *, seed: int = 0, noise: float = 1.0) -> Fingerprints:
    """Images that look alike where their centre is the same, ever more so with less noise."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(max(centres) + 1, 16, 16)) * 30
    made = Fingerprints.empty(len(centres))
    made.sha256[:] = ["0" * 64] * len(centres)
    made.sizes[:] = 100
    palettes = rng.normal(size=(max(centres) + 1, 8, 8, 3)) * 30 + 120
    made.colours[:] = np.clip(palettes[list(centres)] + noise * rng.normal(size=made.colours.shape), 0, 255)
    made.spectra[:] = np.clip(np.abs(kinds[list(centres)] + noise * rng.normal(size=(len(centres), 16, 16))), 0, 127)
    return made


def table_of(labels: Sequence[str], patients: Sequence[str], parts: Sequence[str], column: str = "split") -> AuditTable:
    rows = [
        {"image": f"{number}.png", "image_id": f"i{number}", "label": label, "patient": patient, column: part}
        for number, (label, patient, part) in enumerate(zip(labels, patients, parts, strict=True))
    ]
    return AuditTable.of(Manifest.from_rows(rows, Path()))


def figures_of(table: AuditTable, looks: Fingerprints, *pairs: tuple[int, int], **options) -> Inflation:
    made = tuple(DuplicatePair(first, second, Kind.NEAR, 0.99, "mirrored") for first, second in sorted(pairs))
    figures, reason = estimate(table, Duplicates(made, looks, {}), **options)
    assert figures is not None, reason
    return figures


def cohort(count: int = 60, images: int = 3, *, seed: int = 1) -> tuple[list[str], list[str], list[int]]:
    """Labels that no look tells, patients of several images, and which patient each image looks like."""
    rng = np.random.default_rng(seed)
    of_patient = rng.permutation(["a", "b"] * (count // 2))
    owners = np.repeat(np.arange(count), images)
    return [str(of_patient[owner]) for owner in owners], [f"P{owner}" for owner in owners], owners.tolist()


def test_a_split_that_cuts_patients_is_inflated_and_one_that_does_not_is_not():
    labels, patients, owners = cohort()
    looks = looks_of(owners)
    leaky = figures_of(table_of(labels, patients, ["train", "train", "test"] * 60), looks)
    assert leaky.accuracy.with_leaks.value == 1
    assert leaky.accuracy.without_leaks.high < 0.7
    assert leaky.accuracy.difference.low > 0.3
    assert abs(leaky.accuracy.control.value) < 0.02
    assert leaky.balanced.difference.low > 0.3
    assert (leaky.accuracy.n_images, leaky.n_patients, leaky.n_leaking, leaky.n_left_out) == (60, 60, 60, 120)
    clean = figures_of(table_of(labels, patients, ["train"] * 120 + ["test"] * 60), looks)
    assert clean.accuracy.difference == module.Interval(0, 0, 0)
    assert (clean.n_leaking, clean.n_left_out, clean.leaking) == (0, 0, None)
    assert any("zero by construction" in note for note in clean.notes)


def test_leaks_that_look_like_nothing_in_particular_inflate_nothing():
    labels, patients, owners = cohort()
    shuffled = np.random.default_rng(3).permutation(owners).tolist()
    figures = figures_of(table_of(labels, patients, ["train", "train", "test"] * 60), looks_of(shuffled))
    assert figures.n_leaking == 60
    assert figures.accuracy.difference.low <= 0.02


def test_copies_leak_as_patients_do_and_unknown_patients_do_not():
    labels, _, owners = cohort()
    table = table_of(labels, ["unknown"] * 180, ["train", "train", "test"] * 60)
    looks = looks_of(owners)
    assert figures_of(table, looks).n_leaking == 0
    figures = figures_of(table, looks, *((number, number + 2) for number in range(0, 180, 3)))
    assert (figures.n_leaking, figures.n_left_out) == (60, 60)
    linked = figures_of(table, looks, *((number, number + 1) for number in range(179) if number % 3 < 2))
    assert linked.n_left_out == 120
    assert linked.accuracy.difference.low > 0.3


def test_every_fold_is_scored_against_its_own_training_part():
    labels, patients, owners = cohort()
    looks = looks_of(owners)
    figures = figures_of(table_of(labels, patients, ["0", "1", "2"] * 60, "fold"), looks)
    assert (figures.scored, figures.accuracy.n_images, figures.n_leaking) == ("folds", 180, 180)
    assert figures.accuracy.with_leaks.value == 1
    assert figures.accuracy.difference.low > 0.3
    by_patient = [str(owner % 3) for owner in owners]
    assert figures_of(table_of(labels, patients, by_patient, "fold"), looks).n_leaking == 0


def test_the_val_part_of_a_fold_is_not_trained_on():
    labels, patients, owners = cohort()
    table = table_of(labels, patients, ["0", "1", "2"] * 60, "fold")
    frame = table.manifest.table.with_columns(
        pl.when(pl.col("fold") == "0").then(pl.lit("1")).otherwise(pl.lit("")).alias("val_fold")
    )
    cut = AuditTable.of(replace(table.manifest, table=frame))
    assert figures_of(cut, looks_of(owners)).n_left_out == figures_of(table, looks_of(owners)).n_left_out - 60


def test_val_is_scored_where_there_is_no_test_and_a_fixed_test_part_against_all_folds():
    labels, patients, owners = cohort()
    looks = looks_of(owners)
    assert figures_of(table_of(labels, patients, ["train", "train", "val"] * 60), looks).scored == "val"
    table = table_of(labels, patients, ["0", "1", ""] * 60, "fold")
    frame = table.manifest.table.with_columns(
        pl.when(pl.col("fold") == "").then(pl.lit("test")).otherwise(pl.lit("")).alias("split")
    )
    figures = figures_of(AuditTable.of(replace(table.manifest, table=frame)), looks)
    assert (figures.scored, figures.accuracy.n_images, figures.n_left_out) == ("test", 60, 120)


def test_classes_are_scored_one_by_one_and_their_mean_is_balanced():
    labels, patients, owners = cohort()
    skewed = [
        "rare" if patient in ("P0", "P1", "P2") else label for label, patient in zip(labels, patients, strict=True)
    ]
    figures = figures_of(table_of(skewed, patients, ["train", "train", "test"] * 60), looks_of(owners))
    assert {label: one.n_images for label, one in figures.classes.items()} == {
        label: skewed[2::3].count(label) for label in ("a", "b", "rare")
    }
    shares = [one.without_leaks.value for one in figures.classes.values()]
    assert figures.balanced.without_leaks.value == pytest.approx(np.mean(shares))
    weights = [one.n_images for one in figures.classes.values()]
    assert figures.accuracy.without_leaks.value == pytest.approx(np.average(shares, weights=weights))


@pytest.mark.parametrize(
    ("labels", "parts", "reason"),
    [
        ([""] * 90, ["train", "test"] * 45, "no column 'label'"),
        (["a", "b"] * 45, [""] * 90, "no rows are in a test"),
        (["a", "b"] * 45, ["train"] * 90, "no rows are in a test"),
        (["a", "b"] * 45, ["train"] * 80 + ["test"] * 10, "80 training and 10 test images"),
        (["a"] * 90, ["train", "test"] * 45, "the same label"),
        ([f"{number}" for number in range(90)], ["train", "test"] * 45, "90 values"),
    ],
)
def test_what_cannot_be_estimated_is_not_and_says_why(labels, parts, reason):
    table = table_of(labels, ["P1"] * 90, parts)
    figures, why = estimate(table, Duplicates((), looks_of([0] * 90), {}))
    assert figures is None
    assert reason in why


def test_images_without_a_label_or_that_cannot_be_read_are_left_out():
    labels, patients, owners = cohort()
    looks = looks_of(owners)
    looks.sha256[2] = ""
    looks.sizes[5] = 0
    labels[8] = ""
    figures = figures_of(table_of(labels, patients, ["train", "train", "test"] * 60), looks)
    assert figures.accuracy.n_images == 57


def test_the_same_seed_gives_the_same_figures_and_rows_of_another_manifest_do_not_matter():
    labels, patients, owners = cohort()
    table = table_of(labels, patients, ["train", "train", "test"] * 60)
    looks = looks_of(owners, noise=40.0)
    document = figures_of(table, looks, seed=7).as_document()
    assert figures_of(table, looks, seed=7).as_document() == document
    assert figures_of(table, looks, seed=8).as_document()["with"]["value"] == document["with"]["value"]
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    more = Fingerprints.empty(190)
    for name in ("sizes", "spectra", "colours"):
        getattr(more, name)[:180] = getattr(looks, name)
    more.sha256[:] = looks.sha256 + ["1" * 64] * 10
    assert figures_of(table, more, (0, 185), (2, 185), seed=7).as_document() == document


@given(st.integers(0, 2**32 - 1), st.sampled_from(["split", "fold"]))
@settings(max_examples=10)
def test_the_order_of_rows_changes_no_figure(seed, column):
    labels, patients, owners = cohort(30)
    parts = ["train", "train", "test"] if column == "split" else ["0", "1", "2"]
    table, looks = table_of(labels, patients, parts * 30, column), looks_of(owners, noise=60.0)
    looks.spectra[40:50] = looks.spectra[40]  # as far from every other image as one another
    looks.colours[40:50] = looks.colours[40]
    whole = figures_of(table, looks, (0, 10), max_scored=25).as_document()
    order = np.random.default_rng(seed).permutation(90)
    turned = AuditTable.of(replace(table.manifest, table=table.manifest.table[order]))
    shuffled = Fingerprints.empty(90)
    for name in ("sizes", "spectra", "colours"):
        getattr(shuffled, name)[:] = getattr(looks, name)[order]
    shuffled.sha256[:] = [looks.sha256[place] for place in order]
    pair = sorted(np.flatnonzero((order == 0) | (order == 10)).tolist())
    assert figures_of(turned, shuffled, (pair[0], pair[1]), max_scored=25).as_document() == whole


def test_an_image_into_which_all_training_images_leak_is_left_out_and_is_not_wrong():
    labels, patients, owners = cohort(20)
    # Fold 1 trains on images of P0 alone, and the images of P0 are all that it cannot be compared with.
    folds = ["0"] * 45 + ["1"] * 15
    patients = ["P0"] * 15 + patients[15:45] + ["P0"] * 5 + patients[50:]
    table = table_of(labels, patients, folds, "fold")
    frame = table.manifest.table.with_columns(
        pl.when((pl.col("fold") == "0") & (pl.col("patient") != "P0")).then(pl.lit("")).otherwise("fold").alias("fold")
    )
    figures = figures_of(AuditTable.of(replace(table.manifest, table=frame)), looks_of(owners))
    assert figures.accuracy.n_images == 25
    assert "5 images have only leaks to be compared with, and have no part in this" in figures.notes


def test_where_most_images_have_only_leaks_nothing_is_estimated():
    labels, _, owners = cohort(20)
    one = table_of(labels, ["P"] * 60, ["train", "train", "test"] * 20)
    figures, why = estimate(one, Duplicates((), looks_of(owners), {}))
    assert figures is None
    assert why == "all training images leak into 20 of 20 images to be scored"


@pytest.mark.parametrize(("count", "is_enough"), [(4, False), (5, True)])
def test_few_patients_give_no_interval(count, is_enough):
    labels, _, owners = cohort(40)
    tested = [f"Q{number % count}" for number in range(40)]
    patients = [tested[number // 3] if number % 3 == 2 else f"P{number}" for number in range(120)]
    table = table_of(labels, patients, ["train", "train", "test"] * 40)
    figures, why = estimate(table, Duplicates((), looks_of(owners), {}))
    assert (figures is not None) == is_enough
    assert why == ("" if is_enough else "the 40 scored images are of 4 patients; 5 are needed")
    assert not is_enough or "the intervals rest on 5 patients and may be too narrow" in figures.notes


def test_few_leaking_patients_are_counted_and_have_no_interval_of_their_own():
    labels, patients, owners = cohort()
    parts = ["train", "train", "test"] * 4 + ["train"] * 111 + ["test"] * 57
    figures = figures_of(table_of(labels, patients, parts), looks_of(owners))
    assert (figures.leaking, figures.n_leaking) == (None, 4)
    assert (figures.as_document()["leaking"], figures.as_document()["n_leaking"]) == (None, 4)


@pytest.mark.parametrize(
    ("columns", "pairs", "unit"),
    [
        ({"patient_id": "P{}"}, (), "patients"),
        ({"biopsy": "P{}"}, (), "images"),
        ({"lesion": "P{}"}, (), "lesions"),
        ({"patient": "unknown"}, (), "images"),
        ({"patient": "P{}"}, ((2, 5),), "groups"),
        ({"lesion": "L{}", "patient": "P{}"}, (), "patients"),
        ({"lesion": "L{}", "patient": ""}, (), "lesions"),
    ],
)
def test_what_the_intervals_rest_on_has_a_name(columns, pairs, unit):
    labels, _, owners = cohort()
    rows = [
        {
            "image": f"{number}.png",
            "image_id": f"i{number}",
            "label": label,
            "split": ["train", "train", "test"][number % 3],
            **{name: text.format(number // 3) for name, text in columns.items() if text},
        }
        for number, label in enumerate(labels)
    ]
    figures = figures_of(AuditTable.of(Manifest.from_rows(rows, Path())), looks_of(owners), *pairs)
    assert figures.unit == unit == figures.as_document()["unit"]


def test_of_too_many_images_some_are_scored_and_that_is_said():
    labels, patients, owners = cohort()
    for column, parts in (("split", ["train", "train", "test"]), ("fold", ["0", "1", "2"])):
        table = table_of(labels, patients, parts * 60, column)
        figures = figures_of(table, looks_of(owners), max_scored=40)
        assert figures.accuracy.n_images == 40
        assert figures.notes[0].startswith("40 of ")


def test_blocks_of_any_size_give_the_same_answers(monkeypatch):
    labels, patients, owners = cohort()
    table, looks = table_of(labels, patients, ["0", "1", "2"] * 60, "fold"), looks_of(owners, noise=60.0)
    whole = figures_of(table, looks).as_document()
    assert whole["control"]["value"] != whole["difference"]["value"]
    for test, train, drawn in ((7, 50, 10), (64, 13, 10**6)):
        monkeypatch.setattr(neighbours, "_TEST_BLOCK", test)
        monkeypatch.setattr(neighbours, "_TRAIN_BLOCK", train)
        monkeypatch.setattr(neighbours, "_MOST_DRAWN", drawn)
        assert figures_of(table, looks).as_document() == whole


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_answers_are_those_of_the_plainest_search(seed):
    rng = np.random.default_rng(seed)
    count = 50
    looks = looks_of(rng.integers(0, 12, size=count).tolist(), seed=seed, noise=20.0)
    classes, units = rng.integers(0, 3, size=count), rng.integers(0, 15, size=count)
    is_test = rng.random(count) < 0.4
    test, train = np.flatnonzero(is_test), np.flatnonzero(~is_test)
    describe = neighbours.Describer(looks, np.arange(count))
    found = neighbours.answers_of(test, neighbours.Training(train, classes, units), describe, rng)
    far = cdist(describe(test), describe(train))
    leaks = units[test][:, None] == units[train][None]
    assert found.n_left_out.tolist() == leaks.sum(axis=1).tolist()
    assert found.right[:, 0].tolist() == (classes[train][far.argmin(axis=1)] == classes[test]).tolist()
    far[leaks] = np.inf
    plain = (classes[train][far.argmin(axis=1)] == classes[test]) & np.isfinite(far).any(axis=1)
    assert found.right[:, 1].tolist() == plain.tolist()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_control_leaves_out_as_many_of_each_label_and_no_leak(seed):
    rng = np.random.default_rng(seed)
    classes, units = rng.integers(0, 3, size=80), rng.integers(0, 9, size=80)
    training = neighbours.Training(np.arange(20, 80), classes, units)
    for row in range(20):
        drawn = training.rows[training.others(row, rng)]
        leaks = training.rows[units[training.rows] == units[row]]
        assert len(set(drawn)) == len(drawn)
        assert not (units[drawn] == units[row]).any()
        for label in range(3):
            others = np.count_nonzero((classes[training.rows] == label) & (units[training.rows] != units[row]))
            assert np.count_nonzero(classes[drawn] == label) == min(np.count_nonzero(classes[leaks] == label), others)


def test_intervals_of_clusters_are_wider_than_those_of_images():
    labels, patients, _ = cohort(30, 8)
    right = np.repeat(np.random.default_rng(0).random(30) < 0.6, 8).astype(float)
    table = np.column_stack([right] * 3)
    clusters, classes = np.unique(patients, return_inverse=True)[1], np.unique(labels, return_inverse=True)[1]
    rng = np.random.default_rng(1)
    by_patient = module._compared(table, classes, clusters, rng)[2].with_leaks
    by_image = module._compared(table, classes, np.arange(240), rng)[2].with_leaks
    deviation = np.std(right.reshape(30, 8).mean(axis=1)) / np.sqrt(30)
    assert by_patient.high - by_patient.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    assert by_patient.high - by_patient.low > 2 * (by_image.high - by_image.low)


def test_lesions_in_two_parts_inflate_the_score_on_real_images(shared_data):
    manifest = Ham10000().manifest(shared_data / "ham10000")
    kept = replace(manifest, table=manifest.table.head(800))
    looks = fingerprints_of([kept.locate(row["image"]) for row in kept.rows()], cache=None, workers=1)

    def split_by(column: str) -> AuditTable:
        values = kept.table.get_column(column).unique(maintain_order=True)
        folds = np.random.default_rng(0).permutation(len(values)) % 5
        fold = dict(zip(values, folds.astype(str), strict=True))
        return AuditTable.of(
            replace(kept, table=kept.table.with_columns(pl.col(column).replace_strict(fold).alias("fold")))
        )

    leaky, clean = (figures_of(split_by(column), looks) for column in ("image_id", "lesion"))
    assert leaky.n_leaking > 200
    assert leaky.accuracy.difference.low > 0.01
    assert leaky.leaking is not None
    assert leaky.leaking.difference.low > 0.03
    assert abs(leaky.accuracy.control.value) < 0.01
    assert clean.n_leaking == 0
    assert clean.accuracy.difference == module.Interval(0, 0, 0)
    # Lesions that are dealt out at random leak nothing that can be seen.
    placebo = split_by("image_id")
    shuffled = placebo.manifest.table.with_columns(pl.col("lesion").shuffle(seed=1))
    false = figures_of(AuditTable.of(replace(placebo.manifest, table=shuffled)), looks)
    assert abs(false.accuracy.difference.value) < 0.01


@pytest.mark.slow
def test_patients_in_two_parts_inflate_the_score_on_phantoms(tmp_path):
    cases = list(islice(cases_of(DemoKind.TISSUE, 905), 32))
    paths = [tmp_path / f"{case.name}.png" for case in cases]
    for case, path in zip(cases, paths, strict=True):
        Image.fromarray(draw(case).pixels).save(path, compress_level=1)
    looks = fingerprints_of(paths, cache=None, workers=1)
    labels, patients = [case.patient.label for case in cases], [case.patient.name for case in cases]
    by_image = (np.random.default_rng(0).permutation(32) % 4).astype(str).tolist()
    leaky = figures_of(table_of(labels, patients, by_image, "fold"), looks)
    assert leaky.accuracy.difference.value > 0.3
    assert leaky.accuracy.difference.low > 0.1
    assert abs(leaky.accuracy.control.value) < 0.1
    by_patient = [str(number % 3) for number in np.unique(patients, return_inverse=True)[1]]
    clean = figures_of(table_of(labels, patients, by_patient, "fold"), looks)
    assert clean.accuracy.difference == module.Interval(0, 0, 0)

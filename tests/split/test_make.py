"""Making a split: no patient is cut, every stratum is spread, and no order of rows matters."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.datasets.ham10000 import Ham10000
from medtool.errors import ManifestError, UsageError
from medtool.lineage import digest_of
from medtool.manifest import Manifest
from medtool.roles import folds_of, parts_of, roles_of
from medtool.split.duplicates.fingerprint import VERSION
from medtool.split.grouping import plural
from medtool.split.make import make_split
from medtool.split.options import AuditOptions, MakeOptions
from medtool.split.rules.of_table import table_findings
from medtool.split.table import AuditTable
from medtool.split.units import units_of

LEAKS = ("G101", "G102", "D201", "F303", "F304", "B802")


def manifest_of(rows: list[dict[str, str]]) -> Manifest:
    return Manifest.from_rows([{"image": f"{place}.png", **row} for place, row in enumerate(rows)], Path())


def shuffled(manifest: Manifest, seed: int) -> Manifest:
    order = np.random.default_rng(seed).permutation(len(manifest))
    return Manifest(manifest.table[order], manifest.root)


def parts_by_id(manifest: Manifest) -> dict[str, str]:
    return dict(zip(manifest.table.get_column("image_id"), parts_of(manifest), strict=True))


def skewed(n_patients: int, *, seed: int = 0, classes: tuple[float, ...] = (0.6, 0.25, 0.15)) -> Manifest:
    """Return patients with few or very many images, some of them with several classes, of three sites."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(n_patients):
        own, site = rng.choice(len(classes), p=classes), rng.integers(3)
        for _ in range(1 + int(rng.lognormal(1.0, 1.0))):
            label = rng.choice(len(classes), p=classes) if rng.random() < 0.2 else own
            rows.append({"patient": f"P{patient}", "label": f"c{label}", "site": f"s{site}", "sex": "fm"[patient % 2]})
    return manifest_of(rows)


@st.composite
def tables(draw: st.DrawFn) -> Manifest:
    """Return images of a few patients and lesions that may be linked or unknown, each class in eight patients."""
    cells = st.tuples(st.integers(-1, 12), st.integers(-1, 30), st.sampled_from("abc"), st.sampled_from(["x", "y", ""]))
    drawn = draw(st.lists(cells, max_size=40))
    rows = [
        {
            "patient": f"p{patient}" if patient >= 0 else "",
            "lesion": f"l{lesion}" if lesion >= 0 else "",
            "label": label,
            "site": site,
        }
        for patient, lesion, label, site in drawn
    ]
    rows += [
        {"patient": f"q{label}{number}", "lesion": f"m{label}{number}", "label": label, "site": "x"}
        for label in "abc"
        for number in range(8)
    ]
    return manifest_of(rows)


OPTIONS = st.sampled_from(
    [
        MakeOptions(),
        MakeOptions(fractions=(0.8, 0.0, 0.2), stratify=("label", "site")),
        MakeOptions(folds=3),
        MakeOptions(folds=4, val_fraction=0.0, stratify=("label", "site")),
        MakeOptions(folds=2, test_fraction=0.25),
    ]
)


@given(tables(), OPTIONS, st.lists(st.tuples(st.integers(0, 23), st.integers(0, 23)), max_size=3))
@settings(max_examples=15)
def test_no_patient_lesion_or_joined_pair_is_cut(
    manifest: Manifest, options: MakeOptions, joined: list[tuple[int, int]]
) -> None:
    split = make_split(manifest, options, joined=joined)
    parts = parts_of(split.manifest).to_list()
    assert all(parts)
    for column in ("patient", "lesion"):
        seen = defaultdict(set)
        for value, part in zip(manifest.table.get_column(column), parts, strict=True):
            seen[value].add(part)
        seen.pop("", None)
        assert all(len(found) == 1 for found in seen.values())
    assert all(parts[one] == parts[other] for one, other in joined)
    findings = table_findings(AuditTable.of(split.manifest), AuditOptions())
    assert not [found.rule.code for found in findings if found.rule.code in LEAKS]


@given(tables(), OPTIONS, st.integers(0, 3))
@settings(max_examples=15)
def test_the_order_of_the_rows_changes_nothing(manifest: Manifest, options: MakeOptions, seed: int) -> None:
    first = make_split(manifest, options)
    second = make_split(shuffled(manifest, seed), options)
    assert parts_by_id(first.manifest) == parts_by_id(second.manifest)
    assert first.report == second.report
    assert first.groups.equals(second.groups)


def test_the_order_of_many_rows_and_of_joined_pairs_changes_nothing() -> None:
    manifest = skewed(300)
    options = MakeOptions(folds=5, stratify=("label", "site", "sex"))
    ids = manifest.table.get_column("image_id").to_list()
    pairs = [(0, 500), (20, 40)]
    other = shuffled(manifest, 7)
    place = {image_id: row for row, image_id in enumerate(other.table.get_column("image_id"))}
    moved = [(place[ids[second]], place[ids[first]]) for first, second in reversed(pairs)]
    one, two = make_split(manifest, options, joined=pairs), make_split(other, options, joined=moved)
    assert parts_by_id(one.manifest) == parts_by_id(two.manifest)
    assert one.report == two.report


def test_a_split_is_the_same_for_ever() -> None:
    """The digests were written down once: another machine, numpy or polars must not give another split."""
    sizes = [1 + n * n * 7 % 23 for n in range(60)]
    rows = [
        {"patient": f"P{n}", "label": "abc"[(n * 5 + image // 4) % 3], "site": "xyz"[n % 3]}
        for n, size in enumerate(sizes)
        for image in range(size)
    ]
    options = (MakeOptions(seed=905), MakeOptions(folds=5, stratify=("label", "site")))
    made = [make_split(manifest_of(rows), chosen).report["split_sha256"][:16] for chosen in options]
    assert made == ["444523c90aeeceda", "503b1d91f9f67ab7"]


def test_another_seed_gives_another_split_of_the_same_quality() -> None:
    manifest = skewed(200)
    splits = [make_split(manifest, MakeOptions(seed=seed)) for seed in (0, 1)]
    first, second = (parts_by_id(split.manifest) for split in splits)
    assert sum(first[name] != second[name] for name in first) > 0.2 * len(first)
    for split in splits:
        assert all(abs(part["images"] - part["wanted"]) <= 2 for part in split.report["parts"])


@given(tables())
@settings(max_examples=10)
def test_every_image_is_tested_once_and_never_beside_its_patient(manifest: Manifest) -> None:
    made = make_split(manifest, MakeOptions(folds=3, val_fraction=0.2)).manifest
    units = units_of(made.table, ["patient", "lesion"])
    n_tested: Counter[str] = Counter()
    assert folds_of(made) == [0, 1, 2]
    for fold in folds_of(made):
        roles = roles_of(made, fold)
        assert set(roles) == {"train", "val", "test"}
        by_role = {role: set(units[(roles == role).to_numpy()].tolist()) for role in ("train", "val", "test")}
        assert not by_role["train"] & by_role["val"]
        assert not (by_role["train"] | by_role["val"]) & by_role["test"]
        n_tested.update(made.table.filter(roles == "test").get_column("image_id"))
        for role in ("train", "val", "test"):
            assert set(made.table.filter(roles == role).get_column("label")) == {"a", "b", "c"}
    assert n_tested == Counter(made.table.get_column("image_id"))


def test_a_fixed_test_part_is_the_same_for_all_folds_which_are_val_parts_in_turn() -> None:
    split = make_split(skewed(120), MakeOptions(folds=4, test_fraction=0.2))
    assert "val_fold" not in split.manifest.columns
    tests = [split.manifest.table.filter(roles_of(split.manifest, fold) == "test") for fold in range(4)]
    assert all(test.equals(tests[0]) for test in tests)
    share = tests[0].height / len(split.manifest)
    assert share == pytest.approx(0.2, abs=0.01)
    val = [(roles_of(split.manifest, fold) == "val").sum() for fold in range(4)]
    assert sum(val) + tests[0].height == len(split.manifest)


def test_parts_have_their_size_and_every_stratum_its_share_within_one_image_where_patients_are_small() -> None:
    rows = [
        {"patient": f"P{n}", "label": "abc"[n % 3], "site": "xy"[n % 2]} for n in range(600) for _ in range(1 + n % 2)
    ]
    report = make_split(manifest_of(rows), MakeOptions(stratify=("label", "site"))).report
    assert [part["wanted"] for part in report["parts"]] == [630, 135, 135]
    assert [part["images"] for part in report["parts"]] == [630, 135, 135]
    assert all(abs(row["images"] - row["wanted"]) <= 1 for row in report["strata"])
    joint = [row for row in report["strata"] if len(row["stratum"]) == 2]
    assert len(joint) == 3 * 6


def test_margins_are_kept_where_joint_strata_are_too_small() -> None:
    rows = [{"patient": f"P{n}", "label": "ab"[n % 2], "site": f"s{n % 7}", "place": f"o{n % 11}"} for n in range(154)]
    report = make_split(manifest_of(rows), MakeOptions(folds=5, stratify=("label", "site", "place"))).report
    assert max(len(row["stratum"]) for row in report["strata"]) == 1
    assert all(abs(row["images"] - row["wanted"]) < 2 for row in report["strata"])


def test_unknown_labels_are_spread_like_a_class_but_no_part_needs_them() -> None:
    rows = [{"patient": f"P{n}", "label": "" if n < 30 else "ab"[n % 2]} for n in range(100)]
    report = make_split(manifest_of(rows), MakeOptions(folds=5, val_fraction=0)).report
    unknown = [row["images"] for row in report["strata"] if row["stratum"] == {"label": ""}]
    assert unknown == [6] * 5
    assert any("label is unknown for 30 images" in note for note in report["notes"])
    few = [{"patient": f"P{n}", "label": "" if n < 1 else "ab"[n % 2]} for n in range(40)]
    assert make_split(manifest_of(few), MakeOptions(folds=5)).report["lacking"] == []


def test_a_number_of_many_values_is_spread_by_fifths() -> None:
    rows = [{"patient": f"P{n}", "label": "ab"[n % 2], "age": str(20 + n % 70)} for n in range(350)]
    split = make_split(manifest_of(rows), MakeOptions(stratify=("label", "age")))
    ages = {row["stratum"]["age"] for row in split.report["strata"] if list(row["stratum"]) == ["age"]}
    assert ages == {"33 or less", "33 to 47", "47 to 61", "61 to 75", "more than 75"}
    assert all(abs(row["images"] - row["wanted"]) < 2 for row in split.report["strata"])
    assert split.manifest.table.get_column("age").to_list() == [row["age"] for row in rows]


def test_rows_without_a_group_are_units_of_their_own_and_counted() -> None:
    named = [{"patient": "P1", "label": "a"}] * 20 + [{"patient": f"Q{n}", "label": "a"} for n in range(10)]
    unnamed = [{"patient": text, "label": "a"} for text in ("", "nan", "unknown", "") for _ in range(5)]
    split = make_split(manifest_of(named + unnamed), MakeOptions(fractions=(0.5, 0.0, 0.5)))
    assert split.report["units"] == 1 + 10 + 20
    assert split.report["unknown"] == {"patient": 20}
    assert split.report["images_of_unknown"] == 20
    assert any("patient is unknown for 20 of 50 images" in note for note in split.report["notes"])
    assert split.groups.filter(pl.col("patient") == "").get_column("images").cast(int).sum() == 20


def test_a_lesion_known_where_the_patient_is_not_keeps_rows_together() -> None:
    rows = [{"patient": "", "lesion": f"L{n // 3}", "label": "a"} for n in range(60)]
    rows += [{"patient": f"P{n}", "lesion": "", "label": "a"} for n in range(20)]
    split = make_split(manifest_of(rows), MakeOptions())
    assert split.report["units"] == 40
    assert split.report["images_of_unknown"] == 0


def test_ids_that_differ_in_spelling_only_are_told() -> None:
    rows = [{"patient": f"{n:03d}", "label": "a"} for n in range(1, 20)] + [{"patient": "7", "label": "a"}]
    notes = make_split(manifest_of(rows), MakeOptions()).report["notes"]
    assert any("'007' and '7'" in note for note in notes)


def test_rows_of_one_file_stay_together_however_it_is_written() -> None:
    rows: list[dict[str, Any]] = [{"patient": f"P{n}", "label": "a", "image_id": str(n)} for n in range(40)]
    for number, row in enumerate(rows):
        row["image"] = f"a{'//' if number % 2 else '/'}{number // 2}.png"
    split = make_split(Manifest.from_rows(rows, Path()), MakeOptions())
    assert split.report["units"] == 20
    assert any("40 different patients are linked into 20 units" in note for note in split.report["notes"])


def test_a_kept_test_part_stays_and_the_others_are_split() -> None:
    rows = [
        {"patient": f"P{n}", "label": "ab"[n % 2], "split": "test" if n < 20 else ["train", ""][n % 2]}
        for n in range(120)
    ]
    split = make_split(manifest_of(rows), MakeOptions(fractions=(0.9, 0.1, 0.0), keep_test=True))
    parts = split.manifest.table.get_column("split")
    assert (parts == "test").to_list() == [n < 20 for n in range(120)]
    assert split.manifest.counts("split") == {"test": 20, "train": 90, "val": 10}
    by_fold = make_split(manifest_of(rows), MakeOptions(folds=5, keep_test=True)).manifest
    assert by_fold.counts("fold") == {str(fold): 20 for fold in range(5)}
    assert by_fold.counts("split") == {"test": 20}
    assert "val_fold" not in by_fold.columns


def test_a_class_that_a_kept_test_part_lacks_is_told_and_one_that_only_it_has_is_refused() -> None:
    rows = [{"patient": f"P{n}", "label": "ab"[n % 2], "split": "test" if n < 20 and n % 2 else ""} for n in range(60)]
    report = make_split(manifest_of(rows), MakeOptions(keep_test=True)).report
    assert report["lacking"] == [{"part": "test", "column": "label", "class": "a"}]
    assert "the class 'a' is missing in test" in report["notes"]
    with pytest.raises(ManifestError, match="'b' is in 0 patients outside the kept test part"):
        make_split(
            manifest_of([row for row in rows if row["label"] == "a" or row["split"]]), MakeOptions(keep_test=True)
        )


def test_a_kept_test_part_that_shares_patients_is_refused_with_their_names() -> None:
    rows = [{"patient": f"P{n % 30}", "label": "a", "split": "test" if n < 33 else "train"} for n in range(90)]
    with pytest.raises(ManifestError, match="shares 30 patients with other rows: patient 'P0'; patient 'P1'"):
        make_split(manifest_of(rows), MakeOptions(keep_test=True))


def test_each_site_is_a_fold_in_the_order_of_their_names() -> None:
    manifest = skewed(150)
    split = make_split(manifest, MakeOptions(leave_one_site_out=True))
    assert split.report["sites"] == {"0": "s0", "1": "s1", "2": "s2"}
    assert split.manifest.table.select(pl.col("fold") == pl.col("site").str.slice(1)).to_series().all()
    for fold in range(3):
        roles = roles_of(split.manifest, fold)
        n_others = int((roles != "test").sum())
        assert (roles == "val").sum() == pytest.approx(0.15 * n_others, abs=2)


def test_a_site_without_a_class_is_told_and_no_reason_to_refuse() -> None:
    rows = [{"patient": f"P{n}", "site": "xyz"[n % 3], "label": "ab"[n % 2]} for n in range(60)]
    rows += [{"patient": f"Q{n}", "site": "x", "label": "rare"} for n in range(3)]
    report = make_split(manifest_of(rows), MakeOptions(leave_one_site_out=True)).report
    assert {"part": "fold 1", "column": "label", "class": "rare"} in report["lacking"]
    assert {"part": "train of fold 0", "column": "label", "class": "rare"} in report["lacking"]
    assert any("'rare' is missing in fold 1, fold 2" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": ""}, "the site is unknown for 1 of 40 images: 0.png"),
        ({"site": "y"}, r"1 patient at several sites: patient 'P0'"),
    ],
)
def test_sites_that_cannot_be_left_out_are_refused(change: dict[str, str], message: str) -> None:
    rows = [{"patient": f"P{n // 2}", "site": "xy"[n // 2 % 2], "label": "a"} for n in range(40)]
    rows[0].update(change)
    with pytest.raises(ManifestError, match=message):
        make_split(manifest_of(rows), MakeOptions(leave_one_site_out=True))


def test_a_class_of_too_few_patients_is_refused_with_its_number_and_the_way_out() -> None:
    rows = [{"patient": f"P{n}", "label": "a"} for n in range(50)]
    rows += [{"patient": f"R{n % 3}", "label": "rare"} for n in range(30)]
    with pytest.raises(ManifestError, match=r"there are 5 parts: 'rare' is in 3 patients") as caught:
        make_split(manifest_of(rows), MakeOptions(folds=5))
    assert "--folds 3" in str(caught.value.hint)
    made = make_split(manifest_of(rows), MakeOptions(folds=3))
    assert [part["classes"]["rare"] > 0 for part in made.report["parts"] if part["part"].startswith("fold")] == [
        True
    ] * 3
    with pytest.raises(ManifestError, match="there are 4 parts"):
        make_split(manifest_of(rows), MakeOptions(folds=3, test_fraction=0.2))


def test_a_class_that_always_comes_with_others_is_refused_when_no_arrangement_has_all() -> None:
    pairs = [("a", "b"), ("b", "c"), ("a", "c")]  # whoever holds two of three, the other part lacks one
    rows = [{"patient": f"P{n}", "label": label} for n, pair in enumerate(pairs) for label in pair]
    with pytest.raises(ManifestError, match="no way was found"):
        make_split(manifest_of(rows), MakeOptions(fractions=(0.5, 0.0, 0.5)))


def test_a_val_part_that_cannot_have_a_class_is_told_and_training_keeps_it() -> None:
    rows = [{"patient": f"P{n}", "label": "a"} for n in range(40)] + [{"patient": f"R{n}", "label": "b"} for n in "12"]
    report = make_split(manifest_of(rows), MakeOptions(folds=2, val_fraction=0.3)).report
    assert {row["part"] for row in report["lacking"]} == {"val of fold 0", "val of fold 1"}
    assert any("'b' is missing in val of fold 0, val of fold 1: too few have it" in note for note in report["notes"])


def patients_of(*labels: str) -> list[dict[str, str]]:
    """Return a patient a text, with an image of each label that its letters name."""
    return [{"patient": f"P{n:02}", "label": label} for n, text in enumerate(labels) for label in text]


def classes_by_role(made: Manifest, fold: int) -> dict[str, set[str]]:
    roles = roles_of(made, fold)
    return {role: set(made.table.filter(roles == role).get_column("label")) for role in ("train", "val")}


def test_a_val_part_gives_back_one_of_those_that_have_a_class_not_all() -> None:
    rows = [
        *({"patient": "p0", "label": label, "sex": sex} for label, sex in ("Rm", "Bf")),
        *({"patient": "p1", "label": label, "sex": sex} for label, sex in ("Rm", "Af", "Af")),
        *({"patient": "p2", "label": label, "sex": sex} for label, sex in ("Rm",)),
        *({"patient": "p3", "label": label, "sex": sex} for label, sex in ("Af",)),
        *({"patient": "p4", "label": label, "sex": sex} for label, sex in ("Am", "Bf")),
        *({"patient": "p5", "label": label, "sex": sex} for label, sex in ("Am",)),
        *({"patient": "p6", "label": label, "sex": sex} for label, sex in ("Am",)),
        *({"patient": "p7", "label": label, "sex": sex} for label, sex in ("Bf",)),
        *({"patient": "p8", "label": label, "sex": sex} for label, sex in ("Am",)),
        *({"patient": "p9", "label": label, "sex": sex} for label, sex in ("Af", "Bm")),
        *({"patient": "p10", "label": label, "sex": sex} for label, sex in ("Af",)),
        *({"patient": "p11", "label": label, "sex": sex} for label, sex in ("Bf",)),
    ]
    split = make_split(manifest_of(rows), MakeOptions(folds=2, val_fraction=0.5, stratify=("label", "sex")))
    assert split.report["lacking"] == [{"part": "val of fold 0", "column": "label", "class": "R"}]
    holders = {row["patient"]: row["fold"] for row in split.manifest.rows() if row["label"] == "R"}
    assert sorted(holders.values()) == ["0", "0", "1"]  # so one of them alone is outside fold 0
    assert classes_by_role(split.manifest, 1) == {"train": {"A", "B", "R"}, "val": {"A", "B", "R"}}


def test_a_val_part_makes_room_for_a_class_of_large_patients() -> None:
    rows = patients_of(*["r" * 40] * 4, *["a"] * 120)
    report = make_split(manifest_of(rows), MakeOptions(folds=2, val_fraction=0.1)).report
    val = [part for part in report["parts"] if part["part"].startswith("val")]
    assert [(part["wanted"], part["classes"]["r"]) for part in val] == [(14.0, 40)] * 2
    assert all(part["classes"]["a"] <= 4 for part in val), val


@given(
    st.lists(st.sampled_from(["a", "b", "c", "ab", "ac", "bc", "aab"]), min_size=8, max_size=24),
    st.sampled_from([(2, 0.5), (2, 0.9), (3, 0.4), (3, 0.5)]),
)
@settings(max_examples=60)
def test_what_a_fold_could_train_on_it_does_and_too_few_is_only_said_where_it_is_so(
    labels: list[str], options: tuple[int, float]
) -> None:
    manifest = manifest_of(patients_of(*labels, *["a", "b", "c"] * options[0]))
    try:
        split = make_split(manifest, MakeOptions(folds=options[0], val_fraction=options[1]))
    except ManifestError:
        return
    made = split.manifest
    for fold in folds_of(made):
        others = made.table.filter(pl.col("fold") != str(fold))
        held = dict(others.group_by("label").agg(pl.col("patient").n_unique()).iter_rows())
        roles = classes_by_role(made, fold)
        assert roles["train"] == set(held)
        for lacking in set(held) - roles["val"]:
            is_said = any(f"'{lacking}'" in note and "too few" in note for note in split.report["notes"])
            assert is_said <= (held[lacking] < 2)


def test_no_part_is_empty_and_too_few_patients_are_refused() -> None:
    rows = [{"patient": f"P{n}"} for n in (0, 1, 2) for _ in range(1 + 50 * n)]
    report = make_split(manifest_of(rows), MakeOptions()).report
    assert [part["units"] for part in report["parts"]] == [1, 1, 1]
    assert any("no label" in note for note in report["notes"])
    with pytest.raises(ManifestError, match="2 patients cannot be shared out to 3 parts"):
        make_split(manifest_of(rows[:20]), MakeOptions())


def test_two_patients_make_two_folds_that_are_trained_on_the_other_one() -> None:
    split = make_split(manifest_of([{"patient": f"P{n}", "label": "a"} for n in range(2)]), MakeOptions(folds=2))
    for fold in range(2):
        assert sorted(roles_of(split.manifest, fold)) == ["test", "train"]
    assert any("no image is in val of fold 0, val of fold 1" in note for note in split.report["notes"])


def test_without_a_column_of_groups_nothing_is_split_unless_asked() -> None:
    manifest = manifest_of([{"label": "ab"[n % 2], "scanner": "x"} for n in range(20)])
    with pytest.raises(ManifestError, match="no column names patients") as caught:
        make_split(manifest, MakeOptions())
    assert "--group none" in str(caught.value.hint)
    assert make_split(manifest, MakeOptions(group=("none",))).report["unit"] == "image"
    with pytest.raises(ManifestError, match="no column 'patint'"):
        make_split(manifest, MakeOptions(group=("patint",)))


def test_a_group_that_names_nobody_is_no_group() -> None:
    rows = [{"patient": "unknown", "label": "a"} for _ in range(20)]
    with pytest.raises(ManifestError, match="names nobody"):
        make_split(manifest_of(rows), MakeOptions())


def test_one_patient_with_most_images_is_told() -> None:
    rows = [{"patient": "big", "label": "a"}] * 60 + [{"patient": f"P{n}", "label": "a"} for n in range(40)]
    split = make_split(manifest_of(rows), MakeOptions())
    assert any("1 patient with more images than the 15" in note and "'big'" in note for note in split.report["notes"])
    assert set(split.manifest.table.filter(pl.col("patient") == "big").get_column("split")) == {"train"}


def test_ten_folds_have_val_parts_as_large_as_is_left() -> None:
    manifest = skewed(300)
    split = make_split(manifest, MakeOptions(folds=10))
    assert split.report["made_with"]["val_fraction"] == pytest.approx(1 / 9)
    with pytest.raises(UsageError, match=r"--val 0.15 is too much for 10 folds.* 0.111 is the most"):
        make_split(manifest, MakeOptions(folds=10, val_fraction=0.15))


def test_an_earlier_split_is_replaced_and_told() -> None:
    rows = [{"patient": f"P{n}", "label": "a", "split": "test", "fold": "1", "val_fold": "0"} for n in range(20)]
    made = make_split(manifest_of(rows), MakeOptions())
    assert "fold" not in made.manifest.columns
    assert "val_fold" not in made.manifest.columns
    assert any("own split (test 20) is replaced; --keep-test keeps" in note for note in made.report["notes"])
    folds = make_split(manifest_of(rows), MakeOptions(folds=2))
    assert "split" not in folds.manifest.columns


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fractions": (0.5, 0.2, 0.2)}, "add up to 1, and add up to 0.9"),
        ({"fractions": (0.3333, 0.3333, 0.3333)}, "0.3333,0.3333,0.3333: they must add up to 1, and add up to 0.9999"),
        ({"fractions": (1.0, 0.0, 0.0)}, "two parts"),
        ({"fractions": (0.0, 0.5, 0.5)}, "train on"),
        ({"fractions": (float("nan"), 0.5, 0.5)}, "from 0 to 1"),
        ({"folds": 1}, "2 or more"),
        ({"folds": 3, "leave_one_site_out": True}, "exclude"),
        ({"test_fraction": 0.2}, "--test is for --folds"),
        ({"folds": 3, "test_fraction": 1.0}, "below 1"),
        ({"val_fraction": 0.2}, "--val is for --folds"),
        ({"folds": 3, "test_fraction": 0.2, "val_fraction": 0.1}, "fixed test part"),
        ({"leave_one_site_out": True, "keep_test": True}, "no fixed test part"),
        ({"folds": 3, "test_fraction": 0.2, "keep_test": True}, "one test part"),
        ({"group": ("patient", "patient")}, "twice"),
        ({"stratify": ("none", "label")}, "alone"),
        ({"group": ("patient", "split")}, "--group split"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MakeOptions(**given)


@pytest.fixture(scope="session")
def ham(shared_data: Path) -> Manifest:
    return Ham10000().manifest(shared_data / "ham10000")


@pytest.mark.parametrize("options", [MakeOptions(), MakeOptions(folds=5)], ids=["hold-out", "folds"])
def test_ham10000_is_split_by_lesion_without_a_leak_and_within_half_a_percentage_point(
    ham: Manifest, options: MakeOptions
) -> None:
    split = make_split(ham, options)
    assert split.report["unit"] == "lesion"
    assert split.report["units"] == ham.table.get_column("lesion").n_unique()
    assert abs(split.report["largest_deviation"]["percentage_points"]["percentage_points"]) < 0.5
    parts = ham.table.select("lesion").with_columns(parts_of(split.manifest)).unique()
    assert parts.height == split.report["units"]
    assert not [
        found for found in table_findings(AuditTable.of(split.manifest), AuditOptions()) if found.rule.code in LEAKS
    ]


def test_labels_are_classes_of_the_report_whatever_is_spread() -> None:
    rows = [{"patient": f"P{n}", "label": "r" if n < 2 else "ab"[n % 2], "sex": "mf"[n % 2]} for n in range(40)]
    for columns in (("sex",), ("sex", "label"), ("none",)):
        report = make_split(manifest_of(rows), MakeOptions(stratify=columns)).report
        assert [list(part["classes"]) for part in report["parts"]] == [["a", "b", "r"]] * 3
        lacking = [row["part"] for row in report["lacking"] if row["class"] == "r"]
        assert lacking == [part["part"] for part in report["parts"] if not part["classes"]["r"]]
        assert lacking
        is_told = "label is not spread; --stratify label --stratify sex spreads both" in report["notes"]
        assert is_told == (columns == ("sex",))
    without = [{"patient": row["patient"], "sex": row["sex"]} for row in rows]
    parts = make_split(manifest_of(without), MakeOptions(stratify=("sex",))).report["parts"]
    assert [list(part["classes"]) for part in parts] == [["f", "m"]] * 3


def test_what_a_split_was_made_with_makes_it_again() -> None:
    rows = [{"patient": f"P{n}", "label": "ab"[n % 2]} for n in range(40)]
    manifest = manifest_of(rows)
    plain = make_split(manifest, MakeOptions()).report["made_with"]
    none_found = make_split(manifest, MakeOptions(), joined=()).report["made_with"]
    assert (plain["duplicates_together"], plain["fingerprint_version"]) == (False, None)
    assert (none_found["duplicates_together"], none_found["fingerprint_version"]) == (True, VERSION)
    split = make_split(manifest, MakeOptions(), joined=[(9, 3), (1, 2)])
    made_with = split.report["made_with"]
    assert made_with["joined"] == [["1.png", "2.png"], ["3.png", "9.png"]]
    assert made_with["joined_pairs"] == 2
    assert made_with["joined_sha256"] == digest_of(["1.png 2.png", "3.png 9.png"]) != plain["joined_sha256"]
    row_of = {image_id: row for row, image_id in enumerate(manifest.table.get_column("image_id"))}
    pairs = [(row_of[one], row_of[other]) for one, other in made_with["joined"]]
    again = make_split(manifest, MakeOptions(seed=made_with["seed"]), joined=pairs)
    assert again.report == split.report


@pytest.mark.parametrize("column", ["patient", "label", "image_id"])
def test_the_digest_of_the_rows_is_of_all_that_decides(column: str) -> None:
    rows = [{"image_id": str(n), "patient": f"P{n}", "label": "ab"[n % 2], "device": "x"} for n in range(40)]
    digest = make_split(manifest_of(rows), MakeOptions()).report["made_with"]["rows_sha256"]
    rows[0]["device"] = "y"
    assert make_split(manifest_of(rows), MakeOptions()).report["made_with"]["rows_sha256"] == digest
    rows[0][column] = "b" if column == "label" else "other"
    assert make_split(manifest_of(rows), MakeOptions()).report["made_with"]["rows_sha256"] != digest


def test_the_size_of_a_part_may_be_what_is_furthest_from_ideal() -> None:
    rows = [{"patient": f"P{n}", "label": "ab"[n % 2]} for n in range(10) for _ in range(20)]
    largest = make_split(manifest_of(rows), MakeOptions()).report["largest_deviation"]
    assert largest["images"] == {
        "part": "train",
        "stratum": {},
        "wanted": 140.0,
        "images": 120,
        "percentage_points": -10.0,
    }
    assert make_split(manifest_of(rows), MakeOptions(stratify=("none",))).report["largest_deviation"]["images"]["part"]


@pytest.mark.parametrize("cell", ["nan", " ", "Unknown", "N/A"])
def test_what_says_unknown_is_no_site(cell: str) -> None:
    rows = [{"patient": f"P{n // 2}", "site": "xy"[n // 2 % 2], "label": "a"} for n in range(40)]
    rows[0]["site"] = rows[1]["site"] = cell
    with pytest.raises(ManifestError, match=r"the site is unknown for 2 of 40 images: 0\.png, 1\.png"):
        make_split(manifest_of(rows), MakeOptions(leave_one_site_out=True))


def test_sites_that_differ_in_spelling_only_are_told_where_they_are_folds() -> None:
    rows = [{"patient": f"P{n}", "site": ["Rome", "rome ", "Oslo"][n % 3], "label": "a"} for n in range(40)]
    notes = make_split(manifest_of(rows), MakeOptions(leave_one_site_out=True)).report["notes"]
    assert any(note.startswith("site: 2 ids") and "'Rome' and 'rome '" in note for note in notes)
    assert not any("site:" in note for note in make_split(manifest_of(rows), MakeOptions(folds=3)).report["notes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            MakeOptions(fractions=(0.9999999, 0.0, 0.0000001)),
            "share of 1e-07 for test makes 4e-06 of 40",
        ),
        (MakeOptions(fractions=(0.98, 0.02, 0.0)), "a share of 0.02 for val makes 0.8 of 40 images"),
        (MakeOptions(folds=2, test_fraction=0.02), "--test: a share of 0.02 for test makes 0.8 of 40 images"),
        (MakeOptions(folds=2, val_fraction=0.02), "--val: a share of 0.02 for val makes 0.8 of 40 images"),
    ],
)
def test_a_share_of_less_than_an_image_is_refused_with_what_it_makes(options: MakeOptions, message: str) -> None:
    rows = [{"patient": f"P{n}", "label": "ab"[n % 2]} for n in range(40)]
    with pytest.raises(UsageError, match=message):
        make_split(manifest_of(rows), options)


def test_a_share_of_one_image_is_made() -> None:
    rows = [{"patient": f"P{n}"} for n in range(40)]
    assert make_split(manifest_of(rows), MakeOptions(fractions=(0.975, 0, 0.025))).manifest.counts("split") == {
        "test": 1,
        "train": 39,
    }


def test_one_image_of_three_is_not_larger_than_a_third() -> None:
    rows = [{"patient": f"P{n}"} for n in range(3)]
    report = make_split(manifest_of(rows), MakeOptions(folds=3, val_fraction=0)).report
    assert not any("more images than" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("labels", "options", "hint"),
    [
        (["a"], MakeOptions(), None),
        (["aaa", "aa"], MakeOptions(), "--fractions 0.8,0.2"),
        (["a", "a"], MakeOptions(), "--fractions 0.5,0.5"),
        (["a", "b"], MakeOptions(), None),
        (["a", "a", "a"], MakeOptions(folds=5), "--folds 3"),
        (["a", "a", "a"], MakeOptions(folds=5, test_fraction=0.4), "--folds 2"),
        (["ab", "ab", "a"], MakeOptions(folds=5), "--folds 2"),
        (["ab", "a", "a"], MakeOptions(folds=5), None),
    ],
)
def test_fewer_parts_are_only_advised_where_they_work(
    labels: list[str], options: MakeOptions, hint: str | None
) -> None:
    manifest = manifest_of(patients_of(*labels))
    with pytest.raises(ManifestError, match="cannot be shared out") as caught:
        make_split(manifest, options)
    assert caught.value.hint == hint
    if hint is not None and options.folds:
        make_split(manifest, replace(options, folds=int(hint.split()[1])))
    elif hint is not None:
        train, test = map(float, hint.split()[1].split(","))
        make_split(manifest, MakeOptions(fractions=(train, 0.0, test)))


def test_a_hold_out_of_two_parts_is_advised_for_a_class_of_two_patients() -> None:
    manifest = manifest_of(patients_of(*["a"] * 10, "b", "b"))
    with pytest.raises(ManifestError, match="'b' is in 2 patients") as caught:
        make_split(manifest, MakeOptions())
    assert str(caught.value.hint).startswith("--fractions 0.8,0.2; or merge such a class")
    make_split(manifest, MakeOptions(fractions=(0.8, 0.0, 0.2)))


@pytest.mark.parametrize(
    ("noun", "many"), [("study", "studies"), ("key", "keys"), ("patient", "patients"), ("y", "ys"), ("bay", "bays")]
)
def test_nouns_of_columns_are_counted_as_in_english(noun: str, many: str) -> None:
    assert (plural(noun, 1), plural(noun, 2)) == (noun, many)

"""What goes with the label that is no disease."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.datasets.ham10000 import Ham10000
from medtool.datasets.isic2017 import Isic2017
from medtool.demo.options import Kind
from medtool.demo.patients import patients
from medtool.manifest import Manifest
from medtool.split.findings import Finding, Severity
from medtool.split.rules.confounding import columns_leaking_labels, parts_that_differ, sites_predicting_labels
from medtool.split.rules.votes import votes
from medtool.split.table import AuditTable
from tests.split.rules.tables import only, reordered, seen, table_of

Rows = list[dict[str, str]]


def sites(table: AuditTable) -> list[Finding]:
    return sites_predicting_labels(table, votes(table))


def columns(table: AuditTable) -> list[Finding]:
    return columns_leaking_labels(table, votes(table))


def parts(table: AuditTable) -> list[Finding]:
    return parts_that_differ(table, votes(table))


def cohort(n: int, *, images: int = 1, **cells: Callable[[int, str, np.random.Generator], str]) -> Rows:
    """Return rows of ``n`` patients, half of them malignant; each column is made of patient, label and chance."""
    rng = np.random.default_rng(7)
    rows = []
    for number in range(n):
        label = ("benign", "malignant")[number % 2]
        its = {name: make(number, label, rng) for name, make in cells.items()}
        rows += [{"patient": f"P{number}", "label": label, **its}] * images
    return rows


def agreeing(share: float) -> Callable[[int, str, np.random.Generator], str]:
    """Return a column that says A of benign and B of malignant patients, but for a share that says the other."""
    return lambda _, label, rng: "AB"[(label == "malignant") ^ (rng.random() > share)]


def chance(values: str = "AB") -> Callable[[int, str, np.random.Generator], str]:
    return lambda _, __, rng: str(rng.choice(list(values)))


@pytest.mark.parametrize(
    "name", ["site", "scanner", "Device Type", "ManufacturerModelName", "image_source", "camera_2"]
)
def test_a_device_that_goes_with_the_label_is_told_with_its_p_value(name):
    (found,) = sites(table_of(cohort(200, images=3, **{name: agreeing(0.7)})))
    (case,) = found.cases
    assert (found.rule.code, found.severity, case.subject) == ("C401", Severity.MEDIUM, name)
    assert 0.1 <= case.values["cramers_v"] < 0.5
    assert 0 < case.values["p_value"] < 0.01
    assert case.values["votes"] == 200
    assert "always the most frequent for 50.0%" in case.detail


def test_a_site_of_one_class_each_is_a_high_finding():
    assert seen(sites(table_of(cohort(60, site=agreeing(1.0))))) == {("C401", "high"): {"site"}}


def test_the_same_few_patients_prove_nothing_however_often_they_were_imaged():
    rows = cohort(6, images=50, site=agreeing(1.0))
    assert sites(table_of(rows)) == []
    assert seen(sites(table_of([{**row, "patient": ""} for row in rows]))) == {("C401", "high"): {"site"}}


def test_a_large_table_with_the_least_association_is_left_alone():
    assert sites(table_of(cohort(3000, site=agreeing(0.53)))) == []


@pytest.mark.parametrize("name", ["localization", "anatom_site_general", "primary_site", "sex", "biopsy_site"])
def test_a_place_on_the_body_is_no_site(name):
    assert sites(table_of(cohort(200, **{name: agreeing(0.7)}))) == []


def test_an_empty_cell_is_no_site():
    rows = cohort(100, site=lambda _, label, __: "" if label == "malignant" else "A")
    assert sites(table_of(rows)) == []


def test_chance_alone_is_hardly_ever_told():
    n_found = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = [
            {"label": str(rng.integers(3)), "site": str(rng.integers(4)), "split": str(rng.choice(["train", "test"]))}
            for _ in range(80)
        ]
        table = table_of(rows)
        n_found += bool(sites(table)) + bool(parts(table)) + bool(columns(table))
    assert n_found <= 3


@pytest.mark.parametrize(
    "make",
    [
        lambda _, label, __: {"benign": "0", "malignant": "1"}[label],
        lambda number, label, __: f"{label} type {number // 2 % 5}",
        lambda number, label, __: "" if label == "benign" else "excised" + "!" * (number % 3),
        lambda _, label, rng: f"{rng.normal(4.0 * (label == 'malignant')):.5f}",
        lambda _, label, rng: f"{abs(rng.normal()) + 3 * (label == 'malignant'):.4f}" if rng.random() > 0.05 else "nan",
        lambda _, label, rng: f"{rng.uniform(2, 3) * (1 if label == 'benign' else rng.choice([-1, 9])):.4f}",
        agreeing(0.98),
    ],
    ids=["renamed", "many-to-one", "filled in", "measured", "measured with gaps", "measured at both ends", "mistakes"],
)
def test_a_column_that_nearly_gives_the_label_away_is_told(make):
    (found,) = columns(table_of(cohort(200, images=2, extra=make, sex=chance(), age=lambda *_: "50")))
    (case,) = found.cases
    assert (found.rule.code, found.severity, case.subject) == ("C402", Severity.MEDIUM, "extra")
    assert case.values["area"] >= 0.95
    assert case.values["p_value"] < 0.01


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("extra", chance()),
        ("extra", agreeing(0.85)),
        ("extra", lambda _, label, rng: f"{rng.normal(label == 'malignant'):.5f}"),
        ("extra", lambda number, _, __: f"text {number}"),
        ("extra", lambda number, label, __: str(number + 1000 * (label == "malignant"))),
        ("extra", lambda *_: "same"),
        ("accession_number", agreeing(1.0)),
        ("sourceFile", agreeing(1.0)),
        ("study_id", agreeing(1.0)),
    ],
)
def test_weak_predictors_and_names_are_left_alone(name, make):
    assert columns(table_of(cohort(200, **{name: make}))) == []


def test_few_patients_prove_nothing():
    assert columns(table_of(cohort(18, extra=agreeing(1.0)))) == []
    assert seen(columns(table_of(cohort(24, extra=agreeing(1.0))))) == {("C402", "medium"): {"extra"}}


def test_a_column_that_tells_one_rare_class_is_told_where_the_class_has_ten_votes():
    rows = [{"label": "rare" if n % 40 == 0 else f"class {n % 3}", "extra": "x" * (n % 40 == 0)} for n in range(800)]
    assert only(columns(table_of(rows)), "C402").cases[0].detail.startswith("tells rare from the rest")
    assert columns(table_of(rows[:320])) == []


def test_a_column_of_the_diagnosis_that_goes_with_it_is_a_low_finding():
    rows = cohort(200, dx_type=agreeing(0.8), hair=agreeing(0.8))
    assert seen(columns(table_of(rows))) == {("C402", "low"): {"dx_type"}}


def test_the_more_columns_are_looked_at_the_more_evidence_it_takes():
    says = ["A"] * 15 + ["B"] * 5 + ["A"] * 6 + ["B"] * 14
    rows = [{"label": "mn"[place >= 20], "dx_type": one} for place, one in enumerate(says)]
    assert seen(columns(table_of(rows))) == {("C402", "low"): {"dx_type"}}
    more = [{**row, **{f"more{n}": "xy"[(place + n) % 2] for n in range(3)}} for place, row in enumerate(rows)]
    assert columns(table_of(more)) == []


@pytest.fixture(scope="module")
def ham10000(shared_data: Path) -> Manifest:
    return Ham10000().manifest(shared_data / "ham10000")


def test_of_ham10000_only_the_way_of_diagnosis_is_told(ham10000):
    table = AuditTable.of(ham10000)
    assert seen(columns(table)) == {("C402", "low"): {"dx_type"}}
    assert sites(table) == []


def test_of_isic_2017_nothing_is_told(shared_data):
    table = AuditTable.of(Isic2017().manifest(shared_data / "isic2017"))
    assert {"age", "sex"} <= set(table.manifest.columns)
    assert columns(table) == sites(table) == []


@pytest.mark.parametrize("kind", list(Kind))
def test_of_a_demo_nothing_is_told(kind):
    rows = []
    people = patients(kind, 0)
    for _ in range(150):
        who = next(people)
        known = {"site": who.site, "label": who.label, "age": str(who.age), "sex": who.sex}
        rows += [{"patient": who.name, **known, "localization": who.localization}] * who.visits
    table = table_of(rows)
    assert columns(table) == sites(table) == []


def test_parts_with_other_labels_are_told():
    rows = cohort(200, split=lambda _, label, rng: "test" if rng.random() < (0.6, 0.2)[label == "benign"] else "train")
    (found,) = parts(table_of(rows))
    assert (found.rule.code, found.severity, found.cases[0].subject) == ("C403", Severity.LOW, "label")
    assert "of test and" in found.cases[0].detail
    assert "of train" in found.cases[0].detail


def test_parts_that_were_drawn_by_chance_are_left_alone_and_so_are_sites_that_are_parts():
    rows = cohort(200, fold=chance("01"), site=chance("xy"))
    assert parts(table_of(rows)) == []
    assert seen(parts(table_of([{**row, "site": row["fold"]} for row in rows]))) == {}
    told = [{**row, "site": row["fold"] if n % 10 else "9"} for n, row in enumerate(rows)]
    assert seen(parts(table_of(told))) == {("C403", "low"): {"site"}}


@settings(max_examples=10)
@given(st.randoms())
def test_the_order_of_rows_changes_nothing(random):
    rows = cohort(60, images=2, site=agreeing(0.9), extra=agreeing(1.0), split=lambda n, *_: ("train", "test")[n % 2])
    rows = [{**row, "magnification": "48"[number % 2]} for number, row in enumerate(rows)]
    table = table_of(rows)
    other = reordered(table, random.sample(range(len(rows)), len(rows)))
    for rule in (sites, columns, parts):
        assert rule(table)
        assert rule(table) == rule(other)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from medtool.manifest import Manifest
from medtool.roles import roles_of
from medtool.split.findings import Case, Finding, Severity
from medtool.split.marks import Leak
from medtool.split.rules.runs import not_compared, run_findings
from medtool.split.seen import Seen, seen_of
from medtool.split.table import AuditTable


def manifest_of(rows: Sequence[Mapping[str, str]]) -> Manifest:
    return Manifest.from_rows([{"image": f"{number}.png", **row} for number, row in enumerate(rows)], Path())


def row(image_id: str, patient: str = "", split: str = "", **more: str) -> dict[str, str]:
    return {"image_id": image_id, "patient": patient, "split": split, **more}


def run_of(name: str, *rows: Mapping[str, str], groups: Sequence[str] = ("patient",), **options) -> Seen:
    manifest = manifest_of(rows)
    return seen_of(manifest, manifest.table.get_column("split"), run=name, groups=groups, **options)


def by_code(findings: Sequence[Finding]) -> dict[tuple[str, Severity], tuple[Case, ...]]:
    return {(finding.rule.code, finding.severity): finding.cases for finding in findings}


HIGH, MEDIUM = Severity.HIGH, Severity.MEDIUM


def test_a_patient_that_the_run_or_its_parent_has_seen_is_a_case_that_says_which():
    base = run_of("base", row("x", "P1", "val"), row("y", "P2", "train"))
    fine = run_of("fine", row("a", "P1", "train"), row("b", "P1", "train"), row("c", "P3", "train"), parents=[base])
    table = AuditTable.of(manifest_of([row("m", "P1", "test"), row("n", "P2", "test"), row("o", "P3", "train")]))
    found = by_code(run_findings(table, [fine]))
    assert list(found) == [("R501", HIGH)]
    assert [(case.subject, case.rows, case.detail) for case in found["R501", HIGH]] == [
        (
            "patient P1",
            ("m",),
            "fine trained on 2 images; base (which fine started from) chose on 1 image; 1 in test",
        ),
        ("patient P2", ("n",), "base (which fine started from) trained on 1 image; 1 in test"),
    ]


def test_the_val_part_is_scored_where_there_is_no_test_and_everything_where_there_are_no_parts():
    run = run_of("run", row("a", "P1", "train"), row("b", "P2", "train"))
    rows = [row("m", "P1", "val"), row("n", "P2", "train")]
    assert [case.subject for case in run_findings(AuditTable.of(manifest_of(rows)), [run])[0].cases] == ["patient P1"]
    bare = AuditTable.of(manifest_of([row("m", "P1"), row("n", "P2")]))
    found = run_findings(bare, [run])[0].cases
    assert [case.subject for case in found] == ["patient P1", "patient P2"]
    assert found[0].detail == "run trained on 1 image; 1 here"


def test_ids_that_differ_in_spelling_are_a_weaker_finding_and_equal_ones_are_not_in_it():
    run = run_of("run", row("a", "p01", "train"), row("b", "P2", "train"), row("c", "p02", "train"))
    table = AuditTable.of(manifest_of([row("m", "P1", "test"), row("n", "P2", "test"), row("o", "", "test")]))
    found = by_code(run_findings(table, [run]))
    assert {key: [case.subject for case in cases] for key, cases in found.items()} == {
        ("R501", HIGH): ["patient P2"],
        ("R501", MEDIUM): ["patient P1"],
    }
    assert found["R501", MEDIUM][0].detail == "run trained on 1 image, written 'p01'; 1 in test"


def test_unknown_patients_are_never_seen():
    run = run_of("run", row("a", "unknown", "train"), row("b", "", "train"), row("c", "P9", "train"))
    table = AuditTable.of(manifest_of([row("m", "unknown", "test"), row("n", "", "test"), row("o", "P1", "test")]))
    assert run_findings(table, [run]) == []


def test_columns_that_differ_in_their_ending_are_compared_and_others_are_named():
    run = run_of("run", {**row("a", "", "train"), "patient_id": "P1"}, groups=("patient_id",))
    table = AuditTable.of(manifest_of([row("m", "P1", "test", lesion="L1")]))
    assert [case.subject for case in run_findings(table, [run])[0].cases] == ["patient P1"]
    assert not_compared(table, [run]) == ["run run: lesion not compared (it knows patient_id)"]


def test_what_cannot_be_compared_is_said():
    run = run_of("run", row("a", "P1", "train"), groups=())
    assert not_compared(AuditTable.of(manifest_of([row("m", "P1", "test")])), [run]) == [
        "run run: patient not compared (it knows no such column)"
    ]
    assert not_compared(AuditTable.of(manifest_of([row("m", "", "test")])), [run]) == [
        "run run: only images compared, as the manifest has no patient, lesion, ..."
    ]
    assert not_compared(AuditTable.of(manifest_of([row("m", "P1", "train")])), [run]) == [
        "run run: no row is in test or val, so there is nothing to score it on"
    ]


def test_an_image_is_known_by_its_bytes_whatever_it_is_called():
    shas = {name: name * 64 for name in "abc"}
    base = run_of("base", row("b", "", "val"), row("x", "", "train"), sha256s=shas, groups=())
    run = run_of("run", row("a", "", "train"), row("c", "", "train"), sha256s=shas, parents=[base], groups=())
    table = AuditTable.of(manifest_of([row("m", "", "test"), row("b", "", "test"), row("c", "", "test")]))
    found = by_code(run_findings(table, [run], sha256s={"m": "a" * 64, "b": "b" * 64, "c": "d" * 64}))
    assert [(case.subject, case.detail) for case in found["R502", HIGH]] == [
        ("b", "base (which run started from) chose on it (same bytes)"),
        ("m", "run trained on it, written 'a' (same bytes)"),
    ]
    assert list(found) == [("R502", HIGH)], "an id whose bytes differ is another image"


def test_to_have_seen_a_picture_that_shows_nobody_is_no_finding():
    run = run_of("run", row("a", "", "train"), row("b", "", "train"), sha256s={"a": "a" * 64}, groups=())
    table = AuditTable.of(manifest_of([row("m", "", "test"), row("b", "", "test")]))
    sha256s = {"m": "a" * 64, "b": "b" * 64}
    assert len(run_findings(table, [run], sha256s=sha256s)) == 2
    assert run_findings(table, [run], sha256s=sha256s, nobody={"m", "b"}) == []


def test_an_image_whose_bytes_are_not_known_is_a_weaker_finding():
    run = run_of("run", row("a", "", "train"), row("b", "", "train"), sha256s={"a": "a" * 64}, groups=())
    table = AuditTable.of(manifest_of([row("a", "", "test"), row("b", "", "test"), row("c", "", "test")]))
    found = by_code(run_findings(table, [run], sha256s={"b": "b" * 64}))
    assert [case.detail for case in found["R502", MEDIUM]] == ["run trained on it (same id, bytes not compared)"] * 2


def test_a_leaky_run_is_a_case_with_what_was_let_through():
    base = run_of("base", row("a", "P1", "train"), leaks=[Leak("G101", 3)])
    run = run_of("run", row("b", "P2", "train"), parents=[base])
    found = by_code(run_findings(AuditTable.of(manifest_of([row("m", "P3", "test")])), [run, base]))
    assert [(case.subject, case.rows, case.detail) for case in found["R503", MEDIUM]] == [
        ("run base", (), "G101 (3 cases)"),
        ("run run", (), "G101 (3 cases)"),
    ]


def folds_manifest(folds: Sequence[int]) -> Manifest:
    return manifest_of([{"image_id": f"i{n}", "patient": f"P{n}", "fold": str(fold)} for n, fold in enumerate(folds)])


def test_a_run_of_a_fold_is_held_against_the_fold_that_it_has_not_seen():
    manifest = folds_manifest([0, 0, 1, 1, 2, 2])
    run = seen_of(manifest, roles_of(manifest, 1), run="fold 1", groups=("patient",))
    assert run_findings(AuditTable.of(manifest), [run]) == []
    base = run_of("base", row("z", "P3", "train"))
    late = seen_of(manifest, roles_of(manifest, 1), run="late", groups=("patient",), parents=[base])
    (found,) = run_findings(AuditTable.of(manifest), [late])
    assert [case.rows for case in found.cases] == [("i3",)]


def test_a_run_that_has_seen_every_fold_is_held_against_all():
    manifest = folds_manifest([0, 0, 1, 1])
    run = seen_of(manifest, pl.Series(["train"] * 3 + ["test"]), run="run", groups=("patient",))
    found = by_code(run_findings(AuditTable.of(manifest), [run]))
    assert {key: len(cases) for key, cases in found.items()} == {("R501", HIGH): 3, ("R502", MEDIUM): 3}


patients = st.lists(st.tuples(st.sampled_from(["P1", "P2", "P3", ""]), st.booleans()), min_size=2, max_size=10)


@given(patients, patients)
def test_exactly_the_patients_in_both_are_found(here, there):
    rows = [row(f"h{n}", patient, "test" if is_test else "train") for n, (patient, is_test) in enumerate(here)]
    seen = [row(f"t{n}", patient, "train" if is_seen else "test") for n, (patient, is_seen) in enumerate(there)]
    if not any(is_seen and patient for patient, is_seen in there) or not any(patient for patient, _ in here):
        return
    found = run_findings(AuditTable.of(manifest_of([*rows, row("z", "P9", "test")])), [run_of("run", *seen)])
    wanted = {p for p, is_test in here if is_test and p} & {p for p, is_seen in there if is_seen}
    assert {case.subject for each in found for case in each.cases} == {f"patient {name}" for name in wanted}

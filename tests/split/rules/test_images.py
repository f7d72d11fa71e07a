from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medtool.manifest import Manifest
from medtool.split.duplicates.fingerprints import Fingerprints
from medtool.split.findings import Case, Finding
from medtool.split.rules.images import files_predicting_labels, image_findings
from medtool.split.table import AuditTable


def table_of(labels: Sequence[str], patients: Sequence[str] | None = None) -> AuditTable:
    rows = [
        {"image": f"{number}.png", "image_id": f"i{number}", "label": label, "patient": patients[number]}
        if patients
        else {"image": f"{number}.png", "image_id": f"i{number}", "label": label}
        for number, label in enumerate(labels)
    ]
    return AuditTable.of(Manifest.from_rows(rows, Path()))


def fingerprints_of(sizes: Sequence[tuple[int, int]], formats: Sequence[str] | None = None) -> Fingerprints:
    made = Fingerprints.empty(len(sizes))
    made.sha256[:] = ["0" * 64] * len(sizes)
    made.sizes[:] = sizes
    made.formats[:] = formats or ["PNG"] * len(sizes)
    return made


def by_code(findings: Sequence[Finding]) -> dict[str, tuple[Case, ...]]:
    return {finding.rule.code: finding.cases for finding in findings}


def test_missing_unreadable_and_blank_images_are_named_and_sound_ones_are_not():
    made = fingerprints_of([(64, 48)] * 5)
    made.sha256[0] = made.sha256[1] = made.sha256[2] = ""
    made.problems[1] = "a PNG that is cut short"
    made.is_blank[3] = True
    found = by_code(image_findings(table_of([""] * 5), made, missing={2: "a link leads out of the manifest's folder"}))
    assert {code: [(case.rows, case.detail) for case in cases] for code, cases in found.items()} == {
        "I701": [
            (("i0",), "0.png: does not exist"),
            (("i2",), "2.png: a link leads out of the manifest's folder"),
        ],
        "I702": [(("i1",), "1.png: a PNG that is cut short")],
        "I703": [(("i3",), "3.png: one value in all 64 × 48 px")],
    }


def test_rows_of_another_manifest_are_passed_over():
    made = fingerprints_of([(64, 48)] * 3)
    made.sha256[2] = ""
    assert image_findings(table_of([""] * 2), made) == []


LABELS = ["nv", "mel"] * 30


def test_a_format_or_size_that_goes_with_the_label_is_a_case_with_its_p_value():
    formats = ["JPEG" if label == "nv" else "PNG" for label in LABELS]
    sizes = [(600, 450) if label == "nv" else (1024, 768) for label in LABELS]
    (found,) = files_predicting_labels(table_of(LABELS), fingerprints_of(sizes, formats))
    assert (found.rule.code, [case.subject for case in found.cases]) == ("C404", ["format", "height", "width"])
    assert all(case.values["p_value"] < 1e-9 for case in found.cases)
    assert all(case.values["accuracy"] == 1 for case in found.cases)


def test_an_aspect_ratio_alone_is_a_case():
    rng = np.random.default_rng(0)
    widths = rng.integers(500, 900, size=200)
    labels = ["nv", "mel"] * 100
    sizes = [
        (int(width), int(width * (0.75 if label == "nv" else 1))) for width, label in zip(widths, labels, strict=True)
    ]
    (found,) = files_predicting_labels(table_of(labels), fingerprints_of(sizes))
    assert "aspect ratio" in [case.subject for case in found.cases]


def test_sizes_that_chance_alone_spreads_are_no_case():
    rng = np.random.default_rng(0)
    sizes = [(int(side), int(side)) for side in rng.integers(300, 900, size=len(LABELS))]
    assert files_predicting_labels(table_of(LABELS), fingerprints_of(sizes)) == []


def test_many_images_of_few_patients_are_no_evidence():
    labels = ["nv"] * 30 + ["mel"] * 30
    patients = ["P1"] * 30 + ["P2"] * 30
    formats = ["JPEG"] * 30 + ["PNG"] * 30
    made = fingerprints_of([(64, 64)] * 60, formats)
    assert files_predicting_labels(table_of(labels, patients), made) == []
    assert files_predicting_labels(table_of(labels), made) != []


def test_without_labels_or_readable_images_there_is_no_case():
    assert files_predicting_labels(table_of([""] * 4), fingerprints_of([(4, 4)] * 4)) == []
    assert files_predicting_labels(table_of(LABELS), Fingerprints.empty(len(LABELS))) == []

"""Which columns of a manifest must not be cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtool.errors import ManifestError, UsageError
from medtool.manifest import Manifest
from medtool.split.table import AuditTable


def table_of(groups: tuple[str, ...] = (), rows: int = 300, **columns: object) -> AuditTable:
    made = [
        {"image": f"{row}.png", **{name: str(value(row)) for name, value in columns.items()}}  # type: ignore[operator]
        for row in range(rows)
    ]
    return AuditTable.of(Manifest.from_rows(made, Path()), groups)


@pytest.mark.parametrize(
    "name",
    [
        "patient",
        "patient_id",
        "Patient ID",
        "PatientID",
        "patientId",
        "PatientName",
        "subject_no",
        "participant",
        "case",
        "CaseID",
        "StudyInstanceUID",
        "lesion_id",
        "slide-key",
        "video",
        "specimen_number",
    ],
)
def test_columns_are_known_by_their_names_however_they_are_written(name):
    assert table_of(**{name: lambda row: f"P{row // 3}"}).groups == (name,)


@pytest.mark.parametrize(
    "name", ["patient_age", "PatientSex", "case_control", "study_date", "volume_ml", "outpatient", "ids"]
)
def test_columns_that_say_something_else_are_none(name):
    assert table_of(**{name: lambda row: f"P{row // 3}"}).groups == ()


def test_the_widest_comes_first():
    table = table_of(lesion=lambda row: row // 2, patient=lambda row: row // 6, study=lambda row: row // 3)
    assert table.groups == ("patient", "study", "lesion")


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("study", lambda row: ("PH2", "ISIC")[row % 2], "2 values in 300 rows"),
        ("exam", lambda row: "CT", "1 value in 300 rows"),
        ("case", lambda row: row // 3 % 2, "2 values in 300 rows"),
        ("volume", lambda row: row / 8, "of 300 values are fractions"),
        ("study", lambda row: f"cohort {row // 3 % 5}", "each value has 20 patients on average"),
    ],
)
def test_a_column_of_such_a_name_without_ids_is_passed_over_and_said(name, values, reason):
    table = table_of(patient=lambda row: row // 3, **{name: values})
    assert table.groups == ("patient",)
    [line] = table.passed_over
    assert reason in line
    assert f"--group {name} takes it" in line
    assert table_of((name,), patient=lambda row: row // 3, **{name: values}).groups == (name,)


def test_few_slides_with_many_images_each_are_ids():
    assert table_of(slide=lambda row: f"S{row % 6}").groups == ("slide",)


def test_few_images_of_two_cases_are_ids():
    assert table_of(rows=8, case=lambda row: row % 2).groups == ("case",)


def test_whole_numbers_that_a_table_program_gave_a_fraction_are_ids():
    assert table_of(lesion=lambda row: f"{row // 3}.0").groups == ("lesion",)


@pytest.mark.parametrize("name", ["image", "image_id", "label", "split", "fold"])
def test_what_says_nothing_of_who_is_shown_is_refused(name):
    columns = {"label": lambda row: "a", "split": lambda row: "train", "fold": lambda row: "0"}
    with pytest.raises(UsageError, match=f"--group {name}: this column does not say"):
        table_of((name,), **columns)


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(ManifestError, match="no column 'lesion' to group by"):
        table_of(("lesion",))

"""What an earlier audit listed is accepted, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medtool.errors import InputError
from medtool.split.baseline import read_baseline, without_known
from medtool.split.catalogue import GROUP_IN_TWO_PARTS, UNKNOWN_GROUPS
from medtool.split.findings import FORMAT, FORMAT_VERSION, Case, Finding, Severity


def findings() -> list[Finding]:
    cut = Finding(
        GROUP_IN_TWO_PARTS,
        (Case("P1", ("a", "b"), "train 1, test 1"), Case("P2", ("c", "d"), "train 1, test 1")),
        Severity.HIGH,
    )
    return [cut, Finding(UNKNOWN_GROUPS, (Case("patient", ("e",), "1 row"),), Severity.LOW)]


def document_of(listed: list[Finding], **changes: Any) -> dict[str, Any]:
    cases = [
        {
            "code": each.rule.code,
            "cases": [{"key": key, "subject": case.subject} for key, case in each.keyed],
        }
        for each in listed
    ]
    return {"format": FORMAT, "version": FORMAT_VERSION, "findings": cases, **changes}


def written(folder: Path, document: object, encoding: str = "utf-8") -> Path:
    path = folder / "known.json"
    path.write_bytes(json.dumps(document).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_an_audit_found_is_known_to_the_next_one(tmp_path: Path, encoding: str) -> None:
    known = read_baseline(written(tmp_path, document_of(findings()), encoding))
    assert without_known(findings(), known) == ([], 3)


def test_only_what_is_new_stays(tmp_path: Path) -> None:
    known = read_baseline(written(tmp_path, document_of(findings()[1:])))
    kept, n_known = without_known(findings(), known)
    assert (kept, n_known) == (findings()[:1], 1)


def test_a_finding_keeps_the_cases_that_are_new_and_its_severity(tmp_path: Path) -> None:
    cut, _ = findings()
    cut = replace(cut, severity=Severity.MEDIUM)
    known = read_baseline(written(tmp_path, document_of([replace(cut, cases=cut.cases[:1])])))
    assert without_known([cut], known) == ([replace(cut, cases=cut.cases[1:])], 1)


@pytest.mark.parametrize("rows", [("a", "b", "z"), ("a",)])
def test_a_case_with_other_rows_is_new(tmp_path: Path, rows: tuple[str, ...]) -> None:
    known = read_baseline(written(tmp_path, document_of(findings())))
    changed = [Finding(GROUP_IN_TWO_PARTS, (Case("P1", rows, "train 2, test 1"),), Severity.HIGH)]
    assert without_known(changed, known) == (changed, 0)


def test_the_order_of_rows_does_not_matter_and_other_numbers_or_a_worse_severity_do(tmp_path: Path) -> None:
    known = read_baseline(written(tmp_path, document_of(findings())))
    [case] = [case for each in findings() for case in each.cases if case.subject == "P1"]
    turned = Finding(GROUP_IN_TWO_PARTS, (Case("P1", case.rows[::-1], case.detail, {"n": 2}),), Severity.HIGH)
    assert without_known([turned], known) == ([], 1)
    other = Finding(GROUP_IN_TWO_PARTS, (Case("P1", case.rows, "other numbers"),), Severity.HIGH)
    assert without_known([other], known) == ([other], 0)
    milder = Finding(GROUP_IN_TWO_PARTS, (case,), Severity.LOW)
    assert without_known([milder], known) == ([milder], 0)


def test_a_baseline_made_on_top_of_another_keeps_what_that_one_knew(tmp_path: Path) -> None:
    first, second = findings()
    earlier = [key for key, _ in second.keyed]
    known = read_baseline(written(tmp_path, document_of([first], known=earlier)))
    assert without_known(findings(), known) == ([], 3)


def test_a_clean_audit_knows_nothing(tmp_path: Path) -> None:
    assert read_baseline(written(tmp_path, document_of([]))) == frozenset()
    assert without_known(findings(), frozenset()) == (findings(), 0)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"format": "medtool-lineage", "version": 1}, "medtool-lineage"),
        ({"findings": []}, "None"),
        ({"format": FORMAT, "version": 99, "findings": []}, "version 99"),
        ({"format": FORMAT, "version": FORMAT_VERSION}, "damaged"),
        ({"format": FORMAT, "version": FORMAT_VERSION, "findings": [{"cases": [{"key": 1}]}]}, "damaged"),
        ({"format": FORMAT, "version": FORMAT_VERSION, "findings": [{"cases": ["0123"]}]}, "damaged"),
        ({"format": FORMAT, "version": FORMAT_VERSION, "findings": [], "known": "0123"}, "damaged"),
        ([], "list"),
    ],
)
def test_any_other_file_is_refused_with_the_command_that_makes_one(
    tmp_path: Path, document: object, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_baseline(written(tmp_path, document))
    assert "\n" not in caught.value.message
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00\xff", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "known.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"known\.json"):
        read_baseline(path)
    with pytest.raises(InputError, match=r"nowhere\.json"):
        read_baseline(tmp_path / "nowhere.json")

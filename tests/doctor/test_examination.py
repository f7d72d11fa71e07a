from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from medtool.doctor import Check, Status, examination, examine, worst
from medtool.doctor.probe import Answer


@pytest.fixture(autouse=True)
def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer the probing checks without loading torch."""
    values = {
        "torch": {"version": "9.9", "seconds": 1.0, "cuda": None, "threads": 2},
        "torchvision": "9.9",
        "devices": [
            {"device": "cpu", "name": "x", "memory_bytes": None, "bf16": False, "precision": "fp32", "problem": None}
        ],
    }
    monkeypatch.setattr(
        "medtool.doctor.probing.ask", lambda steps: {step: Answer(value=values.get(step)) for step in steps}
    )


def test_names_are_unique_and_have_no_spaces() -> None:
    names = [check.name for check in examine()]
    assert len(set(names)) == len(names)
    assert not any(" " in name for name in names)
    assert {"python", "torch", "torchvision", "device:cpu", "plugins", "memory", "weights", "variables"} <= set(names)


def test_everything_seen_is_one_line() -> None:
    for check in examine():
        assert "\n" not in check.seen + (check.next or "")
        assert check.seen


def test_a_check_that_crashes_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {check.name for check in examine()}

    def crash_late() -> Iterator[Check]:
        yield Check("memory", Status.OK, "fine so far")
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(examination.machine, "look_at_memory", crash_late)
    after = list(examine())
    assert {check.name for check in after} == before
    (crashed,) = [check for check in after if check.status is Status.FAILED and check.name == "memory"]
    assert "ZeroDivisionError: oops" in crashed.seen


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], Status.OK),
        ([Status.OK, Status.WARNING, Status.OK], Status.WARNING),
        ([Status.FAILED, Status.WARNING], Status.FAILED),
    ],
)
def test_the_worst_status_counts(statuses: list[Status], expected: Status) -> None:
    assert worst(Check("x", status, "y") for status in statuses) is expected


def test_the_page_names_every_check() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "doctor.md").read_text(encoding="utf-8")
    documented = {name.split(":")[0] for name in re.findall(r"`([a-z-]+(?::[A-Z/]+)?)`", page)}
    assert {check.name.split(":")[0] for check in examine()} <= documented

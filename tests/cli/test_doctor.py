from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from medtool.doctor import Check, Status

if TYPE_CHECKING:
    from tests.conftest import Ended

Medtool = Callable[..., "Ended"]


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """Return the checks that the doctor is made to find; tests change them."""
    found = [
        Check("python", Status.OK, "3.11"),
        Check("extra:nifti", Status.OK, "not installed (optional)", "pip install 'medtool[nifti]'"),
        Check("memory", Status.WARNING, "1.0 GiB", "buy some"),
    ]
    monkeypatch.setattr("medtool.doctor.examine", lambda **_: iter(found))
    return found


def test_warnings_do_not_fail(medtool: Medtool, checks: list[Check]) -> None:
    ended = medtool("doctor")
    assert ended.code == 0
    assert "  next: buy some" in ended.out
    assert "seconds" in ended.err


def test_a_failure_is_exit_code_1(medtool: Medtool, checks: list[Check]) -> None:
    checks.append(Check("torch", Status.FAILED, "cannot be imported", "pip install torch"))
    ended = medtool("doctor")
    assert ended.code == 1
    assert "pip install torch" in ended.out


def test_quiet_names_what_is_not_ok(medtool: Medtool, checks: list[Check]) -> None:
    ended = medtool("doctor", "-q")
    assert (ended.code, ended.out, ended.err) == (0, "memory\n", "")


def test_the_document_is_versioned_and_whole(medtool: Medtool, checks: list[Check]) -> None:
    document: dict[str, Any] = json.loads(medtool("doctor", "--json").out)
    assert list(document)[:2] == ["format", "version"]
    assert (document["format"], document["version"], document["status"]) == ("medtool-doctor", 1, "warning")
    assert document["checks"][1] == {
        "name": "extra:nifti",
        "status": "ok",
        "seen": "not installed (optional)",
        "next": "pip install 'medtool[nifti]'",
    }


def test_the_variables_of_every_command_are_known(medtool: Medtool, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("medtool.doctor.examine", lambda **options: iter([given.update(options) or _ok()]))
    assert medtool("doctor").code == 0
    assert {"MEDTOOL_SEGMENT_POINTS", "MEDTOOL_WEIGHTS_GET_OVERWRITE", "MEDTOOL_DOCTOR_QUIET"} <= given["variables"]


def test_a_variable_that_the_doctor_knows_does_set_the_option(
    medtool: Medtool, checks: list[Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDTOOL_DOCTOR_QUIET", "1")
    assert medtool("doctor").out == "memory\n"


def _ok() -> Check:
    return Check("python", Status.OK, "3.11")


@pytest.mark.slow
def test_the_doctor_finds_this_machine_sound_without_loading_torch_itself(medtool: Medtool) -> None:
    had_torch = "torch" in sys.modules
    ended = medtool("doctor", "--json")
    document = json.loads(ended.out)
    rows = {check["name"]: check for check in document["checks"]}
    assert {"torch", "torchvision", "device:cpu", "plugins"} <= set(rows)
    failed = [check for check in document["checks"] if check["status"] == "failed"]
    assert ended.code == (1 if failed else 0)
    assert rows["torch"]["status"] == "ok", rows["torch"]
    assert rows["torchvision"]["status"] == "ok", rows["torchvision"]
    assert ("torch" in sys.modules) == had_torch

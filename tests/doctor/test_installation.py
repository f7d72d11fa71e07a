from __future__ import annotations

import importlib.metadata
from email.message import Message
from pathlib import Path

import pytest

from medtool import weights
from medtool.doctor import Status, installation


def _requires(monkeypatch: pytest.MonkeyPatch, *requirements: str, extras: tuple[str, ...] = ()) -> None:
    """Make ``requirements`` those of medtool, installed in its own version."""
    real_requires, real_metadata = importlib.metadata.requires, importlib.metadata.metadata
    real_version = importlib.metadata.version

    def requires(name: str) -> list[str] | None:
        return list(requirements) if name == "medtool" else real_requires(name)

    def metadata(name: str) -> object:
        if name != "medtool":
            return real_metadata(name)
        made = Message()
        made["Requires-Python"] = ">=3.11"
        for extra in extras:
            made["Provides-Extra"] = extra
        return made

    def version(name: str) -> str:
        return installation.__version__ if name == "medtool" else real_version(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    monkeypatch.setattr(importlib.metadata, "metadata", metadata)
    monkeypatch.setattr(importlib.metadata, "version", version)


def test_floors_that_are_not_met_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    _requires(monkeypatch, "numpy>=99", "no-such-package>=1", "rich", "nibabel>=99; extra == 'nifti'")
    checks = {check.name: check for check in installation.look_at_requirements()}
    assert set(checks) == {"medtool", "requirement:numpy", "requirement:no-such-package"}
    numpy = checks["requirement:numpy"]
    assert numpy.status is Status.FAILED
    assert numpy.seen == f"numpy is {importlib.metadata.version('numpy')}; wanted >=99"
    assert numpy.next == "pip install 'numpy>=99'"
    assert checks["requirement:no-such-package"].seen == "no-such-package is not installed"


def test_floors_that_are_met_are_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    _requires(monkeypatch, "numpy>=2", "rich; python_version < '3'")
    checks = list(installation.look_at_requirements())
    assert [(check.name, check.status) for check in checks] == [("medtool", Status.OK), ("requirements", Status.OK)]
    assert checks[1].seen.startswith("all 1 ")


def test_running_without_installation_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "DISTRIBUTION", "medtool-that-is-not-installed")
    (check,) = installation.look_at_requirements()
    assert check.status is Status.FAILED
    assert "pip install" in str(check.next)
    assert list(installation.look_at_extras()) == []
    assert [check.status for check in installation.look_at_python()] == [Status.OK]


def test_an_older_installed_version_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    _requires(monkeypatch)
    monkeypatch.setattr(installation, "__version__", "999.0")
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.0.1")
    check = next(iter(installation.look_at_requirements()))
    assert (check.name, check.status) == ("medtool", Status.WARNING)


def test_extras_are_installed_or_have_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    _requires(
        monkeypatch,
        "numpy>=2",
        "rich>=1; extra == 'whole'",
        "rich>=99; extra == 'old'",
        "rich>=1; extra == 'half'",
        "no-such-package; extra == 'half'",
        "pytest[dev]; extra == 'inner'",
        extras=("whole", "old", "half", "inner"),
    )
    real = importlib.metadata.requires
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda name: ["inner-package>=1; extra == 'dev'", "pluggy"] if name == "pytest" else real(name),
    )
    checks = {check.name: check for check in installation.look_at_extras()}
    assert checks["extra:whole"].seen == "installed"
    assert checks["extra:whole"].next is None
    assert checks["extra:half"].status is Status.OK
    assert checks["extra:half"].seen == "not installed (optional): no-such-package"
    assert checks["extra:half"].next == "pip install 'medtool[half]'"
    assert checks["extra:old"].status is Status.WARNING
    assert "wanted >=99" in checks["extra:old"].seen
    assert checks["extra:inner"].seen == "not installed (optional): inner-package"


def test_an_old_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.8.1")
    _requires(monkeypatch)
    (check,) = installation.look_at_python()
    assert check.status is Status.FAILED
    assert "3.8.1" in check.seen


def test_weights_that_are_not_the_published_ones_are_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path))
    (none,) = installation.look_at_weights()
    assert none.status is Status.OK
    assert none.next == "medtool weights get mobile-sam"
    (tmp_path / weights.info("sam-vit-b").file_name).write_bytes(b"123")
    (tmp_path / f"{weights.info('mobile-sam').file_name}.part").write_bytes(bytes(20_364_113))
    checks = {check.name: check for check in installation.look_at_weights()}
    assert checks["weights:sam-vit-b"].status is Status.WARNING
    assert "3 bytes, not the published 375,042,383" in checks["weights:sam-vit-b"].seen
    assert "50%" in checks["weights:mobile-sam"].seen


def test_variables_are_named_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDTOOL_SEGMENT_POINTS", "secret-one")
    monkeypatch.setenv("MEDTOOL_SEGMENT_POINT", "secret-two")
    monkeypatch.setenv("MEDTOOL_QQQ", "secret-three")
    checks = {check.name: check for check in installation.look_at_variables({"MEDTOOL_SEGMENT_POINTS"})}
    assert "MEDTOOL_SEGMENT_POINTS" in checks["variables"].seen
    near = checks["variable:MEDTOOL_SEGMENT_POINT"]
    assert near.status is Status.WARNING
    assert near.next == "did you mean MEDTOOL_SEGMENT_POINTS?"
    assert checks["variable:MEDTOOL_QQQ"].status is Status.WARNING
    assert "secret" not in str(checks)

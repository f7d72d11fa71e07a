from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from medtool.doctor import Status, machine


def _folders() -> dict[str, machine.Check]:
    return {check.name: check for check in machine.look_at_folders()}


@pytest.mark.parametrize("limit", [None, "max", "not a number", str(1 << 62)])
def test_memory_is_the_machines_where_no_container_limits_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None
) -> None:
    path = tmp_path / "memory.max"
    if limit is not None:
        path.write_text(limit, encoding="ascii")
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", (path,))
    assert machine.memory_bytes() == machine._physical_bytes()


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "memory.max"
    path.write_text(f"{1 << 30}\n", encoding="ascii")
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", (path,))
    (check,) = machine.look_at_memory()
    assert check.status is Status.WARNING
    assert check.seen.startswith("1.0 GiB")


def test_memory_that_cannot_be_told_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: None)
    (check,) = machine.look_at_memory()
    assert check.status is Status.OK


def test_processors_are_no_more_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (check,) = machine.look_at_processors()
    usable, there = (int(word) for word in check.seen.split(",")[0].split() if word.isdecimal())
    assert 1 <= usable <= there == os.cpu_count()
    assert "OMP_NUM_THREADS=3" in check.seen


def test_folders_that_can_be_written_to_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path / "not" / "yet"))
    checks = _folders()
    assert {check.status for check in checks.values()} == {Status.OK}
    assert checks["current-folder"].seen.startswith("can be written to")
    assert checks["weights-folder"].seen.startswith("can be made")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path / "file" / "weights"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    checks = _folders()
    assert checks["weights-folder"].status is Status.WARNING
    assert checks["weights-folder"].next == "set MEDTOOL_WEIGHTS to another"
    assert checks["temporary-folder"].status is Status.FAILED
    assert "TMPDIR" in str(checks["temporary-folder"].next)


def test_a_removed_current_folder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Path:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(machine.Path, "cwd", gone)
    assert _folders()["current-folder"].status is Status.WARNING


def test_little_room_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 << 20))
    assert {check.status for check in _folders().values()} == {Status.WARNING}

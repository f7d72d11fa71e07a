from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medtool import registry
from medtool.doctor import Status, probing
from medtool.doctor.probe import Answer, ask

FOLDER = "plugin:dataset/folder"

BODIES = {
    "dies": "import os; os._exit(7)",
    "leaves": "raise SystemExit('bye')",
    "prints": "import os; print('{\"step\": 1}'); os.write(1, b'noise\\n'); raise ValueError('after printing')",
    "hangs": "import time; time.sleep(60)",
    "lies": "Plugin = 3",
}


@pytest.fixture
def bad_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a distribution whose data sets are broken, each in its own way."""
    for name, body in BODIES.items():
        (tmp_path / f"acme_{name}.py").write_text(body, encoding="utf-8")
    metadata = tmp_path / "acme-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n", encoding="utf-8")
    lines = "".join(f"acme-{name} = acme_{name}:Plugin\n" for name in BODIES)
    (metadata / "entry_points.txt").write_text(f"[medtool.datasets]\n{lines}", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    registry.forget()
    yield
    registry.forget()


@pytest.mark.usefixtures("bad_plugins")
def test_each_broken_plugin_is_a_row_and_the_others_are_still_looked_at() -> None:
    steps = [f"plugin:dataset/acme-{name}" for name in ("dies", "leaves", "prints", "lies")]
    answers = ask([*steps[:1], FOLDER, *steps[1:]])
    problems = [str(answers[step].problem) for step in steps]
    assert problems[0] == "the process ended with code 7"
    assert "bye" in problems[1]
    assert "after printing" in problems[2]
    assert "it has no" in problems[3]
    assert answers[FOLDER] == Answer()


@pytest.mark.usefixtures("bad_plugins")
def test_a_plugin_that_never_returns_is_given_up() -> None:
    answers = ask(["plugin:dataset/acme-hangs"], timeout_s=1.0)
    assert answers["plugin:dataset/acme-hangs"].problem == "no answer after 1 seconds"


def test_a_child_that_cannot_start_answers_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtool.doctor.probe._START", "raise SystemExit(3)")
    answers = ask(["torch", FOLDER])
    assert [answer.problem for answer in answers.values()] == ["the process ended with code 3"] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_a_signal_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    start = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr("medtool.doctor.probe._START", start)
    assert ask(["torch"])["torch"].problem == "the process was ended by SIGSEGV"


@pytest.mark.usefixtures("bad_plugins")
def test_broken_plugins_fail_with_their_distribution_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(steps: list[str]) -> dict[str, Answer]:
        torch = Answer({"version": "9", "seconds": 0.1, "cuda": None, "threads": 1})
        fixed = {"torch": torch, "torchvision": Answer("9"), "devices": Answer([])}
        return {step: fixed.get(step, Answer(problem="broken" if "acme" in step else None)) for step in steps}

    monkeypatch.setattr(probing, "ask", answer)
    checks = {check.name: check for check in probing.look_at_torch_and_plugins()}
    broken = checks["plugin:dataset/acme-dies"]
    assert broken.status is Status.FAILED
    assert "pip uninstall acme" in str(broken.next)
    assert checks["plugins"].status is Status.OK
    assert "acme" not in checks["plugins"].seen


def test_torch_and_torchvision_that_do_not_match_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["numpy", "torch==1.2.3"])
    check = probing._torchvision(Answer("0.1"))
    assert check.status is Status.FAILED
    assert "wants torch==1.2.3; torch is" in check.seen
    assert "torch torchvision" in str(check.next)


def test_operators_that_do_not_run_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: None)
    check = probing._torchvision(Answer(problem="RuntimeError: operator torchvision::nms does not exist"))
    assert check.status is Status.FAILED
    assert "nms does not exist" in check.seen


def test_torch_that_cannot_be_imported_fails_in_one_short_line() -> None:
    check = probing._torch(Answer(problem="OSError: libcudart.so " + "x" * 5000))
    assert check.status is Status.FAILED
    assert len(check.seen) < 400


def test_a_device_that_computes_wrongly_fails() -> None:
    device = {"device": "cuda:0", "name": "GPU", "memory_bytes": 1 << 34, "bf16": True, "precision": "bf16"}
    torch = Answer({"cuda": "13.0"})
    (good,) = probing._devices(Answer([{**device, "problem": None}]), torch)
    assert (good.name, good.status) == ("device:cuda:0", Status.OK)
    assert "16.0 GiB" in good.seen
    (bad,) = probing._devices(Answer([{**device, "problem": "no kernel image is available"}]), torch)
    assert bad.status is Status.FAILED
    assert "no kernel image" in bad.seen


def test_a_driver_without_a_gpu_for_torch_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/nvidia-smi")
    cpu = {"device": "cpu", "name": "x", "memory_bytes": None, "bf16": False, "precision": "fp32", "problem": None}
    *_, gpu = probing._devices(Answer([cpu]), Answer({"cuda": None}))
    assert (gpu.name, gpu.status) == ("gpu", Status.WARNING)
    assert "built without CUDA" in gpu.seen

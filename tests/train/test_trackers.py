"""Trackers are told what ``metrics.jsonl`` says, in one run of theirs however often a training goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medtool.train import loop, trackers
from tests.conftest import Ended
from tests.train.conftest import MODEL

Run = Callable[..., Ended]
ALL = ("tensorboard", "mlflow", "wandb")
Scores = dict[int, float]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no setting of the person who runs the tests lead a tracker to a server."""
    for name in tuple(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_")):
            monkeypatch.delenv(name)


def train(medtool: Run, manifest: Path, out: Path, *more: object, epochs: int = 2) -> Ended:
    few = ("--model", MODEL, "--size", 32, "--batch-size", 8, "--threads", 1, "--device", "cpu")
    return medtool("train", manifest, *few, "--epochs", epochs, "--out", out, *more)


def history(out: Path) -> Scores:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["epoch"]: line["val"]["auc"] for line in lines}


def in_tensorboard(out: Path, name: str) -> Scores:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in events.Scalars(name)]
    assert len(dict(found)) == len(found)
    return dict(found)


def in_mlflow(out: Path, name: str) -> Scores:
    (path,) = (out / "mlruns").glob(f"*/*/metrics/{name}")  # a single run
    return {int(step): float(value) for _, value, step in map(str.split, path.read_text().splitlines())}


READERS = {"tensorboard": in_tensorboard, "mlflow": in_mlflow}


class StoppedError(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("tracker", ALL)
@pytest.mark.parametrize("told", [True, False])
def test_a_stopped_training_goes_on_in_the_same_run_of_its_tracker(
    medtool: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, told: bool
) -> None:
    pytest.importorskip(tracker, reason=f"needs {tracker}")
    out, more = tmp_path / "run", ("--track", tracker)
    tell = trackers.Trackers.epoch

    def stopping(self: Any, line: Any) -> None:
        if told:
            tell(self, line)
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(trackers.Trackers, "epoch", stopping)
        with pytest.raises(StoppedError):
            train(medtool, pictures, out, *more)
    assert (out / loop.RESUME_NAME).exists()
    first = json.loads((out / trackers.NAME).read_text())["trackers"][tracker]
    assert first["epochs"] == int(told)
    ended = train(medtool, pictures, out, *more)
    assert ended.code == 0, ended.err
    assert json.loads((out / trackers.NAME).read_text())["trackers"][tracker] == {"run": first["run"], "epochs": 2}
    if tracker in READERS:
        read = READERS[tracker]
        assert read(out, "val/auc") == pytest.approx(history(out))
        scores = json.loads((out / "scores.json").read_text())
        assert read(out, "best/test/auc") == pytest.approx({2: scores["test"]["scores"]["auc"]})
        assert set(read(out, "val_per_class/recall/malignant")) == {1, 2}
    else:
        kept = list((out / "wandb").glob(f"offline-run-*-{first['run']}/*.wandb"))
        assert len(kept) == 2
        assert all(path.stat().st_size for path in kept)
    assert not [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_MODE"))]


def test_several_trackers_are_told_at_once_and_replaced_with_their_run(
    medtool: Run, pictures: Path, tmp_path: Path
) -> None:
    for name in ALL:
        pytest.importorskip(name, reason=f"needs {name}")
    out = tmp_path / "run"
    assert train(medtool, pictures, out, "--track", ",".join(ALL), epochs=1).code == 0
    assert in_tensorboard(out, "val/auc") == pytest.approx(in_mlflow(out, "val/auc"))
    assert {name for name in trackers.FOLDERS if (out / name).is_dir()} == set(trackers.FOLDERS)
    assert train(medtool, pictures, out, "--lr", 0.1, "--overwrite", epochs=1).code == 0
    assert not [name for name in (*trackers.FOLDERS, trackers.NAME) if (out / name).exists()]


def test_a_tracker_that_fails_is_named_and_the_training_goes_on(
    medtool: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from accelerate.tracking import TensorBoardTracker

    def fails(self: Any, values: Any, step: int, **more: Any) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(TensorBoardTracker, "log", fails)
    ended = train(medtool, pictures, tmp_path / "run", "--track", "tensorboard")
    assert ended.code == 0, ended.err
    assert ended.err.count("tensorboard takes no more: ConnectionError: the server is gone") == 1
    assert json.loads((tmp_path / "run/trackers.json").read_text())["trackers"]["tensorboard"]["epochs"] == 0


def test_a_tracker_that_cannot_begin_ends_the_command(
    medtool: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from accelerate.tracking import TensorBoardTracker

    def fails(self: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(TensorBoardTracker, "start", fails)
    ended = train(medtool, pictures, tmp_path / "run", "--track", "tensorboard")
    assert ended.code == 1
    assert "--track tensorboard cannot begin: ConnectionError: no route to host" in ended.err


def test_a_tracker_that_is_not_there_names_the_extra(
    medtool: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = train(medtool, pictures, tmp_path / "run", "--track", "mlflow")
    assert ended.code == 1
    assert "--track mlflow needs medtool's optional part 'track'" in ended.err
    assert "pip install 'medtool[track]'" in ended.err
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused_with_the_known_ones(medtool: Run, pictures: Path, tmp_path: Path) -> None:
    ended = train(medtool, pictures, tmp_path / "run", "--track", "tensorbord")
    assert ended.code == 2
    assert "tensorboard" in ended.err
    assert "mlflow" in ended.err
    assert not (tmp_path / "run").exists()


def test_scores_have_names_that_every_tracker_takes() -> None:
    assert trackers._name("val", "auc") == "val/auc"
    assert trackers._name("best/test", "recall/in situ (0/1)") == "best/test_per_class/recall/in situ _0_1_"

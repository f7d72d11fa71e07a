"""Programs that draw the epochs of trainings: TensorBoard, MLflow and Weights & Biases, by way of accelerate.

All of them write into the run's folder and send nothing, unless the user's environment names a server. A training that
goes on does so in their same runs: ``trackers.json`` says which these are, and how many epochs each was told. An epoch
is told at least once; one told twice is the same number at the same step.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from medtool.errors import MedtoolError, MissingExtraError, UnknownNameError, reason_of
from medtool.storage import read_json, write_json
from medtool.train.choices import TrackerName

NAME = "trackers.json"
FOLDERS = ("tensorboard", "mlruns", "wandb")  # what they make in the run's folder
_FORMAT = "medtool-trackers"
_FORMAT_VERSION = 1
_PROJECT = "medtool"
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def trackers_of(text: str) -> tuple[TrackerName, ...]:
    """Return the trackers that a text such as ``tensorboard,mlflow`` names, each once.

    Raises
    ------
    UnknownNameError
        If one is none of :class:`medtool.train.choices.TrackerName`.
    MissingExtraError
        If one is not installed.
    """
    known = [name.value for name in TrackerName]
    names = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if name not in known:
            raise UnknownNameError("tracker", name, known=known, hint=f"--track with some of {', '.join(known)}")
        if importlib.util.find_spec(name) is None:  # each is called as its module
            raise MissingExtraError("track", needed_for=f"--track {name}")
    return tuple(TrackerName(name) for name in names)


class Trackers:
    """The trackers of one run; with no names it does nothing.

    Parameters
    ----------
    out
        The run's folder.
    config
        Options by flag, for the trackers to list.
    warn
        Takes a line for the user: that a tracker failed, and is told nothing more. The training goes on without it.
    """

    def __init__(
        self, names: Sequence[TrackerName], out: Path, *, config: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        self._names = tuple(names)
        self._out = out
        self._config = {name: value for name, value in config.items() if value is not None}
        self._warn = warn
        self._open: dict[TrackerName, Any] = {}
        self._ledger: dict[str, dict[str, Any]] = {}

    @contextmanager
    def begun(self, history: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        """Open the trackers for a ``with`` block, and tell them those epochs that they were not told yet.

        Raises
        ------
        MedtoolError
            If one cannot begin.
        """
        if not self._names:
            yield
            return
        self._read_ledger()
        with ExitStack() as stack:
            stack.enter_context(_environment(self._defaults()))
            _prepare_accelerate()
            stack.callback(self._close)
            for name in self._names:
                try:
                    self._begin(name)
                except Exception as error:  # of their own kinds, which need no import to be caught so
                    raise MedtoolError(
                        f"--track {name} cannot begin: {reason_of(error)}",
                        hint=f"without --track {name}; or without {self._out / NAME}, and it begins a new run",
                    ) from error
            for line in history:
                self.epoch(line)
            yield

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Tell of an epoch: its line of ``metrics.jsonl``."""
        step = int(line["epoch"])
        values = {"train_loss": line["train_loss"], "lr": line["lr"], "images_per_s": line["images_per_s"]}
        values |= {_name("val", name): value for name, value in line["val"].items()}
        for name in tuple(self._open):
            if step > self._ledger[name]["epochs"] and self._tell(name, values, step):
                self._ledger[name]["epochs"] = step
                self._write_ledger()

    def conclude(self, epochs: int, best_epoch: int, scores: Mapping[str, Any]) -> None:
        """Tell what the run came to: the scores of the best epoch, as in ``scores.json``."""
        values: dict[str, Any] = {"best/epoch": best_epoch}
        for part in ("val", "test"):
            values |= {_name(f"best/{part}", name): value for name, value in scores[part]["scores"].items()}
        for name in tuple(self._open):
            self._tell(name, values, epochs)

    def _tell(self, name: TrackerName, values: Mapping[str, Any], step: int) -> bool:
        numbers = {key: float(value) for key, value in values.items() if value is not None}
        try:
            self._open[name].log(numbers, step=step)
        except Exception as error:
            self._warn(f"{name} takes no more: {reason_of(error)}; the training goes on without it")
            del self._open[name]
            return False
        return True

    def _begin(self, name: TrackerName) -> None:
        known = self._ledger.setdefault(name, {"run": "", "epochs": 0})
        is_new = not known["run"]
        if is_new and name is not TrackerName.MLFLOW:  # which chooses it itself
            known["run"] = secrets.token_hex(8)
            self._write_ledger()  # before a server hears of it, so that no run is begun twice
        tracker = self._made(name, run=str(known["run"]), epochs=int(known["epochs"]))
        tracker.start()
        self._open[name] = tracker
        if is_new and name is TrackerName.MLFLOW:
            known["run"] = tracker.active_run.info.run_id
            self._write_ledger()
        if is_new and name is not TrackerName.WANDB:  # which has it from its start
            tracker.store_init_configuration(self._config)

    def _made(self, name: TrackerName, *, run: str, epochs: int) -> Any:
        from accelerate import tracking

        title = self._out.resolve().name
        if name is TrackerName.TENSORBOARD:
            made: Any = tracking.TensorBoardTracker(FOLDERS[0], self._out, purge_step=epochs + 1)
        elif name is TrackerName.MLFLOW:
            made = tracking.MLflowTracker(_PROJECT, run_id=run or None, run_name=title)
        else:
            wandb: Any = importlib.import_module("wandb")
            settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
            more = {"id": run, "name": title, "resume": "allow", "config": self._config, "settings": settings}
            made = tracking.WandBTracker(os.environ.get("WANDB_PROJECT", _PROJECT), dir=str(self._out), **more)
        made.main_process_only = False  # there is one such object, and it is the first process's
        return made

    def _close(self) -> None:
        for name, tracker in self._open.items():
            try:
                tracker.finish()
            except Exception as error:
                self._warn(f"{name} did not end well: {reason_of(error)}")
        self._open.clear()

    def _defaults(self) -> dict[str, str]:
        """Return what the environment must say for them to stay on this machine and keep quiet, where it says nothing.

        MLflow refuses to write into a folder, and Weights & Biases to stay offline, unless the environment says so.
        """
        return {
            "MLFLOW_TRACKING_URI": (self._out.resolve() / FOLDERS[1]).as_uri(),
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "WANDB_MODE": "offline",
            "WANDB_ERROR_REPORTING": "false",
            "GIT_PYTHON_REFRESH": "quiet",
        }

    def _read_ledger(self) -> None:
        path = self._out / NAME
        if path.exists():
            document = read_json(path)
            if document.get("format") != _FORMAT or document.get("version") != _FORMAT_VERSION:
                raise MedtoolError(f"{path} is damaged", hint="remove it; the trackers then begin new runs")
            self._ledger = {str(name): dict(entry) for name, entry in document["trackers"].items()}

    def _write_ledger(self) -> None:
        write_json(self._out / NAME, {"format": _FORMAT, "version": _FORMAT_VERSION, "trackers": self._ledger})


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, for a ``with`` block."""
    lacking = [name for name in defaults if not os.environ.get(name)]
    before = {name: os.environ.get(name) for name in lacking}
    os.environ.update({name: defaults[name] for name in lacking})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _prepare_accelerate() -> None:
    """Let accelerate's trackers work: they speak through a state of processes, and here it is that of one alone.

    Hidden from the launcher's variables, it neither waits for the others nor changes torch's number of threads.
    """
    from accelerate import PartialState

    hidden = {name: os.environ.pop(name) for name in _LAUNCHER if name in os.environ}
    try:
        PartialState(cpu=True)
    finally:
        os.environ.update(hidden)


def _name(part: str, score: str) -> str:
    """Return how a score is called: those of classes lie apart, as MLflow's files cannot be folders too.

    A class has the characters that all trackers take.
    """
    name, _, of_class = score.partition("/")
    return f"{part}_per_class/{name}/" + re.sub(r"[^\w -]", "_", of_class) if of_class else f"{part}/{name}"

"""Finding runs and their best checkpoints in folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtool.errors import InputError, UsageError
from medtool.lineage import read_lineage
from medtool.runs import checkpoints
from medtool.runs.checkpoints import Card, read_card
from medtool.storage import read_json

TOGETHER_NAME = "together.json"  # beside several runs, such as one a fold
TOGETHER_FORMAT = "medtool-together"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    folder
        Where it lies.
    checkpoint
        The weights' file of its best checkpoint.
    card
        What is known of it.
    lineage
        How it was made.
    """

    folder: Path
    checkpoint: Path
    card: Card
    lineage: dict[str, Any]

    @property
    def positive(self) -> str:
        """The label that it tells from all others; empty where it tells all apart."""
        return str(self.lineage["made_with"].get("options", {}).get("positive", ""))


def is_run(path: Path) -> bool:
    """Tell whether a path is the folder of a run, or of several."""
    if (path / TOGETHER_NAME).is_file():
        return True
    if not (path / "lineage.json").is_file():
        return False
    lineage = read_lineage(path)
    return lineage is not None and lineage.get("command") == "train"


def runs_in(path: Path) -> list[Run]:
    """Return the run in a folder, or all of those that were trained together in it.

    Raises
    ------
    UsageError
        If it is no run's folder, or a run is not finished.
    InputError
        If it is damaged.
    """
    if (path / TOGETHER_NAME).is_file():
        document = read_json(path / TOGETHER_NAME)
        names = document.get("runs")
        if document.get("format") != TOGETHER_FORMAT or not isinstance(names, list) or not names:
            raise InputError(f"{path / TOGETHER_NAME} is damaged: it names no runs")
        return [run_at(path / str(each["name"])) for each in names]
    return [run_at(path)]


def run_at(folder: Path) -> Run:
    """Return the run in a folder; raises what :func:`runs_in` raises."""
    lineage = read_lineage(folder) if folder.is_dir() else None
    if lineage is None or lineage.get("command") != "train":
        raise UsageError(f"{folder} is not a run", hint="a run is the folder that medtool train wrote")
    if lineage["status"] != "finished":
        raise UsageError(f"the run {folder} is not finished", hint="its medtool train command again, which goes on")
    name = lineage.get("outputs", {}).get("checkpoint")
    if not isinstance(name, str):
        raise InputError(f"{folder / 'lineage.json'} is damaged: it names no checkpoint")
    path = folder / checkpoints.FOLDER / name
    card = read_card(path)
    if card.sha256 != lineage["outputs"].get("checkpoint_sha256"):
        raise InputError(f"{path} is not the checkpoint that the run ended with: its SHA-256 is another")
    return Run(folder, path, card, lineage)


def checkpoint_of(path: Path) -> Path:
    """Return the best checkpoint of a run's folder, or the checkpoint that is named itself.

    Raises
    ------
    UsageError
        If it is neither, or a folder of several runs.
    """
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise UsageError(f"{path} does not exist")
        read_card(path)
        return path
    if (path / TOGETHER_NAME).is_file():
        raise UsageError(f"{path} holds several runs; name one of them")
    return run_at(path).checkpoint


def folder_of(checkpoint: Path) -> Path:
    """Return the run's folder of a checkpoint.

    Raises
    ------
    UsageError
        If the checkpoint does not lie where a run keeps it, so that nothing says what it has seen.
    """
    folder = checkpoint.parent.parent
    if checkpoint.parent.name != checkpoints.FOLDER or not (folder / "lineage.json").is_file():
        raise UsageError(
            f"{checkpoint} does not lie in the checkpoints folder of a run, which says whom it was trained on",
            hint="the run's folder as medtool train wrote it",
        )
    return folder


def check_together(runs: Sequence[Run]) -> None:
    """Refuse runs that cannot answer together.

    Raises
    ------
    UsageError
        If one is given twice, or they know other classes or decide otherwise.
    """
    first = runs[0]
    for place, run in enumerate(runs):
        if any(run.card.sha256 == other.card.sha256 for other in runs[:place]):
            raise UsageError(f"{run.folder} is given twice, or is a copy of another run; each counts once")
        if run.card.task is not first.card.task:
            raise UsageError(
                f"{first.folder} was trained with --task {first.card.task} and {run.folder} with --task"
                f" {run.card.task}; runs that answer together need the same"
            )
        if run.card.classes != first.card.classes:
            raise UsageError(
                f"{first.folder} knows the classes {', '.join(first.card.classes)}, and {run.folder}"
                f" {', '.join(run.card.classes)}; runs that answer together need the same, in the same order"
            )

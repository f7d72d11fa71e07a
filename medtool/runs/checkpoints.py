"""Checkpoints: weights as safetensors, beside each a JSON file that says what they are and how to feed them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from medtool.errors import InputError
from medtool.runs.choices import Task
from medtool.runs.preprocessing import Preprocessing
from medtool.storage import read_json, write_json, write_whole

FOLDER = "checkpoints"
FORMAT = "medtool-checkpoint"
FORMAT_VERSION = 1
_LONGEST_MONITOR = 40


@dataclass(frozen=True)
class Card:
    """What is known of a checkpoint beside its weights.

    Attributes
    ----------
    architecture
        The name that ``--model`` takes.
    classes
        In the order of the logits.
    metadata
        What :class:`medtool.architectures.metadata.MetadataEncoder` makes of itself; None without metadata.
    epoch
        From 1.
    monitor, score
        The score of the val part that chose it.
    sha256
        Of the weights' file.
    """

    architecture: str
    task: Task
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    metadata: Mapping[str, Any] | None
    epoch: int
    monitor: str
    score: float
    seed: int
    sha256: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as the JSON file holds it."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "architecture": self.architecture,
            "task": self.task.value,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.document(),
            "metadata": None if self.metadata is None else dict(self.metadata),
            "epoch": self.epoch,
            "monitor": self.monitor,
            "score": self.score,
            "seed": self.seed,
            "sha256": self.sha256,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any], path: Path) -> Card:
        """Return what :meth:`document` described.

        Raises
        ------
        InputError
            If it is of another format, or lacks something.
        """
        if document.get("format") != FORMAT or document.get("version") != FORMAT_VERSION:
            raise InputError(
                f"{path} is not a medtool checkpoint of version {FORMAT_VERSION}"
                f" (format {document.get('format')!r}, version {document.get('version')!r})"
            )
        try:
            return cls(
                str(document["architecture"]),
                Task(document["task"]),
                tuple(map(str, document["classes"])),
                Preprocessing.of(document["preprocessing"]),
                document["metadata"],
                int(document["epoch"]),
                str(document["monitor"]),
                float(document["score"]),
                int(document["seed"]),
                str(document["sha256"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: {type(error).__name__} {error}") from error


def name_of(card: Card) -> str:
    """Return the file's name, such as ``resnet50_epoch012_auc0.9134_seed905.safetensors``."""
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", card.architecture)
    monitor = re.sub(r"[^\w.-]+", "-", card.monitor)[:_LONGEST_MONITOR]  # it may have the name of a class in it
    return f"{model}_epoch{card.epoch:03}_{monitor}{card.score:.4f}_seed{card.seed}.safetensors"


def write_checkpoint(folder: Path, card: Card, state: Mapping[str, Tensor]) -> Path:
    """Write weights and their card; the card last, so that weights without one are an unfinished checkpoint."""
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    path = folder / name_of(card)
    write_whole(path, data)
    whole = {**card.document(), "sha256": hashlib.sha256(data).hexdigest()}
    write_json(path.with_suffix(".json"), whole)
    return path


def read_card(path: Path) -> Card:
    """Return the card of a checkpoint, given the weights' file.

    Raises
    ------
    InputError
        If there is none, or it cannot be used.
    """
    beside = path.with_suffix(".json")
    if not beside.exists():
        raise InputError(f"{path} has no {beside.name} beside it, which says what the weights are")
    return Card.of(read_json(beside), beside)


def read_weights(path: Path, card: Card) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, on the CPU.

    Raises
    ------
    InputError
        If the file is not the one that its card describes.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise InputError(f"{path} is damaged, or not the file that {path.with_suffix('.json').name} describes")
    return load(data)


def keep_only(folder: Path, names: set[str]) -> None:
    """Remove the checkpoints of a run but for the named ones."""
    for path in folder.glob("*.safetensors"):
        if path.name not in names:
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state whose tensors share memory with nothing else, on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value
        for name, value in state.items()
    }

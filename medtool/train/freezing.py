"""Gradual unfreezing: first the head is trained, later more of the network.

A schedule is written ``EPOCH:LAYERS,…``: from that epoch on, the first being 0, so many layers are trained, counted
from the head. LAYERS is a number, ``head`` (1) or ``all``. So ``0:head,3:4,6:all`` trains the head alone for three
epochs, the last four layers for three more, and then everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn import Parameter

from medtool.errors import UsageError

_GRAMMAR = "for instance 0:head,3:4,6:all: from epoch 0 the head, from 3 four layers, from 6 everything"


@dataclass(frozen=True, slots=True)
class FreezingSchedule:
    """When how much of a network is trained.

    Attributes
    ----------
    stages
        (first epoch, layers from the head or None for all), by epoch; the first epoch is 0, and layers only grow.
    """

    stages: tuple[tuple[int, int | None], ...] = ((0, None),)

    def __str__(self) -> str:
        """Return it as :func:`parse_freezing` reads it."""
        return ",".join(f"{epoch}:{'all' if layers is None else layers}" for epoch, layers in self.stages)


def parse_freezing(text: str) -> FreezingSchedule:
    """Return the schedule that a text such as ``0:head,3:4,6:all`` describes.

    Raises
    ------
    UsageError
        If it is not of this form, does not begin with epoch 0, or freezes again what was trained.
    """
    stages: list[tuple[int, int | None]] = []
    for part in text.split(","):
        epoch, colon, layers = (piece.strip().lower() for piece in part.partition(":"))
        if (
            not colon
            or not _is_number(epoch)
            or not (layers in {"head", "all"} or (_is_number(layers) and int(layers)))
        ):
            raise UsageError(f"unfreezing {text!r}: {part.strip()!r} is not EPOCH:LAYERS", hint=_GRAMMAR)
        stages.append((int(epoch), None if layers == "all" else 1 if layers == "head" else int(layers)))
    if stages[0][0] != 0:
        raise UsageError(f"unfreezing {text!r} begins with epoch {stages[0][0]}; it must begin with 0", hint=_GRAMMAR)
    for (start, some), (next_start, more) in itertools.pairwise(stages):
        if next_start <= start or some is None or (more is not None and more <= some):
            raise UsageError(f"unfreezing {text!r}: epochs and layers must grow from part to part", hint=_GRAMMAR)
    return FreezingSchedule(tuple(stages))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def trainable_groups(schedule: FreezingSchedule, epoch: int, n_groups: int) -> int:
    """Return how many of ``n_groups`` layers, counted from the head, are trained in an epoch ≥ 0."""
    assert epoch >= 0, epoch
    layers = next(layers for first, layers in reversed(schedule.stages) if first <= epoch)
    return n_groups if layers is None else min(layers, n_groups)


def freeze(groups: Sequence[tuple[str, Sequence[Parameter]]], n_trainable: int) -> None:
    """Let only the last layers be trained.

    A frozen parameter loses its gradient, so that no optimizer moves it, not even by momentum or weight decay.

    Parameters
    ----------
    groups
        Name and parameters of each layer, stem first, head last: all that is ever to be trained.
    n_trainable
        How many layers, counted from the head, are trained; 0 to all.
    """
    assert 0 <= n_trainable <= len(groups), n_trainable
    for place, (_, parameters) in enumerate(groups):
        for parameter in parameters:
            parameter.requires_grad_(place >= len(groups) - n_trainable)
            if not parameter.requires_grad:
                parameter.grad = None


def to_training_mode(network: nn.Module) -> None:
    """Put a network into training mode, except batch norms that are frozen: these keep their running statistics.

    A batch norm is frozen if its parameters are; one without parameters follows the layer in front of it. Call this
    wherever ``network.train()`` would be called.
    """
    network.train()
    is_trained = True
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            is_trained = parameter.requires_grad
        # torch has no public name for what all batch norms, synchronised ones included, derive from
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not is_trained:
            module.eval()

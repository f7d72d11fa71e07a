"""Gradual unfreezing: first the head is trained, later more of the network.

A schedule is written ``EPOCH:LAYERS,…``: from that epoch on, the first being 1, so many layers are trained, counted
from the head. LAYERS is a number, ``head`` (1) or ``all``. So ``1:head,4:4,7:all`` trains the head alone for three
epochs, the last four layers for three more, and then everything. An empty schedule trains everything from the first.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn import Parameter

from medtool.errors import UsageError

_GRAMMAR = "for instance 1:head,4:4,7:all: from epoch 1 the head, from 4 four layers, from 7 everything"


@dataclass(frozen=True, slots=True)
class Unfreezing:
    """When how much of a network is trained.

    Attributes
    ----------
    stages
        (first epoch, layers from the head or None for all), by epoch; the first epoch is 1, and layers only grow.
    """

    stages: tuple[tuple[int, int | None], ...] = ((1, None),)


def parse_unfreezing(text: str) -> Unfreezing:
    """Return the schedule that a text such as ``1:head,4:4,7:all`` describes.

    Raises
    ------
    UsageError
        If it is not of this form, does not begin with epoch 1, or freezes again what was trained.
    """
    if not text.strip():
        return Unfreezing()
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
    if stages[0][0] != 1:
        raise UsageError(f"unfreezing {text!r} begins with epoch {stages[0][0]}; it must begin with 1", hint=_GRAMMAR)
    for (start, some), (next_start, more) in itertools.pairwise(stages):
        if next_start <= start or some is None or (more is not None and more <= some):
            raise UsageError(f"unfreezing {text!r}: epochs and layers must grow from part to part", hint=_GRAMMAR)
    return Unfreezing(tuple(stages))


def check_unfreezing(text: str, epochs: int) -> None:
    """Refuse a schedule whose last part never comes; raises ``UsageError``, as for a text that is none."""
    last, _ = parse_unfreezing(text).stages[-1]
    if last > epochs:
        raise UsageError(f"--unfreeze {text}: epoch {last} never comes, as there are {epochs} (--epochs)")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def trainable_groups(schedule: Unfreezing, epoch: int, n_groups: int) -> int:
    """Return how many of ``n_groups`` layers, counted from the head, are trained in an epoch ≥ 1."""
    assert epoch >= 1, epoch
    layers = next(layers for first, layers in reversed(schedule.stages) if first <= epoch)
    return n_groups if layers is None else min(layers, n_groups)


def freeze(network: nn.Module, groups: Sequence[tuple[str, Sequence[Parameter]]], n_trainable: int) -> None:
    """Put a network into training mode, and let only its last layers be trained.

    A frozen parameter loses its gradient, so that no optimizer moves it, not even by momentum or weight decay. A frozen
    batch norm stays in evaluation mode, so that its running statistics do not move either; one without parameters
    follows the layer in front of it. Call this wherever ``network.train()`` would be called.

    Parameters
    ----------
    network
        On which it acts, in place.
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
    _set_modes(network)


def _set_modes(network: nn.Module) -> None:
    network.train()
    is_trained = True
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            is_trained = parameter.requires_grad
        # torch has no public name for what all batch norms, synchronised ones included, derive from
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not is_trained:
            module.eval()

"""What a network answers for a class: of several logits its own; of a single one, that or its opposite."""

from __future__ import annotations

import torch
from torch import Tensor

from medtool.cam.choices import Target
from medtool.errors import UsageError


def n_classes(logits: Tensor) -> int:
    """Return how many classes logits ``(n, logits)`` decide between; one logit decides between two."""
    return max(2, logits.shape[1])


def selected(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the answers ``(n, k)`` for classes ``(n, k)``.

    A single logit speaks for class 1; its negative for class 0.
    """
    if logits.shape[1] == 1:
        return logits * (2 * targets - 1)
    return logits.gather(1, targets)


def classes_of(logits: Tensor, targets: Tensor | Target) -> Tensor:
    """Return the classes ``(n, k)`` that maps are wanted for.

    Parameters
    ----------
    logits
        Shape ``(n, logits)``.
    targets
        Indices ``(n,)`` or ``(n, k)``, or how to choose them.

    Raises
    ------
    UsageError
        If there are not as many as images, or one is no class.
    """
    n, most = len(logits), n_classes(logits)
    if targets is Target.ALL:
        return torch.arange(most, device=logits.device).expand(n, most)
    if targets is Target.PREDICTED:
        # Of logits, not of probabilities: these are equal where the larger is close to 1.
        return (logits > 0).long() if logits.shape[1] == 1 else logits.argmax(1, keepdim=True)
    assert isinstance(targets, Tensor)
    if targets.is_floating_point() or targets.is_complex():
        raise UsageError(f"targets must be whole numbers, not {targets.dtype}")
    chosen = targets.to(logits.device, torch.int64)
    chosen = chosen[:, None] if chosen.ndim == 1 else chosen
    if chosen.ndim != 2 or len(chosen) != n or not chosen.shape[1]:
        raise UsageError(f"targets must be one row for each of {n} images, not {tuple(targets.shape)}")
    wrong = chosen[(chosen < 0) | (chosen >= most)]
    if len(wrong):
        raise UsageError(f"targets must be classes 0–{most - 1}, not {int(wrong[0])}")
    return chosen

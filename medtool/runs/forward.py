"""From prepared images to logits: on the device, in the precision asked for."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from medtool.devices import DTYPES
from medtool.runs.preprocessing import Preprocessing


class Normaliser:
    """Brings prepared images to a device, as the network wants them.

    Parameters
    ----------
    device
        Of torch.
    is_channels_last
        Whether the colours of a pixel lie beside one another in memory, which is faster on most processors.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device, *, is_channels_last: bool) -> None:
        self.device = device
        self.layout = torch.channels_last if is_channels_last else torch.contiguous_format
        self.mean = torch.tensor(preprocessing.mean, device=device).view(1, -1, 1, 1) * 255
        self.std = torch.tensor(preprocessing.std, device=device).view(1, -1, 1, 1) * 255

    def __call__(self, images: Tensor) -> Tensor:
        """Return ``uint8 (n, 3, h, w)`` as float32 of mean 0 and deviation 1, roughly."""
        moved = images.to(self.device, non_blocking=True)
        return moved.float().sub_(self.mean).div_(self.std).contiguous(memory_format=self.layout)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which a network computes in a precision: ``fp32``, ``bf16`` or ``fp16``."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])

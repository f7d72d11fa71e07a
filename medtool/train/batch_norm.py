"""Batch normalisation folded into the convolution before it, so that a network in use computes less."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medtool.runs.checkpoints import Card

# The most that logits may change, relative to the largest; float32 has 1.2e-7, and rounding adds up over layers.
_TOLERANCE = 1e-4


def folded(network: nn.Module, card: Card, n_metadata: int) -> nn.Module:
    """Return a network that gives the same logits with fewer steps, or the network itself where that fails.

    In evaluation mode a batch normalisation multiplies and adds fixed numbers, which the convolution before it can do.
    That one follows the other is taken from the order of a module's parts, and then proved: both networks are shown
    the same noise, and must answer the same.

    Parameters
    ----------
    network
        In evaluation mode, on the CPU.
    n_metadata
        Numbers that it takes beside the image.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    quicker = copy.deepcopy(network)
    _fold(quicker)
    generator = torch.Generator().manual_seed(0)
    size = card.preprocessing.height, card.preprocessing.width
    noise: list[Tensor] = [torch.randn(2, 3, *size, generator=generator)]
    if n_metadata:
        noise.append(torch.rand(2, n_metadata, generator=generator))
    with torch.inference_mode():
        try:
            before, after = network(*noise), quicker(*noise)
        except RuntimeError:
            return network
    scale = float(before.abs().max()) or 1.0
    return quicker if float((before - after).abs().max()) <= _TOLERANCE * scale else network


def _fold(network: nn.Module) -> None:
    for module in network.modules():
        parts = list(module.named_children())
        for (name, first), (next_name, second) in itertools.pairwise(parts):
            if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d)):
                continue
            if first.out_channels != second.num_features or second.running_mean is None:
                continue
            setattr(module, name, fuse_conv_bn_eval(first, second))
            # timm's normalisations do the activation too.
            rest = [part for part in second.children() if not isinstance(part, nn.Identity)]
            setattr(module, next_name, nn.Sequential(*rest) if rest else nn.Identity())

"""Optimizers whose learning rate falls from head to stem, and whose weight decay spares norms and biases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import Parameter

from medtool.errors import InputError, UsageError
from medtool.train.choices import OptimizerName

BASE_LR = "initial_lr"  # where a parameter group keeps its rate before any schedule; torch's schedulers use it as well
MOMENTUM = 0.9


def make_optimizer(
    groups: Sequence[tuple[str, Sequence[Parameter]]],
    *,
    name: OptimizerName,
    lr: float,
    weight_decay: float = 0.0,
    layer_decay: float = 1.0,
    head_lr_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """Return an optimizer over all parameters, whether they are frozen at present or not.

    Parameters
    ----------
    groups
        Name and parameters of each layer, stem first, head last; every parameter once. Layers without any are passed
        over. A layer becomes one or two of the optimizer's groups, ``NAME`` and ``NAME/no-decay``.
    name
        Which optimizer.
    lr
        Learning rate of the layer before the head, > 0.
    weight_decay
        0 or more; parameters with one dimension or none (norms, biases) have no decay.
    layer_decay
        > 0 to 1: a layer learns at this share of the rate of the next one. The head has ``lr × head_lr_factor``, the
        last layer before it ``lr × layer_decay``, and so on.
    head_lr_factor
        > 0: how much faster the head learns.

    Raises
    ------
    UsageError
        If an option is out of its range.
    InputError
        If there is no parameter, or one is in two layers.

    References
    ----------
    Bao, Dong & Wei, "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022 (layer-wise decay of the rate).
    """
    _check_options(lr=lr, weight_decay=weight_decay, layer_decay=layer_decay, head_lr_factor=head_lr_factor)
    layers = [(layer, list(parameters)) for layer, parameters in groups if parameters]
    everything = [parameter for _, parameters in layers for parameter in parameters]
    if not everything:
        raise InputError("the network has no parameters to train")
    if len({id(parameter) for parameter in everything}) != len(everything):
        raise InputError("a parameter is in two layers; it would be trained twice as fast")
    options: list[dict[str, object]] = []
    for depth, (layer, parameters) in enumerate(reversed(layers)):
        rate = lr * layer_decay**depth * (head_lr_factor if depth == 0 else 1.0)
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        for label, some, decay in ((layer, matrices, weight_decay), (f"{layer}/no-decay", vectors, 0.0)):
            if some:
                options.append({"name": label, "params": some, "lr": rate, BASE_LR: rate, "weight_decay": decay})
    options.reverse()
    if name is OptimizerName.SGD:
        return torch.optim.SGD(options, lr=lr, momentum=MOMENTUM, nesterov=True)
    kind = torch.optim.AdamW if name is OptimizerName.ADAMW else torch.optim.Adam
    return kind(options, lr=lr)


def _check_options(*, lr: float, weight_decay: float, layer_decay: float, head_lr_factor: float) -> None:
    for what, value in (("the learning rate", lr), ("the head's learning rate factor", head_lr_factor)):
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{what} is {value:g}; it must be above 0")
    if not (weight_decay >= 0 and math.isfinite(weight_decay)):
        raise UsageError(f"weight decay is {weight_decay:g}; it must be 0 or more")
    if not 0 < layer_decay <= 1:
        raise UsageError(
            f"the decay of the learning rate from layer to layer is {layer_decay:g}; it must be above 0, up to 1"
        )

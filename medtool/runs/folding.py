"""A trained network without its batch norms, for prediction: what they do is put into the convolutions before them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norms(network: nn.Module) -> int:
    """Fold batch norms into the convolutions before them, and return how many there were.

    In evaluation a batch norm is a factor and an offset for each channel, and so can be part of the weights: the logits
    are the same but for rounding, and a pass over each layer's output is spared.

    Parameters
    ----------
    network
        In evaluation mode; changed in place, and not to be trained afterwards.

    Notes
    -----
    Only what certainly belongs together is folded: torch.fx follows the network, and a convolution's output must go
    into that batch norm and nowhere else. A network whose way depends on its data cannot be followed, and stays as it
    is. So does a convolution of a class of its own, which may do something else with its weights.
    """
    assert not network.training
    try:
        graph = _Tracer().trace(network)
    except Exception:  # networks fail to be followed in as many ways as they can be written
        return 0
    modules = dict(network.named_modules())
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    attributes = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
    n_folded = 0
    for node in graph.nodes:
        pair = _pair_of(node, modules)
        if pair is None:
            continue
        names = [str(node.target), str(node.args[0].target)]
        if any(calls[name] > 1 or any(each.startswith(f"{name}.") for each in attributes) for name in names):
            continue
        _fold(*pair)
        parent, _, name = names[0].rpartition(".")
        setattr(modules[parent], name, _rest_of(pair[1]))
        n_folded += 1
    return n_folded


class _Tracer(fx.Tracer):
    """Follows a network down to its batch norms, timm's own kinds too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_norm(m) or super().is_leaf_module(m, module_qualified_name)


def _pair_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> tuple[nn.Module, nn.Module] | None:
    """Return the convolution and the batch norm behind it, if that is what a call and the one before it are."""
    before = node.args[0] if node.args else None
    if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
        return None
    norm, convolution = modules[str(node.target)], modules[str(before.target)]
    if not _is_norm(norm) or type(convolution) not in _CONVOLUTIONS or len(before.users) != 1:
        return None
    return None if norm.running_mean is None or norm.running_var is None else (convolution, norm)


def _is_norm(module: nn.Module) -> bool:
    return type(module) in _NORMS or _is_with_activation(module)


def _is_with_activation(module: nn.Module) -> bool:
    """Tell whether it is timm's batch norm that is followed by an activation in the same module."""
    layers = sys.modules.get("timm.layers")  # a network of timm has loaded it; for others it is not worth the seconds
    return layers is not None and type(module) is layers.BatchNormAct2d


def _rest_of(norm: Any) -> nn.Module:
    """Return what a batch norm does beside normalising."""
    return nn.Sequential(norm.drop, norm.act) if _is_with_activation(norm) else nn.Identity()


def _fold(convolution: Any, norm: Any) -> None:
    with torch.no_grad():
        variance, mean = norm.running_var.double(), norm.running_mean.double()
        factor = torch.rsqrt(variance + norm.eps)
        factor = factor if norm.weight is None else factor * norm.weight.double()
        offset = -mean * factor if convolution.bias is None else (convolution.bias.double() - mean) * factor
        offset = offset if norm.bias is None else offset + norm.bias.double()
        weight = convolution.weight
        weight.copy_(weight.double() * factor.view(-1, *[1] * (weight.ndim - 1)))
        convolution.bias = nn.Parameter(offset.to(weight.dtype), requires_grad=False)

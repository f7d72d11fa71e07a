"""Attention rollout: which patches a vision transformer's answer can have looked at, layer by layer."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from medtool.cam.layer import grid_of, patches_of
from medtool.cam.tail import Forward
from medtool.errors import UsageError

#: Of class, distillation and register tokens.
_MOST_PREFIXES = 32


def rollout(network: nn.Module, forward: Forward, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps ``(n, h, w)``, the same for every class, and the logits.

    The attention of each block is averaged over its heads and over itself and the identity, for the way around the
    block; the blocks are multiplied. The map is the row of what the network classifies by: its class token (and its
    distillation token), the mean of its patches, or its pooling by attention.

    Raises
    ------
    UsageError
        If the network has no attention between all of its patches.

    References
    ----------
    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.
    """
    watch = _Attentions()
    with torch.no_grad(), watch:
        logits = forward(images).float()
    path, vit = _transformer(network)
    blocks = list(itertools.takewhile(lambda each: each.shape[1] == each.shape[2] > 1, watch.found))
    poolings = watch.found[len(blocks) :]
    size = (images.shape[2], images.shape[3])
    name = f"{path}.blocks".lstrip(".")
    patches = None if vit is None else patches_of(network, name, size)
    n_tokens = blocks[0].shape[1] if blocks else 0
    if (
        vit is None
        or patches is None
        or not 0 <= n_tokens - math.prod(patches) <= _MOST_PREFIXES
        or any(each.shape != (len(images), n_tokens, n_tokens) for each in blocks)
        or any(len(each) != len(images) or abs(each.shape[2] - n_tokens) > _MOST_PREFIXES for each in poolings)
    ):
        raise UsageError(
            "attention rollout needs a vision transformer that attends from every patch to every patch in all blocks",
            hint="--method gradcam, which any network takes",
        )
    grid = grid_of(network, name, (len(images), n_tokens, 1), size)
    identity = torch.eye(n_tokens, device=images.device)
    flow = identity
    for attention in blocks:
        # Rows of a softmax sum to 1, and so do these.
        flow = (attention + identity) / 2 @ flow
    row = poolings[-1].mean(1) if poolings else _classified_by(vit, n_tokens, grid.n_prefix, images)
    # A class token that joins behind the blocks is the first key of the pooling; nothing of the image flows into it.
    padded = functional.pad(row, (n_tokens - row.shape[1], 0))
    return (padded[:, None] @ flow)[:, 0, grid.n_prefix :].reshape(len(images), *grid.size), logits


def _transformer(network: nn.Module) -> tuple[str, nn.Module | None]:
    """Return the part of a network that cuts images into patches, and its name."""
    found = ((path, module) for path, module in network.named_modules() if hasattr(module, "patch_embed"))
    return next(found, ("", None))


def _classified_by(vit: nn.Module, n_tokens: int, n_prefix: int, images: Tensor) -> Tensor:
    """Return how much each token counts for the answer, ``(n, tokens)``, as the network says."""
    row = torch.zeros(len(images), n_tokens, device=images.device)
    if getattr(vit, "global_pool", "token" if n_prefix else "avg") == "token" and n_prefix:
        row[:, : 2 if hasattr(vit, "head_dist") else 1] = 1
    else:
        row[:, n_prefix:] = 1
    return row / row.sum(1, keepdim=True)


class _Attentions(TorchFunctionMode):
    """Keeps the attention, averaged over heads, of every block that runs: ``(n, queries, keys)``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention:
            self.found.append(_weights(*args, **kwargs).mean(1))
            return function(*args, **kwargs)
        if function is functional.multi_head_attention_forward:
            result, weights = function(*args, **{**kwargs, "need_weights": True, "average_attn_weights": True})
            assert weights is not None
            self.found.append(weights.float())
            return result, weights if kwargs.get("need_weights", True) else None
        result = function(*args, **kwargs)
        if function in _SOFTMAX and result.ndim == 4:
            self.found.append(result.float().mean(1))
        return result


_SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax)


def _weights(  # noqa: PLR0917 - the parameters are those of the function that it stands for
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return the softmax that the fused function multiplies the values by; float32."""
    if is_causal or enable_gqa or query.ndim != 4:
        raise UsageError("attention rollout needs plain attention; this network's is causal, grouped or without heads")
    scores = query.float() @ key.float().transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if is_bool else scores + attn_mask
    return scores.softmax(-1)

"""Which layer of a network of timm class-activation maps are taken from.

The rule, by what timm says of its networks (``feature_info``) and what the layers give for one image:

1. The last module that timm lists as giving features.
2. If that gives a map ``(n, channels, h, w)``: the last of the network's own children after it that still gives a map
   of the same height and width and does something, such as a last convolution with its normalisation. It is what
   global pooling sees.
3. If that gives tokens ``(n, tokens, channels)``, or a map with the channels last: the first normalisation of its last
   block, ``norm1``; where that has the channels last too, as in Swin, ``norm2``, which gives tokens. Behind the last
   block, a network that classifies by its class token has no gradient at the other tokens.
4. If the block has neither, the module itself, if it gives tokens, or a map with the channels last.
5. If timm lists no such module, and the network pools by a mean, so that each cell of its last map counts: the last of
   the network's own children that gives a map or tokens.

The network is built and run without memory or arithmetic (torch's meta device), so that this takes no weights and, for
any size of network, about a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from medtool.errors import UsageError, reason_of

if TYPE_CHECKING:
    from torch import nn

    Shapes = dict[str, tuple[int, ...]]


def cam_layer_of(build: Callable[..., nn.Module], size: tuple[int, int], *, what: str) -> str:
    """Return the dotted name of the layer for class-activation maps.

    Parameters
    ----------
    build
        Gives the network for ``num_classes``.
    size
        (height, width) of its images in pixels.
    what
        The network's name, for the message.

    Raises
    ------
    UsageError
        If the network cannot be built and run as a classifier of such images, or none of its layers fits the rule.
    """
    try:
        network, shapes = outputs_of(build, size)
    except Exception as error:  # a network that is no plain classifier of images fails in any way
        raise UsageError(f"{what} cannot be built as a classifier: {reason_of(error)}") from error
    layer = _chosen(network, shapes)
    if layer is None:
        raise UsageError(
            f"{what} has no layer that heatmaps can be taken from: its last features are neither a map with the"
            " channels first nor tokens",
            hint="medtool plugins new my-network --kind architecture writes a plugin in which you name one",
        )
    return layer


def outputs_of(build: Callable[..., nn.Module], size: tuple[int, int]) -> tuple[nn.Module, Shapes]:
    """Return the network on the meta device, and the shape that each module gives for one image, in order of running.

    Modules that give something other than one tensor are left out. A module that runs twice counts where it ends last.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = build(num_classes=2).eval()
    shapes: Shapes = {}

    def watch(name: str, module: nn.Module) -> None:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            shapes.pop(name, None)
            if isinstance(output, torch.Tensor):
                shapes[name] = tuple(output.shape)

        module.register_forward_hook(note)

    for name, module in network.named_modules():
        if name:
            watch(name, module)
    with torch.no_grad():
        network(torch.zeros(1, 3, *size, device="meta"))
    return network, shapes


def _chosen(network: nn.Module, shapes: Shapes) -> str | None:
    listed = getattr(network, "feature_info", None)
    if listed is None:
        return None
    last = (listed if isinstance(listed, list) else listed.info)[-1]
    name, channels = last.get("module"), last.get("num_chs")
    if name not in shapes:
        return _last_before_mean(network, shapes)
    if _is_map(shapes[name]) and shapes[name][1] == channels:
        return _seen_by_pooling(network, shapes, name)
    return _tokens_of_last_block(shapes, name)


def _seen_by_pooling(network: nn.Module, shapes: Shapes, name: str) -> str:
    order = list(shapes)
    after = [child for child in order[order.index(name) + 1 :] if "." not in child]
    modules = dict(network.named_modules())
    kept = [
        child
        for child in after
        if len(shapes[child]) == 4
        and shapes[child][2:] == shapes[name][2:]
        and not isinstance(modules[child], torch.nn.Identity)
        and not (name.startswith(f"{child}.") and shapes[child] == shapes[name])
    ]
    return kept[-1] if kept else name


def _tokens_of_last_block(shapes: Shapes, name: str) -> str | None:
    for norm in ("norm1", "norm2"):
        within = [layer for layer in shapes if layer.startswith(f"{name}.") and layer.endswith(f".{norm}")]
        if within and _is_tokens(shapes[within[-1]]):
            return within[-1]
    return name if _is_tokens(shapes[name]) or _is_map(shapes[name]) else None


def _last_before_mean(network: nn.Module, shapes: Shapes) -> str | None:
    pooling = getattr(network, "global_pool", "")
    if getattr(pooling, "pool_type", pooling) != "avg":
        return None
    own = [child for child, shape in shapes.items() if "." not in child and (_is_map(shape) or _is_tokens(shape))]
    return own[-1] if own else None


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] > 1 and shape[1] > 1


def _is_tokens(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[1] > 1

"""Maps by changing something and looking at the answer: single channels of the layer, or the image under a mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medtool.cam.answers import selected
from medtool.cam.layer import Grid
from medtool.cam.tail import Forward, Tail

#: From the place of an image in its batch to the network for that image alone, once or repeated.
ForwardOf = Callable[[int], Forward]


def ablationcam(
    tail: Tail, forward_of: ForwardOf, images: Tensor, *, grid: Grid, chunk: int
) -> Callable[[Tensor], Tensor]:
    """Return a function from targets ``(n, k)`` to maps: channels, each weighted by how the answer falls without it.

    A channel is set to 0, as in the paper. The fall is a share of the answer's size; its sign is that of the fall, also
    where the answer is below 0. pytorch-grad-cam differs in both: where a layer has values below 0 it sets the channel
    to ten million below the least of them, and where the answer is below 0 its maps are turned over.

    Parameters
    ----------
    chunk
        Channels a pass through what follows the layer.

    References
    ----------
    Desai and Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
    Localization", WACV 2020.
    """
    kept = [
        _without_each_channel(tail, forward_of(place), image[None], grid, chunk) for place, image in enumerate(images)
    ]
    activations, answers, without = (torch.stack(each) for each in zip(*kept, strict=True))

    def maps(targets: Tensor) -> Tensor:
        before = selected(answers, targets)
        after = _of_channels(without, targets)
        size = torch.where(before == 0, 1, before.abs())[:, :, None]
        return torch.einsum("nchw,nkc->nkhw", activations, (before[:, :, None] - after) / size)

    return maps


def _without_each_channel(
    tail: Tail, forward: Forward, image: Tensor, grid: Grid, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's activations ``(channels, h, w)``, the logits, and those without each ``(channels, classes)``."""
    output, logits = tail.keep(forward, image)
    axis = 1 if output.ndim == 4 and not grid.is_channels_last else output.ndim - 1
    by_channel = output[0].movedim(axis - 1, 0).flatten(1)
    without = logits.repeat(len(by_channel), 1)
    # A channel that is 0 already changes nothing.
    for channels in torch.split(by_channel.ne(0).any(1).nonzero().flatten(), chunk):
        changed = output.repeat(len(channels), *(1,) * (output.ndim - 1))
        changed.movedim(axis, 1)[torch.arange(len(channels), device=output.device), channels] = 0
        without[channels] = tail.run(forward, image, changed)
    return grid.maps_of(output)[0].float(), logits[0], without


def _of_channels(answers: Tensor, targets: Tensor) -> Tensor:
    """Return the answers ``(n, k, channels)`` for classes ``(n, k)``, of logits ``(n, channels, classes)``."""
    return torch.stack(
        [selected(each, chosen.expand(len(each), -1)).T for each, chosen in zip(answers, targets, strict=True)]
    )


def scorecam(forward_of: ForwardOf, images: Tensor, activations: Tensor, *, chunk: int) -> Callable[[Tensor], Tensor]:
    """Return a function from targets ``(n, k)`` to maps: channels, each weighted by the answer to what it lets through.

    Each channel, enlarged to the image's size and scaled to 0–1, is a mask over the normalised image; the weights are
    the softmax over channels of the answers. The masks lie on the image without a shift; pytorch-grad-cam's are
    stretched, so that the centres of the corner cells come to lie in the image's corners.

    Parameters
    ----------
    activations
        Shape ``(n, channels, h, w)``, float32.
    chunk
        Channels a pass through the whole network.

    References
    ----------
    Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR Workshops 2020.
    """
    found = []
    for place, image in enumerate(images):
        forward = forward_of(place)
        answers = []
        for channels in torch.split(activations[place], chunk):
            masks = torch.nn.functional.interpolate(
                channels[None], tuple(image.shape[1:]), mode="bilinear", align_corners=False
            )[0]
            low, high = (edge(masks, (1, 2), keepdim=True) for edge in (torch.amin, torch.amax))
            masks = (masks - low) / (high - low + 1e-8)
            answers.append(forward(image * masks[:, None]).float())
        found.append(torch.cat(answers))
    of_channels = torch.stack(found)

    def maps(targets: Tensor) -> Tensor:
        return torch.einsum("nchw,nkc->nkhw", activations, _of_channels(of_channels, targets).softmax(2))

    return maps

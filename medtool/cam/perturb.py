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
    tail: Tail, forward_of: ForwardOf, images: Tensor, output: Tensor, answers: Tensor, *, grid: Grid, chunk: int
) -> Callable[[Tensor], Tensor]:
    """Return a function from targets ``(n, k)`` to maps: channels, each weighted by how the answer falls without it.

    A channel is set to 0, as in the paper. The fall is a share of the answer's size; its sign is that of the fall, also
    where the answer is below 0.

    Parameters
    ----------
    output
        What the layer gave for the images, as :meth:`Tail.keep` returns it.
    answers
        Logits ``(n, classes)`` of the images as they are.
    chunk
        Channels a pass.

    References
    ----------
    Desai and Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
    Localization", WACV 2020.
    """
    axis = 1 if output.ndim == 4 and not grid.is_channels_last else output.ndim - 1
    n_channels = output.shape[axis]
    without = answers[:, None].repeat(1, n_channels, 1)
    for place in range(len(images)):
        own = output[place : place + 1]
        others = [other for other in range(1, output.ndim) if other != axis]
        # A channel that is 0 already changes nothing.
        peaks = own[0].abs().amax([other - 1 for other in others])
        active = peaks.ne(0).nonzero().flatten()
        for channels in torch.split(active, chunk):
            rows = torch.arange(len(channels), device=output.device)
            changed = own.repeat(len(channels), *(1,) * (output.ndim - 1))
            changed.movedim(axis, 1)[rows, channels] = 0
            without[place, channels] = tail.run(forward_of(place), images[place : place + 1], place, changed)
    activations = grid.maps_of(output).float()

    def maps(targets: Tensor) -> Tensor:
        before = selected(answers, targets)
        after = torch.stack([selected(without[:, channel], targets) for channel in range(n_channels)], 2)
        size = torch.where(before == 0, 1, before.abs())[:, :, None]
        return torch.einsum("nchw,nkc->nkhw", activations, (before[:, :, None] - after) / size)

    return maps


def scorecam(forward_of: ForwardOf, images: Tensor, activations: Tensor, *, chunk: int) -> Callable[[Tensor], Tensor]:
    """Return a function from targets ``(n, k)`` to maps: channels, each weighted by the answer to what it lets through.

    Each channel, enlarged to the image's size and scaled to 0–1, is a mask over the normalised image; the weights are
    the softmax over channels of the answers. The masks lie on the image without a shift.

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
    of_channels = torch.stack(found, 1)  # (channels, n, classes)

    def maps(targets: Tensor) -> Tensor:
        weights = torch.stack([selected(answers, targets) for answers in of_channels], 2).softmax(2)
        return torch.einsum("nchw,nkc->nkhw", activations, weights)

    return maps

"""From a layer's activations, and the gradients at them, to raw maps: one function a method.

Activations and gradients are ``(n, channels, h, w)`` float32, maps ``(n, h, w)``: neither scaled nor cut at 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medtool.cam.choices import Method


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the sum of channels, each weighted by its mean gradient.

    References
    ----------
    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
    """
    return _weighted(activations, gradients.mean((2, 3)))


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the sum of channels, each weighted by its positive gradients, of which the rarer ones count more.

    References
    ----------
    Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks",
    WACV 2018, equation 19.
    """
    squared = gradients.square()
    total = activations.sum((2, 3), keepdim=True)
    share = squared / (2 * squared + total * (squared * gradients) + 1e-6)
    # Where the gradient is not positive, the share is multiplied by 0; it may be infinite there.
    return _weighted(activations, torch.where(gradients > 0, gradients * share, 0).sum((2, 3)))


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the sum of channels, each weighted by its gradients, and these by the activations.

    References
    ----------
    Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs", BMVC 2020.
    """
    total = activations.sum((2, 3))
    return _weighted(activations, (gradients * activations).sum((2, 3)) / (total + 1e-7))


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the sum of channels, each cell weighted by its own positive gradient.

    References
    ----------
    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 30, 2021.
    """
    return (gradients.clamp(min=0) * activations).sum(1)


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the sum of channels, each cell weighted by its own gradient: what it adds to the answer.

    References
    ----------
    Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
    arXiv:2011.08891.
    """
    return (gradients * activations).sum(1)


def eigencam(activations: Tensor) -> Tensor:
    """Return the first principal component of the cells' activations.

    The component's sign is free; it is chosen so that the map is high where the layer responds strongly.

    References
    ----------
    Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", IJCNN 2020.
    """
    n, _, height, width = activations.shape
    # In float64, which not every device has, and on matrices so small that the processor is quick enough.
    cells = activations.flatten(2).transpose(1, 2).cpu().double()
    is_finite = cells.isfinite().flatten(1).all(1)
    safe = torch.where(is_finite[:, None, None], cells, 0)
    centred = safe - safe.mean(1, keepdim=True)
    # The largest eigenvector of cells × cells is the component's values at the cells; there are fewer cells than
    # channels, as a rule.
    if centred.shape[1] <= centred.shape[2]:
        values, vectors = torch.linalg.eigh(centred @ centred.transpose(1, 2))
        component = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(centred.transpose(1, 2) @ centred)
        component = (centred @ vectors[:, :, -1:]).squeeze(2)
    energy = safe.square().sum(2)
    likeness = (component * (energy - energy.mean(1, keepdim=True))).sum(1, keepdim=True)
    signed = torch.where(likeness < 0, -component, component)
    found = torch.where(is_finite[:, None], signed, torch.nan).float().reshape(n, height, width)
    return found.to(activations.device)


WEIGHTED: dict[Method, Callable[[Tensor, Tensor], Tensor]] = {
    Method.GRADCAM: gradcam,
    Method.GRADCAM_PLUS_PLUS: gradcam_plus_plus,
    Method.XGRADCAM: xgradcam,
    Method.LAYERCAM: layercam,
    Method.HIRESCAM: hirescam,
}


def _weighted(activations: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("nchw,nc->nhw", activations, weights)

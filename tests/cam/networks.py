"""Small networks of each family, and pytorch-grad-cam's maps of them before and after it scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytorch_grad_cam
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medtool.cam.choices import Method
from medtool.cam.layer import find_layers, grid_of

PEERS = {
    Method.GRADCAM: pytorch_grad_cam.GradCAM,
    Method.GRADCAM_PLUS_PLUS: pytorch_grad_cam.GradCAMPlusPlus,
    Method.XGRADCAM: pytorch_grad_cam.XGradCAM,
    Method.LAYERCAM: pytorch_grad_cam.LayerCAM,
    Method.HIRESCAM: pytorch_grad_cam.HiResCAM,
    Method.EIGENCAM: pytorch_grad_cam.EigenCAM,
    Method.SCORECAM: pytorch_grad_cam.ScoreCAM,
    Method.ABLATIONCAM: pytorch_grad_cam.AblationCAM,
}


@dataclass(frozen=True)
class Kind:
    """How to make a small network of a family.

    Attributes
    ----------
    timm_name, options
        As :func:`timm.create_model` takes them.
    layer
        For class-activation maps, by the rule of :mod:`medtool.architectures.cam_layer`.
    """

    timm_name: str
    layer: str
    options: tuple[tuple[str, object], ...] = ()


KINDS = {
    "resnet": Kind("test_resnet", "layer4"),
    "mobilenetv2": Kind("mobilenetv2_050", "bn2"),
    "efficientnet": Kind("test_efficientnet", "bn2"),
    "vit": Kind("test_vit", "blocks.5.norm1", (("img_size", 96),)),
    "swin": Kind(
        "swin_tiny_patch4_window7_224",
        "layers.1.blocks.1.norm2",
        (("img_size", 96), ("embed_dim", 24), ("depths", (2, 2)), ("num_heads", (2, 4)), ("window_size", 6)),
    ),
    "convnext": Kind("test_convnext", "stages.3"),
    "densenet": Kind("densenet121", "features.norm5", (("growth_rate", 8), ("block_config", (2, 2, 2, 2)))),
}


@cache
def network(kind: str, num_classes: int = 5) -> nn.Module:
    """Return a network of a family from chance; its normalisations are those of a network in use, not of a new one."""
    torch.manual_seed(905)
    made = KINDS[kind]
    net: nn.Module = timm.create_model(made.timm_name, num_classes=num_classes, **dict(made.options))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@cache
def images(n: int = 3, size: tuple[int, int] = (96, 96)) -> Tensor:
    """Return smooth pictures of chance, ``(n, 3, height, width)``."""
    coarse = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    fine = torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic") + 0.2 * fine


def trained_mobilenetv2(weights: Path) -> nn.Module:
    """Return the network of the published weights, of ImageNet's thousand classes."""
    net: nn.Module = timm.create_model("mobilenetv2_100", pad_type="same")
    net.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return net.eval()


def peer_maps(
    method: Method, net: nn.Module, layer: str, pictures: Tensor, targets: Sequence[int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return pytorch-grad-cam's maps ``(n, h, w)`` of a layer, and what it makes of them at the image's size."""
    shapes: list[tuple[int, ...]] = []
    module = find_layers(net, [layer])[layer]
    handle = module.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        net(pictures)
    handle.remove()
    grid = grid_of(net, layer, shapes[0], (pictures.shape[2], pictures.shape[3]))
    raw: list[npt.NDArray[np.float32]] = []
    with PEERS[method](net, [module], reshape_transform=grid.maps_of) as cam:
        compute = cam.get_cam_image

        def kept(*arguments: object, **named: object) -> npt.NDArray[np.float32]:
            found = compute(*arguments, **named)
            raw.append(found.copy())
            return found

        cam.get_cam_image = kept
        whole = cam(pictures, [lambda logits, target=target: _answer(logits, target) for target in targets])
        cam.get_cam_image = compute
    for parameter in net.parameters():
        parameter.grad = None
    return np.asarray(raw[0]), np.asarray(whole)


def _answer(logits: Tensor, target: int) -> Tensor:
    return logits[0] * (2 * target - 1) if len(logits) == 1 else logits[target]

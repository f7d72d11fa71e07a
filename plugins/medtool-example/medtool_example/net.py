"""MobileNetV2 from timm, as an architecture of medtool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medtool.protocols import InputSpec

if TYPE_CHECKING:
    from torch import nn


class ExampleNet:
    """MobileNetV2; maps are taken after its last convolution, 7×7 for an image of 224×224."""

    licence = "Apache-2.0 (timm)"
    citation = "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018"
    input = InputSpec(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    cam_layer = "bn2"

    def build(self, *, num_classes: int, in_channels: int = 3, pretrained: Path | None = None) -> nn.Module:
        """Return a fresh network; ``pretrained`` is a file of its weights with any number of classes."""
        import timm  # here, so that looking at the plugin takes no time

        return timm.create_model(
            "mobilenetv2_100",
            num_classes=num_classes,
            in_chans=in_channels,
            pretrained=pretrained is not None,
            pretrained_cfg_overlay={"file": str(pretrained)},
        )

"""The networks that have a name of their own: one of each family that papers on medical images compare.

All are timm's. What timm says of them stands here again, so that looking at one needs no import of timm, and so that
another version of timm does not change a name's meaning; a test holds both to be the same.
"""

from __future__ import annotations

from medtool.architectures.timm_backbone import TimmArchitecture
from medtool.protocols import InputSpec

_TIMM = "Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861"
_APACHE = "Apache-2.0 (weights and timm)"

RESNET50 = TimmArchitecture(
    name="resnet50",
    timm_name="resnet50.a1_in1k",
    licence=_APACHE,
    citation=f"He et al., Deep Residual Learning for Image Recognition, CVPR 2016; {_TIMM}",
    input=InputSpec(),
    cam_layer="layer4",
)

MOBILENETV2 = TimmArchitecture(
    name="mobilenetv2",
    timm_name="mobilenetv2_100.ra_in1k",
    licence=_APACHE,
    citation=f"Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018; {_TIMM}",
    input=InputSpec(),
    cam_layer="bn2",
)

EFFICIENTNET_B0 = TimmArchitecture(
    name="efficientnet-b0",
    timm_name="efficientnet_b0.ra_in1k",
    licence=_APACHE,
    citation=f"Tan and Le, EfficientNet: Rethinking Model Scaling for ConvNets, ICML 2019, arXiv:1905.11946; {_TIMM}",
    input=InputSpec(),
    cam_layer="bn2",
)

VIT_B16 = TimmArchitecture(
    name="vit-b16",
    timm_name="vit_base_patch16_224.augreg2_in21k_ft_in1k",
    licence=_APACHE,
    citation=(
        "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; Steiner et al., How to train your ViT?, TMLR"
        f" 2022; {_TIMM}"
    ),
    input=InputSpec(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    cam_layer="blocks.11.norm1",
)

SWIN_T = TimmArchitecture(
    name="swin-t",
    timm_name="swin_tiny_patch4_window7_224.ms_in1k",
    licence="MIT (weights), Apache-2.0 (timm)",
    citation=f"Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021; {_TIMM}",
    input=InputSpec(),
    cam_layer="layers.3.blocks.1.norm2",
)

DENSENET121 = TimmArchitecture(
    name="densenet121",
    timm_name="densenet121.ra_in1k",
    licence=_APACHE,
    citation=f"Huang et al., Densely Connected Convolutional Networks, CVPR 2017; {_TIMM}",
    input=InputSpec(),
    cam_layer="features.norm5",
)

CONVNEXT_TINY = TimmArchitecture(
    name="convnext-tiny",
    timm_name="convnext_tiny.in12k_ft_in1k",
    licence=_APACHE,
    citation=f"Liu et al., A ConvNet for the 2020s, CVPR 2022; {_TIMM}",
    input=InputSpec(),
    cam_layer="stages.3",
)

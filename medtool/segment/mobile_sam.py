"""MobileSAM: SAM's prompt encoder and mask decoder behind a small image encoder, TinyViT."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from medtool.segment.sam import SamSegmenter, build_sam

# What is left of TinyViT's classifier in the published file; MobileSAM does not use it either.
_UNUSED = re.compile(r"image_encoder\.(norm_head|head)\.(weight|bias)")


class TinyVitEncoder(nn.Module):
    """timm's TinyViT with the two changes that MobileSAM made: no third halving of the grid, and SAM's neck.

    The halving before the last stage keeps its convolution, with stride 1, so that 1024 pixels become the 64 × 64 grid
    that SAM's mask decoder expects.
    """

    def __init__(self) -> None:
        from segment_anything.modeling.common import LayerNorm2d
        from timm.models.tiny_vit import TinyVit

        super().__init__()
        trunk: Any = TinyVit(
            num_classes=0,
            embed_dims=(64, 128, 160, 320),
            depths=(2, 2, 6, 2),
            num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7),
            drop_path_rate=0.0,
        )
        trunk.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.patch_embed, self.stages = trunk.patch_embed, trunk.stages
        self.neck = nn.Sequential(
            nn.Conv2d(320, 256, kernel_size=1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(256),
        )
        self.dtype = torch.float32

    def optimised(self, dtype: torch.dtype) -> Self:
        """Return this loaded network, changed in place: batch norms folded away, all but the neck in ``dtype``."""
        _make_fast(self)
        self.patch_embed, self.stages = self.patch_embed.to(dtype), self.stages.to(dtype)
        self.dtype = dtype
        return self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return features ``(batch, 256, 64, 64)`` in float32 for pixels ``(batch, 3, 1024, 1024)``."""
        tokens = self.patch_embed(pixels.to(self.dtype, memory_format=torch.channels_last))
        features: Tensor = self.neck(self.stages(tokens).float())
        return features


def _make_fast(module: nn.Module) -> None:
    """Fold batch norms, and give attention biases the four dimensions without which torch's CPU kernel is not fused."""
    from timm.models.tiny_vit import Attention, ConvNorm

    part: Any
    for name, part in module.named_children():
        if isinstance(part, ConvNorm):
            fold: Any = part.fuse
            setattr(module, name, fold())
            continue
        if isinstance(part, Attention):
            part.get_attention_biases = partial(_batched, part.get_attention_biases)  # type: ignore[method-assign]
        _make_fast(part)


def _batched(biases: Callable[[torch.device], Tensor], device: torch.device) -> Tensor:
    return biases(device)[None]


class MobileSam(SamSegmenter):
    """MobileSAM: 10 M parameters, for machines on which SAM takes too long."""

    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = (
        "Zhang et al., Faster Segment Anything: Towards Lightweight SAM for Mobile Applications, arXiv 2306.14289, 2023"
    )
    weights: ClassVar[str | None] = "mobile-sam"

    @staticmethod
    def build() -> Any:
        """Return SAM's network with TinyViT in the place of its encoder."""
        network = build_sam("vit_b")
        network.image_encoder = TinyVitEncoder()
        return network

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the published tensors by timm's names, without the classifier that nothing uses."""
        return {timm_name(name): value for name, value in state.items() if not _UNUSED.fullmatch(name)}

    @staticmethod
    def encoder_of(network: Any, dtype: torch.dtype) -> nn.Module:
        """Return the encoder with its batch normalisation folded in."""
        encoder: TinyVitEncoder = network.image_encoder.eval()
        return encoder.optimised(dtype)


def timm_name(published: str) -> str:
    """Return timm's name for a tensor of the published ``mobile_sam.pt``.

    timm has a stage begin, not end, with the halving of the grid, and calls convolution and normalisation by other
    names. Names outside the image encoder are segment-anything's and stay as they are.
    """
    if not published.startswith("image_encoder."):
        return published
    name = published.replace(".patch_embed.seq.0.", ".patch_embed.conv1.").replace(
        ".patch_embed.seq.2.", ".patch_embed.conv2."
    )
    name = re.sub(r"\.layers\.(\d+)\.downsample\.", lambda found: f".stages.{int(found[1]) + 1}.downsample.", name)
    name = name.replace(".layers.", ".stages.")
    return re.sub(r"\.c\.weight$", ".conv.weight", name)

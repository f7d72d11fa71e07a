"""The image encoder of segment-anything, computed without an attention matrix in memory.

The network, its parameters and its result are segment-anything's own; only the order of the arithmetic differs. A
global attention layer there holds several (heads, 4096, 4096) matrices, because the relative position bias is added to
the scores. That bias is a sum of one term that depends on the key's row and one that depends on its column, so it is
written here as a few more channels of query and key, and the fused attention kernel does the rest:

    query' = [query * scale, bias of each key row, bias of each key column]
    key'   = [key,           one-hot of its row,   one-hot of its column  ]

The residual stream, the norms, the patch embedding and the neck stay in float32; the matrix products of the blocks are
computed in the precision asked for. In bfloat16 the rounding of the weights would make up half of the whole error, so
each weight is then kept as a sum of two bfloat16 numbers.

References
----------
Kirillov et al., "Segment Anything" (2023). Li et al., "Exploring Plain Vision Transformer Backbones for Object
Detection" (2022): windowed attention. Li et al., "MViTv2" (2022): decomposed relative position bias.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# The fused kernels are fastest when a head's channels are a multiple of this.
_CHANNEL_MULTIPLE = 32


class ImageEncoder(nn.Module):
    """A loaded encoder of segment-anything, ready to encode images one at a time.

    Parameters
    ----------
    network
        A ``segment_anything`` ``ImageEncoderViT`` with its weights in float32; it is taken over and converted in place.
    dtype
        Precision of the blocks' matrix products.
    """

    def __init__(self, network: Any, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        grid = network.img_size // network.patch_embed.proj.kernel_size[0]
        self.blocks = nn.ModuleList(_Block(block, grid=grid, dtype=dtype) for block in network.blocks)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return features ``(1, 256, 64, 64)`` in float32 for normalised, padded pixels ``(1, 3, 1024, 1024)``."""
        tokens = (self.network.patch_embed(pixels) + self.network.pos_embed).contiguous()
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.network.neck(tokens.permute(0, 3, 1, 2))
        return features


class _Block(nn.Module):
    """One transformer block: attention within windows (or over everything) and a two-layer perceptron."""

    row_bias: Tensor
    column_bias: Tensor
    key_place: Tensor

    def __init__(self, block: Any, *, grid: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attention, self.mlp = block.attn, block.mlp
        for part, names in ((self.attention, ("qkv", "proj")), (self.mlp, ("lin1", "lin2"))):
            for name in names:
                layer = getattr(part, name)
                setattr(part, name, _TwoTermLinear(layer) if dtype == torch.bfloat16 else layer.to(dtype))
        self.window = block.window_size
        self.dtype = dtype
        side = self.window or grid
        rows = torch.arange(side, device=self.attention.rel_pos_h.device)
        distance = rows[:, None] - rows[None, :] + side - 1
        self.register_buffer("row_bias", self.attention.rel_pos_h[distance].transpose(1, 2).detach().to(dtype))
        self.register_buffer("column_bias", self.attention.rel_pos_w[distance].transpose(1, 2).detach().to(dtype))
        head_channels = self.attention.rel_pos_h.shape[1]
        self.surplus = -(head_channels + 2 * side) % _CHANNEL_MULTIPLE
        one_hot = torch.eye(side, dtype=dtype, device=rows.device)
        place = torch.cat([one_hot.repeat_interleave(side, 0), one_hot.repeat(side, 1)], dim=1)
        self.register_buffer("key_place", functional.pad(place, (0, self.surplus)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Take and give tokens ``(1, rows, columns, channels)`` in float32."""
        normed = self.norm1(tokens).to(self.dtype)
        tokens = tokens + (self._in_windows(normed) if self.window else self._attend(normed))
        out: Tensor = tokens + self.mlp(self.norm2(tokens).to(self.dtype))
        return out

    def _in_windows(self, tokens: Tensor) -> Tensor:
        """Attend within windows; the padding that fills the last ones takes part, as it did in training."""
        _, height, width, channels = tokens.shape
        side = self.window
        tokens = functional.pad(tokens, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = tokens.shape[1] // side, tokens.shape[2] // side
        windows = tokens.view(rows, side, columns, side, channels).transpose(1, 2).reshape(-1, side, side, channels)
        mixed: Tensor = self._attend(windows).view(rows, columns, side, side, channels)
        return mixed.transpose(1, 2).reshape(1, rows * side, columns * side, channels)[:, :height, :width]

    def _attend(self, tokens: Tensor) -> Tensor:
        """Return full attention within each ``(side, side)`` grid of tokens ``(batch, side, side, channels)``."""
        batch, side, _, channels = tokens.shape
        heads = self.attention.num_heads
        query, key, value = self.attention.qkv(tokens).view(batch, side * side, 3, heads, -1).permute(2, 0, 3, 1, 4)
        at_rows = query.reshape(batch, heads, side, side, -1)
        row_term = at_rows @ self.row_bias
        column_term = (at_rows.transpose(2, 3) @ self.column_bias).transpose(2, 3)
        query = torch.cat([query * self.attention.scale, row_term.flatten(2, 3), column_term.flatten(2, 3)], dim=-1)
        query = functional.pad(query, (0, self.surplus))
        key = torch.cat([key, self.key_place.expand(batch, heads, -1, -1)], dim=-1)
        # The fused kernels want one width for query, key and value; without them the scores would be a matrix again.
        wide = functional.pad(value, (0, query.shape[-1] - value.shape[-1]))
        mixed = functional.scaled_dot_product_attention(query, key, wide, scale=1.0)[..., : value.shape[-1]]
        out: Tensor = self.attention.proj(mixed.transpose(1, 2).reshape(batch, side, side, channels))
        return out


class _TwoTermLinear(nn.Module):
    """A linear layer in bfloat16 whose weights keep 16 bits: what is nearest in bfloat16, and what that leaves out."""

    coarse: Tensor
    fine: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        coarse = layer.weight.to(torch.bfloat16)
        self.register_buffer("coarse", coarse.detach())
        self.register_buffer("fine", (layer.weight - coarse.float()).to(torch.bfloat16).detach())
        self.register_buffer("bias", layer.bias.to(torch.bfloat16).detach())

    def forward(self, inputs: Tensor) -> Tensor:
        """Take and give bfloat16; the two products are summed before the one rounding that counts."""
        out = functional.linear(inputs, self.fine, self.bias)
        out.flatten(0, -2).addmm_(inputs.flatten(0, -2), self.coarse.t())
        return out

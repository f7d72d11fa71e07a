"""The layers that maps come from, and how what they give lies over the image: read from the network, never assumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medtool.errors import UnknownNameError, UsageError


def find_layers(network: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return modules of a network by their dotted names, such as ``layer4`` or ``blocks.11.norm1``.

    Raises
    ------
    UnknownNameError
        If there is none of a name; gives the nearest.
    UsageError
        If a name is there twice.
    """
    known = {name: module for name, module in network.named_modules() if name}
    for name in names:
        if name not in known:
            top = ", ".join(child for child, _ in network.named_children())
            raise UnknownNameError("layer", name, known=known, hint=f"the network's own layers: {top}; inside: a.b")
        if list(names).count(name) > 1:
            raise UsageError(f"the layer {name} is named twice")
    return {name: known[name] for name in names}


@dataclass(frozen=True, slots=True)
class Grid:
    """How a layer's output lies over the image.

    Attributes
    ----------
    height, width
        Cells; together they cover the whole image.
    n_prefix
        Tokens before those of the cells: class, distillation, register.
    is_channels_last
        Whether the channels are the last axis.
    """

    height: int
    width: int
    n_prefix: int = 0
    is_channels_last: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in cells."""
        return self.height, self.width

    def maps_of(self, output: Tensor) -> Tensor:
        """Return what the layer gave, or a gradient of its shape, as ``(n, channels, height, width)``."""
        if output.ndim == 3:
            cells = output[:, self.n_prefix :]
            return cells.transpose(1, 2).reshape(len(output), -1, self.height, self.width)
        return output.permute(0, 3, 1, 2) if self.is_channels_last else output


def grid_of(network: nn.Module, name: str, shape: Sequence[int], image: tuple[int, int]) -> Grid:
    """Return how a layer's output lies over the image.

    Maps have their channels first or last: the axes whose numbers are those of the image, reduced by one factor, are
    its height and width; where both could be, those that make cells squares, or else what the network says. Of tokens,
    those before the cells are as many as the network says (``num_prefix_tokens``), and the cells are its patches, or as
    many as a later stage keeps of them, in the image's proportions.

    Parameters
    ----------
    network
        The one that the layer is in.
    name
        The layer's.
    shape
        Of its output: ``(n, channels, h, w)``, ``(n, h, w, channels)`` or ``(n, tokens, channels)``.
    image
        (height, width) in pixels of the images that the network was given.

    Raises
    ------
    UsageError
        If the output is neither a map nor tokens of the image.
    """
    found: Grid | None = None
    if len(shape) == 4:
        found = _grid_of_map(network, name, shape, image)
    elif len(shape) == 3:
        found = _grid_of_tokens(network, name, shape[1], image)
    if found is None or found.height * found.width < 2:
        raise UsageError(
            f"the layer {name} gives {tuple(shape)} for images of {image[0]}×{image[1]} pixels: no map of them",
            hint="name a layer before the pooling; for a transformer, the first normalisation of a block",
        )
    return found


def _grid_of_map(network: nn.Module, name: str, shape: Sequence[int], image: tuple[int, int]) -> Grid | None:
    first, last = tuple(shape[2:]), tuple(shape[1:3])
    fits_first, fits_last = _fits(first, image), _fits(last, image)
    if fits_first and fits_last:  # as many channels as there could be cells along a side
        off_first, off_last = (abs(size[0] * image[1] - size[1] * image[0]) for size in (first, last))
        if off_first == off_last:  # what the network says of its maps decides
            said = (getattr(module, "output_fmt", None) for module in _around(network, name))
            is_last = str(next((each for each in said if each is not None), "NCHW")).rpartition(".")[2] == "NHWC"
        else:  # cells are squares
            is_last = off_last < off_first
        fits_first = not is_last
    if fits_first:
        return Grid(shape[2], shape[3])
    return Grid(shape[1], shape[2], is_channels_last=True) if fits_last else None


def _grid_of_tokens(network: nn.Module, name: str, n_tokens: int, image: tuple[int, int]) -> Grid | None:
    for module in _around(network, name):
        if hasattr(module, "reroll"):
            return _grid_of_rolled(module.reroll, name, n_tokens)
    counts = [getattr(module, "num_prefix_tokens", None) for module in _around(network, name)]
    said = next((count for count in counts if isinstance(count, int)), 0)
    prefixes = dict.fromkeys((said, 0))  # some networks add their class token after the layer
    patches = patches_of(network, name, image)
    if patches is not None:
        for n_prefix in prefixes:
            if n_tokens - n_prefix == math.prod(patches):
                return Grid(*patches, n_prefix=n_prefix)
    for n_prefix in prefixes:
        size = _in_proportion(n_tokens - n_prefix, image)
        if size is not None:
            return Grid(*size, n_prefix=n_prefix)
    return None


def _grid_of_rolled(reroll: Any, name: str, n_tokens: int) -> Grid | None:
    """Return the grid of Hiera's tokens, if they are in the image's order, as those of its last stage."""
    block = next((int(part) for part in name.split(".") if part.isdecimal()), -1)
    strides, size = reroll.schedule.get(block, ([()], ()))
    return Grid(*size) if not strides and math.prod(size) == n_tokens else None


def patches_of(network: nn.Module, name: str, image: tuple[int, int]) -> tuple[int, int] | None:
    """Return (rows, columns) of the patches that the network cuts the image into, if it says so."""
    for module in _around(network, name):
        embedding = getattr(module, "patch_embed", None)
        if embedding is None:
            continue
        if hasattr(embedding, "dynamic_feat_size"):
            rows, columns = embedding.dynamic_feat_size(image)
            return int(rows), int(columns)
        size = getattr(embedding, "grid_size", None)
        if isinstance(size, tuple) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None


def _around(network: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the modules that a layer is in, the nearest first."""
    while name:
        name = name.rpartition(".")[0]
        yield network.get_submodule(name)


def _in_proportion(n_cells: int, image: tuple[int, int]) -> tuple[int, int] | None:
    """Return the (rows, columns) of so many cells that come nearest to squares; None if none do."""
    sizes = [(rows, n_cells // rows) for rows in range(1, max(n_cells, 0) + 1) if n_cells % rows == 0]
    sizes = [size for size in sizes if _fits(size, image)]
    return min(sizes, key=lambda size: abs(size[0] * image[1] - size[1] * image[0]), default=None)


def _fits(size: tuple[int, ...], image: tuple[int, int]) -> bool:
    """Tell whether one step in pixels, the same down and across, gives so many rows and columns, one more or less."""
    least = max(side / (cells + 1) for side, cells in zip(image, size, strict=True))
    most = min(side / (cells - 1) if cells > 1 else math.inf for side, cells in zip(image, size, strict=True))
    return all(0 < cells <= side for side, cells in zip(image, size, strict=True)) and least < most


def finest(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the (height, width) with the most cells."""
    return max(sizes, key=math.prod)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps ``(n, k, h, w)`` at another (height, width): bilinear, the centres of cells at half-integers.

    Averaged on the way down, so that no cell is passed over.
    """
    if tuple(maps.shape[2:]) == size:
        return maps
    return torch.nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)

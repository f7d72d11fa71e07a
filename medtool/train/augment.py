"""Variation of training images, drawn from (seed, epoch, image) alone, so that a resumed run sees the same images.

All places are changed by one resampling (:mod:`medtool.train.warp`), all colours by one matrix, and only these round.
No draw touches torch's global state, and the draws of one kind of variation do not move those of another: the same
seed turns an image by the same angle whether it is blurred or not.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from medtool.errors import InputError
from medtool.runs.stain import hed_jittered
from medtool.train.augment_options import PRESETS, AugmentOptions, AugmentPreset
from medtool.train.warp import NODES, Geometry, warped

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "PRESETS",
    "AugmentOptions",
    "AugmentPreset",
    "augmented",
    "blurred",
    "generator_for",
    "recoloured",
]

_SHARE_BLURRED = 0.5
_SHARE_CUT_OUT = 0.5
_BLUR_REACH = 3.0  # standard deviations at which the Gaussian is cut off
_LEAST_BLUR = 0.1  # px: less changes no grey value

_LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)  # ITU-R BT.601, as in torchvision
_YIQ = torch.tensor(  # of NTSC, as in scikit-image
    [[0.299, 0.587, 0.114], [0.59590059, -0.27455667, -0.32134392], [0.21153661, -0.52273617, 0.31119955]],
    dtype=torch.float64,
)
_YIQ_INVERSE = torch.linalg.inv(_YIQ)


def generator_for(seed: int, epoch: int, index: int) -> torch.Generator:
    """Return the generator of everything that is random about one image in one epoch, or about one batch.

    The same three numbers give the same draws in every process, on every platform and in any order.
    """
    digest = hashlib.blake2b(f"{seed} {epoch} {index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def augmented(image: Tensor, generator: torch.Generator, options: AugmentOptions) -> Tensor:
    """Return one training image, varied.

    Parameters
    ----------
    image
        Shape ``(3, height, width)``, uint8; it is not changed.
    generator
        Of this image and epoch, from :func:`generator_for`.
    options
        How it is varied.

    Returns
    -------
    image
        Of the same shape, uint8; the very same tensor where nothing is drawn.

    Raises
    ------
    InputError
        If the image is not ``(3, height, width)`` uint8.

    Notes
    -----
    In order: places (:class:`~medtool.train.warp.Geometry`), amounts of stains, brightness, contrast, saturation, hue,
    blur, cut-out.
    """
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8 or image.numel() == 0:
        seen = f"{str(image.dtype).removeprefix('torch.')} of shape {tuple(image.shape)}"
        raise InputError(f"the image is {seen}; wanted uint8 of shape (3, height, width)")
    draws = torch.rand(len(_DRAWS), generator=generator, dtype=torch.float64).tolist()
    drawn = dict(zip(_DRAWS, draws, strict=True))
    pixels = warped(image, _geometry(drawn, generator, options, is_square=image.shape[1] == image.shape[2]))
    if options.stain_jitter:
        most = options.stain_jitter
        pixels = hed_jittered(
            pixels.float(),
            factors=_three([1 + most * _signed(drawn[f"{stain} factor"]) for stain in _STAINS]),
            added=_three([most / 2 * _signed(drawn[f"{stain} added"]) for stain in _STAINS]),
        )
    if options.brightness or options.contrast or options.saturation or options.hue:
        pixels = recoloured(
            pixels.float(),
            brightness=1 + options.brightness * _signed(drawn["brightness"]),
            contrast=1 + options.contrast * _signed(drawn["contrast"]),
            saturation=1 + options.saturation * _signed(drawn["saturation"]),
            hue=options.hue * _signed(drawn["hue"]),
        )
    if options.blur and drawn["is blurred"] < _SHARE_BLURRED:
        pixels = blurred(pixels.float().clamp(0, 255), sigma_px=options.blur * drawn["blur"])
    if pixels.dtype != torch.uint8:
        pixels = pixels.round().clamp_(0, 255).to(torch.uint8)
    if options.cutout and drawn["is cut out"] < _SHARE_CUT_OUT:
        pixels = _cut_out(pixels, options.cutout, x=drawn["cut-out x"], y=drawn["cut-out y"])
    return pixels


def recoloured(pixels: Tensor, *, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Return an image with another brightness, contrast, saturation and hue: one matrix for all four.

    Parameters
    ----------
    pixels
        Shape ``(3, height, width)``, float32, 0 to 255.
    brightness, contrast, saturation
        Factors, 1 changes nothing; applied in this order, as torchvision's ``adjust_...`` functions define them but
        without clipping or rounding in between.
    hue
        Turn as a share of the circle, from red towards yellow and green: a rotation of chroma in YIQ, which keeps the
        luma of every pixel. (torchvision turns the hue of HSV instead, which brightens or darkens on the way, and
        takes ten times as long.)

    Returns
    -------
    pixels
        Of the same shape, float32, not clipped. Grey pixels stay grey.
    """
    luma = _LUMA.expand(3, 3)
    mean = float(_LUMA @ pixels.flatten(1).mean(dim=1).double()) if contrast != 1 else 0.0
    cos, sin = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)
    turn = torch.tensor([[1, 0, 0], [0, cos, sin], [0, -sin, cos]], dtype=torch.float64)
    colour = torch.eye(3, dtype=torch.float64) * saturation + luma * (1 - saturation)
    matrix = (_YIQ_INVERSE @ turn @ _YIQ @ colour) * (brightness * contrast)
    offset = torch.full((3, 1), (1 - contrast) * brightness * mean, dtype=torch.float32)
    return torch.addmm(offset, matrix.float(), pixels.flatten(1)).view_as(pixels)


def blurred(pixels: Tensor, *, sigma_px: float) -> Tensor:
    """Return an image smoothed by a Gaussian, which is cut off at three standard deviations.

    Parameters
    ----------
    pixels
        Shape ``(3, height, width)``, float32; reflected outside, without repeating the outermost pixels.
    sigma_px
        Standard deviation in pixels; below 0.1 nothing changes.
    """
    if sigma_px < _LEAST_BLUR:
        return pixels
    for axis in (-1, -2):
        reach = min(math.ceil(_BLUR_REACH * sigma_px), pixels.shape[axis] - 1)
        weights = [math.exp(-0.5 * (step / sigma_px) ** 2) for step in range(reach + 1)]
        total = weights[0] + 2 * sum(weights[1:])
        padding = (reach, reach, 0, 0) if axis == -1 else (0, 0, reach, reach)
        padded = functional.pad(pixels, padding, mode="reflect")
        n = pixels.shape[axis]
        # a handful of additions takes a quarter of the time of a convolution
        smooth = padded.narrow(axis, reach, n) * (weights[0] / total)
        for step in range(1, reach + 1):
            both = padded.narrow(axis, reach - step, n) + padded.narrow(axis, reach + step, n)
            smooth.add_(both, alpha=weights[step] / total)
        pixels = smooth
    return pixels


_STAINS = ("haematoxylin", "eosin", "residual")

# The place in this table decides which number a variation draws: a new one goes to the end.
_DRAWS = (
    "is mirrored",
    "is upended",
    "quarter turns",
    "angle",
    "shift x",
    "shift y",
    "zoom",
    "shear x",
    "shear y",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    *(f"{stain} {what}" for stain in _STAINS for what in ("factor", "added")),
    "is blurred",
    "blur",
    "is cut out",
    "cut-out x",
    "cut-out y",
)


def _geometry(
    drawn: dict[str, float], generator: torch.Generator, options: AugmentOptions, *, is_square: bool
) -> Geometry:
    turns = int(drawn["quarter turns"] * 4) if options.quarter_turns else 0
    nodes = None
    if options.elastic:
        numbers = torch.rand((2, NODES, NODES), generator=generator, dtype=torch.float64)
        nodes = ((numbers * 2 - 1) * options.elastic).float()
    return Geometry(
        mirrored=options.flips and drawn["is mirrored"] < 0.5,
        upended=options.upside_down and drawn["is upended"] < 0.5,
        quarter_turns=turns if is_square else turns // 2 * 2,
        angle_deg=options.rotate_deg * _signed(drawn["angle"]),
        shift=(options.translate * _signed(drawn["shift x"]), options.translate * _signed(drawn["shift y"])),
        zoom=(1 + options.scale) ** _signed(drawn["zoom"]),
        shear_deg=(options.shear_deg * _signed(drawn["shear x"]), options.shear_deg * _signed(drawn["shear y"])),
        nodes=nodes,
    )


def _cut_out(image: Tensor, share: float, *, x: float, y: float) -> Tensor:
    """Return an image ``(3, height, width)`` uint8 with a square in its mean colour around (x, y), shares of a side."""
    height, width = image.shape[1:]
    side = max(1, round(share * min(height, width)))
    top, left = int(y * height) - side // 2, int(x * width) - side // 2
    mean = image.flatten(1).float().mean(dim=1).round().to(torch.uint8)
    cut = image.clone()
    cut[:, max(0, top) : top + side, max(0, left) : left + side] = mean[:, None, None]
    return cut


def _signed(draw: float) -> float:
    """Return a draw from 0 to 1 as one from -1 to 1."""
    return 2 * draw - 1


def _three(values: list[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third

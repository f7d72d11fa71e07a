"""Every option of augmentation and stain normalisation with its default; the command line reads both from here.

Imports neither numpy nor torch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from medtool.errors import UsageError

MOST_ELASTIC = 0.06  # below 1/16 a deformation cannot fold the image over itself; see medtool.train.warp


class AugmentPreset(enum.StrEnum):
    """Names of ready options: see :data:`PRESETS`."""

    NONE = "none"
    LIGHT = "light"
    STANDARD = "standard"
    HISTOLOGY = "histology"


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """How training images are varied. Zero, or False, leaves a kind of variation out; the defaults vary nothing.

    Amounts are limits: each image of each epoch draws its own value, uniformly between the limit and its opposite.

    Attributes
    ----------
    flips
        Half of the images are mirrored left to right.
    upside_down
        Half of the images are mirrored top to bottom.
    quarter_turns
        Turned by 0, 90, 180 or 270 degrees with equal chance; by 0 or 180 where an image is not square. With ``flips``
        this gives all eight poses of a square, so ``upside_down`` adds nothing then.
    rotate_deg
        Most degrees, 0 to 180.
    translate
        Largest shift along each axis, as a share of that side, 0 to 1.
    scale
        Largest magnification less one, 0 to 3: 0.25 magnifies by 1 / 1.25 to 1.25, uniformly on a logarithmic scale.
    shear_deg
        Most degrees of shear along each axis, 0 to 45.
    elastic
        Largest displacement of a smooth deformation along each axis, as a share of the shorter side, 0 to 0.06.
    brightness, contrast, saturation
        Largest relative change, 0 to 1, as torchvision's ``ColorJitter`` counts it: 0.2 draws a factor of 0.8 to 1.2.
    hue
        Largest turn of the hues, as a share of the whole circle, 0 to 0.5; brightness is kept.
    stain_jitter
        For H&E images: the largest relative change of the amount of each stain, 0 to 1, and, halved, the largest
        amount added to each, as optical density.
    blur
        Largest standard deviation of a Gaussian blur in pixels, 0 to 10; half of the images are blurred.
    cutout
        Side of a square that is filled with the image's mean colour, as a share of the shorter side, 0 to 1; half of
        the images have one. Its middle lies anywhere in the image, so that part of it may lie outside.

    References
    ----------
    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    Tellez et al., "Quantifying the effects of data augmentation and stain color normalization in convolutional neural
    networks for computational pathology", Medical Image Analysis 58, 2019.
    """

    flips: bool = False
    upside_down: bool = False
    quarter_turns: bool = False
    rotate_deg: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear_deg: float = 0.0
    elastic: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    stain_jitter: float = 0.0
    blur: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UsageError(f"{name} is {value:g}; it must be 0 to {most:g}")


_MOST: Mapping[str, float] = {
    "rotate_deg": 180,
    "translate": 1,
    "scale": 3,
    "shear_deg": 45,
    "elastic": MOST_ELASTIC,
    "brightness": 1,
    "contrast": 1,
    "saturation": 1,
    "hue": 0.5,
    "stain_jitter": 1,
    "blur": 10,
    "cutout": 1,
}

PRESETS: Mapping[AugmentPreset, AugmentOptions] = MappingProxyType(
    {
        AugmentPreset.NONE: AugmentOptions(),
        # for pictures with an up, such as X-rays; without ``flips`` where left and right must be told apart
        AugmentPreset.LIGHT: AugmentOptions(
            flips=True, rotate_deg=10, translate=0.05, scale=0.1, brightness=0.1, contrast=0.1
        ),
        # for pictures without one, such as those of skin
        AugmentPreset.STANDARD: AugmentOptions(
            flips=True,
            quarter_turns=True,
            rotate_deg=30,
            translate=0.08,
            scale=0.25,
            shear_deg=5,
            brightness=0.2,
            contrast=0.2,
            saturation=0.2,
            hue=0.02,
        ),
        # for H&E slides, whose magnification has a meaning and is hardly changed
        AugmentPreset.HISTOLOGY: AugmentOptions(
            flips=True,
            quarter_turns=True,
            rotate_deg=15,
            translate=0.05,
            scale=0.1,
            elastic=0.02,
            brightness=0.1,
            contrast=0.1,
            stain_jitter=0.2,
            blur=0.8,
        ),
    }
)


def varied(preset: AugmentPreset, changes: str) -> AugmentOptions:
    """Return a preset's options with some of them changed, such as by ``cutout=0.3,blur=0,flips=no``.

    Raises
    ------
    UsageError
        If the text is not of this form, a name is none of :class:`AugmentOptions`, or a value is out of its range.
    """
    kinds = {field.name: field.type for field in fields(AugmentOptions)}
    values: dict[str, bool | float] = {}
    for part in (piece.strip() for piece in changes.split(",") if piece.strip()):
        name, _, text = (piece.strip() for piece in part.partition("="))
        if name not in kinds:
            raise UsageError(f"--vary {part!r}: {name!r} is none of {', '.join(kinds)}")
        if name in values:
            raise UsageError(f"--vary {changes!r} has {name} twice")
        values[name] = _switch(part, text) if kinds[name] == "bool" else _number(part, text)
    try:
        return replace(PRESETS[preset], **values)  # type: ignore[arg-type]
    except UsageError as error:
        raise UsageError(f"--vary: {error.message}") from error


def _switch(part: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise UsageError(f"--vary {part!r}: it must be yes or no, such as flips=no")
    return text == "yes"


def _number(part: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--vary {part!r}: it must be a number, such as cutout=0.3") from None

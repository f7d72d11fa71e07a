"""How an image file becomes what a network sees: one way, for training, prediction and heatmaps alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from medtool.errors import InputError
from medtool.images.reader import read_image
from medtool.runs.choices import StainNormalisation

#: Changes whenever :func:`prepared` may give other pixels; part of what a checkpoint was trained on.
VERSION = 1

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input: the whole of it squeezed to one size, then its stains normalised.

    Attributes
    ----------
    height, width
        In pixels.
    mean, std
        Per channel, of values scaled to 0–1.
    stain
        To which the colours of H&E images are brought.
    version
        Of :func:`prepared`.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stain: StainNormalisation = StainNormalisation.NONE
    version: int = VERSION

    @property
    def key(self) -> str:
        """What decides the pixels that :func:`prepared` gives, as a part of a file's name."""
        return f"{self.height}x{self.width}-{self.stain.value}-v{self.version}"

    def document(self) -> dict[str, Any]:
        """Return it as the checkpoint keeps it."""
        return {
            "height": self.height,
            "width": self.width,
            "mean": list(self.mean),
            "std": list(self.std),
            "stain": self.stain.value,
            "resize": "the whole image, squeezed, bilinear with antialiasing",
            "version": self.version,
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> Preprocessing:
        """Return what :meth:`document` described.

        Raises
        ------
        InputError
            If it was made by another version, whose pixels this one does not make.
        """
        if document.get("version") != VERSION:
            raise InputError(
                f"the checkpoint's images were prepared in way {document.get('version')}; this medtool knows {VERSION}",
                hint="use the version of medtool that trained it",
            )
        mean, std = tuple(map(float, document["mean"])), tuple(map(float, document["std"]))
        stain = StainNormalisation(document["stain"])
        return cls(int(document["height"]), int(document["width"]), mean, std, stain)


def prepared(rgb: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Return a picture ``(h, w, 3)`` as ``(3, height, width)``, both uint8; nothing is cut away."""
    size = (preprocessing.width, preprocessing.height)
    if rgb.shape[:2] != size[::-1]:
        rgb = np.asarray(Pillow.fromarray(rgb).resize(size, Pillow.Resampling.BILINEAR))
    if preprocessing.stain is not StainNormalisation.NONE:
        from medtool.runs.stain import normalised

        rgb = normalised(rgb, preprocessing.stain)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def read_picture(path: Path, preprocessing: Preprocessing) -> tuple[Pixels, str]:
    """Return an image file as ``uint8 (3, height, width)``, and the SHA-256 of its bytes.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    image = read_image(path)
    return prepared(image.rgb, preprocessing), image.sha256

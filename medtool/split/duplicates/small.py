"""Small grey pictures: what is compared on pixels, kept from the making of the fingerprints where they are few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from medtool.split.duplicates.compression import jpeg_step

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.images.image import ReducedImage

#: Pixels that are left of the shorter side, at least, if the image has them; more tell little more.
LEAST_PX: Final = 96


@dataclass(frozen=True, slots=True, eq=False)
class SmallPicture:
    """A small copy of an image's brightness, as the file stores it: not yet upright.

    Attributes
    ----------
    grey
        Shape ``(height / step, width / step)``, rounded up, uint8.
    height, width
        In pixels of the image as it is stored.
    exif
        Orientation, 1 to 8.
    format
        Such as ``JPEG``.
    jpeg_step
        To which a JPEG file rounds its waves, on average, in grey levels; 0 for other files.
    """

    grey: npt.NDArray[np.uint8]
    height: int
    width: int
    exif: int
    format: str
    jpeg_step: float

    @classmethod
    def of(cls, image: ReducedImage, data: bytes) -> SmallPicture:
        """Return the small picture of an image that was reduced from a file's bytes."""
        height, width = image.size
        grey = np.asarray(cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY), np.uint8)
        return cls(grey, height, width, image.orientation, image.format, jpeg_step(data))


def is_small_picture(image: ReducedImage) -> bool:
    """Tell whether reducing to :data:`LEAST_PX` would have given this very image."""
    return image.step == 1 or min(image.size) >= image.step * LEAST_PX

"""A contact sheet of images before and after augmentation, to look at before a long training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from medtool.errors import InputError, UsageError
from medtool.train.augment import augmented, generator_for

if TYPE_CHECKING:
    from medtool.protocols import RGB8
    from medtool.train.augment_options import AugmentOptions

_GAP_PX = 4
_FIRST_GAP_PX = 16  # tells the original from what was made of it
_PAPER = 255


def preview_sheet(
    images: Sequence[RGB8], options: AugmentOptions, *, seed: int, indices: Sequence[int] | None = None, epochs: int = 7
) -> RGB8:
    """Return a sheet with a row for each image: the image itself, then as it is shown in the first epochs.

    Parameters
    ----------
    images
        Each ``(height, width, 3)`` uint8, as the network takes them: already resized and, where that is on, stain
        normalised. Sizes may differ.
    options
        How they are varied; mixup, which is of batches, is not shown.
    seed
        Of the training.
    indices
        By which the training names each image to :func:`~medtool.train.augment.generator_for`; None is 0, 1, 2 and so
        on. With the same, each picture is the very one that the training sees.
    epochs
        How many pictures stand beside each original, 1 to 100, for epochs 1, 2 and so on.

    Returns
    -------
    sheet
        Shape ``(height, width, 3)``, uint8, on white.

    Raises
    ------
    UsageError
        If there is no image, or the number of epochs is out of its range, or indices are not one an image.
    InputError
        If an image is not ``(height, width, 3)`` uint8.
    """
    names = range(len(images)) if indices is None else indices
    if not images:
        raise UsageError("there is no image to preview")
    if not 1 <= epochs <= 100:
        raise UsageError(f"a preview of {epochs} epochs is asked for; it must be 1 to 100")
    if len(names) != len(images):
        raise UsageError(f"{len(images)} images have {len(names)} indices; it must be one an image")
    for image in images:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise InputError(
                f"the image is {image.dtype} of shape {image.shape}; wanted uint8 of shape (height, width, 3)"
            )
    height, width = max(image.shape[0] for image in images), max(image.shape[1] for image in images)
    left = [0, *(width + _FIRST_GAP_PX + column * (width + _GAP_PX) for column in range(epochs))]
    sheet = np.full((len(images) * (height + _GAP_PX) - _GAP_PX, left[-1] + width, 3), _PAPER, dtype=np.uint8)
    for row, (image, index) in enumerate(zip(images, names, strict=True)):
        planes = torch.from_numpy(image.transpose(2, 0, 1).copy())
        shown = [planes, *(augmented(planes, generator_for(seed, 1 + e, index), options) for e in range(epochs))]
        for x, picture in zip(left, shown, strict=True):
            y = row * (height + _GAP_PX)
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = picture.permute(1, 2, 0).numpy()
    return sheet

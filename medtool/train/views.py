"""Test-time augmentation: the poses in which a network sees an image before its probabilities are averaged."""

from __future__ import annotations

import torch
from torch import Tensor

from medtool.errors import UsageError
from medtool.runs.preprocessing import Preprocessing
from medtool.train.choices import Views

#: Quarter turns, and whether the turned image is then mirrored left to right.
Pose = tuple[int, bool]

_POSES: dict[Views, tuple[Pose, ...]] = {
    Views.NONE: ((0, False),),
    Views.FLIPS: ((0, False), (0, True), (2, False), (2, True)),
    Views.QUARTER_TURNS: ((0, False), (1, False), (2, False), (3, False)),
    Views.ALL: tuple((turns, is_mirrored) for is_mirrored in (False, True) for turns in range(4)),
}


def poses_of(views: Views, preprocessing: Preprocessing) -> tuple[Pose, ...]:
    """Return the poses, the image as it is first.

    Raises
    ------
    UsageError
        If an image would have to be turned on its side, and the network takes no squares.
    """
    height, width = preprocessing.height, preprocessing.width
    poses = _POSES[views]
    if height != width and any(turns % 2 for turns, _ in poses):
        raise UsageError(
            f"--tta {views}: the network takes images of {height} × {width} pixels, which cannot be turned by 90°",
            hint=f"--tta {Views.FLIPS}, which mirrors them and turns them by 180°",
        )
    return poses


def posed(images: Tensor, pose: Pose) -> Tensor:
    """Return images ``(n, channels, height, width)`` in a pose."""
    turns, is_mirrored = pose
    turned = torch.rot90(images, turns, (2, 3)) if turns else images
    return turned.flip(3) if is_mirrored else turned

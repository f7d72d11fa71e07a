"""Every option of ``medtool segment`` with its default; the command line reads both from here. Imports no numpy."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from medtool.errors import UsageError


class Strategy(enum.StrEnum):
    """How positive points are chosen from a heatmap."""

    POWER = "power"
    PEAKS = "peaks"
    CENTROID = "centroid"
    GRID = "grid"


MAX_POINTS = 1000


@dataclass(frozen=True)
class PromptOptions:
    """How a heatmap becomes points.

    Attributes
    ----------
    points
        Positive points an image.
    negatives
        Negative points an image, drawn where the heatmap is low.
    strategy
        ``power`` draws with probability proportional to heatmap ** power, without replacement.
    power
        Exponent of the ``power`` strategy; at 30 only places close to the maximum are drawn.
    min_distance_px
        Least distance between two points, in pixels of the original image.
    seed
        Mixed with the image's content, so that neither order nor the other images matter.
    """

    points: int = 5
    negatives: int = 0
    strategy: Strategy = Strategy.POWER
    power: float = 30.0
    min_distance_px: float = 0.0
    seed: int = 905

    def __post_init__(self) -> None:
        if not 1 <= self.points <= MAX_POINTS:
            raise UsageError(f"points is {self.points}; it must be 1 to {MAX_POINTS}")
        if not 0 <= self.negatives <= MAX_POINTS:
            raise UsageError(f"negatives is {self.negatives}; it must be 0 to {MAX_POINTS}")
        if not 0 < self.power < 1e4:
            raise UsageError(f"power is {self.power}; it must be above 0 and below 10,000")
        if not 0 <= self.min_distance_px < float("inf"):
            raise UsageError(f"min_distance_px is {self.min_distance_px}; it must be 0 or more")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more")


@dataclass(frozen=True)
class CleanOptions:
    """What is tidied in a mask after the segmenter.

    Attributes
    ----------
    largest_component
        Keep only the largest connected component (8-neighbours) that holds a positive point; the largest of all when
        none does.
    fill_holes
        Fill background that is enclosed by the mask.
    min_area_px
        A mask with fewer pixels than this becomes empty.
    """

    largest_component: bool = True
    fill_holes: bool = True
    min_area_px: int = 0

    def __post_init__(self) -> None:
        if self.min_area_px < 0:
            raise UsageError(f"min_area_px is {self.min_area_px}; it must be 0 or more")

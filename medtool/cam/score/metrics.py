"""What is measured of a heatmap, and the values found, image by image."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Kind(enum.StrEnum):
    """What a score says: where the map lies, whether the network needs what it shows, whether it needs the network."""

    LOCALISATION = "localisation"
    FAITHFULNESS = "faithfulness"
    SANITY = "sanity"


@dataclass(frozen=True, slots=True)
class Metric:
    """One score.

    Attributes
    ----------
    name
        As in the documents.
    better
        ``higher`` or ``lower``; empty where it is neither.
    is_oracle
        Whether the truth of the scored images took part in making the value, beyond being compared with.
    threshold
        Share of the peak by which the map was cut; None where it was not.
    threshold_from
        Where the threshold comes from; empty without one.
    """

    name: str
    kind: Kind
    better: str
    is_oracle: bool = False
    threshold: float | None = None
    threshold_from: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """One score of each image: NaN where there is none."""

    metric: Metric
    values: Floats


@dataclass
class Outcome:
    """What was found of one file's maps.

    Attributes
    ----------
    measured
        Of the scored images, in their order.
    reasons
        By kind: why an image has no value, empty where it has one; in the order of the images.
    failed
        By image id, where something is wrong with the image, its map or its mask.
    """

    measured: list[Measured] = field(default_factory=list)
    reasons: dict[Kind, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

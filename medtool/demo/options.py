"""What ``medtool demo`` can be asked for; imports no numpy."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from medtool.errors import UsageError


class Kind(enum.StrEnum):
    """Which modality the phantoms imitate."""

    LESION = "lesion"
    TISSUE = "tissue"
    XRAY = "xray"


@dataclass(frozen=True)
class DemoOptions:
    """Everything that decides what the demo holds.

    Attributes
    ----------
    kind
        Modality of the phantoms.
    images
        How many phantoms; the real pictures come on top.
    seed
        Phantom ``i`` depends on the kind, the seed and ``i`` alone, so a larger demo holds the smaller one.
    """

    kind: Kind = Kind.LESION
    images: int = 24
    seed: int = 905

    def __post_init__(self) -> None:
        if not 1 <= self.images <= 100_000:
            raise UsageError(f"images is {self.images}; it must be between 1 and 100,000", hint="medtool demo --help")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}; it must be between 0 and 4,294,967,295", hint="medtool demo --help")

"""The options of scoring heatmaps; the command line reads its defaults here. Nothing here imports numpy or torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medtool.errors import UsageError
from medtool.parallel import cpu_count

#: Of several maps of an image that of the class with the highest score.
PREDICTED = "predicted"
#: The class that the manifest's label names: known only where the truth is.
TRUE_LABEL = "label"

_BATCH_ON_CPU, _BATCH_ON_GPU = 32, 256


@dataclass(frozen=True)
class ScoreOptions:
    """How heatmaps are scored.

    Attributes
    ----------
    target
        Of files with a map for each class: whose map is scored: ``predicted``, ``label``, or a class's name.
    tolerance_px
        How far outside the mask, in pixels of the mask, the hottest pixel still counts as a hit.
    threshold
        Share of a map's peak from which a pixel is taken for the object; None has it chosen on the val part, and is a
        half where there is none.
    steps
        In how many steps pixels are taken away for deletion, and put back for insertion.
    sanity
        Whether to compare with the maps of the same network with random weights.
    sanity_images, sanity_stages
        On how many images, and after how many of the cascade's steps.
    allow_seen
        Whether to score what a network was trained or chosen on, marked.
    seed
        Of the bootstrap, the permutations, the noise and the random weights.
    device, precision
        Resolved, never ``auto``.
    batch_size
        Images at once on the device; 0 is automatic.
    threads
        That read images and solve for imputed pixels; 0 is one a processor, at most 16.
    channels_last
        Whether the colours of a pixel lie beside one another, which is faster on most processors.
    """

    target: str = PREDICTED
    tolerance_px: float = 0.0
    threshold: float | None = None
    steps: int = 20
    sanity: bool = False
    sanity_images: int = 32
    sanity_stages: int = 6
    allow_seen: bool = False
    seed: int = 905
    device: str = "cpu"
    precision: str = "fp32"
    batch_size: int = 0
    threads: int = 0
    channels_last: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance_px) and self.tolerance_px >= 0):
            raise UsageError(f"--tolerance is {self.tolerance_px:g}; it must be 0 pixels or more")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UsageError(
                f"--threshold is {self.threshold:g}; it must be above 0 and at most 1, a share of the peak"
            )
        limits = (
            ("--steps", self.steps, 2, 1000),
            ("--sanity-images", self.sanity_images, 2, 100_000),
            ("--sanity-stages", self.sanity_stages, 2, 10_000),
            ("--seed", self.seed, 0, 2**31 - 1),
            ("--batch-size", self.batch_size, 0, 65536),
            ("--threads", self.threads, 0, 256),
        )
        for name, value, least, most in limits:
            if not least <= value <= most:
                raise UsageError(f"{name} is {value}; it must be {least} to {most}")
        if not self.target:
            raise UsageError("--target is empty; it must be predicted, label, or the name of a class")

    @property
    def n_batch(self) -> int:
        """How many images go to the device at once: the number asked for, else what suits the device."""
        return self.batch_size or (_BATCH_ON_GPU if self.device.startswith("cuda") else _BATCH_ON_CPU)

    @property
    def n_threads(self) -> int:
        """How many threads read images."""
        return self.threads or min(16, cpu_count())

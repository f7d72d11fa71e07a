"""The options of a prediction; the command line reads its defaults here. Nothing here imports numpy or torch."""

from __future__ import annotations

from dataclasses import dataclass

from medtool.errors import UsageError
from medtool.parallel import cpu_count
from medtool.train.choices import Aggregation, Views

_BATCH_ON_GPU = 128
_LEAST_ON_CPU, _MOST_ON_CPU = 8, 32  # few, as the next layer finds in the cache what the last one has written


@dataclass(frozen=True)
class PredictOptions:
    """How images become probabilities.

    Attributes
    ----------
    views
        Poses whose probabilities are averaged.
    calibrate
        Whether each network's own calibration is applied.
    patients
        How ``patients.csv`` takes the images of a patient together; None writes none.
    allow_seen
        Whether images are predicted that a network was trained or chosen on.
    device, precision
        Resolved, never ``auto``.
    batch_size
        Images at once on the device; 0 is automatic.
    threads
        That read images; 0 is one a processor, at most 16.
    channels_last
        Whether the colours of a pixel lie beside one another in memory, which is faster on most processors.
    overwrite
        Whether to replace another result.
    strict
        Whether to stop at the first image that fails.
    """

    views: Views = Views.NONE
    calibrate: bool = True
    patients: Aggregation | None = None
    allow_seen: bool = False
    device: str = "cpu"
    precision: str = "fp32"
    batch_size: int = 0
    threads: int = 0
    channels_last: bool = True
    overwrite: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.batch_size <= 65536:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be 0 (automatic) to 65536")
        if not 0 <= self.threads <= 256:
            raise UsageError(f"--threads is {self.threads}; it must be 0 (automatic) to 256")

    @property
    def n_batch(self) -> int:
        """How many images go to the device at once: the number asked for, else what suits the device."""
        on_cpu = min(_MOST_ON_CPU, max(_LEAST_ON_CPU, cpu_count()))
        return self.batch_size or (_BATCH_ON_GPU if self.device.startswith("cuda") else on_cpu)

    @property
    def n_threads(self) -> int:
        """How many threads read images."""
        return self.threads or min(16, cpu_count())

"""The options of heatmaps; the command line reads its defaults here. Nothing here imports numpy or torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medtool.cam.choices import BY_PEER, Method, Target
from medtool.errors import UsageError
from medtool.parallel import cpu_count

#: A class is named as ``class:NAME`` where its name alone would mean something else.
CLASS_PREFIX = "class:"
#: The class that the manifest's label names: known only where the truth is.
TRUE_LABEL = "label"

_BATCH_ON_CPU, _BATCH_ON_GPU = 16, 64
_MAX_SCALES = 16


@dataclass(frozen=True)
class CamOptions:
    """How images become heatmaps.

    Attributes
    ----------
    method
        How what the layer gives is weighted.
    layers
        Dotted names; with several, their maps are averaged. Empty is the architecture's own.
    target
        The class that a map speaks for: ``predicted``, ``all``, ``label`` (the true one), or a class's name.
    scales
        Factors of the network's own image size; maps of several are averaged.
    flip
        Whether maps of the mirrored image are averaged in too.
    uncertainty
        Whether the standard deviation over what is averaged is kept beside each map.
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

    method: Method = Method.GRADCAM
    layers: tuple[str, ...] = ()
    target: str = Target.PREDICTED.value
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    uncertainty: bool = False
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
        if not self.scales or len(self.scales) > _MAX_SCALES or len(set(self.scales)) < len(self.scales):
            given = ",".join(f"{scale:g}" for scale in self.scales)
            raise UsageError(f"--scales is {given!r}; it must be 1 to {_MAX_SCALES} different factors, such as 0.75,1")
        for scale in self.scales:
            if not (math.isfinite(scale) and 0.1 <= scale <= 8):
                raise UsageError(f"--scales has {scale:g}; each must be 0.1 to 8 times the network's own image size")
        if not self.target:
            raise UsageError("--target is empty; it must be predicted, all, label, or the name of a class")
        if self.layers and self.method is Method.ROLLOUT:
            raise UsageError("--method rollout goes through all blocks of a network, so that --layer means nothing")
        if self.method in BY_PEER and self.precision != "fp32":
            raise UsageError(
                f"--method {self.method} is pytorch-grad-cam's, which computes in fp32, not {self.precision}",
                hint="--precision fp32",
            )

    @property
    def n_batch(self) -> int:
        """How many images go to the device at once: the number asked for, else what suits the device."""
        return self.batch_size or (_BATCH_ON_GPU if self.device.startswith("cuda") else _BATCH_ON_CPU)

    @property
    def n_threads(self) -> int:
        """How many threads read images."""
        return self.threads or min(16, cpu_count())

    @property
    def n_views(self) -> int:
        """How many times each network looks at an image."""
        return len(self.scales) * (2 if self.flip else 1)

    @property
    def class_name(self) -> str:
        """The class that the target names; empty where it names none."""
        if self.target.startswith(CLASS_PREFIX):
            return self.target.removeprefix(CLASS_PREFIX)
        return "" if self.target in (*Target, TRUE_LABEL) else self.target

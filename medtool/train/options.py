"""The options of a training; the command line reads its defaults here, and the run keeps them."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtool.errors import UsageError
from medtool.parallel import cpu_count
from medtool.runs.choices import StainNormalisation, Task
from medtool.train.augment_options import AugmentOptions, AugmentPreset, varied
from medtool.train.choices import (
    Cache,
    CalibrationMethod,
    ClassWeights,
    Costs,
    LossName,
    OptimizerName,
    Sampling,
    ScheduleName,
    ThresholdRule,
    check_threshold,
)

MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class TrainOptions:
    """What decides the weights that come out; everything else, such as the device, is no option of the training.

    Attributes
    ----------
    model
        An architecture's name, such as ``resnet50`` or ``timm/resnet18``.
    task
        One class of several, or labels that may each be there; ``label`` then holds them separated by ``|``.
    size_px
        Height and width of what the network sees; 0 is the architecture's own. The whole image is squeezed to it.
    positive
        The label that is told from all others taken together; empty tells every label apart.
    metadata
        Columns beside the image, for ``fusion/NAME``.
    epochs, batch_size
        Images of a batch are weighed equally, however they are divided for the memory.
    lr, weight_decay, layer_decay
        ``layer_decay`` multiplies the learning rate from each group of layers to the one before it; 1 is none.
    warmup
        Epochs over which the learning rate rises from nothing; None is a twentieth of them for cosine, three tenths
        for one-cycle, and none for the others.
    unfreeze
        How many groups of layers are trained from which epoch on; empty trains all from the first.
    clip_norm
        Largest norm of the gradient; 0 leaves it.
    ema
        Decay of the moving average of the weights that is then scored and kept; 0 is none.
    patience
        Epochs without an improvement of ``monitor`` by more than ``min_delta`` after which training ends; 0 is never.
    loss
        None is cross-entropy for one class of several, and bce for several labels.
    focal_alpha
        Weight of a label that is there against one that is not, multi-label only; None is none.
    augment, vary
        How images are varied: ready amounts, and those that are to be others, such as ``cutout=0.3,flips=no``.
    stain
        Normalisation of the stains of H&E images, in training and in use alike.
    monitor
        The score of the val part that chooses the best epoch: one of :data:`medtool.train.metrics.METRICS`, or of a
        class, such as ``recall/melanoma``.
    calibration
        Fitted on the val part of the best epoch.
    threshold
        By which rule thresholds are chosen on the val part; None decides for the most probable class, and for labels
        from a probability of 0.5 on.
    threshold_target
        Least sensitivity or specificity, for these two rules.
    costs
        Of a missed positive and of a false alarm, for the rule ``cost``.
    """

    model: str = "resnet50"
    task: Task = Task.SINGLE
    size_px: int = 0
    metadata: tuple[str, ...] = ()
    positive: str = ""
    epochs: int = 30
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.01
    optimizer: OptimizerName = OptimizerName.ADAMW
    schedule: ScheduleName = ScheduleName.COSINE
    warmup: float | None = None
    layer_decay: float = 1.0
    unfreeze: str = ""
    loss: LossName | None = None
    class_weights: ClassWeights = ClassWeights.NONE
    label_smoothing: float = 0.0
    focal_alpha: float | None = None
    focal_gamma: float = 2.0
    sampling: Sampling = Sampling.NATURAL
    augment: AugmentPreset = AugmentPreset.STANDARD
    vary: str = ""
    stain: StainNormalisation = StainNormalisation.NONE
    mixup: float = 0.0
    clip_norm: float = 1.0
    ema: float = 0.0
    monitor: str = "auc"
    patience: int = 0
    min_delta: float = 0.0
    calibration: CalibrationMethod = CalibrationMethod.TEMPERATURE
    threshold: ThresholdRule | None = None
    threshold_target: float | None = None
    costs: Costs | None = None
    seed: int = 905

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--epochs", self.epochs, 1),
            ("--batch-size", self.batch_size, 2),
            ("--patience", self.patience, 0),
            ("--seed", self.seed, 0),
        ):
            if value < least:
                raise UsageError(f"{flag} is {value}; it must be {least} or more")
        if self.seed > MAX_SEED:
            raise UsageError(f"--seed is {self.seed}; {MAX_SEED} is the largest")
        if self.size_px and not 32 <= self.size_px <= 4096:
            raise UsageError(f"--size is {self.size_px}; it must be 32 to 4096 pixels, or 0 for the architecture's own")
        for flag, number, low, high in (
            ("--weight-decay", self.weight_decay, 0.0, 10.0),
            ("--layer-decay", self.layer_decay, 0.01, 1.0),
            ("--label-smoothing", self.label_smoothing, 0.0, 0.9),
            ("--mixup", self.mixup, 0.0, 10.0),
            ("--focal-gamma", self.focal_gamma, 0.0, 10.0),
            ("--clip-norm", self.clip_norm, 0.0, 1e6),
            ("--ema", self.ema, 0.0, 0.99999),
            ("--min-delta", self.min_delta, 0.0, 1e6),
            ("--warmup", self.warmup or 0.0, 0.0, float(self.epochs)),
        ):
            if not low <= number <= high:  # refuses nan too
                raise UsageError(f"{flag} is {number:g}; it must be from {low:g} to {high:g}")
        if not 0 < self.lr <= 100:
            raise UsageError(f"--lr is {self.lr:g}; it must be above 0 and at most 100")
        self._check_combination()
        self._check_loss()

    def _check_combination(self) -> None:
        if self.threshold is not None:
            check_threshold(self.threshold, self.threshold_target, self.costs)
        elif self.threshold_target is not None or self.costs is not None:
            raise UsageError("--threshold-target and --costs are for --threshold, which is not given")
        if self.min_delta and not self.patience:
            raise UsageError("--min-delta is for --patience, which is not given")
        _ = self.augmentation  # says what is wrong with it
        if self.positive and self.task is Task.MULTI:
            raise UsageError("--positive makes one class of several labels; with --task multi each is one already")

    def _check_loss(self) -> None:
        alpha = self.focal_alpha
        if self.loss is not LossName.FOCAL and (alpha is not None or self.focal_gamma != type(self).focal_gamma):
            raise UsageError("--focal-alpha and --focal-gamma are for --loss focal, which is not given")
        if alpha is not None and not 0 < alpha < 1:
            raise UsageError(f"--focal-alpha is {alpha:g}; it must lie between 0 and 1")
        if alpha is not None and self.task is Task.SINGLE:
            raise UsageError(
                "--focal-alpha is for --task multi; --class-weights does the same for one class of several"
            )
        if alpha is not None and self.class_weights is not ClassWeights.NONE:
            raise UsageError("--focal-alpha and --class-weights both weigh rare labels; give one of them")
        if self.loss is LossName.BCE and self.task is Task.SINGLE:
            raise UsageError(f"--loss {self.loss} is for --task multi; --task single takes cross-entropy or focal")
        if self.loss is LossName.CROSS_ENTROPY and self.task is Task.MULTI:
            raise UsageError(f"--loss {self.loss} is for --task single; --task multi takes bce or focal")

    @property
    def augmentation(self) -> AugmentOptions:
        """How images are varied."""
        return varied(self.augment, self.vary)

    @property
    def loss_name(self) -> LossName:
        """The loss: the one asked for, else what is usual for the task."""
        return self.loss or (LossName.CROSS_ENTROPY if self.task is Task.SINGLE else LossName.BCE)

    @property
    def leaves_rare_claimed(self) -> bool:
        """Whether rare classes count for more than they are, and calibration leaves their probabilities too high."""
        is_tilted = self.sampling is Sampling.BALANCED or self.class_weights is not ClassWeights.NONE
        return is_tilted and self.calibration is CalibrationMethod.TEMPERATURE

    def document(self) -> dict[str, Any]:
        """Return the options as they go into the lineage."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclass(frozen=True)
class WorkOptions:
    """How the work is done; none of it is meant to change the weights.

    Attributes
    ----------
    device, precision
        Resolved, never ``auto``.
    threads
        That read and augment images.
    cache, cache_gib
        Where decoded images are kept, and how much of them at most.
    cache_folder
        Of ``disk``.
    micro_batch
        Most images at once on the device; 0 is the whole batch. Where memory does not suffice it is halved.
    channels_last, compile, deterministic
        Of torch.
    """

    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 0
    cache: Cache = Cache.RAM
    cache_gib: float = 4.0
    cache_folder: Path | None = None
    micro_batch: int = 0
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False

    @property
    def n_threads(self) -> int:
        """How many threads read images: the number asked for, else one a processor, at most 16."""
        return self.threads or min(16, cpu_count())

    def __post_init__(self) -> None:
        if self.threads < 0 or self.threads > 256:
            raise UsageError(f"--threads is {self.threads}; it must be 0 (automatic) to 256")
        if self.micro_batch < 0:
            raise UsageError(f"--micro-batch is {self.micro_batch}; it must be 0 or more")
        if not 0 < self.cache_gib <= 1e6:
            raise UsageError(f"--cache-gib is {self.cache_gib:g}; it must be above 0")


def _plain(value: object) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Costs):
        return {"miss": value.miss, "false_alarm": value.false_alarm}
    return list(value) if isinstance(value, tuple) else value

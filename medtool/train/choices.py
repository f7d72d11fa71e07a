"""The choices of a training and a prediction that the command line offers; nothing here imports numpy or torch."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from medtool.errors import UsageError


class Cache(enum.StrEnum):
    """Where decoded images are kept from one epoch to the next."""

    NONE = "none"
    RAM = "ram"
    DISK = "disk"


class Monitor(enum.StrEnum):
    """The score of the val part that chooses the best epoch and stops early."""

    AUC = "auc"
    BALANCED_ACCURACY = "balanced_accuracy"
    ACCURACY = "accuracy"
    F1 = "f1"
    LOSS = "loss"


class TrackerName(enum.StrEnum):
    """Which program is told of each epoch; each is called as its module is."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"


class LossName(enum.StrEnum):
    """Which loss is used; see :class:`Loss` for their formulas."""

    CROSS_ENTROPY = "cross-entropy"
    BCE = "bce"
    FOCAL = "focal"


class ClassWeights(enum.StrEnum):
    """How much the images of a class count.

    ``inverse``: one over the number of its images, so that all classes count the same together. ``effective``: one
    over the effective number of its images, which grows ever slower than their number; gentler on rare classes.
    """

    NONE = "none"
    INVERSE = "inverse"
    EFFECTIVE = "effective"


class Sampling(enum.StrEnum):
    """How often an image is shown.

    ``natural``: every image once an epoch. ``balanced``: every class equally often, and within a class every image.
    ``patient-balanced``: every patient equally often, and within a patient every image; classes stay as they fall.
    """

    NATURAL = "natural"
    BALANCED = "balanced"
    PATIENT_BALANCED = "patient-balanced"


class OptimizerName(enum.StrEnum):
    """Which optimizer is used.

    ``adamw`` decays weights apart from the gradient, ``adam`` within it (L2); ``sgd`` has Nesterov momentum 0.9.
    """

    ADAMW = "adamw"
    ADAM = "adam"
    SGD = "sgd"


class ScheduleName(enum.StrEnum):
    """Which schedule is used.

    ``cosine``: a linear warm-up, then half a cosine down. ``one-cycle``: half a cosine up and a longer one down, with
    momentum the other way round. ``plateau``: down by a factor whenever the monitored score has stopped improving.
    ``constant``: after the warm-up, if there is one, as it is.
    """

    COSINE = "cosine"
    ONE_CYCLE = "one-cycle"
    PLATEAU = "plateau"
    CONSTANT = "constant"


class CalibrationMethod(enum.StrEnum):
    """How logits become calibrated probabilities; see :mod:`medtool.train.calibration_maps`."""

    TEMPERATURE = "temperature"
    PLATT = "platt"
    ISOTONIC = "isotonic"


class ThresholdRule(enum.StrEnum):
    """What a threshold is the best for.

    ``youden``: sensitivity + specificity. ``sensitivity`` and ``specificity``: at least the target, and then the most
    of the other. ``f1``: F1 of the positives. ``cost``: the least sum of what misses and false alarms cost, at the
    share of positives of the images it is chosen on. Of equally good thresholds the most sensitive is taken.

    References
    ----------
    Youden, "Index for rating diagnostic tests", Cancer 3 (1950).
    """

    YOUDEN = "youden"
    SENSITIVITY = "sensitivity"
    SPECIFICITY = "specificity"
    F1 = "f1"
    COST = "cost"


class Aggregation(enum.StrEnum):
    """How a patient's images are taken together.

    - ``mean`` of the probabilities.
    - ``max``: the highest probability. Of labels that of each; of two classes the image with the highest of the second,
      so that one suspicious image makes a suspicious patient; of more classes that of each, divided by their sum.
    - ``vote``: the share of images for which a class was decided.
    """

    MEAN = "mean"
    MAX = "max"
    VOTE = "vote"


@dataclass(frozen=True, slots=True)
class Costs:
    """What a missed positive and a false alarm cost, in one unit; only their ratio matters."""

    miss: float
    false_alarm: float

    def __post_init__(self) -> None:
        for name, value in (("miss", self.miss), ("false alarm", self.false_alarm)):
            if not 0 < value < math.inf:
                raise UsageError(f"the cost of a {name} is {value:g}; it must be above 0 and finite")


def check_threshold(rule: ThresholdRule, target: float | None, costs: Costs | None) -> None:
    """Refuse a rule without what it needs, or with what it has no use for.

    Raises
    ------
    UsageError
        If a target or costs are missing, out of range, or given to a rule that has none.
    """
    if rule in (ThresholdRule.SENSITIVITY, ThresholdRule.SPECIFICITY):
        if target is None:
            raise UsageError(f"the threshold rule {rule} needs a target, such as 0.9")
        if not 0 < target <= 1:
            raise UsageError(f"the target {rule} is {target:g}; it must be above 0 and at most 1")
    elif target is not None:
        raise UsageError(f"the threshold rule {rule} has no target, and {target:g} was given")
    if rule is ThresholdRule.COST and costs is None:
        raise UsageError("the threshold rule cost needs what a miss and a false alarm cost, such as --costs 10,1")
    if rule is not ThresholdRule.COST and costs is not None:
        raise UsageError(f"the threshold rule {rule} has no costs, and some were given")


class Views(enum.StrEnum):
    """In which poses an image is shown to a network whose probabilities are then averaged (test-time augmentation).

    ``flips``: as it is, mirrored left to right, upside down, and both. ``quarter-turns``: turned by 0, 90, 180 and 270
    degrees. ``all``: the eight poses of a square. Each set holds every pose of a pose, so that an image and its mirror
    image, or itself turned, get the same probabilities.
    """

    NONE = "none"
    FLIPS = "flips"
    QUARTER_TURNS = "quarter-turns"
    ALL = "all"

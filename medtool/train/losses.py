"""What is made small in training: cross-entropy, binary cross-entropy and focal loss, weighted by class where asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medtool.errors import InputError, UsageError
from medtool.runs.choices import Task
from medtool.train.choices import ClassWeights, LossName


def class_weights(counts: Sequence[int], how: ClassWeights, *, beta: float = 0.999) -> Tensor | None:
    """Return what an image of each class counts, such that the mean over all images is 1.

    Parameters
    ----------
    counts
        Images of each class in the training part. A class without images weighs 1.
    how
        ``none`` gives None.
    beta
        Of the effective number (1 − βⁿ) / (1 − β): from 0, where all classes weigh the same, to below 1, where
        it comes to be the number itself. Only ``effective`` uses it.

    Returns
    -------
    Tensor or None
        Shape ``(K,)``, float32, > 0.

    Raises
    ------
    UsageError
        If ``beta`` is not in its range.
    InputError
        If no class has an image, or a count is negative.

    References
    ----------
    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    if not 0 <= beta < 1:
        raise UsageError(f"the beta of the effective number is {beta:g}; it must be at least 0 and below 1")
    if how is ClassWeights.NONE:
        return None
    if min(counts, default=-1) < 0 or not any(counts):
        raise InputError(
            f"classes cannot be weighed by these numbers of images: {', '.join(map(str, counts)) or 'none'}"
        )
    if how is ClassWeights.INVERSE:
        sizes = [float(count) for count in counts]
    else:  # a beta of 0 has no logarithm, and every class that is there one effective image
        sizes = [-math.expm1(count * math.log(beta)) if beta else float(count > 0) for count in counts]
    raw = [1 / size if size else 0.0 for size in sizes]
    scale = sum(counts) / sum(count * weight for count, weight in zip(counts, raw, strict=True))
    return torch.tensor([weight * scale or 1.0 for weight in raw], dtype=torch.float32)


def label_weights(counts: Sequence[int], n_images: int, how: ClassWeights, *, beta: float = 0.999) -> Tensor | None:
    """Return what the absence and the presence of each label count: every label is weighed as a binary task of its own.

    Parameters
    ----------
    counts
        Images of the training part that have each label, 0 to ``n_images``.
    n_images
        All images of the training part.
    how, beta
        As in :func:`class_weights`.

    Returns
    -------
    Tensor or None
        Shape ``(2, K)``, float32, > 0: absent, present. For each label the mean over all images is 1.
    """
    columns = [class_weights((n_images - count, count), how, beta=beta) for count in counts]
    weights = [column for column in columns if column is not None]
    return torch.stack(weights, dim=1) if weights else None


def weights_of(targets: Tensor, *, task: Task, how: ClassWeights, beta: float = 0.999) -> Tensor | None:
    """Return the weights that :func:`make_loss` takes, from the targets ``(n, K)``, 0 or 1, of the training part."""
    counts = [int(count) for count in targets.sum(dim=0).tolist()]
    if task is Task.SINGLE:
        return class_weights(counts, how, beta=beta)
    return label_weights(counts, len(targets), how, beta=beta)


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """A loss over logits ``(n, K)`` and targets ``(n, K)`` from 0 to 1; calling it gives a batch's weighted mean.

    The mean is ``total / weight``. Both are to be had on their own, since the mean of a batch that is spread over
    several steps or devices is the sum of its parts' totals over the sum of their weights, and not the mean of means.

    Formulas, with class c, targets t (smoothed), softmax or sigmoid p and class weights w; log is natural:

    - cross-entropy, one of several classes: −Σ w_c t_c log p_c, over Σ w_c t_c of the unsmoothed targets; for hard
      targets this is what torch does
    - focal, one of several classes: the same with (1 − p_c)^gamma in each term
    - binary cross-entropy, several labels: the mean over c of −t_c log p_c − (1 − t_c) log(1 − p_c), p a sigmoid
    - focal, several labels: the same with (1 − p_c)^gamma and p_c^gamma in the terms

    Totals are linear in the targets, so that a mixture of images costs the mixture of what they cost.

    Attributes
    ----------
    name, task
        Which of them.
    class_weights
        None; shape ``(K,)`` for one of several classes; shape ``(2, K)``, absent and present, for several labels.
    label_smoothing
        From 0 to below 1: this share of every target is spread evenly over the K classes, or for several labels over
        presence and absence.
    focal_alpha
        0 to 1, for several labels: weight of a label's presence; one minus it is that of its absence. None has none.
    focal_gamma
        0 or more; 0 is no focus on what is still wrong.

    References
    ----------
    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. Szegedy et al., "Rethinking the Inception
    Architecture for Computer Vision", CVPR 2016 (label smoothing).
    """

    name: LossName
    task: Task
    class_weights: Tensor | None = None
    label_smoothing: float = 0.0
    focal_alpha: float | None = None
    focal_gamma: float = 2.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted mean over a batch, a scalar ≥ 0 of at least float32, whatever the logits' precision."""
        return self.total(logits, targets) / self.weight(targets)

    def weight(self, targets: Tensor) -> Tensor:
        """Return what the images of a batch count together, a scalar; their number, if classes are not weighed."""
        if self.class_weights is None or self.task is Task.MULTI:
            return targets.new_tensor(len(targets))
        return (targets * self.class_weights.to(targets)).sum()

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted sum over a batch, a scalar.

        Raises
        ------
        InputError
            If the shapes of logits, targets and class weights do not fit.
        """
        self._check_shapes(logits, targets)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half precision is too coarse for logs
        targets = targets.to(logits)
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        if self.task is Task.SINGLE:
            return self._softmax_total(logits, targets, weights)
        present, absent = self._sigmoid_terms(logits, self._smoothed(targets))
        terms = present + absent if weights is None else present * weights[1] + absent * weights[0]
        return terms.mean(dim=1).sum()

    def _smoothed(self, targets: Tensor) -> Tensor:
        n_ways = targets.shape[1] if self.task is Task.SINGLE else 2
        return targets * (1 - self.label_smoothing) + self.label_smoothing / n_ways

    def _softmax_total(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        log_p = functional.log_softmax(logits, dim=1)
        terms = -self._smoothed(targets) * log_p
        if self.name is LossName.FOCAL:
            # Held off zero, where a power below 1 has no slope; the term is 0 there whatever the power.
            terms = terms * (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny).pow(self.focal_gamma)
        return (terms if weights is None else terms * weights).sum()

    def _sigmoid_terms(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        log_p, log_not_p = functional.logsigmoid(logits), functional.logsigmoid(-logits)
        present, absent = -targets * log_p, (targets - 1) * log_not_p
        if self.name is LossName.FOCAL:
            present = present * torch.exp(self.focal_gamma * log_not_p)
            absent = absent * torch.exp(self.focal_gamma * log_p)
            if self.focal_alpha is not None:
                present, absent = present * self.focal_alpha, absent * (1 - self.focal_alpha)
        return present, absent

    def _check_shapes(self, logits: Tensor, targets: Tensor) -> None:
        if logits.ndim != 2 or logits.shape != targets.shape:
            seen = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
            raise InputError(f"logits and targets have the shapes {seen}; both must be (images, classes)")
        n_classes = logits.shape[1]
        if self.class_weights is not None and self.class_weights.shape[-1] != n_classes:
            raise InputError(
                f"there are weights for {self.class_weights.shape[-1]} classes, and logits for {n_classes}"
            )


def make_loss(
    name: LossName,
    *,
    task: Task,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_alpha: float | None = None,
    focal_gamma: float = 2.0,
) -> Loss:
    """Return a loss for one of several classes or for several labels; see :class:`Loss` for what the options mean.

    Raises
    ------
    UsageError
        If an option is out of its range or two do not go together.
    InputError
        If the class weights are not of the task's shape, finite and above 0.
    """
    if name is LossName.CROSS_ENTROPY and task is Task.MULTI:
        raise UsageError(f"the loss {name} is for one of several classes; several labels take bce or focal")
    if name is LossName.BCE and task is Task.SINGLE:
        raise UsageError(f"the loss {name} is for several labels; one of several classes takes cross-entropy or focal")
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"label smoothing is {label_smoothing:g}; it must be at least 0 and below 1")
    if not (focal_gamma >= 0 and math.isfinite(focal_gamma)):
        raise UsageError(f"the focal loss's gamma is {focal_gamma:g}; it must be 0 or more")
    if focal_alpha is not None:
        if name is not LossName.FOCAL:
            raise UsageError(f"the loss {name} has no alpha; only the loss focal has one")
        if task is Task.SINGLE:
            raise UsageError("the focal loss's alpha is for several labels; class weights do the same for classes")
        if not 0 <= focal_alpha <= 1:
            raise UsageError(f"the focal loss's alpha is {focal_alpha:g}; it must be from 0 to 1")
        if class_weights is not None:
            raise UsageError("the focal loss's alpha and class weights both weigh the classes; give one of them")
    if class_weights is not None:
        _check_weights(class_weights, task)
    return Loss(name, task, class_weights, label_smoothing, focal_alpha, focal_gamma)


def _check_weights(weights: Tensor, task: Task) -> None:
    if weights.ndim != (1 if task is Task.SINGLE else 2) or (task is Task.MULTI and len(weights) != 2):
        wanted = "(classes,)" if task is Task.SINGLE else "(2, labels)"
        raise InputError(f"class weights have the shape {tuple(weights.shape)}; it must be {wanted}")
    if not bool((torch.isfinite(weights) & (weights > 0)).all()):
        raise InputError(f"class weights must be finite and above 0; they are {weights.tolist()}")

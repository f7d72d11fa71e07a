"""How the learning rate goes up and down during a training.

A schedule gives a factor for each step, by which every layer's own rate is multiplied. All but the plateau follow from
the step alone; the plateau's state is three numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch

from medtool.errors import InputError, UsageError
from medtool.train.choices import ScheduleName
from medtool.train.optimizers import BASE_LR

Number = int | float | None

_COSINE_WARMUP = 0.05  # of all steps
_ONE_CYCLE_RISE = 0.3  # of all steps; this and the next three are torch's and fastai's
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = _ONE_CYCLE_START / 1e4
_LOW_MOMENTUM, _HIGH_MOMENTUM = 0.85, 0.95


class Schedule(Protocol):
    """What the training loop needs of a schedule."""

    def factor(self, step: int) -> float:
        """Return what the learning rates are multiplied by in this step, the first being 0."""

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the rates of all of the optimizer's groups, before the optimizer makes this step."""

    def observe(self, score: float | None) -> None:
        """Take note of an epoch's monitored score; None if it is undefined."""

    def state_dict(self) -> dict[str, Number]:
        """Return whatever does not follow from the step, as plain numbers."""

    def load_state_dict(self, state: Mapping[str, Number]) -> None:
        """Go on from a state."""


class Constant:
    """The full rate after a linear warm-up, whatever the scores are.

    With a warm-up of W steps, step s < W has the factor (s + 1) / (W + 1): the first step already learns.
    """

    def __init__(self, *, warmup_steps: int = 0) -> None:
        self.warmup_steps = warmup_steps

    def factor(self, step: int) -> float:
        """Return the factor of a step ≥ 0, from above 0 to 1."""
        assert step >= 0, step
        return min(1.0, (step + 1) / (self.warmup_steps + 1))

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the rate of every group to its own, times the factor."""
        factor = self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group[BASE_LR] * factor

    def observe(self, score: float | None) -> None:
        """Leave scores alone: the steps alone decide."""

    def state_dict(self) -> dict[str, Number]:
        """Return nothing: the step says all."""
        return {}

    def load_state_dict(self, state: Mapping[str, Number]) -> None:
        """Check that the state is of such a schedule."""
        _check_keys(state, self.state_dict())


class Cosine(Constant):
    """Linear warm-up, then half a cosine from 1 down to ``final_factor``, which is reached after the last step.

    References
    ----------
    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.
    """

    def __init__(self, *, total_steps: int, warmup_steps: int = 0, final_factor: float = 0.0) -> None:
        super().__init__(warmup_steps=warmup_steps)
        self.total_steps = total_steps
        self.final_factor = final_factor

    def factor(self, step: int) -> float:
        """Return the factor of a step ≥ 0; beyond the last step it stays ``final_factor``."""
        if step < self.warmup_steps:
            return super().factor(step)
        if step >= self.total_steps:
            return self.final_factor
        return _cosine(1.0, self.final_factor, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))


class OneCycle(Constant):
    """From 1/25 of the rate to the whole over the rise, then down to 1/250,000; momentum from 0.95 to 0.85 and back.

    References
    ----------
    Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2019.
    """

    def __init__(self, *, total_steps: int, rise_steps: int) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.rise_steps = rise_steps

    def factor(self, step: int) -> float:
        """Return the factor of a step ≥ 0; beyond the last step it stays at its end."""
        return self._between(step, _ONE_CYCLE_START, 1.0, _ONE_CYCLE_END)

    def momentum(self, step: int) -> float:
        """Return SGD's momentum, or Adam's first beta, in a step ≥ 0."""
        return self._between(step, _HIGH_MOMENTUM, _LOW_MOMENTUM, _HIGH_MOMENTUM)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the rate and the momentum of every group."""
        super().apply(optimizer, step)
        momentum = self.momentum(step)
        for group in optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum

    def _between(self, step: int, start: float, top: float, end: float) -> float:
        assert step >= 0, step
        peak, last = max(self.rise_steps - 1, 0), self.total_steps - 1
        if step < peak:
            return _cosine(start, top, step / peak)
        return _cosine(top, end, min(1.0, (step - peak) / (last - peak)) if last > peak else 0.0)


class Plateau(Constant):
    """After a linear warm-up, the rate falls whenever ``patience`` epochs in a row and one more brought nothing better.

    Attributes
    ----------
    best
        The best score so far, None before the first.
    bad_epochs
        Epochs since the best or the last fall that were not better by more than ``min_delta``; an undefined score
        is not better.
    reductions
        How often the rate fell.
    """

    def __init__(
        self,
        *,
        warmup_steps: int = 0,
        final_factor: float = 0.0,
        plateau_factor: float = 0.1,
        patience: int = 5,
        min_delta: float = 0.0,
        higher_is_better: bool = True,
    ) -> None:
        super().__init__(warmup_steps=warmup_steps)
        self.final_factor = final_factor
        self.plateau_factor = plateau_factor
        self.patience = patience
        self.min_delta = min_delta
        self.higher_is_better = higher_is_better
        self.best: float | None = None
        self.bad_epochs = 0
        self.reductions = 0

    def factor(self, step: int) -> float:
        """Return the factor of a step ≥ 0 at the present height; it does not fall below ``final_factor``."""
        return super().factor(step) * max(self.final_factor, self.plateau_factor**self.reductions)

    def observe(self, score: float | None) -> None:
        """Count an epoch, and lower the rate where patience is over."""
        if score is not None and self._is_better(score):
            self.best, self.bad_epochs = score, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.reductions += 1
            self.bad_epochs = 0

    def state_dict(self) -> dict[str, Number]:
        """Return best score, bad epochs and reductions."""
        return {"best": self.best, "bad_epochs": self.bad_epochs, "reductions": self.reductions}

    def load_state_dict(self, state: Mapping[str, Number]) -> None:
        """Go on from a state.

        Raises
        ------
        InputError
            If it is not of such a schedule.
        """
        _check_keys(state, self.state_dict())
        best, bad_epochs, reductions = state["best"], state["bad_epochs"], state["reductions"]
        if not isinstance(bad_epochs, int) or not isinstance(reductions, int):
            raise InputError(f"the plateau's counts are {bad_epochs!r} and {reductions!r}; they must be whole numbers")
        self.best, self.bad_epochs, self.reductions = best, bad_epochs, reductions

    def _is_better(self, score: float) -> bool:
        if self.best is None:
            return not math.isnan(score)
        gain = score - self.best if self.higher_is_better else self.best - score
        return gain > self.min_delta


def make_schedule(
    name: ScheduleName,
    *,
    total_steps: int,
    warmup_steps: int | None = None,
    final_factor: float = 0.0,
    plateau_factor: float = 0.1,
    patience: int = 5,
    min_delta: float = 0.0,
    higher_is_better: bool = True,
) -> Schedule:
    """Return a schedule over so many steps of the optimizer.

    Parameters
    ----------
    name
        Which schedule.
    total_steps
        Steps of the whole training, 1 or more.
    warmup_steps
        Steps of the warm-up, 0 to ``total_steps``; with one-cycle, of the rise. None takes 5% of all steps for
        cosine, 30% for one-cycle, and no warm-up for the others.
    final_factor
        0 to below 1: where cosine ends, and below which plateau does not fall.
    plateau_factor
        Above 0, below 1: what plateau multiplies the rate by.
    patience
        0 or more: epochs without a better score that plateau stands before it acts on the next.
    min_delta
        0 or more: only a score that is better by more than this is better for plateau.
    higher_is_better
        Of the score that plateau observes; False for a loss.

    Raises
    ------
    UsageError
        If an option is out of its range.
    """
    if total_steps < 1:
        raise UsageError(f"the training has {total_steps} steps; it must have one or more")
    default = {ScheduleName.COSINE: _COSINE_WARMUP, ScheduleName.ONE_CYCLE: _ONE_CYCLE_RISE}.get(name, 0.0)
    warmup = int(default * total_steps) if warmup_steps is None else warmup_steps
    if not 0 <= warmup <= total_steps:
        raise UsageError(f"the warm-up has {warmup} steps; it must have 0 to {total_steps}, as many as the training")
    if not 0 <= final_factor < 1:
        raise UsageError(f"the last factor of the learning rate is {final_factor:g}; it must be from 0 to below 1")
    if not 0 < plateau_factor < 1:
        raise UsageError(f"the factor at a plateau is {plateau_factor:g}; it must be above 0 and below 1")
    if patience < 0 or not (min_delta >= 0 and math.isfinite(min_delta)):
        raise UsageError(f"patience is {patience} and min_delta {min_delta:g}; both must be 0 or more")
    if name is ScheduleName.COSINE:
        return Cosine(total_steps=total_steps, warmup_steps=warmup, final_factor=final_factor)
    if name is ScheduleName.ONE_CYCLE:
        return OneCycle(total_steps=total_steps, rise_steps=warmup)
    if name is ScheduleName.CONSTANT:
        return Constant(warmup_steps=warmup)
    return Plateau(
        warmup_steps=warmup,
        final_factor=final_factor,
        plateau_factor=plateau_factor,
        patience=patience,
        min_delta=min_delta,
        higher_is_better=higher_is_better,
    )


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _check_keys(state: Mapping[str, Number], own: Mapping[str, Number]) -> None:
    if set(state) != set(own):
        seen, wanted = (", ".join(sorted(keys)) or "nothing" for keys in (state, own))
        raise InputError(f"the state of the learning rate's schedule has {seen}; it must have {wanted}")

"""An exponential moving average of a network's weights, which often scores better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from medtool.errors import InputError, UsageError


class WeightAverage:
    """The average of a network's weights over its steps, later steps counting more.

    After each step: ``average = d × average + (1 − d) × weights``. The first update takes the weights as they are. In
    the warm-up, update t (from 0) has d = min(decay, (1 + t) / (10 + t)), so that the first steps are soon forgotten.
    Running statistics of batch norms are averaged along; whole numbers, such as how many batches these have seen, are
    copied. Averages are of float32 at least, since half precision would swallow the small changes.

    Parameters
    ----------
    network
        Whose weights are averaged; not wrapped for several devices or compiling. Averages live on its device.
    decay
        0 to below 1: share of the old average that an update keeps.
    warmup
        Whether the decay grows with the first updates.

    Raises
    ------
    UsageError
        If ``decay`` is not in its range.

    References
    ----------
    Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; Tarvainen & Valpola, "Mean
    Teachers Are Better Role Models", NeurIPS 2017.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999, *, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"the decay of the averaged weights is {decay:g}; it must be at least 0 and below 1")
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self._average = {name: _widened(weights).clone() for name, weights in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after a step of the optimizer."""
        weights = network.state_dict()
        averages, news = [], []
        for name, average in self._average.items():
            if self.updates == 0 or not average.is_floating_point():
                average.copy_(weights[name])
            else:
                averages.append(_here(average))
                news.append(_here(_widened(weights[name])))
        if averages:
            torch._foreach_lerp_(averages, news, 1 - self._current_decay())
        self.updates += 1

    def _current_decay(self) -> float:
        return min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay

    def weights(self) -> dict[str, Tensor]:
        """Return the averages under the network's names; later updates change them."""
        return dict(self._average)

    @contextmanager
    def applied_to(self, network: nn.Module) -> Iterator[None]:
        """Give the network the averages within a ``with`` block, to score or save it, and its own weights after."""
        weights = network.state_dict()
        own = {name: tensor.clone() for name, tensor in weights.items()}
        _copy(self._average, to=weights)
        try:
            yield
        finally:
            _copy(own, to=weights)

    def state_dict(self) -> dict[str, Any]:
        """Return how many updates there were and the averages, which later updates do not change.

        It loads with ``torch.load(weights_only=True)``, and a training that goes on from it equals one that never
        stopped.
        """
        return {"updates": self.updates, "average": {name: tensor.clone() for name, tensor in self._average.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises
        ------
        InputError
            If it is not of such a network.
        """
        average: Mapping[str, Tensor] = state["average"]
        wrong = sorted(set(average) ^ set(self._average)) or sorted(
            name
            for name, tensor in average.items()
            if (tensor.shape, tensor.dtype) != (self._average[name].shape, self._average[name].dtype)
        )
        if wrong:
            raise InputError(f"the averaged weights are of another network; the first difference is {wrong[0]}")
        _copy(average, to=self._average)
        self.updates = int(state["updates"])


def _widened(weights: Tensor) -> Tensor:
    if not weights.is_floating_point():
        return weights
    return weights.to(torch.promote_types(weights.dtype, torch.float32))


def _here(tensor: Tensor) -> Tensor:
    """Return the share that this process has of a tensor that is split; any other is all here."""
    here: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return here


@torch.no_grad()
def _copy(tensors: Mapping[str, Tensor], *, to: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        to[name].copy_(tensor)

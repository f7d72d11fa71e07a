"""The processes that train one network together, one to a device; alone there is one, and nothing is sent around."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


class Team(Protocol):
    """What the loop needs of those who train together.

    Attributes
    ----------
    rank, size
        Which of how many this process is.
    """

    rank: int
    size: int

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network such that backward leaves the mean of all processes' gradients."""

    def alone(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which backward only adds to this process's own gradients."""

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""

    def rows(self, own: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Return the rows of all processes of which each did ``rank::size``, put in order: ``(count, ...)``."""

    def wait(self) -> None:
        """Go on when all have come here."""


class Alone:
    """One process."""

    rank = 0
    size = 1

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network itself."""
        return network

    def alone(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return nullcontext()

    def total(self, value: Tensor) -> Tensor:
        """Return the value itself."""
        return value

    def rows(self, own: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Return the rows themselves."""
        return own

    def wait(self) -> None:
        """Wait for nobody."""


class Processes:
    """Several processes, brought together by accelerate: its launcher, torchrun, SLURM's srun or ``--devices``.

    Parameters
    ----------
    is_on_cpu
        Whether all train on the CPU, though there may be other devices.
    """

    def __init__(self, *, is_on_cpu: bool) -> None:
        from accelerate import Accelerator  # seconds

        self._accelerator = Accelerator(cpu=is_on_cpu)
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes

    @property
    def device(self) -> str:
        """The device of this process."""
        return str(self._accelerator.device)

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network in torch's DistributedDataParallel; batch norms of GPUs count all images of a batch."""
        if self._accelerator.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        wrapped: nn.Module = self._accelerator.prepare_model(network)
        return wrapped

    def alone(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Return accelerate's context without synchronisation."""
        context: AbstractContextManager[Any] = self._accelerator.no_sync(network)
        return context

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""
        total = self._accelerator.reduce(value, reduction="sum")
        assert isinstance(total, Tensor)
        return total

    def rows(self, own: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Return the rows of all processes in order."""
        each = -(-count // self.size)
        padded = np.zeros((each, *own.shape[1:]), np.float32)
        padded[: len(own)] = own
        gathered: Any = self._accelerator.gather(torch.from_numpy(padded).to(self._accelerator.device))
        together = gathered.cpu().numpy().reshape(self.size, each, *own.shape[1:])
        return np.ascontiguousarray(np.swapaxes(together, 0, 1).reshape(-1, *own.shape[1:])[:count])

    def wait(self) -> None:
        """Go on when all have come here."""
        self._accelerator.wait_for_everyone()


def is_launched(environment: Mapping[str, str]) -> bool:
    """Tell whether a launcher has started this process as one of several."""
    return int(environment.get("WORLD_SIZE", "1")) > 1

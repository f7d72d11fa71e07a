"""The processes that train one network together, one to a device; alone there is one, and nothing is sent around."""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from medtool.errors import MedtoolError, UsageError
from medtool.train.launch import FOLDER_VARIABLE, Place, meeting_variables

Own = TypeVar("Own")

# In a step the others are never long in coming. Outside of one they may wait for the first process to score a large
# test part, or to read the last images of a slow disk; that one of them died is seen at once all the same.
_STEP_TIMEOUT = datetime.timedelta(minutes=30)
_WAIT_TIMEOUT = datetime.timedelta(days=2)


class Team(Protocol):
    """What a training needs of those who train together.

    Attributes
    ----------
    rank, size
        Which of how many this process is.
    """

    rank: int
    size: int

    def placed(self, network: nn.Module, layout: torch.memory_format) -> nn.Module:
        """Return the network on this process's device, its batch norms counting all images where that is possible."""

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network such that backward leaves the mean of all processes' gradients."""

    def alone(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which backward only adds to this process's own gradients."""

    def align(self, network: nn.Module) -> None:
        """Give the networks of all processes the weights and running statistics of the first."""

    def whole(self, state: Any) -> Any:
        """Return a state to write to the disk, which only the first process has to get; all must ask for it."""

    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Return what this process keeps of a tensor from the disk, in place of ``like``."""

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""

    def gathered(self, own: Own) -> list[Own]:
        """Return what each process has, in the order of the processes."""

    def own(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return this process's part of some work; each has equally much, so the last may be there twice."""

    def rows(self, own: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Return what came of each process's :meth:`own`, put in order: ``(count, ...)``."""

    def wait(self) -> None:
        """Go on when all have come here."""


class Alone:
    """One process.

    Parameters
    ----------
    device
        Of torch.
    """

    rank = 0
    size = 1

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def placed(self, network: nn.Module, layout: torch.memory_format) -> nn.Module:
        """Return the network on the device."""
        return network.to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network itself."""
        return network

    def alone(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return nullcontext()

    def align(self, network: nn.Module) -> None:
        """Leave the network as it is."""

    def whole(self, state: Any) -> Any:
        """Return the state itself."""
        return state

    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Return the tensor itself."""
        return tensor

    def total(self, value: Tensor) -> Tensor:
        """Return the value itself."""
        return value

    def gathered(self, own: Own) -> list[Own]:
        """Return the one."""
        return [own]

    def own(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return all of it."""
        return places

    def rows(self, own: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Return the rows themselves."""
        return own

    def wait(self) -> None:
        """Wait for nobody."""


class Processes:
    """Several processes, which torch.distributed brings together: NCCL between GPUs, gloo between CPUs.

    Parameters
    ----------
    place
        Of this process.
    device
        Its own: ``cuda:N`` or ``cpu``.
    """

    def __init__(self, place: Place, device: str) -> None:
        self.rank, self.size = place.rank, place.size
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            os.environ.update(meeting_variables(place, os.environ))
            where = "env://"
        else:  # a file needs no port that another program may have taken
            where = (Path(folder) / "meeting").as_uri()
        dist.init_process_group(
            backend, init_method=where, rank=place.rank, world_size=place.size, timeout=_STEP_TIMEOUT
        )
        # Between steps all is said over gloo, which needs no GPU and sees at once that a process is gone.
        between = dist.new_group(backend="gloo", timeout=_WAIT_TIMEOUT)
        assert isinstance(between, dist.ProcessGroup)
        self._between = between
        _hush()

    def prepared(self, network: nn.Module) -> nn.Module:
        """Return the network with synchronised batch norms on GPUs; on the CPU torch has none."""
        if self.device.type != "cuda":
            return network
        from timm.layers.norm_act import (
            convert_sync_batchnorm,
        )  # torch's own would drop the activations in timm's batch norms

        prepared: nn.Module = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return prepared

    def placed(self, network: nn.Module, layout: torch.memory_format) -> nn.Module:
        """Return the network on this process's device."""
        return self.prepared(network).to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network in torch's DistributedDataParallel."""
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)

    def alone(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Return a context without synchronisation."""
        assert isinstance(network, nn.parallel.DistributedDataParallel)
        context: AbstractContextManager[Any] = network.no_sync()
        return context

    @torch.no_grad()
    def align(self, network: nn.Module) -> None:
        """Send the first process's weights and running statistics to all others."""
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, src=0)

    def whole(self, state: Any) -> Any:
        """Return the state itself, which every process has."""
        return state

    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Return the tensor itself."""
        return tensor

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def gathered(self, own: Own) -> list[Own]:
        """Return what each process has; it is pickled on the way."""
        each: list[Any] = [None] * self.size
        dist.all_gather_object(each, own, group=self._between)
        return each

    def own(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return every so-manieth place from this process's rank on."""
        n_each = -(-len(places) // self.size)
        return places[np.minimum(np.arange(n_each) * self.size + self.rank, len(places) - 1)]

    def rows(self, own: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Return the rows of all processes in order."""
        rows = np.empty((count, *own.shape[1:]), np.float32)
        for rank, part in enumerate(self.gathered(own)):
            mine = rows[rank :: self.size]
            mine[:] = part[: len(mine)]
        return rows

    def wait(self) -> None:
        """Go on when all have come here."""
        dist.barrier(group=self._between)

    def close(self) -> None:
        """Part; call it when all went well, as after a failure the others do not come to it."""
        dist.barrier(group=self._between)
        dist.destroy_process_group()


def _hush() -> None:
    """Drop torch's remark on gradients of depthwise convolutions: it lays them out itself, and copies them once more.

    A filter would not do, as filters do not hold while another thread listens to the warnings of image decoders.
    """
    shown = warnings.showwarning

    def show(message: Warning | str, *rest: Any, **named: Any) -> None:
        if not str(message).startswith("Grad strides do not match bucket view strides"):
            shown(message, *rest, **named)

    warnings.showwarning = show


def device_of(place: Place, device: str) -> str:
    """Return the device of one of several processes.

    Parameters
    ----------
    device
        Resolved: ``cuda``, ``cpu`` and the like.

    Raises
    ------
    UsageError
        If the processes cannot have one each.
    """
    if device == "cpu":
        return device
    if device != "cuda":
        raise UsageError(
            f"--device {device} is one device, for {place.local_size} processes", hint="--device cuda, or cpu"
        )
    there = torch.cuda.device_count()
    if there == 1:  # SLURM can show each process its own GPU alone; that two share one is refused by NCCL
        return "cuda:0"
    if place.local_size > there:
        raise UsageError(f"{place.local_size} processes were started on this machine, which has {there} GPUs")
    return f"cuda:{place.local_rank}"


@contextmanager
def joined(place: Place | None, device: str, *, is_sharded: bool = False) -> Iterator[Team]:
    """Train together within a ``with`` block.

    Parameters
    ----------
    place
        None trains alone.
    device
        This process's own.
    is_sharded
        Whether the network is split among them.

    Raises
    ------
    MedtoolError
        If the processes cannot reach one another.
    """
    if place is None:
        yield Alone(device)
        return
    try:
        team = _kind_of(is_sharded=is_sharded)(place, device)
    except (dist.DistError, RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise MedtoolError(
            f"the {place.size} processes cannot reach one another: {first}",
            hint="MASTER_ADDR and MASTER_PORT must lead to the first one; GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME name"
            " the network card",
        ) from error
    yield team
    team.close()


def _kind_of(*, is_sharded: bool) -> type[Processes]:
    if not is_sharded:
        return Processes
    from medtool.train.sharding import Sharded  # which takes a second to load

    return Sharded


def is_lost(error: BaseException) -> bool:
    """Tell whether an error is nothing but the end of another process of the team."""
    text = str(error).lower()
    signs = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in signs)
    )

"""One network that is split among the processes: each keeps a share of every weight and its part of the optimizer.

What is written to the disk is whole, and the same as that of one process: a training can go on with other devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from medtool.errors import UsageError, reason_of
from medtool.train.launch import Place
from medtool.train.team import Processes


class Sharded(Processes):
    """Several processes with a share of the network each, by torch's fully sharded data parallelism (FSDP)."""

    def __init__(self, place: Place, device: str) -> None:
        super().__init__(place, device)
        self._mesh: DeviceMesh = init_device_mesh(self.device.type, (self.size,))

    def placed(self, network: nn.Module, layout: torch.memory_format) -> nn.Module:
        """Return the network, split; its weights stay in torch's own layout, as others cannot be split."""
        network = self.prepared(network).to(self.device)
        try:
            for unit in _units(network):
                unit.register_forward_hook(_without_views)
                fully_shard(unit, mesh=self._mesh)
            fully_shard(network, mesh=self._mesh)
        except (NotImplementedError, ValueError) as error:  # such as for a weight that is a single number
            raise UsageError(f"the network cannot be split: {reason_of(error)}", hint="without --shard") from error
        return network

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network itself, which gathers weights and parts with gradients on its own."""
        return network

    def alone(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Return a context without synchronisation of gradients."""
        return _unsynchronised(network)

    @torch.no_grad()
    def align(self, network: nn.Module) -> None:
        """Send the first process's running statistics to all others; of weights nobody has a copy."""
        for tensor in network.state_dict().values():
            if not isinstance(tensor, DTensor):
                dist.broadcast(tensor, src=0)

    def whole(self, state: Any) -> Any:
        """Return a state with whole tensors; all processes must come to it, and only the first gets something."""
        if isinstance(state, DTensor):
            full: Tensor = state.full_tensor()
            return full.cpu() if self.rank == 0 else None
        if isinstance(state, Mapping):
            return {name: self.whole(value) for name, value in state.items()}
        if isinstance(state, list | tuple):
            return type(state)(self.whole(value) for value in state)
        return state

    def share(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Return this process's share of a whole tensor, split as another is."""
        if not isinstance(like, DTensor) or tensor.shape != like.shape:
            return tensor
        there = tensor.to(device=self.device, dtype=like.dtype)
        return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def _unsynchronised(network: nn.Module) -> Iterator[None]:
    assert isinstance(network, FSDPModule)
    network.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        network.set_requires_gradient_sync(True)


def _without_views(unit: nn.Module, inputs: Any, output: Any) -> Any:
    """Give what a block returns memory of its own: changed in place, a view would lose FSDP's hook on its gradient."""
    return output.clone() if isinstance(output, Tensor) and output._is_view() else output


def _units(network: nn.Module, *, is_row: bool = False) -> Iterator[nn.Module]:
    """Yield the blocks that are gathered one at a time: the smallest of several layers in a sequence or list of such.

    Single layers are left to what is around them, which is gathered in one go.
    """
    for child in network.children():
        is_container = isinstance(child, nn.Sequential | nn.ModuleList)
        inner = list(_units(child, is_row=is_container))
        if inner:
            yield from inner
        elif is_row and not is_container and _n_layers(child) > 1:
            yield child


def _n_layers(module: nn.Module) -> int:
    return sum(next(part.parameters(recurse=False), None) is not None for part in module.modules())

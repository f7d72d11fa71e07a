"""What every architecture must hold to."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from medtool.protocols import Architecture, InputSpec
from medtool.testing.checks import Contract, expect, skip

if TYPE_CHECKING:
    from torch import Tensor, nn


class ArchitectureContract(Contract):
    """Tests for an architecture; subclass it with ``name`` (installed) or ``plugin`` (the class or an instance)."""

    kind: ClassVar[str] = "architecture"

    def _architecture(self) -> Architecture:
        plugin: Architecture = self._load()
        return plugin

    def _network(self, *, num_classes: int = 2, in_channels: int = 3, seed: int = 905, **more: Any) -> nn.Module:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network: nn.Module = self._architecture().build(num_classes=num_classes, in_channels=in_channels, **more)
        return network.eval()

    def _batch(self, images: int = 2, *, in_channels: int = 3) -> Tensor:
        import torch

        given = self._architecture().input
        if given.views or given.metadata:
            skip("what a network with views or metadata takes is not part of the contract yet")
        generator = torch.Generator().manual_seed(905)
        return torch.randn(images, in_channels, *given.size, generator=generator)

    def test_its_input_is_described(self) -> None:
        given = self._architecture().input
        expect(isinstance(given, InputSpec), f"input must be a medtool.protocols.InputSpec, not {type(given).__name__}")
        is_right = len(given.size) == 2 and all(isinstance(side, int) and side > 0 for side in given.size)
        expect(is_right, f"input.size must be (height, width) in pixels, not {given.size!r}")
        is_right = len(given.mean) == len(given.std) > 0 and all(value > 0 for value in given.std)
        expect(is_right, f"input.mean and input.std must be one a channel, std above 0, not {given.mean}, {given.std}")

    def test_it_builds_a_network_with_the_classes_asked_for(self) -> None:
        import torch
        from torch import nn

        batch = self._batch()
        for num_classes in (1, 2, 7):
            network = self._network(num_classes=num_classes)
            expect(isinstance(network, nn.Module), f"build must return a torch.nn.Module, not {type(network).__name__}")
            with torch.no_grad():
                _expect_logits(network(batch), (2, num_classes))

    def test_it_takes_the_channels_asked_for(self) -> None:
        import torch

        for in_channels in (1, 3, 4):
            network = self._network(in_channels=in_channels)
            with torch.no_grad():
                _expect_logits(network(self._batch(in_channels=in_channels)), (2, 2))

    def test_the_same_seed_gives_the_same_network(self) -> None:
        import torch

        batch = self._batch()
        first, second = self._network(), self._network()
        expect(_is_same_state(first, second), "two networks built after torch.manual_seed(905) differ")
        with torch.no_grad():
            expect(torch.equal(first(batch), first(batch)), "two runs of one network in eval mode differ")

    def test_the_images_of_a_batch_do_not_touch_one_another(self) -> None:
        import torch

        batch = self._batch(3)
        network = self._network()
        with torch.no_grad():
            difference = float((network(batch)[1:2] - network(batch[1:2])).abs().max())
        expect(difference < 1e-3, f"an image's logits in a batch differ by {difference:.2g} from its logits alone")

    def test_it_can_be_trained(self) -> None:
        import torch

        network = self._network().train()
        logits = network(self._batch())
        _expect_logits(logits, (2, 2))
        loss: Any = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
        loss.backward()
        slopes = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        expect(slopes, "no parameter gets a gradient")
        expect(all(bool(torch.isfinite(slope).all()) for slope in slopes), "a gradient is not finite")

    def test_the_cam_layer_is_there_and_gives_a_map(self) -> None:
        network, layer, batch = self._network(), self._architecture().cam_layer, self._batch()
        modules = dict(network.named_modules())
        near = [name for name in modules if name.rpartition(".")[2] == layer.rpartition(".")[2]][:3]
        guess = f"; there is {', '.join(near)}" if near else ""
        expect(layer and layer in modules, f"the network has no module called {layer!r}, its cam_layer{guess}")
        _expect_map(layer, *_output_of(network, modules[layer], batch))

    def test_a_state_dict_makes_another_network_the_same(self) -> None:
        import torch

        batch = self._batch()
        first, second = self._network(seed=1), self._network(seed=2)
        with torch.no_grad():
            expect(not torch.equal(first(batch), second(batch)), "two seeds give the same network")
            second.load_state_dict(first.state_dict())
            expect(torch.allclose(first(batch), second(batch), atol=1e-5), "state_dict() does not hold all it needs")

    def test_pretrained_weights_are_taken_from_the_file_given(self) -> None:
        import torch
        from safetensors.torch import save_file

        source = self._network(num_classes=5, seed=1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.safetensors"
            save_file({name: tensor.clone().contiguous() for name, tensor in source.state_dict().items()}, path)
            built = self._network(num_classes=2, seed=2, pretrained=path)
        fresh = self._network(num_classes=2, seed=2).state_dict()
        wanted = {name: tensor for name, tensor in source.state_dict().items() if _differs(fresh.get(name), tensor)}
        taken = [name for name, tensor in wanted.items() if torch.equal(built.state_dict()[name], tensor)]
        expect(
            len(taken) >= len(wanted) * 0.9,
            f"only {len(taken)} of {len(wanted)} tensors were taken from the weights of a network with 5 classes",
        )

    def test_building_touches_no_network(self) -> None:
        with _offline():
            self._network()


def _expect_logits(logits: Any, shape: tuple[int, int]) -> None:
    import torch

    expect(isinstance(logits, torch.Tensor), f"a network must give a tensor of logits, not {type(logits).__name__}")
    expect(tuple(logits.shape) == shape, f"logits must be {shape}, not {tuple(logits.shape)}")
    is_number = logits.is_floating_point() and bool(torch.isfinite(logits).all())
    expect(is_number, f"logits must be finite floats, not {logits.dtype}")


def _output_of(network: nn.Module, module: nn.Module, batch: Tensor) -> tuple[Any, Tensor]:
    """Return what a module gives on the way to the logits, and the logits."""
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        logits = network(batch)
    finally:
        handle.remove()
    return (seen[-1] if seen else None), logits


def _expect_map(layer: str, output: Any, logits: Tensor) -> None:
    import torch

    expect(output is not None, f"the cam_layer {layer!r} takes no part in the forward pass")
    expect(
        isinstance(output, torch.Tensor), f"the cam_layer {layer!r} must give one tensor, not {type(output).__name__}"
    )
    shape = tuple(output.shape)
    is_map = len(shape) == 4 and shape[2] * shape[3] > 1
    is_tokens = len(shape) == 3 and shape[1] > 1
    expect(
        shape[0] == len(logits) and (is_map or is_tokens),
        f"the cam_layer {layer!r} must give (batch, channels, h, w) or (batch, tokens, channels), not {shape}",
    )
    (slope,) = torch.autograd.grad(logits[:, 0].sum(), [output], allow_unused=True)
    expect(slope is not None and bool(slope.any()), f"the logits do not depend on the cam_layer {layer!r}")


def _is_same_state(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and not any(_differs(theirs[name], tensor) for name, tensor in ours.items())


def _differs(ours: Tensor | None, theirs: Tensor) -> bool:
    """Tell whether two tensors of one shape have other values; False where the shapes differ, as a head's do."""
    import torch

    return ours is not None and ours.shape == theirs.shape and not torch.equal(ours, theirs)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Fail whatever opens a connection or looks up a host."""

    def refuse(*_args: object, **_options: object) -> NoReturn:
        expect(False, "it opens a network connection; only medtool weights get may")
        raise AssertionError

    kept = socket.getaddrinfo, socket.create_connection
    socket.getaddrinfo = socket.create_connection = refuse
    try:
        yield
    finally:
        socket.getaddrinfo, socket.create_connection = kept

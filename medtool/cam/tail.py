"""The part of a network after a layer: recorded alone for gradients, or run alone on activations of one's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medtool.errors import UsageError

#: From images to logits, with whatever else the network takes bound to it.
Forward = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let no parameter take part in gradients, so that nothing is recorded but what follows from a leaf."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class Recording:
    """One batch after the forward pass.

    Attributes
    ----------
    outputs
        What each layer gave, in the order of the layers, as it gave it.
    logits
        Shape ``(n, classes)``, float32; they hang together with ``outputs`` where gradients are wanted.
    """

    outputs: tuple[Tensor, ...]
    logits: Tensor

    def gradients(self, selected: Tensor, *, names: Sequence[str], is_last: bool) -> tuple[Tensor, ...]:
        """Return the gradient of each image's selected logit with respect to each layer, float32.

        An image's logit depends on that image alone, so one pass back from their sum serves the batch.

        Parameters
        ----------
        selected
            Shape ``(n,)``, made from :attr:`logits`.
        names
            Of the layers, for the message.
        is_last
            Whether the recording may be given back to memory.

        Raises
        ------
        UsageError
            If the answer does not depend on a layer.
        """
        found: tuple[Tensor | None, ...] = (None,) * len(self.outputs)
        if selected.requires_grad:
            found = torch.autograd.grad(selected.sum(), self.outputs, retain_graph=not is_last, allow_unused=True)
        for name, gradient in zip(names, found, strict=True):
            if gradient is None:
                raise UsageError(
                    f"the network's answer does not depend on the layer {name}",
                    hint="name a layer that it passes through",
                )
        return tuple(gradient.float() for gradient in found if gradient is not None)


def record(forward: Forward, layers: dict[str, nn.Module], images: Tensor, *, with_gradients: bool) -> Recording:
    """Return one forward pass, of which only what follows the first of the layers is recorded.

    The output of the first layer becomes a leaf; later ones stay linked with it. Each layer's successors get a copy, as
    many work in place. Of a layer that runs twice, the last time counts.

    Raises
    ------
    UsageError
        If a layer gives other than one tensor, or does not run.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], Tensor | None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Tensor | None:
            if not isinstance(output, Tensor):
                raise UsageError(f"the layer {name} gives a {type(output).__name__}, not one tensor")
            if not with_gradients:
                outputs[name] = output.clone()
                return None
            outputs[name] = output if output.requires_grad else output.detach().requires_grad_()
            return outputs[name].clone()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in layers.items()]
    try:
        with torch.set_grad_enabled(with_gradients):
            logits = forward(images)
    finally:
        for handle in handles:
            handle.remove()
    for name in layers:
        if name not in outputs:
            raise UsageError(f"the layer {name} does not run for such images", hint="name another")
    return Recording(tuple(outputs[name] for name in layers), _checked(logits))


def _checked(logits: object) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"the network gives {seen}, not logits (images, classes)")
    return logits.float()


class Tail:
    """The part of a network after a layer, run on other activations than the layer gave.

    While one batch passes, the results of all outermost modules that end before the layer does are kept. Later passes
    take them from there, for one image of the batch at a time; only the code between modules runs again. So connections
    around the layer hold what they held, and the answer is that of the whole network.

    Parameters
    ----------
    network
        In evaluation mode.
    name
        The layer's.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self._name = name
        parts = name.split(".")
        inside = {".".join(parts[:depth]) for depth in range(len(parts))}
        children = {
            f"{around}.{child}".lstrip("."): module
            for around in inside
            for child, module in network.get_submodule(around).named_children()
        }
        self._skipped = {path: module for path, module in children.items() if path not in inside}
        self._layer = network.get_submodule(name)
        self._kept: dict[nn.Module, list[Any]] = {}

    def keep(self, forward: Forward, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the layer gives for a batch, and the logits, and keep what comes before the layer."""
        calls: list[tuple[nn.Module, Any]] = []
        running: list[nn.Module] = []

        def start(module: nn.Module, _inputs: Any) -> None:
            running.append(module)

        def end(module: nn.Module, _inputs: Any, output: Any) -> None:
            running.pop()
            if not running:  # a module that others share may run inside another, which is skipped as a whole
                calls.append((module, _mapped(output, lambda tensor: tensor.clone())))

        handles = []
        for module in set(self._skipped.values()):
            handles += [module.register_forward_pre_hook(start), module.register_forward_hook(end)]
        try:
            logits = _checked(forward(images))
        finally:
            for handle in handles:
                handle.remove()
        ends = [place for place, (module, _) in enumerate(calls) if module is self._layer]
        if not ends:
            raise UsageError(f"the layer {self._name} does not run for such images", hint="name another")
        self._kept = {}
        for module, output in calls[: ends[-1] + 1]:
            self._kept.setdefault(module, []).append(output)
        layer = self._kept[self._layer][-1]
        if not isinstance(layer, Tensor):
            raise UsageError(f"the layer {self._name} gives a {type(layer).__name__}, not one tensor")
        return layer, logits

    def run(self, forward: Forward, image: Tensor, place: int, activations: Tensor) -> Tensor:
        """Return the logits for one image with other activations.

        Parameters
        ----------
        image
            Shape ``(1, channels, h, w)``.
        place
            Of the image in the batch that was kept.
        activations
            Shape ``(m, ...)``, as the layer gives them; may be changed.

        Returns
        -------
        Shape ``(m, classes)``, float32.
        """
        try:
            return self._run(forward, image, place, activations, is_copied=False)
        except RuntimeError as error:
            if "single memory location" not in str(error):
                raise
            # The network adds to what a skipped module gave, in place: then each needs memory of its own.
            return self._run(forward, image, place, activations, is_copied=True)

    def _run(self, forward: Forward, image: Tensor, place: int, activations: Tensor, *, is_copied: bool) -> Tensor:
        n = len(activations)

        def of_image(tensor: Tensor) -> Tensor:
            own = tensor[place : place + 1].expand(n, *tensor.shape[1:])
            return own.clone() if is_copied or n == 1 else own

        with contextlib.ExitStack() as stack:
            for module, outputs in self._kept.items():
                last = activations if module is self._layer else None
                stack.enter_context(_replayed(module, outputs, of_image, last))
            return _checked(forward(image.expand(n, *image.shape[1:])))


@contextlib.contextmanager
def _replayed(
    module: nn.Module, outputs: list[Any], of_image: Callable[[Tensor], Tensor], last: Tensor | None
) -> Iterator[None]:
    """Let a module give what it gave, call by call, and compute again afterwards."""
    compute, calls = module.forward, iter(range(len(outputs)))

    def replay(*inputs: Any, **named: Any) -> Any:
        call = next(calls, None)
        if call is None:
            return compute(*inputs, **named)
        if last is not None and call == len(outputs) - 1:
            return last
        return _mapped(outputs[call], of_image)

    had_own = "forward" in vars(module)
    module.forward = replay
    try:
        yield
    finally:
        if had_own:
            module.forward = compute
        else:
            del module.forward


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a tensor, or tensors in tuples, lists and dictionaries, each changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_mapped(each, change) for each in value)
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    return value

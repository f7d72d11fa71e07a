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
            if len(output) != len(images):
                raise UsageError(
                    f"the layer {name} gives {tuple(output.shape)} for {len(images)} images, not one of each"
                )
            if not with_gradients:
                outputs[name] = output.clone()
                return None
            # Of its own memory, as the network may go on to change what it gave to the layer, or got from it.
            outputs[name] = output if output.requires_grad else output.detach().clone().requires_grad_()
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
    return Recording(tuple(outputs[name] for name in layers), _checked(logits, len(images)))


def _checked(logits: object, n_images: int) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n_images:
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"the network gives {seen} for {n_images} images, not logits (images, classes)")
    return logits.float()


class Tail:
    """The part of a network after a layer, run on other activations than the layer gave.

    While one image passes, the results of all outermost modules that end before the layer does are kept. Later passes
    take them from there; only the code between modules runs again. So connections around the layer hold what they held,
    and the answer is that of the whole network. A module whose result is no plain tensors of one image, such as
    attention in windows, computes again too.

    Parameters
    ----------
    network
        In evaluation mode.
    name
        The layer's.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self._name = name
        self._layer = network.get_submodule(name)
        parts = name.split(".")
        around = {network.get_submodule(".".join(parts[:depth])) for depth in range(len(parts))}
        self._others = [module for module in network.modules() if module not in around]
        self._kept: dict[nn.Module, list[Any]] = {}
        self._needs_copies = False

    def keep(self, forward: Forward, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the layer gives for an image, and the logits ``(1, classes)``; keep what comes before the layer.

        Parameters
        ----------
        image
            Shape ``(1, channels, h, w)``.
        """
        calls: list[tuple[nn.Module, Any]] = []
        running: list[nn.Module] = []
        computed: set[nn.Module] = set()

        def start(module: nn.Module, _inputs: Any) -> None:
            running.append(module)

        def end(module: nn.Module, _inputs: Any, output: Any) -> None:
            running.pop()
            if not running:  # a module that others share may run inside another, which is skipped as a whole
                if not _is_of_one_image(output):
                    computed.add(module)
                calls.append((module, _mapped(output, lambda tensor: tensor.clone())))

        handles = []
        for module in self._others:
            handles += [module.register_forward_pre_hook(start), module.register_forward_hook(end)]
        try:
            logits = _checked(forward(image), 1)
        finally:
            for handle in handles:
                handle.remove()
        ends = [place for place, (module, _) in enumerate(calls) if module is self._layer]
        if not ends:
            raise UsageError(f"the layer {self._name} does not run for such images", hint="name another")
        layer = calls[ends[-1]][1]
        if not isinstance(layer, Tensor):
            raise UsageError(f"the layer {self._name} gives a {type(layer).__name__}, not one tensor")
        self._kept = {}
        for module, output in calls[: ends[-1] + 1]:
            if module not in computed:
                self._kept.setdefault(module, []).append(output)
        return layer, logits

    def run(self, forward: Forward, image: Tensor, activations: Tensor) -> Tensor:
        """Return the logits for the image that was kept, with other activations.

        Parameters
        ----------
        image
            Shape ``(1, channels, h, w)``.
        activations
            Shape ``(m, ...)``, as the layer gives them; may be changed.

        Returns
        -------
        Shape ``(m, classes)``, float32.
        """
        if self._needs_copies:
            return self._run(forward, image, activations)
        try:
            return self._run(forward, image, activations.clone())
        except RuntimeError as error:
            if "single memory location" not in str(error):
                raise
            # The network adds to what a skipped module gave, in place: then each needs memory of its own.
            self._needs_copies = True
            return self._run(forward, image, activations)

    def _run(self, forward: Forward, image: Tensor, activations: Tensor) -> Tensor:
        n = len(activations)

        def repeated(tensor: Tensor) -> Tensor:
            many = tensor.expand(n, *tensor.shape[1:])
            return many.clone() if self._needs_copies or n == 1 else many

        with contextlib.ExitStack() as stack:
            for module, outputs in self._kept.items():
                last = activations if module is self._layer else None
                stack.enter_context(with_forward(module, _replay(module, outputs, repeated, last)))
            return _checked(forward(image.expand(n, *image.shape[1:])), n)


def _replay(
    module: nn.Module, outputs: list[Any], of_image: Callable[[Tensor], Tensor], last: Tensor | None
) -> Callable[..., Any]:
    """Return what gives what a module gave, call by call, and computes again afterwards."""
    compute, calls = module.forward, iter(range(len(outputs)))

    def replay(*inputs: Any, **named: Any) -> Any:
        call = next(calls, None)
        if call is None:
            return compute(*inputs, **named)
        if last is not None and call == len(outputs) - 1:
            return last
        return _mapped(outputs[call], of_image)

    return replay


@contextlib.contextmanager
def with_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _is_of_one_image(value: Any) -> bool:
    """Tell whether a module's result is tensors of one image, in plain tuples, lists and dictionaries if at all."""
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == 1
    if isinstance(value, tuple | list):
        return all(map(_is_of_one_image, value))
    if type(value) is dict:
        return all(map(_is_of_one_image, value.values()))
    return value is None or isinstance(value, bool | int | float | str)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a tensor, or tensors in tuples, lists and dictionaries, each changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        changed = [_mapped(each, change) for each in value]
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    if type(value) is dict:
        return {key: _mapped(each, change) for key, each in value.items()}
    return value

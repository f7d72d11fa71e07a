"""The methods that pytorch-grad-cam computes: its class by name, and its maps before it scales and resizes them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medtool.cam.answers import selected
from medtool.cam.choices import OF_WHOLE_IMAGE, Method
from medtool.cam.layer import Grid
from medtool.cam.tail import Forward
from medtool.errors import UsageError, reason_of

_CLASSES = {
    Method.EIGENGRADCAM: "EigenGradCAM",
    Method.GRADCAM_ELEMENTWISE: "GradCAMElementWise",
    Method.RANDOMCAM: "RandomCAM",
    Method.KPCACAM: "KPCA_CAM",
    Method.FEM: "FEM",
    Method.SHAPLEYCAM: "ShapleyCAM",
    Method.FINERCAM: "FinerCAM",
    Method.SEGEIGENCAM: "SegEigenCAM",
    Method.FULLGRAD: "FullGrad",
    Method.REFINECAM: "RefineCAM",
    Method.SESS: "SESS",
}
#: They compare a class with others; a single logit becomes the logits of both its classes.
_COMPARING = frozenset({Method.FINERCAM, Method.SESS})


def peer_maps(
    method: Method,
    network: nn.Module,
    forward: Forward,
    layers: Sequence[nn.Module],
    *,
    grids: Sequence[Grid],
    image: Tensor,
    targets: Tensor,
) -> list[Tensor]:
    """Return one image's maps by a method of pytorch-grad-cam, a layer at a time.

    Parameters
    ----------
    network, forward
        The network, and the same with all but the images bound to it.
    layers, grids
        As many as one another.
    image
        Shape ``(1, channels, h, w)``.
    targets
        Shape ``(1, k)``.

    Returns
    -------
    For each layer a tensor ``(1, k, h, w)``; for a method that gives no map of a layer (``fullgrad``, ``refinecam``,
    ``sess``) one tensor at the image's size.

    Raises
    ------
    UsageError
        If the method cannot be used with this network.
    """
    if method is Method.FULLGRAD:
        _refuse_unknown_biases(network)
    bound = _Bound(network, forward, is_two_sided=method in _COMPARING)
    columns = [
        _one(method, bound, layers, grids=grids, image=image, target=int(target)) for target in targets.flatten()
    ]
    return [torch.stack(maps, 1) for maps in zip(*columns, strict=True)]


def _one(
    method: Method,
    network: nn.Module,
    layers: Sequence[nn.Module],
    *,
    grids: Sequence[Grid],
    image: Tensor,
    target: int,
) -> list[Tensor]:
    raw: list[npt.NDArray[np.float32]] = []
    with contextlib.ExitStack() as stack:
        try:
            cam = _built(method, network, list(layers), grids)
            for each in getattr(cam, "base_cam_per_layer", [getattr(cam, "base_cam", cam)]):
                stack.callback(_release, each.activations_and_grads)
            if method not in OF_WHOLE_IMAGE:
                inner = cam.base_cam if method is Method.FINERCAM else cam
                inner.get_cam_image = _keeping(inner.get_cam_image, raw)
            # It finds the classes to compare with only where it is given none; and its own target, where given one.
            how = {"target_idx": target} if method is Method.FINERCAM else {"targets": [_Answer(target)]}
            with _seeded(image, target), torch.enable_grad():
                whole = cam(image.detach().clone().requires_grad_(), **how)
        except UsageError:
            raise
        except Exception as error:  # its methods fail on networks that they do not know in any way
            raise UsageError(
                f"pytorch-grad-cam's {method} fails with this network: {reason_of(error)}", hint="--method gradcam"
            ) from error
    found = [whole] if method in OF_WHOLE_IMAGE else raw
    return [torch.from_numpy(np.asarray(each, np.float32)).to(image.device) for each in found]


def _release(recorder: Any) -> None:
    """Let go of hooks and tensors: by itself it does when it is collected, and fails on gradients of gradients."""
    for handle in recorder.handles:
        handle.remove()
    for kept in (recorder.handles, recorder.activations, recorder.gradients):
        kept.clear()


class _Bound(nn.Module):
    """A network whose other inputs are bound; pytorch-grad-cam looks for parameters, and for layers to hook.

    Its methods count on parameters that take part in gradients: so that there is something to go back to, and so that
    there are gradients of gradients also where these are the same for every image. Here the image takes part, and a
    factor of 1.
    """

    def __init__(self, network: nn.Module, forward: Forward, *, is_two_sided: bool) -> None:
        super().__init__()
        self.network = network
        self._of = forward
        self._is_two_sided = is_two_sided

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not images.requires_grad:
            images = images.detach().requires_grad_()
        logits = self._of(images).float() * torch.ones((), device=images.device, requires_grad=True)
        if self._is_two_sided and logits.shape[1] == 1:
            # Half of the logit for, half against: their softmax is the sigmoid of the whole.
            return torch.cat([-logits, logits], 1) / 2
        return logits

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Leave gradients as they are; none is made."""


class _Answer:
    """What a network answers for a class: for one image ``(logits,)``, or for several ``(n, logits)``."""

    def __init__(self, target: int) -> None:
        self._target = target

    def __call__(self, logits: Tensor) -> Tensor:
        rows = logits if logits.ndim == 2 else logits[None]
        answers = selected(rows, torch.full((len(rows), 1), self._target, device=rows.device))[:, 0]
        return answers if logits.ndim == 2 else answers[0]


def _built(method: Method, network: nn.Module, layers: list[nn.Module], grids: Sequence[Grid]) -> Any:
    import pytorch_grad_cam  # seconds: it brings matplotlib and scikit-learn

    if len({(grid.n_prefix, grid.is_channels_last, grid.size) for grid in grids}) > 1 and (
        grids[0].n_prefix or any(grid.is_channels_last for grid in grids)
    ):
        raise UsageError(f"pytorch-grad-cam's {method} takes layers of one kind", hint="name one layer")
    kind = getattr(pytorch_grad_cam, _CLASSES[method])
    if method is Method.FULLGRAD:
        return kind(network, [])  # it takes all that have a bias, and warns of others
    return kind(network, layers, reshape_transform=lambda output: grids[0].maps_of(output).float())


def _refuse_unknown_biases(network: nn.Module) -> None:
    """Full gradients need every bias; pytorch-grad-cam knows those of convolutions and plain batch normalisation."""
    for name, module in network.named_modules():
        own = isinstance(getattr(module, "bias", None), nn.Parameter)
        if own and type(module) not in {nn.Conv2d, nn.BatchNorm2d, nn.Linear}:
            raise UsageError(
                f"fullgrad would leave out the bias of {name} ({type(module).__name__}), and so not be complete",
                hint="--method gradcam",
            )


def _keeping(
    compute: Callable[..., npt.NDArray[np.float32]], raw: list[npt.NDArray[np.float32]]
) -> Callable[..., npt.NDArray[np.float32]]:
    def kept(*arguments: Any, **named: Any) -> npt.NDArray[np.float32]:
        found = compute(*arguments, **named)
        raw.append(found.copy())
        return found

    return kept


@contextlib.contextmanager
def _seeded(image: Tensor, target: int) -> Iterator[None]:
    """Let NumPy's global generator, which random maps are drawn from, begin with the image's content and the class."""
    before = np.random.get_state()
    digest = hashlib.sha256(image.detach().float().cpu().contiguous().numpy().tobytes()).digest()
    np.random.seed([int.from_bytes(digest[:4], "little"), target])
    try:
        yield
    finally:
        np.random.set_state(before)

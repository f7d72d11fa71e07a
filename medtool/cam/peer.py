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
from medtool.cam.choices import Method
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
#: Their result is made from several maps at the image's size, and scaled to 0–1; there is none of a layer.
_WHOLE = frozenset({Method.FULLGRAD, Method.REFINECAM, Method.SESS})


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
    bound = _Bound(network, forward)
    columns = [
        _one(method, bound, layers, grids=grids, image=image, target=column[:, None]) for column in targets.unbind(1)
    ]
    return [torch.stack(maps, 1) for maps in zip(*columns, strict=True)]


def _one(
    method: Method,
    network: nn.Module,
    layers: Sequence[nn.Module],
    *,
    grids: Sequence[Grid],
    image: Tensor,
    target: Tensor,
) -> list[Tensor]:
    cam = _built(method, network, list(layers), grids)
    raw: list[npt.NDArray[np.float32]] = []
    try:
        if method not in _WHOLE:
            inner = cam.base_cam if method is Method.FINERCAM else cam
            inner.get_cam_image = _keeping(inner.get_cam_image, raw)
        with _seeded(image), torch.enable_grad():
            # The image takes part in gradients, as its methods need them and no parameter does.
            whole = cam(image.detach().clone().requires_grad_(), [lambda logits: selected(logits[None], target)[0, 0]])
    except Exception as error:  # its methods fail on networks that they do not know in any way
        raise UsageError(
            f"pytorch-grad-cam's {method} fails with this network: {reason_of(error)}", hint="--method gradcam"
        ) from error
    finally:
        # It keeps its hooks until it is collected, which may be late.
        for each in getattr(cam, "base_cam_per_layer", [getattr(cam, "base_cam", cam)]):
            each.activations_and_grads.release()
    found = [whole] if method in _WHOLE else raw
    return [torch.from_numpy(np.asarray(each, np.float32)).to(image.device) for each in found]


class _Bound(nn.Module):
    """A network whose other inputs are bound; pytorch-grad-cam looks for parameters, and for layers to hook."""

    def __init__(self, network: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.network = network
        self._of = forward

    def forward(self, images: Tensor) -> Tensor:
        return self._of(images)


def _built(method: Method, network: nn.Module, layers: list[nn.Module], grids: Sequence[Grid]) -> Any:
    import pytorch_grad_cam  # seconds: it brings matplotlib and scikit-learn

    if len({(grid.n_prefix, grid.is_channels_last, grid.size) for grid in grids}) > 1 and (
        grids[0].n_prefix or any(grid.is_channels_last for grid in grids)
    ):
        raise UsageError(f"pytorch-grad-cam's {method} takes layers of one kind", hint="name one layer")
    if method is Method.FULLGRAD:
        _refuse_fused_normalisation(network)
        layers = []  # it takes all that have a bias, and warns of others
    kind = getattr(pytorch_grad_cam, _CLASSES[method])
    return kind(network, layers, reshape_transform=grids[0].maps_of)


def _refuse_fused_normalisation(network: nn.Module) -> None:
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
def _seeded(image: Tensor) -> Iterator[None]:
    """Let NumPy's global generator, which random maps are drawn from, begin with the image's content."""
    before = np.random.get_state()
    digest = hashlib.sha256(image.detach().float().cpu().contiguous().numpy().tobytes()).digest()
    np.random.seed(int.from_bytes(digest[:4], "little"))
    try:
        yield
    finally:
        np.random.set_state(before)

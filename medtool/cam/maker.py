"""Raw class-activation maps of one network, batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medtool.cam.answers import classes_of, selected
from medtool.cam.choices import BY_GRADIENT, BY_PEER, OF_WHOLE_IMAGE, Method, Target
from medtool.cam.folding import Folding, find_folding, in_float32
from medtool.cam.layer import Grid, find_layers, finest, grid_of, resized
from medtool.cam.methods import WEIGHTED, eigencam
from medtool.cam.tail import Forward, Recording, Tail, frozen, record
from medtool.errors import UsageError
from medtool.heatmaps.format import Flag
from medtool.runs.forward import autocast

#: Of a map's largest absolute value: smaller differences are those of float32.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a batch.

    Attributes
    ----------
    raw
        Shape ``(n, k, h, w)``, float32, finite; neither scaled nor cut at 0. Each covers its whole image.
    targets
        The classes that the maps speak for, ``(n, k)``, int64.
    logits
        Shape ``(n, logits)``, float32, as the network gave them: NaN too.
    flags
        What is wrong with a map, ``(n, k)``, uint8; see :class:`medtool.heatmaps.Flag`.
    """

    raw: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    flags: npt.NDArray[np.uint8]


class HeatmapMaker:
    """Makes class-activation maps with a network.

    Gradients are computed for what comes after the first of the layers, and for nothing else; they are exact. The
    network's parameters are left as they are.

    Parameters
    ----------
    network
        Gives logits ``(n, classes)`` for images, or for images and metadata; put into evaluation mode. With one logit
        it decides between two classes.
    layers
        Dotted names of modules. With several, each map is divided by its own largest absolute value, so that none
        drowns the others, resized to the finest grid, and averaged. Attention rollout uses none.
    precision
        ``fp32``, ``bf16`` or ``fp16``, of the network; maps are computed in float32, and so are convolutions with few
        products a sum, whose rounding would be seen in the maps.
    is_channels_last
        Whether the network is laid out so that the channels of a pixel lie beside one another; faster with
        convolutions on most processors. Images are brought into the same layout.
    chunk
        Passes of one image that Score-CAM and Ablation-CAM compute at once.

    Raises
    ------
    UnknownNameError
        If there is no layer of a name; gives the nearest.
    UsageError
        If no layer is named.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        *,
        method: Method = Method.GRADCAM,
        precision: str = "fp32",
        is_channels_last: bool = True,
        chunk: int = 32,
    ) -> None:
        if not layers and method is not Method.ROLLOUT:
            raise UsageError(f"{method} needs a layer, and none is named", hint="--layer NAME")
        self.method = method
        self.precision = precision
        self.chunk = chunk
        self._layout = torch.channels_last if is_channels_last else torch.contiguous_format
        self.network = network.eval().to(memory_format=self._layout)
        self._layers = {} if method is Method.ROLLOUT else find_layers(network, layers)
        self._grids: dict[tuple[int, int], tuple[Grid, ...]] = {}
        self._folding: Folding | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that maps are made from."""
        return tuple(self._layers)

    def maps(
        self, images: Tensor, targets: Tensor | Target = Target.PREDICTED, *, metadata: Tensor | None = None
    ) -> Maps:
        """Return the maps of a batch of images.

        Parameters
        ----------
        images
            Shape ``(n, channels, height, width)``, float32, normalised, on the network's device.
        targets
            Classes ``(n,)`` or ``(n, k)``, such as the ground truth; or how to choose them.
        metadata
            Shape ``(n, columns)``, for a network that takes them.

        Raises
        ------
        UsageError
            If a layer gives no map of the images, the answer does not depend on it, or the method cannot be used with
            this network.
        """
        with torch.inference_mode(False), frozen(self.network), contextlib.ExitStack() as stack:
            images = _plain(images, self._layout)
            metadata = None if metadata is None else _plain(metadata)
            stack.enter_context(self._quicker(images, metadata))
            logits, compute = self._prepared(images, metadata)
            chosen = classes_of(logits.detach(), targets)
            raw = compute(chosen).detach()
        return _checked(raw, chosen, logits.detach())

    def logits(self, images: Tensor, *, metadata: Tensor | None = None) -> Tensor:
        """Return logits ``(n, logits)``, float32."""
        with torch.no_grad(), self._quicker(images, metadata):
            return self._forward(metadata)(images.contiguous(memory_format=self._layout)).float()

    def grid_for(self, size: tuple[int, int], *, metadata: Tensor | None = None) -> tuple[int, int]:
        """Return the (height, width) of the maps of images of a (height, width) in pixels.

        Raises
        ------
        UsageError
            If a layer gives no map of such images.
        """
        parameter = next(self.network.parameters())
        image = torch.zeros(1, 3, *size, device=parameter.device)
        row = None if metadata is None else metadata[:1]
        if self.method is Method.ROLLOUT:
            _, _, height, width = self.maps(image, metadata=row).raw.shape
            return height, width
        with torch.no_grad():
            recording = record(self._forward(row), self._layers, image, with_gradients=False)
        return finest(self._sizes_of(self._grids_of(recording.outputs, image), size))

    @contextlib.contextmanager
    def _quicker(self, images: Tensor, metadata: Tensor | None) -> Iterator[None]:
        """Let the network compute the same in less time; but for methods that look into its modules themselves."""
        with contextlib.ExitStack() as stack:
            if self.method not in BY_PEER:
                if self._folding is None:
                    one = self._forward(None if metadata is None else metadata[:1], precision="fp32")
                    self._folding = find_folding(self.network, one, self._layers, images.shape)
                stack.enter_context(self._folding.applied())
            if self.precision != "fp32":
                stack.enter_context(in_float32(self.network))
            yield

    def _prepared(self, images: Tensor, metadata: Tensor | None) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the logits, and a function from classes ``(n, k)`` to maps ``(n, k, h, w)``."""
        forward = self._forward(metadata)
        if self.method is Method.ROLLOUT:
            from medtool.cam.rollout import rollout

            map_, logits = rollout(self.network, forward, images)
            return logits, lambda targets: map_[:, None].expand(-1, targets.shape[1], -1, -1)
        if self.method in BY_GRADIENT:
            recording = record(forward, self._layers, images, with_gradients=True)
            return recording.logits, lambda targets: self._by_gradients(recording, images, targets)
        with torch.no_grad():
            recording = record(forward, self._layers, images, with_gradients=False)
        return recording.logits, lambda targets: self._without_gradients(recording, images, metadata, targets)

    def _by_gradients(self, recording: Recording, images: Tensor, targets: Tensor) -> Tensor:
        grids = self._grids_of(recording.outputs, images)
        activations = [grid.maps_of(out.detach()).float() for grid, out in zip(grids, recording.outputs, strict=True)]
        answers = selected(recording.logits, targets)
        columns = []
        for column in range(targets.shape[1]):
            is_last = column == targets.shape[1] - 1
            found = recording.gradients(answers[:, column], names=self.layers, is_last=is_last)
            gradients = [grid.maps_of(gradient) for grid, gradient in zip(grids, found, strict=True)]
            columns.append([WEIGHTED[self.method](*pair) for pair in zip(activations, gradients, strict=True)])
        return _averaged([torch.stack(maps, 1) for maps in zip(*columns, strict=True)])

    def _without_gradients(
        self, recording: Recording, images: Tensor, metadata: Tensor | None, targets: Tensor
    ) -> Tensor:
        grids = self._grids_of(recording.outputs, images)

        def forward_of(place: int) -> Forward:
            return self._forward(None if metadata is None else metadata[place : place + 1])

        if self.method in BY_PEER:
            from medtool.cam.peer import peer_maps

            layers = list(self._layers.values())
            sizes = self._sizes_of(grids, (images.shape[2], images.shape[3]))
            rows = [
                peer_maps(
                    self.method,
                    self.network,
                    forward_of(place),
                    layers,
                    grids=grids,
                    image=image[None],
                    targets=targets[place][None],
                )
                if recording.logits[place].isfinite().all()
                # It would fail, or take what is not a number for 0.
                else [images.new_full((1, targets.shape[1], *size), torch.nan) for size in sizes]
                for place, image in enumerate(images)
            ]
            return _averaged([torch.cat(maps) for maps in zip(*rows, strict=True)])
        from medtool.cam.perturb import ablationcam, scorecam

        found = []
        with torch.no_grad():
            for name, grid, output in zip(self.layers, grids, recording.outputs, strict=True):
                if self.method is Method.EIGENCAM:
                    component = eigencam(grid.maps_of(output).float())
                    found.append(component[:, None].expand(-1, targets.shape[1], -1, -1))
                elif self.method is Method.SCORECAM:
                    activations = grid.maps_of(output).float()
                    found.append(scorecam(forward_of, images, activations, chunk=self.chunk)(targets))
                else:
                    tail = Tail(self.network, name)
                    found.append(ablationcam(tail, forward_of, images, grid=grid, chunk=self.chunk)(targets))
        return _averaged(found)

    def _forward(self, metadata: Tensor | None, *, precision: str = "") -> Forward:
        """Return the network as a function of images; one row of metadata serves any number of them."""

        def forward(images: Tensor) -> Tensor:
            with autocast(images.device, precision or self.precision):
                more = (
                    () if metadata is None else (metadata.expand(len(images), -1) if len(metadata) == 1 else metadata,)
                )
                logits: Tensor = self.network(images, *more)
            return logits

        return forward

    def _sizes_of(self, grids: tuple[Grid, ...], image: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the (height, width) of each layer's maps; of one at the image's size, if the method makes no other."""
        return [image] if self.method in OF_WHOLE_IMAGE else [grid.size for grid in grids]

    def _grids_of(self, outputs: Sequence[Tensor], images: Tensor) -> tuple[Grid, ...]:
        size = (images.shape[2], images.shape[3])
        if size not in self._grids:
            pairs = zip(self.layers, outputs, strict=True)
            self._grids[size] = tuple(grid_of(self.network, name, tuple(out.shape), size) for name, out in pairs)
        return self._grids[size]


def _plain(values: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Return values in a layout, free of what the caller has recorded of them."""
    own = values.clone() if values.is_inference() else values.detach()
    return own.contiguous(memory_format=layout)


def _averaged(maps: Sequence[Tensor]) -> Tensor:
    """Return the mean of layers' maps ``(n, k, h, w)`` at the finest grid, each by its own largest value."""
    if len(maps) == 1:
        return maps[0]
    size = max((tuple(each.shape[2:]) for each in maps), key=lambda size: size[0] * size[1])
    return torch.stack([resized(by_peak(each), (size[0], size[1])) for each in maps]).mean(0)


def by_peak(maps: Tensor) -> Tensor:
    """Return maps ``(n, k, h, w)``, each divided by its largest absolute value; those of zeros as they are."""
    peak = maps.abs().amax((2, 3), keepdim=True)
    return maps / torch.where(peak == 0, 1, peak)


def flags_of(raw: Tensor, logits: Tensor) -> Tensor:
    """Return what is wrong with each of the maps ``(n, k, h, w)`` of images with these logits; uint8 ``(n, k)``."""
    high, low = raw.amax((2, 3)), raw.amin((2, 3))
    flags = torch.full(raw.shape[:2], int(Flag.NONE), dtype=torch.uint8, device=raw.device)
    flags[high <= 0] = Flag.NEGATIVE
    # A map that has all its differences from rounding shows nothing.
    flags[high - low <= ROUNDING * torch.maximum(high.abs(), low.abs())] = Flag.CONSTANT
    flags[(high == 0) & (low == 0)] = Flag.ZERO
    flags[raw.isinf().flatten(2).any(2) | logits.isinf().any(1, keepdim=True)] = Flag.INFINITE
    flags[raw.isnan().flatten(2).any(2) | logits.isnan().any(1, keepdim=True)] = Flag.NOT_A_NUMBER
    return flags


def _checked(raw: Tensor, targets: Tensor, logits: Tensor) -> Maps:
    flags = flags_of(raw, logits)
    clean = torch.where((flags >= Flag.INFINITE)[:, :, None, None], 0, raw)
    return Maps(clean.float().cpu().numpy(), targets.cpu().numpy(), logits.cpu().numpy(), flags.cpu().numpy())

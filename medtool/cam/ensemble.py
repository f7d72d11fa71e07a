"""Heatmaps of several networks, scales and mirror images, put together into one; with how far they differ."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn

from medtool.architectures.metadata import MetadataEncoder
from medtool.cam.answers import classes_of
from medtool.cam.choices import SPREAD_OVER_CELLS, WITHOUT_CLASS, Method, Target
from medtool.cam.layer import resized
from medtool.cam.maker import HeatmapMaker, Maps, by_peak, flags_of
from medtool.cam.options import CamOptions
from medtool.devices import Portions, clear_memory_errors
from medtool.errors import UnknownNameError, UsageError, reason_of
from medtool.heatmaps.format import Flag
from medtool.runs.choices import Task
from medtool.runs.folder import Run, check_together
from medtool.runs.forward import Normaliser
from medtool.runs.network import architecture_of, load_network
from medtool.runs.preprocessing import Preprocessing
from medtool.runs.probabilities import probabilities_of

#: The strides of most networks with convolutions divide it.
_STEP_PX = 32


@dataclass(frozen=True, slots=True)
class Made:
    """Heatmaps of some images.

    Attributes
    ----------
    raw
        Shape ``(n, k, h, w)``, float32, finite.
    spread
        The standard deviation over networks, scales and mirror images, of the shape of ``raw``; None unless asked for.
    targets
        The classes that the maps speak for, ``(n, k)``, int64.
    scores
        Probabilities of these classes, as the networks give them on average, not calibrated; float64 ``(n, k)``.
    flags
        As of :class:`medtool.cam.maker.Maps`.
    """

    raw: npt.NDArray[np.float32]
    spread: npt.NDArray[np.float32] | None
    targets: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    flags: npt.NDArray[np.uint8]


def layers_of(run: Run, options: CamOptions) -> tuple[str, ...]:
    """Return the names of the layers that maps of a run come from: those asked for, or its architecture's own."""
    if options.method is Method.ROLLOUT:
        return ()
    return options.layers or (architecture_of(run.card).cam_layer,)


@dataclass(frozen=True)
class _Look:
    """One way in which a network looks at an image: at a size, and mirrored or not."""

    maker: HeatmapMaker
    preprocessing: Preprocessing
    is_mirrored: bool


@dataclass(frozen=True)
class _Loaded:
    run: Run
    layers: tuple[str, ...]
    looks: tuple[_Look, ...]
    normalise: Normaliser
    encoder: MetadataEncoder | None


class HeatmapEnsemble:
    """Networks on a device, ready to make heatmaps.

    One network that looks once gives its raw maps. Several looks of a network (scales, mirror images) are laid on one
    another and averaged; maps of finer grids are first brought to the scale of the coarser ones. Maps of several
    networks are each divided by the network's own largest absolute value, since logits of networks do not compare.

    Parameters
    ----------
    runs
        Trained for the same classes.
    say
        Takes a line for the user, such as that memory does not suffice for a batch.

    Attributes
    ----------
    preprocessings
        The ways in which an image has to be prepared, each once, by their keys.
    columns
        Of the manifest, which the networks take beside the image.
    size
        (height, width) of the maps.
    layers
        Of each run: the names of its layers.

    Raises
    ------
    UsageError
        If the runs do not fit together, a layer gives no map, a network does not take images of a scale, or a spread
        is asked for and there is nothing to differ.
    UnknownNameError
        If there is no layer or class of a name; gives the nearest.
    InputError
        If a checkpoint is damaged.
    """

    def __init__(self, runs: Sequence[Run], options: CamOptions, *, say: Callable[[str], None]) -> None:
        check_together(runs)
        self.task, self.classes = runs[0].card.task, runs[0].card.classes
        self._options = options
        self._portions = Portions(options.n_batch, options.device, say=say)
        self._device = torch.device(options.device)
        if options.uncertainty and len(runs) * options.n_views < 2:
            raise UsageError(
                "--uncertainty is how far maps differ, and there is one",
                hint="--flip, --scales 0.75,1,1.25, or several runs such as the folds of a cross-validation",
            )
        self._target = self._fixed_target(options)
        self._loaded = [self._load(run) for run in runs]
        self.layers = [loaded.layers for loaded in self._loaded]
        self.preprocessings: dict[str, Preprocessing] = {
            look.preprocessing.key: look.preprocessing for loaded in self._loaded for look in loaded.looks
        }
        encoders = [loaded.encoder for loaded in self._loaded if loaded.encoder is not None]
        self.columns = tuple(dict.fromkeys(column.name for encoder in encoders for column in encoder.columns))
        sizes = [self._size_of(loaded) for loaded in self._loaded]
        self.size = max(sizes, key=lambda size: size[0] * size[1])

    @property
    def asked_classes(self) -> tuple[str, ...]:
        """The classes that each image has a map for, if it has several; else empty."""
        return self.classes if self._target is Target.ALL and len(self.classes) > 1 else ()

    def _fixed_target(self, options: CamOptions) -> Target | int | None:
        """Return what decides the class of every map: a rule, the place of a class, or None for each image's label."""
        name = options.class_name
        if name:
            if name not in self.classes:
                known = ", ".join(self.classes[:8]) + (", ..." if len(self.classes) > 8 else "")
                raise UnknownNameError("class", name, known=self.classes, hint=f"the run knows {known}")
            return self.classes.index(name)
        if options.target not in tuple(Target):
            if self.task is Task.MULTI:
                raise UsageError(
                    "--target label needs one label an image, and the runs were trained with --task multi",
                    hint="--target all gives a map for each label",
                )
            return None
        if options.method in WITHOUT_CLASS and options.target == Target.ALL:
            raise UsageError(
                f"--method {options.method} gives the same map whatever the class, so --target all means nothing",
                hint="--target predicted, which gives the score of the predicted class beside the map",
            )
        return Target(options.target)

    def _load(self, run: Run) -> _Loaded:
        card, options = run.card, self._options
        layers = layers_of(run, options)
        encoder = None if card.metadata is None else MetadataEncoder.of(card.metadata)
        with clear_memory_errors(options.device, task=f"the network of {run.folder}"):
            network = load_network(run.checkpoint, card).to(self._device)
        looks, step = [], _step_of(network)
        for scale in options.scales:
            prepared = _scaled(card.preprocessing, scale, step)
            maker = HeatmapMaker(
                _at_size(network, card.preprocessing, prepared),
                layers,
                method=options.method,
                precision=options.precision,
                is_channels_last=options.channels_last,
            )
            looks += [
                _Look(maker, prepared, is_mirrored) for is_mirrored in ((False, True) if options.flip else (False,))
            ]
        normalise = Normaliser(card.preprocessing, self._device, is_channels_last=options.channels_last)
        return _Loaded(run, layers, tuple(looks), normalise, encoder)

    def _size_of(self, loaded: _Loaded) -> tuple[int, int]:
        """Return the finest grid of a network's looks, and see that the network takes images of each size."""
        width = None if loaded.encoder is None else loaded.encoder.width
        row = None if width is None else torch.zeros(1, width, device=self._device)
        sizes = []
        for look in loaded.looks:
            height, width_px = look.preprocessing.height, look.preprocessing.width
            try:
                sizes.append(look.maker.grid_for((height, width_px), metadata=row))
            except (RuntimeError, AssertionError, ValueError) as error:
                if look.preprocessing == loaded.run.card.preprocessing or isinstance(error, UsageError):
                    raise
                raise UsageError(
                    f"the network of {loaded.run.folder} does not take images of {height} × {width_px} pixels:"
                    f" {reason_of(error)}",
                    hint="leave out --scales",
                ) from error
        return max(sizes, key=lambda size: size[0] * size[1])

    def metadata_of(self, table: pl.DataFrame) -> list[npt.NDArray[np.float32] | None]:
        """Return for each network the numbers that it takes beside the images; raises ``InputError``."""
        return [None if each.encoder is None else each.encoder.encode(table) for each in self._loaded]

    def make(
        self,
        images: Mapping[str, Tensor],
        metadata: Sequence[npt.NDArray[np.float32] | None],
        *,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> Made:
        """Return the heatmaps of a batch.

        Parameters
        ----------
        images
            By the key of each preprocessing: uint8 ``(n, 3, height, width)``.
        metadata
            As of :meth:`metadata_of`, for the same images.
        labels
            The class of each image, ``(n,)``, where the true class is the target.

        Raises
        ------
        UsageError
            If the method cannot be used with a network.
        MedtoolError
            If the device's memory does not suffice for one image.
        """
        n = len(next(iter(images.values())))
        found = self._portions.of(
            n,
            lambda part: self._make(
                {key: each[part] for key, each in images.items()},
                [None if each is None else each[part] for each in metadata],
                None if labels is None else labels[part],
            ),
        )
        return found[0] if len(found) == 1 else _joined(found)

    def _make(
        self,
        images: Mapping[str, Tensor],
        metadata: Sequence[npt.NDArray[np.float32] | None],
        labels: npt.NDArray[np.int64] | None,
    ) -> Made:
        rows = [None if each is None else torch.from_numpy(each).to(self._device) for each in metadata]
        targets = self._targets(images, rows, labels)
        of_networks: list[list[Maps]] = []
        for loaded, row in zip(self._loaded, rows, strict=True):
            of_looks = []
            for look in loaded.looks:
                made = look.maker.maps(self._shown(images, loaded, look), targets, metadata=row)
                targets = torch.from_numpy(made.targets).to(self._device)  # what the first look predicts, all speak for
                of_looks.append(made)
            of_networks.append(of_looks)
        chosen = of_networks[0][0].targets
        if len(self.classes) == 1:
            chosen = np.zeros_like(chosen)
        scores = np.mean([self._scores(looks[0].logits, chosen) for looks in of_networks], axis=0)
        if len(of_networks) == 1 and len(of_networks[0]) == 1:
            only = of_networks[0][0]
            return Made(only.raw, None, chosen, scores, only.flags)
        return self._averaged(of_networks, chosen, scores)

    def _targets(
        self, images: Mapping[str, Tensor], rows: Sequence[Tensor | None], labels: npt.NDArray[np.int64] | None
    ) -> Tensor | Target:
        """Return the classes; of several networks the predicted one is that of their mean probability."""
        if self._target is None:
            assert labels is not None
            return torch.from_numpy(labels).to(self._device)
        n = len(next(iter(images.values())))
        if len(self.classes) == 1:  # its one logit speaks for it, and would be taken for that of the second of two
            return torch.ones(n, dtype=torch.int64, device=self._device)
        if isinstance(self._target, int):
            return torch.full((n,), self._target, device=self._device)
        if self._target is Target.ALL or len(self._loaded) == 1:
            return self._target
        total = torch.zeros(n, len(self.classes), dtype=torch.float64)
        for loaded, row in zip(self._loaded, rows, strict=True):
            logits = loaded.looks[0].maker.logits(self._shown(images, loaded, loaded.looks[0]), metadata=row)
            total += torch.from_numpy(self._all_scores(logits.cpu().numpy()))
        return classes_of(total.nan_to_num(nan=-1), total.nan_to_num(nan=-1).argmax(1)).to(self._device)

    def _shown(self, images: Mapping[str, Tensor], loaded: _Loaded, look: _Look) -> Tensor:
        shown = images[look.preprocessing.key]
        return loaded.normalise(shown.flip(3) if look.is_mirrored else shown)

    def _all_scores(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return probabilities ``(n, classes)``; NaN where logits are not finite."""
        is_finite = np.isfinite(logits).all(axis=1)
        found = np.full((len(logits), len(self.classes)), np.nan)
        if is_finite.any():
            found[is_finite] = probabilities_of(logits[is_finite], self.task)
        return found

    def _scores(self, logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.take_along_axis(self._all_scores(logits), targets, axis=1)

    def _averaged(
        self, of_networks: Sequence[Sequence[Maps]], targets: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]
    ) -> Made:
        laid = [list(self._laid(loaded, looks)) for loaded, looks in zip(self._loaded, of_networks, strict=True)]
        means = [torch.stack(maps).mean(0) for maps in laid]
        if len(means) > 1:
            peaks = [mean.abs().amax((2, 3), keepdim=True) for mean in means]
            units = [torch.where(peak == 0, 1, peak) for peak in peaks]
            laid = [[each / unit for each in maps] for maps, unit in zip(laid, units, strict=True)]
            means = [by_peak(mean) for mean in means]
        mean = torch.stack(means).mean(0)
        flags = flags_of(mean, torch.zeros(len(mean), 1)).numpy()
        each_flags = np.stack([made.flags for looks in of_networks for made in looks])
        worst = np.where(each_flags >= Flag.INFINITE, each_flags, Flag.NONE).max(0)
        flags = np.maximum(flags, worst).astype(np.uint8)
        is_lost = torch.from_numpy(flags >= Flag.INFINITE)[:, :, None, None]
        spread = None
        if self._options.uncertainty:
            every = torch.stack([each for maps in laid for each in maps])
            spread = torch.where(is_lost, 0, every.std(0, correction=0)).float().numpy()
        return Made(torch.where(is_lost, 0, mean).float().numpy(), spread, targets, scores, flags)

    def _laid(self, loaded: _Loaded, looks: Sequence[Maps]) -> Iterator[Tensor]:
        """Yield the maps of one network's looks, each as it lies on the image as it is, at the size of all."""
        first = looks[0].raw.shape[2] * looks[0].raw.shape[3]
        for look, made in zip(loaded.looks, looks, strict=True):
            maps = torch.from_numpy(made.raw)
            if self._options.method in SPREAD_OVER_CELLS:
                maps = maps * (maps.shape[2] * maps.shape[3] / first)
            yield resized(maps.flip(3) if look.is_mirrored else maps, self.size)


def _joined(parts: Sequence[Made]) -> Made:
    spreads = [part.spread for part in parts if part.spread is not None]
    return Made(
        np.concatenate([part.raw for part in parts]),
        np.concatenate(spreads) if spreads else None,
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.flags for part in parts]),
    )


def _scaled(preprocessing: Preprocessing, scale: float, step: tuple[int, int]) -> Preprocessing:
    """Return how images of another size are prepared, in whole steps; a factor of 1 changes nothing."""
    if scale == 1:
        return preprocessing
    height, width = (
        max(1, math.floor(side * scale / each + 0.5)) * each
        for side, each in zip((preprocessing.height, preprocessing.width), step, strict=True)
    )
    return replace(preprocessing, height=height, width=width)


def _step_of(network: nn.Module) -> tuple[int, int]:
    """Return of what the sides of images must be multiples, so that cells cover them: patches, or most strides."""
    for module in network.modules():
        patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
        if isinstance(patch, tuple) and len(patch) == 2 and hasattr(module, "blocks"):
            return int(patch[0]), int(patch[1])
    return _STEP_PX, _STEP_PX


def _at_size(network: nn.Module, own: Preprocessing, other: Preprocessing) -> nn.Module:
    """Return the network for images of another size.

    Convolutions take any. A transformer that is made for one size is copied, and its positions are interpolated, where
    timm knows how.
    """
    if (own.height, own.width) == (other.height, other.width):
        return network
    fixed = [name for name, module in network.named_modules() if hasattr(module, "set_input_size")]
    if not fixed:
        return network
    changed = copy.deepcopy(network)
    for name in fixed:
        if not any(name.startswith(f"{outer}.") or outer == "" for outer in fixed if outer != name):
            module: Any = changed.get_submodule(name)
            try:
                module.set_input_size(img_size=(other.height, other.width))
            except Exception as error:  # a network that cannot be changed fails in any way
                raise UsageError(
                    f"the network cannot be made to take images of {other.height} × {other.width} pixels:"
                    f" {reason_of(error)}",
                    hint="leave out --scales",
                ) from error
    return changed

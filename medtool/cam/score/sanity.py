"""Whether a map needs the network at all: its weights are made random from the top, and the map must change.

A layer is a module with parameters of its own. From the classifier down, one after the other, the values of its
parameters change places at random: their distribution stays, what was learned is gone. The layers above stay random.

References
----------
Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018 (cascading randomisation).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from skimage import metrics
from torch import Tensor, nn

from medtool.cam.choices import Method
from medtool.cam.maker import HeatmapMaker
from medtool.cam.score.cases import Case, Source
from medtool.cam.score.faithfulness import picture_and_map
from medtool.cam.score.judge import Judge, stacked
from medtool.cam.score.metrics import Floats
from medtool.cam.score.options import ScoreOptions
from medtool.errors import InputError, LineageError, UsageError, reason_of
from medtool.heatmaps.resize import resize_heatmap
from medtool.protocols import Steps

if TYPE_CHECKING:
    from medtool.protocols import Heatmap

#: Mean rank correlation with the map of the trained network from which on a map counts as the same: with all weights
#: random, and with those of the classifier alone.
LIMIT_ALL, LIMIT_TOP = 0.5, 0.99
#: Least mean rank correlation of the maps that are made again with those of the file.
_SAME = 0.95
_WINDOW_PX = 7


@dataclass(frozen=True, slots=True)
class Stage:
    """How alike the maps are after some of the layers have been made random.

    Attributes
    ----------
    n_layers
        How many are random, from the top.
    lowest
        The name of the last of them.
    rank_correlation, ssim
        Of each image; 0 where the random network gives a map that says nothing.
    """

    n_layers: int
    lowest: str
    rank_correlation: Floats
    ssim: Floats


@dataclass(frozen=True, slots=True)
class Sanity:
    """The cascade of one file's method.

    Attributes
    ----------
    cases
        The images that were looked at.
    reasons
        Why one of those that were asked for was not, by its id.
    n_layers
        Of the network.
    stages
        From the classifier alone to all layers.
    """

    cases: tuple[Case, ...]
    reasons: dict[str, str]
    n_layers: int
    stages: tuple[Stage, ...]

    @property
    def needs_classifier(self) -> bool:
        """Whether maps change when the classifier alone is random."""
        return float(self.stages[0].rank_correlation.mean()) < LIMIT_TOP

    @property
    def needs_weights(self) -> bool:
        """Whether maps change when everything is random."""
        return float(self.stages[-1].rank_correlation.mean()) < LIMIT_ALL

    @property
    def passes(self) -> bool:
        """Whether both hold."""
        return self.needs_classifier and self.needs_weights


@dataclass(frozen=True)
class _Batch:
    images: Tensor
    metadata: Tensor | None
    targets: Tensor


def check_method(source: Source) -> None:
    """See that a file's maps can be made again; raises ``UsageError``."""
    attributes = source.file.attributes
    if attributes.method not in tuple(Method):
        raise UsageError(
            f"{source.file.path} was made by {attributes.method!r}, which medtool cannot make again",
            hint="leave out --sanity",
        )
    if attributes.multi_scale:
        raise UsageError(
            f"the maps of {source.file.path} are averages of several scales or mirror images, which the sanity check"
            " does not make again",
            hint="the same maps without --scales and --flip",
        )


def sanity(source: Source, cases: Sequence[Case], judge: Judge, options: ScoreOptions, *, progress: Steps) -> Sanity:
    """Return how the maps of some images change as the network's weights become random.

    Parameters
    ----------
    cases
        All that could be looked at; as many as the options say are taken, evenly.

    Raises
    ------
    LineageError
        If the network does not give the file's maps again.
    InputError
        If no image can be used.
    """
    taken = [
        cases[place] for place in np.unique(np.linspace(0, len(cases) - 1, options.sanity_images).round().astype(int))
    ]
    kept, stored, batches, reasons = _gathered(source, taken, judge, options)
    if not kept:
        raise InputError("the sanity check has no image that it could use")
    network = copy.deepcopy(judge.network)
    attributes = source.file.attributes
    maker = HeatmapMaker(
        network,
        [name.strip() for name in attributes.layer.split(",") if name.strip()],
        method=Method(attributes.method),
        precision=options.precision,
        is_channels_last=options.channels_last,
    )
    again = _maps(maker, batches)
    likeness = np.array([rank_correlation(one, other) for one, other in zip(stored, again, strict=True)])
    if float(likeness.mean()) < _SAME:
        raise LineageError(
            f"the network does not give the maps of {source.file.path} again: their mean rank correlation with those"
            f" that it gives now is {likeness.mean():.3f}",
            hint="make the maps again with this version: medtool cam",
        )
    size = (judge.preprocessing.height, judge.preprocessing.width)
    layers = layers_from_top(network)
    chance = torch.Generator().manual_seed(options.seed)
    stages = []
    done = 0
    for upto in np.unique(np.linspace(1, len(layers), options.sanity_stages).round().astype(int)).tolist():
        for _, module in layers[done:upto]:
            shuffle(module, chance)
        done = upto
        found = _maps(maker, batches)
        pairs = list(zip(again, found, strict=True))
        stages.append(
            Stage(
                upto,
                layers[upto - 1][0],
                np.array([rank_correlation(one, other) for one, other in pairs]),
                np.array([ssim(one, other, size) for one, other in pairs]),
            )
        )
        progress.advance(layers[upto - 1][0])
    return Sanity(tuple(kept), reasons, len(layers), tuple(stages))


def layers_from_top(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules with parameters of their own, the one nearest to the answer first."""
    own = [
        (name, each) for name, each in network.named_modules() if next(each.parameters(recurse=False), None) is not None
    ]
    return [(name or "(the network's own)", module) for name, module in own[::-1]]


def shuffle(module: nn.Module, chance: torch.Generator) -> None:
    """Let the values of each of a module's own parameters change places."""
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            order = torch.randperm(parameter.numel(), generator=chance).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def rank_correlation(one: Heatmap, other: Heatmap) -> float:
    """Return Spearman's correlation of two maps of one size, ties sharing their ranks; 0 where one is constant."""
    ranks = [rankdata(each, axis=None) for each in (one, other)]
    centred = [rank - rank.mean() for rank in ranks]
    scale = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / scale) if scale > 0 else 0.0


def ssim(one: Heatmap, other: Heatmap, size: tuple[int, int]) -> float:
    """Return the structural similarity of two maps as they are shown: cut at 0, at the image's size, by their peaks.

    0 where one shows nothing. The window has 7 pixels, fewer in images smaller than that.
    """
    shown = [resize_heatmap(np.maximum(each, 0), size) for each in (one, other)]
    peaks = [each.max() for each in shown]
    if min(peaks) <= 0:
        return 0.0
    window = min(_WINDOW_PX, (min(size) - 1) // 2 * 2 + 1)
    first, second = (each / peak for each, peak in zip(shown, peaks, strict=True))
    found = metrics.structural_similarity(  # type: ignore[no-untyped-call]
        first, second, win_size=window, data_range=1.0
    )
    return float(found)


def _gathered(
    source: Source, cases: Sequence[Case], judge: Judge, options: ScoreOptions
) -> tuple[list[Case], list[Heatmap], list[_Batch], dict[str, str]]:
    """Return the images that can be used, their maps as the file has them, batches of them, and why others cannot."""
    kept: list[Case] = []
    stored: list[Heatmap] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    rows: list[npt.NDArray[np.float32] | None] = []
    places: list[int] = []
    reasons: dict[str, str] = {}
    for case in cases:
        try:
            shown, raw = picture_and_map(source, case, judge)
            row, place = judge.metadata_of(case), judge.place_of(source, case)
        except (InputError, OSError) as error:
            reasons[case.image_id] = reason_of(error)
            continue
        kept.append(case)
        stored.append(raw)
        pixels.append(shown)
        rows.append(row)
        places.append(place)
    return kept, stored, list(_batches(pixels, rows, places, judge, options)), reasons


def _batches(
    pixels: Sequence[npt.NDArray[np.uint8]],
    rows: Sequence[npt.NDArray[np.float32] | None],
    places: Sequence[int],
    judge: Judge,
    options: ScoreOptions,
) -> Iterator[_Batch]:
    for start in range(0, len(pixels), options.n_batch):
        part = slice(start, start + options.n_batch)
        images = judge.normalise(torch.from_numpy(np.stack(pixels[part])))
        metadata = stacked(rows[part])
        predicted = judge.probabilities(images, metadata).argmax(1)
        targets = np.where(np.less(places[part], 0), predicted, places[part])
        more = None if metadata is None else torch.from_numpy(metadata).to(judge.device)
        yield _Batch(images, more, torch.from_numpy(targets).to(judge.device))


def _maps(maker: HeatmapMaker, batches: Sequence[_Batch]) -> list[Heatmap]:
    return [raw[0] for batch in batches for raw in maker.maps(batch.images, batch.targets, metadata=batch.metadata).raw]

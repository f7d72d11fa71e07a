"""Whether the network needs what a map points at: pixels are taken away or put back by its order, and it answers again.

For each image all altered copies, of all scores, go to the device together with those of other images.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medtool.cam.score.cases import Case, Source, read_picture
from medtool.cam.score.imputation import LinearImputer
from medtool.cam.score.judge import Judge, stacked
from medtool.cam.score.metrics import Floats, Kind, Measured, Metric
from medtool.cam.score.options import ScoreOptions
from medtool.errors import InputError, reason_of
from medtool.heatmaps.resize import resize_heatmap
from medtool.images.reader import read_image
from medtool.protocols import Steps
from medtool.runs.preprocessing import prepared

if TYPE_CHECKING:
    from medtool.protocols import Heatmap

#: Shares of the pixels that ROAD takes away.
ROAD_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Of the blurred picture that pixels are taken from: standard deviation, as a share of the shorter side.
BLUR_SIGMA = 0.05

#: Name, and which direction is better.
METRICS = {
    "deletion_mean": "lower",
    "deletion_blur": "lower",
    "insertion_mean": "higher",
    "insertion_blur": "higher",
    "road_morf": "lower",
    "road_lerf": "higher",
    "road": "higher",
    "average_drop": "lower",
    "average_increase": "higher",
    "average_gain": "higher",
}


@dataclass(frozen=True)
class Ready:
    """One image and its map, ready to be altered.

    Attributes
    ----------
    image
        Shape ``(3, h, w)``, float32, normalised.
    order
        Shape ``(h, w)``, int32: 0 for the pixel where the map is highest, and so on.
    weight
        Shape ``(h, w)``, float32, 0 to 1: the map cut at 0, as a share of its peak.
    blurred
        Of the image's shape.
    filled
        Shape ``(2 × shares, 3, h, w)``: without the most relevant pixels, then without the least, as ROAD guesses them.
    place
        Of the class; -1 for the predicted one.
    """

    image: npt.NDArray[np.float32]
    order: npt.NDArray[np.int32]
    weight: Heatmap
    blurred: npt.NDArray[np.float32]
    filled: npt.NDArray[np.float32]
    metadata: npt.NDArray[np.float32] | None = None
    place: int = -1


def ready(
    image: npt.NDArray[np.float32],
    raw: Heatmap,
    *,
    imputer: LinearImputer,
    chance: np.random.Generator | None,
    metadata: npt.NDArray[np.float32] | None = None,
    place: int = -1,
) -> Ready:
    """Return an image with all that its altered copies are made from.

    Parameters
    ----------
    image
        Shape ``(3, h, w)``, float32, normalised.
    raw
        Shape ``(gh, gw)``: the map as it is stored. Its negative values order pixels too.
    chance
        Of ROAD's noise; None for none.
    """
    height, width = image.shape[1:]
    values = resize_heatmap(raw, (height, width))
    by_value = np.argsort(-values, axis=None, kind="stable")
    ranks = np.empty(values.size, np.int32)
    ranks[by_value] = np.arange(values.size, dtype=np.int32)
    order = ranks.reshape(values.shape)
    cut = np.maximum(values, 0)
    counts = [count_removed(values.size, share) for share in ROAD_SHARES]
    # The least relevant are counted from the other end.
    missing = [order < count for count in counts] + [order >= values.size - count for count in counts]
    filled = np.stack([imputer.fill(image, mask, chance=chance) for mask in missing])
    sigma = BLUR_SIGMA * min(height, width)
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    blurred = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32)
    return Ready(image, order, cut / cut.max(), blurred.transpose(2, 0, 1), filled, metadata, place)


def count_removed(n_pixels: int, share: float) -> int:
    """Return how many pixels are at or above the quantile that leaves a share above it, all values being different."""
    return n_pixels - int(np.ceil(round((n_pixels - 1) * (1 - share), 6)))


def altered(one: Ready, *, steps: int, device: torch.device) -> Tensor:
    """Return all altered copies of an image, ``(n, 3, h, w)``, in the order that :func:`scores_of` takes them in.

    The image itself, the image weighted by the map, ROAD's; then for each baseline the baseline, and for each step in
    between the image with the most relevant pixels taken from the baseline, and the baseline with them put back.
    """
    image = torch.from_numpy(one.image).to(device)
    order = torch.from_numpy(one.order).to(device)
    weight = torch.from_numpy(one.weight).to(device)
    copies = [image[None], (image * weight)[None], torch.from_numpy(one.filled).to(device)]
    counts = torch.tensor(_counts(order.numel(), steps)[1:-1], device=device)
    is_first = (order[None] < counts[:, None, None])[:, None]
    mean = image.mean((1, 2), keepdim=True).expand_as(image)
    for baseline in (mean, torch.from_numpy(np.ascontiguousarray(one.blurred)).to(device)):
        copies += [baseline[None], torch.where(is_first, baseline, image), torch.where(is_first, image, baseline)]
    return torch.cat(copies)


def _counts(n_pixels: int, steps: int) -> list[int]:
    return [round(n_pixels * step / steps) for step in range(steps + 1)]


def scores_of(p: Floats, *, steps: int) -> dict[str, float]:
    """Return an image's scores from the probabilities of its altered copies.

    ``road_morf`` and ``road_lerf`` are the mean probability without the most and the least relevant pixels, and
    ``road`` is half the difference. The average drop is the share of the probability that is lost when the image is
    weighted by the map, the average gain the share of what was missing to 1 that is won.

    References
    ----------
    Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018 (deletion,
    insertion); Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022 (ROAD);
    Chattopadhay et al., "Grad-CAM++", WACV 2018 (drop, increase); Zhang et al., "Opti-CAM", 2023 (gain).
    """
    whole, weighted = float(p[0]), float(p[1])
    n_shares = len(ROAD_SHARES)
    morf, lerf = p[2 : 2 + n_shares].mean(), p[2 + n_shares : 2 + 2 * n_shares].mean()
    found = {"road_morf": float(morf), "road_lerf": float(lerf), "road": float(lerf - morf) / 2}
    start = 2 + 2 * n_shares
    for name in ("mean", "blur"):
        baseline, between = p[start], p[start + 1 : start + 2 * steps - 1]
        deleted, inserted = between[: steps - 1], between[steps - 1 :]
        found[f"deletion_{name}"] = _area(np.array([whole, *deleted, baseline]))
        found[f"insertion_{name}"] = _area(np.array([baseline, *inserted, whole]))
        start += 2 * steps - 1
    found["average_drop"] = max(0.0, whole - weighted) / whole if whole > 0 else 0.0
    found["average_increase"] = float(weighted > whole)
    found["average_gain"] = max(0.0, weighted - whole) / (1 - whole) if whole < 1 else 0.0
    return found


def _area(curve: Floats) -> float:
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def faithfulness(
    source: Source, cases: Sequence[Case], judge: Judge, options: ScoreOptions, *, progress: Steps
) -> tuple[list[Measured], list[str]]:
    """Return the scores of one file's maps of some images, and why an image has none.

    Raises
    ------
    UsageError
        If the file does not say which class its maps speak for.
    """
    way = judge.preprocessing
    imputer = LinearImputer(way.height, way.width)
    found: dict[str, Floats] = {name: np.full(len(cases), np.nan) for name in METRICS}
    reasons = [""] * len(cases)

    def read(place: int) -> Ready | str:
        case = cases[place]
        try:
            pixels, raw = picture_and_map(source, case, judge)
            image = (pixels.astype(np.float32) - np.reshape(way.mean, (-1, 1, 1)) * 255) / np.reshape(
                np.multiply(way.std, 255), (-1, 1, 1)
            )
            chance = np.random.default_rng([options.seed, place_in_noise(case.image_id)])
            return ready(
                image.astype(np.float32),
                raw,
                imputer=imputer,
                chance=chance,
                metadata=judge.metadata_of(case),
                place=judge.place_of(source, case),
            )
        except (InputError, OSError) as error:
            return reason_of(error)

    for places, batch in _together(read, len(cases), options, of_one=_n_copies(options.steps)):
        good = [(place, one) for place, one in zip(places, batch, strict=True) if isinstance(one, Ready)]
        for place, one in zip(places, batch, strict=True):
            if isinstance(one, str):
                reasons[place] = one
        for (place, _), p in zip(good, _answers([one for _, one in good], judge, options), strict=True):
            if np.isfinite(p).all():
                for name, value in scores_of(p, steps=options.steps).items():
                    found[name][place] = value
            else:
                reasons[place] = "the network's output for it is not a finite number"
        for place in places:
            progress.advance(cases[place].image_id)
    measured = [Measured(Metric(name, Kind.FAITHFULNESS, better), found[name]) for name, better in METRICS.items()]
    return measured, reasons


def picture_and_map(source: Source, case: Case, judge: Judge) -> tuple[npt.NDArray[np.uint8], Heatmap]:
    """Return an image as the network sees it, ``uint8 (3, h, w)``, and its map as it is stored.

    Raises
    ------
    InputError
        If there is no map, it says nothing, or the image cannot be read or has changed.
    """
    picture = read_picture(case)
    source.check(case, picture)
    raw = source.map_of(case, judge.labels.known)
    assert case.path is not None
    return prepared(read_image(case.path).rgb, judge.preprocessing), raw


def place_in_noise(image_id: str) -> int:
    """Return a number that depends on an image's id alone."""
    return zlib.crc32(image_id.encode("utf-8", "surrogateescape"))


def _n_copies(steps: int) -> int:
    return 2 + 2 * len(ROAD_SHARES) + 2 * (2 * steps - 1)


def _together(
    read: Callable[[int], Ready | str], n: int, options: ScoreOptions, *, of_one: int
) -> Iterator[tuple[list[int], list[Ready | str]]]:
    """Yield images in groups whose copies fill whole batches as well as may be, read ahead by threads."""
    size = max(1, min(8, -(-options.n_batch // of_one)))
    with ThreadPoolExecutor(options.n_threads, thread_name_prefix="medtool-score") as pool:
        waiting: deque[tuple[list[int], list[Future[Ready | str]]]] = deque()
        starts = iter(range(0, n, size))
        ahead = 1 + -(-options.n_threads // size)
        try:
            while True:
                while len(waiting) < ahead and (start := next(starts, None)) is not None:
                    places = list(range(start, min(start + size, n)))
                    waiting.append((places, [pool.submit(read, place) for place in places]))
                if not waiting:
                    return
                places, futures = waiting.popleft()
                yield places, [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _answers(batch: Sequence[Ready], judge: Judge, options: ScoreOptions) -> list[Floats]:
    """Return for each image the probabilities of its class for its altered copies."""
    if not batch:
        return []
    copies = [altered(one, steps=options.steps, device=judge.device) for one in batch]
    rows = [
        None if one.metadata is None else np.repeat(one.metadata, len(images), axis=0)
        for one, images in zip(batch, copies, strict=True)
    ]
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    p = judge.probabilities(torch.cat(copies).contiguous(memory_format=layout), stacked(rows))
    found = []
    for one, images in zip(batch, copies, strict=True):
        own, p = p[: len(images)], p[len(images) :]
        place = one.place if one.place >= 0 else int(np.nan_to_num(own[0], nan=-1).argmax())
        found.append(own[:, place])
    return found

"""Whether the network needs what a map points at: pixels are taken away or put back by its order, and it answers again.

For each image all altered copies, of all scores, go to the device together with those of other images.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
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
from medtool.cam.score.kept import Kept, stamp_of
from medtool.cam.score.metrics import Floats, Kind, Measured, Metric
from medtool.cam.score.options import ScoreOptions
from medtool.errors import InputError, reason_of
from medtool.heatmaps.resize import resize_heatmap
from medtool.images.reader import read_image
from medtool.lineage import digest_of
from medtool.protocols import Steps
from medtool.runs.preprocessing import prepared

if TYPE_CHECKING:
    from medtool.protocols import Heatmap

#: Changes whenever the same network and map may get other scores.
VERSION = 1
#: Shares of the pixels that ROAD takes away.
ROAD_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Of the blurred picture that pixels are taken from: standard deviation, as a share of the shorter side.
BLUR_SIGMA = 0.05

_MOST_TOGETHER = 8  # images that are finished together
_NOT_FINITE = "the network's output for it is not a finite number"

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
    source: Source, cases: Sequence[Case], judge: Judge, options: ScoreOptions, *, kept: Kept, progress: Steps
) -> tuple[list[Measured], list[str]]:
    """Return the scores of one file's maps of some images, and why an image has none.

    Images that are finished together do not depend on what was kept, so that a call which goes on ends like one that
    was not interrupted.

    Raises
    ------
    UsageError
        If the file does not say which class its maps speak for.
    """
    work = _Work(source, judge, options)
    found: dict[str, Floats] = {name: np.full(len(cases), np.nan) for name in METRICS}
    reasons = [""] * len(cases)
    size = max(1, min(_MOST_TOGETHER, -(-options.n_batch // _n_copies(options.steps))))
    groups = [cases[start : start + size] for start in range(0, len(cases), size)]
    place = 0
    for group, rows in zip(groups, work.answers(groups, kept), strict=True):
        for case, row in zip(group, rows, strict=True):
            if isinstance(row, str):
                reasons[place] = row
            else:
                for name in METRICS:
                    found[name][place] = row[name]
            place += 1
            progress.advance(case.image_id)
    measured = [Measured(Metric(name, Kind.FAITHFULNESS, better), found[name]) for name, better in METRICS.items()]
    return measured, reasons


class _Work:
    """The way from groups of images to their scores."""

    def __init__(self, source: Source, judge: Judge, options: ScoreOptions) -> None:
        self._source, self._judge, self._options = source, judge, options
        self._imputer = LinearImputer(judge.preprocessing.height, judge.preprocessing.width)

    def answers(self, groups: Sequence[Sequence[Case]], kept: Kept) -> Iterator[list[dict[str, float] | str]]:
        """Yield for each image of a group its scores or why there are none; images are read ahead by threads."""
        threads = self._options.n_threads
        with ThreadPoolExecutor(threads, thread_name_prefix="medtool-score") as pool:
            waiting: deque[tuple[str, list[Future[Ready | str]] | None]] = deque()
            coming = iter(groups)
            ahead = 1 + -(-threads // max(map(len, groups), default=1))
            try:
                while True:
                    while len(waiting) < ahead and (group := next(coming, None)) is not None:
                        key = self._key(group)
                        is_kept = kept.get(key) is not None
                        waiting.append((key, None if is_kept else [pool.submit(self._read, case) for case in group]))
                    if not waiting:
                        return
                    key, futures = waiting.popleft()
                    earlier = kept.get(key)
                    if earlier is not None:
                        yield earlier["rows"]
                        continue
                    assert futures is not None
                    rows = self._scored([future.result() for future in futures])
                    kept.add(key, {"rows": rows})
                    yield rows
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _key(self, group: Sequence[Case]) -> str:
        """Return what decides the scores of a group: its images and maps, the network, and the options."""
        file, options = self._source.file, self._options
        facts = [
            *(str(VERSION), file.content_hash, self._source.target, self._judge.sha256, str(options.steps)),
            *(str(options.seed), options.device.partition(":")[0], options.precision, str(options.channels_last)),
        ]
        for case in group:
            cells = (f"{name}={value}" for name, value in sorted(case.columns.items()))
            facts.append("\0".join((case.image_id, stamp_of(case.path), *cells)))
        return digest_of([*facts, *sorted(self._source.refused)])

    def _read(self, case: Case) -> Ready | str:
        way = self._judge.preprocessing
        try:
            pixels, raw = picture_and_map(self._source, case, self._judge)
            mean, std = (np.reshape(np.multiply(each, 255), (-1, 1, 1)) for each in (way.mean, way.std))
            return ready(
                ((pixels - mean) / std).astype(np.float32),
                raw,
                imputer=self._imputer,
                chance=np.random.default_rng([self._options.seed, number_of(case.image_id)]),
                metadata=self._judge.metadata_of(case),
                place=self._judge.place_of(self._source, case),
            )
        except (InputError, OSError) as error:
            return reason_of(error)

    def _scored(self, batch: Sequence[Ready | str]) -> list[dict[str, float] | str]:
        answers = iter(_answers([one for one in batch if isinstance(one, Ready)], self._judge, self._options))
        rows: list[dict[str, float] | str] = []
        for one in batch:
            if isinstance(one, str):
                rows.append(one)
            else:
                p = next(answers)
                rows.append(scores_of(p, steps=self._options.steps) if np.isfinite(p).all() else _NOT_FINITE)
        return rows


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


def number_of(image_id: str) -> int:
    """Return a number that depends on an image's id alone, for noise that is the same in any company."""
    return zlib.crc32(image_id.encode("utf-8", "surrogateescape"))


def _n_copies(steps: int) -> int:
    return 2 + 2 * len(ROAD_SHARES) + 2 * (2 * steps - 1)


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

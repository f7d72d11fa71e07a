"""ROAD of real images by medtool and by pytorch-grad-cam (and Quantus, where it is installed), in one run.

    python benchmarks/faithfulness.py [--images 8] [--size 224] [--threads 2] [--folder FOLDER] [--weights FILE]

The network is timm's MobileNetV2, with the weights in ../shared/weights where they are, on images of ISIC 2017 in
../shared/data; both can be named. Maps are Grad-CAM's. Each side takes away the most relevant pixels, then the least,
a tenth to nine tenths of them, guesses them from the others, and asks the network for the probability of the class.
The noise is left out, so that the values must be the same. pytorch-grad-cam is spared the answer for the image as it
is, which it asks for anew each time. Of Quantus, whose ROAD counts right answers and takes no map of one channel for a
coloured image, it is the imputation, in the same loop.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from pytorch_grad_cam.metrics.perturbation_confidence import (
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import nn

from medtool.cam.maker import HeatmapMaker
from medtool.cam.score.faithfulness import ROAD_SHARES, ready
from medtool.cam.score.imputation import LinearImputer
from medtool.heatmaps.resize import resize_heatmap
from medtool.models import fill, load_state_dict
from medtool.runs.preprocessing import Preprocessing, read_picture

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOAL = 3
WITHIN = 1e-4

Floats = npt.NDArray[np.float32]


def by_medtool(network: nn.Module, images: Floats, raws: Floats, classes: list[int], threads: int) -> Floats:
    """Return (LeRF - MoRF) / 2 of each image."""
    imputer = LinearImputer(*images.shape[2:])

    def filled(image: Floats, raw: Floats) -> Floats:
        return ready(image, raw, imputer=imputer, chance=None).filled

    found = []
    with ThreadPoolExecutor(threads) as pool, torch.inference_mode():
        for copies, place in zip(pool.map(filled, images, raws), classes, strict=True):
            batch = torch.from_numpy(copies).contiguous(memory_format=torch.channels_last)
            found.append(network(batch).softmax(1)[:, place].numpy())
    p = np.stack(found)
    n = len(ROAD_SHARES)
    return (p[:, n:].mean(1) - p[:, :n].mean(1)) / 2


def by_peer(network: nn.Module, images: Floats, raws: Floats, classes: list[int]) -> Floats:
    """Return the same by pytorch-grad-cam, image by image all at once as it takes them."""
    maps = np.stack([resize_heatmap(raw, images.shape[2:]) for raw in raws])
    targets = [ClassifierOutputSoftmaxTarget(place) for place in classes]
    tensor = torch.from_numpy(images)
    means = []
    for kind in (RemoveLeastRelevantFirst, RemoveMostRelevantFirst):
        scores = []
        for share in ROAD_SHARES:
            remove = kind(round(100 * (1 - share)), NoisyLinearImputer(noise=0))
            scores.append(PerturbationConfidenceMetric(remove)(tensor, maps, targets, network, return_diff=False))
        means.append(np.mean(scores, axis=0))
    return (means[0] - means[1]) / 2


def by_quantus(network: nn.Module, images: Floats, raws: Floats, classes: list[int]) -> Floats:
    """Return the same with the imputation of Quantus."""
    from quantus.functions.perturb_func import noisy_linear_imputation

    found = []
    for image, raw, place in zip(images, raws, classes, strict=True):
        order = np.argsort(-resize_heatmap(raw, image.shape[1:]), axis=None, kind="stable")
        copies = []
        for ends in (order[::-1], order):
            for share in ROAD_SHARES:
                count = len(order) - int(np.ceil(round((len(order) - 1) * (1 - share), 6)))
                copies.append(noisy_linear_imputation(image, ends[:count], noise=0))
        with torch.inference_mode():
            p = network(torch.from_numpy(np.stack(copies).astype(np.float32))).softmax(1)[:, place].numpy()
        n = len(ROAD_SHARES)
        found.append((p[:n].mean() - p[n:].mean()) / 2)
    return np.array(found, np.float32)


def timed(work: Callable[[], Floats]) -> tuple[Floats, float, float]:
    """Return what a function gives, the seconds it took, and those of the processors."""
    wall, processors = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - processors


def main() -> int:
    """Measure and print; the exit status is 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=SHARED / "data" / "isic2017" / "images")
    weights = SHARED / "weights" / "mobilenetv2_100_imagenetnorm_in1k_fp16.safetensors"
    parser.add_argument("--weights", type=Path, default=weights)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    network = timm.create_model("mobilenetv2_100", pad_type="same").eval()
    fill(network, load_state_dict(given.weights), path=given.weights, what="mobilenetv2_100")
    way = Preprocessing(given.size, given.size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    paths = sorted(given.folder.iterdir())[: given.images]
    pixels = np.stack([read_picture(path, way)[0] for path in paths]).astype(np.float32) / 255
    mean, std = (np.array(each, np.float32).reshape(3, 1, 1) for each in (way.mean, way.std))
    images = (pixels - mean) / std
    maps = HeatmapMaker(network, ["bn2"], is_channels_last=False).maps(torch.from_numpy(images))
    # Equal values are taken all together by the one and one by one by the others: let there be none.
    raws = maps.raw[:, 0] + 1e-4 * np.ptp(maps.raw) * np.random.default_rng(0).random(maps.raw[:, 0].shape)
    # By the peak, since the one sorts 1 minus the map, which rounds large values to equal ones.
    raws = (raws / np.abs(raws).max((1, 2), keepdims=True)).astype(np.float32)
    classes = maps.targets[:, 0].tolist()
    by_medtool(network, images[:1], raws[:1], classes[:1], 1)  # the first pass of a process is slower
    ours, ours_s, ours_cpu = timed(lambda: by_medtool(network, images, raws, classes, given.threads))
    sides = {"pytorch-grad-cam": lambda: by_peer(network, images, raws, classes)}
    try:
        import quantus  # noqa: F401

        sides["Quantus's imputation"] = lambda: by_quantus(network, images, raws, classes)
    except ImportError:
        print("Quantus is not installed, and left out")
    n = len(images)
    print(f"ROAD, {2 * len(ROAD_SHARES)} copies each of {n} images of {given.size} px, {given.threads} threads:")
    print(f"{'medtool':22} {ours_s / n:7.2f} s an image, {ours_cpu / n:7.2f} s of processors")
    holds = True
    for name, work in sides.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of theirs
            theirs, seconds, cpu = timed(work)
        apart = float(np.abs(theirs - ours).max())
        print(
            f"{name:22} {seconds / n:7.2f} s an image, {cpu / n:7.2f} s of processors: {seconds / ours_s:.1f} × and"
            f" {cpu / ours_cpu:.1f} × as long; values differ by at most {apart:.1e}"
        )
        holds &= seconds / ours_s >= GOAL and apart <= WITHIN
    print(f"goal: at least {GOAL} ×, values within {WITHIN}: {'holds' if holds else 'DOES NOT HOLD'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

"""SAM ViT-B on the CPU: medtool's segmenter beside segment-anything's SamPredictor, the same images in one run.

    python benchmarks/sam_vit_b.py [--images 3] [FOLDER OF IMAGES]

The claims: at least 1.7 times SamPredictor's speed from pixels to masks where the CPU has AMX or AVX512-BF16, and the
same masks: IoU ≥ 0.999 in fp32, ≥ 0.99 in bf16.

The weights are random, in the published format, because the comparison needs none better: both sides compute the same
function. Random weights make it harder, not easier, to agree: logits lie close to zero over large areas, where a small
error turns a pixel. An empty or a full mask would agree whatever happened, so only masks that cover 2–98% of the image
count, and the script says how many did. The seed gives such masks; no other was kept back.

The peer is SamPredictor as it comes, in float32. Its figures under ``torch.autocast`` in bfloat16 are printed too: what
a change of precision alone gains and costs. The variants take turns image by image, after one image to warm up, so that
other work on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from segment_anything import SamPredictor, sam_model_registry
from skimage import data
from torch import nn

from medtool.devices import has_fast_bf16
from medtool.images import read_image
from medtool.protocols import Candidates, Prompt
from medtool.segment.sam import SamVitB

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "isic2017-hires" / "images"
LEAST_SPEED = 1.7
LEAST_IOU = {"medtool fp32": 0.999, "medtool bf16": 0.99}
SEED = 905

Segment = Callable[[np.ndarray, Prompt], Candidates]


def random_sam() -> nn.Module:
    """Return segment-anything's ViT-B with random weights, position terms (zero from the start) included."""
    torch.manual_seed(SEED)
    network = sam_model_registry["vit_b"]()
    for name, parameter in network.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.2)
        elif "pos_embed" in name:
            nn.init.normal_(parameter, std=0.02)
    return network.eval()


def peer(network: nn.Module, *, autocast: bool) -> Segment:
    """Return SamPredictor as a function from pixels and prompt to masks."""
    predictor = SamPredictor(network)

    def segment(image: np.ndarray, prompt: Prompt) -> Candidates:
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            predictor.set_image(image)
        predictor.features = predictor.features.float()
        masks, scores, _ = predictor.predict(prompt.points, prompt.point_labels)
        return Candidates(masks, scores)

    return segment


def ours(checkpoint: Path, precision: str) -> Segment:
    """Return medtool's segmenter as a function from pixels and prompt to masks."""
    segmenter = SamVitB(weights=checkpoint, device="cpu", precision=precision)
    return lambda image, prompt: segmenter.segment(segmenter.embed(image), prompt)


def read_images(folder: Path | None, count: int) -> list[np.ndarray]:
    """Return the first images of a folder; without one, those that scikit-image ships."""
    if folder is None:
        return [np.ascontiguousarray(image) for image in (data.retina(), data.immunohistochemistry(), data.skin())][
            :count
        ]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    return [read_image(path).rgb for path in paths[:count]]


def prompt_for(image: np.ndarray, number: int) -> Prompt:
    """Return five positive points and a negative one, seeded."""
    height, width = image.shape[:2]
    random = np.random.default_rng([SEED, number])
    points = np.round(random.uniform(0.2, 0.8, (6, 2)) * (width - 1, height - 1))
    return Prompt(points, np.array([1, 1, 1, 1, 1, 0]), np.zeros((height, width), np.float32))


def main() -> int:
    """Compare, print, and return 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED if SHARED.is_dir() else None)
    parser.add_argument("--images", type=int, default=3)
    arguments = parser.parse_args()
    images = read_images(arguments.folder, arguments.images)
    network = random_sam()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "sam_vit_b_random.pth"
        torch.save(network.state_dict(), checkpoint)
        variants = {
            "SamPredictor": peer(network, autocast=False),
            "SamPredictor autocast": peer(network, autocast=True),
            "medtool fp32": ours(checkpoint, "fp32"),
            "medtool bf16": ours(checkpoint, "bf16"),
        }
    for segment in list(variants.values())[1:]:
        segment(images[0], prompt_for(images[0], 0))
    seconds = dict.fromkeys(variants, 0.0)
    agreement: dict[str, list[float]] = {name: [] for name in variants}
    for number, image in enumerate(images):
        prompt = prompt_for(image, number)
        wanted: np.ndarray | None = None
        for name, segment in variants.items():
            start = time.perf_counter()
            masks = segment(image, prompt).masks
            seconds[name] += time.perf_counter() - start
            wanted = masks if wanted is None else wanted
            for one, other in zip(masks, wanted, strict=True):
                if 0.02 <= other.mean() <= 0.98:
                    agreement[name].append(float((one & other).sum() / (one | other).sum()))
    counted, answered = len(agreement["SamPredictor"]), 3 * len(images)
    sizes = ", ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, fast bf16: {has_fast_bf16('cpu')}")
    print(f"{len(images)} images ({sizes}); {counted} of {answered} masks cover 2–98% and are compared")
    print(f"{'':22} {'s/image':>8} {'speed':>7} {'IoU min':>8} {'IoU mean':>8}")
    for name in variants:
        ratio = seconds["SamPredictor"] / seconds[name]
        least, mean = min(agreement[name]), np.mean(agreement[name])
        print(f"{name:22} {seconds[name] / len(images):8.2f} {ratio:6.2f}x {least:8.5f} {mean:8.5f}")
    is_as_fast = seconds["SamPredictor"] / seconds["medtool bf16"] >= LEAST_SPEED or not has_fast_bf16("cpu")
    is_equal = all(min(agreement[name]) >= least for name, least in LEAST_IOU.items()) and counted > answered // 2
    print("the claims hold" if is_as_fast and is_equal else "THE CLAIMS DO NOT HOLD")
    return 0 if is_as_fast and is_equal else 1


if __name__ == "__main__":
    sys.exit(main())

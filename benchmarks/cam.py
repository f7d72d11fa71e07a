"""Seconds of class-activation maps beside pytorch-grad-cam's, of equal maps, in one run.

    python benchmarks/cam.py [--families resnet50,...] [--batch-size 16] [--size 224] [--rounds 5] [--threads 2]

Both explain the same classes of the same batch by Grad-CAM, and both end with maps at the image's size, scaled to 0–1
by pytorch-grad-cam's own function. They take turns; the figure is the median over rounds of the ratio within a round.
It is given by the clock, and by the processor's time, which other programs on the machine disturb less; the latter
means most with one thread, as threads that wait may count as busy. Networks start from chance, with normalisations like
those of trained ones; with ../shared beside the checkout images are real, and so are MobileNetV2's weights.

Ablation-CAM is timed on few images, of a network whose layer has no values below 0, where both do the same.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytorch_grad_cam
import torch
from PIL import Image
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import load_file
from torch import Tensor, nn

from medtool.architectures.naming import architecture
from medtool.architectures.timm_backbone import TimmArchitecture, timm_architecture
from medtool.cam.choices import Method
from medtool.cam.layer import find_layers, grid_of
from medtool.cam.maker import HeatmapMaker

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "mobilenetv2_100_imagenetnorm_in1k_fp16.safetensors"
FAMILIES = "resnet50,mobilenetv2,efficientnet-b0,vit-b16,densenet121"
N_CLASSES = 1000
GOAL_FP32, LEAST_FP32, GOAL_BF16, GOAL_ABLATION = 4.0, 2.0, 6.0, 5.0
WITHIN, ALIKE = 1e-4, 0.999

Maps = np.ndarray


@dataclass
class Timed:
    """One peer's seconds, round by round, and its last maps."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    maps: Maps = field(default_factory=lambda: np.empty(0))
    raw: Maps = field(default_factory=lambda: np.empty(0))

    def run(self, make: Callable[[], tuple[Maps, Maps]]) -> None:
        """Make the maps once more."""
        processor, wall = time.process_time(), time.perf_counter()
        self.raw, self.maps = make()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)


def main() -> int:
    """Measure and print; the exit status is 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--families", default=FAMILIES)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="as torch has them if 0")
    parser.add_argument("--ablation-images", type=int, default=1, help="0: no Ablation-CAM")
    parser.add_argument("--ablation-rounds", type=int, default=2)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    images = pictures(given.batch_size, given.size)
    print(f"batch {given.batch_size} at {given.size} px, {torch.get_num_threads()} threads, {given.rounds} rounds")
    print(f"{'network':16}{'peer s':>9}{'fp32 s':>9}{'bf16 s':>9}   ratio by clock (by processor): fp32, bf16")
    ratios = [gradcam(name, images, given.rounds) for name in given.families.split(",")]
    is_well = verdict(ratios)
    if given.ablation_images:
        is_well &= ablation(images[: given.ablation_images], given.ablation_rounds)
    return 0 if is_well else 1


@dataclass(frozen=True)
class Ratios:
    """How many times faster than the peer, by the clock and by the processor; and whether maps are equal."""

    fp32: tuple[float, float]
    bf16: tuple[float, float]
    is_equal: bool


def gradcam(name: str, images: Tensor, rounds: int) -> Ratios:
    """Time Grad-CAM by one network, and print a line."""
    network, layer = trained(name, images)
    targets = network(images).argmax(1)
    peer_network, _ = trained(name, images)
    peer_network.load_state_dict(network.state_dict())
    theirs = peer(pytorch_grad_cam.GradCAM, peer_network, layer, images, targets)
    ours = {
        precision: medtool(HeatmapMaker(network, [layer], precision=precision), images, targets)
        for precision in ("fp32", "bf16")
    }
    timed = {"peer": Timed(), "fp32": Timed(), "bf16": Timed()}
    for turn in range(rounds + 1):
        if turn == 1:  # the first of a process is slower
            timed = {each: Timed() for each in timed}
        timed["peer"].run(theirs)
        for precision, make in ours.items():
            timed[precision].run(make)
    peaks = np.abs(timed["peer"].raw).max((1, 2), keepdims=True)
    apart = float((np.abs(timed["fp32"].raw - timed["peer"].raw) / peaks).max())
    apart_scaled = float(np.abs(timed["fp32"].maps - timed["peer"].maps).max())
    pairs = zip(timed["fp32"].raw, timed["bf16"].raw, strict=True)
    alike = statistics.median(float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) for one, other in pairs)
    of = {
        precision: (
            ratio(timed["peer"].wall, timed[precision].wall),
            ratio(timed["peer"].processor, timed[precision].processor),
        )
        for precision in ours
    }
    seconds = "".join(f"{statistics.median(each.wall):9.2f}" for each in timed.values())
    print(
        f"{name:16}{seconds}   {of['fp32'][0]:.2f} ({of['fp32'][1]:.2f}), {of['bf16'][0]:.2f} ({of['bf16'][1]:.2f});"
        f" fp32 differs by {apart:.0e} of the peak, scaled by {apart_scaled:.0e}; bf16 correlates {alike:.5f}",
        flush=True,
    )
    is_alike = alike >= ALIKE or not is_real(name)  # of chance, maps are differences of nearly equal sums
    return Ratios(of["fp32"], of["bf16"], apart <= WITHIN and is_alike)


def verdict(ratios: list[Ratios]) -> bool:
    """Print the medians over networks beside their goals, and return whether all is reached, by the better measure."""
    fp32 = [statistics.median(each.fp32[place] for each in ratios) for place in (0, 1)]
    bf16 = [statistics.median(each.bf16[place] for each in ratios) for place in (0, 1)]
    least = [min(each.fp32[place] for each in ratios) for place in (0, 1)]
    print(
        f"median fp32 {fp32[0]:.2f} ({fp32[1]:.2f}), goal {GOAL_FP32};"
        f" least {least[0]:.2f} ({least[1]:.2f}), goal {LEAST_FP32}"
    )
    print(f"median bf16 {bf16[0]:.2f} ({bf16[1]:.2f}), goal {GOAL_BF16}")
    return (
        max(fp32) >= GOAL_FP32
        and max(least) >= LEAST_FP32
        and max(bf16) >= GOAL_BF16
        and all(each.is_equal for each in ratios)
    )


def ablation(images: Tensor, rounds: int) -> bool:
    """Time Ablation-CAM by a ResNet-50, print a line, and return whether the goal is reached with equal maps."""
    network, layer = trained("resnet50", images)
    targets = network(images).argmax(1)
    peer_network, _ = trained("resnet50", images)
    theirs = peer(pytorch_grad_cam.AblationCAM, peer_network, layer, images, targets)
    ours = medtool(HeatmapMaker(network, [layer], method=Method.ABLATIONCAM), images, targets)
    one, other = Timed(), Timed()
    for _ in range(rounds):
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar an image
            one.run(theirs)
        other.run(ours)
    peaks = np.abs(one.raw).max((1, 2), keepdims=True)
    apart = float((np.abs(other.raw - one.raw) / peaks).max())
    of = ratio(one.wall, other.wall), ratio(one.processor, other.processor)
    print(
        f"Ablation-CAM, resnet50, {len(images)} images: {statistics.median(one.wall):.2f} s,"
        f" medtool {statistics.median(other.wall):.2f} s, ratio {of[0]:.1f} ({of[1]:.1f}), goal {GOAL_ABLATION};"
        f" differs by {apart:.0e} of the peak"
    )
    return max(of) >= GOAL_ABLATION and apart <= 1e-2  # a channel's fall is the difference of nearly equal answers


def ratio(theirs: list[float], ours: list[float]) -> float:
    """Return the median over rounds of how many times faster ours is."""
    return statistics.median(one / other for one, other in zip(theirs, ours, strict=True))


def peer(
    kind: type, network: nn.Module, layer: str, images: Tensor, targets: Tensor
) -> Callable[[], tuple[Maps, Maps]]:
    """Return a function that makes maps with pytorch-grad-cam: before it scales them, and its result."""
    module = find_layers(network, [layer])[layer]
    shapes: list[tuple[int, ...]] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        network(images)
    handle.remove()
    grid = grid_of(network, layer, shapes[0], (images.shape[2], images.shape[3]))
    asked = [ClassifierOutputTarget(target) for target in targets.tolist()]
    raw: list[Maps] = []

    def make() -> tuple[Maps, Maps]:
        with kind(network, [module], reshape_transform=grid.maps_of) as cam:
            compute = cam.get_cam_image

            def kept(*arguments: object, **named: object) -> Maps:
                raw[:] = [compute(*arguments, **named)]
                return raw[0]

            cam.get_cam_image = kept
            whole = cam(images, asked)
            del cam.get_cam_image
        return raw[0], whole

    return make


def medtool(maker: HeatmapMaker, images: Tensor, targets: Tensor) -> Callable[[], tuple[Maps, Maps]]:
    """Return a function that makes maps with medtool, and scales them as pytorch-grad-cam does."""
    size = (images.shape[3], images.shape[2])

    def make() -> tuple[Maps, Maps]:
        raw = maker.maps(images, targets).raw[:, 0]
        return raw, scale_cam_image(scale_cam_image(np.maximum(raw, 0), size))

    return make


def trained(name: str, images: Tensor) -> tuple[nn.Module, str]:
    """Return a network as it could be after training, and its layer."""
    torch.manual_seed(905)
    made: TimmArchitecture = architecture(name) if "/" not in name else timm_architecture(name.partition("/")[2])  # type: ignore[assignment]
    if made.input.size != tuple(images.shape[2:]):
        made = made.at_size((images.shape[2], images.shape[3]))
    network = made.build(num_classes=N_CLASSES).eval()
    if is_real(name):
        network.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS).items()})
        return network, made.cam_layer
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    # What the normalisations have seen.
    with torch.no_grad():
        network.train()(images)
    return network.eval(), made.cam_layer


def is_real(name: str) -> bool:
    """Return whether there are weights of a network."""
    return name == "mobilenetv2" and WEIGHTS.is_file()


def pictures(n: int, size: int) -> Tensor:
    """Return images as networks take them: dermoscopy if it is there, else noise."""
    paths = sorted((SHARED / "data" / "isic2017" / "images").glob("*.jpg"))[:n]
    if len(paths) < n:
        return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))
    found = []
    for path in paths:
        with Image.open(path) as image:
            found.append(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)))
    pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean[:, None, None]) / std[:, None, None]


if __name__ == "__main__":
    sys.exit(main())

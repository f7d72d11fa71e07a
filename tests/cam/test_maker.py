"""Raw maps equal pytorch-grad-cam's, of every family; what is odd stays with its image; the network stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import Tensor, nn

from medtool.architectures.fusion import FusionNetwork
from medtool.cam.choices import BY_GRADIENT, Method, Target
from medtool.cam.maker import HeatmapMaker, by_peak, flags_of
from medtool.errors import UnknownNameError, UsageError
from medtool.heatmaps.format import Flag
from tests.cam.networks import KINDS, images, network, peer_maps, trained_mobilenetv2
from tests.conftest import SHARED

WITHIN = 1e-4
WEIGHTS = SHARED / "weights" / "mobilenetv2_100_imagenetnorm_in1k_fp16.safetensors"
GRADIENT_METHODS = sorted(BY_GRADIENT)


def maker(kind: str, method: Method = Method.GRADCAM, *, num_classes: int = 5, **options: object) -> HeatmapMaker:
    return HeatmapMaker(network(kind, num_classes), [KINDS[kind].layer], method=method, **options)


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference, as a share of the largest value of each map."""
    peaks = np.abs(theirs).max((1, 2), keepdims=True)
    assert (peaks > 0).all()
    return float((np.abs(ours - theirs) / peaks).max())


def scaled(raw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return scale_cam_image(scale_cam_image(np.maximum(raw, 0), size[::-1]))


@pytest.mark.parametrize("method", GRADIENT_METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_maps_equal_those_of_pytorch_grad_cam(kind: str, method: Method) -> None:
    pictures, targets = images(), [0, 3, 1]
    theirs, whole = peer_maps(method, network(kind), KINDS[kind].layer, pictures, targets)

    ours = maker(kind, method).maps(pictures, torch.tensor(targets)).raw[:, 0]

    assert apart(ours, theirs) < WITHIN
    assert np.abs(scaled(ours, (96, 96)) - whole).max() < WITHIN


@pytest.fixture(scope="session")
def lesions(shared_data: Path) -> Tensor:
    """Return eight real pictures as ImageNet's networks take them."""
    found = []
    for path in sorted((shared_data / "isic2017" / "images").glob("*.jpg"))[:8]:
        with Image.open(path) as image:
            found.append(np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)))
    pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean[:, None, None]) / std[:, None, None]


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    if not WEIGHTS.is_file():
        pytest.skip("needs the weights in ../shared/weights")
    return trained_mobilenetv2(WEIGHTS)


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_maps_of_real_images_by_real_weights_equal_those_of_pytorch_grad_cam(
    trained: nn.Module, lesions: Tensor, method: Method
) -> None:
    few = lesions[:2]
    targets = trained(few).argmax(1).tolist()
    theirs, whole = peer_maps(method, trained, "bn2", few, targets)

    ours = HeatmapMaker(trained, ["bn2"], method=method).maps(few).raw[:, 0]

    assert apart(ours, theirs) < WITHIN
    assert np.abs(scaled(ours, (224, 224)) - whole).max() < WITHIN


def test_bfloat16_changes_maps_of_real_images_by_next_to_nothing(trained: nn.Module, lesions: Tensor) -> None:
    targets = trained(lesions).argmax(1)
    exact, short = (
        HeatmapMaker(trained, ["bn2"], precision=precision).maps(lesions, targets).raw.reshape(8, -1)
        for precision in ("fp32", "bf16")
    )

    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(exact, short, strict=True)]

    assert np.median(correlations) >= 0.999
    assert min(correlations) >= 0.995
    assert not np.array_equal(exact, short)


@pytest.mark.parametrize("kind", ["resnet", "mobilenetv2", "vit", "swin"])
def test_eigencam_equals_that_of_pytorch_grad_cam_but_for_its_free_sign(kind: str) -> None:
    theirs, _ = peer_maps(Method.EIGENCAM, network(kind), KINDS[kind].layer, images(), [0, 0, 0])

    ours = maker(kind, Method.EIGENCAM).maps(images()).raw[:, 0]

    signs = np.sign((ours * theirs).sum((1, 2), keepdims=True))
    assert apart(ours, signs * theirs) < WITHIN


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("method", [Method.GRADCAM, Method.XGRADCAM, Method.ABLATIONCAM])
def test_a_single_logit_speaks_for_its_class_and_its_negative_for_the_other(kind: str, method: Method) -> None:
    one = maker(kind, method, num_classes=1)
    found = one.maps(images(), Target.ALL)

    assert found.targets.tolist() == [[0, 1]] * 3
    assert apart(-found.raw[:, 0], found.raw[:, 1]) < 1e-6
    if method is Method.GRADCAM:
        theirs, _ = peer_maps(method, network(kind, 1), KINDS[kind].layer, images(), [0, 1, 0])
        ours = one.maps(images(), torch.tensor([0, 1, 0]))
        assert apart(ours.raw[:, 0], theirs) < WITHIN
    predicted = one.maps(images(), Target.PREDICTED)
    assert predicted.targets[:, 0].tolist() == (predicted.logits[:, 0] > 0).astype(int).tolist()


def test_all_classes_at_once_are_the_classes_one_by_one() -> None:
    every = maker("resnet").maps(images(), Target.ALL)

    assert every.raw.shape[:2] == (3, 5)
    for target in range(5):
        alone = maker("resnet").maps(images(), torch.full((3,), target))
        assert np.array_equal(every.raw[:, target], alone.raw[:, 0])
        assert (alone.targets == target).all()


def test_without_a_class_the_predicted_one_is_explained() -> None:
    found = maker("efficientnet").maps(images())

    assert found.targets[:, 0].tolist() == found.logits.argmax(1).tolist()
    assert np.array_equal(found.raw, maker("efficientnet").maps(images(), torch.from_numpy(found.targets)).raw)
    assert np.allclose(found.logits, network("efficientnet")(images()).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("method", [*GRADIENT_METHODS, Method.EIGENCAM, Method.SCORECAM, Method.ABLATIONCAM])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_what_is_no_number_is_flagged_and_does_not_spread(method: Method, bad: float) -> None:
    pictures = images().clone()
    pictures[1, :, 20:40, 30:60] = bad
    make = maker("resnet", method, num_classes=2)

    found = make.maps(pictures, torch.tensor([1, 0, 1]))

    clean = make.maps(images(), torch.tensor([1, 0, 1]))
    assert found.flags[1, 0] >= Flag.INFINITE
    assert (found.raw[1] == 0).all()
    assert np.array_equal(found.raw[[0, 2]], clean.raw[[0, 2]])
    assert np.array_equal(found.flags[[0, 2]], clean.flags[[0, 2]])


@pytest.mark.parametrize("method", [Method.EIGENGRADCAM, Method.RANDOMCAM, Method.REFINECAM])
def test_an_image_that_is_no_number_does_not_stop_methods_of_the_peer(method: Method) -> None:
    pictures = images().clone()
    pictures[1] = float("nan")

    found = maker("resnet", method, num_classes=2).maps(pictures, torch.tensor([1, 0, 1]))

    assert found.flags[:, 0].tolist().count(Flag.NOT_A_NUMBER) == 1
    assert found.flags[1, 0] == Flag.NOT_A_NUMBER
    assert (found.raw[1] == 0).all()
    assert (found.raw[[0, 2]] != 0).any((1, 2, 3)).all()


def test_flags_name_the_worst_that_holds() -> None:
    ramp = torch.linspace(0.1, 1, 6).reshape(2, 3)
    maps = torch.stack(
        [ramp, -ramp, ramp * 0 + 3, ramp * 1e-7 + 3, ramp * 0, ramp / 0 * ramp, ramp * torch.nan, ramp - 0.5]
    )[None]

    flags = flags_of(maps, torch.zeros(1, 2))[0].tolist()

    assert flags == [
        Flag.NONE,
        Flag.NEGATIVE,
        Flag.CONSTANT,
        Flag.CONSTANT,
        Flag.ZERO,
        Flag.INFINITE,
        Flag.NOT_A_NUMBER,
        Flag.NONE,
    ]
    assert flags_of(maps, torch.tensor([[torch.inf, 0]]))[0, :6].tolist() == [Flag.INFINITE] * 6
    assert flags_of(maps, torch.tensor([[torch.nan, 0]]))[0].tolist() == [Flag.NOT_A_NUMBER] * 8


def test_several_layers_are_averaged_each_by_its_own_peak_at_the_finest_grid() -> None:
    alone = [
        HeatmapMaker(network("resnet"), [name]).maps(images(), torch.zeros(3)[:, None].long()).raw
        for name in ("layer4", "layer3")
    ]

    both = HeatmapMaker(network("resnet"), ["layer4", "layer3"])
    found = both.maps(images(), torch.zeros(3, dtype=torch.int64)).raw

    deep, fine = (by_peak(torch.from_numpy(each)) for each in alone)
    larger = torch.nn.functional.interpolate(deep, fine.shape[2:], mode="bilinear")
    assert deep.shape[2] < fine.shape[2]
    assert np.allclose(found, (larger + fine) / 2, atol=1e-5)
    assert both.grid_for((96, 96)) == fine.shape[2:]
    assert both.layers == ("layer4", "layer3")


def test_a_network_is_left_as_it_was_also_after_a_failure() -> None:
    net = network("resnet", 2)
    net.layer1[0].conv1.weight.requires_grad_(False)
    was = {name: (value.requires_grad, value.clone()) for name, value in net.named_parameters()}
    for method in (
        Method.GRADCAM,
        Method.ABLATIONCAM,
        Method.SCORECAM,
        Method.EIGENCAM,
        Method.FULLGRAD,
        Method.FINERCAM,
    ):
        maker("resnet", method, num_classes=2).maps(images()[:1])
        with pytest.raises(UsageError, match="targets must be classes 0–1, not 7"):
            maker("resnet", method, num_classes=2).maps(images(), torch.tensor([0, 7, 1]))
    failing = net.fc.register_forward_pre_hook(lambda *_: 1 / 0)
    for method in (Method.GRADCAM, Method.ABLATIONCAM):
        with pytest.raises(ZeroDivisionError):
            maker("resnet", method, num_classes=2).maps(images())
    failing.remove()

    assert not [name for name, module in net.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    assert not [name for name, module in net.named_modules() if "forward" in vars(module)]
    for name, value in net.named_parameters():
        assert value.grad is None
        assert value.requires_grad is was[name][0]
        assert torch.equal(value, was[name][1])
    net.layer1[0].conv1.weight.requires_grad_(True)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_maps_are_the_same_whatever_the_caller_records(context: type) -> None:
    expected = maker("vit").maps(images()).raw
    with context():
        pictures = images().clone()
        if context is torch.enable_grad:
            pictures.requires_grad_()
        found = maker("vit").maps(pictures).raw

    assert np.array_equal(found, expected)
    assert pictures.grad is None


@pytest.mark.parametrize("method", [Method.GRADCAM, Method.ABLATIONCAM, Method.SCORECAM, Method.FINERCAM])
def test_a_network_of_images_and_metadata_gives_each_image_its_own(method: Method) -> None:
    torch.manual_seed(3)
    image = network("efficientnet", 256)
    fused = FusionNetwork(image, num_classes=3, n_metadata=4).eval()
    # So that metadata decide which of the image's features count.
    mixed = _Mixed(fused)
    metadata = torch.randn(3, 4)
    make = HeatmapMaker(mixed, ["fused.image.bn2"], method=method, chunk=500)

    together = make.maps(images(), torch.tensor([0, 1, 2]), metadata=metadata)

    for place in range(3):
        rows = slice(place, place + 1)
        alone = make.maps(images()[rows], torch.tensor([place]), metadata=metadata[rows])
        assert apart(together.raw[rows, 0], alone.raw[:, 0]) < 1e-5
        assert np.allclose(together.logits[rows], mixed(images()[rows], metadata[rows]).detach(), atol=1e-5)
    swapped = make.maps(images(), torch.tensor([0, 1, 2]), metadata=metadata.flip(0))
    assert apart(swapped.raw[:1, 0], together.raw[:1, 0]) > 1e-4
    assert make.grid_for((96, 96), metadata=metadata) == together.raw.shape[2:]
    assert np.allclose(make.logits(images(), metadata=metadata), together.logits, atol=1e-5)


class _Mixed(nn.Module):
    """A fusion network whose answer is bent by the metadata, so that gradients depend on them too."""

    def __init__(self, fused: FusionNetwork) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, pictures: Tensor, metadata: Tensor) -> Tensor:
        return self.fused(pictures, metadata).tanh() * metadata[:, :3]


def test_nothing_before_the_layer_is_recorded() -> None:
    net = network("resnet")
    seen: dict[str, bool] = {}
    handles = [
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.update({name: output.requires_grad})
        )
        for name, module in net.named_modules()
        if name
    ]
    HeatmapMaker(net, ["layer3"]).maps(images())
    for handle in handles:
        handle.remove()

    before = {name for name in seen if not name.startswith(("layer4", "global_pool", "fc"))} - {"layer3"}
    assert not [name for name in before if seen[name]]
    assert seen["layer4"]
    assert seen["fc"]


def test_the_grid_is_told_beforehand_for_every_method() -> None:
    for method in (Method.GRADCAM, Method.EIGENCAM, Method.REFINECAM, Method.ROLLOUT):
        make = maker("vit", method)
        assert make.grid_for((96, 96)) == make.maps(images()).raw.shape[2:]


def test_a_layer_that_is_not_there_or_gives_no_map_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="layer4"):
        HeatmapMaker(network("resnet"), ["layer5"])
    with pytest.raises(UsageError, match="named twice"):
        HeatmapMaker(network("resnet"), ["layer4", "layer4"])
    with pytest.raises(UsageError, match="none is named"):
        HeatmapMaker(network("resnet"), [])
    with pytest.raises(UsageError, match=r"the layer fc gives .3, 5. for images of 96×96 pixels: no map of them"):
        HeatmapMaker(network("resnet"), ["fc"]).maps(images())
    with pytest.raises(UsageError, match="answer does not depend on the layer beside"):
        HeatmapMaker(_Beside(), ["beside"]).maps(images())
    with pytest.raises(UsageError, match="the layer idle does not run"):
        HeatmapMaker(_Beside(), ["idle"]).maps(images())


class _Beside(nn.Module):
    """A network with a layer that its answer does not depend on, and one that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.beside, self.idle = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 3, 2)

    def forward(self, pictures: Tensor) -> Tensor:
        self.beside(pictures)
        return self.body(pictures).relu().mean((2, 3))

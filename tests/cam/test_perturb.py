"""Ablation-CAM and Score-CAM: what the formulas say, and what pytorch-grad-cam makes of them where it follows these."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medtool.cam.choices import Method
from medtool.cam.layer import find_layers, grid_of
from medtool.cam.maker import HeatmapMaker
from tests.cam.networks import KINDS, images, network, peer_maps
from tests.cam.test_maker import apart

TARGETS = [0, 3, 1]


def test_ablationcam_is_that_of_pytorch_grad_cam_where_the_layer_has_no_value_below_0() -> None:
    theirs, _ = peer_maps(Method.ABLATIONCAM, network("resnet"), "layer4", images(), TARGETS)

    made = HeatmapMaker(network("resnet"), ["layer4"], method=Method.ABLATIONCAM, chunk=100).maps(
        images(), torch.tensor(TARGETS)
    )

    # It divides by the answer with its sign, so that its maps are turned over where that is below 0.
    signs = np.sign(made.logits[range(3), TARGETS])[:, None, None]
    assert (signs < 0).any()
    assert apart(made.raw[:, 0], signs * theirs) < 1e-3


@pytest.mark.parametrize("kind", ["vit", "swin", "convnext"])
def test_ablationcam_sets_each_channel_to_0_in_the_whole_network(kind: str) -> None:
    net, layer = network(kind), KINDS[kind].layer
    module, picture = find_layers(net, [layer])[layer], images()[1:2]
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        before = net(picture)[0, 3]
    handle.remove()
    grid = grid_of(net, layer, tuple(outputs[0].shape), (96, 96))
    activations = grid.maps_of(outputs[0])[0]
    falls = []
    for channel in range(len(activations)):
        changed = outputs[0].clone()
        changed.movedim(1 if kind == "convnext" else -1, 0)[channel] = 0
        handle = module.register_forward_hook(lambda _module, _inputs, _output, changed=changed: changed.clone())
        with torch.no_grad():
            falls.append((before - net(picture)[0, 3]) / before.abs())
        handle.remove()
    expected = torch.einsum("chw,c->hw", activations, torch.stack(falls)).numpy()

    found = HeatmapMaker(net, [layer], method=Method.ABLATIONCAM, chunk=7).maps(picture, torch.tensor([3])).raw[:, 0]

    assert apart(found, expected[None]) < 1e-3


def test_scorecam_is_that_of_pytorch_grad_cam_but_that_its_masks_are_not_stretched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in ("resnet", "vit"):
        layer, few, targets = KINDS[kind].layer, images()[:2], [2, 4]
        stretched, _ = peer_maps(Method.SCORECAM, network(kind), layer, few, targets)
        with monkeypatch.context() as patched:
            patched.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size=size, mode="bilinear"))
            straight, _ = peer_maps(Method.SCORECAM, network(kind), layer, few, targets)

        found = HeatmapMaker(network(kind), [layer], method=Method.SCORECAM).maps(few, torch.tensor(targets)).raw[:, 0]

        assert apart(found, straight) < 1e-4
        assert apart(found, stretched) > 1e-4


@pytest.mark.parametrize("method", [Method.ABLATIONCAM, Method.SCORECAM])
def test_maps_do_not_depend_on_how_many_channels_pass_at_once(method: Method) -> None:
    found = [
        HeatmapMaker(network("vit"), [KINDS["vit"].layer], method=method, chunk=chunk).maps(images()[:2]).raw[:, 0]
        for chunk in (1, 23, 1000)
    ]

    assert apart(found[1], found[0]) < 1e-3
    assert apart(found[2], found[0]) < 1e-3


def test_a_channel_that_is_0_everywhere_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 2)
            self.passed: list[int] = []

        def forward(self, pictures: Tensor) -> Tensor:
            values = self.layer(pictures)
            self.passed.append(len(values))
            return self.head(values.mean((2, 3)))

    torch.manual_seed(1)
    net = Half().eval()
    with torch.no_grad():
        net.layer.weight[::2] = 0
        net.layer.bias[::2] = 0
    make = HeatmapMaker(net, ["layer"], method=Method.ABLATIONCAM, chunk=3)
    make.maps(images()[:1])
    net.passed.clear()

    made = make.maps(images()[:1])

    assert net.passed[-2:] == [3, 1]
    assert made.flags.tolist() == [[0]]

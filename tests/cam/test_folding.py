"""Convolutions take over normalisations only where that changes nothing, and only while a batch passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medtool.cam.folding import SHORT_SUM, Folding, find_folding, in_float32
from medtool.cam.layer import find_layers
from medtool.cam.maker import HeatmapMaker
from tests.cam.networks import KINDS, images, network

SIZE = (1, 3, 32, 32)


def found(net: nn.Module, *layers: str) -> Folding:
    return find_folding(net, net, find_layers(net, layers), SIZE)


def names(net: nn.Module, folding: Folding) -> set[tuple[str, str]]:
    known = {module: name for name, module in net.named_modules()}
    return {(known[convolution], known[normalisation]) for convolution, normalisation in folding.pairs}


@pytest.mark.parametrize(
    ("kind", "n_pairs"), [("resnet", 15), ("mobilenetv2", 52), ("efficientnet", 13), ("densenet", 9), ("vit", 0)]
)
def test_the_folded_network_answers_the_same(kind: str, n_pairs: int) -> None:
    net, layer = network(kind), KINDS[kind].layer
    folding = find_folding(net, net, find_layers(net, [layer]), (1, 3, 96, 96))
    with torch.no_grad():
        plain = net(images())
        with folding.applied():
            folded = net(images())

    n_normalisations = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert len(folding.pairs) <= n_normalisations
    assert len(folding.pairs) == n_pairs
    assert torch.allclose(plain, folded, rtol=1e-4, atol=1e-5)
    assert torch.equal(net(images()), plain)


class _Net(nn.Module):
    """Convolutions and normalisations in every relation to one another."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.plain_bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.seen, self.seen_bn = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.twice, self.twice_bn = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.biased, self.biased_bn = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8, affine=False)
        self.between, self.act, self.between_bn = nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8)
        self.last, self.last_bn = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, pictures: Tensor) -> Tensor:
        values = self.plain_bn(self.plain(pictures)).relu()
        seen = self.seen(values)
        values = self.seen_bn(seen).relu() + self.extra(seen)
        values = self.twice_bn(self.twice(self.twice_bn(self.twice(values))))
        values = self.biased_bn(self.biased(values))
        values = self.between_bn(self.act(self.between(values)))
        return self.head(self.last_bn(self.last(values)).mean((2, 3)))

    def extra(self, seen: Tensor) -> Tensor:
        return 0 * seen


class _Looking(_Net):
    def extra(self, seen: Tensor) -> Tensor:
        return seen


def made(kind: type[_Net]) -> _Net:
    torch.manual_seed(1)
    net = kind().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


def test_pairs_are_those_that_follow_one_another_and_run_once() -> None:
    net = made(_Net)

    assert names(net, found(net)) == {("plain", "plain_bn"), ("seen", "seen_bn"), ("last", "last_bn")}
    # What a layer gives stays as it is; what comes behind it may be folded.
    assert names(net, found(net, "plain", "seen_bn")) == {("seen", "seen_bn"), ("last", "last_bn")}


def test_a_network_that_also_looks_at_what_the_convolution_gives_is_left_alone() -> None:
    net = made(_Looking)

    assert found(net).pairs == ()


def test_a_convolution_whose_weights_are_computed_is_left_alone() -> None:
    net = made(_Net)
    nn.utils.parametrizations.weight_norm(net.last)

    assert found(net).pairs == ()
    assert net(images(1, (32, 32))).isfinite().all()


def test_maps_follow_weights_that_change_under_a_maker() -> None:
    net = made(_Net)
    make = HeatmapMaker(net, ["seen_bn"])
    before = make.maps(images(1, (32, 32)), torch.tensor([1])).raw
    with torch.no_grad():
        net.plain.weight.data.mul_(-1)
        net.seen_bn.bias.data.add_(1)

    after = make.maps(images(1, (32, 32)), torch.tensor([1])).raw

    fresh = HeatmapMaker(net, ["seen_bn"]).maps(images(1, (32, 32)), torch.tensor([1])).raw
    assert np.array_equal(after, fresh)
    assert not np.allclose(after, before)


def test_what_a_network_held_is_back_afterwards_also_after_a_failure() -> None:
    net = made(_Net)
    folding = found(net)
    own = {name: id(value) for name, value in net.named_parameters()}

    with pytest.raises(ZeroDivisionError), folding.applied(), in_float32(net):
        raise ZeroDivisionError

    assert {name: id(value) for name, value in net.named_parameters()} == own
    assert not [name for name, module in net.named_modules() if "forward" in vars(module)]


def test_only_short_sums_are_computed_in_float32() -> None:
    net = made(_Net)
    seen: dict[str, torch.dtype] = {}
    for name in ("plain", "seen"):
        module = getattr(net, name)
        module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output.dtype}))
    with torch.no_grad(), in_float32(net), torch.autocast("cpu", torch.bfloat16):
        net(images(1, (32, 32)))

    assert net.plain.weight[0].numel() < SHORT_SUM <= net.seen.weight[0].numel()
    assert seen == {"plain": torch.float32, "seen": torch.bfloat16}

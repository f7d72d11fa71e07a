"""Batch norms folded into convolutions: the same logits, and nothing folded that does not belong together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medtool.runs.folding import fold_batch_norms


def norms_in(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def used(network: nn.Module) -> nn.Module:
    """Return the network as if it had been trained: no batch norm is what it was at the start."""
    generator = torch.Generator().manual_seed(1)
    for norm in norms_in(network):
        with torch.no_grad():
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.normal_(0, 0.1, generator=generator)
    return network.eval()


def logits_of(network: nn.Module) -> Tensor:
    images = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return network(images)


@pytest.mark.parametrize(
    ("name", "n_norms", "n_left"), [("mobilenetv2_100", 52, 0), ("resnet10t", 14, 0), ("densenet121", 121, 62)]
)
def test_logits_stay_and_batch_norms_behind_convolutions_go(name: str, n_norms: int, n_left: int) -> None:
    import timm

    torch.manual_seed(0)
    network = used(timm.create_model(name, num_classes=3))
    before = logits_of(network)
    assert len(norms_in(network)) == n_norms
    assert fold_batch_norms(network) == n_norms - n_left
    assert len(norms_in(network)) == n_left
    assert before.std() > 1e-4
    torch.testing.assert_close(logits_of(network), before, rtol=1e-3, atol=1e-4)


class Twice(nn.Module):
    """A convolution and a batch norm that are used in ways which folding would change."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.own = nn.Conv2d(3, 3, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        out = self.first(images)
        if self.kind == "both ways":
            return self.norm(out) + out
        if self.kind == "one norm twice":
            return self.norm(self.own(self.norm(out)))
        if self.kind == "one convolution twice":
            return self.norm(self.first(out))
        if self.kind == "weights elsewhere":
            return self.norm(out) * self.first.weight.sum()
        if self.kind == "by its data" and out.sum() > 1e9:
            return out
        return self.norm(out)


class Centred(nn.Conv2d):
    """A convolution that uses other weights than it has."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize(
    "kind", ["both ways", "one norm twice", "one convolution twice", "weights elsewhere", "by its data"]
)
def test_what_is_used_otherwise_too_stays(kind: str) -> None:
    network = used(Twice(kind))
    before = logits_of(network)
    assert fold_batch_norms(network) == 0
    torch.testing.assert_close(logits_of(network), before, rtol=0, atol=0)


def test_a_convolution_of_a_class_of_its_own_stays() -> None:
    network = used(nn.Sequential(Centred(3, 4, 3), nn.BatchNorm2d(4)))
    before = logits_of(network)
    assert fold_batch_norms(network) == 0
    torch.testing.assert_close(logits_of(network), before, rtol=0, atol=0)


def test_a_norm_without_statistics_or_weights_of_its_own_keeps_the_logits() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 4, 3, bias=False)]
    network = nn.Sequential(*layers, nn.BatchNorm2d(4, affine=False)).eval()
    before = logits_of(network)
    assert fold_batch_norms(network) == 1
    torch.testing.assert_close(logits_of(network), before, rtol=1e-4, atol=1e-5)

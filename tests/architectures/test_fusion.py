"""A fused network learns from image and metadata, on any backbone that keeps the contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from medtool.architectures.fusion import IMAGE_WIDTH, FusionArchitecture
from medtool.architectures.naming import architecture
from medtool.architectures.timm_backbone import timm_architecture
from medtool.errors import UsageError
from medtool.protocols import InputSpec

FUSED = FusionArchitecture(timm_architecture("test_resnet"), metadata=("age", "sex"))


class Plugin:
    licence = "MIT"
    citation = "nobody"
    input = InputSpec(size=(16, 16))
    cam_layer = "0"

    def build(self, *, num_classes: int, in_channels: int = 3, pretrained: Path | None = None) -> nn.Module:
        convolution = nn.Conv2d(in_channels, 4, 3)
        return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


@pytest.mark.parametrize("base", [FUSED.base, Plugin()], ids=["timm", "plugin"])
def test_logits_depend_on_the_image_and_on_each_column(base) -> None:
    torch.manual_seed(905)
    network = FusionArchitecture(base).build(num_classes=3, n_metadata=5).eval()
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    metadata = torch.randn(2, 5, requires_grad=True)

    logits = network(images, metadata)
    logits[:, 0].sum().backward()

    assert logits.shape == (2, 3)
    assert (images.grad != 0).any()
    assert (metadata.grad != 0).any(dim=0).all()


def test_every_parameter_is_trained() -> None:
    torch.manual_seed(905)
    network = FUSED.build(num_classes=2, n_metadata=4).train()

    loss = network(torch.randn(4, 3, 64, 64), torch.randn(4, 4)).square().sum()
    loss.backward()

    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_the_layers_for_metadata_are_those_of_the_design() -> None:
    network = FUSED.build(num_classes=2, n_metadata=7)

    linear = [(layer.in_features, layer.out_features) for layer in network.metadata if isinstance(layer, nn.Linear)]
    assert linear == [(7, 128), (128, 64)]
    assert network.classifier.in_features == IMAGE_WIDTH + 64
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
    assert [type(layer) for layer in network.metadata] == kinds * 2


def test_metadata_that_decide_the_answer_are_learnt_from_noise_images() -> None:
    torch.manual_seed(905)
    network = FUSED.build(num_classes=2, n_metadata=2).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    metadata = torch.randn(64, 2)
    answers = (metadata[:, 1] > 0).long()

    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(torch.randn(64, 3, 32, 32), metadata), answers).backward()
        optimizer.step()

    network.eval()
    with torch.no_grad():
        right = (network(torch.randn(64, 3, 32, 32), metadata).argmax(dim=1) == answers).float().mean()
    assert right > 0.9


def test_the_cam_layer_and_the_input_are_the_bases_own() -> None:
    network = FUSED.build(num_classes=2, n_metadata=1)

    assert network.get_submodule(FUSED.cam_layer) is network.image.get_submodule(FUSED.base.cam_layer)
    assert FUSED.input == replace(FUSED.base.input, metadata=("age", "sex"))
    assert (FUSED.licence, FUSED.citation) == (FUSED.base.licence, FUSED.base.citation)


def test_weights_of_the_base_are_taken(tmp_path: Path) -> None:
    source = FUSED.base.build(num_classes=7)
    torch.save(source.state_dict(), tmp_path / "weights.pth")

    network = FUSED.build(num_classes=2, pretrained=tmp_path / "weights.pth", n_metadata=1)

    taken = network.image.state_dict()
    body = {name: value for name, value in source.state_dict().items() if not name.startswith("fc.")}
    assert all(torch.equal(taken[name], value) for name, value in body.items())


def test_without_metadata_nothing_is_fused() -> None:
    with pytest.raises(UsageError, match="metadata of width 1 or more, not 0"):
        architecture("fusion/mobilenetv2").build(num_classes=2)


def test_what_takes_metadata_already_is_not_fused_again() -> None:
    with pytest.raises(UsageError, match="takes views or metadata by itself"):
        FusionArchitecture(FUSED)

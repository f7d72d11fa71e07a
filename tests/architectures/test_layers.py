"""Parameters come from the stem to the head, each one once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medtool.architectures.fusion import FusionArchitecture
from medtool.architectures.layers import layer_groups
from medtool.architectures.naming import architecture
from medtool.architectures.timm_backbone import timm_architecture


def network_of(name: str) -> nn.Module:
    with torch.device("meta"):
        return architecture(name).build(num_classes=3)


def names_of(network: nn.Module) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [[names[id(parameter)] for parameter in group] for _, group in layer_groups(network)]


@pytest.mark.parametrize(
    ("name", "count", "second", "head"),
    [
        ("resnet50", 18, "layer1.0", {"fc.weight", "fc.bias"}),
        ("mobilenetv2", 19, "blocks.0", {"classifier.weight", "classifier.bias"}),
        ("efficientnet-b0", 18, "blocks.0", {"classifier.weight", "classifier.bias"}),
        ("vit-b16", 14, "blocks.0", {"head.weight", "head.bias"}),
        ("swin-t", 14, "layers.0.blocks.0", {"head.fc.weight", "head.fc.bias"}),
        ("densenet121", 60, "features.denseblock1.denselayer1", {"classifier.weight", "classifier.bias"}),
        ("convnext-tiny", 20, "stages.0.blocks.0", {"head.fc.weight", "head.fc.bias"}),
    ],
)
def test_timms_blocks_come_one_by_one(name: str, count: int, second: str, head: set[str]) -> None:
    network = network_of(name)
    groups = layer_groups(network)

    assert [groups[0][0], groups[1][0], groups[-1][0]] == ["stem", second, "head"]
    assert len(groups) == count
    assert len({label for label, _ in groups}) == count
    assert head <= set(names_of(network)[-1])
    assert sorted(name for group in names_of(network) for name in group) == sorted(
        name for name, _ in network.named_parameters()
    )


def test_any_other_network_is_taken_by_its_children_with_sequences_apart() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(3))
            self.first = nn.Conv2d(3, 4, 1)
            self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 1)))
            self.last = nn.Linear(4, 2)
            self.tied = self.last

    assert [label for label, _ in layer_groups(Net())] == ["stem", "body.0", "body.2", "head"]
    assert names_of(Net()) == [
        ["position", "first.weight", "first.bias"],
        ["body.0.weight", "body.0.bias"],
        ["body.2.0.weight", "body.2.0.bias"],
        ["last.weight", "last.bias"],
    ]


def test_a_block_that_is_called_head_is_not_taken_for_the_head() -> None:
    with torch.device("meta"):
        labels = [label for label, _ in layer_groups(timm_architecture("selecsls42").build(num_classes=2))]

    assert labels[-2:] == ["head.0", "head"]


def test_a_single_layer_is_the_head_and_no_layer_no_group() -> None:
    assert [label for label, _ in layer_groups(nn.Linear(2, 2))] == ["head"]
    assert layer_groups(nn.ReLU()) == []


def test_the_way_from_the_metadata_is_part_of_a_fused_networks_head() -> None:
    fused = FusionArchitecture(timm_architecture("test_resnet")).build(num_classes=2, n_metadata=3)
    groups, names = layer_groups(fused), names_of(fused)

    assert groups[0][0] == "stem"
    assert groups[1][0].startswith("image.")
    assert {name.split(".")[0] for name in names[-1]} == {"image", "metadata", "classifier"}
    assert "image.fc.weight" in names[-1]
    assert sum(len(group) for _, group in groups) == len(list(fused.parameters()))

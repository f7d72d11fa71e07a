"""The layer for heatmaps is found by rule in networks of every kind, or its lack is said."""

from __future__ import annotations

import pytest
import torch

from medtool.architectures.timm_backbone import timm_architecture
from medtool.errors import UsageError


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("regnetx_002", "s4"),
        ("vgg11", "features.20"),
        ("mobilenetv3_small_050", "blocks.5"),
        ("ghostnet_050", "blocks"),
        ("rexnet_100", "features"),
        ("dm_nfnet_f0", "final_act"),
        ("hrnet_w18_small", "final_layer"),
        ("resnetv2_50", "norm"),
        ("deit_tiny_patch16_224", "blocks.11.norm1"),
        ("swinv2_tiny_window8_256", "layers.3.blocks.1.norm2"),
        ("levit_128s", "stages.2"),
        ("crossvit_tiny_240", None),
        ("mambaout_femto", "stages.3"),
        ("twins_svt_small", "norm"),
        ("sequencer2d_s", "stages.3"),
        ("volo_d1_224", "network.4"),
        ("tnt_s_patch16_224", None),
    ],
)
def test_the_rule_names_the_layer_that_a_reader_of_the_network_would(name: str, layer: str | None) -> None:
    if layer is not None:
        assert timm_architecture(name).cam_layer == layer
        return
    with pytest.raises(UsageError, match=f"timm/{name} has no layer that heatmaps can be taken from") as caught:
        timm_architecture(name)
    assert "medtool plugins new" in str(caught.value.hint)


def test_looking_for_the_layer_draws_no_random_number() -> None:
    torch.manual_seed(905)
    before = torch.random.get_rng_state()

    timm_architecture("resnet18")

    assert torch.equal(torch.random.get_rng_state(), before)

"""Attention rollout follows the formula, for whatever the transformer classifies by, and refuses other networks."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from medtool.cam.choices import Method, Target
from medtool.cam.maker import HeatmapMaker
from medtool.cam.rollout import rollout
from medtool.errors import UsageError
from tests.cam.networks import images, network

PICTURES = images(2, (64, 64))
TINY = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3}


def made(name: str, **options: object) -> nn.Module:
    torch.manual_seed(3)
    net: nn.Module = timm.create_model(name, num_classes=4, **{**TINY, **options})
    for parameter in net.parameters():
        if parameter.ndim > 1:  # fresh attention is all but even
            nn.init.normal_(parameter, std=0.15)
    return net.eval()


def by_formula(net: nn.Module, pictures: Tensor) -> Tensor:
    """Return the product of the blocks' attentions, taken from unfused attention by its own modules."""
    kept: list[Tensor] = []
    handles = []
    for block in net.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda _module, _inputs, output: kept.append(output)))
    with torch.no_grad():
        net(pictures)
    for handle, block in zip(handles, net.blocks, strict=True):
        handle.remove()
        block.attn.fused_attn = True
    n_tokens = kept[0].shape[-1]
    flow = torch.eye(n_tokens)
    for attention in kept:
        mixed = 0.5 * attention.mean(1) + 0.5 * torch.eye(n_tokens)
        flow = mixed / mixed.sum(-1, keepdim=True) @ flow
    return flow


@pytest.mark.parametrize(
    ("name", "options", "rows", "n_prefix"),
    [
        ("deit_tiny_patch16_224", {}, [0], 1),
        ("deit_tiny_distilled_patch16_224", {}, [0, 1], 2),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}, list(range(16)), 0),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}, list(range(1, 17)), 1),
        ("vit_tiny_patch16_224", {"reg_tokens": 4}, [0], 5),
        ("vit_tiny_patch16_224", {"qk_norm": True}, [0], 1),
    ],
)
def test_the_map_is_the_row_of_what_the_network_classifies_by(
    name: str, options: dict[str, object], rows: list[int], n_prefix: int
) -> None:
    net = made(name, **options)
    expected = by_formula(net, PICTURES)[:, rows, n_prefix:].mean(1).reshape(2, 4, 4)

    for is_fused in (True, False):
        for block in net.blocks:
            block.attn.fused_attn = is_fused
        found, logits = rollout(net, net, PICTURES)

        assert torch.allclose(found, expected, atol=1e-6)
        assert torch.allclose(logits, net(PICTURES), atol=1e-5)
    assert float(found.std()) > 1e-3 * float(found.mean())


def test_pooling_by_attention_and_class_attention_are_followed() -> None:
    pooled = made("vit_tiny_patch16_224", global_pool="map", class_token=False)
    assert rollout(pooled, pooled, PICTURES)[0].shape == (2, 4, 4)
    cait = made("cait_xxs24_224")
    found, _ = rollout(cait, cait, PICTURES)
    assert found.shape == (2, 4, 4)
    assert (found > 0).all()
    assert (found.sum((1, 2)) < 1).all()  # the rest is what the class token looks at of itself


def test_relative_positions_and_rotated_queries_are_part_of_the_attention() -> None:
    for name, options in (
        ("test_vit_relpos", {}),
        ("beit_base_patch16_224", TINY),
        ("eva02_tiny_patch14_224", {**TINY, "img_size": 56}),
    ):
        size = 56 if "eva" in name else 160 if "test" in name else 64
        net = timm.create_model(name, num_classes=3, **options).eval()
        found, _ = rollout(net, net, images(2, (size, size)))
        assert found.sum((1, 2)) == pytest.approx(torch.ones(2), abs=0.2)


def test_every_class_has_the_same_map_of_each_image_alone() -> None:
    make = HeatmapMaker(network("vit"), [], method=Method.ROLLOUT)
    pictures = images().clone()
    pictures[1] = torch.nan
    together = make.maps(pictures, Target.ALL)
    alone = make.maps(images()[2:], Target.PREDICTED)

    assert make.layers == ()
    assert np.array_equal(together.raw[:, 0], together.raw[:, 4])
    assert np.allclose(together.raw[2, 0], alone.raw[0, 0], atol=1e-7)
    assert (together.flags[1] > 0).all()
    assert (together.flags[[0, 2]] == 0).all()


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet", {}, 96),
        ("swin", {}, 96),
        ("xcit_nano_12_p16_224", {"img_size": 64}, 64),
        ("pvt_v2_b0", {}, 64),
        ("mixer_s32_224", {"img_size": 64}, 64),
    ],
)
def test_networks_that_do_not_attend_from_patch_to_patch_are_refused(
    name: str, options: dict[str, object], size: int
) -> None:
    is_ours = name in {"resnet", "swin"}
    net = network(name) if is_ours else timm.create_model(name, num_classes=3, **options).eval()

    with pytest.raises(UsageError, match="needs a vision transformer"):
        rollout(net, net, images(2, (size, size)))

"""What a layer gives lies over the image where the network put it: of any family, size and number of prefix tokens."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from medtool.architectures.cam_layer import outputs_of
from medtool.architectures.naming import architecture
from medtool.architectures.timm_backbone import timm_architecture
from medtool.cam.choices import Method
from medtool.cam.layer import Grid, find_layers, finest, grid_of, resized
from medtool.cam.maker import HeatmapMaker
from medtool.errors import UnknownNameError, UsageError
from tests.cam.networks import images, network

PLAIN = {"embed_dim": 48, "depth": 2, "num_heads": 3}


def shown(net: nn.Module, layer: str, pictures: Tensor) -> tuple[Grid, Tensor]:
    """Return the grid of a layer and what it gives, as maps."""
    kept: list[Tensor] = []
    handle = find_layers(net, [layer])[layer].register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        net(pictures)
    handle.remove()
    grid = grid_of(net, layer, tuple(kept[-1].shape), (pictures.shape[2], pictures.shape[3]))
    return grid, grid.maps_of(kept[-1])


def most_changed(net: nn.Module, layer: str, size: tuple[int, int], place: tuple[float, float]) -> tuple[float, float]:
    """Return where, as shares of height and width, a layer's maps change most if the image changes at a place."""
    picture = images(1, size)
    changed = picture.clone()
    top, left = (int(share * side) - side // 16 for share, side in zip(place, size, strict=True))
    changed[:, :, top : top + size[0] // 8, left : left + size[1] // 8] += 3
    grid, before = shown(net, layer, picture)
    _, after = shown(net, layer, changed)
    row, column = divmod(int((after - before).double().square().sum(1)[0].argmax()), grid.width)
    return (row + 0.5) / grid.height, (column + 0.5) / grid.width


def assert_not_shifted(net: nn.Module, layer: str, size: tuple[int, int]) -> None:
    grid, _ = shown(net, layer, images(1, size))
    for place in ((0.2, 0.8), (0.8, 0.3)):
        found = most_changed(net, layer, size, place)
        apart = [abs(one - other) * cells for one, other, cells in zip(found, place, grid.size, strict=True)]
        assert max(apart) <= 1.5, (place, found, grid)


#: (name, options, size, cells, prefix tokens)
TOKENS = [
    ("vit_tiny_patch16_224", {**PLAIN, "img_size": 64}, (64, 64), (4, 4), 1),
    ("vit_tiny_patch16_224", {**PLAIN, "img_size": (64, 96)}, (64, 96), (4, 6), 1),
    (
        "vit_tiny_patch16_224",
        {**PLAIN, "img_size": (96, 64), "class_token": False, "global_pool": "avg"},
        (96, 64),
        (6, 4),
        0,
    ),
    ("vit_tiny_patch16_224", {**PLAIN, "img_size": 64, "reg_tokens": 4}, (64, 64), (4, 4), 5),
    ("vit_tiny_patch16_224", {**PLAIN, "img_size": 64, "dynamic_img_size": True}, (80, 112), (5, 7), 1),
    (
        "vit_tiny_patch16_224",
        {**PLAIN, "img_size": 64, "dynamic_img_pad": True, "dynamic_img_size": True},
        (70, 100),
        (5, 7),
        1,
    ),
    ("deit_tiny_distilled_patch16_224", {**PLAIN, "img_size": 64}, (64, 64), (4, 4), 2),
    ("eva02_tiny_patch14_224", {**PLAIN, "img_size": (56, 84)}, (56, 84), (4, 6), 1),
    ("beit_base_patch16_224", {**PLAIN, "img_size": (64, 96)}, (64, 96), (4, 6), 1),
    ("cait_xxs24_224", {**PLAIN, "img_size": 64}, (64, 64), (4, 4), 0),
]


@pytest.mark.parametrize(("name", "options", "size", "cells", "n_prefix"), TOKENS)
def test_tokens_lie_where_their_patches_do(
    name: str, options: dict[str, object], size: tuple[int, int], cells: tuple[int, int], n_prefix: int
) -> None:
    torch.manual_seed(1)
    net = timm.create_model(name, num_classes=2, **options).eval()
    layer = "blocks.1.norm1"

    grid, _ = shown(net, layer, images(1, size))

    assert (grid.size, grid.n_prefix) == (cells, n_prefix)
    assert_not_shifted(net, layer, size)


SWIN = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}


@pytest.mark.parametrize(
    ("name", "options", "layer", "size", "cells"),
    [
        (
            "swin_tiny_patch4_window7_224",
            {**SWIN, "img_size": (64, 96), "window_size": 4},
            "layers.1.blocks.1.norm2",
            (64, 96),
            (8, 12),
        ),
        (
            "swin_tiny_patch4_window7_224",
            {**SWIN, "img_size": (64, 96), "window_size": 4},
            "layers.1.blocks.1",
            (64, 96),
            (8, 12),
        ),
        (
            "swin_tiny_patch4_window7_224",
            {**SWIN, "img_size": (64, 96), "window_size": 4},
            "layers.0",
            (64, 96),
            (16, 24),
        ),
        (
            "swinv2_tiny_window8_256",
            {**SWIN, "img_size": 64, "window_size": 4},
            "layers.1.blocks.1",
            (64, 64),
            (8, 8),
        ),
        ("test_convnext", {}, "stages.3", (96, 160), (3, 5)),
        ("test_resnet", {}, "layer4", (97, 145), (4, 5)),
        ("test_resnet", {}, "layer2", (75, 131), (10, 17)),
        ("test_efficientnet", {}, "bn2", (99, 65), (4, 3)),
        ("mobilenetv2_050", {"pad_type": "same"}, "bn2", (97, 161), (4, 6)),
        ("test_vit_relpos", {"img_size": 96}, "blocks.8.norm1", (96, 96), (6, 6)),
        ("hiera_tiny_224", {"img_size": 96, "embed_dim": 48}, "blocks.11.norm1", (96, 96), (3, 3)),
    ],
)
def test_maps_lie_where_the_network_saw_them_at_odd_and_oblong_sizes(
    name: str, options: dict[str, object], layer: str, size: tuple[int, int], cells: tuple[int, int]
) -> None:
    torch.manual_seed(1)
    net = timm.create_model(name, num_classes=2, **options).eval()

    grid, maps = shown(net, layer, images(1, size))

    assert grid.size == cells
    assert tuple(maps.shape[2:]) == cells
    assert_not_shifted(net, layer, size)


def test_tokens_that_are_out_of_order_are_refused() -> None:
    net = timm.create_model("hiera_tiny_224", num_classes=2, img_size=96, embed_dim=48).eval()

    with pytest.raises(UsageError, match=r"the layer blocks\.1\.norm1 gives .* no map of them"):
        shown(net, "blocks.1.norm1", images(1, (96, 96)))


def test_shifting_the_image_by_a_patch_shifts_the_map_by_a_cell() -> None:
    """Of a network that sees each patch alone, in which nothing but the place can change the map."""

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.layer, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 2)

        def forward(self, pictures: Tensor) -> Tensor:
            return self.head(self.layer(pictures).relu().mean((2, 3)))

    make = HeatmapMaker(Patches().eval(), ["layer"])
    pictures = torch.zeros(2, 3, 48, 64)
    pictures[0, :, 8:16, 24:32] = images(1, (8, 8))[0]
    pictures[1, :, 16:24, 32:40] = images(1, (8, 8))[0]

    first, second = torch.from_numpy(make.maps(pictures, torch.tensor([1, 1])).raw[:, 0])

    assert first.shape == (6, 8)
    assert torch.allclose(first.roll((1, 1), (0, 1)), second, atol=1e-6)
    assert int((first - first[0, 0]).abs().argmax()) == 1 * 8 + 3


def test_a_bright_object_is_hot_where_it_is() -> None:
    net = network("resnet")
    for layer in ("layer1", "layer2"):
        picture = torch.zeros(1, 3, 96, 160)
        picture[:, :, 10:40, 110:150] = 2
        found = torch.from_numpy(
            HeatmapMaker(net, [layer], method=Method.HIRESCAM).maps(picture, torch.tensor([0])).raw[0]
        )
        enlarged = resized(found[None], (96, 160))[0, 0].abs()
        quiet = enlarged[48:, :80].mean()
        assert enlarged[10:40, 110:150].mean() > 3 * quiet


#: One of each of timm's families whose last features are maps or tokens, the smallest there is.
FAMILIES = """
beit_base_patch16_224 botnet26t_256 cait_xxs24_224 coatnet_nano_rw_224 convit_tiny convmixer_768_32
convnext_atto cspresnet50 davit_tiny deit_tiny_distilled_patch16_224 deit_tiny_patch16_224 densenet121 dla34
edgenext_xx_small efficientformer_l1 efficientnet_b0 efficientvit_b0 ese_vovnet19b_dw eva02_tiny_patch14_224
fasternet_t0 fastvit_t8 focalnet_tiny_srf gernet_s ghostnet_050 gmlp_ti16_224 hgnetv2_b0 hiera_tiny_224
hrnet_w18_small inception_next_atto lambda_resnet26t levit_128s mambaout_femto maxvit_nano_rw_256 mixer_s32_224
mnasnet_small mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small mobilevit_xxs mvitv2_tiny
poolformer_s12 pvt_v2_b0 regnetx_002 regnety_002 repvit_m0_9 res2net50_14w_8s resmlp_12_224 resnet18 resnetv2_50
rexnet_100 sequencer2d_s starnet_s1 swin_tiny_patch4_window7_224 swinv2_cr_tiny_ns_224 swinv2_tiny_window8_256
tf_efficientnet_b0 twins_svt_small vgg11 visformer_tiny vit_relpos_small_patch16_224
vit_small_patch14_reg4_dinov2 vit_tiny_patch16_224 volo_d1_224 xception41 xcit_nano_12_p16_224
"""


@pytest.mark.parametrize("name", FAMILIES.split())
def test_every_family_of_timm_has_a_layer_whose_cells_are_counted(name: str) -> None:
    made = timm_architecture(name)
    net, shapes = outputs_of(made.build, made.input.size)

    grid = grid_of(net, made.cam_layer, shapes[made.cam_layer], made.input.size)

    n_cells = grid.height * grid.width
    if len(shapes[made.cam_layer]) == 3:
        assert n_cells + grid.n_prefix == shapes[made.cam_layer][1]
        assert grid.n_prefix <= 5
    assert grid.height == grid.width  # as the image is
    assert made.input.size[0] / 64 <= grid.height <= made.input.size[0] / 4
    assert tuple(grid.maps_of(torch.empty(shapes[made.cam_layer], device="meta")).shape[2:]) == grid.size


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("resnet50", (7, 7)),
        ("mobilenetv2", (7, 7)),
        ("efficientnet-b0", (7, 7)),
        ("vit-b16", (14, 14)),
        ("swin-t", (7, 7)),
        ("densenet121", (7, 7)),
        ("convnext-tiny", (7, 7)),
    ],
)
def test_each_built_in_architecture_has_its_grid(name: str, cells: tuple[int, int]) -> None:
    made = architecture(name)
    net, shapes = outputs_of(made.build, made.input.size)

    assert grid_of(net, made.cam_layer, shapes[made.cam_layer], made.input.size).size == cells


def test_names_of_layers_are_checked_and_the_nearest_is_told() -> None:
    net = network("vit")
    assert list(find_layers(net, ["blocks.5.norm1", "norm"])) == ["blocks.5.norm1", "norm"]
    with pytest.raises(UnknownNameError, match=r"blocks\.5\.norm1") as caught:
        find_layers(net, ["blocks.5.nrom1"])
    assert "blocks" in str(caught.value)
    with pytest.raises(UsageError, match="named twice"):
        find_layers(net, ["norm", "norm"])


@pytest.mark.parametrize("shape", [(1, 5), (1, 64, 1, 1), (1, 44, 64), (1, 64, 9, 2, 3), (1, 64, 40, 3)])
def test_what_is_no_map_of_the_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="no map of them"):
        grid_of(network("vit"), "blocks.0", shape, (96, 96))


def test_channels_that_could_be_cells_are_told_apart_by_their_shape_or_by_what_the_network_says() -> None:
    shape = (2, 12, 12, 12)

    assert not grid_of(network("resnet"), "layer1", shape, (96, 96)).is_channels_last
    assert grid_of(network("swin"), "layers.1", shape, (96, 96)).is_channels_last
    # Inside a ConvNeXt the channels are last; 32 of them are no columns of an image of this shape.
    inner = grid_of(network("convnext"), "stages.1.blocks.0.norm", (1, 12, 20, 32), (96, 160))
    assert inner == Grid(12, 20, is_channels_last=True)


def test_maps_are_resized_about_the_centres_of_their_cells() -> None:
    ramp = torch.linspace(0, 1, 8)[None, None, None].expand(1, 1, 4, 8)

    smaller = resized(ramp, (2, 4))[0, 0, 0]
    larger = resized(ramp, (8, 16))[0, 0, 0]

    assert torch.allclose(smaller + smaller.flip(0), torch.ones(4), atol=1e-6)
    assert torch.allclose(larger + larger.flip(0), torch.ones(16), atol=1e-6)
    assert resized(ramp, (4, 8)) is ramp
    assert finest([(7, 7), (14, 4), (3, 9)]) == (14, 4)

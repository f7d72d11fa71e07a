"""A network of timm reads weights from disk alone, and says what of a file does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from medtool.architectures.builtin import MOBILENETV2, SWIN_T, VIT_B16
from medtool.architectures.timm_backbone import TimmArchitecture, timm_architecture
from medtool.errors import InputError, UsageError
from tests.conftest import SHARED

RESNET = timm_architecture("test_resnet")
VIT = timm_architecture("test_vit")


@pytest.fixture(scope="module")
def published() -> Path:
    path = SHARED / "weights" / "mobilenetv2_100_imagenetnorm_in1k_fp16.safetensors"
    if not path.is_file():
        pytest.skip("needs the weights in ../shared/weights")
    return path


def weights(folder: Path, architecture: TimmArchitecture = RESNET, *, classes: int = 5, channels: int = 3) -> Path:
    torch.manual_seed(905)
    network = architecture.build(num_classes=classes, in_channels=channels)
    return saved(folder, dict(network.state_dict()))


def saved(folder: Path, state: dict[str, Tensor]) -> Path:
    path = folder / "weights.safetensors"
    save_file({name: value.clone().contiguous() for name, value in state.items()}, path)
    return path


def test_published_float16_weights_become_a_float32_network_that_answers_as_timms(published: Path) -> None:
    from medtool.models import load_state_dict

    ours = MOBILENETV2.build(num_classes=1000, pretrained=published).eval()
    theirs = timm.create_model("mobilenetv2_100", pretrained=False).eval()
    theirs.load_state_dict(load_state_dict(published))
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(905))

    assert {value.dtype for value in ours.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in ours.parameters())
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


def test_a_classifier_of_other_classes_is_left_out_and_all_else_taken(tmp_path: Path) -> None:
    path = weights(tmp_path, classes=5)
    torch.manual_seed(1)
    fresh = RESNET.build(num_classes=2).state_dict()
    torch.manual_seed(1)
    built = RESNET.build(num_classes=2, pretrained=path).state_dict()
    torch.manual_seed(905)
    source = RESNET.build(num_classes=5).state_dict()

    for name, value in built.items():
        assert torch.equal(value, (fresh if name.startswith("fc.") else source)[name]), name


def test_a_classifier_of_the_same_classes_is_taken(tmp_path: Path) -> None:
    path = weights(tmp_path, classes=5)
    torch.manual_seed(1)
    built = RESNET.build(num_classes=5, pretrained=path).state_dict()
    torch.manual_seed(905)
    source = RESNET.build(num_classes=5).state_dict()

    assert torch.equal(built["fc.weight"], source["fc.weight"])


def test_weights_without_a_classifier_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(905)
    source = RESNET.build(num_classes=0).state_dict()

    built = RESNET.build(num_classes=3, pretrained=saved(tmp_path, source)).state_dict()

    assert all(torch.equal(built[name], value) for name, value in source.items())


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = dict(RESNET.build(num_classes=5).state_dict())
    state["layer9.weight"] = state.pop("layer1.0.conv1.weight")

    with pytest.raises(InputError) as caught:
        RESNET.build(num_classes=5, pretrained=saved(tmp_path, state))

    assert "missing: layer1.0.conv1.weight; unexpected: layer9.weight" in str(caught.value)
    assert "timm/test_resnet" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("fc.bias"), "missing: fc.bias"),
        (lambda state: state.update({"fc.weight": torch.zeros(5, 7)}), "of another shape: fc.weight (5, 7)"),
        (lambda state: state["conv1.0.weight"].fill_(torch.nan), "not finite: conv1.0.weight"),
    ],
)
def test_a_file_that_is_nearly_right_is_refused(tmp_path: Path, change, complaint: str) -> None:
    state = dict(RESNET.build(num_classes=5).state_dict())
    change(state)

    with pytest.raises(InputError) as caught:
        RESNET.build(num_classes=5, pretrained=saved(tmp_path, state))

    assert complaint in str(caught.value)


def test_weights_of_another_network_are_refused_by_a_family_with_a_converter_too(tmp_path: Path) -> None:
    path = saved(tmp_path, {"something.weight": torch.zeros(2, 2)})

    for architecture in (RESNET, VIT):
        with pytest.raises(InputError, match=r"unexpected: something\.weight"):
            architecture.build(num_classes=2, pretrained=path)


@pytest.mark.parametrize("channels", [1, 4])
def test_filters_for_three_channels_serve_other_numbers(tmp_path: Path, channels: int) -> None:
    path = weights(tmp_path)
    colour = RESNET.build(num_classes=5, pretrained=path).eval()
    built = RESNET.build(num_classes=5, in_channels=channels, pretrained=path).eval()
    grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(905))

    with torch.no_grad():
        ours, theirs = built(grey.expand(-1, channels, -1, -1)), colour(grey.expand(-1, 3, -1, -1))
        if channels == 1:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
        else:
            first, filters = built.get_parameter("conv1.0.weight"), colour.get_parameter("conv1.0.weight")
            torch.testing.assert_close(first, torch.cat([filters, filters[:, :1]], dim=1) * 0.75)


def test_a_file_is_not_changed_by_training_on_its_weights(tmp_path: Path) -> None:
    path = weights(tmp_path)
    before = path.read_bytes()
    network = RESNET.build(num_classes=5, pretrained=path)

    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)

    assert path.read_bytes() == before


def test_position_embeddings_of_another_size_are_resized(tmp_path: Path) -> None:
    path = weights(tmp_path, VIT)
    larger = VIT.at_size((VIT.input.size[0] + 32, VIT.input.size[1] + 32))

    network = larger.build(num_classes=2, pretrained=path).eval()

    with torch.no_grad():
        assert network(torch.zeros(1, 3, *larger.input.size)).shape == (1, 2)
    assert network.get_parameter("pos_embed").shape != VIT.build(num_classes=2).get_parameter("pos_embed").shape


def test_buffers_of_old_files_that_are_computed_today_do_no_harm(tmp_path: Path) -> None:
    tiny = SWIN_T.at_size((64, 64))
    state = dict(tiny.build(num_classes=2).state_dict())
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)

    built = tiny.build(num_classes=2, pretrained=saved(tmp_path, state)).state_dict()

    assert all(torch.equal(value, state[name]) for name, value in built.items())


def test_a_size_that_a_network_cannot_take_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        MOBILENETV2.at_size((0, 64))

    assert "mobilenetv2 cannot take images of 0×64 pixels" in str(caught.value)
    assert caught.value.hint == "its own size is 224×224"


def test_a_size_of_which_a_vision_transformer_would_leave_pixels_out_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot take images of 100×96 pixels: they are not whole patches of 16×16"):
        VIT_B16.at_size((100, 96))
    assert VIT_B16.at_size((96, 96)).input.size == (96, 96)

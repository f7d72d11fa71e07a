"""The part of a network after a layer answers as the whole network does, and is the only part that records."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from medtool.cam.layer import find_layers
from medtool.cam.tail import Tail, frozen, record
from medtool.errors import UsageError
from tests.cam.networks import KINDS, images, network

INNER = {
    "resnet": ("layer2", "layer3.0.conv2", "layer1.0.act1", "conv1"),
    "mobilenetv2": ("blocks.3.1.conv_dw", "blocks.2"),
    "efficientnet": ("blocks.2.0.bn2", "conv_stem"),
    "vit": ("blocks.2", "blocks.3.attn.proj", "patch_embed", "blocks.0.norm1"),
    "swin": ("layers.0", "layers.0.blocks.1.norm2", "layers.1.blocks.0.mlp"),
    "convnext": ("stages.1", "stem"),
    "densenet": ("features.denseblock2", "features.transition1.conv", "features.denseblock3.denselayer1.norm2"),
}
PLACES = [(kind, layer) for kind in KINDS for layer in (KINDS[kind].layer, *INNER[kind])]


def whole(net: nn.Module, layer: str, pictures: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the logits of the whole network, in which a layer's output is changed."""
    module = find_layers(net, [layer])[layer]
    handle = module.register_forward_hook(lambda _module, _inputs, output: change(output.clone()))
    try:
        return net(pictures)
    finally:
        handle.remove()


@pytest.mark.parametrize(("kind", "layer"), PLACES)
def test_the_tail_answers_as_the_whole_network_with_the_layer_changed(kind: str, layer: str) -> None:
    net, picture = network(kind), images()[1:2]
    tail = Tail(net, layer)
    with torch.no_grad():
        output, logits = tail.keep(net, picture)
        changed = output.repeat(3, *(1,) * (output.ndim - 1))
        for place in range(3):
            changed[place, ..., place::3] = 0

        found = tail.run(net, picture, changed.clone())

        assert torch.equal(logits, net(picture))
        assert torch.allclose(tail.run(net, picture, output.repeat(2, *(1,) * (output.ndim - 1))), logits, atol=1e-5)
        for place in range(3):
            expected = whole(net, layer, picture, lambda _, place=place: changed[place : place + 1].clone())
            assert torch.allclose(found[place : place + 1], expected, atol=1e-4)
            assert not torch.allclose(found[place], logits[0], atol=1e-6)
    assert not [name for name, module in net.named_modules() if "forward" in vars(module)]


def test_what_comes_before_the_layer_does_not_compute_again() -> None:
    net = network("resnet")
    tail = Tail(net, "layer4")
    ran: list[str] = []
    with torch.no_grad():
        output, _ = tail.keep(net, images()[:1])
        own = {}
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                own[module] = module._conv_forward if isinstance(module, nn.Conv2d) else None
                module.register_forward_hook(lambda _module, _inputs, _output, name=name: ran.append(name))
        tail.run(net, images()[:1], output.repeat(8, 1, 1, 1))
    for module in own:
        module._forward_hooks.clear()

    assert ran == ["fc"]


class _Around(nn.Module):
    """A network in whose way many things lie: what adds in place, what runs twice, what gives no tensor of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.table = _Table()
        self.twice = nn.Conv2d(4, 4, 3, 1, 1)
        self.pair = _Pair()
        self.windows = _Windows()
        self.layer = nn.Conv2d(4, 4, 3, 1, 1)
        self.parts = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])
        self.head = nn.Linear(4, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        values = self.stem(pictures)
        around = self.parts[0](values)
        both = self.pair(self.twice(values))
        windows = self.windows(values)
        values = self.layer(self.twice(both["a"][0]) + self.table())
        values += 0.5
        around += values
        values = self.parts[1](around) + self.twice(values) * both["b"] + windows[: len(values)].mean()
        return self.head(values.relu().mean((2, 3)))


class _Table(nn.Module):
    def forward(self) -> Tensor:
        return torch.linspace(0, 1, 4)[:, None, None]


class _Pair(nn.Module):
    def forward(self, values: Tensor) -> dict[str, tuple[Tensor] | Tensor]:
        return {"a": (values,), "b": values.sigmoid()}


class _Windows(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return torch.cat([values, 2 * values])


def test_connections_around_the_layer_keep_what_they_held() -> None:
    torch.manual_seed(1)
    net, picture = _Around().eval(), images(1, (16, 16))
    tail = Tail(net, "layer")
    with torch.no_grad():
        output, _ = tail.keep(net, picture)
        changed = output.repeat(3, 1, 1, 1)
        changed[1] = 0
        changed[2, 1] = 0

        for _ in range(2):
            found = tail.run(net, picture, changed.clone())

            for place in range(3):
                expected = whole(net, "layer", picture, lambda _, place=place: changed[place : place + 1].clone())
                assert torch.allclose(found[place : place + 1], expected, atol=1e-6)


def test_gradients_are_those_of_the_whole_network() -> None:
    for kind, layers in (("resnet", ("layer2", "layer4")), ("vit", ("blocks.1.norm1", "blocks.4"))):
        net, pictures = network(kind), images()
        modules = find_layers(net, layers)
        with frozen(net):
            recording = record(net, modules, pictures, with_gradients=True)
            found = recording.gradients(recording.logits[:, 2], names=layers, is_last=True)
        for name, module, gradient in zip(layers, modules.values(), found, strict=True):
            kept: list[Tensor] = []
            handle = module.register_forward_hook(lambda _module, _inputs, output, kept=kept: kept.append(output))
            logits = net(pictures)
            handle.remove()
            expected = torch.autograd.grad(logits[:, 2].sum(), kept[0])[0]
            assert torch.allclose(gradient, expected, atol=1e-5 * float(expected.abs().max())), name


def test_of_a_layer_that_runs_twice_the_last_time_counts() -> None:
    torch.manual_seed(1)
    net, pictures = _Around().eval(), images(2, (16, 16))
    with frozen(net):
        recording = record(net, {"twice": net.twice}, pictures, with_gradients=True)
        gradient = recording.gradients(recording.logits[:, 0], names=["twice"], is_last=True)[0]
    kept: list[Tensor] = []
    handle = net.twice.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = net(pictures)
    handle.remove()
    assert len(kept) == 3
    assert torch.allclose(recording.outputs[0], kept[-1], atol=1e-6)
    assert torch.allclose(gradient, torch.autograd.grad(logits[:, 0].sum(), kept[-1])[0], atol=1e-7)


def test_what_the_network_does_to_its_layer_s_output_afterwards_does_not_change_the_record() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Identity(), nn.Linear(3, 2)

        def forward(self, pictures: Tensor) -> Tensor:
            values = pictures * 1
            given = self.layer(values)
            values += 100  # the same memory as what the layer gave
            given = given * given
            given.relu_()
            return self.head(given.mean((2, 3)))

    net = InPlace().eval()
    for with_gradients in (True, False):
        with frozen(net):
            recording = record(net, {"layer": net.layer}, images(), with_gradients=with_gradients)
        assert torch.equal(recording.outputs[0], images())


def test_only_parameters_that_were_trained_are_trained_again_also_after_a_failure() -> None:
    net = timm.create_model("test_resnet")
    net.fc.weight.requires_grad_(False)
    with frozen(net):
        assert not any(parameter.requires_grad for parameter in net.parameters())
    with pytest.raises(ZeroDivisionError), frozen(net):
        raise ZeroDivisionError

    assert [name for name, parameter in net.named_parameters() if not parameter.requires_grad] == ["fc.weight"]


def test_networks_that_give_no_logits_or_layers_that_give_no_tensor_are_refused() -> None:
    torch.manual_seed(1)
    net = _Around().eval()
    with pytest.raises(UsageError, match="the layer pair gives a dict, not one tensor"):
        record(net, {"pair": net.pair}, images(1, (16, 16)), with_gradients=False)
    with pytest.raises(UsageError, match="the layer pair gives a dict, not one tensor"):
        Tail(net, "pair").keep(net, images(1, (16, 16)))
    with pytest.raises(UsageError, match="not one of each"):
        record(net, {"windows": net.windows}, images(1, (16, 16)), with_gradients=False)
    with pytest.raises(UsageError, match=r"gives \(2, 4, 8, 8\) for 2 images, not logits"):
        record(net.stem, {}, images(2, (16, 16)), with_gradients=False)
    with pytest.raises(UsageError, match="gives tuple for 2 images"):
        record(lambda pictures: (pictures,), {}, images(2, (16, 16)), with_gradients=False)

from __future__ import annotations

import pytest
import torch
from torch import nn

from medtool.errors import InputError, UsageError
from medtool.train.optimizers import OptimizerName, make_optimizer

Groups = list[tuple[str, list[nn.Parameter]]]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 2))


def layers(of: nn.Sequential) -> Groups:
    return [
        ("stem", [*of[0].parameters(), *of[1].parameters()]),
        ("nothing", []),
        ("middle", list(of[2].parameters())),
        ("head", list(of[3].parameters())),
    ]


def train(of: nn.Module, optimizer: torch.optim.Optimizer, *, n_steps: int = 5) -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        of(torch.randn(6, 3, generator=chance)).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in of.parameters()]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        (OptimizerName.ADAMW, lambda groups: torch.optim.AdamW(groups, lr=0.01)),
        (OptimizerName.ADAM, lambda groups: torch.optim.Adam(groups, lr=0.01)),
        (OptimizerName.SGD, lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)),
    ],
)
def test_steps_are_those_of_torch_with_norms_and_biases_spared(name: OptimizerName, theirs) -> None:
    ours, reference = network(), network()
    matrices = [parameter for parameter in reference.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in reference.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    expected = train(reference, theirs(groups))
    found = train(ours, make_optimizer(layers(ours), name=name, lr=0.01, weight_decay=0.1))
    torch.testing.assert_close(found, expected)


def test_the_rate_falls_from_head_to_stem() -> None:
    optimizer = make_optimizer(
        layers(network()), name=OptimizerName.ADAMW, lr=1e-3, weight_decay=0.05, layer_decay=0.5, head_lr_factor=10
    )
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        ("stem/no-decay", pytest.approx(2.5e-4), 0.0),
        ("stem", pytest.approx(2.5e-4), 0.05),
        ("middle/no-decay", pytest.approx(5e-4), 0.0),
        ("middle", pytest.approx(5e-4), 0.05),
        ("head/no-decay", pytest.approx(1e-2), 0.0),
        ("head", pytest.approx(1e-2), 0.05),
    ]


def test_rates_and_decay_are_timms_for_a_vision_transformer() -> None:
    import timm
    from timm.models import group_parameters
    from timm.optim import param_groups_layer_decay

    vit = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=2)
    by_name = dict(vit.named_parameters())
    found = group_parameters(vit, vit.group_matcher(coarse=False), reverse=True)
    places = sorted({found[name] for name in by_name})
    ours = make_optimizer(
        [(str(place), [by_name[name] for name in by_name if found[name] == place]) for place in places],
        name=OptimizerName.ADAMW,
        lr=1.0,
        weight_decay=0.05,
        layer_decay=0.7,
    )
    theirs = param_groups_layer_decay(vit, weight_decay=0.05, layer_decay=0.7)
    expected = {id(one): (group["lr_scale"], group["weight_decay"]) for group in theirs for one in group["params"]}
    rates = {id(one): (group["lr"], group["weight_decay"]) for group in ours.param_groups for one in group["params"]}
    assert rates == {place: (pytest.approx(scale), decay) for place, (scale, decay) in expected.items()}


def test_every_parameter_is_trained_even_if_it_is_frozen_now() -> None:
    of = network()
    of[0].requires_grad_(False)
    optimizer = make_optimizer(layers(of), name=OptimizerName.SGD, lr=0.1)
    held = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in of.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "learning rate is 0"),
        ({"lr": float("inf")}, "learning rate is inf"),
        ({"lr": float("nan")}, "learning rate is nan"),
        ({"weight_decay": -1.0}, "weight decay is -1"),
        ({"layer_decay": 0.0}, "layer to layer is 0"),
        ({"layer_decay": 1.1}, "layer to layer is 1.1"),
        ({"head_lr_factor": -2.0}, "factor is -2"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_optimizer(layers(network()), **{"name": OptimizerName.ADAM, "lr": 0.1, **options})


def test_a_network_without_parameters_or_with_one_twice_is_refused() -> None:
    with pytest.raises(InputError, match="no parameters"):
        make_optimizer([("head", [])], name=OptimizerName.ADAM, lr=0.1)
    parameter = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(InputError, match="two layers"):
        make_optimizer([("stem", [parameter]), ("head", [parameter])], name=OptimizerName.ADAM, lr=0.1)

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medtool.errors import UsageError
from medtool.train.freezing import Unfreezing, freeze, parse_unfreezing, trainable_groups
from medtool.train.optimizers import OptimizerName, make_optimizer


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.middle = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.stem(x)))

    def layers(self) -> list[tuple[str, list[nn.Parameter]]]:
        return [(name, list(getattr(self, name).parameters())) for name in ("stem", "middle", "head")]


def test_a_schedule_says_how_many_layers_are_trained_in_each_epoch() -> None:
    schedule = parse_unfreezing("1:head, 4:2,7:ALL")
    assert [trainable_groups(schedule, epoch, 5) for epoch in range(1, 9)] == [1, 1, 1, 2, 2, 2, 5, 5]


def test_an_empty_schedule_trains_everything_from_the_first_epoch() -> None:
    assert parse_unfreezing(" ") == Unfreezing()
    assert trainable_groups(parse_unfreezing(""), 1, 5) == 5


def test_more_layers_than_there_are_means_all() -> None:
    assert trainable_groups(parse_unfreezing("1:head,2:99"), 2, 5) == 5


@given(
    st.lists(st.integers(2, 99), unique=True, max_size=5).map(sorted),
    st.lists(st.integers(1, 99), unique=True, min_size=6, max_size=6).map(sorted),
    st.integers(1, 120),
)
def test_layers_never_become_fewer(epochs: list[int], layers: list[int], n_groups: int) -> None:
    text = ",".join(f"{epoch}:{some}" for epoch, some in zip([1, *epochs], layers, strict=False))
    schedule = parse_unfreezing(text)
    trained = [trainable_groups(schedule, epoch, n_groups) for epoch in range(1, 110)]
    assert trained == sorted(trained)
    assert trained[0] == min(layers[0], n_groups)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head", "'head' is not EPOCH:LAYERS"),
        ("1:head,", "'' is not EPOCH:LAYERS"),
        ("1:0", "'1:0' is not"),
        ("1:-1", "'1:-1' is not"),
        ("1:1.5", "'1:1.5' is not"),
        ("1:²", "is not EPOCH:LAYERS"),
        ("1:" + "9" * 5000, "is not EPOCH:LAYERS"),
        ("head:1", "'head:1' is not"),
        ("0:head", "begins with epoch 0; it must begin with 1"),
        ("3:head,5:all", "begins with epoch 3"),
        ("1:head,1:all", "must grow"),
        ("1:2,3:1", "must grow"),
        ("1:all,3:head", "must grow"),
        ("1:1,3:head", "must grow"),
    ],
)
def test_a_schedule_that_is_none_is_refused_with_an_example(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_unfreezing(text)
    assert "1:head,4:4,7:all" in str(caught.value.hint)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", OptimizerName)
def test_what_is_frozen_does_not_move_and_everything_else_does(name: OptimizerName) -> None:
    network = Small()
    optimizer = make_optimizer(network.layers(), name=name, lr=0.1, weight_decay=0.1)
    chance = torch.Generator().manual_seed(2)
    for n_trainable in (3, 1, 2):  # all first, so that there is momentum that would move frozen weights on
        freeze(network, network.layers(), n_trainable)
        before = state(network)
        for _ in range(2):
            optimizer.zero_grad()
            network(torch.randn(8, 3, generator=chance)).square().sum().backward()
            optimizer.step()
        frozen = ("stem", "middle", "head")[: 3 - n_trainable]
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[key]) == key.startswith(frozen), key


def test_a_frozen_batch_norm_uses_its_running_statistics_and_dropout_stays() -> None:
    network = Small().eval()
    freeze(network, network.layers(), 1)
    assert [network.stem[1].training, network.middle[1].training, network.head[0].training] == [False, False, True]
    assert network.middle[2].training
    freeze(network, network.layers(), 3)
    assert all(module.training for module in network.modules())


def test_what_is_frozen_has_no_gradient() -> None:
    network = Small()
    network(torch.randn(4, 3)).sum().backward()
    freeze(network, network.layers(), 1)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.stem.parameters())
    assert all(parameter.grad is not None and parameter.requires_grad for parameter in network.head.parameters())

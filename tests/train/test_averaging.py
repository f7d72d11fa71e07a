from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medtool.errors import InputError, UsageError
from medtool.train.averaging import WeightAverage
from medtool.train.optimizers import OptimizerName, make_optimizer
from medtool.train.schedules import Schedule, ScheduleName, make_schedule


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def adam(network: nn.Sequential) -> torch.optim.Optimizer:
    groups = [("stem", [*network[0].parameters(), *network[1].parameters()]), ("head", list(network[2].parameters()))]
    return make_optimizer(groups, name=OptimizerName.ADAMW, lr=0.05, weight_decay=0.01, layer_decay=0.7)


def train(
    network: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage, schedule: Schedule, *, steps: range
) -> None:
    for step in steps:
        batch = torch.randn(6, 3, generator=torch.Generator().manual_seed(step))
        schedule.apply(optimizer, step)
        optimizer.zero_grad()
        network(batch).square().sum().backward()
        optimizer.step()
        average.update(network)
        if step % 3 == 2:
            schedule.observe(float(step % 2))


def test_without_warm_up_the_average_is_torchs() -> None:
    network = small()
    optimizer, schedule = adam(network), make_schedule(ScheduleName.CONSTANT, total_steps=20)
    ours = WeightAverage(network, 0.9, warmup=False)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for step in range(20):
        train(network, optimizer, ours, schedule, steps=range(step, step + 1))
        theirs.update_parameters(network)
    expected = {name: tensor for name, tensor in theirs.module.state_dict().items() if tensor.is_floating_point()}
    found = ours.weights()
    assert set(found) - set(expected) == {"1.num_batches_tracked"}
    assert found["1.num_batches_tracked"] == 20
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert not torch.equal(network.state_dict()[name], tensor), name


def test_the_warm_up_averages_with_a_growing_decay() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, 0.3)
    values = [3.0, 1.0, -2.0, 5.0, 7.0, 1.0]
    expected = values[0]
    for t, value in enumerate(values):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network)
        decay = min(0.3, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * value if t else value
        assert average.weights()["weight"].item() == pytest.approx(expected)
    assert [min(0.3, (1 + t) / (10 + t)) < 0.3 for t in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize("cut", [0, 1, 7, 11])
@pytest.mark.parametrize("name", ScheduleName)
def test_a_resumed_training_equals_an_uninterrupted_one(name: ScheduleName, cut: int) -> None:
    def parts() -> tuple[nn.Sequential, torch.optim.Optimizer, WeightAverage, Schedule]:
        network = small()
        schedule = make_schedule(name, total_steps=12, warmup_steps=3, patience=0)
        return network, adam(network), WeightAverage(network, 0.8), schedule

    whole, first, second = parts(), parts(), parts()
    train(*whole, steps=range(12))
    train(*first, steps=range(cut))
    stream = io.BytesIO()
    torch.save([part.state_dict() for part in first], stream)
    stream.seek(0)
    for part, state in zip(second, torch.load(stream, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(*second, steps=range(cut, 12))
    for key, tensor in whole[0].state_dict().items():
        assert torch.equal(second[0].state_dict()[key], tensor), key
        assert torch.equal(second[2].weights()[key], whole[2].weights()[key]), key
    assert second[3].state_dict() == whole[3].state_dict()
    assert second[2].updates == 12


def test_a_state_does_not_change_with_later_updates() -> None:
    network = small()
    average = WeightAverage(network)
    state = average.state_dict()
    before = state["average"]["0.weight"].clone()
    with torch.no_grad():
        network[0].weight.add_(1)
    average.update(network)
    assert torch.equal(state["average"]["0.weight"], before)
    assert state["updates"] == 0


def test_the_network_has_the_averages_within_the_block_and_its_own_weights_after() -> None:
    network, other = small(0), small(1)
    average = WeightAverage(network)
    average.update(other)
    own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), average.applied_to(network):  # noqa: PT012
        assert torch.equal(network[0].weight, other[0].weight)
        raise RuntimeError("stop")
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())


def test_half_precision_weights_are_averaged_in_full_precision() -> None:
    network = nn.Linear(1, 1, bias=False).bfloat16()
    average = WeightAverage(network, 0.999, warmup=False)
    for value in (1.0, *[2.0] * 100):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network)
    assert average.weights()["weight"].item() == pytest.approx(2 - 0.999**100, rel=1e-4)
    with average.applied_to(network):
        assert network.weight.item() == torch.tensor(2 - 0.999**100).bfloat16().item()


def test_averages_of_another_network_are_refused() -> None:
    average = WeightAverage(small())
    for other in (
        nn.Linear(3, 4),
        nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)),
        small().double(),
    ):
        with pytest.raises(InputError, match="another network; the first difference is"):
            average.load_state_dict(WeightAverage(other).state_dict())


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(UsageError, match="decay of the averaged weights"):
        WeightAverage(small(), decay)

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from medtool.errors import InputError, UsageError
from medtool.train.optimizers import OptimizerName, make_optimizer
from medtool.train.schedules import Schedule, ScheduleName, make_schedule


def optimizer(name: OptimizerName = OptimizerName.SGD, lr: float = 0.2) -> torch.optim.Optimizer:
    groups = [(layer, [nn.Parameter(torch.zeros(2, 2))]) for layer in ("stem", "head")]
    return make_optimizer(groups, name=name, lr=lr, layer_decay=0.5)


def rates(schedule: Schedule, n_steps: int) -> list[list[float]]:
    ours = optimizer()
    found = []
    for step in range(n_steps):
        schedule.apply(ours, step)
        found.append([group["lr"] for group in ours.param_groups])
    return found


def rates_of(scheduler: lr_scheduler.LRScheduler, n_steps: int) -> list[list[float]]:
    found = []
    for _ in range(n_steps):
        found.append([float(group["lr"]) for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("final_factor", [0.0, 0.05])
def test_cosine_is_torchs(final_factor: float) -> None:
    head = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    expected = rates_of(lr_scheduler.CosineAnnealingLR(head, T_max=40, eta_min=0.2 * final_factor), 41)
    schedule = make_schedule(ScheduleName.COSINE, total_steps=40, warmup_steps=0, final_factor=final_factor)
    assert [rate[1] for rate in rates(schedule, 41)] == pytest.approx([rate[0] for rate in expected])


def test_warm_up_and_cosine_are_torchs_one_after_the_other() -> None:
    warmup = lr_scheduler.LinearLR(optimizer(), start_factor=1 / 9, total_iters=8)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer(), T_max=32)
    found = rates(make_schedule(ScheduleName.COSINE, total_steps=40, warmup_steps=8), 40)
    assert found[:9] == [pytest.approx(rate) for rate in rates_of(warmup, 9)]
    assert found[8:] == [pytest.approx(rate) for rate in rates_of(cosine, 32)]


@pytest.mark.parametrize("name", [OptimizerName.SGD, OptimizerName.ADAMW])
def test_one_cycle_is_torchs_with_momentum(name: OptimizerName) -> None:
    theirs, ours = optimizer(name), optimizer(name)
    peaks = [group["lr"] for group in theirs.param_groups]
    scheduler = lr_scheduler.OneCycleLR(theirs, max_lr=peaks, total_steps=50, pct_start=0.3)
    schedule = make_schedule(ScheduleName.ONE_CYCLE, total_steps=50)
    for step in range(50):
        schedule.apply(ours, step)
        for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert group["lr"] == pytest.approx(float(other["lr"]), rel=1e-9)
            assert group.get("momentum", group.get("betas")) == pytest.approx(other.get("momentum", other.get("betas")))
        theirs.step()
        if step < 49:
            scheduler.step()


scores = st.lists(st.one_of(st.floats(-2, 2), st.just(float("nan"))), max_size=40)


@given(scores, st.booleans(), st.integers(0, 3), st.sampled_from([0.0, 0.01, 0.5]), st.sampled_from([0.0, 0.02]))
def test_plateau_is_torchs(seen: list[float], higher: bool, patience: int, min_delta: float, least: float) -> None:
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(
        theirs,
        "max" if higher else "min",
        factor=0.3,
        patience=patience,
        threshold=min_delta,
        threshold_mode="abs",
        min_lr=least,
        eps=0,
    )
    schedule = make_schedule(
        ScheduleName.PLATEAU,
        total_steps=40,
        final_factor=least,
        plateau_factor=0.3,
        patience=patience,
        min_delta=min_delta,
        higher_is_better=higher,
    )
    for score in seen:
        schedule.observe(score)
        scheduler.step(score)
        assert schedule.factor(39) == pytest.approx(float(theirs.param_groups[0]["lr"]))


def test_an_undefined_score_is_an_epoch_that_was_not_better() -> None:
    schedule = make_schedule(ScheduleName.PLATEAU, total_steps=10, patience=1)
    for score in (0.5, None, None):
        schedule.observe(score)
    assert schedule.factor(9) == pytest.approx(0.1)


@pytest.mark.parametrize("cut", range(9))
def test_a_plateau_goes_on_from_its_state_as_if_it_had_never_stopped(cut: int) -> None:
    seen = [0.5, 0.6, 0.6, 0.55, 0.6, 0.7, None, 0.1, 0.2]
    whole, first, second = (make_schedule(ScheduleName.PLATEAU, total_steps=90, patience=1) for _ in range(3))
    for score in seen:
        whole.observe(score)
    for score in seen[:cut]:
        first.observe(score)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for score in seen[cut:]:
        second.observe(score)
    assert second.state_dict() == whole.state_dict()
    assert whole.state_dict()["reductions"] == 2
    assert second.factor(89) == whole.factor(89)


@pytest.mark.parametrize("name", [ScheduleName.COSINE, ScheduleName.ONE_CYCLE, ScheduleName.CONSTANT])
def test_all_other_schedules_follow_from_the_step_alone(name: ScheduleName) -> None:
    one, other = (make_schedule(name, total_steps=30) for _ in range(2))
    one.observe(0.1)
    other.load_state_dict(one.state_dict())
    assert rates(one, 30) == rates(other, 30)
    assert one.state_dict() == {}


@pytest.mark.parametrize("name", [ScheduleName.CONSTANT, ScheduleName.PLATEAU])
def test_warm_up_rises_to_the_full_rate_and_stays(name: ScheduleName) -> None:
    schedule = make_schedule(name, total_steps=10, warmup_steps=4)
    assert [schedule.factor(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert make_schedule(name, total_steps=10).factor(0) == 1


@given(st.sampled_from(ScheduleName), st.integers(1, 60), st.data())
def test_factors_stay_above_zero_in_the_training_and_at_most_one(
    name: ScheduleName, total: int, data: st.DataObject
) -> None:
    warmup = data.draw(st.one_of(st.none(), st.integers(0, total)))
    schedule = make_schedule(name, total_steps=total, warmup_steps=warmup)
    factors = [schedule.factor(step) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    if warmup != total:
        assert max(factors) == pytest.approx(1)


@pytest.mark.parametrize(("name", "end"), [(ScheduleName.COSINE, 0.1), (ScheduleName.ONE_CYCLE, 1 / 250_000)])
def test_beyond_the_last_step_the_last_factor_stays(name: ScheduleName, end: float) -> None:
    schedule = make_schedule(name, total_steps=20, final_factor=0.1)
    assert [schedule.factor(step) for step in (20, 21, 1000)] == pytest.approx([end] * 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_steps": 0}, "0 steps"),
        ({"warmup_steps": 11}, "warm-up has 11 steps"),
        ({"warmup_steps": -1}, "warm-up has -1 steps"),
        ({"final_factor": 1.0}, "last factor"),
        ({"plateau_factor": 1.0}, "factor at a plateau is 1"),
        ({"patience": -1}, "patience is -1"),
        ({"min_delta": float("nan")}, "min_delta nan"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_schedule(ScheduleName.COSINE, **{"total_steps": 10, **options})


def test_a_state_of_another_schedule_is_refused() -> None:
    plateau, cosine = (make_schedule(name, total_steps=10) for name in (ScheduleName.PLATEAU, ScheduleName.COSINE))
    with pytest.raises(InputError, match="has nothing; it must have bad_epochs, best, reductions"):
        plateau.load_state_dict(cosine.state_dict())
    with pytest.raises(InputError, match="must have nothing"):
        cosine.load_state_dict(plateau.state_dict())
    with pytest.raises(InputError, match="whole numbers"):
        plateau.load_state_dict({"best": 1.0, "bad_epochs": 0.5, "reductions": 0})

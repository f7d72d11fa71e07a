"""What a network answers for altered images: known for one that is linear, and equal to pytorch-grad-cam's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.perturbation_confidence import (
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import nn

from medtool.cam.score.faithfulness import METRICS, ROAD_SHARES, Ready, altered, count_removed, ready, scores_of
from medtool.cam.score.imputation import LinearImputer
from medtool.cam.score.judge import Judge
from medtool.cam.score.options import ScoreOptions
from medtool.devices import Portions
from medtool.heatmaps.resize import resize_heatmap
from medtool.runs.folder import run_at

CPU = torch.device("cpu")


def made(image: np.ndarray, raw: np.ndarray) -> Ready:
    return ready(image.astype(np.float32), raw.astype(np.float32), imputer=LinearImputer(*image.shape[1:]), chance=None)


def test_areas_of_a_linear_network_are_those_of_its_integral() -> None:
    # The image falls from 1 to 0 in the order of the map, and the network's answer is its mean.
    height = width = 40
    ramp = np.linspace(1, 0, height * width).reshape(height, width)
    image = np.stack([ramp] * 3)
    p = altered(made(image, ramp), steps=50, device=CPU).mean((1, 2, 3)).double().numpy()
    found = scores_of(p, steps=50)
    # With f taken away: f/2 for the mean colour there, and what is left of the ramp, (1 - f)²/2.
    assert found["deletion_mean"] == pytest.approx(1 / 4 + 1 / 6, abs=1e-3)
    assert found["insertion_mean"] == pytest.approx(1 / 4 + 1 / 2 - 1 / 6, abs=1e-3)
    # The other way round, what deletion took last it takes first.
    back = scores_of(altered(made(image, -ramp + 2), steps=50, device=CPU).mean((1, 2, 3)).double().numpy(), steps=50)
    assert back["deletion_mean"] == pytest.approx(found["insertion_mean"], abs=1e-3)
    assert back["insertion_mean"] == pytest.approx(found["deletion_mean"], abs=1e-3)
    assert found["road"] > 0 > back["road"]
    # Weighted by itself the image's mean falls from 1/2 to 1/3.
    assert found["average_drop"] == pytest.approx(1 / 3, abs=1e-3)
    assert (found["average_increase"], found["average_gain"]) == (0, 0)


def test_a_network_that_looks_at_one_place_falls_only_when_that_is_taken() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(size=(3, 32, 32)) + 3
    spot = np.zeros((32, 32))
    spot[4:12, 20:28] = 1

    def answer(raw: np.ndarray) -> dict[str, float]:
        copies = altered(made(image, raw), steps=10, device=CPU).numpy()
        kept = np.isclose(copies, copies[:1]).all(1)[:, spot > 0].mean(1)  # how much of the spot is as it was
        return scores_of(kept, steps=10)

    right, wrong = answer(spot + 1e-3 * rng.random((32, 32))), answer(1 - spot + 1e-3 * rng.random((32, 32)))
    assert right["deletion_mean"] < 0.1
    assert wrong["deletion_mean"] > 0.9
    assert right["insertion_blur"] > 0.9
    assert wrong["insertion_blur"] < 0.1
    assert right["road_morf"] == pytest.approx(0, abs=0.01)
    assert right["road_lerf"] == pytest.approx(1, abs=0.01)
    assert right["road"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("n", [2, 10, 1024, 37249, 50176])
def test_as_many_pixels_are_taken_as_lie_above_the_quantile(n: int) -> None:
    values = np.random.default_rng(0).permutation(n).astype(np.float32)
    for share in ROAD_SHARES:
        assert count_removed(n, share) == (values >= np.percentile(values, round(100 * (1 - share)))).sum()


@pytest.fixture(scope="module")
def judge(trained: Path) -> Judge:
    return Judge(run_at(trained), ScoreOptions(channels_last=False), say=lambda line: None)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # of the peer
def test_road_drop_and_increase_are_those_of_the_peer(judge: Judge) -> None:
    way = judge.preprocessing
    rng = np.random.default_rng(4)
    images = rng.normal(size=(4, 3, way.height, way.width)).astype(np.float32)
    raws = rng.random((4, 7, 7)).astype(np.float32)
    maps = np.stack([resize_heatmap(raw, (way.height, way.width)) for raw in raws])
    maps += 1e-3 * rng.random(maps.shape).astype(np.float32)  # the peer takes equal values all together
    targets = [ClassifierOutputSoftmaxTarget(place) for place in (0, 1, 1, 0)]
    tensor = torch.from_numpy(images)

    def theirs(remove: type) -> np.ndarray:
        found = []
        for share in ROAD_SHARES:
            one = PerturbationConfidenceMetric(remove(round(100 * (1 - share)), NoisyLinearImputer(noise=0)))
            found.append(one(tensor, maps, targets, judge.network, return_diff=False))
        return np.mean(found, axis=0)

    ours = []
    for image, heatmap, place in zip(images, maps, (0, 1, 1, 0), strict=True):
        copies = altered(made(image, heatmap), steps=4, device=CPU)
        ours.append(scores_of(judge.probabilities(copies)[:, place], steps=4))
    assert [each["road_morf"] for each in ours] == pytest.approx(theirs(RemoveMostRelevantFirst), abs=1e-4)
    assert [each["road_lerf"] for each in ours] == pytest.approx(theirs(RemoveLeastRelevantFirst), abs=1e-4)
    scaled = maps / maps.max((1, 2), keepdims=True)
    whole = judge.probabilities(tensor)[np.arange(4), (0, 1, 1, 0)]
    drop = DropInConfidence()(tensor, scaled, targets, judge.network)
    assert [each["average_drop"] for each in ours] == pytest.approx(drop / whole, abs=1e-4)
    increase = IncreaseInConfidence()(tensor, scaled, targets, judge.network)
    assert [each["average_increase"] for each in ours] == increase.tolist()


def test_scores_do_not_depend_on_the_number_of_images_at_once(judge: Judge, trained: Path) -> None:
    few = Judge(run_at(trained), ScoreOptions(channels_last=False, batch_size=3), say=lambda line: None)
    images = torch.from_numpy(np.random.default_rng(4).normal(size=(10, 3, 96, 96)).astype(np.float32))
    assert few.probabilities(images) == pytest.approx(judge.probabilities(images), abs=1e-6)


def test_memory_that_does_not_suffice_halves_the_number_of_images(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    forward = Judge._forward

    def short(self: Judge, images: torch.Tensor, metadata: None) -> np.ndarray:
        if len(images) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, images, metadata)

    images = torch.zeros(10, 3, 96, 96)
    expected = judge.probabilities(images)
    monkeypatch.setattr(judge, "_portions", Portions(16, "cpu", say=said.append))
    monkeypatch.setattr(Judge, "_forward", short)
    assert judge.probabilities(images) == pytest.approx(expected)
    assert said == [
        "memory does not suffice for 10 images at once; going on with 5",
        "memory does not suffice for 5 images at once; going on with 2",
    ]


def test_a_network_that_answers_with_no_number_gives_none(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "network", nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 2)).eval())
    with torch.no_grad():
        judge.network[1].weight.fill_(torch.inf)
    assert np.isnan(judge.probabilities(torch.ones(2, 3, 96, 96))).all()


def test_every_score_has_a_direction() -> None:
    steps = 3
    p = np.linspace(
        0.9, 0.1, altered(made(np.ones((3, 8, 8)), np.arange(4.0).reshape(2, 2)), steps=steps, device=CPU).shape[0]
    )
    assert scores_of(p, steps=steps).keys() == METRICS.keys()

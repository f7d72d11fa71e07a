"""Random weights: maps that do not change are found out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from medtool.cam.score.cases import Case, Source, cases_of
from medtool.cam.score.judge import Judge
from medtool.cam.score.options import ScoreOptions
from medtool.cam.score.sanity import check_method, layers_from_top, rank_correlation, sanity, shuffle, ssim
from medtool.errors import LineageError, UsageError
from medtool.heatmaps import HeatmapAttributes, HeatmapFile, open_heatmaps, write_heatmaps_file
from medtool.manifest import read_manifest
from medtool.runs.folder import run_at

OPTIONS = ScoreOptions(sanity_images=6, sanity_stages=3, threads=1)


class Quiet:
    def advance(self, label: str = "") -> None: ...


@pytest.fixture(scope="module")
def judge(trained: Path) -> Judge:
    return Judge(run_at(trained), OPTIONS, say=lambda line: None)


def cases(manifest: Path, file: HeatmapFile) -> list[Case]:
    table = read_manifest(manifest)
    roles = list(table.table.get_column("split"))
    found = cases_of(table, roles, group="patient", files=[file], sight=lambda columns: "")
    return [case for case in found if case.role == "test"]


def test_rank_correlation_is_scipys_and_nothing_where_a_map_says_nothing() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 5, (7, 7)).astype(np.float32)
    other = (one + rng.normal(size=(7, 7))).astype(np.float32)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(one, np.zeros((7, 7), np.float32)) == 0


def test_similarity_is_one_for_the_same_map_at_another_scale_and_nothing_for_none() -> None:
    one = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    assert ssim(one, 3 * one, (32, 40)) == pytest.approx(1)
    assert ssim(one, one[::-1], (32, 40)) < 0.9
    assert ssim(one, -one, (32, 40)) == 0
    assert ssim(one, one, (4, 4)) == pytest.approx(1)


def test_layers_begin_with_the_classifier_and_keep_their_values_in_another_order(judge: Judge) -> None:
    layers = layers_from_top(judge.network)
    assert layers[0][0] == "fc"
    assert layers[-1][0].startswith("conv1")
    module = torch.nn.Linear(20, 30)
    before = module.weight.detach().clone()
    shuffle(module, torch.Generator().manual_seed(1))
    assert not torch.equal(module.weight, before)
    assert torch.equal(module.weight.flatten().sort().values, before.flatten().sort().values)


def test_gradcam_changes_with_the_weights_and_eigencam_not_with_the_classifier(
    judge: Judge, pictures: Path, gradcam: Path, eigencam: Path
) -> None:
    before = {name: value.clone() for name, value in judge.network.state_dict().items()}
    with open_heatmaps(gradcam) as file:
        found = sanity(Source(file), cases(pictures, file), judge, OPTIONS, progress=Quiet())
        again = sanity(Source(file), cases(pictures, file), judge, OPTIONS, progress=Quiet())
    assert found.needs_classifier
    assert [stage.n_layers for stage in found.stages] == [1, pytest.approx(found.n_layers / 2, abs=1), found.n_layers]
    assert len(found.cases) == 6
    for one, other in zip(found.stages, again.stages, strict=True):
        assert (one.rank_correlation == other.rank_correlation).all()
        assert (one.ssim == other.ssim).all()
    with open_heatmaps(eigencam) as file:
        found = sanity(Source(file), cases(pictures, file), judge, OPTIONS, progress=Quiet())
    assert not found.needs_classifier
    assert not found.passes
    assert found.stages[0].rank_correlation == pytest.approx(1)
    assert found.stages[0].ssim == pytest.approx(1)
    # The judge's own network is not the one that was made random.
    assert all(torch.equal(value, before[name]) for name, value in judge.network.state_dict().items())


def test_maps_that_the_network_does_not_give_are_refused(
    judge: Judge, pictures: Path, gradcam: Path, tmp_path: Path
) -> None:
    with open_heatmaps(gradcam) as file:
        attributes = file.attributes
        maps = np.stack([file.raw(name)[::-1, ::-1] for name in file.ids])
        targets = {name: file.target_of(name) for name in file.ids}
        ids = file.ids
    assert set(targets.values()) <= {"benign", "malignant"}
    write_heatmaps_file(tmp_path / "turned.h5", maps, image_ids=ids, attributes=attributes)
    with open_heatmaps(tmp_path / "turned.h5") as file, pytest.raises(LineageError, match="does not give the maps"):
        sanity(Source(file), cases(pictures, file), judge, OPTIONS, progress=Quiet())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"method": "a radiologist's gaze"}, "cannot make again"), ({"multi_scale": '{"flip": true}'}, "several scales")],
)
def test_maps_that_cannot_be_made_again_are_refused(change: dict[str, str], message: str, tmp_path: Path) -> None:
    attributes = replace(HeatmapAttributes("gradcam", layer="bn2"), **change)
    write_heatmaps_file(tmp_path / "cams.h5", np.ones((1, 2, 2)), image_ids=["a"], attributes=attributes)
    with open_heatmaps(tmp_path / "cams.h5") as file, pytest.raises(UsageError, match=message):
        check_method(Source(file))

"""``medtool cam`` on the command line: a command with others beside it, and what completes its options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from medtool.cli.cam import _layers, _targets
from medtool.heatmaps import HeatmapAttributes, write_heatmaps_file
from tests.conftest import Ended

Run = Callable[..., Ended]


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    made = HeatmapAttributes(method="gradcam")
    write_heatmaps_file(tmp_path / "cams.h5", np.eye(3)[None], image_ids=["x"], attributes=made)
    return tmp_path / "cams.h5"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return as much of a run as completion looks at."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    names = (
        "conv1.weight",
        "layer1.0.conv1.weight",
        "layer1.0.bn1.bias",
        "layer1.1.conv1.weight",
        "layer4.0.conv1.weight",
    )
    save_file({name: np.zeros(1, np.float32) for name in names}, folder / "checkpoints/a.safetensors")
    (folder / "checkpoints/a.json").write_text(json.dumps({"classes": ["benign", "melanoma"]}))
    (folder / "lineage.json").write_text(json.dumps({"outputs": {"checkpoint": "a.safetensors"}}))
    return folder


def on_the_line(*arguments: Path | str) -> Any:
    return SimpleNamespace(params={"arguments": [str(each) for each in arguments]})


def test_layers_are_completed_a_step_deeper_at_a_time(run: Path) -> None:
    assert _layers(on_the_line(run), "") == ["conv1", "layer1", "layer4"]
    assert _layers(on_the_line(run), "layer1.") == ["layer1.0", "layer1.1"]
    assert _layers(on_the_line(run, "photos"), "layer1.0.") == ["layer1.0.bn1", "layer1.0.conv1"]
    assert _layers(on_the_line("photos"), "") == []
    assert _layers(on_the_line(), "") == []


def test_targets_are_completed_with_the_classes_of_the_run(run: Path) -> None:
    assert _targets(on_the_line(run), "") == ["predicted", "all", "label", "benign", "melanoma"]
    assert _targets(on_the_line(run), "m") == ["melanoma"]
    assert _targets(on_the_line(), "a") == ["all"]


@pytest.mark.parametrize("damage", ["lineage.json", "checkpoints/a.json", "checkpoints/a.safetensors"])
def test_a_damaged_run_completes_nothing_and_says_nothing(run: Path, damage: str) -> None:
    (run / damage).write_bytes(b"\xff" * 20)
    assert _layers(on_the_line(run), "") == []


def test_what_lies_beside_cam_goes_by_the_first_word(medtool: Run, cams: Path) -> None:
    assert medtool("cam", "info", cams).code == 0
    refused = medtool("cam", "infos", cams)
    assert refused.code == 2
    assert "infos is not a run" in refused.err
    assert "medtool cam info" in medtool("cam", "--help").out


def test_each_has_its_own_table_and_variables(
    medtool: Run, cams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "options.toml"
    config.write_text('[cam]\nmethod = "layercam"\n[cam.export]\nformat = "npy"\n')
    out = tmp_path / "maps"
    ended = medtool("cam", "export", cams, "--config", config, "--out", out)
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in out.iterdir()) == ["heatmaps.csv", "x.npy"]
    config.write_text('[cam]\nmethod = "layercamm"\n[cam.export]\nformat = "npy"\n')
    refused = medtool("cam", tmp_path, "--config", config)
    assert "'layercamm' is not one of" in refused.err
    config.write_text('[cam]\nmethods = "layercam"\n')
    assert "[cam] has no option 'methods'" in medtool("cam", tmp_path, "--config", config).err
    config.write_text("[cam.exports]\n")
    assert "has no option 'exports'" in medtool("cam", tmp_path, "--config", config).err
    monkeypatch.setenv("MEDTOOL_CAM_EXPORT_FORMAT", "tiff")
    assert medtool("cam", "export", cams, "--out", tmp_path / "tiff").code == 0
    assert (tmp_path / "tiff/x.tif").exists()
    assert "is not a run" in medtool("cam", tmp_path).err  # not: an unknown variable
    monkeypatch.setenv("MEDTOOL_CAM_METHODS", "layercam")
    assert "MEDTOOL_CAM_METHODS is no option of medtool cam" in medtool("cam", tmp_path).err

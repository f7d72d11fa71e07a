"""The loop does what a plain loop of torch does, and nothing of one run reaches another."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.nn import functional

from medtool.runs.folder import run_at
from medtool.runs.network import build
from medtool.runs.preprocessing import read_picture
from medtool.train.choices import Sampling
from medtool.train.sampling import epoch_order
from tests.conftest import Ended
from tests.train.conftest import write_pictures

Run = Callable[..., Ended]


def last_weights(out: Path, epoch: int) -> dict[str, torch.Tensor]:
    (path,) = (out / "checkpoints").glob(f"*_epoch{epoch:03}_*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("weighted", [False, True])
def test_two_epochs_equal_those_of_a_plain_loop(medtool: Run, pictures: Path, tmp_path: Path, weighted: bool) -> None:
    plain = ("--augment", "none", "--optimizer", "sgd", "--schedule", "constant", "--weight-decay", 0, "--clip-norm", 0)
    more = ("--class-weights", "inverse") if weighted else ()
    ended = medtool(
        *("train", pictures, "--model", "timm/test_resnet", "--size", 32, "--batch-size", 8, "--epochs", 2),
        *("--lr", 0.05, *plain, *more, "--device", "cpu", "--out", tmp_path / "run"),
    )
    assert ended.code == 0, ended.err
    card = run_at(tmp_path / "run").card
    with pictures.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "train"]
    mean = torch.tensor(card.preprocessing.mean).view(3, 1, 1) * 255
    std = torch.tensor(card.preprocessing.std).view(3, 1, 1) * 255
    images = torch.stack(
        [
            (torch.from_numpy(read_picture(pictures.parent / row["image"], card.preprocessing)[0]) - mean) / std
            for row in rows
        ]
    )
    targets = torch.tensor([card.classes.index(row["label"]) for row in rows])
    counts = torch.bincount(targets).float()
    weights = len(targets) / (2 * counts) if weighted else None
    torch.manual_seed(905)
    network = build(card).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for epoch in (1, 2):
        patients = [row["patient"] for row in rows]
        order = epoch_order(targets.tolist(), patients, sampling=Sampling.NATURAL, seed=905, epoch=epoch)
        for start in range(0, len(order), 8):
            part = torch.from_numpy(order[start : start + 8])
            loss = functional.cross_entropy(network(images[part]), targets[part], weight=weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = last_weights(tmp_path / "run", 2)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_published_weights_are_where_a_training_starts_but_for_the_classifier(
    medtool: Run, pictures: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    published = timm.create_model("test_resnet", num_classes=1000)
    torch.save(published.state_dict(), tmp_path / "published.pth")
    ended = medtool(
        *("train", pictures, "--model", "timm/test_resnet", "--size", 32, "--epochs", 1, "--lr", 1e-12),
        *("--weights", tmp_path / "published.pth", "--device", "cpu", "--out", tmp_path / "run"),
    )
    assert ended.code == 0, ended.err
    found = last_weights(tmp_path / "run", 1)
    for name, value in published.state_dict().items():
        if name.startswith("fc.") or "running" in name or "tracked" in name:
            continue
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)
    assert found["fc.weight"].shape[0] == 2
    start = json.loads((tmp_path / "run/lineage.json").read_text())["made_with"]["start"]
    assert start["kind"] == "pretrained"


def test_labels_dealt_out_by_chance_are_not_learnt(medtool: Run, tmp_path: Path) -> None:
    manifest = write_pictures(tmp_path / "data", n_patients=60)
    lines = manifest.read_text().splitlines()
    dealt = np.random.default_rng(905).permutation(["benign", "malignant"] * 30)
    for row in range(1, len(lines)):
        cells = lines[row].split(",")
        cells[3] = str(dealt[(row - 1) // 2])
        lines[row] = ",".join(cells)
    manifest.write_text("\n".join(lines) + "\n")
    ended = medtool(
        *("train", manifest, "--model", "timm/test_resnet", "--size", 32, "--epochs", 4, "--lr", 0.01),
        *("--batch-size", 8, "--device", "cpu", "--out", tmp_path / "run"),
    )
    assert ended.code == 0, ended.err
    scores = json.loads((tmp_path / "run/scores.json").read_text())["test"]
    interval = scores["intervals"]["auc"]
    assert interval["low"] < 0.5 < interval["high"]
    assert scores["n_patients"] == 12


def test_early_stopping_counts_epochs_without_a_gain(medtool: Run, pictures: Path, tmp_path: Path) -> None:
    ended = medtool(
        *("train", pictures, "--model", "timm/test_resnet", "--size", 32, "--epochs", 9, "--patience", 2),
        *("--min-delta", 5, "--batch-size", 8, "--device", "cpu", "--out", tmp_path / "run"),
    )
    assert ended.code == 0, ended.err
    history = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(history) == 3  # the first is the reference, and two more brought nothing
    best = max(history, key=lambda line: (line["val"]["auc"], -line["epoch"]))
    assert run_at(tmp_path / "run").card.epoch == best["epoch"]


@pytest.mark.parametrize("monitor", ["loss", "recall/malignant", "balanced_accuracy"])
def test_the_best_epoch_is_the_best_by_what_is_monitored(
    medtool: Run, pictures: Path, tmp_path: Path, monitor: str
) -> None:
    ended = medtool(
        *("train", pictures, "--model", "timm/test_resnet", "--size", 32, "--epochs", 4, "--monitor", monitor),
        *("--batch-size", 8, "--lr", 0.003, "--device", "cpu", "--out", tmp_path / "run"),
    )
    assert ended.code == 0, ended.err
    history = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    sign = -1 if monitor == "loss" else 1
    best = max(history, key=lambda line: (sign * line["val"][monitor], -line["epoch"]))
    run = run_at(tmp_path / "run")
    assert run.card.epoch == best["epoch"]
    assert f"_{monitor.replace('/', '-')}{best['val'][monitor]:.4f}_" in run.checkpoint.name


def test_layers_that_are_frozen_do_not_move(medtool: Run, pictures: Path, tmp_path: Path) -> None:
    ended = medtool(
        *("train", pictures, "--model", "timm/test_resnet", "--size", 32, "--epochs", 1, "--unfreeze", "1:head"),
        *("--batch-size", 8, "--lr", 0.05, "--weight-decay", 0.1, "--device", "cpu", "--out", tmp_path / "run"),
    )
    assert ended.code == 0, ended.err
    card = run_at(tmp_path / "run").card
    torch.manual_seed(905)
    fresh = build(card).state_dict()
    moved = {name for name, value in last_weights(tmp_path / "run", 1).items() if not torch.equal(value, fresh[name])}
    assert moved == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    "more",
    [
        ("--ema", 0.9),
        ("--mixup", 0.4),
        ("--precision", "bf16", "--channels-last"),
        ("--schedule", "one-cycle"),
        ("--schedule", "plateau"),
        ("--loss", "focal", "--class-weights", "effective"),
        ("--label-smoothing", 0.1, "--sampling", "patient-balanced"),
        ("--sampling", "balanced", "--layer-decay", 0.7),
        ("--stain", "reinhard", "--augment", "histology"),
        ("--calibration", "isotonic"),
        ("--calibration", "platt", "--optimizer", "adam"),
        ("--clip-norm", 0.01),
        ("--micro-batch", 3),
    ],
    ids=lambda more: " ".join(map(str, more)),
)
def test_every_option_changes_what_comes_out(
    medtool: Run, pictures: Path, tmp_path: Path, plain_predictions: bytes, more: tuple[object, ...]
) -> None:
    ended = medtool(*PLAIN, pictures, "--out", tmp_path / "run", *more)
    assert ended.code == 0, ended.err
    assert (tmp_path / "run/predictions.csv").read_bytes() != plain_predictions
    assert json.loads((tmp_path / "run/scores.json").read_text())["test"]["n_images"] == 12


PLAIN = ("train", "--model", "timm/test_resnet", "--size", 32, "--epochs", 2, "--batch-size", 8, "--device", "cpu")


@pytest.fixture(scope="module")
def plain_predictions(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from medtool.cli.app import run

    out = tmp_path_factory.mktemp("plain") / "run"
    assert run([str(each) for each in (*PLAIN, pictures, "--out", out, "-q")]) == 0
    return (out / "predictions.csv").read_bytes()

"""Checkpoints come back as they were, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medtool.errors import InputError, MedtoolError, UsageError
from medtool.runs import checkpoints
from medtool.runs.checkpoints import Card, name_of, read_card, read_weights, write_checkpoint
from medtool.runs.choices import Task
from medtool.runs.folder import checkpoint_of, folder_of, is_run, run_at, runs_in
from medtool.runs.network import build, load_network, start_from
from medtool.runs.preprocessing import Preprocessing

CARD = Card(
    architecture="timm/test_resnet",
    task=Task.SINGLE,
    classes=("benign", "malignant"),
    preprocessing=Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
    metadata=None,
    epoch=12,
    monitor="auc",
    score=0.91336,
    seed=905,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    folder = tmp_path / "run" / checkpoints.FOLDER
    folder.mkdir(parents=True)
    return write_checkpoint(folder, CARD, build(CARD).state_dict())


def test_names_say_network_epoch_score_and_seed() -> None:
    assert name_of(replace(CARD, architecture="resnet50")) == "resnet50_epoch012_auc0.9134_seed905.safetensors"
    assert name_of(CARD) == "timm-test-resnet_epoch012_auc0.9134_seed905.safetensors"
    assert "balanced_accuracy0.9134" in name_of(replace(CARD, monitor="balanced_accuracy"))
    odd = name_of(replace(CARD, monitor='recall-in situ: "?*|<x>\\' + "é" * 300))
    assert odd.startswith("timm-test-resnet_epoch012_recall-in-situ-x-é")
    assert len(odd.encode()) < 200


def test_weights_and_card_come_back_as_they_were(checkpoint: Path) -> None:
    card = read_card(checkpoint)
    assert replace(card, sha256="") == CARD
    torch.manual_seed(1)
    expected = build(CARD).state_dict()
    found = load_network(checkpoint, card).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("damage", ["a flipped bit", "cut off", "another file"])
def test_damaged_weights_are_refused(checkpoint: Path, damage: str) -> None:
    data = bytearray(checkpoint.read_bytes())
    if damage == "a flipped bit":
        data[-100] ^= 1
    elif damage == "cut off":
        del data[-100:]
    else:
        data = bytearray(b"not weights")
    checkpoint.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_weights(checkpoint, read_card(checkpoint))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "not a medtool checkpoint of version 1"),
        ({"format": "other"}, "not a medtool checkpoint"),
        ({"task": "guess"}, "damaged"),
        ({"preprocessing": {"version": 1}}, "damaged"),
        ({"classes": None}, "damaged"),
    ],
)
def test_a_card_that_cannot_be_understood_is_refused(checkpoint: Path, change: dict[str, object], words: str) -> None:
    beside = checkpoint.with_suffix(".json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **change}))
    with pytest.raises(InputError, match=words):
        read_card(checkpoint)
    beside.unlink()
    with pytest.raises(InputError, match="has no"):
        read_card(checkpoint)


def test_a_start_takes_all_weights_of_the_same_classes_and_leaves_the_classifier_of_others(checkpoint: Path) -> None:
    theirs = read_weights(checkpoint, read_card(checkpoint))
    torch.manual_seed(2)
    network = build(CARD)
    assert start_from(network, checkpoint, CARD) == []
    assert all(torch.equal(value, theirs[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    for classes in (("a", "b"), ("a", "b", "c")):
        other = replace(CARD, classes=classes)
        torch.manual_seed(3)
        fresh = build(other)
        before = {name: value.clone() for name, value in fresh.state_dict().items()}
        left_out = start_from(fresh, checkpoint, other)
        assert left_out == ["fc.weight", "fc.bias"]
        for name, value in fresh.state_dict().items():
            assert torch.equal(value, before[name] if name in left_out else theirs[name])
    with pytest.raises(UsageError, match="is a timm/test_resnet"):
        start_from(build(CARD), checkpoint, replace(CARD, architecture="resnet50"))


def test_only_finished_runs_with_their_own_checkpoint_are_runs(checkpoint: Path) -> None:
    folder = checkpoint.parent.parent
    assert not is_run(folder)
    with pytest.raises(UsageError, match="is not a run"):
        run_at(folder)
    document = {
        "format": "medtool-lineage",
        "version": 1,
        "command": "train",
        "status": "unfinished",
        "made_with": {},
        "outputs": {"checkpoint": checkpoint.name, "checkpoint_sha256": read_card(checkpoint).sha256},
    }
    path = folder / "lineage.json"
    path.write_text(json.dumps(document))
    assert is_run(folder)
    with pytest.raises(UsageError, match="is not finished"):
        run_at(folder)
    path.write_text(json.dumps({**document, "status": "finished"}))
    assert [run.checkpoint for run in runs_in(folder)] == [checkpoint]
    assert checkpoint_of(folder) == checkpoint_of(checkpoint) == checkpoint
    assert folder_of(checkpoint) == folder
    document["outputs"] = {"checkpoint": checkpoint.name, "checkpoint_sha256": "0" * 64}
    path.write_text(json.dumps({**document, "status": "finished"}))
    with pytest.raises(InputError, match="its SHA-256 is another"):
        run_at(folder)
    with pytest.raises(MedtoolError):
        checkpoint_of(folder / "nowhere.safetensors")

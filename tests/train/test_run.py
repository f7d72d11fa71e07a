"""``medtool train`` from a manifest to a run folder."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medtool.runs.checkpoints import read_card
from medtool.runs.folder import run_at
from medtool.runs.network import load_network
from medtool.runs.preprocessing import read_picture
from medtool.train import loop, outcome
from tests.conftest import Ended
from tests.train.conftest import MODEL, write_pictures

Run = Callable[..., Ended]
FEW = ("--model", MODEL, "--size", 32, "--batch-size", 8, "--threads", 2, "--device", "cpu")


def train(medtool: Run, manifest: Path, out: Path, *more: object, epochs: int = 2) -> Ended:
    return medtool("train", manifest, *FEW, "--epochs", epochs, "--out", out, *more)


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run of three epochs."""
    from medtool.cli.app import run

    out = tmp_path_factory.mktemp("finished") / "run"
    arguments = ["train", pictures, *FEW, "--epochs", 3, "--out", out, "--lr", 0.01, "--threshold", "youden", "-q"]
    assert run([str(argument) for argument in arguments]) == 0
    return out


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(run_at(out).checkpoint)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_run_folder_has_every_file_and_the_best_checkpoint_is_the_one_of_the_best_epoch(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        *("config.toml", "lineage.json", "environment.json", "split.csv", "seen.csv", "metrics.jsonl"),
        *("curves.svg", "curves.png", "checkpoints", "calibration.json", "reliability.svg", "scores.json"),
        "predictions.csv",
    }
    history = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [1, 2, 3]
    best = max(history, key=lambda line: (line["val"]["auc"], -line["epoch"]))
    run = run_at(finished)
    assert run.card.epoch == best["epoch"]
    assert (
        run.checkpoint.name
        == f"timm-test-resnet_epoch{best['epoch']:03}_auc{best['val']['auc']:.4f}_seed905.safetensors"
    )
    kept = {path.name for path in (finished / "checkpoints").glob("*.safetensors")}
    assert len(kept) == len({best["epoch"], 3})


def test_the_predictions_are_those_of_the_reloaded_best_checkpoint(finished: Path, pictures: Path) -> None:
    run = run_at(finished)
    network = load_network(run.checkpoint, run.card)
    calibrated = outcome.read_calibrated(finished)
    found = rows(finished / "predictions.csv")
    assert {row["split"] for row in found} == {"val", "test"}
    assert len(found) == 24
    mean = torch.tensor(run.card.preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(run.card.preprocessing.std).view(1, 3, 1, 1)
    for row in found:
        path = pictures.parent / row["image"]
        pixels, sha256 = read_picture(path, run.card.preprocessing)
        assert sha256 == row["image_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        with torch.inference_mode():
            logits = network((torch.from_numpy(pixels)[None].float() / 255 - mean) / std).numpy()
        p = calibrated.probabilities(logits, run.card.task)[0]
        assert float(row["logit/malignant"]) == pytest.approx(logits[0, 1], abs=1e-4)
        assert float(row["probability/malignant"]) == pytest.approx(p[1], abs=1e-4)
        is_positive = p[1] >= calibrated.thresholds["malignant"].value
        assert row["predicted"] == ("malignant" if is_positive else "benign")
        assert row["seen"] == ("val" if row["split"] == "val" else "")


def test_what_is_shown_of_the_test_part_is_scored_on_its_predictions_alone(finished: Path) -> None:
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    scores = json.loads((finished / "scores.json").read_text())
    for part in ("val", "test"):
        own = [row for row in rows(finished / "predictions.csv") if row["split"] == part]
        truth = [row["label"] == "malignant" for row in own]
        p = np.array([float(row["probability/malignant"]) for row in own])
        assert scores[part]["n_images"] == len(own)
        assert scores[part]["n_patients"] == len({row["patient"] for row in own})
        assert scores[part]["scores"]["auc"] == pytest.approx(roc_auc_score(truth, p))
        assert scores[part]["scores"]["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, p >= 0.5))
        interval = scores[part]["intervals"]["auc"]
        assert interval["low"] <= interval["value"] <= interval["high"]


def test_thresholds_and_calibration_come_from_the_val_part(finished: Path) -> None:
    document = json.loads((finished / "calibration.json").read_text())
    assert document["part"] == "val"
    assert document["calibration"]["n_images"] == 12
    threshold = document["thresholds"]["malignant"]
    assert threshold["n_positive"] + threshold["n_negative"] == 12
    assert "cross-fitting" in document["measured"]


def test_the_same_command_again_does_nothing(medtool: Run, finished: Path, pictures: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    again = train(medtool, pictures, finished, "--lr", 0.01, "--threshold", "youden", epochs=3)
    assert again.code == 0
    assert "finished before" in again.err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_what_a_kill_at_the_very_end_left_is_removed(medtool: Run, finished: Path, pictures: Path) -> None:
    (finished / "resume.pt").write_bytes(b"the lineage was finished, and this was about to go")
    assert train(medtool, pictures, finished, "--lr", 0.01, "--threshold", "youden", epochs=3).code == 0
    assert not (finished / "resume.pt").exists()


def test_its_config_gives_the_same_weights_again(medtool: Run, finished: Path, pictures: Path, tmp_path: Path) -> None:
    assert tomllib.loads((finished / "config.toml").read_text())["train"]["lr"] == 0.01
    ended = medtool("train", pictures, "--config", finished / "config.toml", "--out", tmp_path / "again")
    assert ended.code == 0, ended.err
    assert same(weights(tmp_path / "again"), weights(finished))
    one, other = (json.loads((out / "lineage.json").read_text()) for out in (finished, tmp_path / "again"))
    assert one == other


def test_other_options_and_other_images_are_refused_by_name(medtool: Run, tmp_path: Path) -> None:
    manifest = write_pictures(tmp_path / "data")
    out = tmp_path / "run"
    assert train(medtool, manifest, out, epochs=1).code == 0
    other = train(medtool, manifest, out, "--lr", 0.5, epochs=1)
    assert other.code == 1
    assert "options.lr was 0.001, now 0.5" in other.err
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(manifest.parent / "images/00.png")
    changed = train(medtool, manifest, out, epochs=1)
    assert changed.code == 1
    assert "split was" in changed.err
    assert train(medtool, manifest, out, "--overwrite", epochs=1).code == 0


def test_a_folder_with_something_else_is_left_alone(medtool: Run, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    ended = train(medtool, pictures, tmp_path, "--overwrite")
    assert ended.code == 1
    assert "thesis.docx" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


@pytest.mark.parametrize("stop_after", ["epoch 1", "batch 3 of epoch 2", "the last epoch"])
def test_a_training_that_was_stopped_ends_with_the_same_weights(
    medtool: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: str
) -> None:
    more = ("--ema", 0.9, "--mixup", 0.2, "--schedule", "plateau", "--unfreeze", "1:2,2:all")
    assert train(medtool, pictures, tmp_path / "whole", *more, epochs=3).code == 0
    count = 0
    step, finish = loop.Training._step, loop.Training._epoch

    class StoppedError(BaseException):
        pass

    def stopping_step(self: Any, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == {"batch 3 of epoch 2": 8}.get(stop_after, -1):
            raise StoppedError
        return step(self, *arguments)

    def stopping_epoch(self: Any, *arguments: Any) -> Any:
        finish(self, *arguments)
        if self.done == {"epoch 1": 1, "the last epoch": 3}.get(stop_after, -1):
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(loop.Training, "_step", stopping_step)
        patched.setattr(loop.Training, "_epoch", stopping_epoch)
        with pytest.raises(StoppedError):
            train(medtool, pictures, tmp_path / "stopped", *more, epochs=3)
    assert (tmp_path / "stopped" / loop.RESUME_NAME).exists()
    ended = train(medtool, pictures, tmp_path / "stopped", *more, epochs=3)
    assert ended.code == 0, ended.err
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert same(whole, stopped)
    for name in ("predictions.csv", "calibration.json", "scores.json", "lineage.json", "seen.csv", "split.csv"):
        assert (tmp_path / "whole" / name).read_bytes().replace(b"whole", b"stopped") == (
            tmp_path / "stopped" / name
        ).read_bytes(), name


def test_a_damaged_state_is_one_clear_line(medtool: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(medtool, pictures, out, epochs=1).code == 0
    document = json.loads((out / "lineage.json").read_text())
    (out / "lineage.json").write_text(json.dumps({**document, "status": "unfinished"}))
    (out / loop.RESUME_NAME).write_bytes(b"\x80\x02not a state")
    ended = train(medtool, pictures, out, epochs=1)
    assert ended.code == 1
    assert "resume.pt is damaged" in ended.err
    assert "--overwrite" in ended.err


def test_a_loss_that_is_no_number_names_the_batch_and_keeps_the_best(
    medtool: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    inner = loop.Training._gradients

    def poisoned(self: Any, *arguments: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        total = inner(self, *arguments)
        return total * float("nan") if steps == 7 else total

    monkeypatch.setattr(loop.Training, "_gradients", poisoned)
    ended = train(medtool, pictures, tmp_path / "run", epochs=3)
    assert ended.code == 1
    assert "the loss is nan in epoch 2, batch 2 of 5 (i" in ended.err
    assert "is kept" in ended.err
    assert "--lr" in ended.err
    kept = list((tmp_path / "run/checkpoints").glob("*_epoch001_*.safetensors"))
    assert len(kept) == 1
    assert all(torch.isfinite(tensor).all() for tensor in load_file(kept[0]).values())


def test_where_memory_is_short_batches_are_halved_and_gradients_stay_those_of_the_batch(
    medtool: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--model", "timm/test_vit", "--augment", "none")  # without batch norm, which sees the parts of a batch
    assert train(medtool, pictures, tmp_path / "whole", *more).code == 0
    inner = loop.Training._gradients_in_parts

    def greedy(self: Any, images: torch.Tensor, *rest: Any) -> torch.Tensor:
        if self.micro_batch > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return inner(self, images, *rest)

    monkeypatch.setattr(loop.Training, "_gradients_in_parts", greedy)
    ended = train(medtool, pictures, tmp_path / "short", *more)
    assert ended.code == 0, ended.err
    assert "4 images at a time" in ended.err
    assert "2 images at a time" in ended.err
    assert json.loads((tmp_path / "short/lineage.json").read_text())["outputs"]["micro_batch"] == 2
    whole, short = weights(tmp_path / "whole"), weights(tmp_path / "short")
    for name in whole:
        torch.testing.assert_close(whole[name], short[name], atol=1e-5, rtol=1e-4)


def test_broken_images_are_named_and_the_rest_is_trained_on(medtool: Run, tmp_path: Path) -> None:
    manifest = write_pictures(tmp_path / "data")
    (manifest.parent / "images/00.png").write_bytes(b"not a picture")
    (manifest.parent / "images/07.png").unlink()
    ended = train(medtool, manifest, tmp_path / "run", epochs=1)
    assert ended.code == 4
    assert "i00" in ended.err
    assert "i07" in ended.err
    seen = {row["image_id"] for row in rows(tmp_path / "run/seen.csv") if row["image_sha256"]}
    assert not {"i00", "i07"} & seen
    assert json.loads((tmp_path / "run/lineage.json").read_text())["outputs"]["n_unreadable"] == 2


def test_a_leaky_split_is_refused_and_marked_if_it_is_allowed(medtool: Run, tmp_path: Path) -> None:
    manifest = write_pictures(tmp_path / "data")
    text = manifest.read_text()
    manifest.write_text(text.replace("i00,P00,benign,train", "i00,P00,benign,test"))
    refused = train(medtool, manifest, tmp_path / "run")
    assert refused.code == 3
    assert "P00" in refused.err
    assert not (tmp_path / "run").exists()
    allowed = train(medtool, manifest, tmp_path / "run", "--allow-leak", epochs=1)
    assert allowed.code == 0
    assert "in spite of" in allowed.err
    leaks = json.loads((tmp_path / "run/lineage.json").read_text())["made_with"]["leaks"]
    assert leaks
    assert leaks[0]["n_cases"] == 1


def test_one_file_in_two_parts_is_refused_whatever_it_is_called(medtool: Run, tmp_path: Path) -> None:
    manifest = write_pictures(tmp_path / "data")
    images = manifest.parent / "images"
    shutil.copy(images / "00.png", images / "16.png")  # of train and of test
    refused = train(medtool, manifest, tmp_path / "run")
    assert refused.code == 3
    assert "D202 same-file-across-parts, 1 case (i00 and i16)" in refused.err
    assert not (tmp_path / "run/lineage.json").exists()
    allowed = train(medtool, manifest, tmp_path / "run", "--allow-leak", epochs=1)
    assert allowed.code == 0, allowed.err
    leaks = json.loads((tmp_path / "run/lineage.json").read_text())["made_with"]["leaks"]
    assert leaks == [{"code": "D202", "n_cases": 1}]


def test_a_run_that_starts_from_another_inherits_its_patients(medtool: Run, finished: Path, tmp_path: Path) -> None:
    other = write_pictures(tmp_path / "data", n_patients=20, seed=7)
    text = other.read_text()
    fresh = text.replace(",P", ",Q").replace(",i", ",j")
    other.write_text(fresh)
    ended = train(medtool, other, tmp_path / "child", "--init", finished, epochs=1)
    assert ended.code == 0, ended.err
    seen = rows(tmp_path / "child/seen.csv")
    assert {row["run"] for row in seen} == {"child", "run"}
    assert any(row["patient"] == "P00" for row in seen)
    start = json.loads((tmp_path / "child/lineage.json").read_text())["made_with"]["start"]
    assert start == {"kind": "checkpoint", "sha256": run_at(finished).card.sha256}
    other.write_text(fresh.replace("j16,Q08", "j16,P00").replace("j17,Q08", "j17,P00"))
    refused = train(medtool, other, tmp_path / "second", "--init", finished, epochs=1)
    assert refused.code == 3
    assert "P00" in refused.err


def test_each_fold_starts_from_a_fresh_network(
    medtool: Run, folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginnings = []
    run = loop.Training.run

    def watched(self: Any) -> Any:
        beginnings.append({name: value.clone() for name, value in self.network.state_dict().items()})
        assert not self.optimizer.state
        return run(self)

    monkeypatch.setattr(loop.Training, "run", watched)
    assert train(medtool, folded, tmp_path / "cv", "--folds", "all").code == 0
    assert len(beginnings) == 3
    assert same(beginnings[0], beginnings[1])
    assert same(beginnings[0], beginnings[2])
    alone = tmp_path / "alone"
    assert train(medtool, folded, alone, "--folds", "2").code == 0
    assert same(weights(alone), weights(tmp_path / "cv/fold2_seed905"))


def test_out_of_fold_predictions_are_pooled_and_each_image_has_one(medtool: Run, folded: Path, tmp_path: Path) -> None:
    out = tmp_path / "cv"
    ended = train(medtool, folded, out, "--folds", "all", "--seeds", "1,2", "--lr", 0.01)
    assert ended.code == 0, ended.err
    assert {path.name for path in out.iterdir() if path.is_dir()} == {
        f"fold{f}_seed{s}" for f in range(3) for s in (1, 2)
    }
    document = json.loads((out / "together.json").read_text())
    assert len(document["runs"]) == 6
    assert document["over_runs"]["test"]["auc"]["n_runs"] == 6
    for seed in ("1", "2"):
        pooled = pl.read_csv(out / f"out-of-fold_seed{seed}.csv")
        assert sorted(pooled["image_id"]) == [f"i{index:02}" for index in range(60)]
        assert document["pooled_by_seed"][seed]["n_images"] == 60
        assert document["pooled_by_seed"][seed]["part"] == "test"
    for fold in range(3):
        held_out = {row["image_id"] for row in rows(folded) if row["fold"] == str(fold)}
        predicted = {
            row["image_id"] for row in rows(out / f"fold{fold}_seed1/predictions.csv") if row["split"] == "test"
        }
        seen = {row["image_id"] for row in rows(out / f"fold{fold}_seed1/seen.csv")}
        assert predicted == held_out
        assert not held_out & seen


def test_folds_trained_one_by_one_are_put_together_by_the_command_for_all(
    medtool: Run, folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cv"
    for fold in range(3):
        assert train(medtool, folded, out / f"fold{fold}_seed905", "--folds", fold, epochs=1).code == 0

    def refuse(self: Any) -> Any:
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(loop.Training, "run", refuse)
    ended = train(medtool, folded, out, "--folds", "all", epochs=1)
    assert ended.code == 0, ended.err
    document = json.loads((out / "together.json").read_text())
    assert [run["name"] for run in document["runs"]] == [f"fold{fold}_seed905" for fold in range(3)]
    assert document["pooled"]["n_images"] == 60


def test_metadata_is_encoded_by_the_training_part_alone(medtool: Run, tmp_path: Path) -> None:
    manifest = write_pictures(tmp_path / "data")
    text = manifest.read_text()
    manifest.write_text(text.replace(",test,48,", ",test,4800,").replace("val,46,male", "val,46,other"))
    ended = train(medtool, manifest, tmp_path / "run", "--model", f"fusion/{MODEL}", "--metadata", "age,sex", epochs=1)
    assert ended.code == 0, ended.err
    run = run_at(tmp_path / "run")
    numeric, categorical = run.card.metadata["columns"]
    ages = [float(row["age"]) for row in rows(manifest) if row["split"] == "train" and row["age"]]
    assert numeric["median"] == np.median(ages)
    assert categorical["values"] == ["female", "male"]
    assert load_network(run.checkpoint, run.card)(torch.zeros(1, 3, 32, 32), torch.zeros(1, 5)).shape == (1, 2)


def test_several_labels_are_trained_and_said(medtool: Run, tmp_path: Path) -> None:
    manifest = write_pictures(tmp_path / "data")
    lines = manifest.read_text().splitlines()
    labels = ("red|big", "red", "big", "red|big|odd")
    for place, line in enumerate(lines[1:]):
        lines[place + 1] = line.replace("benign", "big").replace("malignant", labels[place // 2 % 4])
    manifest.write_text("\n".join(lines) + "\n")
    ended = train(medtool, manifest, tmp_path / "run", "--task", "multi", "--class-weights", "inverse", epochs=1)
    assert ended.code == 0, ended.err
    card = read_card(run_at(tmp_path / "run").checkpoint)
    assert card.classes == ("big", "odd", "red")
    found = rows(tmp_path / "run/predictions.csv")
    assert {label for row in found for label in row["label"].split("|")} == {"big", "odd", "red"}
    total = [sum(float(row[f"probability/{name}"]) for name in card.classes) for row in found]
    assert max(abs(value - 1) for value in total) > 0.01


def test_one_label_against_the_rest(medtool: Run, tmp_path: Path) -> None:
    manifest = write_pictures(tmp_path / "data")
    text = manifest.read_text()
    manifest.write_text(text.replace("P03,malignant", "P03,nevus").replace("P13,malignant", "P13,nevus"))
    ended = train(medtool, manifest, tmp_path / "run", "--positive", "benign", epochs=1)
    assert ended.code == 0, ended.err
    assert run_at(tmp_path / "run").card.classes == ("not benign", "benign")
    unknown = train(medtool, manifest, tmp_path / "other", "--positive", "melanoma")
    assert unknown.code == 2
    assert "benign, malignant, nevus" in unknown.err


@pytest.mark.parametrize("cache", ["none", "ram", "disk"])
def test_where_images_are_kept_changes_nothing(
    medtool: Run, finished: Path, pictures: Path, tmp_path: Path, cache: str
) -> None:
    more = ("--cache", cache, "--lr", 0.01, "--threshold", "youden")
    if cache == "disk":
        more = (*more, "--cache-folder", tmp_path / "kept")
    assert train(medtool, pictures, tmp_path / "run", *more, epochs=3).code == 0
    assert same(weights(tmp_path / "run"), weights(finished))
    assert len(list((tmp_path / "kept").glob("*.npy"))) == (60 if cache == "disk" else 0)


@pytest.mark.parametrize(
    ("more", "is_warned"),
    [
        (["--sampling", "balanced"], True),
        (["--class-weights", "effective"], True),
        (["--sampling", "balanced", "--calibration", "platt"], False),
        ([], False),
    ],
)
def test_rare_classes_that_count_for_more_are_said_to_keep_too_high_probabilities(
    medtool: Run, pictures: Path, tmp_path: Path, more: list[str], is_warned: bool
) -> None:
    ended = train(medtool, pictures, tmp_path / "run", *more, epochs=1)
    assert ended.code == 0, ended.err
    assert ("--calibration platt sees to it" in ended.err) is is_warned


def test_a_preview_shows_what_the_first_batch_is(medtool: Run, pictures: Path, tmp_path: Path) -> None:
    ended = medtool("train", pictures, *FEW, "--preview-batch", tmp_path / "preview.png")
    assert ended.code == 0, ended.err
    with Image.open(tmp_path / "preview.png") as sheet:
        assert sheet.width > 8 * 32
        assert sheet.height > 8 * 32
    assert [path.name for path in tmp_path.iterdir()] == ["preview.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "resnet5O"], 2, "resnet50"),
        (["--epochs", "0"], 2, "--epochs is 0"),
        (["--lr", "nan"], 2, "--lr is nan"),
        (["--size", "7"], 2, "--size is 7"),
        (["--monitor", "auk"], 2, "auk"),
        (["--monitor", "recall/melanoma"], 2, "benign, malignant"),
        (["--metadata", "age"], 2, "fusion/"),
        (["--model", f"fusion/{MODEL}"], 2, "--metadata"),
        (["--model", f"fusion/{MODEL}", "--metadata", "label"], 2, "label"),
        (["--model", f"fusion/{MODEL}", "--metadata", "heigth"], 2, "no such column"),
        (["--loss", "bce"], 2, "--task multi"),
        (["--folds", "all"], 2, "no folds"),
        (["--seeds", "1,1"], 2, "--seeds"),
        (["--threshold", "sensitivity"], 2, "needs a target"),
        (["--threshold", "cost"], 2, "--costs"),
        (["--costs", "5"], 2, "two numbers"),
        (["--weights", "nowhere.pth"], 2, "nowhere.pth"),
        (["--weights", "manifest.csv"], 1, "manifest.csv"),
        (["--init", "nowhere"], 2, "nowhere"),
        (["--unfreeze", "2:head"], 2, "must begin with 1"),
        (["--device", "cuda:77"], 2, "cuda"),
        (["--unfreeze", "1:head,50:all"], 2, "epoch 50 never comes"),
        (["--min-delta", "0.01"], 2, "--patience"),
        (["--focal-gamma", "3"], 2, "--loss focal"),
        (["--task", "multi", "--focal-alpha", "0.3"], 2, "--loss focal"),
        (["--vary", "cutuot=0.3"], 2, "cutout"),
        (["--cache-folder", "kept"], 2, "--cache disk"),
        (["--group", "hospital"], 1, "hospital"),
        (["--preview-batch", "sheet.gif"], 2, ".png"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line_before_anything_is_written(
    medtool: Run,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(pictures, tmp_path / "manifest.csv")
    ended = medtool("train", pictures, *FEW, "--out", tmp_path / "run", *arguments)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run/lineage.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace(",label,", ",lable,"), "no column 'label'"),
        (lambda text: text.replace("malignant", "benign"), "has benign alone"),
        (lambda text: text.replace(",val,", ",train,"), "val part has no labelled image"),
        (lambda text: text.replace("malignant,val", "benign,val"), "val part has no image of malignant"),
        (lambda text: text.replace(",split,", ",part,"), "split make"),
    ],
)
def test_a_manifest_that_does_not_suffice_says_what_is_missing(
    medtool: Run, tmp_path: Path, change: Callable[[str], str], words: str
) -> None:
    manifest = write_pictures(tmp_path / "data")
    manifest.write_text(change(manifest.read_text()))
    ended = train(medtool, manifest, tmp_path / "run")
    assert ended.code == 1, ended.err
    assert words in ended.err

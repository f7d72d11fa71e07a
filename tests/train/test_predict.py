"""``medtool predict``: what networks say of images, alone and together."""

from __future__ import annotations

import csv
import json
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from medtool.errors import UsageError
from medtool.runs.preprocessing import Preprocessing
from medtool.train import ensemble, predict
from medtool.train.choices import Views
from medtool.train.views import posed, poses_of
from tests.conftest import Ended
from tests.train.conftest import MODEL, SIZE, write_pictures

Run = Callable[..., Ended]
FEW = ("--model", MODEL, "--size", SIZE, "--batch-size", 8, "--threads", 2, "--device", "cpu", "--epochs", 1, "-q")


def rows(folder: Path, name: str = "predictions.csv") -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def probabilities(folder: Path) -> np.ndarray:
    found = rows(folder)
    names = [name for name in found[0] if name.startswith("probability/")]
    return np.array([[float(row[name]) for name in names] for row in found])


def trained(manifest: Path, out: Path, *more: object) -> Path:
    from medtool.cli.app import run

    assert run([str(word) for word in ("train", manifest, *FEW, "--out", out, *more)]) == 0
    return out


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread: for networks this small more of them only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def one(pictures: Path, work: Path) -> Path:
    """Return a run with thresholds."""
    return trained(pictures, work / "one", "--lr", 0.01, "--threshold", "youden")


@pytest.fixture(scope="module")
def two(pictures: Path, work: Path) -> Path:
    """Return a run of another seed and input size."""
    return trained(pictures, work / "two", "--lr", 0.01, "--seed", 7, "--size", 48)


@pytest.fixture(scope="module")
def strangers(work: Path) -> Path:
    """Return a folder of square pictures, of the size that the first run takes, that no run has seen."""
    rng = np.random.default_rng(99)
    (work / "strangers").mkdir()
    for index in range(10):
        pixels = rng.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(work / f"strangers/{index}.png")
    return work / "strangers"


@pytest.fixture
def copy(one: Path, tmp_path: Path) -> Path:
    """Return a copy of a run, to be damaged."""
    return Path(shutil.copytree(one, tmp_path / "copy"))


def test_a_run_says_of_its_test_part_what_it_said_when_it_was_trained(
    medtool: Run, one: Path, pictures: Path, tmp_path: Path
) -> None:
    ended = medtool("predict", one, pictures, "--split", "test", "--out", tmp_path / "p")
    assert ended.code == 0, ended.err
    own = [row for row in rows(one) if row["split"] == "test"]
    found = rows(tmp_path / "p")
    assert len(found) == len(own) == 12
    for row, before in zip(found, own, strict=True):
        for name in before:
            if name.startswith(("probability/", "logit/")):
                assert float(row[name]) == pytest.approx(float(before[name]), abs=1e-6), name
            else:
                assert row[name] == before[name], name
    lineage = json.loads((tmp_path / "p" / "lineage.json").read_text())
    assert lineage["status"] == "finished"
    assert lineage["made_with"]["leaks"] == []
    sha256s = {json.loads(path.read_text())["sha256"] for path in (one / "checkpoints").glob("*.json")}
    assert lineage["made_with"]["members"][0]["checkpoint_sha256"] in sha256s


def test_runs_together_give_the_mean_of_their_calibrated_probabilities(
    medtool: Run, one: Path, two: Path, strangers: Path, tmp_path: Path
) -> None:
    for name, runs in (("a", [one]), ("b", [two]), ("ab", [one, two])):
        ended = medtool("predict", *runs, strangers, "--out", tmp_path / name)
        assert ended.code == 0, ended.err
    assert "the stored thresholds are for" in ended.err
    a, b, both = (probabilities(tmp_path / name) for name in ("a", "b", "ab"))
    np.testing.assert_allclose(both, (a + b) / 2, atol=1e-8)
    assert not any(name.startswith("logit/") for name in rows(tmp_path / "ab")[0])
    assert {row["predicted"] for row in rows(tmp_path / "ab")} <= {"benign", "malignant"}
    for row, p in zip(rows(tmp_path / "ab"), both, strict=True):
        assert row["predicted"] == ("benign", "malignant")[int(p.argmax())]


def test_one_network_decides_by_its_stored_threshold(medtool: Run, copy: Path, strangers: Path, tmp_path: Path) -> None:
    assert medtool("predict", copy, strangers, "--out", tmp_path / "p").code == 0
    threshold = json.loads((copy / "calibration.json").read_text())["thresholds"]["malignant"]["value"]
    for row, p in zip(rows(tmp_path / "p"), probabilities(tmp_path / "p"), strict=True):
        assert (row["predicted"] == "malignant") == (p[1] >= threshold)


def test_without_calibration_probabilities_are_the_softmax_of_the_logits(
    medtool: Run, one: Path, strangers: Path, tmp_path: Path
) -> None:
    assert medtool("predict", one, strangers, "--no-calibration", "--out", tmp_path / "p").code == 0
    found = rows(tmp_path / "p")
    logits = np.array([[float(row["logit/benign"]), float(row["logit/malignant"])] for row in found])
    powers = np.exp(logits)
    np.testing.assert_allclose(probabilities(tmp_path / "p"), powers / powers.sum(axis=1, keepdims=True), atol=1e-7)


@pytest.mark.parametrize(
    ("views", "pose"),
    [
        ("flips", lambda pixels: pixels[:, ::-1]),
        ("flips", lambda pixels: pixels[::-1]),
        ("quarter-turns", np.rot90),
        ("all", lambda pixels: np.rot90(pixels[:, ::-1])),
    ],
)
def test_an_image_and_its_pose_get_the_same_probabilities_from_all_poses(
    medtool: Run,
    one: Path,
    strangers: Path,
    tmp_path: Path,
    views: str,
    pose: Callable[[np.ndarray], np.ndarray],
) -> None:
    (tmp_path / "posed").mkdir()
    for path in strangers.glob("*.png"):
        Image.fromarray(np.ascontiguousarray(pose(np.asarray(Image.open(path))))).save(tmp_path / "posed" / path.name)
    for name, folder in (("a", strangers), ("b", tmp_path / "posed")):
        assert medtool("predict", one, folder, "--tta", views, "--out", tmp_path / name).code == 0
    np.testing.assert_allclose(probabilities(tmp_path / "a"), probabilities(tmp_path / "b"), atol=1e-6)
    assert medtool("predict", one, strangers, "--out", tmp_path / "plain").code == 0
    assert np.abs(probabilities(tmp_path / "a") - probabilities(tmp_path / "plain")).max() > 1e-6


def test_patients_that_a_run_has_seen_are_refused_before_any_image_is_read(
    medtool: Run, one: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "read_image", lambda path: pytest.fail("an image was read"))
    ended = medtool("predict", one, pictures, "--out", tmp_path / "p")
    assert ended.code == 3
    assert "48 of 60 images are of what the runs were trained or chosen on: patient P00" in ended.err
    assert "--split test" in ended.err
    assert not (tmp_path / "p").exists()


def test_a_patient_is_known_by_name_and_an_image_by_its_id(
    medtool: Run, one: Path, strangers: Path, tmp_path: Path
) -> None:
    for column, value in (("patient", "P00"), ("image_id", "i00")):
        manifest = strangers / f"{column}.csv"
        manifest.write_text(f"image,{column}\n0.png,{value}\n1.png,new\n")
        ended = medtool("predict", one, manifest, "--out", tmp_path / "p")
        assert ended.code == 3
        assert f"1 of 2 images are of what the runs were trained or chosen on: {column} {value}" in ended.err
        manifest.unlink()


def test_an_image_that_was_trained_on_is_known_by_its_content_under_any_name(
    medtool: Run, one: Path, pictures: Path, strangers: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(strangers, tmp_path / "mixed"))
    shutil.copy(pictures.parent / "images/00.png", folder / "new.png")
    ended = medtool("predict", one, folder, "--out", tmp_path / "p")
    assert ended.code == 4
    assert "new.png: the run was trained on this very image" in ended.err
    found = {row["image_id"]: row for row in rows(tmp_path / "p")}
    assert found["new.png"]["status"] == "failed"
    assert not found["new.png"]["probability/benign"]
    ended = medtool("predict", one, folder, "--allow-seen", "--out", tmp_path / "q")
    assert ended.code == 0
    assert "1 of the predicted images were seen by a run (1 in training" in ended.err
    assert {row["image_id"]: row["seen"] for row in rows(tmp_path / "q")}["new.png"] == "train"


def test_what_is_allowed_is_marked_in_each_row_and_in_the_lineage(
    medtool: Run, one: Path, pictures: Path, tmp_path: Path
) -> None:
    ended = medtool("predict", one, pictures, "--allow-seen", "--out", tmp_path / "p")
    assert ended.code == 0
    parts = {"train": "train", "val": "val", "test": ""}
    assert all(row["seen"] == parts[row["split"]] for row in rows(tmp_path / "p"))
    leaks = json.loads((tmp_path / "p" / "lineage.json").read_text())["made_with"]["leaks"]
    assert leaks == [{"code": "R501", "n_cases": 24}]


def test_a_broken_image_is_one_row_with_its_reason_and_the_call_ends_with_4(
    medtool: Run, one: Path, strangers: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(strangers, tmp_path / "mixed"))
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    (folder / "4.png").write_bytes(b"")
    ended = medtool("predict", one, folder, "--out", tmp_path / "p", "--batch-size", 3)
    assert ended.code == 4
    found = {row["image_id"]: row for row in rows(tmp_path / "p")}
    assert [name for name, row in found.items() if row["status"] == "failed"] == ["3.png", "4.png"]
    assert found["4.png"]["reason"] == "the file is empty"
    assert "8 predicted, 2 failed" in ended.err
    again = medtool("predict", one, folder, "--out", tmp_path / "p", "--batch-size", 3)
    assert again.code == 4
    assert "was finished before" in again.err
    shutil.copy(strangers / "3.png", folder / "3.png")
    shutil.copy(strangers / "4.png", folder / "4.png")
    assert medtool("predict", one, folder, "--out", tmp_path / "p").code == 0
    assert medtool("predict", one, strangers, "--out", tmp_path / "all").code == 0
    assert (tmp_path / "p/predictions.csv").read_bytes() == (tmp_path / "all/predictions.csv").read_bytes()
    (folder / "5.png").write_bytes(b"")
    ended = medtool("predict", one, folder, "--out", tmp_path / "p")
    assert ended.code == 1
    assert "1 images have changed since" in ended.err
    assert medtool("predict", one, folder, "--out", tmp_path / "strict", "--strict").code == 1


def test_the_label_is_what_the_run_calls_it(medtool: Run, tmp_path: Path, work: Path) -> None:
    manifest = write_pictures(tmp_path / "three", n_patients=30)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(line.replace(",benign,", ",nevus,") if "1.png" in line else line for line in lines))
    run = trained(manifest, tmp_path / "run", "--positive", "malignant")
    table = tmp_path / "three/new.csv"
    rng = np.random.default_rng(5)
    for name in "abcd":
        Image.fromarray(rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)).save(tmp_path / f"three/{name}.png")
    table.write_text("image,label\na.png,nevus\nb.png,malignant\nc.png,never heard of\nd.png,\n")
    ended = medtool("predict", run, table, "--out", tmp_path / "p")
    assert ended.code == 0, ended.err
    assert [row["label"] for row in rows(tmp_path / "p")] == ["not malignant", "malignant", "not malignant", ""]


def test_a_label_that_the_run_does_not_know_stays_and_is_counted(
    medtool: Run, one: Path, strangers: Path, tmp_path: Path
) -> None:
    table = strangers / "labels.csv"
    table.write_text("image,label\n0.png,scar\n1.png,scar\n2.png, benign \n")
    ended = medtool("predict", one, table, "--out", tmp_path / "p")
    table.unlink()
    assert ended.code == 0
    assert "2 labels are none of the runs' classes and stay as they are written: 'scar' (2)" in ended.err
    assert [row["label"] for row in rows(tmp_path / "p")] == ["scar", "scar", "benign"]


def test_patients_are_put_together_and_unknown_ones_stay_apart(
    medtool: Run, one: Path, strangers: Path, tmp_path: Path
) -> None:
    table = strangers / "patients.csv"
    (strangers / "gone").mkdir()
    (strangers / "gone/x.png").write_bytes(b"no image")
    patients = ("A", "B", "A", "", "", "A")
    lines = [f"{place}.png,{name},benign" for place, name in enumerate(patients)]
    table.write_text("\n".join(["image,patient,label", *lines, "gone/x.png,C,benign"]))
    ended = medtool("predict", one, table, "--patients", "mean", "--out", tmp_path / "p")
    assert ended.code == 4
    found = rows(tmp_path / "p", "patients.csv")
    assert [(row["patient"], row["image_id"], row["n_images"], row["n_failed"]) for row in found] == [
        *(("A", "", "3", "0"), ("B", "", "1", "0"), ("", "3.png", "1", "0"), ("", "4.png", "1", "0")),
        ("C", "", "0", "1"),
    ]
    images = {row["image_id"]: float(row["probability/malignant"] or "nan") for row in rows(tmp_path / "p")}
    mean = np.mean([images[f"{place}.png"] for place in (0, 2, 5)])
    assert float(found[0]["probability/malignant"]) == pytest.approx(mean, abs=1e-8)
    ended = medtool("predict", one, table, "--patients", "max", "--out", tmp_path / "p")
    assert "was finished before" in ended.err
    highest = max(images[f"{place}.png"] for place in (0, 2, 5))
    assert float(rows(tmp_path / "p", "patients.csv")[0]["probability/malignant"]) == pytest.approx(highest)
    assert json.loads((tmp_path / "p/lineage.json").read_text())["outputs"]["patients"] == "max"
    table.unlink()
    shutil.rmtree(strangers / "gone")


def test_metadata_comes_from_the_manifest_and_a_row_without_sense_fails_alone(
    medtool: Run, pictures: Path, strangers: Path, tmp_path: Path
) -> None:
    run = trained(pictures, tmp_path / "run", "--model", f"fusion/{MODEL}", "--metadata", "age,sex")
    ended = medtool("predict", run, pictures, "--split", "test", "--out", tmp_path / "own")
    assert ended.code == 0, ended.err
    before = [float(row["probability/benign"]) for row in rows(run) if row["split"] == "test"]
    assert [float(row["probability/benign"]) for row in rows(tmp_path / "own")] == pytest.approx(before, abs=1e-6)
    ended = medtool("predict", run, strangers, "--out", tmp_path / "plain")
    assert ended.code == 2
    assert "takes the column 'age' beside the image, and 0.png is no row of a manifest" in ended.err
    table = strangers / "ages.csv"
    table.write_text("image,age,sex\n0.png,50,male\n1.png,old,male\n2.png,,\n")
    ended = medtool("predict", run, table, "--out", tmp_path / "p")
    table.unlink()
    assert ended.code == 4
    assert [row["status"] for row in rows(tmp_path / "p")] == ["done", "failed", "done"]
    assert "held numbers in training; this row holds 'old'" in rows(tmp_path / "p")[1]["reason"]


def test_runs_of_folds_are_found_in_their_folder_and_each_predicts_its_held_out_fold(
    medtool: Run, folded: Path, strangers: Path, tmp_path: Path
) -> None:
    trained(folded, tmp_path / "cv", "--folds", "0,1")
    ended = medtool("predict", tmp_path / "cv", strangers, "--out", tmp_path / "p")
    assert ended.code == 0
    assert "2 networks" in ended.err
    ended = medtool("predict", tmp_path / "cv", folded, "--split", "test", "--out", tmp_path / "q")
    assert ended.code == 1
    assert "do not hold out one of them together" in ended.err
    fold = tmp_path / "cv/fold1_seed905"
    ended = medtool("predict", fold, folded, "--split", "test", "--out", tmp_path / "q")
    assert ended.code == 0, ended.err
    own = [row["image_id"] for row in rows(fold) if row["split"] == "test"]
    assert [row["image_id"] for row in rows(tmp_path / "q")] == own


def test_memory_holds_a_bounded_number_of_images_however_many_there_are(
    medtool: Run, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many").mkdir()
    for index in range(200):
        pixels = np.full((4, 4, 3), (index % 256, index // 256, 7), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"many/{index:03}.png")
    prepared, most = predict.prepared, 0
    known: dict[int, weakref.ref[Counted]] = {}

    class Counted(np.ndarray):
        """Pixels that can be referred to weakly."""

    def counted(*given: object) -> np.ndarray:
        nonlocal most
        pixels = prepared(*given).view(Counted)  # type: ignore[arg-type]
        key = id(pixels)
        known[key] = weakref.ref(pixels, lambda _: known.pop(key, None))
        most = max(most, len(known))
        return pixels

    monkeypatch.setattr(predict, "prepared", counted)
    monkeypatch.setattr(predict, "CHUNK", 60)
    ended = medtool("predict", one, tmp_path / "many", "--batch-size", 8, "--threads", 2, "--out", tmp_path / "p")
    assert ended.code == 0
    assert 8 <= most <= 8 * 6
    assert [row["image_id"] for row in rows(tmp_path / "p")] == [f"{index:03}.png" for index in range(200)]
    assert not (tmp_path / "p/.medtool-parts").exists()


def test_where_memory_is_short_the_batch_is_halved_and_said(
    medtool: Run, one: Path, strangers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ensemble.Ensemble._forward

    def small(self: ensemble.Ensemble, loaded: object, images: np.ndarray, metadata: object) -> np.ndarray:
        if len(images) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return forward(self, loaded, images, metadata)  # type: ignore[arg-type]

    assert medtool("predict", one, strangers, "--out", tmp_path / "a").code == 0
    monkeypatch.setattr(ensemble.Ensemble, "_forward", small)
    ended = medtool("predict", one, strangers, "--out", tmp_path / "b", "--batch-size", 16)
    assert ended.code == 0
    assert "memory does not suffice for 10 images at once; going on with 5" in ended.err
    np.testing.assert_allclose(probabilities(tmp_path / "a"), probabilities(tmp_path / "b"), atol=1e-6)


def test_a_network_whose_output_is_no_number_fails_that_row(
    medtool: Run, one: Path, strangers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ensemble.Ensemble._forward

    def broken(self: ensemble.Ensemble, *given: object) -> np.ndarray:
        logits = forward(self, *given).copy()  # type: ignore[arg-type]
        logits[2:3] = np.inf  # of the third image; a part of the batch that ends before it stays as it is
        return logits

    monkeypatch.setattr(ensemble.Ensemble, "_forward", broken)
    ended = medtool("predict", one, strangers, "--out", tmp_path / "p")
    assert ended.code == 4
    assert [row["image_id"] for row in rows(tmp_path / "p") if row["status"] == "failed"] == ["2.png"]


def spoil_lineage(run: Path) -> None:
    lineage = json.loads((run / "lineage.json").read_text())
    (run / "lineage.json").write_text(json.dumps({**lineage, "status": "unfinished"}))


def spoil_calibration(run: Path) -> None:
    (run / "calibration.json").write_text('{"format": "medtool-run-calibration", "version": 1}')


def cut_calibration(run: Path) -> None:
    (run / "calibration.json").write_bytes((run / "calibration.json").read_bytes()[:50])


def change_calibration(run: Path) -> None:
    text = (run / "calibration.json").read_text()
    (run / "calibration.json").write_text(text.replace('"n_images"', '"n_images" '))


def tamper(run: Path) -> None:
    name = json.loads((run / "lineage.json").read_text())["outputs"]["checkpoint"]
    path = run / "checkpoints" / name
    state = load_file(path)
    save_file({key: value + 1 for key, value in state.items()}, path)


def lose_seen(run: Path) -> None:
    (run / "seen.csv").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_lineage, "is not finished"),
        (spoil_calibration, "it has no thresholds"),
        (cut_calibration, "is not a JSON file"),
        (change_calibration, "is not the calibration that the run ended with"),
        (tamper, "is damaged, or not the file that"),
        (lose_seen, "has no seen.csv"),
    ],
)
def test_a_spoilt_run_is_one_clear_line(
    medtool: Run, copy: Path, strangers: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(copy)
    ended = medtool("predict", copy, strangers, "--out", tmp_path / "p")
    assert ended.code in (1, 2)
    lines = [line for line in ended.err.splitlines() if line.startswith("medtool:")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "p").exists()


def test_runs_of_other_classes_or_copies_of_one_run_do_not_answer_together(
    medtool: Run, one: Path, copy: Path, strangers: Path, tmp_path: Path
) -> None:
    manifest = write_pictures(tmp_path / "other")
    manifest.write_text(manifest.read_text().replace("malignant", "nevus"))
    other = trained(manifest, tmp_path / "run")
    ended = medtool("predict", one, other, strangers, "--out", tmp_path / "p")
    assert ended.code == 2
    assert "knows the classes benign, malignant, and" in ended.err
    ended = medtool("predict", one, copy, strangers, "--out", tmp_path / "p")
    assert ended.code == 2
    assert "is given twice, or is a copy" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{strangers}",), "is not a run"),
        (("{one}",), "is a run, and no images are given"),
        (("nowhere", "{strangers}"), "nowhere is not a run"),
        (("{one}", "{strangers}", "--split", "training"), "must be some of train, val, test"),
        (("{one}", "{strangers}", "--split", "test"), "no image is in the part test"),
        (("{one}", "{strangers}", "-0"), "no input is -"),
        (("{one}", "{strangers}", "--batch-size", "-1"), "--batch-size is -1"),
        (("{one}", "{strangers}", "--precision", "fp16"), "fp16 is for GPUs"),
        (("{one}", "{strangers}", "--out", ""), "empty text"),
        (("{one}", "{strangers}", "--out", "{one}"), "holds the result of 'medtool train'"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(
    medtool: Run, one: Path, strangers: Path, arguments: tuple[str, ...], said: str
) -> None:
    filled = [word.format(one=one, strangers=strangers) for word in arguments]
    ended = medtool("predict", *filled)
    assert ended.code in (1, 2)
    lines = [line for line in ended.err.splitlines() if line.startswith("medtool:")]
    assert len(lines) == 1
    assert said in lines[0]


def test_another_option_or_other_images_are_not_mixed_with_what_is_there(
    medtool: Run, one: Path, strangers: Path, tmp_path: Path
) -> None:
    assert medtool("predict", one, strangers, "--out", tmp_path / "p").code == 0
    ended = medtool("predict", one, strangers, "--tta", "flips", "--out", tmp_path / "p")
    assert ended.code == 1
    assert "options.tta was none, now flips" in ended.err
    ended = medtool("predict", one, strangers / "1.png", "--out", tmp_path / "p")
    assert "holds the predictions of other images" in ended.err
    ended = medtool("predict", one, strangers / "1.png", "--overwrite", "--out", tmp_path / "p", "--json")
    assert json.loads(ended.out)["n_done"] == 1
    assert len(rows(tmp_path / "p")) == 1


def test_precisions_and_layouts_agree(medtool: Run, one: Path, strangers: Path, tmp_path: Path) -> None:
    for name, more in (("a", []), ("b", ["--channels-first"]), ("c", ["--precision", "bf16"])):
        assert medtool("predict", one, strangers, *more, "--out", tmp_path / name).code == 0
    a, b, c = (probabilities(tmp_path / name) for name in "abc")
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert 0 < np.abs(a - c).max() < 0.05


def test_each_set_of_poses_holds_every_pose_of_a_pose_and_only_squares_are_turned_on_their_side() -> None:
    picture = torch.arange(9).view(1, 1, 3, 3)
    square, wide = (Preprocessing(3, width, (0.5,), (0.2,)) for width in (3, 4))

    def shown(images: Iterable[torch.Tensor]) -> set[tuple[int, ...]]:
        return {tuple(image.flatten().tolist()) for image in images}

    for views, n_poses in ((Views.NONE, 1), (Views.FLIPS, 4), (Views.QUARTER_TURNS, 4), (Views.ALL, 8)):
        poses = poses_of(views, square)
        once = [posed(picture, pose) for pose in poses]
        assert len(shown(once)) == n_poses
        assert torch.equal(once[0], picture)
        assert shown(posed(image, pose) for image in once for pose in poses) == shown(once)
    assert len(poses_of(Views.FLIPS, wide)) == 4
    for views in (Views.QUARTER_TURNS, Views.ALL):
        with pytest.raises(UsageError, match="3 × 4 pixels, which cannot be turned by 90°"):
            poses_of(views, wide)


def test_a_manifest_whose_split_leaks_is_refused_or_marked(
    medtool: Run, one: Path, pictures: Path, tmp_path: Path
) -> None:
    leaky = Path(shutil.copytree(pictures.parent, tmp_path / "leaky")) / "manifest.csv"
    header, *lines = leaky.read_text().splitlines()
    # A patient of the test part, whom the run has not seen, has an image in the train part too.
    (row,) = [line for line in lines if ",i17," in line]
    assert row.split(",")[4] == "test"
    changed = [line.replace(",test,", ",train,") if line == row else line for line in lines]
    leaky.write_text("\n".join([header, *changed]) + "\n")
    command = ("predict", one, leaky, "--split", "test", "--out", tmp_path / "out", "--device", "cpu")
    refused = medtool(*command)
    assert refused.code == 3
    assert "leaks: G101" in refused.err
    assert "--allow-leak" in refused.err
    assert not (tmp_path / "out").exists()
    allowed = medtool(*command, "--allow-leak")
    assert allowed.code == 0, allowed.err
    assert "predicted in spite of G101" in allowed.err
    made_with = json.loads((tmp_path / "out/lineage.json").read_text())["made_with"]
    assert [leak["code"] for leak in made_with["leaks"]] == ["G101"]

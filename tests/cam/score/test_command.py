"""``medtool cam score``: from files to a document, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medtool.heatmaps import HeatmapAttributes, open_heatmaps, write_heatmaps_file
from tests.cam.score.conftest import heatmaps
from tests.conftest import Ended

Run = Callable[..., Ended]
OF_MASKS = {"pointing_game", "energy_inside", "mask_area", "iou", "iou_best", "box_ap50", "box_ap75"}


def row(document: dict[str, Any], score: str, *, name: str | None = None, result: int = 0) -> dict[str, Any]:
    """Return one value of a document."""
    rows = document["results"][result]["scores"]
    (found,) = (each for each in rows if each["score"] == score and each["class"] == name)
    return found


def scored(medtool: Run, *words: object, code: int = 0) -> dict[str, Any]:
    """Return the document of a command that ends with a code."""
    ended = medtool("cam", "score", *words, "--json")
    assert ended.code == code, ended.err
    return json.loads(ended.out)


def own_maps(
    folder: Path, manifest: Path, *, change: Callable[[str, np.ndarray], np.ndarray | None] | None = None
) -> Path:
    """Write maps that are the masks, seen coarsely, as another program would; return the file."""
    maps, ids = [], []
    for line in manifest.read_text().splitlines()[1:]:
        cells = line.split(",")
        mask = np.asarray(Image.open(manifest.parent / cells[4]).resize((12, 10), Image.Resampling.BOX)) / 255.0
        changed = mask if change is None else change(cells[1], mask)
        if changed is not None:
            maps.append(changed)
            ids.append(cells[1])
    write_heatmaps_file(folder / "own.h5", maps, image_ids=ids, attributes=HeatmapAttributes("masks", target="benign"))
    return folder / "own.h5"


def with_rows(manifest: Path, out: Path, change: Callable[[list[str]], list[str]]) -> Path:
    """Write a manifest whose rows are changed, beside the first."""
    head, *rows = manifest.read_text().splitlines()
    path = manifest.parent / out.name
    path.write_text("\n".join([head, *(",".join(change(row.split(","))) for row in rows)]) + "\n")
    return path


def test_maps_of_the_masks_score_well_and_every_value_says_of_how_many(
    medtool: Run, pictures: Path, tmp_path: Path
) -> None:
    cams = own_maps(tmp_path, pictures)
    document = scored(medtool, cams, pictures, "--split", "test", "--out", tmp_path / "scores.json")
    assert (document["format"], document["version"]) == ("medtool-cam-scores", 1)
    assert json.loads((tmp_path / "scores.json").read_text()) == document
    assert (document["n_images"], document["n_patients"], document["n_seen"]) == (16, 8, 0)
    names = [each["class"] for each in document["results"][0]["scores"]]
    assert list(dict.fromkeys(names)) == ["benign", "malignant", None]
    hit = row(document, "pointing_game")
    assert (hit["value"], hit["n_images"], hit["n_patients"], hit["n_excluded"]) == (1, 16, 8, 0)
    assert row(document, "pointing_game", name="benign")["n_images"] == 8
    assert row(document, "energy_inside")["value"] > 0.75 > row(document, "mask_area")["value"]
    iou, best = row(document, "iou"), row(document, "iou_best")
    assert iou["low"] <= iou["value"] <= iou["high"]
    assert iou["value"] > 0.8
    assert (iou["is_oracle"], best["is_oracle"]) == (False, True)
    assert "8 images of the val part" in iou["threshold_from"]
    assert row(document, "box_ap50")["value"] == 1
    result = document["results"][0]
    assert (result["method"], result["is_oracle"], result["is_lineage_known"]) == ("masks", False, False)
    assert result["sanity"] is None
    assert document["made_with"]["split"] == ["test"]
    assert not OF_MASKS - {each["score"] for each in result["scores"]}


def test_a_table_is_shown_to_people_and_names_to_pipes(medtool: Run, pictures: Path, tmp_path: Path) -> None:
    cams = own_maps(tmp_path, pictures)
    ended = medtool("cam", "score", cams, pictures, "--split", "test")
    assert ended.code == 0
    head, *lines = ended.out.splitlines()
    assert head.split("  ")[0] == "heatmaps"
    assert any("pointing_game" in line and "1.000 to 1.000" in line for line in lines)
    assert any("iou_best" in line and "oracle" in line for line in lines)
    assert "best of 19 on 8 images of the val part" in ended.err
    assert "taken on trust" in ended.err
    assert medtool("cam", "score", cams, pictures, "--split", "test", "-q").out == "own.h5\n"


def test_what_is_wrong_with_an_image_costs_that_image(medtool: Run, pictures: Path, tmp_path: Path) -> None:
    folder = pictures.parent
    ids = [line.split(",")[1] for line in pictures.read_text().splitlines()[1:] if line.endswith(",test")]
    nothing, flat, no_mask, empty, other_size, broken = ids[:6]
    Image.fromarray(np.zeros((80, 96), np.uint8)).save(folder / "masks/empty.png")
    Image.fromarray(np.ones((96, 80), np.uint8)).save(folder / "masks/turned.png")
    (folder / "masks/broken.png").write_bytes(b"no image")
    masks = {no_mask: "", empty: "masks/empty.png", other_size: "masks/turned.png", broken: "masks/broken.png"}

    def change(image_id: str, mask: np.ndarray) -> np.ndarray | None:
        return None if image_id == nothing else np.full((10, 12), 0.5) if image_id == flat else mask

    cams = own_maps(tmp_path, pictures, change=change)
    manifest = with_rows(
        pictures, Path("wrong.csv"), lambda cells: [*cells[:4], masks.get(cells[1], cells[4]), *cells[5:]]
    )
    ended = medtool("cam", "score", cams, manifest, "--split", "test", "--json")
    assert ended.code == 4
    document = json.loads(ended.out)
    hit = row(document, "pointing_game")
    assert (hit["n_images"], hit["n_excluded"], hit["value"]) == (10, 6, 1)
    reasons = list(hit["excluded"])
    assert {
        "there is no map of it",
        "its map has one value everywhere",
        "the manifest names no mask",
        "the mask is empty",
        "the mask is 80 × 96 pixels and the image 96 × 80",
    } <= set(reasons)
    assert any(reason.startswith("the mask cannot be used: ") for reason in reasons)
    failed = {each["image_id"] for each in document["failed"]}
    assert failed == {nothing, flat, other_size, broken}
    assert f"{nothing}: there is no map of it" in ended.err
    per_class = [row(document, "pointing_game", name=name) for name in ("benign", "malignant")]
    assert sum(each["n_images"] for each in per_class) == 10
    assert sum(each["n_excluded"] for each in per_class) == 6


def test_a_map_of_an_image_that_has_changed_is_not_scored(
    medtool: Run, pictures: Path, gradcam: Path, tmp_path: Path
) -> None:
    with open_heatmaps(gradcam) as file:
        ids, maps = file.ids, np.stack([file.raw(name) for name in file.ids])
        sha256 = {name: file.sha256_of(name) for name in ids}
    sha256[ids[-1]] = "0" * 64
    attributes = HeatmapAttributes("gradcam")
    write_heatmaps_file(tmp_path / "cams.h5", maps, image_ids=ids, attributes=attributes, image_sha256=sha256)
    document = scored(medtool, tmp_path / "cams.h5", pictures, "--split", "test", code=4)
    assert document["failed"] == [{"image_id": ids[-1], "reason": "the image has changed since its map was made"}]


def test_the_network_is_asked_where_its_run_is_given(
    medtool: Run, pictures: Path, trained: Path, gradcam: Path, eigencam: Path
) -> None:
    words = (gradcam, pictures, "--split", "test", "--run", trained, "--device", "cpu", "--steps", 6)
    document = scored(medtool, *words, "--compare", eigencam, "--sanity", "--sanity-images", 4, "--sanity-stages", 2)
    for name in ("deletion_mean", "insertion_blur", "road", "average_drop"):
        each = row(document, name)
        assert (each["n_images"], each["n_patients"]) == (16, 8)
        assert each["low"] <= each["value"] <= each["high"]
    assert row(document, "deletion_mean")["better"] == "lower"
    first, second = document["results"]
    assert first["sanity"]["needs_classifier"]
    assert not second["sanity"]["needs_classifier"]
    assert not second["sanity"]["passes"]
    assert second["sanity"]["stages"][0]["down_to"] == "fc"
    compared = {each["score"]: each for each in document["comparisons"]}
    assert "mask_area" not in compared
    for name in ("pointing_game", "insertion_mean"):
        apart = row(document, name, result=1)["value"] - row(document, name)["value"]
        assert compared[name]["difference"] == pytest.approx(apart)
        assert 0 < compared[name]["p_value"] <= compared[name]["p_adjusted"] <= 1
    assert compared["insertion_mean"]["second"] == {"heatmaps": "eigencam.h5", "method": "eigencam"}
    again = scored(medtool, *words, "--batch-size", 7, "--threads", 1)
    assert row(again, "road")["value"] == pytest.approx(row(document, "road")["value"], abs=1e-6)


def test_a_file_compared_with_itself_does_not_differ(
    medtool: Run, pictures: Path, gradcam: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(gradcam.read_bytes())
    document = scored(medtool, gradcam, pictures, "--split", "test", "--compare", copy)
    for each in document["comparisons"]:
        assert (each["difference"], each["p_value"], each["p_adjusted"]) == (0, 1, 1)


def test_what_the_network_has_seen_is_refused_or_marked(
    medtool: Run, pictures: Path, trained: Path, gradcam: Path
) -> None:
    ended = medtool("cam", "score", gradcam, pictures)
    assert ended.code == 3
    assert "--split test" in ended.err
    ended = medtool("cam", "score", gradcam, pictures, "--split", "val", "--run", trained)
    assert ended.code == 3
    ended = medtool("cam", "score", gradcam, pictures, "--split", "val,test", "--allow-seen", "--json")
    assert ended.code == 0
    assert "seen by the network" in ended.err
    document = json.loads(ended.out)
    assert document["n_seen"] == 8
    assert row(document, "iou")["n_seen"] == 8
    assert row(document, "iou")["threshold"] == 0.5  # val is scored, so that it chooses nothing


def test_an_image_whose_content_the_run_has_seen_is_refused_whatever_it_is_called(
    medtool: Run, pictures: Path, trained: Path, tmp_path: Path
) -> None:
    rows = [line.split(",") for line in pictures.read_text().splitlines()[1:]]
    seen = next(cells for cells in rows if cells[5] == "train")
    swapped = next(cells[1] for cells in rows if cells[5] == "test")
    manifest = with_rows(
        pictures,
        Path("renamed.csv"),
        lambda cells: [seen[0], *cells[1:4], seen[4], cells[5]] if cells[1] == swapped else cells,
    )
    cams = heatmaps(trained, pictures, tmp_path / "cams.h5")
    with open_heatmaps(cams) as file:
        ids, maps, attributes = file.ids, np.stack([file.raw(name) for name in file.ids]), file.attributes
    write_heatmaps_file(tmp_path / "plain.h5", maps, image_ids=ids, attributes=attributes)
    words = (tmp_path / "plain.h5", manifest, "--split", "test", "--run", trained, "--device", "cpu", "--steps", 2)
    document = scored(medtool, *words, code=4)
    assert document["failed"] == [{"image_id": swapped, "reason": "the run was trained on this very image"}]
    assert row(document, "road")["n_images"] == row(document, "iou")["n_images"] == 15


def test_a_map_for_each_class_is_chosen_by_the_target_and_the_true_one_is_an_oracle(
    medtool: Run, pictures: Path, trained: Path, gradcam: Path, tmp_path: Path
) -> None:
    cams = heatmaps(trained, pictures, tmp_path / "all.h5", "--target", "all")
    words = (cams, pictures, "--split", "test")
    predicted = scored(medtool, *words)
    plain = scored(medtool, gradcam, pictures, "--split", "test")
    assert row(predicted, "energy_inside")["value"] == pytest.approx(row(plain, "energy_inside")["value"], abs=1e-6)
    assert not predicted["results"][0]["is_oracle"]
    true = scored(medtool, *words, "--target", "label", code=4 if flagged(cams, pictures) else 0)
    assert true["results"][0]["is_oracle"]
    assert row(true, "pointing_game")["is_oracle"]
    ended = medtool("cam", "score", *words, "--target", "malignent")
    assert ended.code == 2
    assert "Did you mean 'malignant'" in ended.err
    ended = medtool("cam", "score", gradcam, pictures, "--split", "test", "--target", "malignant")
    assert ended.code == 2
    assert "one map an image" in ended.err
    of_labels = heatmaps(trained, pictures, tmp_path / "labels.h5", "--target", "label")
    found = json.loads(medtool("cam", "score", of_labels, pictures, "--split", "test", "--json").out)
    assert found["results"][0]["is_oracle"]
    assert all(each["is_oracle"] for each in found["results"][0]["scores"])
    assert row(found, "energy_inside")["value"] == pytest.approx(row(true, "energy_inside")["value"], abs=1e-6)


def flagged(cams: Path, manifest: Path) -> bool:
    """Tell whether some test image has no map of its label that shows anything."""
    rows = [line.split(",") for line in manifest.read_text().splitlines()[1:]]
    with open_heatmaps(cams) as file:
        return any(file.flag_of(cells[1], cells[3]) for cells in rows if cells[5] == "test")


def test_maps_of_another_network_or_of_several_are_no_business_of_a_run(
    medtool: Run, pictures: Path, trained: Path, gradcam: Path, tmp_path: Path
) -> None:
    with open_heatmaps(gradcam) as file:
        ids, maps, own = file.ids, np.stack([file.raw(name) for name in file.ids]), file.attributes
    for weights, message in (
        ("a" * 64, "was made by weights aaaa"),
        ("", "by a network that the file does not name"),
        (f"{own.weights},{'b' * 64}", "maps of 2 networks together"),
    ):
        write_heatmaps_file(tmp_path / "cams.h5", maps, image_ids=ids, attributes=replace(own, weights=weights))
        ended = medtool("cam", "score", tmp_path / "cams.h5", pictures, "--split", "test", "--run", trained)
        assert ended.code == 1
        assert message in ended.err
    write_heatmaps_file(tmp_path / "cams.h5", maps, image_ids=ids, attributes=replace(own, target="somewhere"))
    ended = medtool("cam", "score", tmp_path / "cams.h5", pictures, "--split", "test", "--run", trained)
    assert ended.code == 2
    assert "the network knows benign, malignant" in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sanity",), "--sanity needs the network"),
        (("--device", "cpu"), "there is no --run"),
        (("--threshold", 0), "--threshold is 0"),
        (("--tolerance", -1), "--tolerance is -1"),
        (("--out", "scores.csv"), "the name of a .json file"),
        (("--group", "lesion"), "no column of the manifest"),
        (("--split", "tests"), "must be some of"),
        (("--fold", 3), "no fold 3"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    words: tuple[object, ...], message: str, medtool: Run, pictures: Path, tmp_path: Path
) -> None:
    ended = medtool("cam", "score", own_maps(tmp_path, pictures), pictures, *words)
    assert ended.code in (1, 2)
    assert message in ended.err


def test_a_manifest_without_masks_needs_a_run_and_one_of_other_images_is_said(
    medtool: Run, pictures: Path, trained: Path, gradcam: Path, tmp_path: Path
) -> None:
    bare = with_rows(pictures, Path("bare.csv"), lambda cells: [*cells[:4], "", cells[5]])
    ended = medtool("cam", "score", gradcam, bare, "--split", "test")
    assert ended.code == 2
    assert "nothing to score" in ended.err
    words = ("--split", "test", "--run", trained, "--device", "cpu", "--steps", 2)
    document = scored(medtool, gradcam, bare, *words)
    assert {each["kind"] for each in document["results"][0]["scores"]} == {"faithfulness"}
    others = with_rows(pictures, Path("others.csv"), lambda cells: [cells[0], f"x{cells[1]}", *cells[2:]])
    ended = medtool("cam", "score", gradcam, others, "--split", "test")
    assert ended.code == 1
    assert "no map of any of the 16 images" in ended.err
    assert medtool("cam", "score", gradcam, pictures, "--compare", gradcam).code == 2


def test_folds_say_which_images_are_held_out(medtool: Run, pictures: Path, tmp_path: Path) -> None:
    folder = pictures.parent
    head, *rows = pictures.read_text().splitlines()
    folded = folder / "folds.csv"
    lines = [row.rpartition(",")[0] + f",{place // 4 % 3}" for place, row in enumerate(rows)]
    folded.write_text("\n".join([head.replace("split", "fold"), *lines]) + "\n")
    cams = own_maps(tmp_path, pictures)
    ended = medtool("cam", "score", cams, folded, "--split", "test")
    assert ended.code == 2
    assert "--fold 0" in ended.err
    document = scored(medtool, cams, folded, "--split", "test", "--fold", 1)
    assert document["n_images"] == sum(1 for line in lines if line.endswith(",1"))


def test_localisation_loads_no_torch(pictures: Path, tmp_path: Path) -> None:
    cams = own_maps(tmp_path, pictures)
    code = (
        "import sys; from medtool.cli.app import run;"
        f"code = run(['cam', 'score', {str(cams)!r}, {str(pictures)!r}, '--split', 'test', '-q']);"
        "sys.exit(code or ('torch' in sys.modules) * 50)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr.decode()


def test_an_interrupted_call_goes_on_and_ends_like_one_that_was_not(
    medtool: Run, pictures: Path, trained: Path, gradcam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medtool.cam.score import faithfulness

    words = ("--split", "test", "--run", trained, "--device", "cpu", "--steps", 3, "--batch-size", 30)
    whole = scored(medtool, gradcam, pictures, *words, "--out", tmp_path / "whole.json")
    answers, asked = faithfulness._answers, []

    def stopping(*given: Any) -> Any:
        asked.append(len(given[0]))
        if len(asked) == 6:
            raise KeyboardInterrupt
        return answers(*given)

    monkeypatch.setattr(faithfulness, "_answers", stopping)
    ended = medtool("cam", "score", gradcam, pictures, *words, "--out", tmp_path / "scores.json")
    assert ended.code == 130
    assert not (tmp_path / "scores.json").exists()
    assert [path.name for path in tmp_path.glob(".medtool*")] == [".medtool-parts-scores.json"]
    document = scored(medtool, gradcam, pictures, *words, "--out", tmp_path / "scores.json")
    assert document == whole
    assert (tmp_path / "scores.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert sum(asked[:5]) + sum(asked[6:]) == 16  # none of them twice
    assert not list(tmp_path.glob(".medtool*"))


def test_a_place_that_cannot_be_written_fails_before_the_work(
    medtool: Run, pictures: Path, gradcam: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ended = medtool("cam", "score", gradcam, pictures, "--split", "test", "--out", tmp_path / "file" / "scores.json")
    assert ended.code == 1
    assert "cannot write" in ended.err

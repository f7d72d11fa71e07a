"""``medtool segment`` from end to end, in this process, with the embedded segmenter."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medtool.heatmaps import HeatmapAttributes, write_heatmaps_file
from medtool.segment.heatmap import HeatmapThreshold
from tests.segment.conftest import lesion_image


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "masks.csv").open(newline="", encoding="utf-8") as stream:
        return {row["image_id"]: row for row in csv.DictReader(stream)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(medtool: Callable[..., Any], out: Path) -> Callable[..., Any]:
    def call(*arguments: object) -> Any:
        return medtool("segment", *arguments, "--out", out, "--workers", 1, "--segmenter", "random-walker")

    return call


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_every_image_gets_a_label_png_of_its_size_under_its_relative_path(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    ended = run(lesion_folder)
    assert (ended.code, ended.out) == (0, f"{out / 'masks.csv'}\n")
    assert sorted(tree(out / "masks")) == [f"site{index % 2}/image{index}.png" for index in (0, 2, 4, 1, 3, 5)]
    for index in range(6):
        with Image.open(out / "masks" / f"site{index % 2}" / f"image{index}.png") as picture:
            labels = np.array(picture)
        truth = lesion_image(index)[1]
        assert labels.dtype == np.uint8
        assert labels.shape == truth.shape
        assert set(np.unique(labels)) == {0, 1}
        assert iou(labels == 1, truth) > 0.9


def test_the_table_says_what_was_done(run: Callable[..., Any], lesion_folder: Path, out: Path) -> None:
    assert run(lesion_folder, "--points", 3, "--negatives", 2).code == 0
    table = rows(out)
    assert sorted(table) == sorted(f"site{index % 2}/image{index}.png" for index in range(6))
    for name, row in table.items():
        labels = np.array(Image.open(out / row["mask"]))
        points, kinds = np.array(json.loads(row["points"])), json.loads(row["point_labels"])
        assert (row["status"], row["reason"], row["segmenter"]) == ("done", "", "random-walker")
        assert (int(row["width"]), int(row["height"])) == (96, 72)
        assert int(row["area_px"]) == (labels == 1).sum()
        assert kinds == [1, 1, 1, 0, 0]
        truth = lesion_image(int(name[-5]))[1]
        inside = [bool(truth[int(y), int(x)]) for x, y in points]
        assert inside == [True, True, True, False, False]
        assert 0 <= float(row["score"]) <= 1


def test_the_lineage_holds_every_option_that_decides_the_masks(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    assert run(lesion_folder, "--power", 12.5, "--keep-holes").code == 0
    lineage = json.loads((out / "lineage.json").read_text())
    assert lineage["status"] == "finished"
    assert lineage["made_with"]["prompt"] == {
        "points": 5, "negatives": 0, "strategy": "power", "power": 12.5, "min_distance_px": 0.0, "seed": 905,
    }  # fmt: skip
    assert lineage["made_with"]["clean"]["fill_holes"] is False
    assert lineage["made_with"]["segmenter"]["name"] == "random-walker"
    assert lineage["made_with"]["heatmap"]["source"] == "saliency"
    assert lineage["images"]["n"] == 6
    assert lineage["outputs"]["n_done"] == 6


def test_a_config_file_can_say_the_negated_name_of_a_switch(
    run: Callable[..., Any], lesion_folder: Path, out: Path, tmp_path: Path
) -> None:
    config = tmp_path / "options.toml"
    config.write_text("[segment]\nkeep-holes = true\npoints = 2\n")
    assert run(lesion_folder, "--config", config).code == 0
    made_with = json.loads((out / "lineage.json").read_text())["made_with"]
    assert made_with["clean"]["fill_holes"] is False
    assert made_with["prompt"]["points"] == 2


def test_a_second_run_skips_what_is_finished_and_writes_nothing(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    run(lesion_folder)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    ended = run(lesion_folder)
    assert ended.code == 0
    assert "0 segmented, 6 were finished before" in ended.err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_points_and_masks_do_not_depend_on_order_or_on_the_other_images(
    medtool: Callable[..., Any], run: Callable[..., Any], lesion_folder: Path, out: Path, tmp_path: Path
) -> None:
    run(lesion_folder)
    other = tmp_path / "one"
    image = lesion_folder / "site1" / "image3.png"
    assert medtool("segment", image, "--out", other, "--segmenter", "random-walker").code == 0
    alone, together = rows(other)["image3.png"], rows(out)["site1/image3.png"]
    for column in ("points", "mask_sha256", "score", "image_sha256"):
        assert alone[column] == together[column], column


def test_two_processes_give_the_same_files_as_one(
    medtool: Callable[..., Any], run: Callable[..., Any], lesion_folder: Path, out: Path, tmp_path: Path
) -> None:
    run(lesion_folder)
    other = tmp_path / "two"
    ended = medtool("segment", lesion_folder, "--out", other, "--workers", 2, "--segmenter", "random-walker")
    assert ended.code == 0, ended.err
    assert tree(other) == tree(out)


def test_a_dask_cluster_gives_the_same_files_as_this_process(
    medtool: Callable[..., Any], run: Callable[..., Any], lesion_folder: Path, out: Path, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    run(lesion_folder)
    other = tmp_path / "cluster"
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        ended = medtool(
            "segment", lesion_folder, "--out", other, "--segmenter", "random-walker",
            "--cluster", cluster.scheduler_address,
        )  # fmt: skip
    assert ended.code == 0, ended.err
    assert tree(other) == tree(out)


def test_more_images_in_the_folder_are_added_to_the_result(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    late = lesion_folder / "site1" / "image5.png"
    bytes_of_late = late.read_bytes()
    late.unlink()
    run(lesion_folder)
    late.write_bytes(bytes_of_late)
    ended = run(lesion_folder)
    assert "1 segmented, 5 were finished before" in ended.err
    once = tree(out)
    shutil.rmtree(out)
    run(lesion_folder)
    assert tree(out) == once


def test_other_options_are_refused_and_overwrite_replaces_the_result(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    run(lesion_folder)
    before = tree(out)
    ended = run(lesion_folder, "--points", 7)
    assert ended.code == 1
    assert "prompt.points was 5, now 7" in ended.err
    assert "--overwrite" in ended.err
    assert tree(out) == before
    assert run(lesion_folder, "--points", 7, "--overwrite").code == 0
    assert len(json.loads(rows(out)["site0/image0.png"]["points"])) == 7


def test_a_call_that_came_to_nothing_does_not_stand_in_the_way_of_other_options(
    medtool: Callable[..., Any], run: Callable[..., Any], lesion_folder: Path, out: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"no weights")
    failed = medtool("segment", lesion_folder, "--out", out, "--segmenter", "sam-vit-b", "--weights", weights)
    assert failed.code == 1
    assert str(weights) in failed.err
    assert run(lesion_folder).code == 0
    assert json.loads((out / "lineage.json").read_text())["made_with"]["segmenter"]["name"] == "random-walker"


def test_changed_images_are_refused_and_overwrite_takes_them(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    run(lesion_folder)
    before = tree(out)
    Image.fromarray(lesion_image(77)[0]).save(lesion_folder / "site0" / "image2.png")
    ended = run(lesion_folder)
    assert ended.code == 1
    assert "site0/image2.png changed since its mask was made" in ended.err
    assert "--overwrite" in ended.err
    assert tree(out) == before
    assert run(lesion_folder, "--overwrite").code == 0
    assert rows(out)["site0/image2.png"]["image_sha256"] != rows(out)["site0/image4.png"]["image_sha256"]
    labels = np.array(Image.open(out / "masks" / "site0" / "image2.png"))
    assert iou(labels == 1, lesion_image(77)[1]) > 0.9


def test_overwrite_removes_only_what_medtool_wrote(run: Callable[..., Any], lesion_folder: Path, out: Path) -> None:
    run(lesion_folder)
    (out / "masks" / "notes.txt").write_text("mine")
    (lesion_folder / "site1" / "image5.png").unlink()
    assert run(lesion_folder, "--overwrite", "--points", 2).code == 0
    assert (out / "masks" / "notes.txt").read_text() == "mine"
    assert not (out / "masks" / "site1" / "image5.png").exists()


def test_a_lost_mask_is_made_again(run: Callable[..., Any], lesion_folder: Path, out: Path) -> None:
    run(lesion_folder)
    before = tree(out)
    (out / "masks" / "site0" / "image0.png").unlink()
    ended = run(lesion_folder)
    assert "1 segmented, 5 were finished before" in ended.err
    assert tree(out) == before


def test_a_mask_corrected_by_hand_is_not_replaced_without_overwrite(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    run(lesion_folder)
    before = tree(out)
    corrected = out / "masks" / "site0" / "image2.png"
    Image.fromarray(np.ones((72, 96), np.uint8)).save(corrected)
    by_hand = corrected.read_bytes()
    ended = run(lesion_folder)
    assert ended.code == 1
    assert "the mask of site0/image2.png was changed by hand" in ended.err
    assert "--overwrite" in ended.err
    assert corrected.read_bytes() == by_hand
    assert run(lesion_folder, "--overwrite").code == 0
    assert tree(out) == before


def test_a_result_without_its_table_or_with_a_damaged_one_is_not_written_over(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    run(lesion_folder)
    table = out / "masks.csv"
    text = table.read_text(encoding="utf-8")
    before = tree(out / "masks")
    table.write_text(text.replace(",done,", ",DONE,"), encoding="utf-8")
    ended = run(lesion_folder)
    assert ended.code == 1
    assert "its status is 'DONE'" in ended.err
    table.unlink()
    ended = run(lesion_folder)
    assert ended.code == 1
    assert "masks.csv is gone" in ended.err
    assert "--overwrite" in ended.err
    assert tree(out / "masks") == before
    assert run(lesion_folder, "--overwrite").code == 0
    assert table.read_text(encoding="utf-8") == text


def test_finished_rows_survive_a_call_that_cannot_read_their_images(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    run(lesion_folder)
    before = tree(out)
    ended = run(lesion_folder, "--overlays", "--max-pixels", 10)
    assert ended.code == 4
    assert "--max-pixels" in ended.err
    assert tree(out) == before
    (lesion_folder / "site0" / "image0.png").write_bytes(b"")
    assert run(lesion_folder).code == 1
    assert tree(out) == before


def test_a_failed_row_goes_when_its_image_goes(run: Callable[..., Any], lesion_folder: Path, out: Path) -> None:
    (lesion_folder / "bad.png").write_bytes(b"bad")
    assert run(lesion_folder).code == 4
    (lesion_folder / "bad.png").unlink()
    assert run(lesion_folder).code == 0
    after = tree(out)
    assert "bad.png" not in rows(out)
    shutil.rmtree(out)
    run(lesion_folder)
    assert tree(out) == after


def test_another_set_of_images_is_not_mixed_into_a_result(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    assert run(lesion_folder / "site0").code == 0
    before = tree(out)
    ended = run(lesion_folder / "site1")
    assert ended.code == 1
    assert "3 other images, such as image0.png" in ended.err
    assert tree(out) == before


def test_overwrite_of_a_stopped_call_takes_other_images_too(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    assert run(lesion_folder / "site0").code == 0
    path = out / "lineage.json"
    stopped = {**json.loads(path.read_text()), "status": "unfinished"}
    path.write_text(json.dumps(stopped))
    assert run(lesion_folder / "site1").code == 1
    assert run(lesion_folder / "site1", "--overwrite").code == 0
    assert sorted(rows(out)) == ["image1.png", "image3.png", "image5.png"]
    assert sorted(tree(out / "masks")) == ["image1.png", "image3.png", "image5.png"]


def test_odd_names_cost_their_own_rows_only(run: Callable[..., Any], lesion_folder: Path, out: Path) -> None:
    Image.fromarray(lesion_image(7)[0]).save(lesion_folder / "x.bmp")
    Image.fromarray(lesion_image(8)[0]).save(lesion_folder / "return\rand\nfeed.png")
    (lesion_folder / "x.png").mkdir()
    Image.fromarray(lesion_image(9)[0]).save(lesion_folder / "x.png" / "y.png")
    ended = run(lesion_folder, "--contact-sheet")
    assert ended.code == 4, ended.err
    table = rows(out)
    assert len(table) == 9
    assert [name for name, row in table.items() if row["status"] == "failed"] in (["x.bmp"], ["x.png/y.png"])
    assert run(lesion_folder).code == 4
    assert table["return\rand\nfeed.png"]["status"] == "done"


def test_overlays_can_be_had_later_without_making_the_masks_again(
    run: Callable[..., Any], lesion_folder: Path, out: Path, tmp_path: Path
) -> None:
    run(lesion_folder)
    masks = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    assert run(lesion_folder, "--overlays").code == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")} == masks
    later = tree(out)
    shutil.rmtree(out)
    run(lesion_folder, "--overlays")
    assert tree(out) == later
    overlay = np.array(Image.open(out / "overlays" / "site0" / "image0.jpg")).astype(int)
    yellow = (overlay[..., 0] > 180) & (overlay[..., 1] > 160) & (overlay[..., 2] < 110)
    blue = (overlay[..., 0] < 110) & (overlay[..., 2] > 170)
    assert overlay.shape == (144, 192, 3)  # small images are enlarged
    assert yellow.sum() > 20
    assert blue.sum() > 5


def test_broken_files_cost_a_row_each_and_leave_the_other_masks_as_they_were(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    run(lesion_folder)
    clean = tree(out / "masks")
    shutil.rmtree(out)
    whole = (lesion_folder / "site0" / "image0.png").read_bytes()
    (lesion_folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (lesion_folder / "empty.jpg").write_bytes(b"")
    (lesion_folder / "text.tif").write_text("not an image")
    ended = run(lesion_folder, "--json")
    assert ended.code == 4
    assert tree(out / "masks") == clean
    assert {failure["image_id"] for failure in json.loads(ended.out)["failed"]} == {
        "broken.png",
        "empty.jpg",
        "text.tif",
    }
    for name in ("broken.png", "empty.jpg", "text.tif"):
        row = rows(out)[name]
        assert row["status"] == "failed"
        assert row["reason"]
        assert f"{name}: {row['reason']}" in ended.err


def test_strict_stops_at_the_first_broken_file(run: Callable[..., Any], lesion_folder: Path, out: Path) -> None:
    (lesion_folder / "a-broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    ended = run(lesion_folder, "--strict")
    assert ended.code == 1
    assert "a-broken.png" in ended.err
    assert not (out / "masks.csv").exists()
    (lesion_folder / "a-broken.png").unlink()
    assert run(lesion_folder, "--strict").code == 0
    assert not [name for name in tree(out) if name.startswith(".")]


def test_an_image_that_was_mended_is_done_in_the_next_run(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    target = lesion_folder / "site0" / "image0.png"
    whole = target.read_bytes()
    target.write_bytes(whole[:100])
    assert run(lesion_folder).code == 4
    target.write_bytes(whole)
    assert run(lesion_folder).code == 0
    assert rows(out)["site0/image0.png"]["status"] == "done"


def test_a_constant_image_is_a_failed_row_not_a_made_up_mask(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    Image.new("RGB", (40, 30), (200, 180, 170)).save(lesion_folder / "constant.png")
    assert run(lesion_folder).code == 4
    assert "constant" in rows(out)["constant.png"]["reason"]


def test_heatmaps_from_a_file_decide_where_the_points_lie(
    run: Callable[..., Any], lesion_folder: Path, out: Path, tmp_path: Path
) -> None:
    import hashlib

    names = [f"site{index % 2}/image{index}.png" for index in range(6)]
    maps = np.zeros((6, 9, 12), np.float32)
    maps[:, 1, 10] = 1.0
    hashes = [hashlib.sha256((lesion_folder / name).read_bytes()).hexdigest() for name in names]
    file = tmp_path / "cams.h5"
    known = dict(zip(names[:4], hashes[:4], strict=True)) | {names[4]: "0" * 64}
    write_heatmaps_file(
        file, maps[:5], image_ids=names[:5], attributes=HeatmapAttributes(method="test"), image_sha256=known
    )
    ended = run(lesion_folder, "--heatmaps", file)
    assert ended.code == 4
    table = rows(out)
    for name in names[:4]:
        for x, y in json.loads(table[name]["points"]):
            assert 80 <= x < 88, (x, y)  # column 10 of 12, in an image 96 px wide
            assert 8 <= y < 16, (x, y)  # row 1 of 9, in an image 72 px high
    assert "another image" in table[names[4]]["reason"]
    assert names[5] in table[names[5]]["reason"]


def test_a_mask_of_an_earlier_call_is_not_replaced_by_that_of_another_image(
    medtool: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    first, second = lesion_folder / "site0" / "image0.png", lesion_folder / "site0" / "image0.bmp"
    third = lesion_folder / "site0" / "image2.png"
    Image.fromarray(lesion_image(9)[0]).save(second)
    assert medtool("segment", first, third, "--out", out, "--segmenter", "heatmap").code == 0
    before = tree(out)
    ended = medtool("segment", second, third, "--out", out, "--segmenter", "heatmap")
    assert ended.code == 1
    assert "masks/image0.png is the mask of 'image0.png' already" in ended.err
    assert tree(out) == before


def test_an_image_that_is_gone_is_named_and_its_mask_stays(
    medtool: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    image = lesion_folder / "site0" / "image0.png"
    assert medtool("segment", image, "--out", out, "--segmenter", "heatmap").code == 0
    before = tree(out)
    image.unlink()
    ended = medtool("segment", image, "--out", out, "--segmenter", "heatmap")
    assert ended.code == 1
    assert "image0.png" in ended.err
    assert tree(out) == before


def test_a_contact_sheet_shows_the_images_and_names_the_failures(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    (lesion_folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    ended = run(lesion_folder, "--contact-sheet")
    assert ended.code == 4
    assert "shows 7 of 7 images" in ended.err
    with Image.open(out / "contact-sheet.jpg") as sheet:
        assert min(sheet.size) > 240


def test_images_of_16_bits_keep_their_window_and_notes_in_the_table(
    run: Callable[..., Any], tmp_path: Path, out: Path
) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    grey = lesion_image(3)[0].astype(np.uint16).mean(axis=-1).astype(np.uint16) * 12 + 500
    grey[0] = grey[1]
    Image.fromarray(grey).save(folder / "twelve-bit.png")
    grey[0, 0] = 65535
    Image.fromarray(grey).save(folder / "hot-pixel.png")
    assert run(folder).code == 0
    plain, hot = rows(out)["twelve-bit.png"], rows(out)["hot-pixel.png"]
    low, high = (float(value) for value in plain["window"].split())
    assert (low, high) == (grey[1:].min(), grey[1:].max())
    assert float(hot["window"].split()[1]) < 5000
    assert "outside the window" in hot["notes"]
    assert plain["notes"] == ""
    for row in (plain, hot):
        assert iou(np.array(Image.open(out / row["mask"])) == 1, lesion_image(3)[1]) > 0.8


def test_a_folder_that_another_process_works_in_is_left_alone(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    from medtool.storage import locked

    out.mkdir()
    with locked(out):
        ended = run(lesion_folder)
        assert sorted(tree(out)) == [".medtool-lock"]
    assert ended.code == 1
    assert f"{out} is being written by another medtool process" in ended.err
    assert run(lesion_folder).code == 0


def test_file_names_steer_no_terminal(run: Callable[..., Any], tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "a\x1b[31m\nred.png").write_bytes(b"broken")
    Image.fromarray(lesion_image(0)[0]).save(folder / "=1+1 größe.png")
    ended = run(folder)
    assert ended.code == 4
    assert "\x1b" not in ended.err + ended.out
    assert "a\\x1b[31m\\x0ared.png" in ended.err
    assert (out / "masks" / "=1+1 größe.png").exists()
    assert set(rows(out)) == {"=1+1 größe.png", "a\x1b[31m\nred.png"}


def test_a_folder_with_other_files_in_it_is_not_written_to(
    run: Callable[..., Any], lesion_folder: Path, out: Path
) -> None:
    out.mkdir()
    (out / "thesis.docx").write_text("")
    ended = run(lesion_folder)
    assert ended.code == 2
    assert "thesis.docx" in ended.err
    assert sorted(tree(out)) == ["thesis.docx"]


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._x"])
def test_what_a_desktop_leaves_in_an_empty_folder_is_no_obstacle(
    run: Callable[..., Any], lesion_folder: Path, out: Path, name: str
) -> None:
    out.mkdir()
    (out / name).write_text("")
    assert run(lesion_folder / "site0").code == 0


def test_a_result_inside_the_image_folder_is_not_taken_for_images(
    medtool: Callable[..., Any], lesion_folder: Path
) -> None:
    out = lesion_folder / "result"
    for expected in ("6 segmented", "6 were finished before"):
        ended = medtool("segment", lesion_folder, "--out", out, "--workers", 1, "--overlays")
        assert ended.code == 0, ended.err
        assert expected in ended.err


def test_a_plugin_that_prints_and_gives_up_costs_a_row_and_no_json(
    medtool: Callable[..., Any], lesion_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def segment(self: HeatmapThreshold, embedding: Any, prompt: Any) -> Any:
        print("noise")  # noqa: T201
        if prompt.heatmap.shape[0] == 10:
            raise SystemExit(3)
        return whole(self, embedding, prompt)

    whole = HeatmapThreshold.segment
    monkeypatch.setattr(HeatmapThreshold, "segment", segment)
    Image.fromarray(lesion_image(0)[0][:10]).save(lesion_folder / "small.png")
    ended = medtool("segment", lesion_folder, "--out", out, "--segmenter", "heatmap", "--workers", 1, "--json")
    assert ended.code == 4, ended.err
    document = json.loads(ended.out)
    assert document["failed"] == [{"image_id": "small.png", "reason": "SystemExit: 3"}]
    assert len(document["done"]) == 6
    assert "noise" in ended.err


def test_quiet_gives_the_masks_paths_alone(run: Callable[..., Any], lesion_folder: Path, out: Path) -> None:
    ended = run(lesion_folder, "-q")
    assert ended.err == ""
    assert ended.out.splitlines() == [str(path) for path in sorted((out / "masks").rglob("*.png"))]


def test_paths_come_from_stdin_too(medtool: Callable[..., Any], lesion_folder: Path, out: Path) -> None:
    paths = b"\0".join(str(path).encode() for path in sorted(lesion_folder.rglob("*.png"))[:2])
    ended = medtool("segment", "-", "-0", "--out", out, "--segmenter", "heatmap", stdin=paths + b"\0")
    assert ended.code == 0, ended.err
    assert len(rows(out)) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--segmenter", "heatmap", "--device", "cuda"], 2, "--device"),
        (["--heatmaps", "cams.h5"], 1, "none of the 6 image ids"),
        (["--segmenter", "random-walkr"], 2, "Did you mean 'random-walker'?"),
        (["--segmenter", "sam-vit-b"], 1, "medtool weights get sam-vit-b"),
        (["--segmenter", "heatmap", "--weights", "x"], 2, "has no weights"),
        (["--weights", "x"], 2, "--segmenter"),
        (["--segmenter", "sam-vit-b", "--weights", "missing.pth"], 1, "missing.pth"),
        (["--heatmaps", "missing.h5"], 1, "missing.h5"),
        (["--cluster", "tcp://127.0.0.1:1"], 2, "127.0.0.1:1"),
        (["--workers", "-1"], 2, "workers is -1"),
        (["--points", "1001"], 2, "points is 1001"),
        (["--null"], 2, "--null"),
        (["--device", "gpu"], 2, "device 'gpu' is no device"),
        (["--precision", "fp8"], 2, "precision 'fp8' is not known"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    medtool: Callable[..., Any],
    lesion_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path / "no-weights"))
    monkeypatch.chdir(tmp_path)
    write_heatmaps_file(
        tmp_path / "cams.h5",
        np.eye(4, dtype=np.float32)[None],
        image_ids=["image0"],
        attributes=HeatmapAttributes(method="test"),
    )
    ended = medtool("segment", lesion_folder, "--out", tmp_path / "new", *arguments)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("images", "masks"),
    [("photos/a.png", "masks/a.png"), ("a.png", "a_mask.png"), ("a_image.nii.gz", "a_label.nii.gz")],
)
def test_masks_beside_the_images_are_told(
    medtool: Callable[..., Any], tmp_path: Path, out: Path, images: str, masks: str
) -> None:
    for name in (images, masks):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(lesion_image(0)[0]).save(path, format="PNG")
    ended = medtool("segment", tmp_path / "data", "--out", out, "--workers", 1, "--segmenter", "heatmap")
    assert f"1 of 2 files look like masks, such as {masks}" in ended.err


def test_auto_says_which_segmenter_it_takes_and_how_to_get_a_better_one(
    medtool: Callable[..., Any], lesion_folder: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path / "no-weights"))
    ended = medtool("segment", lesion_folder, "--out", out, "--workers", 1)
    assert "segmenter random-walker (built in)" in ended.err
    assert "medtool weights get" in ended.err

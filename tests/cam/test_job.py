"""``medtool cam``: one heatmap an image, kept by content, and never mixed with others."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medtool.cam import open_cache
from medtool.cam.choices import Target
from medtool.cam.job import METHODS_VERSION
from medtool.cam.maker import HeatmapMaker
from medtool.images.reader import read_image
from medtool.runs.folder import run_at
from medtool.runs.forward import Normaliser
from medtool.runs.network import architecture_of, load_network
from medtool.runs.preprocessing import prepared
from tests.conftest import Ended

pytestmark = pytest.mark.usefixtures("one_thread")
Run = Callable[..., Ended]


@pytest.fixture
def copied(manifest: Path, tmp_path: Path) -> Path:
    """Return a copy of the manifest and its pictures, to be changed."""
    return Path(shutil.copytree(manifest.parent, tmp_path / "copied")) / "manifest.csv"


def cams(medtool: Run, *arguments: object, code: int = 0) -> Ended:
    ended = medtool("cam", *arguments, "--device", "cpu")
    assert ended.code == code, ended.err
    return ended


def said(ended: Ended) -> str:
    """Return the last line: how many were made, kept and failed."""
    return ended.err.splitlines()[-1].partition(";")[0]


def test_the_cache_holds_the_raw_maps_of_the_network(medtool: Run, one: Path, manifest: Path, tmp_path: Path) -> None:
    ended = cams(medtool, one, manifest, "--out", tmp_path / "cams.h5")
    run = run_at(one)
    network = load_network(run.checkpoint, run.card)
    layer = architecture_of(run.card).cam_layer
    maker = HeatmapMaker(network, [layer])
    normalise = Normaliser(run.card.preprocessing, torch.device("cpu"), is_channels_last=True)
    paths = sorted((manifest.parent / "images").glob("*.png"))
    pixels = [prepared(read_image(path).rgb, run.card.preprocessing) for path in paths]
    expected = maker.maps(normalise(torch.from_numpy(np.stack(pixels[:16]))), Target.PREDICTED)

    assert ended.out == f"{tmp_path / 'cams.h5'}\n"
    with open_cache(tmp_path / "cams.h5") as cache:
        assert cache.ids == tuple(f"i{number:02}" for number in range(20))
        assert cache.attributes.method == "gradcam"
        assert cache.attributes.weights == run.card.sha256
        assert cache.attributes.layer == layer
        for place, image_id in enumerate(cache.ids[:16]):
            np.testing.assert_array_equal(cache.raw(image_id), expected.raw[place, 0])
            assert cache.target_of(image_id) == run.card.classes[expected.targets[place, 0]]
            assert cache.sha256_of(image_id) == read_image(paths[place]).sha256
        assert cache.lineage is not None
        assert cache.lineage["made_with"]["methods"] == METHODS_VERSION


def test_scores_are_the_network_s_own_probabilities(medtool: Run, one: Path, manifest: Path, tmp_path: Path) -> None:
    cams(medtool, one, manifest, "--out", tmp_path / "cams.h5")
    plain = ("--allow-seen", "--no-calibration", "--device", "cpu", "-q")
    assert medtool("predict", one, manifest, "--out", tmp_path / "predicted", *plain).code == 0
    with (tmp_path / "predicted/predictions.csv").open(newline="") as stream:
        rows = {row["image_id"]: row for row in csv.DictReader(stream)}
    with open_cache(tmp_path / "cams.h5") as cache:
        for image_id in cache.ids:
            expected = float(rows[image_id][f"probability/{cache.target_of(image_id)}"])
            assert cache.score_of(image_id) == pytest.approx(expected, abs=1e-6)


def test_the_same_command_again_does_nothing(medtool: Run, one: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "cams.h5"
    assert said(cams(medtool, one, manifest, "--out", out)) == "20 made, 0 were there, 0 failed"
    before = out.stat().st_mtime_ns
    assert said(cams(medtool, one, manifest, "--out", out)) == "0 made, 20 were there, 0 failed"
    assert out.stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["cams.h5"]


def test_one_changed_image_is_one_recomputation_and_the_file_that_of_a_fresh_run(
    medtool: Run, one: Path, copied: Path, tmp_path: Path
) -> None:
    cams(medtool, one, copied, "--out", tmp_path / "cams.h5")
    Image.new("RGB", (48, 40), (90, 200, 30)).save(copied.parent / "images/07.png")
    ended = cams(medtool, one, copied, "--out", tmp_path / "cams.h5")
    assert said(ended) == "1 made, 19 were there, 0 failed"
    cams(medtool, one, copied, "--out", tmp_path / "fresh.h5")
    assert (tmp_path / "cams.h5").read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_images_that_are_added_join_those_that_are_there(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cams.h5"
    cams(medtool, one, manifest, "--out", out, "--split", "test")
    ended = cams(medtool, one, manifest, "--out", out, "--split", "val")
    assert "also holds 4 images that were not given now" in ended.err
    with open_cache(out) as cache:
        assert len(cache) == 8
        assert list(cache.ids) == sorted(cache.ids)


def test_the_order_of_the_rows_does_not_matter(medtool: Run, one: Path, copied: Path, tmp_path: Path) -> None:
    cams(medtool, one, copied, "--out", tmp_path / "one.h5")
    header, *rows = copied.read_text().splitlines()
    copied.write_text("\n".join([header, *reversed(rows)]) + "\n")
    cams(medtool, one, copied, "--out", tmp_path / "two.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_a_broken_image_is_named_and_the_other_maps_are_those_without_it(
    medtool: Run, one: Path, copied: Path, tmp_path: Path
) -> None:
    cams(medtool, one, copied, "--out", tmp_path / "whole.h5")
    (copied.parent / "images/05.png").write_bytes(b"no image")
    ended = cams(medtool, one, copied, "--out", tmp_path / "cams.h5", code=4)
    assert "i05: " in ended.err
    with open_cache(tmp_path / "cams.h5") as cache, open_cache(tmp_path / "whole.h5") as whole:
        assert "i05" not in cache
        for image_id in cache.ids:
            np.testing.assert_array_equal(cache.raw(image_id), whole.raw(image_id))
    shown = medtool("cam", "info", tmp_path / "cams.h5", "--images")
    failed = [row for row in csv.DictReader(shown.out.splitlines()) if row["status"] == "failed"]
    assert [row["image_id"] for row in failed] == ["i05"]
    assert failed[0]["reason"]
    strict = cams(medtool, one, copied, "--out", tmp_path / "strict.h5", "--strict", code=1)
    assert "i05" in strict.err
    assert not (tmp_path / "strict.h5").exists()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--method", "layercam"), "options.method was gradcam, now layercam"),
        (("--layer", "layer3"), "members.0.layers was ['layer4'], now ['layer3']"),
        (("--target", "benign"), "options.target was predicted, now benign"),
        (("--flip",), "options.flip was False, now True"),
        (("--scales", "1,2"), "options.scales was [1.0], now [1.0, 2.0]"),
    ],
)
def test_maps_that_are_made_in_another_way_are_refused_with_the_difference(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path, changed: tuple[str, ...], named: str
) -> None:
    out = tmp_path / "cams.h5"
    cams(medtool, one, manifest, "--out", out, "--split", "test")
    before = out.read_bytes()
    ended = cams(medtool, one, manifest, "--out", out, "--split", "test", *changed, code=1)
    assert named in ended.err
    assert "--overwrite" in ended.err
    assert out.read_bytes() == before
    cams(medtool, one, manifest, "--out", out, "--split", "test", *changed, "--overwrite")
    cams(medtool, one, manifest, "--out", tmp_path / "fresh.h5", "--split", "test", *changed)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_changed_weights_are_refused(medtool: Run, one: Path, two: Path, manifest: Path, tmp_path: Path) -> None:
    cams(medtool, one, manifest, "--out", tmp_path / "cams.h5", "--split", "test")
    ended = cams(medtool, two, manifest, "--out", tmp_path / "cams.h5", "--split", "test", code=1)
    assert f"checkpoint_sha256 was {run_at(one).card.sha256}, now {run_at(two).card.sha256}" in ended.err


def test_all_classes_have_the_maps_that_they_have_alone(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path
) -> None:
    few = (manifest, "--split", "test")
    cams(medtool, one, *few, "--out", tmp_path / "all.h5", "--target", "all")
    with open_cache(tmp_path / "all.h5") as every:
        assert every.classes == ("benign", "malignant")
        for name in every.classes:
            cams(medtool, one, *few, "--out", tmp_path / f"{name}.h5", "--target", name)
            with open_cache(tmp_path / f"{name}.h5") as alone:
                for image_id in alone.ids:
                    peak = np.abs(alone.raw(image_id)).max()
                    np.testing.assert_allclose(every.raw(image_id, name), alone.raw(image_id), atol=1e-5 * peak)
                    assert every.score_of(image_id, name) == alone.score_of(image_id)
        total = sum(every.score_of(every.ids[0], name) for name in every.classes)
        assert total == pytest.approx(1)


def test_maps_of_the_true_class_are_marked_and_follow_the_label(
    medtool: Run, one: Path, copied: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cams.h5"
    cams(medtool, one, copied, "--out", out, "--target", "label")
    text = copied.read_text()
    labels = {row["image_id"]: row["label"] for row in csv.DictReader(text.splitlines())}
    with open_cache(out) as cache:
        assert {image_id: cache.target_of(image_id) for image_id in cache.ids} == labels
        assert cache.lineage is not None
        assert cache.lineage["made_with"]["oracle"] is True
    copied.write_text(text.replace("i03,P01,malignant", "i03,P01,benign"))
    assert said(cams(medtool, one, copied, "--out", out, "--target", "label")) == "1 made, 19 were there, 0 failed"
    copied.write_text(text.replace("i03,P01,malignant", "i03,P01,"))
    ended = cams(medtool, one, copied, "--out", tmp_path / "more.h5", "--target", "label", code=4)
    assert "i03: it has no label, and --target label asks for it" in ended.err


def test_an_image_that_cannot_be_read_any_more_keeps_its_map_and_one_without_a_label_does_not(
    medtool: Run, one: Path, copied: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cams.h5"
    arguments = (one, copied, "--out", out, "--target", "label")
    cams(medtool, *arguments)
    whole, text = out.read_bytes(), copied.read_text()
    picture = copied.parent / "images/03.png"
    pixels = picture.read_bytes()

    picture.write_bytes(b"no image")
    ended = cams(medtool, *arguments, code=4)
    assert "the heatmap of its earlier contents stays" in ended.err
    with open_cache(out) as cache:
        assert cache.sha256_of("i03")
    before = out.stat().st_mtime_ns
    cams(medtool, *arguments, code=4)
    assert out.stat().st_mtime_ns == before

    picture.write_bytes(pixels)
    assert said(cams(medtool, *arguments)) == "0 made, 20 were there, 0 failed"
    assert out.read_bytes() == whole

    copied.write_text(text.replace("i03,P01,malignant", "i03,P01,"))
    ended = cams(medtool, *arguments, code=4)
    assert "i03: it has no label" in ended.err
    assert "stays" not in ended.err
    with open_cache(out) as cache:
        assert "i03" not in cache

    copied.write_text(text)
    assert said(cams(medtool, *arguments)) == "1 made, 19 were there, 0 failed"
    assert out.read_bytes() == whole


def test_an_image_whose_id_is_too_long_to_be_written_is_an_error_of_that_image(
    medtool: Run, one: Path, copied: Path, tmp_path: Path
) -> None:
    copied.write_text(copied.read_text().replace(",i03,", f",{'x' * 5000},"))
    ended = cams(medtool, one, copied, "--out", tmp_path / "cams.h5", code=4)
    assert "its id has 5000 bytes; at most 4096" in ended.err
    assert medtool("cam", "verify", tmp_path / "cams.h5").code == 0


def test_what_a_run_has_seen_is_written_beside_each_map(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path
) -> None:
    ended = cams(medtool, one, manifest, "--out", tmp_path / "cams.h5")
    assert "16 of the images were seen by a run (12 in training, 4 in choosing)" in ended.err
    split = {row["image_id"]: row["split"] for row in csv.DictReader(manifest.read_text().splitlines())}
    with open_cache(tmp_path / "cams.h5") as cache:
        for image_id, part in split.items():
            assert cache.seen_of(image_id) == ("" if part == "test" else part)


def test_a_folder_is_known_by_content_and_a_manifest_adds_what_it_knows(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path
) -> None:
    ended = cams(medtool, one, manifest.parent / "images", "--out", tmp_path / "cams.h5")
    assert "16 of the images were seen" in ended.err
    with open_cache(tmp_path / "cams.h5") as cache:
        assert cache.ids[0] == "00.png"
        assert cache.seen_of("00.png") == "train"


def test_metadata_of_a_row_decide_its_map(medtool: Run, fused: Path, copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "cams.h5"
    cams(medtool, fused, copied, "--out", out)
    text = copied.read_text()
    (row,) = [line for line in text.splitlines() if ",i04," in line]
    copied.write_text(text.replace(row, ",".join([*row.split(",")[:-2], "99", "female"])))
    assert said(cams(medtool, fused, copied, "--out", out)) == "1 made, 19 were there, 0 failed"
    cams(medtool, fused, copied, "--out", tmp_path / "fresh.h5")
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()
    refused = cams(medtool, fused, copied.parent / "images", "--out", tmp_path / "other.h5", code=2)
    assert "takes the column 'age' beside the image" in refused.err


def test_a_map_that_says_nothing_is_counted_and_named(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medtool.cam import maker

    compute = maker.HeatmapMaker.maps

    def poisoned(self: HeatmapMaker, images: torch.Tensor, *rest: object, **named: object) -> object:
        made = compute(self, images, *rest, **named)  # type: ignore[arg-type]
        made.raw[1], made.flags[1] = 0, 5
        made.raw[2], made.flags[2] = -1, 2
        return made

    monkeypatch.setattr(maker.HeatmapMaker, "maps", poisoned)
    ended = cams(medtool, one, manifest, "--out", tmp_path / "cams.h5", "--split", "test")
    assert "maps that say nothing about where to look: 1 constant, 1 not a number" in ended.err
    shown = medtool("cam", "info", tmp_path / "cams.h5", "--images")
    assert [row["flag"] for row in csv.DictReader(shown.out.splitlines())] == ["", "not_a_number", "constant", ""]


def test_the_document_says_what_became_of_the_images(medtool: Run, one: Path, manifest: Path, tmp_path: Path) -> None:
    ended = cams(medtool, one, manifest, "--out", tmp_path / "cams.h5", "--split", "test", "--json")
    document = json.loads(ended.out)
    assert (document["format"], document["version"]) == ("medtool-cam", 1)
    assert (document["n_made"], document["n_kept"], document["failed"]) == (4, 0, [])
    assert document["n_seen"] == {"train": 0, "val": 0}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--scales", "a"), "--scales 'a' must be factors"),
        (("--scales", "1,1"), "different factors"),
        (("--scales", "100"), "each must be 0.1 to 8"),
        (("--uncertainty",), "--uncertainty is how far maps differ, and there is one"),
        (("--target", "malignan"), "Did you mean 'malignant'?"),
        (("--layer", "layer9"), "no layer is called 'layer9'"),
        (("--method", "rollout"), "attention rollout needs a vision transformer"),
        (("--method", "rollout", "--layer", "layer4"), "--layer means nothing"),
        (("--method", "eigencam", "--target", "all"), "gives the same map whatever the class"),
        (("--method", "fem", "--precision", "bf16"), "pytorch-grad-cam's"),
        (("--split", "tets"), "must be some of train, val, test"),
        (("--out", ""), "--out is the empty text"),
        (("--batch-size", "-1"), "--batch-size is -1"),
        (("--null",), "no input is -"),
    ],
)
def test_wrong_options_are_one_line_with_a_next_step(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    ended = cams(medtool, one, manifest, "--out", tmp_path / "cams.h5", *options, code=2)
    assert reason in ended.err
    assert "\n  try: " in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_file_is_refused_at_once(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path
) -> None:
    ended = cams(medtool, one, manifest, "--out", tmp_path, code=2)
    assert "is a folder, and heatmaps go into one file" in ended.err


def test_segment_makes_heatmaps_on_the_way_and_keeps_them(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path
) -> None:
    images, out = manifest.parent / "images", tmp_path / "masks"
    plain = ("--segmenter", "heatmap", "--points", 2)
    ended = medtool("segment", images, "--run", one, "--out", out, *plain)
    assert ended.code in (0, 4), ended.err
    cams(medtool, one, images, "--out", tmp_path / "cams.h5")
    assert (out / "cams.h5").read_bytes() == (tmp_path / "cams.h5").read_bytes()
    again = medtool("segment", images, "--run", one, "--out", out, *plain)
    assert "0 made, 20 were there" in again.err
    assert "0 segmented" in again.err
    of_file = medtool("segment", images, "--heatmaps", tmp_path / "cams.h5", "--out", tmp_path / "other", *plain)
    assert of_file.code == ended.code
    assert (tmp_path / "other/masks.csv").read_bytes() == (out / "masks.csv").read_bytes()
    assert (tmp_path / "other/lineage.json").read_bytes() == (out / "lineage.json").read_bytes()
    refused = medtool("segment", images, "--run", one, "--out", out, *plain, "--seed", 1)
    assert refused.code == 1
    assert "prompt.seed was 905, now 1" in refused.err


def test_segment_inherits_the_marks_of_its_heatmaps(medtool: Run, one: Path, manifest: Path, tmp_path: Path) -> None:
    cams(medtool, one, manifest, "--out", tmp_path / "cams.h5", "--split", "test", "--target", "label")
    ended = medtool(
        "segment", manifest, "--heatmaps", tmp_path / "cams.h5", "--out", tmp_path / "masks", "--segmenter", "heatmap"
    )
    assert ended.code == 4  # there are heatmaps of the test part alone
    made_with = json.loads((tmp_path / "masks/lineage.json").read_text())["made_with"]
    assert made_with["oracle"] is True


def test_segment_takes_the_class_that_is_named(medtool: Run, one: Path, manifest: Path, tmp_path: Path) -> None:
    cams(medtool, one, manifest, "--out", tmp_path / "all.h5", "--split", "test", "--target", "all")
    command = ("segment", manifest, "--heatmaps", tmp_path / "all.h5", "--segmenter", "heatmap", "--out")
    refused = medtool(*command, tmp_path / "masks")
    assert refused.code == 1
    assert "it has them for benign, malignant" in refused.err
    assert medtool(*command, tmp_path / "masks", "--target", "malignant").code == 4
    made_with = json.loads((tmp_path / "masks/lineage.json").read_text())["made_with"]
    assert made_with["heatmap"]["target"] == "malignant"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--heatmaps", "cams.h5"), "--run and --heatmaps each say where heatmaps come from"),
        (("--slice", "3"), "choose a part of a file"),
        (("--target", "all"), "points come from one"),
    ],
)
def test_segment_refuses_what_contradicts_a_run(
    medtool: Run, one: Path, manifest: Path, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    ended = medtool("segment", manifest, "--run", one, "--out", tmp_path / "masks", *options)
    assert ended.code == 2
    assert reason in ended.err
    assert not (tmp_path / "masks").exists()

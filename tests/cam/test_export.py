"""Heatmaps as files of other programs, and drawn over their images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medtool.cam.draw import coloured, overlay
from medtool.heatmaps import HeatmapAttributes, open_heatmaps, write_heatmaps_file
from tests.conftest import Ended

Run = Callable[..., Ended]
MADE = HeatmapAttributes(method="gradcam", target="malignant")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two pictures, a bright square in each, and with heatmaps that point at it."""
    maps = np.full((3, 4, 6), -0.5, np.float32)
    maps[0, 1, 4], maps[1, 2, 0] = 2, 0.25
    (tmp_path / "images/sub").mkdir(parents=True)
    for name, (row, column) in (("a.png", (1, 4)), ("sub/b.png", (2, 0))):
        pixels = np.full((40, 60, 3), 90, np.uint8)
        pixels[10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = 220
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    ids = ["a.png", "sub/b.png", "c.png"]
    write_heatmaps_file(tmp_path / "cams.h5", maps, image_ids=ids, attributes=MADE, scores={"a.png": 0.75})
    return tmp_path


def index(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "heatmaps.csv").open(newline="") as stream:
        return {row["image_id"]: row for row in csv.DictReader(stream)}


def test_without_images_the_raw_maps_are_written(medtool: Run, folder: Path) -> None:
    for kind, suffix in (("npy", ".npy"), ("tiff", ".tif")):
        ended = medtool("cam", "export", folder / "cams.h5", "--format", kind, "--out", folder / kind)
        assert (ended.code, ended.out) == (0, f"{folder / kind / 'heatmaps.csv'}\n"), ended.err
        with open_heatmaps(folder / "cams.h5") as file:
            for image_id, row in index(folder / kind).items():
                path = folder / kind / row["file"]
                assert path.name.endswith(suffix)
                found = np.load(path) if kind == "npy" else tifffile.imread(path)
                np.testing.assert_array_equal(found, file.raw(image_id))
                assert found.dtype == np.float32
    assert index(folder / "npy")["a.png"]["peak"] == "2"
    assert index(folder / "npy")["a.png"]["score"] == "0.75"


def test_with_images_the_maps_have_their_size_and_their_places(medtool: Run, folder: Path) -> None:
    ended = medtool("cam", "export", folder / "cams.h5", folder / "images", "--format", "png", "--out", folder / "png")
    assert ended.code == 0, ended.err
    rows = index(folder / "png")
    assert set(rows) == {"a.png", "sub/b.png"}
    with open_heatmaps(folder / "cams.h5") as file:
        for image_id, row in rows.items():
            levels = np.asarray(Image.open(folder / "png" / row["file"]))
            assert levels.dtype == np.uint16
            assert levels.max() == 65535
            expected = file.get(image_id, size=(40, 60), is_normalised=True)
            np.testing.assert_allclose(levels / 65535, expected / expected.max(), atol=1e-4)
            bright = np.asarray(Image.open(folder / "images" / image_id))[..., 0] > 200
            y, x = np.unravel_index(levels.argmax(), levels.shape)
            assert bright[y, x]


def test_an_overlay_is_bright_where_the_map_is_and_the_image_elsewhere(medtool: Run, folder: Path) -> None:
    ended = medtool("cam", "export", folder / "cams.h5", folder / "images", "--out", folder / "over", "--json")
    document = json.loads(ended.out)
    assert (document["n_written"], document["failed"]) == (2, [])
    picture = np.asarray(Image.open(folder / "over" / index(folder / "over")["a.png"]["file"])).astype(int)
    scale = 240 // 60
    assert picture.shape[0] > 40 * scale  # a caption below
    assert picture.shape[1] > 60 * scale  # a bar beside
    hot, cold = picture[15 * scale, 45 * scale], picture[35 * scale, 10 * scale]
    assert hot[1] > hot[2] + 60  # the yellow end of the colours
    np.testing.assert_allclose(cold, 90, atol=6)


def test_a_heatmap_of_another_file_or_of_none_is_an_error_of_its_image(medtool: Run, folder: Path) -> None:
    with open_heatmaps(folder / "cams.h5") as file:
        maps = [file.raw(name) for name in file.ids]
    known = {"a.png": "0" * 64}
    write_heatmaps_file(
        folder / "cams.h5", maps, image_ids=["a.png", "b.png", "c.png"], attributes=MADE, image_sha256=known
    )
    ended = medtool("cam", "export", folder / "cams.h5", folder / "images", "--out", folder / "over")
    assert ended.code == 4
    rows = index(folder / "over")
    assert rows["a.png"]["reason"] == "the heatmap was made from another image file of this id"
    assert "there is no heatmap of 'sub/b.png'" in rows["sub/b.png"]["reason"]
    assert rows["a.png"]["status"] == rows["sub/b.png"]["status"] == "failed"


@pytest.mark.parametrize("image_id", ["../x", "/etc/x", "a/../../x", "a\\x", "C:x", "con", "a//b", "x."])
def test_ids_that_would_leave_the_folder_are_errors_of_their_images(
    medtool: Run, tmp_path: Path, image_id: str
) -> None:
    write_heatmaps_file(
        tmp_path / "cams.h5", np.eye(3)[None].repeat(2, 0), image_ids=[image_id, "fine"], attributes=MADE
    )
    out = tmp_path / "deep/out"
    ended = medtool("cam", "export", tmp_path / "cams.h5", "--format", "npy", "--out", out)
    assert ended.code == 4, ended.err
    assert "cannot be the name of a file" in ended.err
    assert sorted(path.name for path in out.rglob("*")) == ["fine.npy", "heatmaps.csv"]
    assert sorted(path.name for path in tmp_path.rglob("*.npy")) == ["fine.npy"]


def test_ids_that_no_file_can_be_called_are_errors_of_their_images(medtool: Run, tmp_path: Path) -> None:
    ids = ["a", "a.npy/b", "b" * 300, "c/" * 2000 + "c", "z"]
    maps = np.random.default_rng(1).random((len(ids), 2, 2)).astype(np.float32)
    write_heatmaps_file(tmp_path / "cams.h5", maps, image_ids=ids, attributes=MADE)

    ended = medtool("cam", "export", tmp_path / "cams.h5", "--format", "npy", "--out", tmp_path / "maps")

    assert ended.code == 4, ended.err
    found = {name: (row["status"], row["reason"]) for name, row in index(tmp_path / "maps").items()}
    assert [status for status, _ in found.values()] == ["done", "failed", "failed", "failed", "done"]
    assert "name too long" in found[ids[2]][1]
    np.testing.assert_array_equal(np.load(tmp_path / "maps/z.npy"), maps[4])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--format", "jpg"), "--format 'jpg' must be one of"),
        (("--format", "overlay"), "draws over the images, and none are given"),
        (("--format", "npy", "--target", "benign"), "--target 'benign' is none of what"),
        (("--format", "npy", "-0"), "no input is -"),
        (("--format", "npy", "--out", ""), "--out is the empty text"),
    ],
)
def test_wrong_options_are_refused(medtool: Run, folder: Path, options: tuple[str, ...], reason: str) -> None:
    ended = medtool("cam", "export", folder / "cams.h5", *options)
    assert ended.code == 2
    assert reason in ended.err


def test_a_map_without_a_peak_is_no_picture(medtool: Run, tmp_path: Path) -> None:
    write_heatmaps_file(tmp_path / "cams.h5", np.zeros((1, 3, 3)), image_ids=["x"], attributes=MADE)
    ended = medtool("cam", "export", tmp_path / "cams.h5", "--format", "png", "--out", tmp_path / "out")
    assert ended.code == 4
    assert "x: the heatmap is nowhere above 0, and there is nothing to draw" in ended.err


def test_verify_names_flipped_bits_and_changed_images(medtool: Run, folder: Path) -> None:
    assert medtool("cam", "verify", folder / "cams.h5").code == 0
    whole = medtool("cam", "verify", folder / "cams.h5", folder / "images")
    assert whole.code == 0, whole.out
    data = bytearray((folder / "cams.h5").read_bytes())
    with open_heatmaps(folder / "cams.h5") as file:
        place = data.find(file.raw("sub/b.png").tobytes())
    data[place + 5] ^= 4
    (folder / "cams.h5").write_bytes(data)
    ended = medtool("cam", "verify", folder / "cams.h5", "--json")
    assert ended.code == 4
    document = json.loads(ended.out)
    assert [fault["image_id"] for fault in document["faults"]] == ["sub/b.png"]
    Image.new("RGB", (9, 9)).save(folder / "images/new.png")
    named = medtool("cam", "verify", folder / "cams.h5", folder / "images").out
    assert "new.png: there is no heatmap of it" in named


def test_info_tells_what_the_file_was_made_from(medtool: Run, folder: Path) -> None:
    ended = medtool("cam", "info", folder / "cams.h5")
    assert "method: gradcam\n" in ended.out
    assert "n_images: 3\n" in ended.out
    assert "flagged: constant 1\n" in ended.out
    assert json.loads(medtool("cam", "info", folder / "cams.h5", "--json").out)["height"] == 4
    assert medtool("cam", "info", folder / "cams.h5", "-q").out == "a.png\nsub/b.png\nc.png\n"
    assert medtool("cam", "info", folder / "images/a.png").code == 1
    assert medtool("cam", "info", folder / "cams.h5", "--images", "--json").code == 2


def test_the_colours_grow_brighter_evenly() -> None:
    found = coloured(np.linspace(0, 1, 32, dtype=np.float32)[None])[0].astype(float)
    lightness = found @ (0.2126, 0.7152, 0.0722)
    steps = np.diff(lightness)
    assert (steps > 0).all()


def test_the_bar_names_the_peak_of_the_map() -> None:
    heatmap = np.zeros((30, 40), np.float32)
    low, high = (
        overlay(np.zeros((30, 40, 3), np.uint8), np.maximum(heatmap, peak * (np.arange(40) == 20)[None]))
        for peak in (0.5, 123)
    )
    assert low.shape != high.shape or (low != high).any()

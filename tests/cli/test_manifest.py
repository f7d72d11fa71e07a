"""``medtool manifest``: what it writes, says and ends with."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medtool.manifest import read_manifest


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("nevus/P1_a.png", "nevus/P1_b.png", "melanoma/P2_c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_the_manifest_lies_in_the_folder_and_its_path_is_the_output(medtool: Callable[..., Any], photos: Path) -> None:
    ended = medtool("manifest", "folder", photos, "--set", r"patient=P\d")
    assert ended.code == 0
    assert ended.out == f"{photos / 'manifest.csv'}\n"
    assert "3 images" in ended.err
    assert "labels: nevus 2, melanoma 1" in ended.err
    assert "patients: 2" in ended.err
    assert read_manifest(photos / "manifest.csv").counts("patient") == {"P1": 2, "P2": 1}


def test_a_manifest_is_not_overwritten_unless_asked(medtool: Callable[..., Any], photos: Path) -> None:
    path = photos / "manifest.csv"
    path.write_text("mine\n")
    ended = medtool("manifest", "folder", photos)
    assert ended.code == 1
    assert "--overwrite" in ended.err
    assert path.read_text() == "mine\n"
    assert medtool("manifest", "folder", photos, "--overwrite", "-q").code == 0
    assert len(read_manifest(path)) == 3


def test_a_dash_writes_the_table_to_stdout_and_nothing_else(medtool: Callable[..., Any], photos: Path) -> None:
    ended = medtool("manifest", "folder", photos, "--out", "-")
    assert [row["label"] for row in csv.DictReader(ended.out.splitlines())] == ["melanoma", "nevus", "nevus"]
    assert not (photos / "manifest.csv").exists()
    assert medtool("manifest", "folder", photos, "--out", "-", "--json").code == 2


def test_json_names_counts_and_problems(medtool: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "t.csv").write_text("image,label,patient\na.png,x,1\nb.png,y,2\n")
    ended = medtool("manifest", "csv", tmp_path, "--json", "--out", tmp_path / "m.parquet")
    document = json.loads(ended.out)
    assert ended.code == 4
    assert list(document)[:2] == ["format", "version"]
    assert (document["format"], document["images"], document["labels"]) == ("medtool-manifest", 1, {"x": 1})
    assert (document["patients"], document["images_without_label"], document["masks"]) == (1, 0, 0)
    assert document["problems"] == [{"image_id": "b.png", "path": str(tmp_path / "b.png"), "reason": "does not exist"}]
    assert len(read_manifest(tmp_path / "m.parquet")) == 1


def test_lost_rows_are_named_and_counted_with_exit_code_4(medtool: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "t.csv").write_text("image\na.png\n" + "".join(f"b{index}.png\n" for index in range(25)))
    ended = medtool("manifest", "csv", tmp_path)
    assert ended.code == 4
    assert "b0.png: does not exist" in ended.err
    assert "25 lost" in ended.err
    assert "and 15 more" in ended.err
    assert len(read_manifest(tmp_path / "manifest.csv")) == 1


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["foldr"], "no dataset is called 'foldr'. Did you mean 'folder'?", "medtool plugins list datasets"),
        (["folder", "--set", "patien=x"], "has no option 'patien'; did you mean 'patient'?", "medtool manifest folder"),
        (["folder", "--set", "patient"], "--set patient: it must be NAME=VALUE", None),
        (["folder", "--set", "splits=no", "--set", "splits=yes"], "--set splits is given twice", None),
        (["isic2017", "--set", "x=y"], "has no option 'x'", "medtool manifest isic2017"),
        (["folder", "--out", "m.txt"], "ends in .csv or .parquet", None),
    ],
)
def test_wrong_options_end_with_2_and_the_next_step(
    medtool: Callable[..., Any], photos: Path, arguments: list[str], message: str, hint: str | None
) -> None:
    ended = medtool("manifest", arguments[0], photos, *arguments[1:])
    assert ended.code == 2
    assert message in ended.err
    assert hint is None or hint in ended.err
    assert ended.out == ""


def test_an_empty_text_is_no_folder(medtool: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    ended = medtool("manifest", "folder", "")
    assert (ended.code, ended.out) == (2, "")
    assert "ROOT is the empty text" in ended.err
    assert not (photos / "manifest.csv").exists()


def test_without_a_folder_the_options_of_the_data_set_are_shown(medtool: Callable[..., Any]) -> None:
    ended = medtool("manifest", "csv")
    assert ended.code == 0
    assert "image_template  Path of the image" in ended.out
    document = json.loads(medtool("manifest", "isic2017", "--json").out)
    assert (document["format"], document["options"], len(document["classes"])) == ("medtool-dataset", {}, 3)


def test_a_manifest_beside_the_folder_is_refused_with_the_place_for_it(
    medtool: Callable[..., Any], photos: Path
) -> None:
    (photos.parent / "other").mkdir()
    ended = medtool("manifest", "folder", photos, "--out", photos.parent / "other" / "m.csv")
    assert ended.code == 1
    assert str(photos / "manifest.csv") in ended.err


def test_names_with_control_characters_reach_no_terminal_but_stay_in_the_file(
    medtool: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "t.csv").write_bytes(b'image,label\na.png,"\x1b[31mred"\ngone\x1b[2J.png,x\n')
    ended = medtool("manifest", "csv", tmp_path)
    assert "\x1b" not in ended.err + ended.out
    assert read_manifest(tmp_path / "manifest.csv").counts("label") == {"\x1b[31mred": 1}

"""``medtool demo`` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medtool.errors import ExitCode

Run = Callable[..., Any]


def test_it_prints_the_manifest_and_names_the_next_command(medtool: Run, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    ended = medtool("demo", folder, "--images", 2)
    assert ended.code == ExitCode.DONE
    assert ended.out == f"{folder / 'manifest.csv'}\n"
    assert "medtool segment --points 5" in ended.err
    assert "2 lesion phantoms of 1 patient (" in ended.err

    again = medtool("demo", folder, "--images", 2, "--json")
    document = json.loads(again.out)
    assert list(document)[:2] == ["format", "version"]
    assert document["images"] == 2
    assert document["drawn"] == 0
    assert sum(document["labels"].values()) == 2
    assert len(document["real"]) == 5

    quiet = medtool("demo", folder, "--images", 2, "-q")
    assert quiet.out.split() == ["P0001_1", "P0001_2"]
    assert quiet.err == ""

    other = medtool("demo", folder, "--kind", "tissue", "--images", 2)
    assert other.code == ExitCode.USAGE
    assert other.out == ""
    assert "holds another demo" in other.err
    assert "--overwrite" in other.err


def test_no_images_are_a_usage_error(medtool: Run, tmp_path: Path) -> None:
    for count in (0, -1):
        ended = medtool("demo", tmp_path / "demo", "--images", count)
        assert ended.code == ExitCode.USAGE
        assert str(count) in ended.err
    assert not (tmp_path / "demo").exists()


def test_an_empty_text_is_no_folder(medtool: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ended = medtool("demo", "", "--images", 2)
    assert ended.code == ExitCode.USAGE
    assert "DIR is the empty text" in ended.err
    assert not any(tmp_path.iterdir())


def test_a_kind_that_does_not_exist_is_a_usage_error(medtool: Run, tmp_path: Path) -> None:
    ended = medtool("demo", tmp_path / "demo", "--kind", "mri")
    assert ended.code == ExitCode.USAGE
    assert "xray" in ended.err


def test_a_picture_that_scikit_image_does_not_ship_is_named(medtool: Run, tmp_path: Path, monkeypatch: Any) -> None:
    from medtool.demo import folder, real

    odd = real.RealPicture("no-such.png", "no-such.png", "nothing", "CC0-1.0", "nowhere")
    monkeypatch.setattr(real, "PICTURES", (*real.PICTURES, odd))
    monkeypatch.setattr(folder, "PICTURES", real.PICTURES)
    ended = medtool("demo", tmp_path / "demo", "--images", 1, "-q")
    assert ended.code == ExitCode.DONE
    assert "no-such.png" in ended.err

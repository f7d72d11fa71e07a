"""What a result was made from, and what it is not mixed with."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtool.errors import LineageError
from medtool.lineage import (
    differences,
    digest_of,
    finished,
    new_lineage,
    read_lineage,
    refuse_other,
    write_lineage,
)


def made_with(**changes: object) -> dict[str, object]:
    return {"segmenter": {"name": "heatmap", "version": "1"}, "points": 5, **changes}


def test_a_lineage_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_lineage(tmp_path) is None
    document = new_lineage("segment", made_with(), packages=["numpy"])
    write_lineage(tmp_path, document)
    assert read_lineage(tmp_path) == document
    assert document["status"] == "unfinished"
    assert document["packages"]["numpy"]


def test_the_same_work_gives_the_same_lineage_and_other_images_another() -> None:
    start = new_lineage("segment", made_with(), packages=[])
    once = finished(start, images={"a": "1", "b": "2"}, outputs={})
    assert once == finished(start, images={"b": "2", "a": "1"}, outputs={})
    assert once != finished(start, images={"a": "2", "b": "1"}, outputs={})
    assert once["images"]["n"] == 2


def test_differences_are_named_by_their_path() -> None:
    before = made_with()
    now = {"segmenter": {"name": "random-walker", "version": "1"}, "points": 5, "extra": 1}
    assert differences(before, now) == ["extra was nothing, now 1", "segmenter.name was heatmap, now random-walker"]
    assert differences(before, made_with()) == []


def test_other_options_are_refused_with_the_way_out(tmp_path: Path) -> None:
    before = new_lineage("segment", made_with(), packages=[])
    refuse_other(tmp_path, before, new_lineage("segment", made_with(), packages=[]))
    with pytest.raises(LineageError, match="points was 5, now 6") as caught:
        refuse_other(tmp_path, before, new_lineage("segment", made_with(points=6), packages=[]))
    assert "--overwrite" in (caught.value.hint or "")
    with pytest.raises(LineageError, match="medtool segment"):
        refuse_other(tmp_path, before, new_lineage("cam", made_with(), packages=[]))


def test_a_lineage_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    write_lineage(tmp_path, {**new_lineage("segment", {}, packages=[]), "version": 99})
    with pytest.raises(LineageError, match="99"):
        read_lineage(tmp_path)


@pytest.mark.parametrize("text", ["{", "", '{"format": "medtool-lineage", "version": 1, "command": "segment"}', "[]"])
def test_a_damaged_lineage_is_refused_with_a_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "lineage.json").write_text(text)
    with pytest.raises(LineageError, match=r"lineage\.json") as caught:
        read_lineage(tmp_path)
    assert "--out" in (caught.value.hint or "")


def test_a_digest_tells_where_one_line_ends() -> None:
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])
    assert digest_of([]) != digest_of([""])

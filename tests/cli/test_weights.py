from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.weights.conftest import CONTENT, Publisher, info, publisher

if TYPE_CHECKING:
    from medtool.weights import WeightsInfo
    from tests.conftest import Ended

__all__ = ["info", "publisher"]  # fixtures

Medtool = Callable[..., "Ended"]


def test_get_prints_the_path_and_then_path_does(medtool: Medtool, info: WeightsInfo, tmp_path: Path) -> None:
    path = tmp_path / "weights" / info.file_name
    ended = medtool("weights", "get", "tiny")
    assert (ended.code, ended.out) == (0, f"{path}\n")
    assert info.sha256 in ended.err
    assert info.licence in ended.err
    assert medtool("weights", "path", "tiny").out == f"{path}\n"
    assert path.read_bytes() == CONTENT


def test_quiet_get_says_nothing_but_the_path(medtool: Medtool, info: WeightsInfo, tmp_path: Path) -> None:
    ended = medtool("weights", "get", "tiny", "-q")
    assert (ended.out, ended.err) == (f"{tmp_path / 'weights' / info.file_name}\n", "")


def test_path_of_missing_weights_names_the_command(medtool: Medtool, info: WeightsInfo) -> None:
    ended = medtool("weights", "path", "tiny")
    assert (ended.code, ended.out) == (1, "")
    assert "try: medtool weights get tiny" in ended.err


def test_an_unknown_name_is_a_usage_error(medtool: Medtool, info: WeightsInfo) -> None:
    ended = medtool("weights", "get", "tinny")
    assert ended.code == 2
    assert "Did you mean 'tiny'?" in ended.err


def test_nothing_is_fetched_when_one_of_several_names_is_unknown(
    medtool: Medtool, info: WeightsInfo, publisher: Publisher
) -> None:
    assert medtool("weights", "get", "tiny", "tinny").code == 2
    assert publisher.ranges == []


def test_list_shows_the_state_and_its_verification(medtool: Medtool, info: WeightsInfo, tmp_path: Path) -> None:
    assert "missing" in medtool("weights", "list").out
    medtool("weights", "get", "tiny")
    assert medtool("weights", "list").out.splitlines()[1].split()[-1] == "here"
    verified = medtool("weights", "list", "--verify")
    assert (verified.code, verified.out.splitlines()[1].split()[-1]) == (0, "verified")
    (tmp_path / "weights" / info.file_name).write_bytes(bytes(len(CONTENT)))
    assert medtool("weights", "list").code == 0
    wrong = medtool("weights", "list", "--verify")
    assert wrong.code == 1
    assert "wrong file" in wrong.out


def test_quiet_list_gives_names_only(medtool: Medtool) -> None:
    ended = medtool("weights", "list", "-q")
    assert ended.out.split() == ["sam-vit-b", "sam-vit-l", "sam-vit-h", "medsam-vit-b", "mobile-sam"]
    assert ended.err == ""


def test_an_unfinished_download_is_shown_with_its_share(medtool: Medtool, info: WeightsInfo, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{info.file_name}.part").write_bytes(CONTENT[:150_000])
    assert "unfinished (50%)" in medtool("weights", "list").out


@pytest.mark.parametrize("command", [("list",), ("get", "tiny"), ("path", "tiny")])
def test_every_command_gives_the_same_kind_of_document(
    medtool: Medtool, info: WeightsInfo, command: tuple[str, ...]
) -> None:
    medtool("weights", "get", "tiny")
    document: dict[str, Any] = json.loads(medtool("weights", *command, "--json").out)
    assert list(document)[:2] == ["format", "version"]
    assert (document["format"], document["version"]) == ("medtool-weights", 1)
    (row,) = document["weights"]
    assert row["name"] == "tiny"
    assert row["state"] == ("verified" if command[0] == "get" else "here")
    assert row["published"]["sha256"] == info.sha256
    assert row["published"]["url"] == info.url


def test_offline_it_names_the_address_the_place_and_the_hash(
    medtool: Medtool, info: WeightsInfo, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.answers = [403]
    ended = medtool("weights", "get", "tiny")
    assert (ended.code, ended.out) == (1, "")
    for part in (info.url, str(tmp_path / "weights" / info.file_name), info.sha256, "--from"):
        assert part in ended.err
    assert len(ended.err.splitlines()) == 2


def test_a_carried_file_is_taken(medtool: Medtool, info: WeightsInfo, publisher: Publisher, tmp_path: Path) -> None:
    source = tmp_path / "carried.pth"
    source.write_bytes(CONTENT)
    assert medtool("weights", "get", "tiny", "--from", source).code == 0
    assert publisher.ranges == []
    assert medtool("weights", "list", "--verify").code == 0


def test_one_file_for_two_names_is_a_usage_error(medtool: Medtool, tmp_path: Path) -> None:
    source = tmp_path / "carried.pth"
    source.write_bytes(CONTENT)
    assert medtool("weights", "get", "sam-vit-b", "mobile-sam", "--from", source).code == 2


def test_interrupting_a_download_keeps_its_part(
    medtool: Medtool, info: WeightsInfo, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medtool.weights import download

    write = download._write

    def interrupt(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_write", interrupt)
    ended = medtool("weights", "get", "tiny")
    assert ended.code == 130
    monkeypatch.setattr(download, "_write", write)
    publisher.ranges.clear()
    assert medtool("weights", "get", "tiny").code == 0
    assert publisher.ranges[0] is not None


def test_without_a_terminal_progress_is_lines_that_v_asks_for(
    medtool: Medtool, info: WeightsInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medtool.cli.console._Lines.every_s", 0.0)
    assert "of 300,000 bytes" not in medtool("weights", "get", "tiny").err
    (tmp_path / "weights" / info.file_name).unlink()
    ended = medtool("weights", "get", "tiny", "-v")
    assert "tiny: 300,000 of 300,000 bytes" in ended.err
    assert "\x1b" not in ended.err

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from medtool import weights
from medtool.errors import InputError, NetworkError, OutputError, UnknownNameError
from medtool.storage import locked
from medtool.weights import State, WeightsInfo, download

from .conftest import CONTENT, Publisher


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_get_fetches_verifies_and_leaves_only_the_file(info: WeightsInfo) -> None:
    seen: list[tuple[int, int]] = []
    found = weights.get("tiny", progress=lambda done, total: seen.append((done, total)))
    assert found.path.read_bytes() == CONTENT
    assert found.state is State.VERIFIED
    assert found.sha256 == info.sha256
    assert _files(weights.folder()) == [info.file_name]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert weights.find("tiny") == found.path


def test_getting_what_is_there_asks_no_server(info: WeightsInfo, publisher: Publisher) -> None:
    weights.get("tiny")
    publisher.ranges.clear()
    assert weights.get("tiny").state is State.VERIFIED
    assert publisher.ranges == []


@pytest.mark.parametrize("says_length", [True, False])
def test_a_dropped_connection_goes_on_where_it_stopped(
    info: WeightsInfo, publisher: Publisher, says_length: bool
) -> None:
    publisher.drop_after = 100_000
    publisher.says_length = says_length
    told: list[str] = []
    assert weights.get("tiny", tell=told.append).path.read_bytes() == CONTENT
    assert publisher.ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert len(told) == 2
    assert "100,000 of 300,000 bytes" in told[0]


def test_a_connection_that_is_reset_goes_on(info: WeightsInfo, publisher: Publisher) -> None:
    publisher.drop_after, publisher.resets = 150_000, True
    assert weights.get("tiny").path.read_bytes() == CONTENT
    assert len(publisher.ranges) > 1


def test_a_server_without_ranges_is_asked_for_the_whole_again_but_not_for_ever(
    info: WeightsInfo, publisher: Publisher
) -> None:
    publisher.does_ranges = False
    publisher.drop_after = 100_000
    with pytest.raises(NetworkError, match=r"stopped at 100,000 of 300,000 bytes"):
        weights.get("tiny")
    assert len(publisher.ranges) == 1 + download.FRUITLESS_TRIES
    assert weights.look_at("tiny").state is State.UNFINISHED
    publisher.drop_after = None
    assert weights.get("tiny").path.read_bytes() == CONTENT


def test_a_part_of_another_file_is_not_continued(info: WeightsInfo, publisher: Publisher) -> None:
    publisher.content = bytes(len(CONTENT))
    publisher.etag = '"older"'
    publisher.drop_after = 100_000
    publisher.answers = []
    attempts = iter([None, *[503] * download.FRUITLESS_TRIES])

    def fail_after_the_first() -> None:
        if (code := next(attempts)) is not None:
            publisher.answers.append(code)

    publisher.on_request = fail_after_the_first
    with pytest.raises(NetworkError, match="503"):
        weights.get("tiny")
    publisher.on_request = None
    publisher.content, publisher.etag, publisher.drop_after = CONTENT, '"first"', None
    publisher.ranges.clear()
    assert weights.get("tiny").path.read_bytes() == CONTENT
    assert publisher.ranges == ["bytes=100000-"]  # answered with the whole file: If-Range did not match


def test_a_damaged_part_is_found_out_and_fetched_anew(info: WeightsInfo, publisher: Publisher) -> None:
    weights.folder().mkdir()
    (weights.folder() / f"{info.file_name}.part").write_bytes(bytes(1000))
    told: list[str] = []
    assert weights.get("tiny", tell=told.append).path.read_bytes() == CONTENT
    assert publisher.ranges == ["bytes=1000-", None]
    assert "damaged" in told[0]
    assert info.sha256 in told[0]


@pytest.mark.parametrize("extra", [0, 7])
def test_a_part_as_long_as_the_file_or_longer_ends_well(info: WeightsInfo, publisher: Publisher, extra: int) -> None:
    weights.folder().mkdir()
    (weights.folder() / f"{info.file_name}.part").write_bytes(CONTENT + bytes(extra))
    assert weights.get("tiny").path.read_bytes() == CONTENT
    assert len(publisher.ranges) == (1 if extra else 0)
    assert _files(weights.folder()) == [info.file_name]


def test_other_content_of_the_right_size_is_refused_and_removed(info: WeightsInfo, publisher: Publisher) -> None:
    publisher.content = bytes(len(CONTENT))
    with pytest.raises(NetworkError) as caught:
        weights.get("tiny")
    assert info.sha256 in caught.value.message
    assert hashlib.sha256(publisher.content).hexdigest() in caught.value.message
    assert "removed" in caught.value.message
    assert _files(weights.folder()) == []
    assert weights.find("tiny") is None


@pytest.mark.parametrize("claims_bytes", [12, 299_999, 300_001])
def test_a_server_that_offers_another_size_is_refused_before_a_byte_is_written(
    info: WeightsInfo, publisher: Publisher, claims_bytes: int
) -> None:
    publisher.claims_bytes = claims_bytes
    with pytest.raises(NetworkError, match=rf"offers {claims_bytes:,} bytes; the published file has 300,000"):
        weights.get("tiny")
    assert _files(weights.folder()) == []


def test_a_body_longer_than_published_is_refused(info: WeightsInfo, publisher: Publisher) -> None:
    publisher.content = CONTENT + b"more"
    publisher.says_length = False
    with pytest.raises(NetworkError, match="more than the published 300,000 bytes"):
        weights.get("tiny")
    assert _files(weights.folder()) == []


def test_a_body_shorter_than_its_length_is_not_taken_for_whole(info: WeightsInfo, publisher: Publisher) -> None:
    publisher.content = CONTENT[:-1]
    publisher.claims_bytes = len(CONTENT)
    with pytest.raises(NetworkError, match=r"stopped at 299,999 of 300,000 bytes"):
        weights.get("tiny")
    assert weights.find("tiny") is None


def test_a_login_page_costs_nothing_of_an_unfinished_download(info: WeightsInfo, publisher: Publisher) -> None:
    weights.folder().mkdir()
    part = weights.folder() / f"{info.file_name}.part"
    part.write_bytes(CONTENT[:50_000])
    publisher.content_type, publisher.does_ranges, publisher.says_length = "text/html; charset=utf-8", False, False
    with pytest.raises(NetworkError, match="web page"):
        weights.get("tiny")
    assert part.read_bytes() == CONTENT[:50_000]


@pytest.mark.parametrize("code", [401, 403, 404, 407, 410])
def test_a_refusal_names_address_place_and_hash(info: WeightsInfo, publisher: Publisher, code: int) -> None:
    publisher.answers = [code]
    with pytest.raises(NetworkError) as caught:
        weights.get("tiny")
    assert f"{info.url} answers {code}" in caught.value.message
    assert str(weights.folder() / info.file_name) in str(caught.value.hint)
    assert info.sha256 in str(caught.value.hint)
    assert "medtool weights get tiny --from tiny_0001.pth" in str(caught.value.hint)
    assert "\n" not in caught.value.message + str(caught.value.hint)
    assert len(publisher.ranges) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_passing_refusal_is_tried_again(info: WeightsInfo, publisher: Publisher, code: int) -> None:
    publisher.answers = [code, code]
    assert weights.get("tiny").state is State.VERIFIED


def test_a_range_that_cannot_be_had_starts_anew(info: WeightsInfo, publisher: Publisher) -> None:
    weights.folder().mkdir()
    (weights.folder() / f"{info.file_name}.part").write_bytes(CONTENT[:1000])
    publisher.answers = [416]
    assert weights.get("tiny").path.read_bytes() == CONTENT
    assert publisher.ranges == ["bytes=1000-", None]


def test_a_range_from_the_wrong_place_is_not_joined(info: WeightsInfo, publisher: Publisher) -> None:
    weights.folder().mkdir()
    (weights.folder() / f"{info.file_name}.part").write_bytes(CONTENT[:1000])
    publisher.shifts_ranges = True
    assert weights.get("tiny").path.read_bytes() == CONTENT
    assert publisher.ranges == ["bytes=1000-", None]


def test_a_redirect_is_followed_with_its_range(info: WeightsInfo, publisher: Publisher) -> None:
    weights.folder().mkdir()
    (weights.folder() / f"{info.file_name}.part").write_bytes(CONTENT[:1000])
    publisher.redirect_to = "/moved"
    assert weights.get("tiny").path.read_bytes() == CONTENT
    assert publisher.ranges == ["bytes=1000-", "bytes=1000-"]


def test_a_redirect_to_a_file_of_this_machine_is_refused(info: WeightsInfo, publisher: Publisher) -> None:
    publisher.redirect_to = "file:///etc/hostname"
    with pytest.raises(NetworkError):
        weights.get("tiny")


def test_a_closed_port_fails_at_once(info: WeightsInfo, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(NetworkError, match="cannot be reached") as caught:
        weights.get("tiny")
    assert time.monotonic() - start < 5
    assert "secret" not in caught.value.message + str(caught.value.hint)


def test_an_unknown_host_says_offline(info: WeightsInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(NetworkError, match="seems to be offline"):
        weights.get("tiny")


def test_a_silent_server_is_given_up(info: WeightsInfo, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(download, "FRUITLESS_TRIES", 2)
    publisher.on_request = lambda: time.sleep(0.2)
    with pytest.raises(NetworkError, match=r"no answer for 0\.05 seconds"):
        weights.get("tiny")


def test_the_proxy_of_the_environment_is_used(
    info: WeightsInfo, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medtool.weights import published

    monkeypatch.setenv("http_proxy", publisher.address)
    beyond = WeightsInfo(**{**_fields(info), "url": "http://weights.invalid/tiny_0001.pth"})
    monkeypatch.setattr(published, "KNOWN", (beyond,))
    assert weights.get("tiny").state is State.VERIFIED


def _fields(info: WeightsInfo) -> dict[str, object]:
    return {name: getattr(info, name) for name in info.__slots__}


def test_a_full_disk_is_refused_before_the_download(
    info: WeightsInfo, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(OutputError, match="1 MB free; 67 MB are needed") as caught:
        weights.get("tiny")
    assert "MEDTOOL_WEIGHTS" in str(caught.value.hint)
    assert publisher.ranges == []


def test_a_disk_that_fills_up_is_one_line_and_keeps_what_came(
    info: WeightsInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(stream: object, block: bytes, part: Path) -> None:
        if part.stat().st_size:
            raise download.output_error(part, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        part.write_bytes(block[:10])

    monkeypatch.setattr(download, "_write", write)
    with pytest.raises(OutputError, match="no space left on device") as caught:
        weights.get("tiny")
    assert "MEDTOOL_WEIGHTS" in str(caught.value.hint)
    assert weights.look_at("tiny").state is State.UNFINISHED


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_an_output_error(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OutputError, match="no space left"):
        download._write(full, b"some", tmp_path / "part")


def test_a_folder_that_is_a_file_is_one_line(info: WeightsInfo) -> None:
    weights.folder().write_bytes(b"")
    with pytest.raises(OutputError) as caught:
        weights.get("tiny")
    assert "\n" not in caught.value.message
    assert "MEDTOOL_WEIGHTS" in str(caught.value.hint)


@pytest.mark.parametrize("content", [b"fine-tuned", bytes(len(CONTENT))])
def test_another_file_of_that_name_is_replaced_only_when_asked_to(info: WeightsInfo, content: bytes) -> None:
    weights.folder().mkdir()
    path = weights.folder() / info.file_name
    path.write_bytes(content)
    with pytest.raises(InputError, match="not the published tiny") as caught:
        weights.get("tiny")
    assert "--overwrite" in str(caught.value.hint)
    assert path.read_bytes() == content
    assert weights.get("tiny", overwrite=True).path.read_bytes() == CONTENT


def test_an_unknown_name_gives_the_nearest(info: WeightsInfo) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny'"):
        weights.get("tinny")


@pytest.mark.parametrize("in_folder", [True, False])
def test_a_carried_file_is_copied_and_verified(info: WeightsInfo, tmp_path: Path, in_folder: bool) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    source = stick / (info.file_name if in_folder else "renamed.bin")
    source.write_bytes(CONTENT)
    found = weights.install("tiny", stick if in_folder else source)
    assert found.path.read_bytes() == CONTENT
    assert source.read_bytes() == CONTENT
    assert _files(weights.folder()) == [info.file_name]


@pytest.mark.parametrize("content", [b"short", bytes(len(CONTENT))])
def test_a_carried_file_that_is_another_is_refused(info: WeightsInfo, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "other.pth"
    source.write_bytes(content)
    with pytest.raises(InputError, match="not the published tiny"):
        weights.install("tiny", source)
    assert source.read_bytes() == content
    assert _files(weights.folder()) == []


def test_a_carried_file_that_is_not_there_is_named(info: WeightsInfo, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.pth cannot be read: no such file"):
        weights.install("tiny", tmp_path / "missing.pth")


def test_what_a_killed_copy_left_is_swept(info: WeightsInfo) -> None:
    weights.folder().mkdir()
    (weights.folder() / ".medtool-tmp-0123").write_bytes(b"half")
    weights.get("tiny")
    assert _files(weights.folder()) == [info.file_name]


def test_a_second_process_waits_for_the_first(info: WeightsInfo) -> None:
    weights.folder().mkdir()
    told = threading.Event()
    found: list[weights.Found] = []
    second = threading.Thread(target=lambda: found.append(weights.get("tiny", tell=lambda _: told.set())))
    with locked(weights.folder()):
        second.start()
        assert told.wait(5)
        assert not found
    second.join(5)
    assert found[0].state is State.VERIFIED


def test_a_folder_for_reading_only_serves_what_is_in_it(info: WeightsInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.get("tiny")

    def refuse(*_: object) -> None:
        raise AssertionError("locked a folder that needs no writing")

    monkeypatch.setattr("medtool.weights.delivery.locked", refuse)
    assert weights.get("tiny").state is State.VERIFIED


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_a_download_killed_in_the_middle_goes_on(info: WeightsInfo, publisher: Publisher, tmp_path: Path) -> None:
    script = f"""
        import os, sys
        from medtool import weights
        from medtool.weights import published
        published.KNOWN = (weights.WeightsInfo(**{_fields(info)!r}),)
        weights.get("tiny", progress=lambda done, total: done > 20_000 and print("now", flush=True) or done > 20_000
                    and sys.stdin.read())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "now\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
    unfinished = weights.look_at("tiny")
    assert unfinished.state is State.UNFINISHED
    assert 20_000 < unfinished.size_bytes < len(CONTENT)
    assert weights.find("tiny") is None
    publisher.ranges.clear()
    assert weights.get("tiny").path.read_bytes() == CONTENT
    assert publisher.ranges == [f"bytes={unfinished.size_bytes}-"]
    assert _files(weights.folder()) == [info.file_name]

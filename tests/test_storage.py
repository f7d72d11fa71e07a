"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from medtool.errors import BusyError, InputError, OutputError
from medtool.storage import (
    LOCK_NAME,
    Parts,
    locked,
    read_json,
    sha256_of,
    sweep_temporaries,
    write_json,
    write_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_whole(target, b"old")
    write_whole(target, b"new and longer")
    assert target.read_bytes() == b"new and longer"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "a.bin"
    write_whole(target, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OutputError, match="no space left on device") as caught:
        write_whole(target, b"new")
    assert "run the same command again" in (caught.value.hint or "")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_folder_that_cannot_be_written_to_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*a\.bin: no such file or directory"):
        write_whole(tmp_path / "missing" / "a.bin", b"")


def test_what_a_killed_process_left_half_written_is_swept(tmp_path: Path) -> None:
    for folder in ("own/deep", "other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / ".medtool-tmp-0123").write_bytes(b"half")
    (tmp_path / "own" / "deep" / "kept.png").write_bytes(b"whole")
    (tmp_path / ".medtool-tmp-4567").write_bytes(b"half")
    sweep_temporaries(tmp_path, below=("own",))
    assert names(tmp_path) == [".medtool-tmp-0123", "deep", "kept.png", "other", "own"]
    assert (tmp_path / "other" / ".medtool-tmp-0123").exists()


def test_json_is_written_and_read_back_equal(tmp_path: Path) -> None:
    document = {"format": "x", "values": [1, 2.5, None, "ü\udcff"], "nested": {"a": True}}
    write_json(tmp_path / "a.json", document)
    assert read_json(tmp_path / "a.json") == document


@pytest.mark.parametrize("data", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_parts_come_back_by_key_until_they_are_removed(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    for key in ("b", "a/with:odd\ncharacters", "ünï", "a"):
        parts.write(key, {"of": key})
    parts.write("b", {"of": "b, again"})
    assert Parts(tmp_path).read() == {
        "a": {"of": "a"},
        "a/with:odd\ncharacters": {"of": "a/with:odd\ncharacters"},
        "b": {"of": "b, again"},
        "ünï": {"of": "ünï"},
    }
    parts.remove()
    parts.remove()
    assert Parts(tmp_path).read() == {}
    assert names(tmp_path) == []


def _hold(folder: Path, ready: object, go: object) -> None:
    with locked(folder):
        ready.set()  # type: ignore[attr-defined]
        go.wait(30)  # type: ignore[attr-defined]


def test_a_folder_is_held_by_one_process_and_free_again_when_that_is_killed(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(tmp_path, ready, go))
    other.start()
    assert ready.wait(30)
    with pytest.raises(BusyError, match=f"process {other.pid} on"), locked(tmp_path):
        pass
    other.kill()
    other.join()
    with locked(tmp_path):
        pass
    assert LOCK_NAME not in names(tmp_path)


def test_a_lock_excludes_threads_of_one_process_too(tmp_path: Path) -> None:
    refused = []

    def attempt() -> None:
        try:
            with locked(tmp_path):
                pass
        except BusyError:
            refused.append(True)

    with locked(tmp_path):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert refused == [True]


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

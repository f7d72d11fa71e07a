"""Strict JSON in, files out that replace no others."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.errors import InputError, OutputError
from medtool.split.exchange import files
from medtool.split.exchange.files import json_bytes, read_strict_json, write_files, write_imported
from tests.split.exchange.manifests import manifest_of

scalar = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
document = st.recursive(scalar, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(document)
def test_what_is_written_is_json_of_the_same_value_in_ascii(value):
    data = json_bytes(value)
    assert json.loads(data) == value
    assert data.isascii()
    assert data.endswith(b"\n")


def test_json_with_and_without_a_byte_order_mark_is_the_same(tmp_path):
    for number, data in enumerate((b'["\xc3\xa4"]', b'\xef\xbb\xbf["\xc3\xa4"]')):
        path = tmp_path / f"{number}.json"
        path.write_bytes(data)
        assert read_strict_json(path) == ["ä"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1, column 1: this is not JSON: expecting value"),
        (b'[\n  "a",\n]', "line 3, column 1|line 2, column 6"),
        (b"[1, NaN]", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'{"train": [], "train": ["a"]}', "the key 'train' stands twice in one object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" + b"9" * 10_000 + b"]", "a number of 10,000 digits"),
        (b'["a",\n"\xe4"]', "line 2: byte 0xe4 is not UTF-8"),
        (b'\xef\xbb\xbf["a",\n"\xe4"]', "line 2: byte 0xe4 is not UTF-8"),
        ('["a"]'.encode("utf-16"), "line 1: the file is UTF-16; it must be UTF-8"),
        (b"\x00\x00\xfe\xff", "line 1: the file is UTF-32"),
        (b'["a"] trailing', "line 1, column 7: this is not JSON: extra data"),
    ],
)
def test_what_is_not_json_is_one_line_with_the_file_and_where_it_can_be_the_place(tmp_path, data, words):
    path = tmp_path / "splits_final.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as raised:
        read_strict_json(path)
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message


def test_what_is_no_regular_file_of_reasonable_size_is_not_read(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such file"):
        read_strict_json(tmp_path / "gone.json")
    with pytest.raises(InputError, match="is a folder, not a file"):
        read_strict_json(tmp_path)
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match=r"pipe is not a regular file$"):
            read_strict_json(tmp_path / "pipe")
    (tmp_path / "large.json").write_text("[1, 2, 3]")
    monkeypatch.setattr(files, "_MAX_BYTES", 8)
    with pytest.raises(InputError, match="has 9 bytes; the list of a split has 8 at most"):
        read_strict_json(tmp_path / "large.json")


def test_no_file_is_written_where_one_of_them_would_be_replaced(tmp_path):
    (tmp_path / "b").write_bytes(b"mine")
    with pytest.raises(OutputError, match="b is there already and differs"):
        write_files(tmp_path, {"a": b"1", "b": b"2"}, overwrite=False)
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b").read_bytes() == b"mine"
    assert write_files(tmp_path, {"a": b"1", "b": b"2"}, overwrite=True) == [tmp_path / "a", tmp_path / "b"]
    assert (tmp_path / "b").read_bytes() == b"2"


def test_a_file_with_the_same_content_is_left_as_it_is(tmp_path):
    write_files(tmp_path / "new", {"a": b"1"}, overwrite=False)
    before = (tmp_path / "new" / "a").stat()
    write_files(tmp_path / "new", {"a": b"1"}, overwrite=False)
    assert (tmp_path / "new" / "a").stat().st_ino == before.st_ino


def test_a_link_to_nothing_is_not_written_through(tmp_path):
    link = tmp_path / "a"
    try:
        link.symlink_to(tmp_path / "elsewhere")
    except OSError:
        pytest.skip("links cannot be made here")
    with pytest.raises(OutputError, match="is there already"):
        write_files(tmp_path, {"a": b"1"}, overwrite=False)
    write_files(tmp_path, {"a": b"1"}, overwrite=True)
    assert not link.is_symlink()
    assert not (tmp_path / "elsewhere").exists()


def test_a_manifest_that_says_something_else_is_only_replaced_when_asked(tmp_path):
    path = tmp_path / "m.csv"
    first, second = (manifest_of([{"split": split}], tmp_path) for split in ("train", "val"))
    write_imported(first, path, overwrite=False)
    write_imported(first, path, overwrite=False)
    with pytest.raises(OutputError, match="is there already and differs"):
        write_imported(second, path, overwrite=False)
    write_imported(second, path, overwrite=True)
    assert "val" in path.read_text()
    path.write_text("not a manifest")
    with pytest.raises(OutputError, match="is there already and differs"):
        write_imported(first, path, overwrite=False)

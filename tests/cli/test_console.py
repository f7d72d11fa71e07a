"""What reaches the terminal."""

from __future__ import annotations

import errno
import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.cli import console
from medtool.errors import InputError, OutputError, UsageError


@pytest.fixture(autouse=True)
def plain_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "settings", console.Settings())


@given(st.text())
def test_no_text_from_outside_can_steer_a_terminal(text: str) -> None:
    shown = console.inert(text)
    assert not any((ord(c) < 0x20 and c != "\t") or 0x7F <= ord(c) <= 0x9F or 0xD800 <= ord(c) <= 0xDFFF for c in shown)
    assert not set(shown) & set("\u202a\u202e\u2066\u2069\u2028\u2029")


def test_printable_text_of_any_script_is_shown_as_it_is() -> None:
    assert console.inert("Größe µm 病理 [bold] 🔬") == "Größe µm 病理 [bold] 🔬"
    assert console.inert("a\x1b[31mb\r\n") == "a\\x1b[31mb\\x0d\\x0a"


def test_data_goes_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.out("data")
    console.say("talk")
    console.detail("more talk")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("data\n", "talk\n")


def test_quiet_keeps_identifiers_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    console.settings.quiet = True
    console.table(("name", "size"), [("a", "1"), ("b", "2")])
    console.say("talk")
    console.warn("look out")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("a\nb\n", "medtool: look out\n")


def test_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("name", "n"), [("long name", "1"), ("x", "22")])
    assert capsys.readouterr().out == "name       n\nlong name  1\nx          22\n"


def test_json_is_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_json({"format": "medtool-x", "version": 1, "name": "ü\x1b\udcff"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out)["name"] == "ü\x1b\udcff"


def test_an_error_is_its_message_its_next_step_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.fail(UsageError("wrong option", hint="medtool --help")) == 2
    assert capsys.readouterr().err == "medtool: wrong option\n  try: medtool --help\n"
    assert console.fail(InputError("bad")) == 1
    assert capsys.readouterr().err == "medtool: bad\n"
    assert console.fail(RuntimeError("boom")) == 1
    assert "RuntimeError: boom (unexpected)" in capsys.readouterr().err


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    console.settings.debug = True
    try:
        raise InputError("bad")
    except InputError as error:
        console.fail(error)
    assert "Traceback" in capsys.readouterr().err


def test_a_copy_that_cannot_be_delivered_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    stream = io.TextIOWrapper(Full(), write_through=True)  # type: ignore[type-var]
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(OutputError, match="cannot write to stdout: no space left on device"):
        console.copy(b"image,image_id\n")


def test_what_a_plugin_prints_while_a_command_works_is_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    with console.data_only():
        print("noise")  # noqa: T201
        console.show_json({"format": "medtool-x"})
        console.out("data")
        console.copy(b"a,b\n")
    console.out("more data")
    shown = capsys.readouterr()
    assert shown.err == "noise\n"
    assert shown.out == '{\n  "format": "medtool-x"\n}\ndata\na,b\nmore data\n'


def test_without_a_terminal_progress_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.steps(2, "work") as progress:
        progress.advance()
        progress.advance()
    assert capsys.readouterr() == ("", "")

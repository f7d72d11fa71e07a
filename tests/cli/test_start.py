"""Starting: what a fresh interpreter loads, and what every command has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from medtool import __version__

HEAVY = ("numpy", "scipy", "skimage", "h5py", "polars", "torch", "torchvision", "timm", "PIL", "pydicom", "sklearn")


def modules_after(code: str) -> set[str]:
    shown = f"{code}\nimport sys\nsys.stderr.write('MODULES ' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.partition("MODULES ")[2].split()}


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["--version"]])
def test_help_and_version_load_no_numerical_library(arguments: list[str]) -> None:
    loaded = modules_after(f"from medtool.cli.app import run\nrun({arguments!r})")
    assert "typer" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "expected"), [(["--help"], set()), (["segmnt"], set()), (["weights", "list"], {"weights"})]
)
def test_commands_that_are_not_used_are_not_imported(arguments: list[str], expected: set[str]) -> None:
    code = f"""
import sys
from medtool.cli.app import app, run
import typer
run({arguments!r})
commands = {{name.removesuffix("-family") for name in typer.main.get_command(app).commands}}
print("LOADED", *(name for name in commands if f"medtool.cli.{{name}}" in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.rpartition("LOADED")[2].split()) == expected


def test_the_version_comes_from_one_place(medtool: Callable[..., Any]) -> None:
    import importlib.metadata

    ended = medtool("--version")
    assert ended.out == f"medtool {__version__}\n"
    assert importlib.metadata.version("medtool") == __version__


def test_python_minus_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "medtool", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"medtool {__version__}\n"


def all_commands() -> Iterator[tuple[str, Any]]:
    from medtool.cli.app import app
    from medtool.cli.family import commands_below

    return commands_below(typer.main.get_command(app))


@pytest.mark.parametrize(("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in all_commands()])
def test_every_command_has_help_examples_and_the_options_of_all(
    name: str, command: Any, medtool: Callable[..., Any]
) -> None:
    ended = medtool(*name.split(), "--help")
    assert ended.code == 0
    assert f"medtool {name}" in " ".join((command.epilog or "").split()), "examples"
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {"--json", "--quiet", "-q", "--verbose", "-v", "--debug", "--no-progress", "--config"} <= flags
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sgment"], "segment"),
        (["segment"], "INPUTS"),
        (["segment", "x", "--points", "0"], "points is 0"),
        (["segment", "x", "--points", "many"], "--points"),
        (["segment", "x", "--slice", "-1"], "slice_index is -1"),
        (["segment", "x", "--strategy", "best"], "--strategy"),
        (["segment", "x", "--no-such-option"], "--no-such-option"),
    ],
)
def test_wrong_usage_is_one_line_a_next_step_and_code_2(
    medtool: Callable[..., Any], arguments: list[str], said: str
) -> None:
    ended = medtool(*arguments)
    assert ended.code == 2
    first, second = ended.err.splitlines()
    assert first.startswith("medtool: ")
    assert said in first
    assert second.startswith("  try: medtool")
    assert ended.out == ""


@pytest.mark.parametrize("arguments", [[], ["weights"], ["plugins"], ["split"]])
def test_a_group_without_a_command_shows_its_help_in_lines(medtool: Callable[..., Any], arguments: list[str]) -> None:
    ended, asked = medtool(*arguments), medtool(*arguments, "--help")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == asked.out


def test_options_come_from_flag_then_environment_then_file_then_default(
    medtool: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "options.toml"
    config.write_text("[segment]\npoints = 0\nseed = 1\n")
    common = ("segment", str(tmp_path), "--config", config)
    assert "points is 0" in medtool(*common).err
    monkeypatch.setenv("MEDTOOL_SEGMENT_POINTS", "-7")
    assert "points is -7" in medtool(*common).err
    assert "points is -8" in medtool(*common, "--points", "-8").err
    monkeypatch.delenv("MEDTOOL_SEGMENT_POINTS")
    config.write_text("[segment]\nseed = 1\n")
    assert "no image" in medtool(*common).err  # 5 by default, in an empty folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[segment]\npionts = 3\n", "pionts"),
        ("[segmnt]\npoints = 3\n", "segmnt"),
        ("points = 3\n", "[segment]"),
        ("[segment]\npoints = true\n", "points is true"),
        ("[segment]\noverlays = 1\n", "true or false"),
        ("[segment]\nconfig = 'other.toml'\n", "config"),
        ("segment = 3\n", "table"),
        ("[segment", "TOML"),
        (None, "cannot be read"),
    ],
)
def test_a_config_file_with_a_mistake_is_refused(
    medtool: Callable[..., Any], tmp_path: Path, text: str | None, said: str
) -> None:
    config = tmp_path / "options.toml"
    if text is not None:
        config.write_text(text)
    ended = medtool("segment", str(tmp_path), "--config", config)
    assert ended.code == 2
    assert said in ended.err
    assert str(config) in ended.err


def test_a_variable_that_is_no_option_is_refused_with_the_nearest_one(
    medtool: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDTOOL_SEGMENT_PIONTS", "3")
    ended = medtool("segment", tmp_path)
    assert ended.code == 2
    assert "MEDTOOL_SEGMENT_PIONTS" in ended.err
    assert "MEDTOOL_SEGMENT_POINTS" in ended.err


def test_a_version_variable_does_not_turn_commands_into_the_version(
    medtool: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDTOOL_VERSION", "1")
    assert medtool("segment", tmp_path).code != 0


def test_completion_of_a_shell_is_offered() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medtool", "--show-completion", "bash"], capture_output=True, text=True, check=False
    )
    assert "_MEDTOOL_COMPLETE" in done.stdout, done.stderr


@pytest.mark.parametrize(("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in all_commands()])
def test_the_variable_of_every_option_is_called_like_its_flag(name: str, command: Any) -> None:
    prefix = "_".join(["MEDTOOL", *name.split(), ""]).upper()
    for parameter in command.params:
        if parameter.param_type_name == "option":
            flags = [flag.lstrip("-").replace("-", "_").upper() for flag in parameter.opts if flag.startswith("--")]
            variable = parameter.envvar or f"{prefix}{parameter.name.upper()}"
            assert variable in [f"{prefix}{flag}" for flag in flags], parameter.opts

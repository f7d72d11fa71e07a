"""Write docs/reference/commands.md from the commands themselves: ``python docs/commands.py``."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Any

import typer

TARGET = Path(__file__).parent / "reference" / "commands.md"
HEAD = """# Commands

Written by `python docs/commands.py` from the commands themselves; `medtool COMMAND --help` shows the same.

Every option can also be set by an environment variable, `MEDTOOL_` + command + option in capitals
(`MEDTOOL_SEGMENT_POINTS=3`), or in the command's table of a TOML file given with `--config`. A flag comes before the
variable, the variable before the file, the file before the default.
"""
COMMON = ("json", "quiet", "verbose", "debug", "no_progress", "config", "help")


def page() -> str:
    """Return the whole page."""
    from medtool.cli.app import app
    from medtool.cli.family import commands_below

    root = typer.main.get_command(app)
    sections = [HEAD]
    for name, command in commands_below(root):
        sections.append(section(f"medtool {name}", command))
    _, first = next(commands_below(root))
    sections.append("## Options of every command\n\n" + table([p for p in first.params if p.name in COMMON]))
    return "\n".join(sections)


def section(path: str, command: Any) -> str:
    """Return one command's part of the page."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name not in COMMON]
    usage = " ".join([path, *(p.metavar or p.name.upper() for p in arguments), *(["[OPTIONS]"] if options else [])])
    text = f"## {path}\n\n    {usage}\n\n{plain(command.help)}\n\n"
    if arguments or options:
        text += table([*arguments, *options])
    if command.epilog:
        lines = [line for line in plain(command.epilog).splitlines() if line and line.lower() != "examples:"]
        text += "\nExamples:\n\n" + "\n".join(f"    {line}" for line in lines) + "\n"
    return text


def table(parameters: list[Any]) -> str:
    """Return a table of options with their defaults and meaning."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for parameter in parameters:
        is_option = parameter.param_type_name == "option"
        names = [f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)]
        shown = ", ".join(names) if is_option else f"`{parameter.metavar or parameter.name.upper()}`"
        rows.append(f"| {shown} | {default(parameter)} | {cell(parameter)} |")
    return "\n".join(rows) + "\n"


def default(parameter: Any) -> str:
    """Return a parameter's default as it is typed, or nothing."""
    value = parameter.default
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return f"`{(parameter.opts if value else parameter.secondary_opts)[0]}`" if parameter.secondary_opts else ""
    return f"`{value}`" if isinstance(value, str | int | float) and value != "" else ""


def cell(parameter: Any) -> str:
    """Return a parameter's help, with its choices."""
    text = plain(parameter.help or "").replace("|", "\\|")
    choices = getattr(parameter.type_descriptor, "choices", None)
    if choices:
        names = ", ".join(f"`{choice.value if isinstance(choice, Enum) else choice}`" for choice in choices)
        text = f"{text} One of {names}."
    return text


def plain(text: str | None) -> str:
    """Return help text without the markup of terminals."""
    return re.sub(r"\[/?[a-z ]+\](?!\()", "", (text or "").strip())


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")

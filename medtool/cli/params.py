"""Options that every command has, and where their values come from: flag > MEDTOOL_* > --config > default."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from medtool.cli import console
from medtool.cli.family import family_name, family_of
from medtool.errors import UsageError


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the command's table of a TOML file its defaults; ``[segment]`` for ``medtool segment``."""
    if path is None or context.resilient_parsing:
        return path
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not a TOML file: {error}") from error
    table = _table_of(context, path, document)
    beside = family_of(context.find_root().command, str(context.info_name))
    where = f"--config {path}: [{'.'.join(context.command_path.split()[1:])}]"
    options = _options_by_flag(context)
    defaults = {}
    for key, value in table.items():
        if key in beside and isinstance(value, dict):  # [cam.score] lies in [cam], and is another command's
            continue
        option = options.get(key.replace("_", "-"))
        if option is None or option.name == "config":
            raise UsageError(
                f"{where} has no option {key!r}", hint=f"one of: {', '.join(sorted({*options} - {'config', 'help'}))}"
            )
        if isinstance(value, bool) != bool(getattr(option, "is_bool_flag", False)):
            wanted = "true or false" if getattr(option, "is_bool_flag", False) else "a text or a number"
            raise UsageError(f"{where} {key} is {json.dumps(value, default=str)}; it must be {wanted}")
        is_negated = f"--{key.replace('_', '-')}" in option.secondary_opts
        defaults[option.name] = not value if is_negated else value
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _table_of(context: typer.Context, path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Return the command's own table; every other table must be another command's."""
    commands: Any = context.find_root().command
    table = document
    is_beside = False  # whether the table is also that of a command which has options of its own
    for name in context.command_path.split()[1:]:
        for key in table:
            if key not in commands.commands and not is_beside:
                raise UsageError(
                    f"--config {path}: {key!r} is not the name of a command",
                    hint=f"put each option into its command's table: [{name}]",
                )
        table = table.get(name, {})
        parent = context.parent
        is_beside = parent is not None and parent.info_name == name and bool(family_of(commands, name))
        commands = commands.commands[family_name(name) if is_beside else name]
        if not isinstance(table, dict):
            raise UsageError(f"--config {path}: {name!r} is not a table", hint=f"a line [{name}], then its options")
    return table


def _options_by_flag(context: typer.Context) -> dict[str, Any]:
    """Return a command's options by every long name, without the dashes."""
    return {
        flag.lstrip("-"): parameter
        for parameter in context.command.params
        if parameter.param_type_name == "option"
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("--")
    }


def _variable_of(parameter: Any, prefix: str) -> str:
    """Return the variable of an option: its flag's name, which it says itself where Python has another use of it."""
    said = getattr(parameter, "envvar", None)
    return said if isinstance(said, str) else f"{prefix}{parameter.name.upper()}"


def refuse_unknown_variables(context: typer.Context) -> None:
    """Refuse MEDTOOL_COMMAND_* variables that are no option of the command: a slip in one would go unnoticed.

    Raises
    ------
    UsageError
        Naming the variable and those that there are.
    """
    prefix = "_".join(["MEDTOOL", *context.command_path.split()[1:], ""]).upper().replace("-", "_")
    beside = tuple(
        f"{prefix}{name.upper()}_" for name in family_of(context.find_root().command, str(context.info_name))
    )
    known = {_variable_of(parameter, prefix) for parameter in context.command.params if parameter.name}
    for name in sorted(os.environ):
        if name.startswith(prefix) and name not in known and not name.startswith(beside):
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise UsageError(
                f"the variable {name} is no option of {context.command_path}",
                hint=f"{near[0]}" if near else f"one of: {', '.join(sorted(known))}",
            )


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        callback=_read_config,
        help="Take defaults from this file's table of the command's name. Flags and MEDTOOL_* come first.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Only identifiers on stdout, only errors on stderr."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bar.")]

_COMMON = (
    ("json", Json, False),
    ("quiet", Quiet, False),
    ("verbose", Verbose, False),
    ("debug", Debug, False),
    ("no_progress", NoProgress, False),
    ("config", Config, None),
)


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that all commands have; its body reads them from :data:`console.settings`."""
    signature = inspect.signature(function, eval_str=True)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, annotation, default in _COMMON
    ]

    @functools.wraps(function)
    def wrapped(*, context: typer.Context, **values: Any) -> Any:
        common = {name: values.pop(name) for name, _, _ in _COMMON}
        console.settings.json = common["json"]
        console.settings.quiet = common["quiet"]
        console.settings.verbose = common["verbose"]
        console.settings.debug = common["debug"]
        console.settings.progress = not common["no_progress"]
        try:
            refuse_unknown_variables(context)
            with console.data_only():
                return function(**values)
        except UsageError as error:
            error.hint = error.hint or f"{context.command_path} --help"
            raise

    injected = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    for parameter in (*signature.parameters.values(), *extra):
        for info in getattr(parameter.annotation, "__metadata__", ()):
            info.show_envvar = False  # the rule is said once, at the end of the help, not beside every option
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]
    wrapped.__signature__ = inspect.Signature([injected, *own, *extra])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in (injected, *own, *extra)}
    return wrapped

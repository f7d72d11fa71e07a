"""Commands that are imported when they are used: ``--help`` shows their names and lines without importing any."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar

import typer

from medtool.cli.family import Root
from medtool.cli.params import command


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command is, and what ``medtool --help`` says of it.

    Attributes
    ----------
    target
        ``module:name`` of a function, whose module has its ``EXAMPLES``, or of a group of commands.
    help
        One short line.
    """

    target: str
    help: str
    hidden: bool = False

    def load(self, name: str) -> Any:
        """Import the command and return it under this name."""
        where, _, what = self.target.partition(":")
        module = importlib.import_module(where)
        found = getattr(module, what)
        parent = typer.Typer(rich_markup_mode=None, callback=_nothing)
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=name, short_help=self.help, hidden=self.hidden)
        else:
            made = parent.command(name, short_help=self.help, epilog=module.EXAMPLES, hidden=self.hidden)
            made(command(found))
        group: Any = typer.main.get_command(parent)
        return group.commands[name]


def _nothing() -> None:
    """Make a group of one command stay a group."""


class _Commands(MutableMapping[str, Any]):
    """Commands by name, each imported on first use."""

    def __init__(self, table: Mapping[str, Lazy]) -> None:
        self.table = table
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self.table[name].load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self.table or name in self._loaded

    def __iter__(self) -> Iterator[str]:
        return iter({**self.table, **self._loaded})

    def __len__(self) -> int:
        return len({**self.table, **self._loaded})

    def __setitem__(self, name: str, value: Any) -> None:
        self._loaded[name] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name} cannot be taken out of the commands")


class LazyRoot(Root):
    """A root whose commands stand in a table."""

    table: ClassVar[Mapping[str, Lazy]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands(self.table)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the table's order."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self.table.items() if not lazy.hidden])

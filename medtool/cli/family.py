"""Commands with others beside them: ``medtool cam RUN IMAGES`` makes heatmaps, ``medtool cam info FILE`` reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup

_MARK = "-family"


def family_name(name: str) -> str:
    """Return under which name the commands beside a command are registered; nobody types it."""
    return f"{name}{_MARK}"


class Root(TyperGroup):
    """The commands of medtool, some with others beside them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take ``cam info`` for the command beside ``cam``, and any other ``cam`` for ``cam`` itself."""
        family = family_of(self, args[0]) if len(args) > 1 else {}
        if len(args) > 1 and args[1] in family:
            return args[0], self.commands[family_name(args[0])], args[1:]
        return super().resolve_command(ctx, args)


def family_of(root: Any, name: str) -> dict[str, Any]:
    """Return the commands beside a command by their names; empty if there are none."""
    found = root.commands.get(family_name(name))
    return {} if found is None else dict(found.commands)


def commands_below(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command below a group with its name as it is typed, such as ``cam info``, in --help's order."""
    for name, command in group.commands.items():
        typed = f"{path} {name.removesuffix(_MARK)}".strip()
        if hasattr(command, "commands"):
            yield from commands_below(command, typed)
        else:
            yield typed, command

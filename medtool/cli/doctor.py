"""``medtool doctor``: what works here, what does not, and how to mend it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from medtool import __version__
from medtool.cli import console
from medtool.errors import ExitCode

if TYPE_CHECKING:
    from medtool.doctor import Check

EXAMPLES = "medtool doctor --json > doctor.json"


def doctor() -> None:
    """Look at devices, packages, plugins, weights and folders, and say how to mend what does not work.

    Exit code 1 when something failed, 0 otherwise. Takes some seconds, as torch is loaded. -q names what is not ok.
    """
    from medtool.doctor import Status, examine, worst

    console.say("looking at this machine; importing torch takes some seconds")
    checks = list(examine(variables=set(_variables())))
    status = worst(checks)
    if console.settings.json:
        console.show_json(
            {
                "format": "medtool-doctor",
                "version": 1,
                "status": str(status),
                "medtool": __version__,
                "platform": platform.platform(),
                "checks": [
                    {"name": check.name, "status": str(check.status), "seen": check.seen, "next": check.next}
                    for check in checks
                ],
            }
        )
    elif console.settings.quiet:
        console.table(("check",), [(check.name,) for check in checks if check.status is not Status.OK])
    else:
        console.table(("check", "status", "what was seen"), _rows(checks))
    if status is Status.FAILED:
        raise typer.Exit(ExitCode.FAILED)


def _rows(checks: list[Check]) -> Iterator[tuple[str, str, str]]:
    for check in checks:
        yield check.name, str(check.status), check.seen
        if check.next is not None:
            yield "", "", f"  next: {check.next}"


def _variables() -> Iterator[str]:
    """Yield the name of every environment variable that sets an option of some command."""
    from medtool.cli.app import app

    yield from _variables_of(typer.main.get_command(app), "MEDTOOL")


def _variables_of(command: Any, prefix: str) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield f"{prefix}_{parameter.name.upper()}"
    for name, each in getattr(command, "commands", {}).items():
        yield from _variables_of(each, f"{prefix}_{name.upper().replace('-', '_')}")

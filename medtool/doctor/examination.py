"""All checks in their order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator

from medtool.doctor import installation, machine, probing
from medtool.doctor.check import Check, Status
from medtool.errors import reason_of

Look = Callable[[], Iterable[Check]]


def examine(*, variables: Collection[str] = ()) -> Iterator[Check]:
    """Look at everything and yield one check after the other; takes the seconds that importing torch takes.

    Parameters
    ----------
    variables
        The environment variables that set an option of some command. Others of the form ``MEDTOOL_*`` are warned of.
    """
    looks: dict[str, Look] = {
        "python": installation.look_at_python,
        "requirements": installation.look_at_requirements,
        "extras": installation.look_at_extras,
        "torch": probing.look_at_torch_and_plugins,
        "processors": machine.look_at_processors,
        "memory": machine.look_at_memory,
        "folders": machine.look_at_folders,
        "weights": installation.look_at_weights,
        "variables": functools.partial(installation.look_at_variables, variables),
    }
    for name, look in looks.items():
        yield from _guarded(name, look)


def _guarded(name: str, look: Look) -> Iterator[Check]:
    try:
        yield from look()
    except Exception as error:
        yield Check(
            name,
            Status.FAILED,
            f"this check itself failed: {reason_of(error)}",
            "report it together with what medtool doctor --json prints",
        )

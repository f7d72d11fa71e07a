"""How a command runs in several processes: only the first of them talks, and what fails is said once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from medtool.cli import console
from medtool.train import launch


def in_a_team(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command know its place: all but the first of several processes are silent."""

    @functools.wraps(function)
    def wrapped(**values: Any) -> Any:
        place = launch.place_of(os.environ)
        if place is None:
            return function(**values)
        if launch.FOLDER_VARIABLE in os.environ:
            launch.end_with_parent()
        if place.rank:
            console.settings.quiet, console.settings.progress = True, False

        def is_lost(error: BaseException) -> bool:
            from medtool.train.team import is_lost

            return is_lost(error)

        with launch.one_voice(place, warn=console.warn, is_lost=is_lost):
            return function(**values)

    return wrapped


def start_team(command: str, argument: Path, options: Mapping[str, Any], *, devices: int, device: str) -> None:
    """Run a command in one process a device, and end as the first of them does.

    Parameters
    ----------
    options
        By flag, resolved; False and None are left out.
    device
        Resolved.

    Raises
    ------
    UsageError
        If there are fewer devices.
    MedtoolError
        With what one of the processes said.
    """
    import torch

    launch.check_devices(devices, device=device, there=torch.cuda.device_count())
    common = {
        "json": console.settings.json,
        "quiet": console.settings.quiet,
        "verbose": console.settings.verbose,
        "debug": console.settings.debug,
        "no-progress": not console.settings.progress,
    }
    flags = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in {**options, **common}.items()
        if value is not None and value is not False
    ]
    code = launch.run_processes(devices, [command, *flags, "--", str(argument)])
    if code:
        raise typer.Exit(code)

"""What commands that take images have in common: where their result goes by default, stdin, and who failed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medtool.cli import console
from medtool.errors import UsageError

MAX_NAMED_FAILURES = 10


def stdin_of(inputs: Sequence[str]) -> Any:
    """Return the stream that ``-`` reads paths from; None where no input is ``-``."""
    if "-" not in inputs:
        return None
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("- asks for paths on stdin, and stdin is closed")
    return sys.stdin.buffer


def default_out(inputs: Sequence[str], kind: str) -> Path:
    """Return the folder for the result, such as ``photos-masks``, in the current folder."""
    if inputs[0] == "-":
        return Path(f"stdin-{kind}")
    path = Path(inputs[0]).resolve()
    if not path.is_dir():
        # One file gives its own name; a manifest, a glob and many files that of their folder.
        is_one = len(inputs) == 1 and path.exists() and path.suffix.lower() not in (".csv", ".parquet")
        path = path.with_suffix("") if is_one else path.parent
    while any(character in path.name for character in "*?["):
        path = path.parent
    if not path.name:
        raise UsageError(f"no name for the result can be made from {inputs[0]!r}", hint="give a folder with --out")
    return Path(f"{path.name}-{kind}")


def show_failures(failures: Iterable[tuple[str, str]], table: str) -> None:
    """Name failed images with their reasons; many with one reason in one line."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in failures:
        by_reason.setdefault(reason, []).append(name)
    for reason, names in list(by_reason.items())[:MAX_NAMED_FAILURES]:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        console.warn(f"{', '.join(names[:3])}{more}: {reason}")
    left = sum(len(names) for names in list(by_reason.values())[MAX_NAMED_FAILURES:])
    if left:
        console.warn(f"{left} more failed; {table} names each with its reason")

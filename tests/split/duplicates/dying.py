"""Work that ends its worker process; in a module of its own, so that a new process loads little."""

from __future__ import annotations

import os


def ended_by_seven(_: None, items: list[int]) -> list[str]:
    """Answer each item by its text, and die of a 7."""
    if 7 in items:
        os._exit(9)
    return [str(item) for item in items]


def nothing() -> None:
    """Set nothing up."""

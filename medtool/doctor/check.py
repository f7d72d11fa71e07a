"""What one look at one thing found."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Status(enum.StrEnum):
    """How a check ended, the better the earlier."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One row of ``medtool doctor``.

    Attributes
    ----------
    name
        Without spaces; the same from run to run.
    seen
        One line.
    next
        What to do about it, or what would add to it; None where there is nothing to do.
    """

    name: str
    status: Status
    seen: str
    next: str | None = None


def worst(checks: Iterable[Check]) -> Status:
    """Return the worst status of all, ``ok`` of none."""
    order = list(Status)
    return max((check.status for check in checks), key=order.index, default=Status.OK)

"""Columns read out of image paths by a regular expression, as ``--set patient='(?P<patient>P[0-9]+)'`` asks."""

from __future__ import annotations

import re
from collections.abc import Iterable

from medtool.errors import UsageError

HELP = "Regular expression found in the image's path; its named groups become columns, else its match is the patient."
_NOT_FROM_PATHS = ("image", "image_id", "mask", "split", "fold")


def add_columns(rows: Iterable[dict[str, str]], pattern: str) -> str | None:
    """Add to each row the columns that ``pattern`` finds in its path.

    Named groups are columns of their names; without any, the first group is the patient, or the whole match. A path in
    which the pattern is not found gets none: its patient is unknown.

    Returns
    -------
    A note on the rows without a match, None if there are none.

    Raises
    ------
    UsageError
        If the pattern is no regular expression, or a group has a name that does not come from paths.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--set patient={pattern}: not a regular expression: {error}") from error
    for name in compiled.groupindex:
        if name in _NOT_FROM_PATHS:
            raise UsageError(f"--set patient={pattern}: the column {name!r} cannot come from the path")
    n_rows = n_missed = 0
    for row in rows:
        n_rows += 1
        match = compiled.search(row["image"])
        if match is None:
            n_missed += 1
        elif compiled.groupindex:
            row.update({name: value or "" for name, value in match.groupdict().items()})
        else:
            row["patient"] = match.group(1 if compiled.groups else 0) or ""
    if not n_missed:
        return None
    return f"{pattern} is not found in {n_missed:,} of {n_rows:,} paths: their patient is unknown"

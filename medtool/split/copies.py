"""Copies of one picture, so that a split can keep them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from medtool.manifest import Manifest
from medtool.protocols import Steps
from medtool.split.options import NO_COLUMN


@dataclass(frozen=True)
class Copies:
    """What a search for copies found among the images of a manifest.

    Attributes
    ----------
    joined
        Pairs of row numbers that show one picture, and must be in one part.
    problems
        Why an image could not be looked at, by its ``image_id``.
    notes
        What else the user should know, a line each.
    """

    joined: tuple[tuple[int, int], ...]
    problems: Mapping[str, str]
    notes: tuple[str, ...]


def copies_in(
    manifest: Manifest,
    *,
    group: Sequence[str] = (),
    cache: Path | None,
    workers: int = 0,
    cluster: str | None = None,
    steps: Callable[[int, str], AbstractContextManager[Steps]] | None = None,
) -> Copies:
    """Look for images of the manifest that are copies of one another, altered or not.

    Parameters
    ----------
    group
        As :attr:`medtool.split.options.MakeOptions.group`: a picture that many of these share is a slate or the like,
        and keeps nothing together (:mod:`medtool.split.frames`).
    cache
        Folder of the fingerprints that are known already; see :mod:`medtool.split.duplicates.cache`.
    workers, cluster
        Processes (0 is automatic), or the address of a Dask scheduler.

    Raises
    ------
    ManifestError
        If a column of ``group`` is not there.
    """
    from medtool.split.duplicates.search import find_duplicates  # what decodes images loads here
    from medtool.split.frames import ties_of
    from medtool.split.table import AuditTable

    columns = () if tuple(group) == (NO_COLUMN,) else AuditTable.of(manifest, group).groups
    files, problems = manifest.images()
    found = find_duplicates(files, cache=cache, workers=workers, cluster=cluster, steps=steps)
    problems.update(found.problems)
    ties = ties_of(found, manifest.table, columns)
    image_ids = manifest.table.get_column("image_id")
    return Copies(
        ties.joined,
        {image_ids[row]: problems[row] for row in sorted(problems)},
        (*found.notes, *ties.notes),
    )

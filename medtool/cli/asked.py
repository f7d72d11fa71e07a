"""What commands that take runs and images have in common: which is which, and what is known of the images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medtool.errors import UsageError

if TYPE_CHECKING:
    from medtool.inputs import Listing
    from medtool.runs.asked import Asked
    from medtool.runs.folder import Run
    from medtool.split.recognise import Recognised, Sight

PARTS = ("train", "val", "test")


def parts_of(text: str) -> tuple[str, ...]:
    """Return the parts of a split that ``--split`` names, none for all; raises ``UsageError``."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    wrong = [part for part in parts if part not in PARTS]
    if wrong or (text and not parts):
        raise UsageError(f"--split {text!r} must be some of {', '.join(PARTS)}, such as test or val,test")
    return parts


def divided(arguments: list[str]) -> tuple[list[Run], list[str]]:
    """Return the runs that the arguments begin with, and the rest; raises ``UsageError`` if either is missing."""
    from medtool.runs.folder import is_run, run_at, runs_in

    runs: list[Run] = []
    place = 0
    while place < len(arguments) and arguments[place] and is_run(Path(arguments[place])):
        runs += runs_in(Path(arguments[place]))
        place += 1
    if not runs:
        run_at(Path(arguments[0]))  # says why it is none
    if place == len(arguments):
        raise UsageError(
            f"{arguments[-1]} is a run, and no images are given",
            hint="RUN INPUTS, where INPUTS are folders, files, globs, a manifest, or -",
        )
    return runs, arguments[place:]


def asked_of(
    listing: Listing, inputs: list[str], runs: list[Run], recognised: Recognised, *, parts: tuple[str, ...]
) -> tuple[list[Asked], list[Sight]]:
    """Return the images to work on, and how those were recognised that a run has seen; raises ``UsageError``."""
    from medtool.runs.asked import Asked

    rows, roles = _rows_of_manifests(listing, inputs, runs, is_split_asked=bool(parts))
    asked: list[Asked] = []
    sights: list[Sight] = []
    for item in listing.items:
        role = roles.get(item.image_id, item.columns.get("split", "")) if item.columns else ""
        if parts and role not in parts:
            continue
        sight = recognised.sight(item.columns) if item.columns else None
        if sight is not None:
            sights.append(sight)
        where = "" if sight is None else sight.role
        asked.append(Asked(item.image_id, str(item.relative), item.path, item.columns, role, where))
    for problem in listing.problems:
        columns = rows.get(problem.image_id, {})
        role = roles.get(problem.image_id, columns.get("split", ""))
        if not parts or role in parts:
            image = columns.get("image", problem.image_id)
            asked.append(Asked(problem.image_id, image, None, columns, role, reason=problem.reason))
    if not asked:
        raise UsageError(f"no image is in the part {' or '.join(parts)}; --split is about the rows of a manifest")
    return asked, sights


def _rows_of_manifests(
    listing: Listing, inputs: list[str], runs: list[Run], *, is_split_asked: bool
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the manifests' rows of images that cannot be used, by id, and each image's part where folds decide it."""
    from medtool.errors import ManifestError
    from medtool.manifest import SUFFIXES, read_manifest
    from medtool.roles import folds_of, roles_of

    rows: dict[str, dict[str, str]] = {}
    roles: dict[str, str] = {}
    problems = {problem.image_id for problem in listing.problems}
    if not problems and not any(item.columns.get("fold") for item in listing.items):
        return rows, roles
    held_out = {run.lineage["made_with"].get("fold") for run in runs}
    fold = held_out.pop() if len(held_out) == 1 else None
    for path in (Path(given) for given in inputs):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        manifest = read_manifest(path)
        rows |= {row["image_id"]: row for row in manifest.rows() if row["image_id"] in problems}
        folds = folds_of(manifest)
        if fold in folds:
            roles |= dict(zip(manifest.table.get_column("image_id"), roles_of(manifest, fold), strict=True))
        elif folds and is_split_asked:
            raise ManifestError(
                f"{path} has folds, and the runs do not hold out one of them together; which rows are in a part differs"
                " between them",
                hint="one run at a time with --split test, or no --split",
            )
    return rows, roles

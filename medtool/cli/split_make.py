"""``medtool split make``: a split that cuts no patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cli import console
from medtool.errors import ExitCode, UsageError
from medtool.split.options import NO_COLUMN, MakeOptions

if TYPE_CHECKING:
    from medtool.split.copies import Copies
    from medtool.split.make_files import Files

EXAMPLES = """Examples:

medtool split make data/manifest.csv

medtool split make data/manifest.csv --folds 5 --test 0.2 --stratify label --stratify sex

medtool split make ham/manifest.csv --group lesion --keep-duplicates-together --out ham/split.csv

medtool split make data/manifest.csv --keep-test --fractions 0.85,0.15

medtool split make data/manifest.csv --leave-one-site-out
"""

MAX_NAMED = 10


def make(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST",
            help="A .csv or .parquet; only --out MANIFEST --overwrite alters it.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A .csv or .parquet in the manifest's folder or above. By default its name + -split.csv, beside it.",
        ),
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN,VAL,TEST",
            help="Shares that add up to 1, by default 0.7,0.15,0.15. Two are train and test (with --keep-test train"
            " and val).",
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="Make so many folds instead: each is the test part once.")
    ] = MakeOptions.folds,
    leave_one_site_out: Annotated[
        bool, typer.Option("--leave-one-site-out", help="Make a fold of each value of the column site instead.")
    ] = MakeOptions.leave_one_site_out,
    val: Annotated[
        float | None,
        typer.Option(help="With folds: share of each training part that is its val part. By default up to 0.15."),
    ] = MakeOptions.val_fraction,
    test: Annotated[
        float, typer.Option(help="With --folds: share of a test part outside of all folds; a fold is then a val part.")
    ] = MakeOptions.test_fraction,
    keep_test: Annotated[
        bool, typer.Option("--keep-test", help="Leave the rows with the split test there, and split the others.")
    ] = MakeOptions.keep_test,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Keep rows together that share a value; can be repeated. By default patient, lesion and the like;"
            f" {NO_COLUMN} splits by image.",
        ),
    ] = None,
    stratify: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Spread its values equally; can be repeated. No part lacks a value of the first. By default label;"
            f" {NO_COLUMN} spreads nothing.",
        ),
    ] = None,
    keep_duplicates_together: Annotated[
        bool,
        typer.Option("--keep-duplicates-together", help="Look at the images, and keep copies of one picture together."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Another seed gives another split.")] = MakeOptions.seed,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another split that is there.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that look at images. 0 is automatic.")] = 0,
    cluster: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler to work on, tcp://HOST:8786 (extra cluster)."),
    ] = None,
) -> None:
    """Split a manifest into train, val and test, or into folds, without cutting a patient (or lesion, ...).

    The same rows, options and seed give the same split on every machine, in whatever order the rows are. Beside the
    manifest that is written lie the list of patients (.patients.csv) and a report (.json) that says how it was made.
    """
    by_fold = folds or leave_one_site_out
    if (workers or cluster) and not keep_duplicates_together:
        flag = "--workers" if workers else "--cluster"
        raise UsageError(f"{flag} is for --keep-duplicates-together; without, no image is looked at")
    if fractions is not None and by_fold:
        raise UsageError("--fractions is not for folds; --val and --test give their shares")
    options = MakeOptions(
        fractions=MakeOptions.fractions if fractions is None else _fractions(fractions, keep_test=keep_test),
        folds=folds,
        leave_one_site_out=leave_one_site_out,
        test_fraction=test,
        val_fraction=val,
        keep_test=keep_test,
        group=tuple(group or ()),
        stratify=tuple(stratify or ()),
        seed=seed,
    )

    from medtool.manifest import SUFFIXES, read_manifest
    from medtool.split.make import make_split
    from medtool.split.make_files import Files, refuse_targets, write_split

    target = manifest.parent / f"{manifest.stem}-split.csv" if out is None else out
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {target}: a manifest ends in .csv or .parquet")
    files = Files.beside(target)
    given = read_manifest(manifest)
    refuse_targets(files, manifest)
    given.seen_from(target.parent)  # refuses a folder beside the images before they are looked at
    copies = None
    if keep_duplicates_together:
        from medtool.split.copies import copies_in
        from medtool.split.duplicates.cache import cache_path

        copies = copies_in(
            given,
            group=options.group,
            cache=cache_path(manifest),
            workers=workers,
            cluster=cluster,
            steps=console.steps,
        )
    split = make_split(given, options, joined=copies.joined if copies else None)
    is_new = write_split(split, files, overwrite=overwrite)
    _show(split.report, files, copies, is_new=is_new)
    if copies is not None and copies.problems:
        raise typer.Exit(ExitCode.PARTIAL)


def _fractions(text: str, *, keep_test: bool) -> tuple[float, float, float]:
    try:
        # A list in a file of --config arrives as Python writes it.
        shares = [float(share) for share in text.strip().removeprefix("[").removesuffix("]").split(",")]
    except ValueError:
        shares = []
    if len(shares) == 2:
        return (shares[0], shares[1], 0.0) if keep_test else (shares[0], 0.0, shares[1])
    if len(shares) != 3:
        raise UsageError(f"--fractions {text}: it must be two or three numbers with commas, such as 0.7,0.15,0.15")
    return (shares[0], shares[1], shares[2])


def _show(report: Mapping[str, Any], files: Files, copies: Copies | None, *, is_new: bool) -> None:
    for note in (*(copies.notes if copies else ()), *report["notes"]):
        console.say(f"note: {note}")
    if copies is not None:
        _show_problems(copies.problems)
        console.say(f"{len(copies.joined):,} pairs of copies are kept together")
    for fold, site in report["sites"].items():
        console.say(f"fold {fold} leaves out {site}")
    for line in _aligned(_table(report)):
        console.say(line)
    for line in _deviation(report["largest_deviation"]):
        console.say(line)
    if not is_new:
        console.say("the same split is there already; nothing was written")
    if console.settings.json:
        written = {
            "manifest": str(files.manifest),
            "patients": str(files.groups),
            "report": str(files.report),
            "problems": [] if copies is None else [{"image_id": i, "reason": r} for i, r in copies.problems.items()],
        }
        console.show_json({**report, **written})
    else:
        console.out(str(files.manifest))


def _show_problems(problems: Mapping[str, str]) -> None:
    for image_id, reason in list(problems.items())[:MAX_NAMED]:
        console.warn(f"{image_id}: {reason}")
    if len(problems) > MAX_NAMED:
        console.warn(f"and {len(problems) - MAX_NAMED:,} more; --json names them all")
    if problems:
        console.warn(f"{len(problems):,} images could not be looked at; whether they are copies is not known")


def _table(report: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a part, but for the training parts of folds, which are what the others leave."""
    from medtool.split.grouping import plural

    n_classes = max(len(part["classes"]) for part in report["parts"])
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "part": lambda part: part["part"],
        "images": lambda part: f"{part['images']:,}",
        "wanted": lambda part: f"{part['wanted']:,.1f}" if "wanted" in part else "as it is",
    }
    if report["unit"] != "image":  # units of copies have no name of their own, and images are counted already
        columns[plural(report["unit"], 2)] = lambda part: f"{part['units']:,}"
    if n_classes:
        columns["classes"] = lambda part: f"{sum(map(bool, part['classes'].values()))} of {n_classes}"
    if "sites" in report["parts"][0]:
        columns["sites"] = lambda part: f"{len(part['sites'])}"
    parts = [part for part in report["parts"] if not part["part"].startswith("train of")]
    return [list(columns), *([cell(part) for cell in columns.values()] for part in parts)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells)
        ).rstrip()
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]


def _deviation(largest: Mapping[str, Any]) -> list[str]:
    by_points, by_images = largest["percentage_points"], largest["images"]
    if by_points is None or by_images is None:
        return []
    points = f"{by_points['percentage_points']:+.3f} percentage points ({_where(by_points)})"
    images = f"{by_images['images'] - by_images['wanted']:+.1f} images ({_where(by_images)})"
    return [f"furthest from ideal: {points}; {images}"]


def _where(row: Mapping[str, Any]) -> str:
    stratum = ", ".join(f"{column} {value or 'unknown'}" for column, value in row["stratum"].items()) or "all images"
    return f"{stratum} in {row['part']}: {row['images']:,} for {row['wanted']:,.1f}"

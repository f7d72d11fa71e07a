"""``medtool split audit``: what is wrong with a split, and whether that is enough to stop."""

from __future__ import annotations

import enum
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape as html_escaped
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cli import console
from medtool.errors import ExitCode, MedtoolError, OutputError, UsageError
from medtool.split.findings import Severity
from medtool.split.options import AuditOptions

if TYPE_CHECKING:
    from medtool.manifest import Manifest
    from medtool.split.audit import Audit
    from medtool.split.inflation import Inflation
    from medtool.split.seen import Seen

EXAMPLES = """Examples:

medtool split audit data/manifest.csv

medtool split audit data/manifest.csv --html audit.html --fix data/repaired.csv

medtool split audit external/manifest.csv --against data/manifest.csv --group patient

medtool split audit data/manifest.csv --no-images --fail-on high --json > known.json

medtool split audit data/manifest.csv --baseline known.json
"""

MAX_CASES_SHOWN = 3
MAX_MOVES_SHOWN = 10

PAGE_MARK = b'<meta name="generator" content="medtool '


class FailOn(enum.StrEnum):
    """From which severity on the exit code is 3."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NEVER = "never"

    @property
    def severity(self) -> Severity | None:
        """The least severity that fails; None where none does."""
        return None if self is FailOn.NEVER else Severity(self.value)


def audit(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A .csv or .parquet with split or fold.")],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST", help="Another manifest that must share nothing with this one, such as a training set."
        ),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="A run that is to be scored on this manifest; can be repeated."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="What must not be cut; can be repeated. By default patient, lesion and the like; none for none.",
        ),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="The networks of all folds are to vote together.")
    ] = AuditOptions.are_folds_ensembled,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Open images and masks, or audit the table alone.")
    ] = AuditOptions.read_images,
    fail_on: Annotated[
        FailOn, typer.Option(help="Exit code 3 for findings of this severity or a worse one.")
    ] = FailOn.MEDIUM,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="What --json said earlier: the cases in it are known and accepted."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Also write a page with duplicates side by side; it replaces its own earlier one.",
        ),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a manifest without the leaks, moving the fewest images."),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep fingerprints of the images beside the manifest.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the resampling behind intervals.")] = AuditOptions.seed,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of --html and --fix.")] = False,
    workers: Annotated[int, typer.Option(help="Processes. 0 is automatic.")] = 0,
    cluster: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler to work on, tcp://HOST:8786 (extra cluster)."),
    ] = None,
) -> None:
    """Audit a split for patients, duplicates and other leaks between its parts.

    Exit code 3 if it finds something as bad as --fail-on or worse.
    """
    from medtool.manifest import read_manifest
    from medtool.parallel import choose_workers
    from medtool.split.audit import audit as run_audit
    from medtool.split.audit import document_of
    from medtool.storage import sha256_of

    for name, path in (("--html", html), ("--fix", fix)):
        _refuse_output(name, path, inputs=(manifest, against, baseline), overwrite=overwrite)
    table = read_manifest(manifest)
    if fix is not None:
        _refuse_repair(table, fix)
    if against is not None and against.resolve() == manifest.resolve():
        raise UsageError(f"--against {against} is the manifest that is audited; give another")
    choose_workers(workers, items=0)  # refuses a number that means nothing
    other = None if against is None else read_manifest(against)
    options = AuditOptions(tuple(group or ()), ensemble, images, seed)
    known = _known(baseline)
    seen = _seen(run or [])
    found = run_audit(
        table,
        options,
        against=other,
        runs=seen,
        known=known,
        cache=_cache_of(manifest) if cache and images else None,
        workers=workers,
        cluster=cluster,
        steps=console.steps,
    )
    document = document_of(
        found, manifest=str(manifest), against=None if against is None else str(against), fail_on=fail_on.severity
    )
    document["manifest_sha256"] = sha256_of(manifest)
    repaired = None
    if fix is not None:
        repaired = _repaired(found, fix, document)
    failure: MedtoolError | None = None
    try:
        if html is not None:
            _write_page(found, document, html, workers=workers)
        if fix is not None and repaired is not None:
            _write_repair(repaired, fix, overwrite=overwrite)
    except MedtoolError as error:
        failure = error
    _show(found, document)
    if failure is not None:
        raise failure
    if document["failed"]:
        raise typer.Exit(ExitCode.FOUND)
    if found.n_unread:
        raise typer.Exit(ExitCode.PARTIAL)


def _refuse_output(name: str, path: Path | None, *, inputs: tuple[Path | None, ...], overwrite: bool) -> None:
    """Refuse a file that must not or cannot be written before hours of work, not after."""
    if path is None:
        return
    if any(given is not None and path.resolve() == given.resolve() for given in inputs):
        raise UsageError(f"{name} {path} is one of the files that are read; give another")
    endings = (".html", ".htm") if name == "--html" else (".csv", ".parquet")
    if path.suffix.lower() not in endings:
        raise UsageError(f"{name} {path}: the name must end in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist")
    is_own = _is_page if name == "--html" else _may_be_repair
    if os.path.lexists(path) and not overwrite and not is_own(path, inputs[0]):
        raise OutputError(f"{path} is there already", hint="--overwrite to replace it, or another file")


def _is_page(path: Path, manifest: Path | None) -> bool:
    """Tell whether a file is the page of an earlier audit of the same manifest, which may be replaced."""
    title = f"split audit of {html_escaped(str(manifest))}</title>".encode()
    try:
        with path.open("rb") as file:
            head = file.read(65_536)
    except OSError:
        return False
    return PAGE_MARK in head and title in head


def _may_be_repair(path: Path, manifest: Path | None) -> bool:
    """Tell whether a file has the images of a manifest: an earlier run may have written it and been stopped then."""
    from medtool.manifest import read_manifest

    assert manifest is not None
    try:
        ids = [set(read_manifest(each).table.get_column("image_id")) for each in (path, manifest)]
    except MedtoolError:
        return False
    return ids[0] == ids[1]


def _write_repair(repaired: Manifest, path: Path, *, overwrite: bool) -> None:
    """Write the repaired manifest; one that is there stays if it is the same, and is replaced only if that is asked."""
    from medtool.manifest import manifest_bytes
    from medtool.storage import write_whole

    data = manifest_bytes(repaired, path)
    if path.exists() and not overwrite:
        if path.read_bytes() == data:
            return
        raise OutputError(f"{path} is there already and differs", hint="--overwrite to replace it, or another file")
    write_whole(path, data)


def _refuse_repair(manifest: Manifest, path: Path) -> None:
    manifest.seen_from(path.parent)
    if not (manifest.counts("split") or manifest.counts("fold")):
        raise UsageError("--fix: no row has a split or a fold to repair", hint="medtool split make MANIFEST")


def _known(path: Path | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    from medtool.split.baseline import read_baseline

    return read_baseline(path)


def _seen(folders: list[Path]) -> list[Seen]:
    if not folders:
        return []
    from medtool.split.seen import read_seen

    return [read_seen(folder) for folder in folders]


def _cache_of(manifest: Path) -> Path:
    from medtool.split.duplicates.cache import cache_path

    return cache_path(manifest)


def _repaired(found: Audit, path: Path, document: dict[str, Any]) -> Manifest:
    """Return the repaired manifest and put what it costs into the document."""
    from medtool.split.repair import repair

    if not found.table.has_parts:
        raise UsageError(
            "--fix: no row is in a part, so there is no split to repair", hint="medtool split make MANIFEST"
        )
    joined: Sequence[tuple[int, int]] = ()
    if found.duplicates is not None:
        from medtool.split.frames import ties_of

        joined = ties_of(found.duplicates, found.table.frame, found.table.groups, other=found.other).joined
    repaired = repair(found.table, joined=joined)
    document["repair"] = {"manifest": str(path), **repaired.as_document()}
    return repaired.manifest


def _write_page(found: Audit, document: Mapping[str, Any], path: Path, *, workers: int) -> None:
    from medtool.split.page.page import page_of
    from medtool.split.page.pairs import select_pairs
    from medtool.split.page.parts import count_parts
    from medtool.storage import write_whole

    selection = None
    if found.duplicates is not None:
        selection = select_pairs(found.table, found.duplicates, other=found.other)
    parts = count_parts(found.table)
    page = page_of(document, parts=parts, selection=selection, workers=workers, steps=console.steps)
    write_whole(path, page.encode())


def _show(found: Audit, document: Mapping[str, Any]) -> None:
    for note in found.notes:
        console.say(f"note: {note}")
    if console.settings.json:
        console.show_json(document)
    elif console.settings.quiet:
        for one in found.findings:
            console.out(one.rule.code)
    else:
        _show_findings(document["findings"])
    _show_inflation(found.inflation)
    _show_repair(document.get("repair"))
    for line in found.not_checked:
        console.say(f"not checked: {line}")
    console.say(_verdict(found, document))


def _show_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    for one in findings:
        counts = f"{_counted(one['n_cases'], 'case')}, {_counted(one['n_rows'], 'row')}"
        console.out(f"{one['code']} {one['severity']}: {one['name']}, {counts}")
        console.out(f"    {one['meaning']}")
        n_shown = one["n_cases"] if one["n_cases"] <= MAX_CASES_SHOWN + 1 else MAX_CASES_SHOWN
        for case in one["cases"][:n_shown]:
            console.out(f"    - {case['subject']}: {case['detail']}")
        if one["n_cases"] > n_shown:
            console.out(f"    - and {one['n_cases'] - n_shown:,} more (--json and --html list them)")
        console.out(f"    what to do: {one['remedy']}")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _show_inflation(inflation: Inflation | None) -> None:
    """Say what the leaks do to a score; nothing where none is known."""
    if inflation is None or not inflation.n_leaking:
        return
    console.say(
        f"what the leaks do to a nearest-neighbour classifier, on {inflation.scored}"
        f" (something leaks into {inflation.n_leaking:,} of {inflation.accuracy.n_images:,} images;"
        f" these are of {inflation.n_patients:,} {inflation.unit}):"
    )
    for name, one in (("accuracy", inflation.accuracy), ("balanced accuracy", inflation.balanced)):
        difference = one.difference
        console.say(
            f"  {name} {one.with_leaks.value:.3f} with, {one.without_leaks.value:.3f} without:"
            f" {difference.value:+.3f} (95% interval {difference.low:+.3f} to {difference.high:+.3f})"
        )
    for note in inflation.notes:
        console.say(f"  {note}")


def _show_repair(repair: Mapping[str, Any] | None) -> None:
    if repair is None:
        return
    moves = repair["moves"]
    for move in moves[:MAX_MOVES_SHOWN]:
        console.say(f"moved {move['image_id']} from {move['before']} to {move['after']}: {move['because']}")
    if len(moves) > MAX_MOVES_SHOWN:
        console.say(f"and {len(moves) - MAX_MOVES_SHOWN:,} more moved (--json and --html list them)")
    for lost in repair["lost"]:
        console.warn(f"{lost['part']} has no image of {lost['label']} any more (it had {lost['n_before']:,})")
    for note in repair["notes"]:
        console.say(f"note: {note}")
    before, after = (", ".join(f"{part} {n:,}" for part, n in repair[key].items()) for key in ("before", "after"))
    console.say(f"{repair['manifest']}: {_counted(len(moves), 'image')} moved; {before} → {after}")


def _verdict(found: Audit, document: Mapping[str, Any]) -> str:
    by_severity = Counter(one.severity.value for one in found.findings)
    counts = ", ".join(f"{by_severity[name]} {name}" for name in ("high", "medium", "low") if by_severity[name])
    known = f"; known from the baseline: {_counted(len(found.known), 'case')}" if found.known else ""
    n = len(found.findings)
    what = f"{_counted(n, 'finding')} ({counts})" if n else "nothing found"
    end = "fails" if document["failed"] else "passes"
    apart = f", {', '.join(document['groups'])} must not be cut" if document["groups"] else ""
    return f"{_counted(document['images'], 'image')}{apart}: {what}{known}; {end} with --fail-on {document['fail_on']}"

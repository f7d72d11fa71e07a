"""``medtool cam info``, ``verify``, ``export`` and ``score``: what a file of heatmaps holds, and how good it is."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cli import cam_score, console
from medtool.cli.given import MAX_NAMED_FAILURES, show_failures, stdin_of
from medtool.cli.params import command
from medtool.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from medtool.heatmaps import HeatmapFile
    from medtool.inputs import Listing

INFO_EXAMPLES = """Examples:

medtool cam info cams.h5

medtool cam info cams.h5 --images > rows.csv
"""
VERIFY_EXAMPLES = """Examples:

medtool cam verify cams.h5

medtool cam verify cams.h5 data/manifest.csv
"""
EXPORT_EXAMPLES = """Examples:

medtool cam export cams.h5 data/manifest.csv --format overlay --out overlays/

medtool cam export cams.h5 --format npy --out maps/
"""

FORMATS = ("overlay", "png", "npy", "tiff")

CamsFile = Annotated[Path, typer.Argument(metavar="CAMS", help="A file of heatmaps, such as cams.h5.")]


def info(
    cams: CamsFile,
    images: Annotated[bool, typer.Option("--images", help="A line of CSV an image instead.")] = False,
) -> None:
    """Say what a file of heatmaps was made from, and what it holds."""
    from medtool.heatmaps import open_heatmaps

    with open_heatmaps(cams) as file:
        if images:
            if console.settings.json:
                raise UsageError("--images writes CSV, and --json a document; give one of them")
            _write_rows(file)
        else:
            _show(file)


def _write_rows(file: HeatmapFile) -> None:
    import csv
    import io

    from medtool.heatmaps import Flag

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("image_id", "status", "target", "score", "flag", "seen", "image_sha256", "reason"))
    for row, fault in file.examined():
        if fault:
            writer.writerow((row.image_id, "damaged", "", "", "", "", "", fault))
            continue
        targets = file.classes or (row.target,)
        for target, score, flag in zip(targets, row.scores, row.flags, strict=True):
            name = "" if not flag else Flag(flag).name.lower()
            writer.writerow((row.image_id, "done", target, f"{score:.9g}", name, row.seen, row.image_sha256, ""))
    for name, reason in _failed(file).items():
        writer.writerow((name, "failed", "", "", "", "", "", reason))
    console.copy(stream.getvalue().encode("utf-8", "surrogateescape"))


def _failed(file: HeatmapFile) -> dict[str, str]:
    found = (file.lineage or {}).get("outputs", {}).get("failed", {})
    return {str(name): str(reason) for name, reason in found.items()} if isinstance(found, dict) else {}


def _show(file: HeatmapFile) -> None:
    from dataclasses import asdict

    from medtool.heatmaps import Flag

    names = {flag.value: flag.name.lower() for flag in Flag}
    flagged = {names.get(flag, f"flag {flag}"): count for flag, count in file.count_flags().items()}
    seen = Counter(role for role in map(file.seen_of, file.ids) if role)
    targets = Counter(name for name in map(file.target_of, file.ids) if name)
    lineage = file.lineage or {}
    made_with = lineage.get("made_with", {})
    document: dict[str, Any] = {
        "format": "medtool-cam-info",
        "version": 1,
        "file": str(file.path),
        "sha256": file.content_hash,
        **asdict(file.attributes),
        "n_images": len(file),
        "height": file.layer_size[0],
        "width": file.layer_size[1],
        "classes": list(file.classes),
        "targets": dict(sorted(targets.items())),
        "has_spread": file.has_spread,
        "flagged": dict(sorted(flagged.items())),
        "n_seen": dict(sorted(seen.items())),
        "n_failed": lineage.get("outputs", {}).get("n_failed", 0),
        "oracle": bool(made_with.get("oracle", False)),
        "leaks": made_with.get("leaks", []),
        "made_by": {name: lineage.get(name) for name in ("command", "medtool", "packages")} if lineage else None,
    }
    if console.settings.json:
        console.show_json(document)
        return
    if console.settings.quiet:
        for image_id in file.ids:
            console.out(image_id)
        return
    for name, value in document.items():
        if name not in ("format", "version", "made_by") and value not in ("", [], {}, None, False):
            console.out(f"{name}: {_said(value)}")
    if made_with.get("oracle"):
        console.say("the maps speak for the true class: what is made from them is marked oracle")


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def verify(
    cams: CamsFile,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUTS]", help="Also that the maps are of these images: folders, files, a manifest."),
    ] = None,
    null: Annotated[
        bool, typer.Option("-0", "--null", help="Paths on stdin end with NUL, as from find -print0.")
    ] = False,
) -> None:
    """Check every map against its checksum, and the images against their hashes.

    Exit code 4 when a map is damaged, or an image has none or has changed.
    """
    from medtool.heatmaps import open_heatmaps

    with open_heatmaps(cams, keeps_damaged=True) as file:
        faults = {name: f"the heatmap {reason}" for name, reason in file.faults()}
        n_images = len(file)
        if inputs:
            listing = _listing(inputs, null=null)
            n_images = len(listing.items)
            faults |= {problem.image_id: problem.reason for problem in listing.problems}
            for item in listing.items:
                reason = faults.get(item.image_id) or _fault_of_image(file, item.image_id, item.path)
                if reason:
                    faults[item.image_id] = reason
        elif null:
            raise UsageError("--null is about paths on stdin, and no input is -")
        has_sums = file.has_checksums
    if console.settings.json:
        console.show_json(
            {
                "format": "medtool-cam-verify",
                "version": 1,
                "file": str(cams),
                "n_images": n_images,
                "has_checksums": has_sums,
                "faults": [{"image_id": name, "reason": reason} for name, reason in sorted(faults.items())],
            }
        )
    elif console.settings.quiet:
        for name in sorted(faults):
            console.out(name)
    else:
        for name, reason in sorted(faults.items())[:MAX_NAMED_FAILURES]:
            console.out(f"{name}: {reason}")
        if len(faults) > MAX_NAMED_FAILURES:
            console.out(f"and {len(faults) - MAX_NAMED_FAILURES} more; --json names all")
    if not has_sums:
        console.say(f"{cams} has no checksums, as other programs write it: flipped bits would go unnoticed")
    console.say(f"{n_images} images, {len(faults)} with something wrong")
    if faults:
        raise typer.Exit(ExitCode.PARTIAL)


def _listing(inputs: list[str], *, null: bool) -> Listing:
    from medtool.inputs import find_images

    if null and "-" not in inputs:
        raise UsageError("--null is about paths on stdin, and no input is -")
    listing = find_images(inputs, stdin=stdin_of(inputs), null_separated=null)
    for note in listing.notes:
        console.say(note)
    return listing


def _fault_of_image(file: HeatmapFile, image_id: str, path: Path) -> str:
    from medtool.errors import reason_of
    from medtool.storage import sha256_of

    if image_id not in file:
        return "there is no heatmap of it"
    recorded = file.sha256_of(image_id)
    try:
        is_same = not recorded or sha256_of(path) == recorded
    except OSError as error:
        return reason_of(error)
    return "" if is_same else "the image has changed since its heatmap was made"


def export(
    cams: CamsFile,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUTS]",
            help="Images: their maps only, at their size. By default all maps, at the layer's resolution.",
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder. By default the file's name + the format, here.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            envvar="MEDTOOL_CAM_EXPORT_FORMAT",
            help="overlay (JPEG over the image), png (16 bits, 65535 at the peak), npy or tiff (float32).",
            autocompletion=lambda incomplete: [name for name in FORMATS if name.startswith(incomplete)],
        ),
    ] = "overlay",
    target: Annotated[
        list[str] | None, typer.Option(help="Of a file with a map for each class: only this one; can be repeated.")
    ] = None,
    null: Annotated[
        bool, typer.Option("-0", "--null", help="Paths on stdin end with NUL, as from find -print0.")
    ] = False,
) -> None:
    """Write heatmaps as files of other formats, or draw them over their images."""
    if out == "":
        raise UsageError("--out is the empty text; is a variable of your shell not set?")
    if kind not in FORMATS:
        raise UsageError(f"--format {kind!r} must be one of {', '.join(FORMATS)}")
    if kind == "overlay" and not inputs:
        raise UsageError(
            "--format overlay draws over the images, and none are given", hint=f"medtool cam export {cams} IMAGES"
        )
    if null and not inputs:
        raise UsageError("--null is about paths on stdin, and no input is -")

    from medtool.cam.export import ExportFormat, export_heatmaps
    from medtool.heatmaps import open_heatmaps

    with open_heatmaps(cams) as file:
        for name in target or ():
            if name not in file.classes:
                known = ", ".join(file.classes[:8]) or "one map an image"
                raise UsageError(f"--target {name!r} is none of what {cams} has: {known}")
        listing = _listing(inputs, null=null) if inputs else None
        folder = Path(out) if out is not None else Path(f"{cams.stem}-{kind}")
        exported = export_heatmaps(
            file,
            folder,
            ExportFormat(kind),
            images={} if listing is None else {item.image_id: item.path for item in listing.items},
            problems={} if listing is None else {problem.image_id: problem.reason for problem in listing.problems},
            targets=tuple(target or ()),
            steps=functools.partial(console.steps, label="export"),
        )
    if console.settings.json:
        console.show_json(
            {
                "format": "medtool-cam-export",
                "version": 1,
                "index": str(exported.index),
                "n_written": exported.n_written,
                "failed": [{"image_id": name, "reason": reason} for name, reason in exported.failed],
            }
        )
    else:
        console.out(str(exported.index))
    show_failures(exported.failed, exported.index.name)
    console.say(f"{exported.n_written} written, {len(exported.failed)} failed")
    if exported.failed:
        raise typer.Exit(ExitCode.PARTIAL)


app = typer.Typer()
app.command("info", short_help="What a file of heatmaps holds.", epilog=INFO_EXAMPLES)(command(info))
app.command("verify", short_help="Check heatmaps, and that they are of these images.", epilog=VERIFY_EXAMPLES)(
    command(verify)
)
app.command("export", short_help="Heatmaps as PNG, NumPy, TIFF or overlays.", epilog=EXPORT_EXAMPLES)(command(export))
app.command("score", short_help="How good heatmaps are, by masks and by the network.", epilog=cam_score.EXAMPLES)(
    command(cam_score.cam_score)
)

"""``medtool segment``: images to masks."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cli import console
from medtool.cli.given import default_out, show_failures, stdin_of
from medtool.errors import ExitCode, UsageError
from medtool.images.options import ReadOptions
from medtool.segment.options import CleanOptions, PromptOptions, Strategy

if TYPE_CHECKING:
    from medtool.inputs import Listing
    from medtool.segment.job import Job
    from medtool.segment.run import Summary

EXAMPLES = """Examples:

medtool segment photos/ --overlays --contact-sheet

medtool segment photos/ --run runs/first --points 5

medtool segment data/manifest.csv --segmenter sam-vit-b --points 5 --out masks/

find scans -name '*.dcm' -print0 | medtool segment - -0 --out masks/
"""


_OTHER_PART = "--page, --axis and --slice choose a part of a file, and a network looks at what is read without them"
_MASK_FOLDERS = frozenset(("mask", "masks", "label", "labels", "segmentation", "segmentations", "groundtruth", "gt"))
_MASK_ENDINGS = ("_mask", "_label", "_labels", "_seg", "_segmentation", "_gt")


def _segmenters(incomplete: str) -> list[str]:
    from medtool import registry

    return [name for name in ("auto", *registry.names("segmenter")) if name.startswith(incomplete)]


def segment(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUTS", help="Folders, files, globs, a manifest, or - for paths on stdin."),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the result. By default the first input's name + -masks, in the current folder.",
        ),
    ] = None,
    segmenter: Annotated[
        str,
        typer.Option(
            help="By name, or auto: the best one whose weights are on this machine.",
            autocompletion=_segmenters,
        ),
    ] = "auto",
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of your own for --segmenter, in its published format."),
    ] = None,
    heatmaps: Annotated[
        Path | None,
        typer.Option(help="Heatmaps of your own network (cams.h5). By default a saliency map."),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="Make the heatmaps with this trained network; with several, their mean."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(help="Class whose heatmap is taken. By default the predicted one, or that of the file."),
    ] = "",
    points: Annotated[int, typer.Option(help="Positive points an image.")] = PromptOptions.points,
    negatives: Annotated[int, typer.Option(help="Negative points an image.")] = PromptOptions.negatives,
    strategy: Annotated[Strategy, typer.Option(help="How positive points are chosen.")] = PromptOptions.strategy,
    power: Annotated[
        float,
        typer.Option(
            help="Points are drawn in proportion to heatmap^POWER: 1 spreads them, 30 keeps to the hottest places.",
        ),
    ] = PromptOptions.power,
    min_distance: Annotated[
        float, typer.Option(help="Least distance of two points, in pixels.")
    ] = PromptOptions.min_distance_px,
    seed: Annotated[int, typer.Option(help="Of the points; mixed with each image's content.")] = PromptOptions.seed,
    largest_component: Annotated[
        bool,
        typer.Option(
            "--largest-component/--all-components",
            help="Keep only the largest connected part that holds a positive point.",
        ),
    ] = CleanOptions.largest_component,
    fill_holes: Annotated[
        bool, typer.Option("--fill-holes/--keep-holes", help="Fill enclosed holes.")
    ] = CleanOptions.fill_holes,
    min_area: Annotated[int, typer.Option(help="Smaller masks, in pixels, become empty.")] = CleanOptions.min_area_px,
    overlays: Annotated[
        bool,
        typer.Option("--overlays", help="Also draw contour and points over each image."),
    ] = False,
    contact_sheet: Annotated[
        bool,
        typer.Option("--contact-sheet", help="Also draw one picture of up to 60 images."),
    ] = False,
    page: Annotated[
        int | None,
        typer.Option(help="Which page of files with several, from 0."),
    ] = None,
    axis: Annotated[
        int,
        typer.Option(help="Of NIfTI volumes: 0 sagittal, 1 coronal, 2 axial slices."),
    ] = ReadOptions.axis,
    slice_index: Annotated[
        int | None,
        typer.Option(
            "--slice",
            envvar="MEDTOOL_SEGMENT_SLICE",
            help="Of NIfTI volumes: which one, from 0. By default the middle one.",
        ),
    ] = None,
    max_pixels: Annotated[int, typer.Option(help="Refuse larger images before decoding.")] = ReadOptions.max_pixels,
    max_bytes: Annotated[int, typer.Option(help="Refuse larger files before reading.")] = ReadOptions.max_bytes,
    null: Annotated[
        bool,
        typer.Option("-0", "--null", help="Paths on stdin end with NUL, as from find -print0."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in --out.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that fails.")] = False,
    workers: Annotated[int, typer.Option(help="Processes. 0 is automatic.")] = 0,
    cluster: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler to work on, tcp://HOST:8786 (extra cluster)."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps; for networks.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16; for networks.")] = "auto",
) -> None:
    """Segment the object in each image: a heatmap, points from it, a mask.

    Run the same command again to go on after an interruption: finished images are skipped.
    """
    is_whole = page is None and axis == ReadOptions.axis and slice_index is None
    if out == "":
        raise UsageError("--out is the empty text; is a variable of your shell not set?")
    if null and "-" not in inputs:
        raise UsageError("--null is about paths on stdin, and no input is -")
    _check_heatmaps(run, heatmaps, target, is_whole=is_whole)
    prompt = PromptOptions(points, negatives, strategy, power, min_distance, seed)
    clean = CleanOptions(largest_component, fill_holes, min_area)
    read = ReadOptions(page=page, axis=axis, slice_index=slice_index, max_pixels=max_pixels, max_bytes=max_bytes)

    from medtool.inputs import find_images

    listing = find_images(inputs, stdin=stdin_of(inputs), null_separated=null)
    for note in (*listing.notes, *_notes_on_masks(listing)):
        console.say(note)

    from medtool.segment.choose import choose_segmenter
    from medtool.segment.job import HEATMAPS_NAME, Job, heatmap_source, options_of
    from medtool.segment.run import RunOptions, segment_images

    choice = choose_segmenter(segmenter, weights_file=weights, device=device, precision=precision, has_runs=bool(run))
    folder = default_out(inputs, "masks") if out is None else Path(out)
    job = Job(
        folder,
        choice,
        prompt,
        clean,
        read,
        folder / HEATMAPS_NAME if run else heatmaps,
        overlays,
        "" if run else target,
    )
    if choice.note:
        console.say(choice.note)
    if choice.needs_torch:
        console.say(f"device {choice.device}, {choice.precision}")
    if run:
        made_with = _heatmaps_of_runs(run, listing, inputs, job, target=target, device=device, overwrite=overwrite)
    else:
        made_with = options_of(
            job, heatmap=heatmap_source(heatmaps, [item.image_id for item in listing.items], target=target)
        )
    if not is_whole and made_with["heatmap"]["source"] == "cam":
        raise UsageError(_OTHER_PART)
    if job.heatmaps is None:
        console.say(
            "heatmap: a saliency map, without training (docs/explanation/saliency.md); --heatmaps FILE takes yours, and"
            " --run RUN those of a trained network"
        )
    console.detail(f"{len(listing.items)} images, {len(listing.problems)} that cannot be used")
    console.detail(f"to {job.out}, made with {json.dumps(made_with)}")
    summary = segment_images(
        listing,
        job,
        RunOptions(workers, cluster, overwrite, strict, contact_sheet),
        made_with=made_with,
        steps=functools.partial(console.steps, label="segment"),
    )
    _show(summary)
    if summary.failed:
        raise typer.Exit(ExitCode.PARTIAL)


def _check_heatmaps(run: list[Path] | None, heatmaps: Path | None, target: str, *, is_whole: bool) -> None:
    """Refuse options about heatmaps that contradict one another."""
    if run and heatmaps is not None:
        raise UsageError("--run and --heatmaps each say where heatmaps come from; give one")
    if run and not is_whole:
        raise UsageError(_OTHER_PART)
    if target and not run and heatmaps is None:
        raise UsageError("--target names a class, and a saliency map knows none", hint="--run RUN, or --heatmaps FILE")
    if run and target == "all":
        raise UsageError("--target all gives a map for each class, and points come from one", hint="--target CLASS")


def _heatmaps_of_runs(
    folders: list[Path],
    listing: Listing,
    inputs: list[str],
    job: Job,
    *,
    target: str,
    device: str,
    overwrite: bool,
) -> dict[str, Any]:
    """Make the heatmaps of trained networks beside the masks, and return what decides what the masks look like."""
    from medtool.cam.job import lineage_of
    from medtool.cam.options import CamOptions
    from medtool.cli.cam import heatmaps_of, job_of, say_summary
    from medtool.devices import resolve_device
    from medtool.errors import LineageError
    from medtool.runs.folder import runs_in
    from medtool.segment.job import options_of, source_of
    from medtool.segment.run import check_result

    runs = [run for folder in folders for run in runs_in(folder)]
    assert job.heatmaps is not None
    options = CamOptions(target=target or CamOptions.target, device=resolve_device(device))
    made_with = options_of(job, heatmap=source_of(lineage_of(runs, options, job_of(runs, job.heatmaps)[0])))
    check_result(job, made_with, overwrite=overwrite)
    try:
        summary = heatmaps_of(runs, listing, inputs, options, out=job.heatmaps, parts=())
    except LineageError:
        if not overwrite:
            raise
        again = dataclasses.replace(options, overwrite=True)
        summary = heatmaps_of(runs, listing, inputs, again, out=job.heatmaps, parts=())
    summary.failed.clear()  # each fails again below, where it is a row
    say_summary(summary)
    return made_with


def _notes_on_masks(listing: Listing) -> list[str]:
    """Return a line where a folder seems to hold masks beside the images: they are segmented like images."""
    names = [item.image_id for item in listing.items if not item.columns]
    suspects = [
        name
        for name in names
        if _MASK_FOLDERS & {part.lower() for part in name.split("/")[:-1]}
        or name.lower().removesuffix(".gz").rpartition(".")[0].endswith(_MASK_ENDINGS)
    ]
    if not suspects or len(suspects) == len(names):
        return []
    return [
        f"{len(suspects)} of {len(names)} files look like masks, such as {suspects[0]}, and are taken for images;"
        " give the images' own folder, or a manifest: medtool manifest masks FOLDER"
    ]


def _show(summary: Summary) -> None:
    if console.settings.json:
        console.show_json(
            {
                "format": "medtool-segment",
                "version": 1,
                "out": str(summary.out),
                "masks_csv": str(summary.table),
                "contact_sheet": None if summary.sheet is None else str(summary.sheet),
                "done": sorted(summary.done),
                "skipped": sorted(summary.skipped),
                "empty": sorted(summary.empty),
                "failed": [{"image_id": row.image_id, "reason": row.reason} for row in summary.failed],
            }
        )
    elif console.settings.quiet:
        for mask in summary.masks:
            console.out(str(mask))
    else:
        console.out(str(summary.table))
    show_failures(((row.image_id, row.reason) for row in summary.failed), "masks.csv")
    if summary.sheet is not None:
        shown, of = summary.sheet_shows
        console.say(f"{summary.sheet} shows {shown} of {of} images")
    empty = f", {len(summary.empty)} of them empty" if summary.empty else ""
    console.say(
        f"{len(summary.done)} segmented{empty}, {len(summary.skipped)} were finished before,"
        f" {len(summary.failed)} failed"
    )
    if summary.others:
        console.say(f"{summary.table} also holds {summary.others} finished images that were not given now")

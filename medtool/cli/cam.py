"""``medtool cam``: trained networks and images to heatmaps."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cam.choices import Method
from medtool.cam.options import CamOptions
from medtool.cli import console
from medtool.cli.asked import asked_of, divided, parts_of
from medtool.cli.given import default_out, show_failures, stdin_of
from medtool.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medtool.cam.job import Job, Summary
    from medtool.inputs import Listing
    from medtool.runs.folder import Run
    from medtool.split.recognise import Recognised

EXAMPLES = """Examples:

medtool cam runs/first data/manifest-split.csv --out cams.h5

medtool cam runs/folds photos/ --method layercam --flip --uncertainty

medtool cam info cams.h5; also verify, export and score: medtool cam score --help
"""


def _run_in(context: typer.Context) -> Path | None:
    """Return the first run that is on the line so far, for completion."""
    given = context.params.get("arguments") or []
    return next((Path(each) for each in given if (Path(each) / "lineage.json").is_file()), None)


def _card_of(run: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return a run's checkpoint and what its side file says, without loading torch."""
    try:
        name = json.loads((run / "lineage.json").read_bytes())["outputs"]["checkpoint"]
        path = run / "checkpoints" / name
        return path, json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _layers(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a layer, a step deeper at a time, by the names of the weights."""
    run = _run_in(context)
    found = None if run is None else _card_of(run)
    if found is None:
        return []
    try:
        with found[0].open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            names = json.loads(stream.read(min(length, 64 << 20)))
    except (OSError, ValueError):
        return []
    modules = {name.rpartition(".")[0] for name in names if name != "__metadata__"}
    depth = incomplete.count(".") + 1
    cut = dict.fromkeys(".".join(name.split(".")[:depth]) for name in modules)
    return sorted(name for name in cut if name and name.startswith(incomplete))


def _targets(context: typer.Context, incomplete: str) -> list[str]:
    run = _run_in(context)
    found = None if run is None else _card_of(run)
    classes = [] if found is None else [str(name) for name in found[1].get("classes", [])]
    return [name for name in ("predicted", "all", "label", *classes) if name.startswith(incomplete)]


def cam(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... INPUTS",
            help="One run, or several whose heatmaps are averaged; then folders, files, globs, a manifest, or -.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="File of heatmaps. By default the first input's name + -cams.h5, in the current folder."
        ),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="How what the layer gives is weighted; those from eigengradcam on are slower.")
    ] = CamOptions.method,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="By its dotted name; maps of several are averaged. By default the last with a map.",
            autocompletion=_layers,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="The class a map speaks for: predicted, all (a map each), label (the true one) or a class's name.",
            autocompletion=_targets,
        ),
    ] = CamOptions.target,
    scales: Annotated[
        str, typer.Option(help="Average over images of these sizes: 0.75,1,1.25 times the network's own.")
    ] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average over the mirrored image too.")] = CamOptions.flip,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Keep how far what is averaged differs, beside each map.")
    ] = CamOptions.uncertainty,
    split: Annotated[
        str, typer.Option(help="Only these parts of a manifest's split: test, or val,test. By default all.")
    ] = "",
    null: Annotated[
        bool, typer.Option("-0", "--null", help="Paths on stdin end with NUL, as from find -print0.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images at once. 0 is automatic.")] = CamOptions.batch_size,
    threads: Annotated[
        int, typer.Option(help="That read images. 0 is one a processor, at most 16.")
    ] = CamOptions.threads,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="Of the network: auto (fp32), fp32, bf16 or fp16; maps are computed in fp32.")
    ] = "auto",
    channels_last: Annotated[
        bool, typer.Option("--channels-last/--channels-first", help="Order of pixels in memory; the first is faster.")
    ] = CamOptions.channels_last,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")] = CamOptions.overwrite,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that fails.")] = CamOptions.strict,
) -> None:
    """Cache one heatmap an image, for segmenting, scoring and looking.

    Run the same command again to go on after an interruption, or with more images: what is cached is kept, by content.
    Beside it: medtool cam info, verify, export, score.
    """
    if out == "":
        raise UsageError("--out is the empty text; is a variable of your shell not set?")
    parts = parts_of(split)
    factors = _scales(scales)
    runs, inputs = divided(arguments)
    if null and "-" not in inputs:
        raise UsageError("--null is about paths on stdin, and no input is -")

    from medtool.devices import resolve_device, resolve_precision
    from medtool.inputs import find_images

    chosen = resolve_device(device)
    options = CamOptions(
        method=method,
        layers=tuple(layer or ()),
        target=target,
        scales=factors,
        flip=flip,
        uncertainty=uncertainty,
        device=chosen,
        precision=resolve_precision("fp32" if precision == "auto" else precision, chosen),
        batch_size=batch_size,
        threads=threads,
        channels_last=channels_last,
        overwrite=overwrite,
        strict=strict,
    )
    where = (
        default_out(inputs, "cams").with_name(f"{default_out(inputs, 'cams').name}.h5") if out is None else Path(out)
    )
    listing = find_images(inputs, stdin=stdin_of(inputs), null_separated=null)
    for note in listing.notes:
        console.say(note)
    summary = heatmaps_of(runs, listing, inputs, options, out=where, parts=parts)
    _show(summary)
    if summary.failed:
        raise typer.Exit(ExitCode.PARTIAL)


def job_of(runs: Sequence[Run], out: Path) -> tuple[Job, Recognised]:
    """Return where heatmaps of runs go with what they inherit, and what tells whether an image was seen."""
    from medtool.cam.job import Job
    from medtool.split.marks import inherited, marks_of
    from medtool.split.recognise import Recognised
    from medtool.split.seen import read_seen

    seen = [read_seen(run.folder) for run in runs]
    recognised = Recognised(seen)
    marks = marks_of(inherited(*(each.leaks for each in seen)))
    return Job(out, seen_contents=recognised.contents, made_from=marks), recognised


def heatmaps_of(
    runs: Sequence[Run], listing: Listing, inputs: list[str], options: CamOptions, *, out: Path, parts: tuple[str, ...]
) -> Summary:
    """Say what is about to be done, and make the heatmaps of the images of a listing."""
    from medtool.cam.ensemble import layers_of
    from medtool.cam.job import Watch, make_heatmaps

    job, recognised = job_of(runs, out)
    asked, _ = asked_of(listing, inputs, list(runs), recognised, parts=parts)
    networks = "1 network" if len(runs) == 1 else f"{len(runs)} networks"
    views = "" if options.n_views == 1 else f", {options.n_views} views of each image"
    layers = ", ".join(dict.fromkeys(name for run in runs for name in layers_of(run, options))) or "all blocks"
    console.say(f"{options.method} at {layers}, {networks}{views}, device {options.device}, {options.precision}")
    console.detail(f"{len(asked)} images, to {out}")
    watch = Watch(console.say, functools.partial(console.steps, label="cam"))
    return make_heatmaps(asked, runs, options, job=job, watch=watch)


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"--scales {text!r} must be factors such as 0.75,1,1.25") from None


def _show(summary: Summary) -> None:
    if console.settings.json:
        console.show_json(
            {
                "format": "medtool-cam",
                "version": 1,
                "heatmaps": str(summary.out),
                "height": summary.size[0],
                "width": summary.size[1],
                "n_made": summary.n_made,
                "n_kept": summary.n_kept,
                "n_others": summary.n_others,
                "n_seen": {role: summary.seen[role] for role in ("train", "val")},
                "flagged": dict(sorted(summary.flagged.items())),
                "was_finished": summary.was_finished,
                "failed": [{"image_id": name, "reason": reason} for name, reason in summary.failed],
            }
        )
    else:
        console.out(str(summary.out))
    say_summary(summary)


def say_summary(summary: Summary) -> None:
    """Name what failed or is of no use, and count the rest."""
    show_failures(summary.failed, "medtool cam info")
    if summary.flagged:
        what = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(summary.flagged.items()))
        console.warn(f"maps that say nothing about where to look: {what} (medtool cam info --images names them)")
    if summary.seen:
        console.say(
            f"{summary.seen.total()} of the images were seen by a run ({summary.seen['train']} in training,"
            f" {summary.seen['val']} in choosing); medtool cam score refuses them"
        )
    if summary.n_others:
        console.say(f"{summary.out} also holds {summary.n_others} images that were not given now")
    height, width = summary.size
    console.say(
        f"{summary.n_made} made, {summary.n_kept} were there, {len(summary.failed)} failed; maps of {height} × {width}"
    )

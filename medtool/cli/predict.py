"""``medtool predict``: trained networks and images to probabilities."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cli import console
from medtool.cli.asked import PARTS, asked_of, divided, parts_of
from medtool.cli.given import default_out, show_failures, stdin_of
from medtool.errors import ExitCode, LeakError, UsageError
from medtool.train.choices import Aggregation, Views
from medtool.train.predict_options import PredictOptions

if TYPE_CHECKING:
    from medtool.runs.folder import Run
    from medtool.split.marks import Leak
    from medtool.split.recognise import Sight
    from medtool.train.ensemble import Member
    from medtool.train.predict_folder import Summary

EXAMPLES = """Examples:

medtool predict runs/first data/manifest-split.csv --split test --patients mean

medtool predict runs/folds new-photos/ --tta flips --out answers/

find scans -name '*.dcm' -print0 | medtool predict runs/a runs/b - -0 --out answers/
"""

_NAMED_LABELS = 3


def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... INPUTS",
            help="One run or several that answer together; then folders, files, globs, a manifest, or -.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the result. By default the first input's name + -predictions, in the current folder.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Only these parts of a manifest's split: test, or val,test. By default all.")
    ] = "",
    tta: Annotated[
        Views, typer.Option(help="Average over poses of each image: flips and quarter-turns are 4, all are 8.")
    ] = PredictOptions.views,
    patients: Annotated[
        Aggregation | None, typer.Option(help="Also write patients.csv, taking a patient's images together so.")
    ] = PredictOptions.patients,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibration/--no-calibration",
            envvar="MEDTOOL_PREDICT_CALIBRATION",
            help="Apply each run's own calibration.",
        ),
    ] = PredictOptions.calibrate,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Predict what a run was trained or chosen on too, and mark it.")
    ] = PredictOptions.allow_seen,
    allow_leak: Annotated[
        bool,
        typer.Option("--allow-leak", help="Predict on a manifest whose split leaks, and mark everything made from it."),
    ] = False,
    null: Annotated[
        bool, typer.Option("-0", "--null", help="Paths on stdin end with NUL, as from find -print0.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images at once. 0 is automatic.")] = PredictOptions.batch_size,
    threads: Annotated[
        int, typer.Option(help="That read images. 0 is one a processor, at most 16.")
    ] = PredictOptions.threads,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto (fp32), fp32, bf16 or fp16; the last two move probabilities.")
    ] = "auto",
    channels_last: Annotated[
        bool, typer.Option("--channels-last/--channels-first", help="Order of pixels in memory; the first is faster.")
    ] = PredictOptions.channels_last,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in --out.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that fails.")] = False,
) -> None:
    """Predict images with a trained network, or with several that answer together.

    What a run was trained or chosen on is refused. Run the same command again to go on after an interruption.
    """
    if out == "":
        raise UsageError("--out is the empty text; is a variable of your shell not set?")
    parts = parts_of(split)
    runs, inputs = divided(arguments)
    if null and "-" not in inputs:
        raise UsageError("--null is about paths on stdin, and no input is -")

    from medtool.devices import resolve_device, resolve_precision
    from medtool.inputs import find_images
    from medtool.split.marks import inherited, marks_of
    from medtool.split.recognise import Recognised
    from medtool.split.seen import read_seen
    from medtool.train.ensemble import members_of
    from medtool.train.predict import Job, Watch, predict_images

    chosen = resolve_device(device)
    options = PredictOptions(
        views=tta,
        calibrate=calibrate,
        patients=patients,
        allow_seen=allow_seen,
        device=chosen,
        # Not bf16 where that is fast: it moved probabilities by up to 0.06 (docs/how-to/predict.md).
        precision=resolve_precision("fp32" if precision == "auto" else precision, chosen),
        batch_size=batch_size,
        threads=threads,
        channels_last=channels_last,
        overwrite=overwrite,
        strict=strict,
    )
    members = members_of(runs)
    seen = [read_seen(run.folder) for run in runs]
    listing = find_images(inputs, stdin=stdin_of(inputs), null_separated=null)
    for note in listing.notes:
        console.say(note)
    recognised = Recognised(seen)
    asked, sights = asked_of(listing, inputs, runs, recognised, parts=parts)
    if sights and not allow_seen:
        raise _refusal(sights, len(asked), has_parts=any(each.split for each in asked), parts=parts)
    _say_terms(members, options, seen_known=bool(recognised.contents))
    own = [leak for given in inputs for leak in _cleared(given, runs, is_leak_allowed=allow_leak)]
    leaks = inherited(*(each.leaks for each in seen), _leaks_of(sights), own)
    groups = seen[0].groups
    job = Job(
        default_out(inputs, "predictions") if out is None else Path(out),
        unit="patient" if "patient" in groups or not groups else groups[0],
        seen_contents=recognised.contents,
        made_from=marks_of(leaks),
    )
    console.detail(f"{len(asked)} images, to {job.out}")
    summary = predict_images(
        asked, members, options, job=job, watch=Watch(console.say, functools.partial(console.steps, label="predict"))
    )
    _show(summary)
    if summary.failed:
        raise typer.Exit(ExitCode.PARTIAL)


def _cleared(given: str, runs: list[Run], *, is_leak_allowed: bool) -> tuple[Leak, ...]:
    """Let a manifest with a split pass the cheap audit; return the leaks that it has in spite of which we go on."""
    from medtool.manifest import SUFFIXES, read_manifest
    from medtool.roles import folds_of
    from medtool.split.gate import gate
    from medtool.split.options import AuditOptions

    path = Path(given)
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return ()
    manifest = read_manifest(path)
    folds = folds_of(manifest)
    parts = set(manifest.table.get_column("split")) if "split" in manifest.table.columns else set()
    if not folds and len(parts & set(PARTS)) < 2:
        return ()  # nothing that could leak into something else
    held_out = {run.lineage["made_with"].get("fold") for run in runs}
    fold = held_out.pop() if len(held_out) == 1 else None
    clearance = gate(
        manifest, AuditOptions(), is_leak_allowed=is_leak_allowed, fold=fold if fold in folds else None, source=given
    )
    for leak in clearance.leaks:
        console.warn(f"predicted in spite of {leak}; everything made from these predictions is marked")
    return clearance.leaks


def _refusal(sights: list[Sight], n_asked: int, *, has_parts: bool, parts: tuple[str, ...]) -> LeakError:
    by_column: dict[str, dict[str, None]] = {}
    for sight in sights:
        by_column.setdefault(sight.column, {})[sight.value] = None
    what = [
        f"{name} {', '.join(list(values)[:3])}{', ...' if len(values) > 3 else ''}"
        for name, values in by_column.items()
    ]
    hint = "--allow-seen predicts them too, and marks every score"
    if has_parts and parts != ("test",):
        hint = f"--split test, which takes only that part of the manifest; {hint}"
    return LeakError(
        f"{len(sights)} of {n_asked} images are of what the runs were trained or chosen on: {'; '.join(what)}",
        hint=hint,
    )


def _leaks_of(sights: list[Sight]) -> list[Any]:
    """Return the marks of what is predicted although a run has seen it."""
    from medtool.split import catalogue
    from medtool.split.marks import Leak

    groups = {(sight.column, sight.value) for sight in sights if sight.column != "image_id"}
    images = [sight for sight in sights if sight.column == "image_id"]
    counts = ((catalogue.RUN_HAS_SEEN_GROUP.code, len(groups)), (catalogue.RUN_HAS_SEEN_IMAGE.code, len(images)))
    return [Leak(code, n_cases) for code, n_cases in counts if n_cases]


def _say_terms(members: tuple[Member, ...], options: PredictOptions, *, seen_known: bool) -> None:
    """Say how images become probabilities, and what does not apply."""
    from medtool.train.views import poses_of

    n_poses = len(poses_of(options.views, members[0].card.preprocessing))
    networks = "1 network" if len(members) == 1 else f"{len(members)} networks"
    poses = "" if n_poses == 1 else f", {n_poses} poses of each image"
    console.say(f"{networks}{poses}, device {options.device}, {options.precision}")
    is_lone = len(members) == 1 and n_poses == 1
    if any(member.calibrated.thresholds for member in members) and not (is_lone and options.calibrate):
        console.say(
            "the stored thresholds are for the calibrated probabilities of one network that sees each image once; the"
            " most probable class decides instead, and labels from 0.5 on"
        )
    for member in members:
        if options.calibrate and member.calibrated.calibration is None:
            console.say(f"{member.run.folder} could not be calibrated when it was trained; its probabilities are as is")
    if not seen_known:
        console.say("the runs do not know the content of what they have seen; only ids and patients are compared")


def _show(summary: Summary) -> None:
    if console.settings.json:
        console.show_json(
            {
                "format": "medtool-predict",
                "version": 1,
                "out": str(summary.out),
                "predictions_csv": str(summary.table),
                "patients_csv": None if summary.patients is None else str(summary.patients),
                "n_done": summary.n_done,
                "n_seen": {role: summary.seen[role] for role in ("train", "val")},
                "unknown_labels": dict(summary.unknown_labels),
                "was_finished": summary.was_finished,
                "failed": [{"image_id": name, "reason": reason} for name, reason in summary.failed],
            }
        )
    else:
        console.out(str(summary.table))
        if summary.patients is not None:
            console.out(str(summary.patients))
    show_failures(summary.failed, "predictions.csv")
    if summary.unknown_labels:
        names = [f"{label!r} ({count})" for label, count in summary.unknown_labels.most_common(_NAMED_LABELS)]
        more = ", ..." if len(summary.unknown_labels) > _NAMED_LABELS else ""
        console.say(
            f"{summary.unknown_labels.total()} labels are none of the runs' classes and stay as they are written:"
            f" {', '.join(names)}{more}"
        )
    if summary.seen:
        console.warn(
            f"{summary.seen.total()} of the predicted images were seen by a run ({summary.seen['train']} in training,"
            f" {summary.seen['val']} in choosing); the column 'seen' marks them"
        )
    if summary.was_finished:
        console.say(f"{summary.out} was finished before")
    console.say(f"{summary.n_done} predicted, {len(summary.failed)} failed")

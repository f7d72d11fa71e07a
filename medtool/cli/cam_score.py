"""``medtool cam score``: how good heatmaps are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cam.score.options import ScoreOptions
from medtool.cli import console
from medtool.cli.asked import parts_of
from medtool.cli.given import show_failures
from medtool.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from medtool.manifest import Manifest
    from medtool.runs.folder import Run
    from medtool.split.recognise import Recognised

EXAMPLES = """Examples:

medtool cam score cams.h5 data/manifest-split.csv --split test

medtool cam score cams.h5 data/manifest-split.csv --split test --run runs/first --sanity --out scores.json

medtool cam score gradcam.h5 data/manifest-split.csv --split test --compare layercam.h5 --compare eigencam.h5
"""

_SEEN = {"train": "the run was trained on this very image", "val": "the run was chosen by this very image"}


def cam_score(
    cams: Annotated[Path, typer.Argument(metavar="CAMS", help="Heatmaps, as medtool cam writes them (cams.h5).")],
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="The images, with masks for localisation, and patients.")
    ],
    compare: Annotated[
        list[Path] | None,
        typer.Option(metavar="CAMS", help="Other heatmaps of the same images, to compare with; may be given again."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The run that the heatmaps were made with; its network is asked for faithfulness."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Only these parts of the manifest's split: test, or val,test. By default all.")
    ] = "",
    fold: Annotated[
        int | None, typer.Option(help="Of a manifest with folds, the one held out. By default the run's.")
    ] = None,
    group: Annotated[
        str, typer.Option(help="Column that says whose images belong together. By default patient, or the run's.")
    ] = "",
    target: Annotated[
        str,
        typer.Option(help="Of files with a map for each class, which: predicted, label (an oracle), or a class."),
    ] = ScoreOptions.target,
    threshold: Annotated[
        float | None,
        typer.Option(help="Share of the peak to cut maps at. By default chosen on the val part, without one 0.5."),
    ] = ScoreOptions.threshold,
    tolerance: Annotated[
        float, typer.Option(help="How many pixels beside the mask the hottest pixel still is a hit.")
    ] = ScoreOptions.tolerance_px,
    steps: Annotated[int, typer.Option(help="Steps of deletion and insertion.")] = ScoreOptions.steps,
    sanity: Annotated[
        bool, typer.Option("--sanity", help="Also compare with maps of the run's network with random weights.")
    ] = ScoreOptions.sanity,
    sanity_images: Annotated[int, typer.Option(help="How many images that is done on.")] = ScoreOptions.sanity_images,
    sanity_stages: Annotated[
        int, typer.Option(help="How often on the way from one random layer to all.")
    ] = ScoreOptions.sanity_stages,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Score what the network was trained or chosen on too, and mark it.")
    ] = ScoreOptions.allow_seen,
    seed: Annotated[
        int, typer.Option(help="Of the intervals, the tests, the noise and the random weights.")
    ] = ScoreOptions.seed,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE.json", help="Also write the document to this file.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images at once. 0 is automatic.")] = ScoreOptions.batch_size,
    threads: Annotated[
        int, typer.Option(help="That read images. 0 is one a processor, at most 16.")
    ] = ScoreOptions.threads,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps; for --run.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (fp32), fp32, bf16 or fp16; for --run.")] = "auto",
    channels_last: Annotated[
        bool, typer.Option("--channels-last/--channels-first", help="Order of pixels in memory; the first is faster.")
    ] = ScoreOptions.channels_last,
) -> None:
    """Score heatmaps: by masks, by what the network answers without what they point at, and by random weights.

    What the network was trained or chosen on is refused. Every value has its interval over patients. With --out, the
    same command goes on after an interruption.
    """
    if out is not None and not out.endswith(".json"):
        raise UsageError(f"--out is {out!r}; it must be the name of a .json file")
    if sanity and run is None:
        raise UsageError("--sanity needs the network of the heatmaps", hint="--run RUN")
    parts = parts_of(split)
    others = compare or []
    paths = [cams, *others]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise UsageError(f"{path} is given twice")

    from medtool.cam.score.cases import Source, cases_of
    from medtool.cam.score.document import document_of
    from medtool.cam.score.kept import kept_for
    from medtool.cam.score.run import Job, Watch, score_heatmaps
    from medtool.heatmaps import open_heatmaps
    from medtool.manifest import read_manifest
    from medtool.storage import sha256_of, write_json

    table = read_manifest(manifest)
    options = ScoreOptions(
        target=target,
        tolerance_px=tolerance,
        threshold=threshold,
        steps=steps,
        sanity=sanity,
        sanity_images=sanity_images,
        sanity_stages=sanity_stages,
        allow_seen=allow_seen,
        seed=seed,
        batch_size=batch_size,
        threads=threads,
        channels_last=channels_last,
        **_device(run, device, precision),
    )
    found_run, recognised = _run_at(run)
    column = _group(group, table, recognised)
    roles = _roles(table, fold, found_run, is_split_asked=bool(parts))
    refused = (
        {} if recognised is None or allow_seen else {sha: _SEEN[role] for sha, role in recognised.contents.items()}
    )
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open_heatmaps(path)) for path in paths]
        for file in files:
            if file.lineage is None and run is None:
                console.say(f"nothing says what the network of {file.path} has seen; that is taken on trust")
        job = Job(
            tuple(Source.of(file, target, refused=refused) for file in files),
            table,
            cases_of(table, roles, group=column, files=files, sight=_sight(recognised)),
            parts,
            found_run,
        )
        if not column:
            console.say("the manifest has no column 'patient': each image counts as a patient of its own")
        if run is not None:
            console.say(f"device {options.device}, {options.precision}")
        kept = stack.enter_context(kept_for(None if out is None else Path(out)))
        found = score_heatmaps(job, options, watch=Watch(console.say, console.steps), kept=kept)
        document = document_of(job, found, options, manifest_sha256=sha256_of(manifest), group=column)
        if out is not None:
            write_json(Path(out), document)
            kept.forget()
    _show(document)
    if found.failed:
        raise typer.Exit(ExitCode.PARTIAL)


def _device(run: Path | None, device: str, precision: str) -> dict[str, Any]:
    """Return the resolved device and precision; without a run no torch is loaded for it."""
    if run is None:
        if device != "auto" or precision != "auto":
            raise UsageError("--device and --precision are for the network of --run, and there is no --run")
        return {}
    from medtool.devices import resolve_device, resolve_precision

    chosen = resolve_device(device)
    return {"device": chosen, "precision": resolve_precision("fp32" if precision == "auto" else precision, chosen)}


def _run_at(path: Path | None) -> tuple[Run | None, Recognised | None]:
    if path is None:
        return None, None
    from medtool.runs.folder import runs_in
    from medtool.split.recognise import Recognised
    from medtool.split.seen import read_seen

    runs = runs_in(path)
    if len(runs) > 1:
        raise UsageError(f"{path} holds {len(runs)} runs; faithfulness is that of one network", hint="name one of them")
    return runs[0], Recognised([read_seen(runs[0].folder)])


def _group(asked: str, manifest: Manifest, recognised: Recognised | None) -> str:
    """Return the column that says whose images belong together; empty where there is none."""
    if asked:
        if asked not in manifest.columns:
            raise UsageError(f"--group {asked!r} is no column of the manifest ({', '.join(manifest.columns)})")
        return asked
    known = ("patient", *(() if recognised is None else recognised.groups))
    return next((name for name in known if name in manifest.columns), "")


def _roles(manifest: Manifest, fold: int | None, run: Run | None, *, is_split_asked: bool) -> list[str]:
    """Return train, val, test or an empty text for each row."""
    from medtool.roles import folds_of, roles_of

    folds = folds_of(manifest)
    if fold is None and folds and run is not None:
        fold = run.lineage["made_with"].get("fold")
    if folds and fold is None:
        if is_split_asked:
            raise UsageError(
                f"the manifest has folds ({', '.join(map(str, folds))}), so that --split needs the one held out",
                hint=f"--fold {folds[0]}",
            )
        return [""] * len(manifest)
    if not folds and fold is None and not manifest.counts("split"):
        if is_split_asked:
            raise UsageError("--split is about a manifest's split, and it has none", hint="medtool split make MANIFEST")
        return [""] * len(manifest)
    return list(roles_of(manifest, fold))


def _sight(recognised: Recognised | None) -> Callable[[Mapping[str, str]], str]:
    def sight(columns: Mapping[str, str]) -> str:
        found = None if recognised is None else recognised.sight(columns)
        return "" if found is None else found.role

    return sight


def _show(document: dict[str, Any]) -> None:
    from medtool.cam.score.document import comparison_table, table_of

    for result in document["results"]:
        layer = f" at {result['layer']}" if result["layer"] else ""
        console.say(f"{result['heatmaps']}: {result['method']}{layer}, target {result['target'] or 'not known'}")
    if console.settings.json:
        console.show_json(document)
    elif console.settings.quiet:
        for result in document["results"]:
            console.out(result["heatmaps"])
    else:
        console.table(*table_of(document))
        if document["comparisons"]:
            console.out("")
            console.table(*comparison_table(document))
    for result in document["results"]:
        _say_terms(result)
    if document["comparisons"]:
        console.say(
            f"{len(document['comparisons'])} comparisons: p by sign flips over patients; 'p adjusted' allows for their"
            " number (Holm)"
        )
    if document["n_seen"]:
        console.warn(
            f"{document['n_seen']} of {document['n_images']} scored images were seen by the network in training or in"
            " choosing it: these are no scores of what it has not seen"
        )
    show_failures([(each["image_id"], each["reason"]) for each in document["failed"]], "the document (--json, --out)")


def _say_terms(result: dict[str, Any]) -> None:
    """Say what the values of one file rest on, and who is missing."""
    name = result["heatmaps"]
    for each in result["scores"]:
        if each["class"] is None and each["score"] == "iou":
            console.say(f"{name}: iou at {each['threshold']:g} of the peak ({each['threshold_from']})")
    for kind, reasons in _excluded(result).items():
        console.say(f"{name}, without {kind}: {reasons}")
    if result["is_oracle"]:
        console.say(f"{name} shows the class of the true label: its scores are marked oracle")
    if result["sanity"] is not None:
        _say_sanity(name, result["sanity"])


def _say_sanity(name: str, check: dict[str, Any]) -> None:
    from medtool.cam.score.document import interval_text, number_text

    ends = [check["stages"][place]["rank_correlation"] for place in (0, -1)]
    top, every = (f"{number_text(each['value'])} ({interval_text(each['low'], each['high'])})" for each in ends)
    limits = check["limits"]
    console.say(
        f"{name} {'passes' if check['passes'] else 'FAILS'} the sanity check on {check['n_images']} images: mean rank"
        f" correlation with its own maps {top} with a random classifier (must be below"
        f" {limits['rank_correlation_classifier_random']}), {every} with all weights random (must be below"
        f" {limits['rank_correlation_all_random']})"
    )


def _excluded(result: dict[str, Any]) -> dict[str, str]:
    """Return by kind of score how many of all images have none, and why."""
    found = {}
    for each in result["scores"]:
        if each["class"] is None and each["excluded"]:
            found[each["kind"]] = "; ".join(f"{count} × {reason}" for reason, count in each["excluded"].items())
    return found

"""``medtool train``: a manifest with a split to a trained network, calibrated and scored."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cli import console
from medtool.cli.team import in_a_team, start_team
from medtool.errors import ExitCode, UsageError
from medtool.runs.choices import StainNormalisation, Task
from medtool.train.augment_options import AugmentPreset
from medtool.train.choices import (
    Cache,
    CalibrationMethod,
    ClassWeights,
    Costs,
    LossName,
    OptimizerName,
    Sampling,
    ScheduleName,
    ThresholdRule,
    TrackerName,
)
from medtool.train.options import TrainOptions, WorkOptions

if TYPE_CHECKING:
    from medtool.manifest import Manifest
    from medtool.split.seen import Seen
    from medtool.train.folds import Plan
    from medtool.train.run import Start, Summary
    from medtool.train.team import Team

EXAMPLES = """Examples:

medtool train data/manifest.csv --model mobilenetv2 --size 128 --out runs/first

medtool train data/manifest.csv --model fusion/resnet50 --metadata age,sex --folds all

medtool train data/manifest.csv --config runs/first/config.toml --seed 7 --out runs/second
"""

_MAX_NAMED_FAILURES = 10


def _models(incomplete: str) -> list[str]:
    from medtool import registry

    return [name for name in registry.names("architecture") if name.startswith(incomplete)]


@in_a_team
def train(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest with a split or folds, and labels.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's folder. By default runs/ and the model's name.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="An architecture: medtool plugins list, timm/NAME or fusion/NAME.", autocompletion=_models),
    ] = TrainOptions.model,
    task: Annotated[
        Task, typer.Option(help="single: one class of several; multi: labels separated by | in the column label.")
    ] = TrainOptions.task,
    positive: Annotated[
        str, typer.Option(help="Tell this label from all the others together.")
    ] = TrainOptions.positive,
    metadata: Annotated[str, typer.Option(help="Columns beside the image, for fusion/NAME: age,sex.")] = "",
    size: Annotated[
        int, typer.Option(help="Pixels of the square it sees. 0 is the model's own.")
    ] = TrainOptions.size_px,
    weights: Annotated[
        str, typer.Option(help="Published weights to start from: auto (if they are here), none, or a file.")
    ] = "auto",
    init: Annotated[
        Path | None, typer.Option(help="Start from this run, or this checkpoint of one; its patients count as seen.")
    ] = None,
    folds: Annotated[str, typer.Option(help="Which folds are held out, each in a run of its own: all, 0 or 0,2.")] = "",
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = TrainOptions.seed,
    seeds: Annotated[str, typer.Option(help="Several of them instead, each in a run of its own: 1,2,3.")] = "",
    epochs: Annotated[int, typer.Option(help="Passes over the train part.")] = TrainOptions.epochs,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = TrainOptions.batch_size,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = TrainOptions.lr,
    weight_decay: Annotated[float, typer.Option(help="Of weights, not of norms and biases.")] = (
        TrainOptions.weight_decay
    ),
    optimizer: Annotated[OptimizerName, typer.Option(help="How gradients become steps.")] = TrainOptions.optimizer,
    schedule: Annotated[ScheduleName, typer.Option(help="How the learning rate changes.")] = TrainOptions.schedule,
    warmup: Annotated[
        float | None, typer.Option(help="Epochs in which the learning rate rises. By default as the schedule needs.")
    ] = TrainOptions.warmup,
    layer_decay: Annotated[
        float, typer.Option(help="Factor of the learning rate from each layer to the one before it.")
    ] = TrainOptions.layer_decay,
    unfreeze: Annotated[
        str, typer.Option(help="Layers trained from which epoch on: 1:head,4:4,7:all. By default all.")
    ] = TrainOptions.unfreeze,
    loss: Annotated[
        LossName | None, typer.Option(help="By default cross-entropy; bce with --task multi.")
    ] = TrainOptions.loss,
    class_weights: Annotated[ClassWeights, typer.Option(help="Weigh rare classes more.")] = TrainOptions.class_weights,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of each target that is spread over all classes.")
    ] = TrainOptions.label_smoothing,
    focal_alpha: Annotated[
        float | None, typer.Option(help="Of the focal loss with --task multi: weight of a label that is there.")
    ] = TrainOptions.focal_alpha,
    focal_gamma: Annotated[float, typer.Option(help="Of the focal loss.")] = TrainOptions.focal_gamma,
    sampling: Annotated[Sampling, typer.Option(help="How often an image is shown.")] = TrainOptions.sampling,
    augment: Annotated[AugmentPreset, typer.Option(help="How images are varied.")] = TrainOptions.augment,
    vary: Annotated[
        str, typer.Option(help="Other amounts than those of --augment: cutout=0.3,blur=1,flips=no.")
    ] = TrainOptions.vary,
    stain: Annotated[
        StainNormalisation, typer.Option(help="Of H&E images: bring all to one appearance, in use too.")
    ] = TrainOptions.stain,
    mixup: Annotated[float, typer.Option(help="Blend images: 0.2 is usual, 0 is none.")] = TrainOptions.mixup,
    clip_norm: Annotated[float, typer.Option(help="Largest norm of the gradient. 0 is any.")] = TrainOptions.clip_norm,
    ema: Annotated[
        float, typer.Option(help="Decay of the moving average of the weights that is kept: 0.999. 0 is none.")
    ] = TrainOptions.ema,
    monitor: Annotated[
        str, typer.Option(help="Val score that chooses the epoch: auc, balanced_accuracy, f1, loss, recall/CLASS, ...")
    ] = TrainOptions.monitor,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without improvement. 0 is never.")
    ] = TrainOptions.patience,
    min_delta: Annotated[float, typer.Option(help="What counts as an improvement for --patience.")] = (
        TrainOptions.min_delta
    ),
    calibration: Annotated[
        CalibrationMethod, typer.Option(help="Fitted on the val part of the best epoch.")
    ] = TrainOptions.calibration,
    threshold: Annotated[
        ThresholdRule | None, typer.Option(help="Choose thresholds on the val part by this rule.")
    ] = TrainOptions.threshold,
    threshold_target: Annotated[
        float | None, typer.Option(help="Least sensitivity or specificity, for --threshold of that name.")
    ] = TrainOptions.threshold_target,
    costs: Annotated[str, typer.Option(help="Of a miss and of a false alarm, for --threshold cost: 10,1.")] = "",
    group: Annotated[
        str, typer.Option(help="Columns that the split must not cut: patient,lesion. By default those that are there.")
    ] = "",
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Train on a split that leaks, and mark everything made from it.")
    ] = False,
    preview_batch: Annotated[
        Path | None, typer.Option(help="Draw the first images as the network will see them to this PNG, and stop.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="Train in so many processes on this machine: one a GPU, or on the CPU.")
    ] = 1,
    shard: Annotated[
        bool,
        typer.Option("--shard", help="Split weights and optimizer among the processes (FSDP), for large networks."),
    ] = False,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "fp32",
    threads: Annotated[int, typer.Option(help="That read images. 0 is automatic.")] = WorkOptions.threads,
    cache: Annotated[Cache, typer.Option(help="Where decoded images are kept.")] = WorkOptions.cache,
    cache_gib: Annotated[float, typer.Option(help="Most that the cache takes.")] = WorkOptions.cache_gib,
    cache_folder: Annotated[
        Path | None, typer.Option(help="Of --cache disk. By default medtool.cache beside the manifest.")
    ] = None,
    micro_batch: Annotated[
        int, typer.Option(help="Most images at once on the device. 0 is the whole batch, halved where memory is short.")
    ] = WorkOptions.micro_batch,
    channels_last: Annotated[
        bool, typer.Option("--channels-last/--channels-first", help="Layout of images in memory.")
    ] = WorkOptions.channels_last,
    compile_network: Annotated[
        bool, typer.Option("--compile", envvar="MEDTOOL_TRAIN_COMPILE", help="Compile the network first.")
    ] = (WorkOptions.compile),
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Slower on a GPU, and the same on every run.")
    ] = WorkOptions.deterministic,
    track: Annotated[
        str, typer.Option(help="Tell programs of each epoch: tensorboard,mlflow,wandb, some of them or all.")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another run in --out.")] = False,
) -> None:
    """Train a network on the train part, choose its best epoch on val, calibrate it there, score it on test once.

    Run the same command again to go on after an interruption, with the same result.
    """
    given = {name: value for name, value in locals().items() if name not in ("manifest", "out", "overwrite")}
    options = TrainOptions(
        model=model,
        task=task,
        size_px=size,
        metadata=_listed(metadata),
        positive=positive,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        optimizer=optimizer,
        schedule=schedule,
        warmup=warmup,
        layer_decay=layer_decay,
        unfreeze=unfreeze,
        loss=loss,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        focal_alpha=focal_alpha,
        focal_gamma=focal_gamma,
        sampling=sampling,
        augment=augment,
        vary=vary,
        stain=stain,
        mixup=mixup,
        clip_norm=clip_norm,
        ema=ema,
        monitor=monitor,
        patience=patience,
        min_delta=min_delta,
        calibration=calibration,
        threshold=threshold,
        threshold_target=threshold_target,
        costs=_costs(costs),
        seed=seed,
    )
    if cache_folder is not None and cache is not Cache.DISK:
        raise UsageError(f"--cache-folder is for --cache disk, and --cache is {cache}")
    if init is not None and weights not in ("auto", "none"):
        raise UsageError("--init and --weights each give weights to start from; give one")

    from medtool.devices import resolve_device, resolve_precision
    from medtool.manifest import read_manifest
    from medtool.train.folds import plans_of
    from medtool.train.launch import check_size, place_of
    from medtool.train.launcher_settings import check_settings, check_sharding, is_fsdp_asked
    from medtool.train.team import device_of, joined
    from medtool.train.trackers import trackers_of

    trackers = trackers_of(track)
    table = read_manifest(manifest)
    plans = plans_of(table, folds=folds, seeds=_numbers(seeds, "--seeds"), seed=seed)
    chosen = resolve_device(device)
    place = place_of(os.environ)
    if place is not None:
        check_size(place, devices=devices, batch_size=batch_size)
        chosen = device_of(place, chosen)
    numbers = resolve_precision(precision, chosen)
    check_settings(os.environ, precision=numbers, device=chosen, is_compiled=compile_network)
    is_sharded = shard or (place is not None and is_fsdp_asked(os.environ))
    if is_sharded:
        n_processes = devices if place is None else place.size
        check_sharding(n_processes=n_processes, precision=numbers, is_compiled=compile_network)
    work = WorkOptions(
        device=chosen,
        precision=numbers,
        threads=threads or (place.n_threads if place is not None else 0),
        cache=cache,
        cache_gib=cache_gib if place is None else cache_gib / place.local_size,
        cache_folder=(cache_folder or manifest.parent / "medtool.cache") if cache is Cache.DISK else None,
        micro_batch=micro_batch,
        channels_last=channels_last,
        compile=compile_network,
        deterministic=deterministic,
    )
    if preview_batch is not None:
        _preview(table, plans[0], options, preview_batch)
        return
    if devices > 1 and place is None:
        flags = {**_config(given), "out": out, "overwrite": overwrite}
        start_team("train", manifest, flags, devices=devices, device=chosen)
        return
    start, parent = _start(options, weights, init)
    if options.leaves_rare_claimed and (place is None or place.rank == 0):
        console.warn(
            "with rare classes shown or weighed more, probabilities claim too much of them, and temperature leaves that"
            " as it is; --calibration platt sees to it"
        )
    console.say(f"device {work.device}, {work.precision}")
    folder = out or Path("runs") / model.replace("/", "-")
    summaries = []
    with joined(place, chosen, is_sharded=is_sharded) as team:
        for plan in plans:
            where = folder / plan.name if plan.name else folder
            if plan.name:
                console.say(f"{where}:")
            summary = _train_one(
                manifest,
                table,
                plan,
                options,
                work,
                start=start,
                parent=parent,
                where=where,
                config=_config(given),
                groups=_listed(group),
                allow_leak=allow_leak,
                trackers=trackers,
                overwrite=overwrite,
                team=team,
            )
            summaries.append(summary)
    if team.rank == 0:
        _conclude(summaries, plans, folder)
    if any(summary.problems for summary in summaries):
        raise typer.Exit(ExitCode.PARTIAL)


def _conclude(summaries: list[Summary], plans: Sequence[Plan], folder: Path) -> None:
    """Put several runs together, and show all."""
    together = None
    if len(plans) > 1:
        from medtool.train.folds import put_together

        together = put_together(folder, plans, summaries)
    _show(summaries, folder, together)


def _train_one(
    source: Path,
    table: Manifest,
    plan: Plan,
    options: TrainOptions,
    work: WorkOptions,
    *,
    start: Start,
    parent: Seen | None,
    where: Path,
    config: Mapping[str, Any],
    groups: tuple[str, ...],
    allow_leak: bool,
    trackers: tuple[TrackerName, ...],
    overwrite: bool,
    team: Team,
) -> Summary:
    """Let one run pass the gate, and train it."""
    import dataclasses

    from medtool.roles import roles_of
    from medtool.split.contents import gate_contents
    from medtool.split.gate import gate
    from medtool.split.marks import inherited, marks_of
    from medtool.split.options import AuditOptions
    from medtool.split.seen import seen_of, write_seen
    from medtool.split.table import AuditTable
    from medtool.train.loop import Watch
    from medtool.train.run import Job, train_run

    runs = [] if parent is None else [parent]
    clearance = gate(
        table,
        AuditOptions(groups),
        is_leak_allowed=allow_leak,
        fold=plan.fold,
        runs=runs,
        source=str(source),
    )
    leaks = clearance.leaks
    for leak in leaks if team.rank == 0 else ():
        console.warn(f"trained in spite of {leak}; every score of this run is marked")
    roles = roles_of(table, plan.fold)
    columns = AuditTable.of(table, groups).groups

    def on_contents(sha256s: Mapping[str, str], parts: Mapping[str, str]) -> Mapping[str, Any]:
        nonlocal leaks
        found = gate_contents(sha256s, parts, runs=runs, is_leak_allowed=allow_leak)
        for leak in found if team.rank == 0 else ():
            console.warn(f"trained in spite of {leak}; every score of this run is marked")
        leaks = inherited(leaks, found)
        return marks_of(leaks)

    def on_images(sha256s: Mapping[str, str]) -> None:
        seen = seen_of(
            table,
            roles,
            run=where.name,
            groups=columns,
            sha256s=sha256s,
            leaks=leaks,
            parents=runs,
        )
        write_seen(where, seen)

    job = Job(
        out=where,
        start=start,
        fold=plan.fold,
        unit="patient" if "patient" in columns or not columns else columns[0],
        config={**config, "seed": plan.seed, "seeds": None, "folds": None if plan.fold is None else str(plan.fold)},
        trackers=trackers,
        overwrite=overwrite,
    )
    summary = train_run(
        table,
        roles,
        dataclasses.replace(options, seed=plan.seed),
        work,
        job=job,
        watch=Watch(console.say, console.steps, lambda line: None),
        on_contents=on_contents,
        on_images=on_images,
        team=team,
    )
    if team.rank == 0:
        _say_problems(summary)
    return summary


def _start(options: TrainOptions, weights: str, init: Path | None) -> tuple[Start, Seen | None]:
    """Return the weights to start from, and what the run has seen that they are of."""
    from medtool.train.run import Start

    if init is not None:
        from medtool.runs.folder import checkpoint_of, folder_of
        from medtool.split.seen import read_seen

        checkpoint = checkpoint_of(init)
        console.say(f"starts from {checkpoint}")
        return Start(checkpoint=checkpoint), read_seen(folder_of(checkpoint))
    if weights == "none":
        return Start(), None
    if weights != "auto":
        path = Path(weights)
        if not path.is_file():
            raise UsageError(f"--weights {weights} is neither auto, none nor a file")
        console.say(f"starts from the published weights in {path}")
        return Start(pretrained=path), None
    from medtool.runs.network import published_weights

    found, command = published_weights(options.model)
    if found is not None:
        console.say(f"starts from the published weights in {found}")
    else:
        hint = f"; {command} fetches published ones" if command else ""
        console.say(f"starts from random weights, as no published ones of {options.model} are on this machine{hint}")
    return Start(pretrained=found), None


def _preview(table: Manifest, plan: Plan, options: TrainOptions, path: Path) -> None:
    from medtool.roles import roles_of
    from medtool.train.run import draw_preview

    if path.suffix.lower() != ".png":
        raise UsageError(f"--preview-batch {path}: the name must end in .png")
    n_images = draw_preview(table, roles_of(table, plan.fold), options, path)
    console.out(str(path))
    console.say(f"{n_images} images of the train part: as they are prepared, then as the first epochs vary them")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str, flag: str) -> tuple[int, ...]:
    parts = _listed(text)
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise UsageError(f"{flag} {text!r} must be different whole numbers, such as 1,2,3")
    return tuple(map(int, parts))


def _costs(text: str) -> Costs | None:
    if not text:
        return None
    try:
        miss, false_alarm = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--costs {text!r} must be two numbers, of a miss and of a false alarm: 10,1") from None
    return Costs(miss, false_alarm)


def _config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as --config takes them: by flag, in plain values; those that are empty are left out."""
    flags = {"compile_network": "compile"}
    left_out = ("preview_batch",)
    plain = {flags.get(name, name): value for name, value in given.items() if name not in left_out}
    return {
        name.replace("_", "-"): str(value) if isinstance(value, Path) or hasattr(value, "value") else value
        for name, value in plain.items()
        if value not in (None, "")
    }


def _say_problems(summary: Summary) -> None:
    by_reason: dict[str, list[str]] = {}
    for problem in summary.problems:
        by_reason.setdefault(problem.reason, []).append(problem.image_id)
    for reason, names in list(by_reason.items())[:_MAX_NAMED_FAILURES]:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        console.warn(f"{', '.join(names[:3])}{more}: {reason}")
    if len(by_reason) > _MAX_NAMED_FAILURES:
        console.warn(f"{len(summary.problems)} images in all could not be used")
    if summary.n_unlabelled:
        console.say(f"{summary.n_unlabelled} rows without a label were left out")


def _show(summaries: list[Summary], folder: Path, together: Path | None) -> None:
    if console.settings.json:
        console.show_json(
            {
                "format": "medtool-train",
                "version": 1,
                "out": str(folder),
                "together": None if together is None else str(together),
                "runs": [
                    {
                        "out": str(summary.out),
                        "checkpoint": str(summary.checkpoint),
                        "epoch": summary.card.epoch,
                        "scores": {part: summary.scores[part] for part in ("val", "test")},
                        "failed": [{"image_id": each.image_id, "reason": each.reason} for each in summary.problems],
                    }
                    for summary in summaries
                ],
            }
        )
        return
    for summary in summaries:
        console.out(str(summary.out))
        if summary.was_finished:
            console.say(f"{summary.out} was finished before")
        console.say(f"best: {summary.checkpoint.name}")
        for part in ("val", "test"):
            console.say(_scores_line(part, summary.scores[part]))
    if together is not None:
        pooled = json.loads(together.read_text(encoding="utf-8"))["pooled"]
        if pooled is not None:
            console.say(_scores_line("all folds pooled, out of fold:", pooled))
        console.say(f"{together} has all runs side by side")


def _scores_line(name: str, found: Mapping[str, Any]) -> str:
    if not found["n_images"]:
        return f"{name}: no image"
    parts = []
    for score, interval in found["intervals"].items():
        if interval["value"] is None:
            parts.append(f"{score} undefined")
            continue
        ends = "" if interval["low"] is None else f" ({interval['low']:.3f}–{interval['high']:.3f})"
        parts.append(f"{score} {interval['value']:.3f}{ends}")
    unknown = f", {found['n_unknown_patients']} of them unknown" if found["n_unknown_patients"] else ""
    return f"{name} ({found['n_images']} images, {found['n_patients']} patients{unknown}): {', '.join(parts)}"

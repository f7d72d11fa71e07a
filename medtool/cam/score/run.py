"""Files of heatmaps and a manifest to scores: the whole of ``medtool cam score`` but its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medtool.cam.score.cases import (
    EMPTY_MASK,
    NO_MASK,
    Case,
    Source,
    read_mask,
    read_picture,
    size_of,
)
from medtool.cam.score.kept import Kept
from medtool.cam.score.localisation import Located, located, measured_of, thresholds_with
from medtool.cam.score.metrics import Kind, Outcome
from medtool.cam.score.options import ScoreOptions
from medtool.errors import InputError, LeakError, UsageError, reason_of
from medtool.heatmaps.resize import resize_heatmap
from medtool.manifest import Manifest
from medtool.protocols import Steps

if TYPE_CHECKING:
    from medtool.cam.score.judge import Judge
    from medtool.cam.score.sanity import Sanity
    from medtool.runs.folder import Run

#: Nothing is wrong with such an image; it only cannot be scored so.
_NO_FAULT = frozenset({NO_MASK, EMPTY_MASK})


@dataclass(frozen=True)
class Job:
    """What is scored.

    Attributes
    ----------
    sources
        The files of heatmaps; the first is the one that others are compared with.
    cases
        All rows of the manifest.
    parts
        The parts of the split that are scored; empty for all.
    run
        Whose network the maps are of, for faithfulness; None for localisation alone.
    """

    sources: tuple[Source, ...]
    manifest: Manifest
    cases: Sequence[Case]
    parts: tuple[str, ...] = ()
    run: Run | None = None

    @property
    def scored(self) -> list[Case]:
        """The cases that are scored."""
        return [case for case in self.cases if not self.parts or case.role in self.parts]

    @property
    def choosing(self) -> list[Case]:
        """The cases of the val part, if none of it is scored: thresholds are chosen on them."""
        val = [case for case in self.cases if case.role == "val"]
        return [] if any(case.role == "val" for case in self.scored) else val


@dataclass(frozen=True)
class Watch:
    """Who is told what happens: ``say`` takes a line, ``steps`` a number and a name, and gives the progress."""

    say: Callable[[str], None]
    steps: Callable[[int, str], AbstractContextManager[Steps]]


@dataclass(frozen=True)
class Found:
    """What was found: of each file in the order of the job, the outcome and the sanity check, if there was one."""

    scored: Sequence[Case]
    outcomes: Sequence[Outcome]
    sanities: Sequence[Sanity | None]

    @property
    def failed(self) -> dict[str, str]:
        """The images that some file failed on, with the first reason."""
        found: dict[str, str] = {}
        for outcome in self.outcomes:
            for image_id, reason in outcome.failed.items():
                found.setdefault(image_id, reason)
        return found


def score_heatmaps(job: Job, options: ScoreOptions, *, watch: Watch, kept: Kept) -> Found:
    """Return the scores of each image.

    Parameters
    ----------
    kept
        What an earlier call has found, and where this one puts what it finds.

    Raises
    ------
    LeakError
        If a network was trained or chosen on an image that is to be scored, and the options do not let that pass.
    LineageError
        If maps are not of the run's network.
    UsageError
        If there is nothing to score: no masks and no run, or no image in the parts.
    InputError
        If no file has a map of any image.
    """
    scored = job.scored
    if not scored:
        raise UsageError(f"no image is in the part {' or '.join(job.parts)} of the manifest")
    refuse_seen(scored, options, has_parts=any(case.role for case in job.cases), parts=job.parts)
    _refuse_nothing(job, scored)
    outcomes = [Outcome() for _ in job.sources]
    sanities: list[Sanity | None] = [None] * len(job.sources)
    judge = None if job.run is None else _judge(job, job.run, options, watch)
    if any(case.mask for case in scored):
        _localise(job, scored, outcomes, options, watch)
    else:
        watch.say("the manifest names no masks: localisation is not scored")
    if judge is not None:
        for number, (source, outcome) in enumerate(zip(job.sources, outcomes, strict=True)):
            sanities[number] = _ask_network(
                source, scored, outcome, judge=judge, options=options, watch=watch, kept=kept
            )
    for outcome in outcomes:
        for reasons in outcome.reasons.values():
            for case, reason in zip(scored, reasons, strict=True):
                if reason and reason not in _NO_FAULT:
                    outcome.failed.setdefault(case.image_id, reason)
    return Found(scored, outcomes, sanities)


def _refuse_nothing(job: Job, scored: Sequence[Case]) -> None:
    """Refuse a job of which nothing could come."""
    if job.run is None and not any(case.mask for case in scored):
        raise UsageError(
            "the manifest names no masks and no run is given, so that there is nothing to score the heatmaps by",
            hint="--run RUN for faithfulness, or a manifest with a mask column",
        )
    for source in job.sources:
        if not any(case.image_id in source.file for case in scored):
            raise InputError(
                f"{source.file.path} has no map of any of the {len(scored)} images, such as {scored[0].image_id!r}",
                hint="make the heatmaps from this manifest",
            )


def _judge(job: Job, run: Run, options: ScoreOptions, watch: Watch) -> Judge:
    """Return the network, once it is known to be that of all files."""
    from medtool.cam.score.judge import Judge, check_weights
    from medtool.cam.score.sanity import check_method

    for source in job.sources:
        check_weights(source, run)
        if options.sanity:
            check_method(source)
    return Judge(run, options, say=watch.say)


def _ask_network(
    source: Source,
    scored: Sequence[Case],
    outcome: Outcome,
    *,
    judge: Judge,
    options: ScoreOptions,
    watch: Watch,
    kept: Kept,
) -> Sanity | None:
    """Add the faithfulness scores of one file to its outcome, and return its sanity check if one is asked for."""
    from medtool.cam.score.faithfulness import faithfulness
    from medtool.cam.score.sanity import sanity

    with watch.steps(len(scored), f"faithfulness of {source.file.path.name}") as progress:
        measured, reasons = faithfulness(source, scored, judge, options, kept=kept, progress=progress)
    outcome.measured += measured
    outcome.reasons[Kind.FAITHFULNESS] = reasons
    if not options.sanity:
        return None
    usable = [case for case, reason in zip(scored, reasons, strict=True) if not reason]
    if not usable:
        raise InputError(f"{source.file.path}: no image can be used for the sanity check")
    with watch.steps(options.sanity_stages, f"sanity of {source.file.path.name}") as progress:
        return sanity(source, usable, judge, options, progress=progress)


def refuse_seen(scored: Sequence[Case], options: ScoreOptions, *, has_parts: bool, parts: tuple[str, ...]) -> None:
    """Refuse images that a network was trained or chosen on; raises ``LeakError``."""
    seen = [case for case in scored if case.seen]
    if not seen or options.allow_seen:
        return
    shown = ", ".join(case.image_id for case in seen[:3]) + (", ..." if len(seen) > 3 else "")
    hint = "--allow-seen scores them too, and marks every score"
    if has_parts and parts != ("test",):
        hint = f"--split test, which takes only that part of the manifest; {hint}"
    raise LeakError(
        f"the network was trained or chosen on {len(seen)} of {len(scored)} images: {shown}",
        hint=hint,
    )


def _localise(
    job: Job, scored: Sequence[Case], outcomes: Sequence[Outcome], options: ScoreOptions, watch: Watch
) -> None:
    """Add the localisation scores of every file to its outcome; each image and mask is read once for all files."""
    known = _known_labels(job.run)
    choosing = [] if options.threshold is not None else [case for case in job.choosing if case.mask]
    thresholds = thresholds_with(options.threshold)

    def locate(case: Case, *, is_scored: bool) -> list[Located | str]:
        try:
            picture = read_picture(case)
            size = size_of(picture)
            labels = read_mask(case, job.manifest, size)
        except (InputError, OSError) as error:
            return [reason_of(error)] * len(job.sources)
        found: list[Located | str] = []
        for source in job.sources:
            try:
                source.check(case, picture, is_scored=is_scored)
                heatmap = resize_heatmap(np.maximum(source.map_of(case, known), 0), size)
                found.append(located(heatmap, labels, tolerance_px=options.tolerance_px, thresholds=thresholds))
            except InputError as error:
                found.append(reason_of(error))
        return found

    work = [(case, True) for case in scored] + [(case, False) for case in choosing]
    found: list[list[Located | str]] = []
    with (
        watch.steps(len(work), "localisation") as progress,
        ThreadPoolExecutor(options.n_threads, thread_name_prefix="medtool-score") as pool,
    ):
        for (case, _), each in zip(work, pool.map(lambda pair: locate(pair[0], is_scored=pair[1]), work), strict=True):
            found.append(each)
            progress.advance(case.image_id)
    for number, outcome in enumerate(outcomes):
        own = [each[number] for each in found]
        scores = [each if isinstance(each, Located) else None for each in own[: len(scored)]]
        chosen_on = [each for each in own[len(scored) :] if isinstance(each, Located)]
        outcome.measured += measured_of(scores, chosen_on, thresholds=thresholds, fixed=options.threshold)
        outcome.reasons[Kind.LOCALISATION] = ["" if isinstance(each, Located) else each for each in own[: len(scored)]]


def _known_labels(run: Run | None) -> Callable[[str], str]:
    """Return how a label of the manifest is called by the run; as it is written where there is none."""
    if run is None:
        return lambda label: label
    from medtool.runs.asked import Labels

    return Labels.of([run]).known

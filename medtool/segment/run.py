"""Many images to masks: what is left to do, doing it, and putting the result together."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from medtool import lineage, parallel
from medtool.errors import InputError, LineageError, OutputError, UsageError, reason_of
from medtool.inputs import ImageItem, Listing
from medtool.segment import job as one
from medtool.segment import results
from medtool.segment.job import Context, Job, Task
from medtool.segment.results import Row
from medtool.storage import (
    Parts,
    locked,
    make_folder,
    strangers,
    sweep_temporaries,
    write_whole,
)

if TYPE_CHECKING:
    from medtool.protocols import Steps

PACKAGES = ("numpy", "scipy", "scikit-image", "Pillow", "tifffile", "pydicom", "opencv-python-headless")
TORCH_PACKAGES = ("torch", "timm", "segment-anything")


@dataclass(frozen=True)
class RunOptions:
    """How the work is done; none of it changes a mask.

    Attributes
    ----------
    workers
        Processes; 0 is automatic. A segmenter with torch works in this process.
    cluster
        Address of a Dask scheduler, or None.
    overwrite
        Remove an earlier result in the output folder first.
    strict
        Stop at the first image that fails.
    contact_sheet
        Draw one picture of many.
    """

    workers: int = 0
    cluster: str | None = None
    overwrite: bool = False
    strict: bool = False
    contact_sheet: bool = False


@dataclass
class Summary:
    """What a call of :func:`segment_images` did; ``others`` counts the rows of images that were not given now."""

    out: Path
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[Row] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    others: int = 0
    sheet: Path | None = None
    sheet_shows: tuple[int, int] = (0, 0)

    @property
    def table(self) -> Path:
        """Where ``masks.csv`` lies."""
        return self.out / results.TABLE_NAME


def segment_images(
    listing: Listing,
    job: Job,
    options: RunOptions,
    *,
    made_with: dict[str, Any],
    steps: Callable[[int], contextlib.AbstractContextManager[Steps]],
) -> Summary:
    """Segment every image of a listing into ``job.out``, going on where an earlier call was stopped.

    Parameters
    ----------
    made_with
        See :func:`medtool.segment.job.options_of`; an earlier result made with anything else is refused.
    steps
        Called with the number of images; gives the progress to advance.

    Raises
    ------
    LineageError
        If the folder holds a result of other options or of images that changed since.
    InputError
        With ``strict``, at the first image that fails.
    OutputError
        If a result cannot be written; what is finished is kept.
    """
    if options.workers > 1 and job.choice.needs_torch:
        raise UsageError(
            f"{job.choice.name} works in one process on its device; --workers {options.workers} is not for it",
            hint="leave --workers out, or use --cluster with a worker for each device",
        )
    parallel.choose_workers(options.workers, items=1)  # refused, if at all, before anything is written
    if options.cluster is not None:
        parallel.connect(options.cluster).close()
    make_folder(job.out)
    with locked(job.out):
        before = _open_result(listing, job, made_with, overwrite=options.overwrite)
        with _swept(job.out):
            return _segment_locked(listing, job, options, made_with=made_with, steps=steps, before=before)


def check_result(job: Job, made_with: dict[str, Any], *, overwrite: bool) -> None:
    """Refuse, before costly work, what :func:`segment_images` would refuse for the options alone.

    Raises
    ------
    LineageError
        If the folder holds a result of other options.
    UsageError
        If it holds files that are no result of medtool.
    """
    if job.out.is_dir() and not overwrite:
        before = lineage.read_lineage(job.out)
        if before is None:
            _refuse_strangers(job)
        elif lineage.differences(before["made_with"], made_with) and _known_rows(job.out):
            lineage.refuse_other(job.out, before, {"command": "segment", "made_with": made_with})


@contextlib.contextmanager
def _swept(out: Path) -> Iterator[None]:
    """Leave no half-written file behind: neither a killed call's, nor that of a worker that dies on the way."""
    own = (results.MASKS_FOLDER, results.OVERLAYS_FOLDER)
    sweep_temporaries(out, below=own)
    try:
        yield
    finally:
        with contextlib.suppress(OutputError):
            sweep_temporaries(out, below=own)


def _segment_locked(
    listing: Listing,
    job: Job,
    options: RunOptions,
    *,
    made_with: dict[str, Any],
    steps: Callable[[int], contextlib.AbstractContextManager[Steps]],
    before: dict[str, Any] | None,
) -> Summary:
    rows = _known_rows(job.out)
    _refuse_other_images(listing, rows, job.out)
    tasks, skipped = _plan(listing.items, rows, job, overwrite=options.overwrite)
    if before is None or (tasks and before["status"] == "finished"):
        packages = (*PACKAGES, *TORCH_PACKAGES) if job.choice.needs_torch else PACKAGES
        lineage.write_lineage(job.out, lineage.new_lineage("segment", made_with, packages=packages))
    summary = Summary(job.out, skipped=skipped)
    for problem in listing.problems:
        row = Row(image_id=problem.image_id, image=problem.image_id, status="failed", reason=problem.reason)
        _take(row, rows, summary, job, strict=options.strict)
    with steps(len(tasks)) as progress:
        for row in _results(tasks, job, options):
            _take(row, rows, summary, job, strict=options.strict)
            progress.advance(row.image_id)
    # A row that failed in an earlier call is not of this one: its image is gone or was mended.
    failed = {row.image_id for row in summary.failed}
    rows = {name: row for name, row in rows.items() if row.is_done or name in failed}
    _put_together(job, rows)
    summary.masks = [job.out / rows[name].mask for name in sorted((*summary.done, *summary.skipped))]
    given = {item.image_id for item in listing.items} | failed
    summary.others = sum(name not in given for name in rows)
    if options.contact_sheet:
        _draw_sheet(listing, rows, job, summary)
    return summary


def _open_result(listing: Listing, job: Job, made_with: dict[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """Return the lineage of an earlier result that may be gone on with, or None for a fresh start."""
    before = lineage.read_lineage(job.out)
    if before is None:
        _refuse_strangers(job)
        return None
    now = {"command": "segment", "made_with": made_with}
    if before.get("command") == "segment":
        table = job.out / results.TABLE_NAME
        if before["status"] == "finished" and not table.exists() and not overwrite:
            raise LineageError(
                f"{table} is gone, and nothing else says whether the masks there were changed since",
                hint="another folder with --out, or --overwrite to replace what is there",
            )
        same = not lineage.differences(before["made_with"], made_with)
        rows = _known_rows(job.out)
        if not same and not rows:
            return None  # nothing came of that call: there is nothing to mix with
        goes_on = same and before["status"] == "unfinished" and not _other_images(listing, rows)
        if overwrite and not goes_on:
            _remove_result(job.out)
            return None
    lineage.refuse_other(job.out, before, now)
    return before  # also with --overwrite, when it is that very call that was stopped


def _refuse_strangers(job: Job) -> None:
    others = [name for name in strangers(job.out) if job.out / name != job.heatmaps]
    if others:
        raise UsageError(
            f"{job.out} holds other files ({', '.join(others[:3])}) and no result of medtool",
            hint="give a new or empty folder with --out",
        )


def _known_rows(out: Path) -> dict[str, Row]:
    """Return the rows of the table, and of what was finished since."""
    return results.read_table(out) | {key: results.row_from(part) for key, part in Parts(out).read().items()}


def _remove_result(out: Path) -> None:
    """Remove what an earlier call wrote, as its table and parts name it, and nothing else."""
    for row in _known_rows(out).values():
        if row.is_done:
            _remove(out, out / row.mask)
            _remove(out, out / results.overlay_path(row))
    for name in (results.SHEET_NAME, results.TABLE_NAME):
        (out / name).unlink(missing_ok=True)
    Parts(out).remove()
    (out / lineage.LINEAGE_NAME).unlink(missing_ok=True)


def _remove(out: Path, path: Path) -> None:
    """Remove a file, and the folders that it leaves empty."""
    path.unlink(missing_ok=True)
    for folder in path.relative_to(out).parents:
        if folder != Path():
            with contextlib.suppress(OSError):
                (out / folder).rmdir()


def _plan(
    items: Sequence[ImageItem], rows: dict[str, Row], job: Job, *, overwrite: bool
) -> tuple[list[Task], list[str]]:
    """Return what is left to do, and the ids of what is finished and still true."""
    _refuse_one_mask_for_two(items, rows)
    finished = [(item, rows[item.image_id]) for item in items if _is_finished(rows.get(item.image_id))]
    with ThreadPoolExecutor(4) as pool:
        hashes = list(
            pool.map(lambda pair: (results.hash_now(pair[0].path), results.hash_now(job.out / pair[1].mask)), finished)
        )
    images = {row.image_id: image for (_, row), (image, _) in zip(finished, hashes, strict=True)}
    masks = {row.image_id: mask for (_, row), (_, mask) in zip(finished, hashes, strict=True)}
    if not overwrite:
        results.refuse_changed((row for _, row in finished), images=images, masks=masks)
    tasks, skipped = [], []
    for item in items:
        row = rows.get(item.image_id)
        name = item.image_id
        if row is None or (images.get(name), masks.get(name)) != (row.image_sha256, row.mask_sha256):
            tasks.append(Task(item))
        elif job.overlays and not (job.out / results.overlay_path(row)).exists():
            tasks.append(Task(item, done=row))
        else:
            skipped.append(item.image_id)
    return tasks, skipped


def _other_images(listing: Listing, rows: dict[str, Row]) -> list[str]:
    """Return the finished images of an earlier call, in order, if none of them is given now; else nothing."""
    done = sorted(name for name, row in rows.items() if row.is_done)
    given = {item.image_id for item in listing.items} | {problem.image_id for problem in listing.problems}
    return done if given.isdisjoint(done) else []


def _refuse_other_images(listing: Listing, rows: dict[str, Row], out: Path) -> None:
    """Refuse to mix two sets of images in one result: more images are welcome, quite other ones are not."""
    if done := _other_images(listing, rows):
        raise LineageError(
            f"{out} holds the masks of {len(done)} other images, such as {done[0]}, and of none that are given now",
            hint="another folder with --out, or --overwrite to replace what is there",
        )


def _refuse_one_mask_for_two(items: Sequence[ImageItem], rows: dict[str, Row]) -> None:
    """Refuse images whose masks would replace those of other images of an earlier call."""
    owners = {row.mask: row.image_id for row in rows.values() if row.is_done}
    for item in items:
        path = results.mask_path(item).as_posix()
        if owners.get(path, item.image_id) != item.image_id:
            raise LineageError(
                f"{path} is the mask of {owners[path]!r} already; that of {item.image_id!r} would replace it",
                hint="give another folder with --out",
            )


def _is_finished(row: Row | None) -> TypeGuard[Row]:
    return row is not None and row.is_done


def _take(row: Row, rows: dict[str, Row], summary: Summary, job: Job, *, strict: bool) -> None:
    before = rows.get(row.image_id)
    if not row.is_done:
        summary.failed.append(row)
        # An image that is gone or can no longer be read does not take its finished mask with it.
        if not (_is_finished(before) and results.hash_now(job.out / before.mask) == before.mask_sha256):
            rows[row.image_id] = row
        if strict:
            raise InputError(f"{row.image_id}: {row.reason}", hint="leave out --strict to go on with the others")
        return
    rows[row.image_id] = row
    summary.done.append(row.image_id)
    if row.area_px == "0":
        summary.empty.append(row.image_id)


def _results(tasks: Sequence[Task], job: Job, options: RunOptions) -> Iterator[Row]:
    if job.choice.needs_torch and options.cluster is None:
        yield from _overlapped(tasks, Context(job))
        return
    if options.cluster is not None:
        # The workers have current folders of their own.
        job = replace(job, out=job.out.absolute(), heatmaps=job.heatmaps and job.heatmaps.absolute())
        tasks = [replace(task, item=replace(task.item, path=task.item.path.absolute())) for task in tasks]
    # Starting a second process takes about as long as 30 images; benchmarks/embedded_speed.py shows it.
    workers = parallel.choose_workers(options.workers, items=len(tasks), least_items=100)
    setup = functools.partial(Context, job)
    with contextlib.closing(
        parallel.map_unordered(one.work, tasks, setup=setup, workers=workers, cluster=options.cluster)
    ) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome.error, parallel.WorkerDiedError):
                yield Row.failed(tasks[outcome.index].item, reason=reason_of(outcome.error))
            else:
                row = outcome.get()
                if options.cluster is not None and row.is_done and not (job.out / row.mask).exists():
                    raise InputError(
                        f"a worker of the cluster wrote {row.mask}, and it is not in {job.out} here",
                        hint="give an --out that lies on a file system that this machine and all workers share",
                    )
                yield row


def _overlapped(tasks: Sequence[Task], context: Context) -> Iterator[Row]:
    """Work in this process; while the network encodes one image, the next is read and the last is written."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            ahead: Future[Any] | None = None
            behind: Future[Row] | None = None
            for index, task in enumerate(tasks):
                prepared = (ahead or reader.submit(one.prepare, context, task)).result()
                ahead = reader.submit(one.prepare, context, tasks[index + 1]) if index + 1 < len(tasks) else None
                answered = one.answer(context, prepared)
                if behind is not None:
                    yield behind.result()
                behind = writer.submit(one.finish, context, answered)
            if behind is not None:
                yield behind.result()
        finally:
            reader.shutdown(wait=False, cancel_futures=True)
            writer.shutdown(wait=False, cancel_futures=True)


def _put_together(job: Job, rows: dict[str, Row]) -> None:
    """Write the table and the lineage, then forget the parts: killed in between, the next call does it again."""
    table_sha256 = results.write_table(job.out, rows.values())
    done = {row.image_id: row for row in rows.values() if row.is_done}
    started = lineage.read_lineage(job.out)
    assert started is not None
    document = lineage.finished(
        started,
        images={name: row.image_sha256 for name, row in done.items()},
        outputs={
            results.TABLE_NAME: table_sha256,
            "masks": lineage.digest_of(f"{row.mask}\0{row.mask_sha256}" for _, row in sorted(done.items())),
            "n_done": len(done),
            "n_failed": len(rows) - len(done),
        },
    )
    if document != started:
        lineage.write_lineage(job.out, document)
    Parts(job.out).remove()


def _draw_sheet(listing: Listing, rows: dict[str, Row], job: Job, summary: Summary) -> None:
    """Draw an evenly spread choice of the call's images on one picture."""
    from medtool.images import read_image
    from medtool.segment import draw

    picked = draw.pick_evenly(len(listing.items))
    tiles = []
    for index in picked:
        item = listing.items[index]
        row = rows[item.image_id]
        if not row.is_done:
            tiles.append(draw.Tile(None, item.image_id, row.reason))
            continue
        try:
            image = read_image(item.path, job.read)
            mask = results.read_mask(job.out, row)
        except InputError as error:
            tiles.append(draw.Tile(None, item.image_id, error.message))
            continue
        points, labels = row.prompt()
        overlay = draw.draw_overlay(image.rgb, mask, points, labels, long_side_px=draw.TILE_PX)
        tiles.append(draw.Tile(overlay, item.image_id))
    sheet = job.out / results.SHEET_NAME
    write_whole(sheet, draw.to_jpeg(draw.lay_out(tiles)))
    summary.sheet, summary.sheet_shows = sheet, (len(picked), len(listing.items))

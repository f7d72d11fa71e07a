"""The work on one image: read it, find its heatmap, choose points, segment, clean, write.

Nothing here depends on the other images or on their order, so any number of processes may share the work.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool import lineage
from medtool.errors import InputError, MedtoolError, OutputError, reason_of
from medtool.images import ReadOptions, read_image
from medtool.images.display import VERSION as DISPLAY_VERSION
from medtool.inputs import ImageItem
from medtool.protocols import Candidates, Prompt
from medtool.segment import draw
from medtool.segment.choose import Choice
from medtool.segment.clean import VERSION as CLEANING_VERSION
from medtool.segment.clean import clean_mask
from medtool.segment.options import CleanOptions, PromptOptions
from medtool.segment.prompts import VERSION as POINTS_VERSION
from medtool.segment.prompts import choose_points
from medtool.segment.results import Row, mask_path, overlay_path
from medtool.storage import Parts, make_folder, write_whole

if TYPE_CHECKING:
    from medtool.heatmaps import HeatmapFile
    from medtool.images import Image
    from medtool.protocols import BoolMask, Heatmap


HEATMAPS_NAME = "cams.h5"  # beside the masks, where they were made on the way

# What is wrong with one file's name, and with no other's: too long, or a file where a folder is needed.
_FAULTS_OF_A_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


@dataclass(frozen=True)
class Job:
    """Everything a worker must know; picklable."""

    out: Path
    choice: Choice
    prompt: PromptOptions
    clean: CleanOptions
    read: ReadOptions
    heatmaps: Path | None
    overlays: bool
    target: str = ""  # the class whose heatmap is taken, where the file has one for each of several


@dataclass(frozen=True)
class Task:
    """One image to work on; ``done`` is its row when only its overlay is missing."""

    item: ImageItem
    done: Row | None = None


class Context:
    """What a worker builds once: the segmenter, and the open heatmap file."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.parts = Parts(job.out)
        self._segmenter: Any = None
        self.heatmaps: HeatmapFile | None = None
        if job.heatmaps is not None:
            from medtool.heatmaps import open_heatmaps

            self.heatmaps = open_heatmaps(job.heatmaps)
        if not job.choice.needs_torch:
            # The same sums whatever the number of processors: masks must not depend on who made them.
            from threadpoolctl import threadpool_limits

            threadpool_limits(1)

    @property
    def segmenter(self) -> Any:
        """The segmenter, built on first use: redrawing overlays needs none."""
        if self._segmenter is None:
            self._segmenter = self.job.choice.build()
        return self._segmenter


@dataclass(frozen=True)
class Prepared:
    """An image with its prompt, ready for the segmenter."""

    task: Task
    image: Image
    prompt: Prompt


@dataclass(frozen=True)
class Answered:
    """A cleaned mask with the segmenter's own score."""

    prepared: Prepared
    mask: BoolMask
    score: float


def work(context: Context, task: Task) -> Row:
    """Do all the work on one image and return its row; whatever is wrong with the image is in the row."""
    return finish(context, answer(context, prepare(context, task)))


def prepare(context: Context, task: Task) -> Prepared | Row:
    """Read an image and choose its points; or draw what only has to be drawn."""
    try:
        image = read_image(task.item.path, context.job.read)
        if task.done is not None:
            _write_overlay(context, task.done, image)
            return task.done
        heatmap = _heatmap_of(context, task.item, image)
        points, labels = choose_points(heatmap, context.job.prompt, seed_text=image.sha256)
        return Prepared(task, image, Prompt(points=points, point_labels=labels, heatmap=heatmap))
    except OutputError:
        raise
    except Exception as error:
        return _failed(context, task, error)


def answer(context: Context, prepared: Prepared | Row) -> Answered | Row:
    """Let the segmenter answer, and keep the candidate that it believes in most."""
    if isinstance(prepared, Row):
        return prepared
    segmenter = context.segmenter  # weights that cannot be loaded end the whole job, not one image
    try:
        candidates = segmenter.segment(segmenter.embed(prepared.image.rgb), prepared.prompt)
        best = best_candidate(candidates, size=prepared.image.size)
        positive = prepared.prompt.points[prepared.prompt.point_labels == 1]
        mask = clean_mask(candidates.masks[best], positive, context.job.clean)
        return Answered(prepared, mask, float(candidates.scores[best]))
    except OutputError:
        raise
    except (Exception, SystemExit) as error:  # whatever a plugin does is about this image
        return _failed(context, prepared.task, error)


def best_candidate(candidates: Candidates, *, size: tuple[int, int]) -> int:
    """Return the index of the candidate with the best predicted score; the first of equals.

    Raises
    ------
    InputError
        If the segmenter broke its contract.
    """
    masks, scores = np.asarray(candidates.masks), np.asarray(candidates.scores)
    if masks.ndim != 3 or masks.shape[1:] != size or masks.dtype != bool or len(masks) == 0:
        raise InputError(f"the segmenter gave masks {masks.dtype} {masks.shape}; bool (k, {size[0]}, {size[1]}) wanted")
    if scores.shape != (len(masks),) or not np.isfinite(scores).all():
        raise InputError(
            f"the segmenter gave scores {scores.tolist()} for {len(masks)} masks; one finite number each wanted"
        )
    return int(scores.argmax())


def finish(context: Context, answered: Answered | Row) -> Row:
    """Write an image's mask, overlay and part, in this order: a part says that the others are there."""
    if isinstance(answered, Row):
        return answered
    prepared = answered.prepared
    item, image, prompt = prepared.task.item, prepared.image, prepared.prompt
    png = draw.to_label_png(answered.mask)
    relative = mask_path(item)
    target = context.job.out / relative
    try:
        make_folder(target.parent)
        write_whole(target, png)
    except OutputError as error:
        if getattr(error.__cause__, "errno", None) not in _FAULTS_OF_A_NAME:
            raise
        return _failed(context, prepared.task, error)
    height, width = image.size
    row = Row.done(
        item,
        mask=relative,
        png=png,
        width=width,
        height=height,
        area_px=int(answered.mask.sum()),
        score=answered.score,
        segmenter=context.job.choice.name,
        points=json.dumps([[round(float(x), 3), round(float(y), 3)] for x, y in prompt.points]),
        point_labels=json.dumps(prompt.point_labels.tolist()),
        window="" if image.window is None else f"{image.window[0]:.15g} {image.window[1]:.15g}",
        notes="; ".join(image.notes),
        image_sha256=image.sha256,
    )
    if context.job.overlays:
        _write_overlay(context, row, image, answered.mask)
    context.parts.write(row.image_id, row.to_json())
    return row


def _heatmap_of(context: Context, item: ImageItem, image: Image) -> Heatmap:
    if context.heatmaps is None:
        from medtool.segment.saliency import saliency_map

        heatmap = saliency_map(image.rgb)
        if not heatmap.any():
            raise InputError("nothing stands out: the image is constant")
        return heatmap
    recorded = context.heatmaps.sha256_of(item.image_id)
    if recorded and recorded != image.sha256:  # programs that do not know the hash leave it empty
        raise InputError("the heatmap was made from another image file of this id")
    return context.heatmaps.get(item.image_id, size=image.size, target=context.job.target)


def _write_overlay(context: Context, row: Row, image: Image, mask: BoolMask | None = None) -> None:
    from medtool.segment.results import read_mask

    shown = read_mask(context.job.out, row) if mask is None else mask
    points, labels = row.prompt()
    overlay = draw.draw_overlay(image.rgb, shown, points, labels, long_side_px=draw.MAX_OVERLAY_PX)
    target = context.job.out / overlay_path(row)
    make_folder(target.parent)
    write_whole(target, draw.to_jpeg(overlay))


def _failed(context: Context, task: Task, error: BaseException) -> Row:
    reason = reason_of(error)
    if isinstance(error, MedtoolError) and error.hint:
        reason = f"{reason}; try: {error.hint}"
    return Row.failed(task.item, reason=reason)


def heatmap_source(heatmaps: Path | None, image_ids: Sequence[str], *, target: str = "") -> dict[str, Any]:
    """Return where the heatmaps come from, for the lineage and for the user.

    A file that medtool made goes by how it was made, not by its bytes: each of its maps is tied to an image's content,
    and more images in it change nothing for those that were there.

    Parameters
    ----------
    target
        The class whose map is taken, where the file has one for each of several.

    Raises
    ------
    InputError
        If the file cannot be used, or holds none of the images, or no maps of that class.
    """
    if heatmaps is None:
        from medtool.segment import saliency

        return {"source": "saliency", "method": saliency.METHOD, "version": saliency.VERSION}
    from medtool.heatmaps import open_heatmaps

    with open_heatmaps(heatmaps) as file:
        if image_ids and not any(image_id in file for image_id in image_ids):
            known = f"{file.ids[0]!r}" if file.ids else "nothing"
            raise InputError(
                f"none of the {len(image_ids)} image ids is in {heatmaps}: it knows {known}, the images are called"
                f" {image_ids[0]!r}",
                hint="write the file with the ids that medtool uses (docs/how-to/heatmaps-from-elsewhere.md)",
            )
        file.check_target(target)
        chosen = {"target": target} if target else {}
        if file.lineage is not None:
            return source_of(file.lineage) | chosen
        return {"source": "file", "sha256": file.content_hash} | chosen


def source_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return where heatmaps come from whose lineage is given, with the marks that masks inherit from them."""
    made_with = document["made_with"]
    marks = {name: made_with[name] for name in ("leaks", "oracle") if made_with.get(name)}
    return {"source": "cam", "made_with": lineage.made_with_digest(document), **marks}


def options_of(job: Job, *, heatmap: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that decides what the masks look like, JSON-ready, for the lineage.

    The limits on pixels and bytes are not among it: raising one makes more images readable and changes no mask.
    """
    from dataclasses import asdict

    marks = {name: heatmap[name] for name in ("leaks", "oracle") if name in heatmap}
    read = {name: value for name, value in asdict(job.read).items() if not name.startswith("max_")}
    return {
        "methods": {"reading": DISPLAY_VERSION, "points": POINTS_VERSION, "cleaning": CLEANING_VERSION},
        "segmenter": {
            "name": job.choice.name,
            "version": job.choice.version,
            "weights_sha256": job.choice.weights_sha256,
            "device": job.choice.device.split(":")[0],
            "precision": job.choice.precision,
        },
        "heatmap": {name: value for name, value in heatmap.items() if name not in marks},
        "prompt": asdict(job.prompt),
        "clean": asdict(job.clean),
        "read": read,
        **marks,
    }

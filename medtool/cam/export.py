"""Heatmaps of a cache as files that other programs read, and as pictures over their images."""

from __future__ import annotations

import csv
import enum
import errno
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from PIL import Image as PillowImage

from medtool.errors import InputError, MedtoolError, OutputError, reason_of
from medtool.heatmaps.format import fault_of_map
from medtool.heatmaps.reading import HeatmapFile
from medtool.heatmaps.resize import resize_heatmap
from medtool.images.reader import read_image
from medtool.inert import inert
from medtool.protocols import Steps
from medtool.storage import make_folder, write_whole

if TYPE_CHECKING:
    from medtool.protocols import Heatmap

INDEX_NAME = "heatmaps.csv"
_HEADER = ("image_id", "target", "status", "reason", "file", "height", "width", "peak", "score", "image_sha256")
#: A name that is too long, that the file system does not take, or that wants a folder where there is a file.
_OF_ONE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_MAX_DEPTH = 64
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))})


class ExportFormat(enum.StrEnum):
    """What a heatmap becomes.

    ``npy``: float32 as NumPy stores it. ``tiff``: float32. Both raw, at the layer's resolution, or cut at 0 and at the
    image's size. ``png``: 16 bits, 65535 at the map's peak, which the index names. ``overlay``: a JPEG of the image
    under the map, with a bar of colours.
    """

    PNG = "png"
    NPY = "npy"
    TIFF = "tiff"
    OVERLAY = "overlay"


SUFFIXES = {ExportFormat.PNG: ".png", ExportFormat.NPY: ".npy", ExportFormat.TIFF: ".tif", ExportFormat.OVERLAY: ".jpg"}


@dataclass
class Exported:
    """What an export came to; ``failed`` has ids and reasons."""

    index: Path
    n_written: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Row:
    image_id: str
    target: str
    status: str = "failed"
    reason: str = ""
    file: str = ""
    height: str = ""
    width: str = ""
    peak: str = ""
    score: str = ""
    image_sha256: str = ""


def export_heatmaps(
    file: HeatmapFile,
    out: Path,
    kind: ExportFormat,
    *,
    images: Mapping[str, Path],
    problems: Mapping[str, str],
    targets: tuple[str, ...],
    steps: Callable[[int], AbstractContextManager[Steps]],
) -> Exported:
    """Write each heatmap to a file below ``out``, named after its image, and an index of them.

    Parameters
    ----------
    images
        Image id to file. Where there are any, these images are written, at their size; else all of the cache, at the
        layer's resolution.
    problems
        Image id to reason, of images that were asked for and cannot be used.
    targets
        Which of the classes' maps; empty for all.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    ids = [*images, *problems] if images or problems else list(file.ids)
    chosen = targets or file.classes or ("",)
    exported = Exported(out / INDEX_NAME)
    make_folder(out)
    rows: list[_Row] = []
    names: dict[str, str] = {}
    with steps(len(ids)) as progress:
        for image_id in ids:
            for row in _written(
                file, out, kind, image_id, path=images.get(image_id), problems=problems, targets=chosen, names=names
            ):
                rows.append(row)
                if row.reason:
                    exported.failed.append(
                        (f"{image_id} ({row.target})" if row.target and file.classes else image_id, row.reason)
                    )
                else:
                    exported.n_written += 1
            progress.advance(image_id)
    write_whole(exported.index, _csv(rows))
    return exported


def _written(
    file: HeatmapFile,
    out: Path,
    kind: ExportFormat,
    image_id: str,
    *,
    path: Path | None,
    problems: Mapping[str, str],
    targets: Iterable[str],
    names: dict[str, str],
) -> Iterator[_Row]:
    """Write one image's maps, and yield a row for each; whatever is wrong with the image is in the row."""
    for target in targets:
        spoken = target or (file.target_of(image_id) if image_id in file else "")
        try:
            if image_id in problems:
                raise InputError(problems[image_id])
            raw = file.raw(image_id, target)
            fault = fault_of_map(raw, file.flag_of(image_id, target))
            if fault and kind in (ExportFormat.PNG, ExportFormat.OVERLAY):
                raise InputError(f"the heatmap {fault}, and there is nothing to draw")
            data, size, peak = _encoded(file, kind, image_id, raw, path=path, target=spoken)
            name = _name_of(image_id, f".{target}" if target else "", SUFFIXES[kind])
            if names.setdefault(name.lower(), image_id + target) != image_id + target:
                raise InputError(f"its file would be {name}, which another image's is")
            make_folder((out / name).parent)
            write_whole(out / name, data)
        except OutputError as error:
            if getattr(error.__cause__, "errno", None) not in _OF_ONE_NAME:
                raise
            yield _Row(image_id, spoken, reason=reason_of(error))
            continue
        except (MedtoolError, OSError) as error:
            yield _Row(image_id, spoken, reason=reason_of(error))
            continue
        yield _Row(
            image_id,
            spoken,
            "done",
            "",
            name,
            str(size[0]),
            str(size[1]),
            f"{peak:.9g}",
            f"{file.score_of(image_id, target):.9g}",
            file.sha256_of(image_id),
        )


def _encoded(
    file: HeatmapFile, kind: ExportFormat, image_id: str, raw: Heatmap, *, path: Path | None, target: str
) -> tuple[bytes, tuple[int, int], float]:
    """Return the bytes of a file, and the size and the peak of the map in it."""
    shown: Heatmap = raw
    rgb = None
    if path is not None:
        image = read_image(path)
        recorded = file.sha256_of(image_id)
        if recorded and recorded != image.sha256:
            raise InputError("the heatmap was made from another image file of this id")
        rgb = image.rgb
        shown = resize_heatmap(np.maximum(raw, 0), image.size)
    peak = float(max(shown.max(), 0))
    stream = io.BytesIO()
    if kind is ExportFormat.NPY:
        np.save(stream, np.ascontiguousarray(shown, np.float32))
    elif kind is ExportFormat.TIFF:
        tifffile.imwrite(stream, np.ascontiguousarray(shown, np.float32), compression="zlib")
    elif kind is ExportFormat.PNG:
        levels = np.rint(np.maximum(shown, 0) * (65535 / peak)).astype(np.uint16)
        PillowImage.fromarray(levels).save(stream, "PNG")
    else:
        from medtool.cam.draw import overlay, to_jpeg

        assert rgb is not None
        score = file.score_of(image_id, target if file.classes else "")
        said = "" if np.isnan(score) else f" {score:.3f}"
        stream.write(to_jpeg(overlay(rgb, shown, caption=inert(f"{target}{said}  {file.attributes.method}".strip()))))
    return stream.getvalue(), (int(shown.shape[0]), int(shown.shape[1])), peak


def _name_of(image_id: str, target: str, suffix: str) -> str:
    """Return the file's path below the folder, with ``/``; an id that would lead out of it is an error of its image."""
    path = PurePosixPath(image_id)
    is_plain = not path.is_absolute() and all(part not in ("", ".", "..") for part in image_id.split("/"))
    if not is_plain or any(character in image_id for character in "\\:\0"):
        raise InputError(f"an image id like {_cut(image_id)} cannot be the name of a file below a folder")
    is_reserved = any(part.split(".")[0].lower() in _RESERVED or part.endswith((".", " ")) for part in path.parts)
    if is_reserved or len(path.parts) > _MAX_DEPTH:
        raise InputError(f"an image id like {_cut(image_id)} cannot be the name of a file on every system")
    plain = "".join(character if character.isalnum() or character in "-_ ." else "_" for character in target)
    return f"{image_id}{plain}{suffix}"


def _cut(image_id: str) -> str:
    return repr(image_id) if len(image_id) <= 80 else f"{image_id[:80]!r}..."


def _csv(rows: Iterable[_Row]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows([getattr(row, name) for name in _HEADER] for row in rows)
    return stream.getvalue().encode("utf-8", "surrogateescape")

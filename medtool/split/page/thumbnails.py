"""Small pictures as text, for a page that is one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from medtool.errors import reason_of
from medtool.parallel import choose_workers, map_unordered
from medtool.protocols import Steps

LONG_SIDE_PX = 256
_QUALITY = 82


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture, or why there is none.

    Attributes
    ----------
    jpeg
        Base64; empty where it cannot be shown.
    width, height
        Of the thumbnail in pixels; the long side is at most :data:`LONG_SIDE_PX`.
    full_width, full_height
        Of the upright image in pixels.
    problem
        Why it cannot be shown; empty where it can.
    """

    jpeg: str = ""
    width: int = 0
    height: int = 0
    full_width: int = 0
    full_height: int = 0
    problem: str = ""


def thumbnails_of(
    paths: Sequence[Path],
    *,
    workers: int = 1,
    steps: Callable[[int, str], AbstractContextManager[Steps]] | None = None,
) -> dict[Path, Thumbnail]:
    """Return the thumbnail of each file; one that cannot be read has its reason.

    Parameters
    ----------
    workers
        Processes; 0 is automatic, 1 is this one.
    steps
        Shows progress; takes the number of images and a label.
    """
    distinct = list(dict.fromkeys(paths))
    found: dict[Path, Thumbnail] = {}
    if not distinct:
        return found
    with steps(len(distinct), "drawing") if steps else nullcontext() as bar:
        n_workers = choose_workers(workers, items=len(distinct))
        for outcome in map_unordered(_thumbnail, distinct, setup=_nothing, workers=n_workers):
            problem = "" if outcome.error is None else reason_of(outcome.error)
            found[distinct[outcome.index]] = Thumbnail(problem=problem) if problem else outcome.get()
            if bar is not None:
                bar.advance()
    return found


def _nothing() -> None:
    """Set up nothing: every file stands for itself."""


def _thumbnail(_: None, path: Path) -> Thumbnail:
    """Return the thumbnail of one file.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    import PIL.Image

    from medtool.images import read_image

    rgb = read_image(path).rgb
    height, width = rgb.shape[:2]
    small = PIL.Image.fromarray(rgb)
    small.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX), PIL.Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return Thumbnail(base64.b64encode(buffer.getvalue()).decode(), small.width, small.height, width, height)

"""The rows of ``masks.csv``: written, read back, and checked against what lies on the disk."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from medtool.errors import InputError, LineageError
from medtool.inputs import ImageItem
from medtool.storage import sha256_of, write_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from medtool.protocols import BoolMask, Points

TABLE_NAME = "masks.csv"
MASKS_FOLDER = "masks"
OVERLAYS_FOLDER = "overlays"
SHEET_NAME = "contact-sheet.jpg"


@dataclass(frozen=True)
class Row:
    """One image's line in ``masks.csv``; docs/reference/formats.md describes each column. All values are text."""

    image_id: str
    image: str
    status: str
    reason: str = ""
    mask: str = ""
    width: str = ""
    height: str = ""
    area_px: str = ""
    score: str = ""
    segmenter: str = ""
    points: str = ""
    point_labels: str = ""
    window: str = ""
    notes: str = ""
    image_sha256: str = ""
    mask_sha256: str = ""

    @classmethod
    def done(cls, item: ImageItem, *, mask: PurePosixPath, png: bytes, score: float, **values: object) -> Self:
        """Return the row of a finished image."""
        return cls(
            image_id=item.image_id,
            image=item.relative.as_posix(),
            status="done",
            mask=mask.as_posix(),
            mask_sha256=hashlib.sha256(png).hexdigest(),
            score=f"{score:.6f}",
            **{name: str(value) for name, value in values.items()},
        )

    @classmethod
    def failed(cls, item: ImageItem, *, reason: str) -> Self:
        """Return the row of an image that could not be done."""
        return cls(image_id=item.image_id, image=item.relative.as_posix(), status="failed", reason=reason)

    @property
    def is_done(self) -> bool:
        """Whether there is a mask."""
        return self.status == "done"

    def prompt(self) -> tuple[Points, list[int]]:
        """Return the points ``(n, 2)`` as (x, y) in pixels of the image, and their labels."""
        import numpy as np

        return np.array(json.loads(self.points), dtype=np.float64).reshape(-1, 2), json.loads(self.point_labels)

    def to_json(self) -> dict[str, str]:
        """Return the row as a JSON object of text."""
        return asdict(self)


COLUMNS = tuple(field.name for field in fields(Row))


def mask_path(item: ImageItem) -> PurePosixPath:
    """Return where an image's mask lies, relative to the output folder."""
    return PurePosixPath(MASKS_FOLDER) / item.output_name


def overlay_path(row: Row) -> PurePosixPath:
    """Return where a finished image's overlay lies, relative to the output folder."""
    return PurePosixPath(OVERLAYS_FOLDER) / PurePosixPath(row.mask).relative_to(MASKS_FOLDER).with_suffix(".jpg")


def read_mask(out: Path, row: Row) -> BoolMask:
    """Return the mask of a finished image, bool ``(height, width)``."""
    from medtool.images import ReadOptions, read_labels

    # What made the mask had its limits; its own size is not limited again.
    pixels = int(row.width) * int(row.height)
    own = ReadOptions(max_pixels=pixels, max_bytes=2 * pixels + (1 << 20))
    labels: npt.NDArray[np.integer[Any]] = read_labels(out / row.mask, own)
    return labels > 0


def write_table(out: Path, rows: Iterable[Row]) -> str:
    """Write ``masks.csv`` whole, ordered by image id, and return its SHA-256. An equal one is left alone."""
    lines = [COLUMNS, *(asdict(row).values() for row in sorted(rows, key=lambda row: row.image_id))]
    text = "".join(",".join(map(_csv_field, line)) + "\n" for line in lines)
    data = text.encode("utf-8", "surrogateescape")
    path = out / TABLE_NAME
    digest = hashlib.sha256(data).hexdigest()
    if not path.exists() or sha256_of(path) != digest:
        write_whole(path, data)
    return digest


def _csv_field(text: str) -> str:
    """Return a value as CSV; the standard library leaves a lone carriage return without quotes."""
    if any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def read_table(out: Path) -> dict[str, Row]:
    """Return the rows of ``masks.csv`` by image id; none when there is no such file.

    Raises
    ------
    InputError
        If the file is not what :func:`write_table` writes.
    """
    path = out / TABLE_NAME
    if not path.exists():
        return {}
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise InputError(
            f"{path} does not have the columns of this version's {TABLE_NAME}", hint="give another folder with --out"
        )
    return {values["image_id"]: row_from(values) for values in reader}


def row_from(values: Mapping[str, str]) -> Row:
    """Return the row of a JSON object or CSV line.

    Raises
    ------
    InputError
        If a value is missing or one is too many, or a path leaves the folder.
    """
    way_out = "give another folder with --out, or remove this one"
    if set(values) != set(COLUMNS) or not all(isinstance(value, str) for value in values.values()):
        name = str(values.get("image_id", ""))
        raise InputError(f"the row of {name!r} in {TABLE_NAME} is damaged: not {len(COLUMNS)} values", hint=way_out)
    row = Row(**values)
    if row.status not in ("done", "failed"):
        raise InputError(
            f"the row of {row.image_id!r} in {TABLE_NAME} is damaged: its status is {row.status!r}", hint=way_out
        )
    mask = PurePosixPath(row.mask)
    if row.is_done and (mask.is_absolute() or ".." in mask.parts or mask.parts[:1] != (MASKS_FOLDER,)):
        raise InputError(
            f"the row of {row.image_id!r} in {TABLE_NAME} is damaged: {row.mask!r} is no path in {MASKS_FOLDER}/",
            hint=way_out,
        )
    return row


def hash_now(path: Path) -> str:
    """Return the SHA-256 of a file as it is now, or nothing when it is not there."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def refuse_changed(rows: Iterable[Row], *, images: Mapping[str, str], masks: Mapping[str, str]) -> None:
    """Refuse to go on when finished images or their masks have other bytes than when the masks were made.

    Parameters
    ----------
    images, masks
        Image id to the SHA-256 that the image and the mask have now; empty where there is none.

    Raises
    ------
    LineageError
        Naming the first of them, and ``--overwrite``.
    """
    rows = list(rows)
    for what, now, before in (
        ("{} changed since its mask was made", images, {row.image_id: row.image_sha256 for row in rows}),
        ("the mask of {} was changed by hand or by another program", masks, {r.image_id: r.mask_sha256 for r in rows}),
    ):
        changed = [name for name, sha256 in before.items() if now.get(name) and now[name] != sha256]
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise LineageError(
                what.format(changed[0]) + more,
                hint="another folder with --out, or --overwrite to replace what is there",
            )

"""Masks that are missing, unreadable, of another size, with odd values, empty, or of another image (M601 to M606).

Odd values (M604) are traces of what must not be done to a mask. What tells them from rare classes and from numbers of
instances, which also occur in one mask only, is where they are: a class or an instance fills an area, even if a thin
one, while a value that was interpolated, or made by lossy compression, is *loose*: nearly all of its pixels lie
strictly between the values of two opposite neighbours, or have hardly an equal one among the eight around them. A mask
is odd

- in a data set of two values (nine in ten masks have at most one value beside 0, and it is always the same), if it has
  any loose value, or marks with another of 1, 255 and 65535 than the others;
- in any other, if it has eight loose values or more, and these are more than twice as many as the others. Whole numbers
  between neighbouring class numbers look like classes: a map of the classes 0 to 5 that was interpolated is not found.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.errors import ImageError, InputError, MissingExtraError, SeveralPagesError, reason_of
from medtool.images import read_labels
from medtool.images.formats import HEAD_BYTES, Format, identify
from medtool.parallel import choose_workers, map_unordered
from medtool.protocols import Steps
from medtool.split import catalogue
from medtool.split.findings import Case, Finding, finding
from medtool.split.rules.identifiers import is_known
from medtool.split.table import AuditTable

if TYPE_CHECKING:
    import numpy.typing as npt

    Labels = npt.NDArray[np.integer[Any]]

_FEW = 8  # loose values that are a trace in any data set, and values of a mask that are kept
_MARKS = frozenset({1, 255, 65535})  # that masks of two values are written with
_TWO_VALUED = 0.9  # share of masks
_LOOSE = 0.5  # share of a value's pixels
_MOST_COUNTED = 2**16  # values up to which counting beats sorting
_LEAST_MARKED_PX = 16  # of masks that are not alike by chance
_BATCH = 16
_LISTED = 5


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What the rules need to know of one mask.

    Attributes
    ----------
    height, width
        In pixels, upright.
    marks
        Its values beside 0, ascending, if they are at most eight; else the first eight.
    n_marks
        How many values it has beside 0.
    marked_px
        How many pixels are not 0.
    loose
        Those of its values that fill no area, ascending, at most eight.
    n_loose
        How many there are.
    is_rectangle
        Whether it marks all of one upright rectangle with one value.
    digest
        Of its size and all its labels; the same for the same mask in another format.
    """

    height: int
    width: int
    marks: tuple[int, ...]
    n_marks: int
    marked_px: int
    loose: tuple[int, ...]
    n_loose: int
    is_rectangle: bool
    digest: bytes

    @property
    def is_uniform(self) -> bool:
        """Whether all pixels have one value."""
        return self.marked_px == 0 or (self.n_marks == 1 and self.marked_px == self.height * self.width)


def facts_of(labels: Labels) -> MaskFacts:
    """Return what the rules need to know of a mask of shape ``(height, width)``."""
    values, numbers = _numbered(labels)
    counts = np.bincount(numbers.ravel(), minlength=len(values))
    is_mark = (values != 0) & (counts > 0)
    loose_counts = np.zeros(len(values), np.int64)
    if is_mark.sum() > 1:
        loose_counts = np.bincount(numbers[_loose_pixels(numbers)], minlength=len(values))
    marks = values[is_mark]
    loose = values[is_mark & (loose_counts >= _LOOSE * counts) & (loose_counts > 0)]
    marked_px = int(counts[is_mark].sum())
    digest = blake2b(repr(labels.shape).encode(), digest_size=16)
    digest.update(labels.astype("<i8").tobytes())
    return MaskFacts(
        labels.shape[0],
        labels.shape[1],
        tuple(int(value) for value in marks[:_FEW]),
        len(marks),
        marked_px,
        tuple(int(value) for value in loose[:_FEW]),
        len(loose),
        len(marks) == 1 and marked_px == _box_px(labels != 0),
        digest.digest(),
    )


def _numbered(labels: Labels) -> tuple[npt.NDArray[np.int64], Labels]:
    """Return values in ascending order, some of which may not occur, and the place of each pixel among them."""
    if int(labels.min()) >= 0 and int(labels.max()) < _MOST_COUNTED:
        return np.arange(int(labels.max()) + 1), labels
    values, numbers = np.unique(labels, return_inverse=True)
    return values.astype(np.int64), numbers.reshape(labels.shape)


def _loose_pixels(labels: Labels) -> npt.NDArray[np.bool_]:
    """Return which pixels lie strictly between two opposite neighbours, or have at most one equal among all eight."""
    height, width = labels.shape
    wide = np.pad(labels, 1, mode="edge")

    def shifted(down: int, right: int) -> Labels:
        return wide[1 + down : 1 + down + height, 1 + right : 1 + right + width]

    is_between = np.zeros(labels.shape, bool)
    n_equal = np.zeros(labels.shape, np.uint8)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        before, after = shifted(-down, -right), shifted(down, right)
        n_equal += before == labels
        n_equal += after == labels
        if not (down and right):
            is_between |= ((before < labels) & (labels < after)) | ((before > labels) & (labels > after))
    return is_between | (n_equal <= 1)


def _box_px(is_marked: npt.NDArray[np.bool_]) -> int:
    """Return the area of the box around what is marked."""
    return int(np.ptp(np.flatnonzero(is_marked.any(axis=1))) + 1) * int(
        np.ptp(np.flatnonzero(is_marked.any(axis=0))) + 1
    )


@dataclass(frozen=True, slots=True)
class _NotRead:
    """Why a mask could not be read; a volume is no fault."""

    reason: str
    is_volume: bool = False


def mask_findings(
    table: AuditTable,
    sizes: npt.NDArray[np.integer[Any]],
    *,
    pictures: npt.NDArray[np.int64] | None = None,
    workers: int = 0,
    cluster: str | None = None,
    steps: Callable[[int, str], AbstractContextManager[Steps]] | None = None,
) -> tuple[list[Finding], list[str]]:
    """Return what is wrong with the masks, and a note on what was not checked; rows without a mask are passed over.

    One mask of several images (M606) is no case where the images show one picture, where one file is named by several
    rows of one patient (lesion, ...), as for several channels of one field of view, and where masks coincide easily:
    empty and full ones, upright rectangles, and those that mark fewer than 16 pixels.

    Parameters
    ----------
    sizes
        Shape ``(rows, 2)`` or longer: width and height of each upright image in pixels; 0 where it is not known.
    pictures
        Shape ``(rows,)`` or longer: a number for each row, the same for copies of one picture; None takes every row
        for a picture of its own.
    workers, cluster
        As in :func:`medtool.parallel.map_unordered`; 0 workers is automatic.
    steps
        Shows progress; takes the number of files and a label.
    """
    if "mask" not in table.frame.columns:
        return [], []
    cells = table.frame.get_column("mask")
    rows_of: dict[Path, list[int]] = defaultdict(list)
    missing: dict[int, str] = {}
    for row, cell in enumerate(cells):
        if cell:
            try:
                rows_of[table.manifest.locate(cell)].append(row)
            except InputError as error:
                missing[row] = error.message
    read = _read(list(rows_of), workers=workers, cluster=cluster, steps=steps)
    facts: dict[int, MaskFacts] = {}
    unreadable: dict[int, str] = {}
    volumes = 0
    for path, found in read.items():
        for row in rows_of[path]:
            if isinstance(found, MaskFacts):
                facts[row] = found
            elif found.is_volume:
                volumes += 1
            else:
                unreadable[row] = found.reason
    sheet = _Sheet(table, facts)
    findings = [
        *finding(catalogue.MASK_MISSING, sheet.cases(missing)),
        *finding(catalogue.MASK_UNREADABLE, sheet.cases(unreadable)),
        *finding(catalogue.MASK_OTHER_SIZE, sheet.cases(_other_sizes(facts, sizes))),
        *finding(catalogue.MASK_ODD_VALUES, sheet.cases(_odd_values(facts))),
        *finding(catalogue.MASK_EMPTY, sheet.cases(_uniform(facts))),
        *finding(catalogue.MASKS_IDENTICAL, sheet.identical(pictures)),
    ]
    notes = [f"masks: {volumes:,} are volumes or have several pages, and were not checked"] if volumes else []
    return findings, notes


def _read(
    paths: Sequence[Path],
    *,
    workers: int,
    cluster: str | None,
    steps: Callable[[int, str], AbstractContextManager[Steps]] | None,
) -> dict[Path, MaskFacts | _NotRead]:
    found: dict[Path, MaskFacts | _NotRead] = {}
    with contextlib.nullcontext() if steps is None else steps(len(paths), "masks") as progress:
        # A batch in which a worker died is read again file by file, so that one bad file is one bad row.
        for size in (_BATCH, 1):
            left = [path for path in paths if path not in found]
            batches = [left[start : start + size] for start in range(0, len(left), size)]
            count = choose_workers(workers, items=len(batches))
            for outcome in map_unordered(_read_batch, batches, setup=dict, workers=count, cluster=cluster):
                batch = batches[outcome.index]
                if outcome.error is None:
                    found |= zip(batch, outcome.get(), strict=True)
                elif size == 1:
                    found[batch[0]] = _NotRead(reason_of(outcome.error))
                else:
                    continue
                if progress is not None:
                    for path in batch:
                        progress.advance(path.name)
    return found


def _read_batch(_: object, paths: Sequence[Path]) -> list[MaskFacts | _NotRead]:
    return [_read_one(path) for path in paths]


def _read_one(path: Path) -> MaskFacts | _NotRead:
    try:
        with path.open("rb") as stream:
            if identify(stream.read(HEAD_BYTES)) is Format.NIFTI:
                return _NotRead("a volume", is_volume=True)
        return facts_of(read_labels(path))
    except SeveralPagesError as error:
        return _NotRead(error.message, is_volume=True)
    except (ImageError, MissingExtraError, OSError, MemoryError) as error:
        return _NotRead(reason_of(error))


def _other_sizes(facts: Mapping[int, MaskFacts], sizes: npt.NDArray[np.integer[Any]]) -> dict[int, str]:
    found = {}
    for row, mask in facts.items():
        width, height = (int(side) for side in sizes[row])
        if width and height and (width, height) != (mask.width, mask.height):
            turned = "; it may be turned by a quarter" if (width, height) == (mask.height, mask.width) else ""
            found[row] = f"{mask.width} × {mask.height} px, its image {width} × {height} px{turned}"
    return found


def _odd_values(facts: Mapping[int, MaskFacts]) -> dict[int, str]:
    marks = Counter(mask.marks[0] for mask in facts.values() if mask.n_marks == 1)
    n_marked = sum(mask.n_marks > 0 for mask in facts.values())
    usual, n_usual = marks.most_common(1)[0] if marks else (0, 0)
    has_two_values = n_marked >= 3 and n_usual >= _TWO_VALUED * n_marked
    found = {}
    for row, mask in facts.items():
        solid = mask.n_marks - mask.n_loose
        if (has_two_values and mask.n_loose) or (mask.n_loose >= _FEW and mask.n_loose > 2 * solid):
            numbers = ", ".join(str(value) for value in mask.loose[:_LISTED])
            more = f" and {mask.n_loose - _LISTED} more" if mask.n_loose > _LISTED else ""
            found[row] = f"{numbers}{more} fill no area, as after interpolation or lossy compression"
        elif has_two_values and mask.n_marks == 1 and mask.marks[0] != usual and {mask.marks[0], usual} <= _MARKS:
            found[row] = f"it marks with {mask.marks[0]}, {n_usual:,} of {n_marked:,} masks mark with {usual}"
    return found


def _uniform(facts: Mapping[int, MaskFacts]) -> dict[int, str]:
    return {
        row: f"{mask.marks[0]} in every pixel" if mask.marked_px else "0 in every pixel"
        for row, mask in facts.items()
        if mask.is_uniform
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Sheet:
    """The masks of a manifest as cases name them."""

    table: AuditTable
    facts: Mapping[int, MaskFacts]

    def cases(self, details: Mapping[int, str]) -> list[Case]:
        """Return a case a row."""
        ids, masks = (self.table.frame.get_column(name) for name in ("image_id", "mask"))
        return [Case(ids[row], (ids[row],), f"{masks[row]}: {text}") for row, text in details.items()]

    def identical(self, pictures: npt.NDArray[np.int64] | None) -> list[Case]:
        """Return the cases of M606."""
        ids, masks, images = (self.table.frame.get_column(name) for name in ("image_id", "mask", "image"))
        by_digest: dict[bytes, list[int]] = defaultdict(list)
        for row, mask in self.facts.items():
            if not (mask.is_uniform or mask.is_rectangle or mask.marked_px < _LEAST_MARKED_PX):
                by_digest[mask.digest].append(row)
        cases = []
        for rows in by_digest.values():
            shown = {images[row] if pictures is None else int(pictures[row]) for row in rows}
            files = {masks[row] for row in rows}
            if len(shown) > 1 and not (len(files) == 1 and self._are_of_one_group(rows)):
                names = tuple(sorted(ids[row] for row in rows))
                mask = self.facts[rows[0]]
                source = "one file" if len(files) == 1 else f"{len(files)} files with the same labels"
                text = f"{source}, {mask.marked_px:,} of {mask.width * mask.height:,} pixels marked"
                more = f" and {len(names) - 2} more" if len(names) > 2 else ""
                cases.append(Case(f"{names[0]}, {names[1]}{more}", names, text, {"masks": len(names)}))
        return cases

    def _are_of_one_group(self, rows: Sequence[int]) -> bool:
        return any(len(values) == 1 for values in self._known_values(rows))

    def _known_values(self, rows: Sequence[int]) -> Iterator[set[str]]:
        for column in self.table.groups:
            cells = self.table.frame[list(rows)].filter(is_known(column)).get_column(column)
            if len(cells) == len(rows):
                yield set(cells)

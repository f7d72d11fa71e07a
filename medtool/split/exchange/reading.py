"""From the lists of names in another program's file to a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.errors import ManifestError, UsageError
from medtool.manifest import Manifest
from medtool.roles import VAL_FOLD
from medtool.split.exchange.format import counted, shown
from medtool.split.exchange.names import BY_ID, BY_PATH, Matched, Part, Way, match
from medtool.split.exchange.options import ImportOptions, Unnamed
from medtool.split.exchange.role_table import ROLES, TEST, UNUSED, empty_table

Marks = npt.NDArray[np.unsignedinteger[Any]]


def read_parts(
    manifest: Manifest,
    parts: Sequence[Part],
    folds: Sequence[int],
    ways: Sequence[Way],
    *,
    source: str,
    words: Sequence[str] = ROLES,
) -> tuple[Marks, list[str]]:
    """Return the code of the part that each image is in, in each fold, and what should be said about it.

    Parameters
    ----------
    folds
        The numbers of the columns; empty for a single column that is no fold.
    source
        The file, for messages.
    words
        What each code is called; 0 is that of images in no part.

    Returns
    -------
    codes, notes
        Shape ``(images, columns)``.

    Raises
    ------
    ManifestError
        If no image is named, a name is unknown or unclear, or an image is in two parts of one fold. Each with the place
        of the first in the file, and their number.
    """
    if not any(len(part.names) for part in parts):
        raise ManifestError(f"{source} names no image")
    matched = match(manifest, parts, ways)
    codes: Marks = empty_table(len(manifest), folds).codes.astype(np.min_scalar_type(len(words)))
    clashes: list[tuple[Part, int, int]] = []
    repeats: list[tuple[Part, int]] = []
    n_unknown = 0
    for part in parts:
        rows, entries = _rows_of(part, matched)
        n_unknown += sum(not matched.rows[name] for name in part.names) if part.is_optional else 0
        column = codes[:, part.column]
        has_other = (column[rows] != UNUSED) & (column[rows] != part.code)
        clashes += [(part, int(entries[at]), int(rows[at])) for at in np.flatnonzero(has_other)]
        is_again = column[rows] == part.code
        _, first = np.unique(rows, return_index=True)
        is_first = np.zeros(len(rows), dtype=bool)
        is_first[first] = True
        repeats += [(part, int(entries[at])) for at in np.flatnonzero(is_again | ~is_first)]
        column[rows[~has_other]] = part.code
    if clashes:
        raise _in_two_parts(codes, folds, clashes, words=words, parts=parts, matched=matched)
    return codes, _notes(matched, repeats, n_unknown)


def _rows_of(part: Part, matched: Matched) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows of the images in a part, and which of its names each comes from."""
    found = [matched.rows[name] for name in part.names]
    rows = np.array([row for each in found for row in each], dtype=np.intp)
    return rows, np.repeat(np.arange(len(found)), [len(each) for each in found])


def _in_two_parts(
    codes: Marks,
    folds: Sequence[int],
    clashes: Sequence[tuple[Part, int, int]],
    *,
    words: Sequence[str],
    parts: Sequence[Part],
    matched: Matched,
) -> ManifestError:
    part, entry, row = clashes[0]
    other = codes[row, part.column]
    fold = f" of fold {folds[part.column]}" if folds else ""
    n = len({row for _, _, row in clashes})
    return ManifestError(
        f"{part.place(entry)}: {shown(part.names[entry])} is in {words[part.code]}{fold}, and in {words[other]} at "
        f"{_place_of_row(row, part.column, other, parts, matched)} ({counted(n)} of that kind); the file leaks, which "
        "a manifest cannot say of one image",
        hint="take it out of one of the two; medtool split audit then looks for patients in both",
    )


def _place_of_row(row: int, column: int, code: int, parts: Sequence[Part], matched: Matched) -> str:
    """Return where an image got its role from."""
    for part in parts:
        if part.column == column and part.code == code:
            rows, entries = _rows_of(part, matched)
            found = entries[rows == row]
            if len(found):
                return part.place(int(found[0]))
    raise AssertionError("every role comes from a part")


def _notes(matched: Matched, repeats: Sequence[tuple[Part, int]], n_unknown: int) -> list[str]:
    notes = []
    if matched.way not in (BY_ID, BY_PATH):
        notes.append(f"images are found by {matched.way.words}, not by {BY_ID.words}")
    if repeats:
        part, entry = repeats[0]
        is_one = len(repeats) == 1
        again = "name is given again in its part, and counts" if is_one else "names are given again, and count"
        notes.append(f"{len(repeats):,} {again} once; the first: {part.place(entry)}")
    if n_unknown:
        notes.append(f"{counted(n_unknown, 'further path')} of images of several files are not in the manifest")
    return notes


def with_unnamed(manifest: Manifest, codes: Marks, options: ImportOptions) -> tuple[Marks, list[str]]:
    """Return the codes with those of the images that no list names, and what should be said about it."""
    is_unnamed = (codes == UNUSED).all(axis=1)
    n = int(is_unnamed.sum())
    if not n:
        return codes, []
    has_test_somewhere = (codes == TEST).any(axis=1) & ~(codes == TEST).all(axis=1)
    if options.unnamed == Unnamed.TEST and has_test_somewhere.any():
        raise UsageError(
            f"--unnamed test: the folds have test parts of their own ({counted(int(has_test_somewhere.sum()))}); a "
            "manifest cannot have one for all folds besides"
        )
    named = "1 image is not named" if n == 1 else f"{n:,} images are not named"
    if options.unnamed == Unnamed.UNUSED:
        n_test = _n_test(manifest, is_unnamed)
        advice = f" ({n_test:,} of them test in the manifest; --unnamed test makes all of them so)" if n_test else ""
        return codes, [f"{named}: in no part{advice}"]
    with_test = codes.copy()
    with_test[is_unnamed] = TEST
    return with_test, [f"{named}: taken as test"]


def _n_test(manifest: Manifest, is_in: npt.NDArray[np.bool_]) -> int:
    """Return how many of these images are test in the manifest as it was."""
    if "split" not in manifest.columns:
        return 0
    return int(((manifest.table.get_column("split") == "test").to_numpy() & is_in).sum())


def note_of_replaced(manifest: Manifest, new: Manifest) -> list[str]:
    """Return what should be said about the roles that the manifest has had so far."""
    had = [name for name in ("split", "fold", VAL_FOLD) if manifest.counts(name)]
    lost = [name for name in had if name not in new.columns or (manifest.table[name] != new.table[name]).any()]
    return [f"the manifest's own {' and '.join(lost)} {'is' if len(lost) == 1 else 'are'} replaced"] if lost else []

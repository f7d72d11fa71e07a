"""Copies that show nobody: blank images, and frames such as a slate or a colour card that many patients share.

Copies of one picture must be in one part, since what was learnt from one is scored on another. That says nothing where
the picture shows no patient. Two kinds of copies therefore link nothing, neither across parts nor in a repair, in the
units of an estimate or of a new split:

- **Blank images**: every pixel has one value, or the picture has no structure (as the search for duplicates measures
  it) and is black in each of 8 × 8 parts, or white in each. A picture that is merely dark has noise, which two
  pictures never share, so that equal pixels are a copy.
- **Shared frames**: a picture under more than :data:`MOST_OWNERS` patients (lesions, ...) of whom at least half of the
  images are pictures of their own. The second condition tells a slate, which stands beside the pictures of each
  patient, from ids that do not name patients: where every image or every copy has an id of its own, these have no
  pictures of their own, and copies stay leaks. So they do where no patient is known.

A copy is judged beside those that are as close to it: files of equal bytes under two patients are linked, even if files
that are merely alike are a frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from medtool.split.duplicates.candidates import LEAST_CONTRAST, contrast_of
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.grouping import plural
from medtool.split.rules.identifiers import is_known
from medtool.split.units import units_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.split.duplicates.fingerprints import Fingerprints
    from medtool.split.table import AuditTable

    Ints = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

MOST_OWNERS = 3  # patients whose copies of one picture are still taken for a leak

_KINDS = (Kind.BYTES, Kind.PIXELS, Kind.NEAR)  # the closest first


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture that many patients share.

    Attributes
    ----------
    places
        Its images, ascending.
    n_owners
        How many patients (lesions, ...) they are of.
    """

    places: tuple[int, ...]
    n_owners: int


@dataclass(frozen=True, slots=True, eq=False)
class Ties:
    """Which copies must be in one part, and which need not.

    Attributes
    ----------
    pairs
        Those that must, in their order.
    frames
        Pictures that many patients share.
    blanks
        The places of blank images that equal one another, by picture.
    noun
        What ``n_owners`` counts: ``patient``, ``lesion``, ...
    """

    pairs: tuple[DuplicatePair, ...]
    frames: tuple[Frame, ...]
    blanks: tuple[tuple[int, ...], ...]
    noun: str

    @property
    def joined(self) -> tuple[tuple[int, int], ...]:
        """The places of the pairs that must be in one part."""
        return tuple((pair.first, pair.second) for pair in self.pairs)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, a line each."""
        notes = []
        if self.blanks:
            n_blank = sum(map(len, self.blanks))
            notes.append(f"{n_blank:,} blank images equal others: they show nobody, and do not keep images together")
        if self.frames:
            is_one = len(self.frames) == 1
            which = "1 picture is" if is_one else f"{len(self.frames):,} pictures are"
            verb = "does" if is_one else "do"
            notes.append(f"{which} shared by many {plural(self.noun, 2)} and {verb} not keep them together")
        return tuple(notes)


def ties_of(
    duplicates: Duplicates, frame: pl.DataFrame, groups: Sequence[str], *, other: AuditTable | None = None
) -> Ties:
    """Return which copies keep images together.

    Parameters
    ----------
    duplicates
        Of the rows of ``frame``, then those of ``other``; pairs with what follows are passed over.
    frame
        The rows of a manifest.
    groups
        The columns that name patients, lesions and the like; without any, only blank images are told apart.
    other
        Another manifest.
    """
    count = frame.height + (other.frame.height if other else 0)
    noun = noun_of([*groups, *(other.groups if other else ())])
    found = [pair for pair in duplicates.pairs if pair.second < count]
    if not found:
        return Ties((), (), (), noun)
    is_blank = blank_images(duplicates.fingerprints)[:count]
    blank = [pair for pair in found if is_blank[pair.first] and is_blank[pair.second]]
    pairs = [pair for pair in found if not (is_blank[pair.first] and is_blank[pair.second])]
    owners = _owners(frame, groups, other)
    numbers = [_pictures(count, pairs, level) for level in range(len(_KINDS))]
    has_own = _with_own_pictures(numbers[-1], owners, ~is_blank)
    shared = [_counted(pictures, owners, has_own) > MOST_OWNERS for pictures in numbers]
    level_of = {kind: level for level, kind in enumerate(_KINDS)}
    tying = [pair for pair in pairs if not shared[level_of[pair.kind]][numbers[level_of[pair.kind]][pair.first]]]
    n_owners = _counted(numbers[-1], owners, np.ones_like(has_own))
    frames = [
        Frame(places, int(n_owners[numbers[-1][places[0]]]))
        for places in _members(pairs, numbers[-1])
        if shared[-1][numbers[-1][places[0]]]
    ]
    blanks = _members(blank, _pictures(count, blank, len(_KINDS) - 1))
    return Ties(tuple(tying), tuple(frames), tuple(blanks), noun)


def of_nobody(fingerprints: Fingerprints, ties: Ties) -> set[int]:
    """Return the places of the images that show nobody: blank ones, also without an equal, and shared frames."""
    blank: list[int] = np.flatnonzero(blank_images(fingerprints)).tolist()
    return {*blank, *(place for frame in ties.frames for place in frame.places)}


def blank_images(fingerprints: Fingerprints) -> Flags:
    """Return which images show nothing; files of several pages, whose pictures were not looked at, are none."""
    cells = fingerprints.colours.reshape(len(fingerprints.sha256), 8 * 8 * 3)
    is_clipped = (cells == 0).all(axis=1) | (cells == 255).all(axis=1)
    clipped = np.flatnonzero(is_clipped & (fingerprints.sizes > 0).all(axis=1))
    blank = np.array(fingerprints.is_blank, bool)
    blank[clipped] |= contrast_of(fingerprints.spectra[clipped]) < LEAST_CONTRAST
    return blank


def noun_of(groups: Sequence[str]) -> str:
    """Return what the values of the widest column are called: ``patient`` of ``patient_id`` or ``PatientID``."""
    if not groups:
        return "group"
    return re.sub(r"[\W_]*id\Z", "", groups[0], flags=re.IGNORECASE).lower() or groups[0]


def _owners(frame: pl.DataFrame, groups: Sequence[str], other: AuditTable | None) -> Ints:
    """Return a number for the patient (lesion, ...) of each row, -1 where none is known.

    Rows linked by any of the columns have one number, so that lesions of one patient are one owner.
    """
    columns = {name: name for name in groups}
    named = _known(frame, columns)
    if other is not None:
        own = {_plain(name): name for name in reversed(groups)}
        named = pl.concat(
            [named, _known(other.frame, {own.get(_plain(name), name): name for name in other.groups})], how="diagonal"
        ).fill_null("")
    owners = units_of(named, named.columns[1:])
    if named.width == 1:
        return np.full(named.height, -1)
    is_owned = named.select(pl.any_horizontal(pl.col(name) != "" for name in named.columns[1:])).to_series().to_numpy()
    return np.where(is_owned, owners, -1)


def _known(frame: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
    """Return the columns under the names given, after one that is only there to be as long as the frame."""
    known = [pl.when(is_known(name)).then(name).otherwise(pl.lit("")).alias(alias) for alias, name in columns.items()]
    return frame.select(pl.int_range(pl.len()).alias(""), *known)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]*(id)?\Z", "", name.casefold())


def _pictures(count: int, pairs: Sequence[DuplicatePair], level: int) -> Ints:
    """Return the picture of each image, where pairs of this kind and the closer ones count."""
    kept = [(pair.first, pair.second) for pair in pairs if pair.kind in _KINDS[: level + 1]]
    return units_of(pl.int_range(count, eager=True).to_frame(), (), kept)


def _with_own_pictures(pictures: Ints, owners: Ints, is_counted: Flags) -> Flags:
    """Return for each owner whether at least half of the images are of pictures that no more than a few owners have."""
    few = _counted(pictures, owners, np.ones(int(owners.max()) + 1, bool)) <= MOST_OWNERS
    is_owned = (owners >= 0) & is_counted
    n_owners = int(owners.max()) + 1
    own = np.bincount(owners[is_owned & few[pictures]], minlength=n_owners)
    shared = np.bincount(owners[is_owned & ~few[pictures]], minlength=n_owners)
    enough: Flags = (own > 0) & (own >= shared)
    return enough


def _counted(pictures: Ints, owners: Ints, is_counted: Flags) -> Ints:
    """Return how many of the owners that count each picture has."""
    is_owned = owners >= 0
    is_owned[is_owned] = is_counted[owners[is_owned]]
    pairs = np.unique(np.column_stack([pictures[is_owned], owners[is_owned]]), axis=0)
    return np.bincount(pairs[:, 0], minlength=int(pictures.max()) + 1)


def _members(pairs: Sequence[DuplicatePair], pictures: Ints) -> list[tuple[int, ...]]:
    """Return the places of each picture that has pairs, in the order of the first ones."""
    members: dict[int, list[int]] = {}
    for place in sorted({place for pair in pairs for place in (pair.first, pair.second)}):
        members.setdefault(int(pictures[place]), []).append(place)
    return [tuple(places) for places in members.values()]

"""Which pairs of images may show the same picture: few enough to look at the pixels of each.

First the hashes: every picture in its eight orientations against 100 parts of every other picture, from the whole to
what is left when up to a tenth of its height and of its width is cut away. Then, of the pairs whose hashes agree, the
spectra: the part is shifted until it fits best, and the pair stays if the coefficients then go together. Weights raise
the fine structure, which tells look-alikes apart, to the level of the coarse.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from medtool.split.duplicates.fingerprint import HASHED, N_WAVES, THRESHOLD, decoded, hashes_of, packed
from medtool.split.duplicates.links import Links
from medtool.split.duplicates.matching import iter_close_matches
from medtool.split.duplicates.orientation import N_ORIENTATIONS, inverse, turn_spectra

if TYPE_CHECKING:
    from medtool.split.duplicates.fingerprints import Fingerprints

#: Most of a picture's height, and of its width, that a crop may have cut away.
MOST_CUT: Final = 0.1
#: Bits in which the hashes of a pair may differ.
RADIUS: Final = 6
#: Least agreement of two spectra, from -1 to 1.
LEAST_AGREEMENT: Final = 0.92
#: Grey levels (root mean square over the hashed coefficients) below which a picture has no structure to hash.
LEAST_CONTRAST: Final = 0.5
#: Most candidates an image has beside those that link it.
MOST_A_IMAGE: Final = 32

_N_HASHED = 11  # half waves that a hash needs, from 0 on
_STEPS = 12  # of a cut from nothing to MOST_CUT; a part is a pair of whole numbers of them: before, behind
_COARSE = 4  # steps between the parts that are hashed
_REACH = 2  # steps that a part is shifted by, at most, until it fits best
_N_FITTED = 12  # half waves of a part that are compared, from 0 on
_MOST_WAVES = 16  # of a coefficient that is compared, both ways together
_FINENESS = 1.5  # the weight of a coefficient is its number of half waves to this power
_NOTHING = 1e-6
_BLOCK_IMAGES = 20_000  # whose parts are matched at a time
_BLOCK_ROWS = 2048
_BLOCK_HASHED = 128
_PLAIN = 0.97  # agreement that needs no better fit
_HOPEFUL, _MORE_HOPEFUL = 0.5, 0.75  # agreement before it is fitted, roughly and finely, that can become enough
_ROWS_PER_IMAGE = 400  # agreements of hashes, on average, that can be afforded
_LEAST_ROWS = 2_000_000

Places = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Spectra = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs of images to look at, the most alike first.

    Attributes
    ----------
    first, second
        Shape ``(n,)``: places in the list of images, ``first < second``. A pair comes once.
    orientation
        Shape ``(n,)``, uint8: ``turn(second, orientation)`` shows what the first shows, or a part of it, or more.
    distance
        Shape ``(n,)``, uint8: bits in which the hashes differ.
    agreement
        Shape ``(n,)``, float32, up to 1: how well the spectra go together.
    cut
        Shape ``(n, 4)``, float32: the share of the larger picture's height and width, as it is upright, that the
        smaller lacks at the top, bottom, left and right; known to about two hundredths.
    is_second_larger
        Shape ``(n,)``, bool: which of the two is the larger; where nothing is cut, this says nothing.
    notes
        What was not compared and why, a line each.
    """

    first: Places
    second: Places
    orientation: npt.NDArray[np.uint8]
    distance: npt.NDArray[np.uint8]
    agreement: npt.NDArray[np.float32]
    cut: npt.NDArray[np.float32]
    is_second_larger: npt.NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.first)


def candidate_pairs(fingerprints: Fingerprints) -> Candidates:
    """Return the pairs of images that may show the same picture.

    Images of equal bytes, and images of equal fingerprints, are linked as a chain, not as every pair of them.
    """
    notes: list[str] = []
    found = _Found()
    places = np.flatnonzero(np.array([bool(sha256) for sha256 in fingerprints.sha256], bool))
    places = found.chain(places, [fingerprints.sha256[place] for place in places])
    places = places[[not fingerprints.notes.get(int(place)) for place in places]]
    sizes, colours = fingerprints.sizes, fingerprints.colours
    keys = [sizes[place].tobytes() + colours[place].tobytes() for place in places]
    is_flat = contrast_of(fingerprints.spectra[places]) < LEAST_CONTRAST
    found.chain(places[is_flat], [key for key, flat in zip(keys, is_flat, strict=True) if flat])
    places, keys = places[~is_flat], [key for key, flat in zip(keys, is_flat, strict=True) if not flat]
    if is_flat.any():
        n_flat = int(is_flat.sum())
        which = "1 image of nearly one tone has" if n_flat == 1 else f"{n_flat:,} images of nearly one tone have"
        notes.append(f"{which} nothing to be recognised by: only such of equal size and colours are compared")
    places = found.chain(
        places, [key + fingerprints.spectra[place].tobytes() for key, place in zip(keys, places, strict=True)]
    )
    places, n_crowded = found.crowds(places, hashes_of(fingerprints.spectra[places]))
    if n_crowded:
        notes.append(
            f"{n_crowded:,} images have a hash that more than {MOST_A_IMAGE} images share: "
            "of these, each is compared with the one before it, and one with all other images"
        )
    spectra = fingerprints.spectra[places]
    radius = RADIUS
    for start in range(0, len(places), _BLOCK_IMAGES):
        rows, radius = _matched(spectra, slice(start, start + _BLOCK_IMAGES), radius)
        found.add(_agreeing(rows, spectra), places)
    if radius < RADIUS:
        notes.append(
            f"so many of the {len(places):,} images look alike that only those whose hashes differ in up to {radius} "
            f"bits, not {RADIUS}, are compared: altered copies may be missed"
        )
    return found.candidates(notes)


def contrast_of(spectra: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Return the standard deviation of the coarse structure of each picture ``(n, 16, 16)``, in grey levels."""
    squares = decoded(spectra).astype(np.float64) ** 2
    contrast: npt.NDArray[np.float64] = np.sqrt(squares.sum((-2, -1)) - squares[:, 0, 0])
    return contrast


@dataclass(frozen=True, eq=False)
class _Rows:
    """Pairs whose hashes agree: ``turn(smaller, orientation)`` looks like a part of ``larger``."""

    larger: npt.NDArray[np.int32]
    smaller: npt.NDArray[np.int32]
    orientation: npt.NDArray[np.uint8]
    part: npt.NDArray[np.uint8]
    distance: npt.NDArray[np.uint8]

    @classmethod
    def packed(cls, larger: Places, smaller: Places, orientation: Places, part: Places, distance: Bytes) -> _Rows:
        """Return rows of numbers of any width, in few bytes each."""
        return cls(
            larger.astype(np.int32),
            smaller.astype(np.int32),
            orientation.astype(np.uint8),
            part.astype(np.uint8),
            distance.astype(np.uint8),
        )

    @classmethod
    def joined(cls, pieces: Sequence[_Rows]) -> _Rows:
        """Return the rows of all pieces."""
        return cls(*(np.concatenate(columns) for columns in zip(*(piece._columns for piece in pieces), strict=True)))

    @property
    def _columns(self) -> tuple[npt.NDArray[Any], ...]:
        return self.larger, self.smaller, self.orientation, self.part, self.distance

    def nearest(self) -> _Rows:
        """Return one row for each pair and orientation: the part whose hash is nearest."""
        pair = (self.larger.astype(np.int64) << 34) | (self.smaller.astype(np.int64) << 3) | self.orientation
        order = np.lexsort((self.part, self.distance, pair))
        pair = pair[order]
        return self[order[np.concatenate((np.ones(min(len(pair), 1), bool), pair[1:] != pair[:-1]))]]

    def __getitem__(self, which: slice | npt.NDArray[Any]) -> _Rows:
        return _Rows(*(column[which] for column in self._columns))

    def __len__(self) -> int:
        return len(self.larger)


@dataclass(frozen=True, eq=False)
class _Agreeing:
    """Pairs whose spectra agree, how well, and what is cut away: steps at the top, bottom, left and right."""

    rows: _Rows
    agreement: npt.NDArray[np.float32]
    cut: npt.NDArray[np.uint8]


def _matched(spectra: npt.NDArray[np.int8], larger: slice, radius: int) -> tuple[_Rows, int]:
    """Return the pairs of one block of images, as the larger, with all, and the radius that could be afforded."""
    count = len(spectra)
    queries = np.concatenate([hashes_of(turn_spectra(spectra, orientation)) for orientation in range(N_ORIENTATIONS)])
    parts = part_hashes(spectra[larger])
    limit = max(_ROWS_PER_IMAGE * len(parts), _LEAST_ROWS)
    while True:
        pieces: list[_Rows] = []
        total = 0
        for query, place, distance in iter_close_matches(queries, parts.ravel(), radius=radius):
            one, part = np.divmod(place, parts.shape[1])
            one += larger.start
            orientation, other = np.divmod(query, count)
            is_pair = one != other
            pieces.append(_Rows.packed(one, other, orientation, part, distance)[is_pair])
            total += len(pieces[-1])
            if total > limit and radius:
                break
        else:
            return _Rows.joined(pieces).nearest(), radius
        radius -= 1


def part_hashes(spectra: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
    """Return the hashes of the parts of each picture ``(n, 16, 16)``: ``(n, 100)``, the whole first."""
    matrices = _maps()[_hashed_parts()][:, :_N_HASHED].reshape(-1, N_WAVES)
    count = len(matrices) // _N_HASHED
    starts = np.arange(count) * _N_HASHED
    corners = starts[:, None] * len(matrices) + starts
    bits = corners[..., None] + np.array([u * len(matrices) + v for u, v in HASHED])
    hashes = np.empty((len(spectra), count * count), np.uint64)
    for start in range(0, len(spectra), _BLOCK_HASHED):
        both = matrices @ decoded(spectra[start : start + _BLOCK_HASHED]) @ matrices.T
        hashes[start : start + _BLOCK_HASHED] = packed(
            (both > THRESHOLD).reshape(len(both), -1).take(bits.ravel(), axis=1)
        )
    return hashes


@lru_cache(1)
def _parts() -> npt.NDArray[np.int64]:
    """Return all parts of a length, in steps cut away before and behind: ``(m, 2)``, a little more than allowed too."""
    most = _STEPS + 1
    return np.array([(before, behind) for before in range(most + 1) for behind in range(most + 1 - before)])


@lru_cache(1)
def _hashed_parts() -> npt.NDArray[np.int64]:
    """Return which of the parts are hashed: ``(10,)``, the whole first."""
    return np.flatnonzero((_parts() % _COARSE == 0).all(1) & (_parts().sum(1) <= _STEPS))


@lru_cache(1)
def _maps() -> npt.NDArray[np.float32]:
    """Return the matrices that make the spectrum of each part of a length from that of the whole: ``(m, 12, 16)``."""
    places = (np.arange(2048) + 0.5) / 2048
    scale = np.where(np.arange(N_WAVES) == 0, 1, np.sqrt(2))[:, None]
    waves = np.arange(N_WAVES)[:, None] * np.pi
    own = (scale * np.cos(waves * places))[:_N_FITTED]
    found = []
    for before, behind in _parts() * (MOST_CUT / _STEPS):
        within = before + (1 - before - behind) * places
        found.append(own @ (scale * np.cos(waves * within)).T / len(places))
    maps = np.array(found, np.float32)
    maps[np.abs(maps) < _NOTHING] = 0  # so that of the whole every coefficient is what it was, zeros too
    return maps


@lru_cache(4)
def _shifted(step: int) -> npt.NDArray[np.int64]:
    """Return, for each part, the nine that have each end where it is or ``step`` steps elsewhere: ``(m, 9)``.

    Where there is no such part, the part itself stands in.
    """
    parts = _parts().tolist()
    number = {tuple(part): index for index, part in enumerate(parts)}
    moves = [(before, behind) for before in (0, -step, step) for behind in (0, -step, step)]
    return np.array(
        [[number.get((a + before, b + behind), number[a, b]) for before, behind in moves] for a, b in parts]
    )


@lru_cache(1)
def _weights() -> npt.NDArray[np.float32]:
    waves = np.arange(_N_FITTED)
    fineness = np.hypot(waves[:, None], waves)
    return np.where(waves[:, None] + waves <= _MOST_WAVES, fineness**_FINENESS, 0).astype(np.float32)


def _agreeing(rows: _Rows, spectra: npt.NDArray[np.int8]) -> _Agreeing:
    """Return the rows whose spectra agree once the part is shifted to where it fits best."""
    found = [_agreeing_block(rows[start : start + _BLOCK_ROWS], spectra) for start in range(0, len(rows), _BLOCK_ROWS)]
    if not found:
        return _Agreeing(rows, np.empty(0, np.float32), np.empty((0, 4), np.uint8))
    return _Agreeing(
        _Rows.joined([some.rows for some in found]),
        np.concatenate([some.agreement for some in found]),
        np.concatenate([some.cut for some in found]),
    )


def _agreeing_block(rows: _Rows, spectra: npt.NDArray[np.int8]) -> _Agreeing:
    larger = decoded(spectra[rows.larger])
    smaller = decoded(spectra[rows.smaller])
    for orientation in range(1, N_ORIENTATIONS):
        those = rows.orientation == orientation
        smaller[those] = turn_spectra(smaller[those], orientation)
    wanted = smaller[:, :_N_FITTED, :_N_FITTED] * _weights()
    wanted /= np.linalg.norm(wanted, axis=(1, 2), keepdims=True)
    hashed = _hashed_parts()
    down, along = hashed[rows.part // len(hashed)], hashed[rows.part % len(hashed)]
    agreement = _agreement(_maps()[down] @ larger, wanted, along)
    for step, hopeful in ((_REACH, _HOPEFUL), (1, _MORE_HOPEFUL)):
        open_ = np.flatnonzero((agreement >= hopeful) & (agreement < _PLAIN))
        whole, part = larger[open_], wanted[open_]
        along[open_], _ = _fitted(whole, part, down[open_], along[open_], step)
        down[open_], agreement[open_] = _fitted(
            whole.swapaxes(1, 2), part.swapaxes(1, 2), along[open_], down[open_], step
        )
    stays = agreement >= LEAST_AGREEMENT
    cut = np.concatenate((_parts()[down], _parts()[along]), axis=1)[stays]
    return _Agreeing(rows[stays], agreement[stays], cut.astype(np.uint8))


def _fitted(
    larger: Spectra, wanted: Spectra, down: Places, along: Places, step: int
) -> tuple[Places, npt.NDArray[np.float32]]:
    """Return which parts along the second axis fit best, and how well.

    Parameters
    ----------
    larger, wanted
        Shapes ``(n, 16, 16)`` and ``(n, 12, 12)``: the whole, and what a part of it should be (weighted, of length 1).
    down, along
        Shape ``(n,)``: which part of the first axis, and which of the second to start from.
    step
        How far to look, in steps.
    """
    halves = _maps()[down] @ larger
    best = along.copy()
    agreement = np.full(len(along), -1, np.float32)
    for choices in _shifted(step).T:
        choice = choices[along]
        fit = _agreement(halves, wanted, choice)
        is_better = fit > agreement
        agreement[is_better] = fit[is_better]
        best[is_better] = choice[is_better]
    return best, agreement


def _agreement(halves: Spectra, wanted: Spectra, along: Places) -> npt.NDArray[np.float32]:
    """Return the correlation of what is wanted with each part, of which the first axis, ``(n, 12, 16)``, is done."""
    made = halves @ _maps()[along].swapaxes(1, 2)
    made *= _weights()
    length = np.sqrt(np.einsum("nuv,nuv->n", made, made))
    product = np.einsum("nuv,nuv->n", made, wanted)
    agreement: npt.NDArray[np.float32] = product / np.maximum(length, np.float32(1e-6))
    return agreement


class _Found:
    """Candidates as they are found, of places in the list of images."""

    def __init__(self) -> None:
        self._pieces: list[tuple[npt.NDArray[Any], ...]] = []

    def chain(self, places: Places, keys: Sequence[Hashable]) -> Places:
        """Link each place with the one before it of the same key, and return the first of each key."""
        last: dict[Hashable, int] = {}
        links, firsts = [], []
        for place, key in zip(places.tolist(), keys, strict=True):
            if key in last:
                links.append((last[key], place))
            else:
                firsts.append(place)
            last[key] = place
        pairs = np.array(links, np.int64).reshape(-1, 2)
        nothing = np.zeros(len(pairs), np.uint8)
        cut = np.zeros((len(pairs), 4), np.uint8)
        self._pieces.append((pairs[:, 0], pairs[:, 1], nothing, nothing, np.ones(len(pairs), np.float32), cut, nothing))
        return np.array(firsts, np.int64)

    def crowds(self, places: Places, hashes: npt.NDArray[np.uint64]) -> tuple[Places, int]:
        """Chain the places of each hash that very many share; return the others and the first of each crowd."""
        _, which, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        is_crowded = counts[which] > MOST_A_IMAGE
        firsts = self.chain(places[is_crowded], which[is_crowded].tolist())
        return np.sort(np.concatenate((places[~is_crowded], firsts))), int(is_crowded.sum())

    def add(self, found: _Agreeing, places: Places) -> None:
        """Take over rows of places among ``places``."""
        rows = found.rows
        larger, smaller = places[rows.larger], places[rows.smaller]
        is_second_larger = larger > smaller
        back = np.array([inverse(orientation) for orientation in range(N_ORIENTATIONS)], np.uint8)
        orientation = np.where(is_second_larger, back[rows.orientation], rows.orientation)
        self._pieces.append(
            (
                np.minimum(larger, smaller),
                np.maximum(larger, smaller),
                orientation,
                rows.distance,
                found.agreement,
                found.cut,
                is_second_larger,
            )
        )

    def candidates(self, notes: list[str]) -> Candidates:
        """Return each pair once, the best agreement first; of very many for one image, the best."""
        first, second, orientation, distance, agreement, cut, is_second_larger = (
            np.concatenate(columns) for columns in zip(*self._pieces, strict=True)
        )
        order = np.lexsort((orientation, second, first, cut.sum(1), -agreement))
        seen: set[tuple[int, int]] = set()
        linked = Links()
        degrees: dict[int, int] = {}
        kept, n_dropped = [], 0
        for row, one, other in zip(order.tolist(), first[order].tolist(), second[order].tolist(), strict=True):
            if (one, other) in seen:
                continue
            seen.add((one, other))
            is_link = linked.join(one, other)
            if not is_link and max(degrees.get(one, 0), degrees.get(other, 0)) >= MOST_A_IMAGE:
                n_dropped += 1
                continue
            degrees[one] = degrees.get(one, 0) + 1
            degrees[other] = degrees.get(other, 0) + 1
            kept.append(row)
        if n_dropped:
            notes.append(
                f"{n_dropped:,} pairs of images with more than {MOST_A_IMAGE} look-alikes each are not compared; "
                "those left link the same images"
            )
        which = np.array(kept, np.int64)
        return Candidates(
            first[which],
            second[which],
            orientation[which],
            distance[which],
            agreement[which],
            cut[which].astype(np.float32) * np.float32(MOST_CUT / _STEPS),
            is_second_larger[which].astype(bool),
            tuple(notes),
        )

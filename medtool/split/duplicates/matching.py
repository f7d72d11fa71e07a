"""All pairs of 64-bit hashes that differ in few bits: exact, in bounded memory, a million against a million in seconds.

Multi-index hashing: the 64 bits are cut into a few chunks. Two words that differ in at most ``radius`` bits differ in
few bits of at least one chunk, by the pigeonhole principle: with three chunks and a radius of 8, in at most 2. So for
each chunk the words are sorted by their bits there, every pattern of up to 2 flipped bits is looked up, and only what
is found there is compared as a whole. No pair is missed and none comes twice. Where there are few words, or the radius
is so large that the chunks tell nothing apart, all words are compared with all others.

References
----------
Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medtool.errors import InputError

Words: TypeAlias = npt.NDArray[np.uint64]
Places: TypeAlias = npt.NDArray[np.int64]
Starts: TypeAlias = npt.NDArray[np.int32]
Distances: TypeAlias = npt.NDArray[np.uint8]
Pairs: TypeAlias = tuple[Places, Places, Distances]

N_BITS = 64
MAX_HASHES = 2**28  # so that two places and a distance fit into one sortable word
MAX_PAIRS = 2**25  # 17 bytes each in the answer

_BLOCK = 2**16  # comparisons at a time: what they need stays in the processor's cache
_LEAST_YIELDED = 2**18  # pairs in a block that a caller gets, but for the last one
_ROUNDS = 8  # words under one key that are taken one after the other; of longer lists, the rest all at once
_MAX_KEY_BITS = 22
_SAMPLE = 2**16  # pairs, for judging a cut
_CUTS = 8  # ways of dealing the bits out that are judged

# Nanoseconds, measured; only their ratios matter.
_COST_COMPARE = 1.0
_COST_CANDIDATE = 8.0
_COST_LOOKUP = 6.0
_COST_SORT = 150.0
_COST_TABLE = 10.0


def close_pairs(hashes: Words, *, radius: int, limit: int = MAX_PAIRS) -> Pairs:
    """Return all pairs of hashes that differ in at most ``radius`` bits.

    Parameters
    ----------
    hashes
        Shape ``(n,)``.
    radius
        0 to 64 bits.
    limit
        How many pairs may be returned; :func:`iter_close_pairs` has no such limit.

    Returns
    -------
    first, second, distance
        Three arrays of one length, sorted by ``first``, then ``second``; ``first < second`` are places in ``hashes``,
        ``distance`` is the number of bits.

    Raises
    ------
    InputError
        If there are more pairs than ``limit``.
    """
    return _gathered(iter_close_pairs(hashes, radius=radius), n_second=len(hashes), limit=limit, radius=radius)


def close_matches(queries: Words, index: Words, *, radius: int, limit: int = MAX_PAIRS) -> Pairs:
    """Return all pairs of a query and a hash of the index that differ in at most ``radius`` bits.

    Either side may be the large one: the time goes with the smaller of the two, but for sorting the larger.

    Parameters
    ----------
    queries, index
        Shapes ``(m,)`` and ``(n,)``.
    radius
        0 to 64 bits.
    limit
        How many pairs may be returned; :func:`iter_close_matches` has no such limit.

    Returns
    -------
    query, index, distance
        Three arrays of one length, sorted by ``query``, then ``index``: places in ``queries`` and in ``index``, and
        the number of bits.

    Raises
    ------
    InputError
        If there are more pairs than ``limit``.
    """
    return _gathered(iter_close_matches(queries, index, radius=radius), n_second=len(index), limit=limit, radius=radius)


def iter_close_pairs(hashes: Words, *, radius: int) -> Iterator[Pairs]:
    """Yield what :func:`close_pairs` returns, each pair once, in no order, in blocks of a few hundred thousand.

    Equal hashes are compared with others only once, but every pair of them is yielded: a thousand equal hashes are
    half a million pairs. Who does not want these collapses equal hashes beforehand, with ``np.unique``.
    """
    _check(hashes, radius)
    yield from _merged(_pairs(_Groups.of(hashes), radius))


def _pairs(groups: _Groups, radius: int) -> Iterator[Pairs]:
    for entry, offset in _counted(groups.ranks):
        yield _ordered(groups.members[entry], groups.members[entry - 1 - offset], np.zeros(len(entry), np.uint8))
    for first, second, distance in _merged(_joined(groups.words, None, radius)):
        for one, other, bits in _expanded(first, second, distance, groups, groups):
            yield _ordered(one, other, bits)


def iter_close_matches(queries: Words, index: Words, *, radius: int) -> Iterator[Pairs]:
    """Yield what :func:`close_matches` returns, each pair once, in no order, in blocks of a few hundred thousand."""
    _check(queries, radius)
    _check(index, radius)
    yield from _merged(_matches(_Groups.of(queries), _Groups.of(index), radius))


def _matches(asked: _Groups, known: _Groups, radius: int) -> Iterator[Pairs]:
    is_swapped = len(asked.words) > len(known.words)
    few, many = (known, asked) if is_swapped else (asked, known)
    for probe, shelf, distance in _merged(_joined(few.words, many.words, radius)):
        query, place = (shelf, probe) if is_swapped else (probe, shelf)
        yield from _expanded(query, place, distance, asked, known)


def _check(hashes: Words, radius: int) -> None:
    if hashes.dtype != np.uint64 or hashes.ndim != 1:
        raise TypeError(f"hashes are {hashes.dtype} of shape {hashes.shape}; they must be uint64 of shape (n,)")
    if not 0 <= radius <= N_BITS:
        raise ValueError(f"the radius is {radius}; it must be 0 to {N_BITS} bits")
    if len(hashes) > MAX_HASHES:
        raise InputError(f"{len(hashes):,} hashes; at most {MAX_HASHES:,} can be matched at once")


def _merged(blocks: Iterator[Pairs]) -> Iterator[Pairs]:
    """Yield the same pairs in fewer blocks, none empty."""
    pending: list[Pairs] = []
    size = 0
    for block in blocks:
        if len(block[0]):
            pending.append(block)
            size += len(block[0])
        if size >= _LEAST_YIELDED:
            yield _concatenated(pending)
            pending, size = [], 0
    if pending:
        yield _concatenated(pending)


def _concatenated(blocks: list[Pairs]) -> Pairs:
    first, second, distance = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
    return first, second, distance


def _gathered(blocks: Iterator[Pairs], *, n_second: int, limit: int, radius: int) -> Pairs:
    """Return all blocks as one, sorted; a pair and its distance are one word of 64 bits meanwhile."""
    shift = max(n_second - 1, 0).bit_length()
    packed = [np.empty(0, np.uint64)]
    total = 0
    for first, second, distance in blocks:
        total += len(first)
        if total > limit:
            raise InputError(
                f"more than {limit:,} pairs of hashes differ in at most {radius} bits; they tell too little apart"
            )
        packed.append(((first << (shift + 7)) | (second << 7) | distance).view(np.uint64))
    words = np.concatenate(packed)
    del packed
    words.sort()
    distance = (words & np.uint64(127)).astype(np.uint8)
    words >>= np.uint64(7)
    second = (words & np.uint64((1 << shift) - 1)).view(np.int64)
    words >>= np.uint64(shift)
    return words.view(np.int64), second, distance


def _ordered(one: Places, other: Places, distance: Distances) -> Pairs:
    return np.minimum(one, other), np.maximum(one, other), distance


def _counted(counts: npt.NDArray[np.integer]) -> Iterator[tuple[Places, Places]]:
    """Yield, in blocks, ``counts[i]`` times each ``i`` and beside it 0, 1, ... ``counts[i] - 1``."""
    ends = np.cumsum(counts, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        low = int(np.searchsorted(ends, start, "right"))
        high = int(np.searchsorted(ends, stop, "left")) + 1
        within = np.minimum(ends[low:high], stop) - np.maximum(ends[low:high] - counts[low:high], start)
        entry = np.repeat(np.arange(low, high), within)
        yield entry, np.arange(start, stop) - (ends[entry] - counts[entry])


@dataclass(frozen=True, eq=False)
class _Groups:
    """Hashes without repetition, and where each was.

    Attributes
    ----------
    words
        Shape ``(k,)``, ascending.
    members
        Shape ``(n,)``: places in the hashes, those of the first word first.
    begins, sizes
        Shape ``(k,)``: where the places of a word begin in ``members``, and how many they are.
    ranks
        Shape ``(n,)``: for each of ``members``, how many of the same word are before it.
    """

    words: Words
    members: Places
    begins: Places
    sizes: Places

    @classmethod
    def of(cls, hashes: Words) -> _Groups:
        members = np.argsort(hashes, kind="stable")
        words = hashes[members]
        begins = np.flatnonzero(np.concatenate((np.ones(min(len(words), 1), bool), words[1:] != words[:-1])))
        return cls(words[begins], members, begins, np.diff(begins, append=len(members)))

    @property
    def ranks(self) -> Places:
        if len(self.words) == len(self.members):
            return np.empty(0, np.int64)
        return np.arange(len(self.members)) - np.repeat(self.begins, self.sizes)


def _expanded(one: Places, other: Places, distance: Distances, ones: _Groups, others: _Groups) -> Iterator[Pairs]:
    """Yield all pairs of hashes for pairs of words."""
    sizes = ones.sizes[one] * others.sizes[other]
    if not len(sizes):
        return
    if sizes.max() == 1:
        yield ones.members[ones.begins[one]], others.members[others.begins[other]], distance
        return
    for entry, offset in _counted(sizes):
        left, right = np.divmod(offset, others.sizes[other[entry]])
        yield (
            ones.members[ones.begins[one[entry]] + left],
            others.members[others.begins[other[entry]] + right],
            distance[entry],
        )


@dataclass(frozen=True)
class _Chunk:
    """Some of the 64 bits, and in how many of them a pair found by them may differ."""

    bits: tuple[int, ...]
    radius: int

    @property
    def mask(self) -> np.uint64:
        """A word with these bits set."""
        return np.uint64(sum(1 << bit for bit in self.bits))

    @property
    def n_patterns(self) -> int:
        """How many keys are looked up for one word."""
        return sum(comb(len(self.bits), count) for count in range(self.radius + 1))

    @property
    def patterns(self) -> list[int]:
        """All sets of up to ``radius`` bits of a key, as numbers."""
        return [
            sum(1 << bit for bit in chosen)
            for count in range(self.radius + 1)
            for chosen in combinations(range(len(self.bits)), count)
        ]

    def keys(self, words: Words) -> Places:
        """Return the bits of each word that are in this chunk, as a number."""
        key = np.zeros(len(words), np.uint64)
        for place, bit in enumerate(self.bits):
            moved = words >> np.uint64(bit - place) if bit >= place else words << np.uint64(place - bit)
            moved &= np.uint64(1 << place)
            key |= moved
        return key.view(np.int64)

    def holds(self, difference: Words) -> npt.NDArray[np.bool_]:
        """Tell which pairs of words, given by their exclusive or, are found by this chunk."""
        is_held: npt.NDArray[np.bool_] = np.bitwise_count(difference & self.mask) <= self.radius
        return is_held


def _joined(probes: Words, shelves: Words | None, radius: int) -> Iterator[Pairs]:
    """Yield the pairs of two sets of distinct words in blocks; without ``shelves``, those among the probes."""
    chunks = _best_cut(probes, shelves, radius)
    if not chunks:
        yield from _compared(probes, shelves, radius)
        return
    for number, chunk in enumerate(chunks):
        for one, other, difference in _found(probes, shelves, chunk, radius):
            # A pair is yielded by the first chunk that finds it.
            is_new = np.ones(len(one), bool)
            for earlier in chunks[:number]:
                is_new &= ~earlier.holds(difference)
            yield one[is_new], other[is_new], np.bitwise_count(difference[is_new])


def _compared(probes: Words, shelves: Words | None, radius: int) -> Iterator[Pairs]:
    """Yield the pairs that comparing all with all finds."""
    targets = probes if shelves is None else shelves
    height, width = 16, 2**14  # a block of comparisons stays in the cache
    for top in range(0, len(probes), height):
        rows = probes[top : top + height, None]
        for left in range(top + 1 if shelves is None else 0, len(targets), width):
            distance = np.bitwise_count(rows ^ targets[left : left + width])
            if distance.min() > radius:
                continue
            one, other = np.nonzero(distance <= radius)
            if shelves is None:
                is_later = other + left > one + top
                one, other = one[is_later], other[is_later]
            yield one + top, other + left, distance[one, other]


def _best_cut(probes: Words, shelves: Words | None, radius: int) -> tuple[_Chunk, ...]:
    """Return the chunks that promise the least work on these words; none where comparing all with all is less.

    Bits that go together, as those of images that look alike do, belong into different chunks. A few ways of dealing
    the bits out are judged by a sample of pairs.
    """
    targets = probes if shelves is None else shelves
    n_pairs = len(probes) * len(targets) / (2 if shelves is None else 1)
    best: tuple[_Chunk, ...] = ()
    least = n_pairs * _COST_COMPARE
    if least < 1e6:  # a millisecond
        return best
    chance = np.random.default_rng(0)  # changes the time, never the answer
    sample = probes[chance.integers(len(probes), size=_SAMPLE)] ^ targets[chance.integers(len(targets), size=_SAMPLE)]
    for _ in range(_CUTS):
        bits = chance.permutation(N_BITS).tolist()
        for count in range(1, radius + 2):
            chunks = _cut(bits, count, radius)
            n_lookups = sum(chunk.n_patterns for chunk in chunks) * len(probes) / (2 if shelves is None else 1)
            cost = n_lookups * _COST_LOOKUP
            if cost >= least:
                continue
            for chunk in chunks:
                cost += (len(probes) + len(targets)) * _COST_SORT + 2.0 ** len(chunk.bits) * _COST_TABLE
                cost += float(chunk.holds(sample).mean()) * n_pairs * _COST_CANDIDATE
            if cost < least:
                best, least = chunks, cost
    return best


def _cut(bits: list[int], count: int, radius: int) -> tuple[_Chunk, ...]:
    """Return ``count`` chunks; words within ``radius`` of each other are so in one chunk or more.

    The radii of the chunks, one added to each, add up to ``radius + 1``: a pair that differs in more bits than that in
    every chunk differs in more than ``radius`` bits. Chunks with more bits get the larger radii.
    """
    base, extra = divmod(radius + 1, count)
    return tuple(
        _Chunk(tuple(sorted(bits[number::count][:_MAX_KEY_BITS])), base - 1 + (number < extra))
        for number in range(count)
    )


def _found(probes: Words, shelves: Words | None, chunk: _Chunk, radius: int) -> Iterator[tuple[Places, Places, Words]]:
    """Yield places of the pairs within ``radius`` that one chunk finds, and the exclusive or of their words."""
    asked = _Sorted.of(probes, chunk)
    shelf = asked if shelves is None else _Sorted.of(shelves, chunk)
    starts = np.zeros(2 ** len(chunk.bits) + 1, np.int32)
    np.cumsum(np.bincount(shelf.keys, minlength=len(starts) - 1), out=starts[1:])
    for places, low, end in _looked_up(asked.keys, starts, chunk, is_same=shelves is None):
        for found, place, difference in _close(asked.words[places], low, end, shelf.words, radius):
            yield asked.order[places[found]], shelf.order[place], difference


@dataclass(frozen=True, eq=False)
class _Sorted:
    """Words sorted by the key that a chunk makes of them, and where each was before."""

    words: Words
    keys: Places
    order: Places

    @classmethod
    def of(cls, words: Words, chunk: _Chunk) -> _Sorted:
        keys = chunk.keys(words)
        order = np.argsort(keys)
        return cls(words[order], keys[order], order)


def _looked_up(
    keys: Places, starts: Starts, chunk: _Chunk, *, is_same: bool
) -> Iterator[tuple[Places, Starts, Starts]]:
    """Yield which keys have neighbours, and from where to where the words of a neighbouring key are, in blocks.

    Parameters
    ----------
    keys
        Shape ``(n,)``, ascending.
    starts
        Shape ``(2 ** bits + 1,)``: where in the sorted words those of each key start.
    is_same
        Whether the keys are of these words; then of two neighbours only one is looked up, and of the words under one
        key only those behind.
    """
    is_taken = starts[1:] > starts[:-1]  # a byte a key stays in the cache where the starts do not
    patterns = chunk.patterns
    if not is_same:
        yield from _neighbours(keys, np.arange(len(keys)), patterns, starts, is_taken)
        return
    behind = np.arange(1, len(keys) + 1, dtype=np.int32)
    ends = starts[1:].take(keys)
    is_followed = np.flatnonzero(behind < ends)
    yield is_followed, behind[is_followed], ends[is_followed]
    for top in range(len(chunk.bits)):
        lower = np.flatnonzero((keys >> top) & 1 == 0)
        higher = [pattern for pattern in patterns if pattern.bit_length() == top + 1]
        yield from _neighbours(keys[lower], lower, higher, starts, is_taken)


def _neighbours(
    keys: Places,
    places: Places,
    patterns: Sequence[int],
    starts: Starts,
    is_taken: npt.NDArray[np.bool_],
) -> Iterator[tuple[Places, Starts, Starts]]:
    for begin in range(0, len(keys), _BLOCK):
        some, where = keys[begin : begin + _BLOCK], places[begin : begin + _BLOCK]
        step = max(1, _BLOCK // len(some))
        for number in range(0, len(patterns), step):
            flips = np.array(patterns[number : number + step])
            sought = (flips[:, None] ^ some).ravel()
            hits = np.flatnonzero(is_taken.take(sought))
            sought = sought.take(hits)
            low = starts.take(sought)
            sought += 1
            hits %= len(some)
            yield where.take(hits), low, starts.take(sought)


def _close(words: Words, low: Starts, end: Starts, shelf: Words, radius: int) -> Iterator[tuple[Places, Places, Words]]:
    """Compare each word with those from ``low`` to ``end`` of the shelf.

    Yields
    ------
    found, place, difference
        Places in ``words`` and in ``shelf`` of the pairs within ``radius``, and the exclusive or of the two.
    """
    found = np.arange(len(words))
    for _ in range(_ROUNDS):
        difference = shelf.take(low)
        difference ^= words
        close = np.flatnonzero(np.bitwise_count(difference) <= radius)
        if len(close):
            yield found[close], low[close].astype(np.int64), difference[close]
        low += 1
        more = np.flatnonzero(low < end)
        if not len(more):
            return
        words, low, end, found = words.take(more), low.take(more), end.take(more), found.take(more)
    for entry, offset in _counted(end - low):
        place: Places = low[entry] + offset
        difference = shelf[place] ^ words[entry]
        close = np.flatnonzero(np.bitwise_count(difference) <= radius)
        yield found[entry[close]], place[close], difference[close]

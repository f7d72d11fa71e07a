"""Close hashes: exactly the pairs that comparing all with all finds, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.errors import InputError
from medtool.split.duplicates import matching
from medtool.split.duplicates.matching import Words, close_matches, close_pairs, iter_close_matches, iter_close_pairs

Rows = set[tuple[int, int, int]]


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make few words go the way of many."""
    monkeypatch.setattr(matching, "_COST_COMPARE", 1e12)


def _by_definition(ones: Words, others: Words, radius: int) -> Rows:
    return {
        (i, j, bits)
        for i, one in enumerate(ones.tolist())
        for j, other in enumerate(others.tolist())
        if (bits := (one ^ other).bit_count()) <= radius
    }


def _rows(pairs: tuple[npt.NDArray[np.integer], ...]) -> list[tuple[int, ...]]:
    return list(zip(*(array.tolist() for array in pairs), strict=True))


def _near(words: Words, *, flips: int, seed: int) -> Words:
    """Return the words with ``flips`` different bits of each turned over."""
    chance = np.random.default_rng(seed)
    bits = chance.permuted(np.tile(np.arange(64, dtype=np.uint64), (len(words), 1)), axis=1)[:, :flips]
    return words ^ np.bitwise_or.reduce(np.uint64(1) << bits, axis=1) if flips else words.copy()


def _random(n: int, seed: int) -> Words:
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


# Words that are near one another: a few centres, each with a few bits turned over, some of them equal.
_flips = st.lists(st.integers(0, 63), max_size=10, unique=True).map(lambda bits: sum(1 << bit for bit in bits))
_hashes = st.lists(
    st.tuples(st.sampled_from([0, 2**64 - 1, 0x123456789ABCDEF0, 0xFFFF00000000FFFF]), _flips), max_size=30
).map(lambda pairs: np.array([centre ^ flips for centre, flips in pairs], dtype=np.uint64))
_radii = st.integers(0, 16) | st.sampled_from([17, 33, 63, 64])


@given(_hashes, _radii)
def test_the_pairs_are_those_of_the_definition(hashes: Words, radius: int) -> None:
    pairs = _rows(close_pairs(hashes, radius=radius))
    assert pairs == sorted(row for row in _by_definition(hashes, hashes, radius) if row[0] < row[1])


@given(_hashes, _hashes, _radii)
def test_the_matches_are_those_of_the_definition(queries: Words, index: Words, radius: int) -> None:
    assert _rows(close_matches(queries, index, radius=radius)) == sorted(_by_definition(queries, index, radius))


@pytest.mark.parametrize("radius", range(17))
@pytest.mark.usefixtures("chunked")
def test_chunks_find_the_same_as_comparing_all_with_all(radius: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if radius > 9:  # all patterns of the chunks would be more than the pairs
        monkeypatch.setattr(matching, "_MAX_KEY_BITS", 12)
    hashes = np.concatenate([_near(_random(20, seed), flips=seed, seed=radius) for seed in (0, 1)])
    hashes = np.concatenate([hashes, *(_near(hashes[:8], flips=flips, seed=flips) for flips in range(19))])
    assert matching._best_cut(hashes, None, radius)
    expected = _by_definition(hashes, hashes, radius)
    assert _rows(close_pairs(hashes, radius=radius)) == sorted(row for row in expected if row[0] < row[1])
    few = hashes[::7]
    assert _rows(close_matches(few, hashes, radius=radius)) == sorted(_by_definition(few, hashes, radius))
    assert _rows(close_matches(hashes, few, radius=radius)) == sorted(_by_definition(hashes, few, radius))


@pytest.mark.parametrize("block", [1, 7, 64])
@pytest.mark.parametrize("rounds", [0, 1, 8])
@pytest.mark.usefixtures("chunked")
def test_the_size_of_a_block_changes_nothing(block: int, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Words with a few bits that vary: long lists under one key; and many equal ones.
    hashes = np.random.default_rng(1).integers(0, 64, 100, dtype=np.uint64) << np.uint64(20)
    expected = close_pairs(hashes, radius=2)
    matches = close_matches(hashes[:40], hashes, radius=2)
    monkeypatch.setattr(matching, "_BLOCK", block)
    monkeypatch.setattr(matching, "_ROUNDS", rounds)
    assert _rows(close_pairs(hashes, radius=2)) == _rows(expected)
    assert _rows(close_matches(hashes[:40], hashes, radius=2)) == _rows(matches)
    monkeypatch.setattr(matching, "_LEAST_YIELDED", 100)
    sizes = [len(pairs[0]) for pairs in iter_close_pairs(hashes, radius=2)]
    assert sum(sizes) == len(expected[0])
    assert all(100 <= size < 100 + block for size in sizes[:-1])
    assert len(sizes) > 1


@given(radius=st.integers(0, 64), count=st.integers(1, 64))
def test_no_pair_within_the_radius_can_escape_every_chunk(radius: int, count: int) -> None:
    if count > radius + 1:
        return
    chunks = matching._cut(list(range(64)), count, radius)
    bits = [bit for chunk in chunks for bit in chunk.bits]
    assert len(bits) == len(set(bits))
    # A pair that no chunk finds differs in more bits than its radius in every chunk, so in this many or more.
    assert sum(chunk.radius + 1 for chunk in chunks) > radius
    assert all(chunk.radius >= 0 for chunk in chunks)
    assert all(len(chunk.bits) == len(set(chunk.bits)) <= 22 for chunk in chunks)


def test_every_planted_pair_is_found_among_two_hundred_thousand() -> None:
    hashes = _random(200_000, 0)
    n = 1000
    for flips in range(10):
        start = 100_000 + flips * n
        hashes[start : start + n] = _near(hashes[flips * n : (flips + 1) * n], flips=flips, seed=flips)
    first, second, distance = close_pairs(hashes, radius=8)
    found = {(i, j): bits for i, j, bits in zip(first.tolist(), second.tolist(), distance.tolist(), strict=True)}
    assert [found.get((place, 100_000 + place)) for place in range(9 * n)] == [place // n for place in range(9 * n)]
    assert not any((9 * n + place, 109_000 + place) in found for place in range(n))
    # By chance: n²/2 pairs, of which 6.1e-10 differ in at most 8 of 64 bits; about 5.
    assert len(found) < 9 * n + 30
    assert np.array_equal(np.bitwise_count(hashes[first] ^ hashes[second]), distance)


def test_many_queries_against_few_hashes_find_every_planted_match() -> None:
    index = _random(2_000, 1)
    queries = np.concatenate([_near(index, flips=flips, seed=flips) for flips in range(20)] + [_random(300_000, 2)])
    query, place, distance = close_matches(queries, index, radius=8)
    planted = query < 20 * len(index)
    assert np.array_equal(query[planted], np.arange(9 * len(index)))
    assert np.array_equal(place[planted], query[planted] % len(index))
    assert np.array_equal(distance[planted], query[planted] // len(index))


def test_thousands_of_equal_hashes_come_in_blocks_and_not_at_once() -> None:
    hashes = np.full(4_000, 7, np.uint64)
    tracemalloc.start()
    total = sum(len(first) for first, _, _ in iter_close_pairs(hashes, radius=8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 4_000 * 3_999 // 2
    assert peak < 100 * 2**20  # all pairs would be 136 MB and more
    assert sum(len(pairs[0]) for pairs in iter_close_matches(hashes[:1500], hashes, radius=0)) == 6_000_000


def test_more_pairs_than_can_be_returned_are_an_error_and_not_left_out() -> None:
    hashes = np.full(100, 7, np.uint64)
    with pytest.raises(InputError, match="more than 4,949 pairs of hashes differ in at most 8 bits"):
        close_pairs(hashes, radius=8, limit=4_949)
    assert len(close_pairs(hashes, radius=8, limit=4_950)[0]) == 4_950
    with pytest.raises(InputError, match="more than 9,999 pairs"):
        close_matches(hashes, hashes, radius=8, limit=9_999)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_no_hash_or_one_has_no_pair(n: int) -> None:
    hashes = np.arange(n, dtype=np.uint64)
    first, second, distance = close_pairs(hashes, radius=0)
    assert (len(first), len(second), len(distance)) == (0, 0, 0)
    assert (first.dtype, second.dtype, distance.dtype) == (np.int64, np.int64, np.uint8)
    assert len(close_matches(hashes, hashes[:0], radius=64)[0]) == 0
    assert len(close_matches(hashes[:0], hashes, radius=64)[0]) == 0


def test_a_distance_of_all_64_bits_is_kept() -> None:
    hashes = np.array([0, 2**64 - 1], np.uint64)
    assert _rows(close_pairs(hashes, radius=64)) == [(0, 1, 64)]
    assert _rows(close_matches(hashes[:1], hashes[1:], radius=64)) == [(0, 0, 64)]


def test_what_is_not_a_list_of_hashes_is_refused() -> None:
    with pytest.raises(TypeError, match="int64 of shape"):
        close_pairs(np.zeros(3, np.int64), radius=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"shape \(3, 1\)"):
        close_pairs(np.zeros((3, 1), np.uint64), radius=1)
    with pytest.raises(ValueError, match="the radius is 65"):
        close_pairs(np.zeros(3, np.uint64), radius=65)
    with pytest.raises(ValueError, match="the radius is -1"):
        close_matches(np.zeros(3, np.uint64), np.zeros(3, np.uint64), radius=-1)


@settings(max_examples=20)
@given(st.permutations(range(40)), st.integers(0, 12))
def test_the_order_of_the_hashes_does_not_matter(order: list[int], radius: int) -> None:
    hashes = np.concatenate([_random(20, 3), _near(_random(20, 3), flips=5, seed=1)])
    first, second, distance = close_pairs(hashes, radius=radius)
    place = np.array(order)
    moved = _rows(close_pairs(hashes[place], radius=radius))
    back = {(*sorted((order[i], order[j])), bits) for i, j, bits in moved}
    assert back == set(_rows((first, second, distance)))

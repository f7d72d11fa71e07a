"""What must stay together, and the seeded order of it."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from medtool.split.units import shuffled_units, units_of

CELLS = st.sampled_from(["", "a", "b", "c", "d"])


@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=3),
)
def test_units_are_what_chains_of_shared_values_and_pairs_link(
    rows: list[tuple[str, str]], pairs: list[tuple[int, int]]
) -> None:
    joined = [(one, other) for one, other in pairs if max(one, other) < len(rows)]
    frame = pl.DataFrame(rows, schema={"patient": pl.String, "lesion": pl.String}, orient="row")
    linked = np.eye(len(rows), dtype=bool)
    for one, other in itertools.combinations(range(len(rows)), 2):
        shares = any(mine and mine == theirs for mine, theirs in zip(rows[one], rows[other], strict=True))
        linked[one, other] = linked[other, one] = shares or (one, other) in joined or (other, one) in joined
    for middle in range(len(rows)):  # Warshall's transitive closure, the slow and plain way
        linked |= linked[:, [middle]] & linked[[middle]]
    units = units_of(frame, ["patient", "lesion"], joined)
    assert np.array_equal(units[:, np.newaxis] == units, linked)
    assert list(dict.fromkeys(units.tolist())) == list(range(units.max() + 1))


def test_the_same_text_in_two_columns_links_nothing() -> None:
    frame = pl.DataFrame({"patient": ["1", "2"], "lesion": ["2", "1"]})
    assert units_of(frame, ["patient", "lesion"]).tolist() == [0, 1]


def test_without_columns_and_pairs_every_row_is_a_unit() -> None:
    assert units_of(pl.DataFrame({"a": ["x", "x"]}), []).tolist() == [0, 1]
    assert units_of(pl.DataFrame({"a": ["", ""]}), ["a"]).tolist() == [0, 1]


@given(st.permutations(range(8)), st.integers(0, 5))
def test_the_seeded_order_is_that_of_the_ids_whatever_the_order_of_rows(order: list[int], seed: int) -> None:
    image_ids = pl.Series([f"image {row}" for row in range(8)])
    units = np.array([0, 0, 1, 2, 2, 2, 3, 1])
    places = shuffled_units(image_ids, units, seed=seed)
    assert sorted(places) == [0, 1, 2, 3]
    moved = units[order]
    _, renumbered = np.unique(moved, return_inverse=True)
    again = shuffled_units(image_ids[order], renumbered, seed=seed)
    assert again[renumbered].tolist() == places[moved].tolist()


def test_the_seeded_order_is_that_of_sha256() -> None:
    names = [f"image {row}" for row in range(40)]
    for seed in (0, 905):
        places = shuffled_units(pl.Series(names), np.arange(40), seed=seed)
        by_hash = sorted(names, key=lambda name: hashlib.sha256(f"medtool split {seed}\0{name}".encode()).hexdigest())
        assert [names[unit] for unit in np.argsort(places)] == by_hash

"""The units of a split: rows that must stay together, and an order of them that no order of rows changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl


def units_of(
    frame: pl.DataFrame, groups: Sequence[str], joined: Sequence[tuple[int, int]] = ()
) -> npt.NDArray[np.int64]:
    """Return the number of each row's unit, counted from 0 by first appearance.

    Two rows are in one unit if they share a value in any of the columns, or are joined, or are linked by a chain of
    such rows. An empty cell joins nothing.

    Parameters
    ----------
    groups
        Columns of text without nulls, such as ``patient`` and ``lesion``.
    joined
        Pairs of row numbers, such as those of duplicate images.

    Returns
    -------
    units
        Shape ``(rows,)``.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_rows = frame.height
    starts: list[npt.NDArray[np.int64]] = []
    ends: list[npt.NDArray[np.int64]] = []
    n_nodes = n_rows  # the rows, then the values of each column
    for name in groups:
        rows = frame.select(pl.arg_where(pl.col(name) != "")).to_series().to_numpy().astype(np.int64)
        if not len(rows):
            continue
        values = frame.get_column(name).gather(rows).rank("dense").to_numpy().astype(np.int64)
        starts.append(rows)
        ends.append(n_nodes + values - 1)
        n_nodes += int(values.max())
    if len(joined):
        pairs = np.asarray(joined, dtype=np.int64).reshape(-1, 2)
        starts.append(pairs[:, 0])
        ends.append(pairs[:, 1])
    if not starts:
        return np.arange(n_rows, dtype=np.int64)
    edges = (np.concatenate(starts), np.concatenate(ends))
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(n_nodes, n_nodes))
    _, components = connected_components(graph, directed=False)
    return _by_first_appearance(components[:n_rows])


def _by_first_appearance(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def shuffled_units(image_ids: pl.Series, units: npt.NDArray[np.int64], *, seed: int) -> npt.NDArray[np.int64]:
    """Return the place of each unit in an order that the seed and the units' image ids alone decide.

    The place of a unit comes from the smallest SHA-256 of ``seed, image_id`` among its rows, so it is the same on every
    machine and for every order of rows.

    Parameters
    ----------
    image_ids, units
        Of each row; ids are unique.

    Returns
    -------
    places
        Shape ``(units,)``, a permutation of 0 to the number of units - 1.
    """
    start = hashlib.sha256(f"medtool split {seed}\0".encode())
    digests = bytearray()
    for image_id in image_ids:
        digest = start.copy()
        digest.update(image_id.encode())
        digests += digest.digest()[:16]
    halves = np.frombuffer(bytes(digests), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    by_hash = np.lexsort((halves[:, 1], halves[:, 0]))
    _, first = np.unique(units[by_hash], return_index=True)  # where each unit is met first in the order of hashes
    places = np.empty(len(first), dtype=np.int64)
    places[np.argsort(first)] = np.arange(len(first))
    return places

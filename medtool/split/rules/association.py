"""How strongly two columns go together, from the numbers of rows with each pair of values.

Every function takes such a table: shape ``(values, classes)``, whole numbers, no row or column of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

N_RANDOM_TABLES = 9999
_SEED = 20170101  # of the random tables; the same table has the same p-value everywhere
_CELLS_AT_ONCE = 2_000_000


def p_value(counts: Counts) -> float:
    """Return how often chance alone makes an association as strong as this one.

    Pearson's chi-squared test where it may be trusted, by Cochran's rule: no expected number below 1, and at most a
    fifth of them below 5. Else, for two by two, Fisher's exact test; for more, the share of :data:`N_RANDOM_TABLES`
    random tables with the same margins (Patefield) whose chi-squared is as large, which is 0.0001 at the least.

    References
    ----------
    Cochran, "Some methods for strengthening the common χ² tests", Biometrics 10 (1954). Patefield, "Algorithm AS 159",
    Applied Statistics 30 (1981). The share counts the table itself: Phipson and Smyth, "Permutation p-values should
    never be zero" (2010).
    """
    from scipy.special import chdtrc

    if min(counts.shape) < 2:
        return 1.0
    expected = _expected(counts)
    if (expected >= 1).all() and (expected < 5).mean() <= 0.2:
        freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
        return float(chdtrc(freedom, _chi_squared(counts, expected)))
    if counts.shape == (2, 2):
        from scipy.stats import fisher_exact

        return float(fisher_exact(counts)[1])
    return _random_p_value(counts, expected)


def cramers_v(counts: Counts) -> float:
    """Return Cramér's V, corrected for its bias: about 0 where there is no association, 1 where it is complete.

    References
    ----------
    Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", Journal of the Korean Statistical Society 42 (2013).
    """
    n, (rows, columns) = counts.sum(), counts.shape
    if min(rows, columns) < 2 or n < 2:
        return 0.0
    mean_square = _chi_squared(counts, _expected(counts)) / n
    corrected = max(0.0, mean_square - (rows - 1) * (columns - 1) / (n - 1))
    fewest = min(side - (side - 1) ** 2 / (n - 1) for side in (rows, columns))
    return float(min(1.0, np.sqrt(corrected / (fewest - 1)))) if fewest > 1 else 0.0


def accuracy(counts: Counts) -> tuple[float, float]:
    """Return the accuracy of guessing the class from the value, and that of the most frequent class throughout."""
    n = counts.sum()
    return float(counts.max(axis=1).sum() / n), float(counts.sum(axis=0).max() / n)


def one_against_rest(counts: Counts) -> npt.NDArray[np.float64]:
    """Return for each class how well the value ranks it before all others: the area under the ROC curve, 0 to 1.

    A row is scored with the share of the class among the *other* rows of its value (of all rows, where it is alone), so
    that a value that only one row has tells nothing, and a column of names gets no credit for being unique. Two rows
    of one value are a tie. Chance is 0.5 or, in columns of many values, somewhat less.

    Returns
    -------
    areas
        Shape ``(classes,)``; 0.5 for a class that is the only one.
    """
    of_value = counts.sum(axis=1)
    n = of_value.sum()
    areas = np.full(counts.shape[1], 0.5)
    others = np.maximum(of_value - 1, 1)
    for place, positive in enumerate(counts.T):
        negative = of_value - positive
        n_positive, n_negative = positive.sum(), negative.sum()
        if not n_positive or not n_negative:
            continue
        base = n_positive / n
        of_positive = np.where(of_value > 1, (positive - 1) / others, base)
        of_negative = np.where(of_value > 1, positive / others, base)
        order = np.argsort(of_negative)
        below = np.concatenate([[0], np.cumsum(negative[order])])
        lower = below[np.searchsorted(of_negative[order], of_positive, side="left")]
        up_to = below[np.searchsorted(of_negative[order], of_positive, side="right")]
        # Within a value, leaving one out puts every positive below every negative: they are made ties.
        pairs = (positive * (lower + up_to) / 2).sum() + (positive * negative).sum() / 2
        areas[place] = pairs / (n_positive * n_negative)
    return areas


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in their order.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors), 1.0)
    return [float(value) for value in corrected]


def _expected(counts: Counts) -> npt.NDArray[np.float64]:
    expected: npt.NDArray[np.float64] = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    return expected


def _chi_squared(counts: Counts, expected: npt.NDArray[np.float64]) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def _random_p_value(counts: Counts, expected: npt.NDArray[np.float64]) -> float:
    from scipy.stats import random_table

    rng = np.random.Generator(np.random.PCG64(_SEED))
    tables = random_table(counts.sum(axis=1), counts.sum(axis=0))
    observed = _chi_squared(counts, expected) * (1 - 1e-9)  # equal tables may round differently
    at_once = max(1, _CELLS_AT_ONCE // counts.size)
    as_large, left = 0, N_RANDOM_TABLES
    while left:
        drawn = tables.rvs(size=min(at_once, left), random_state=rng)
        as_large += int((((drawn - expected) ** 2 / expected).sum(axis=(1, 2)) >= observed).sum())
        left -= len(drawn)
    return (1 + as_large) / (1 + N_RANDOM_TABLES)

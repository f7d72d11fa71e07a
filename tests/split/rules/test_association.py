"""How strongly two columns go together, held against scipy and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, fisher_exact, mannwhitneyu
from scipy.stats.contingency import association

from medtool.split.rules.association import accuracy, cramers_v, holm, one_against_rest, p_value

SHAPES = st.tuples(st.integers(2, 5), st.integers(2, 4))


@st.composite
def tables(draw: st.DrawFn, least: int = 0, most: int = 30) -> np.ndarray:
    rows, columns = draw(SHAPES)
    cells = st.lists(st.integers(least, most), min_size=rows * columns, max_size=rows * columns)
    counts = np.array(draw(cells), dtype=np.int64).reshape(rows, columns)
    counts[:, 0] += counts.sum(axis=1) == 0
    counts[0] += counts.sum(axis=0) == 0
    return counts


@settings(max_examples=50)
@given(tables(least=10, most=60))
def test_large_tables_have_pearsons_p_value(counts):
    assert p_value(counts) == pytest.approx(chi2_contingency(counts, correction=False).pvalue, rel=1e-9)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=4, max_size=4))
def test_small_tables_of_two_by_two_have_fishers_p_value(cells):
    counts = np.array(cells, dtype=np.int64).reshape(2, 2) + np.eye(2, dtype=np.int64)
    assert p_value(counts) == pytest.approx(fisher_exact(counts).pvalue, rel=1e-9)


@pytest.mark.parametrize("cells", [[[3, 0], [0, 4], [2, 2]], [[5, 1, 0], [0, 4, 1], [0, 0, 3]]])
def test_other_small_tables_have_the_p_value_of_all_orders_of_the_rows(cells):
    counts = np.array(cells, dtype=np.int64)
    first, second = (np.repeat(np.indices(counts.shape)[axis].ravel(), counts.ravel()) for axis in (0, 1))
    rng = np.random.default_rng(5)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()

    def chi_squared(second: np.ndarray) -> float:
        drawn = np.zeros(counts.shape)
        np.add.at(drawn, (first, second), 1)
        return float(((drawn - expected) ** 2 / expected).sum())

    observed = chi_squared(second) - 1e-9
    share = np.mean([chi_squared(rng.permutation(second)) >= observed for _ in range(4000)])
    assert p_value(counts) == pytest.approx(share, abs=0.03)
    assert p_value(counts) == p_value(counts)


def test_a_random_p_value_is_never_zero_and_reaches_far_enough():
    assert p_value(np.diag([4, 4, 4, 4])) == 1 / 10000
    assert p_value(np.array([[4, 0], [0, 4]])) == pytest.approx(2 / 70)


def test_one_value_or_one_class_is_no_association():
    for counts in (np.array([[5, 7]]), np.array([[5], [7]])):
        assert (p_value(counts), cramers_v(counts)) == (1.0, 0.0)
        assert one_against_rest(counts).shape == (counts.shape[1],)


@given(tables())
def test_cramers_v_lies_between_none_and_complete_and_does_not_exceed_the_uncorrected_one_by_much(counts):
    corrected = cramers_v(counts)
    assert 0.0 <= corrected <= 1.0
    if min(counts.shape) == max(counts.shape) and counts.sum() > 100:
        assert corrected <= association(counts) + 0.01


def test_cramers_v_of_complete_association_is_one_and_of_none_zero():
    assert cramers_v(np.diag([50, 50])) == pytest.approx(1.0)
    assert cramers_v(np.array([[25, 25], [25, 25]])) == 0.0
    assert cramers_v(np.array([[3, 1], [1, 3], [2, 2]])) < association(np.array([[3, 1], [1, 3], [2, 2]]))


def test_the_accuracy_of_guessing_is_that_of_the_most_frequent_class():
    assert accuracy(np.array([[8, 2], [1, 9]])) == (0.85, 0.55)


@settings(max_examples=60)
@given(tables(most=6))
def test_the_area_is_that_of_comparing_every_pair_of_rows(counts):
    areas = one_against_rest(counts)
    n = counts.sum()
    for place in range(counts.shape[1]):
        positive, of_value = counts[:, place], counts.sum(axis=1)
        negative = of_value - positive
        wins = pairs = 0.0
        for p in range(len(counts)):
            for q in range(len(counts)):
                score_p = (positive[p] - 1) / (of_value[p] - 1) if of_value[p] > 1 else positive.sum() / n
                score_q = positive[q] / (of_value[q] - 1) if of_value[q] > 1 else positive.sum() / n
                won = 0.5 if p == q or score_p == score_q else float(score_p > score_q)
                wins += won * positive[p] * negative[q]
                pairs += positive[p] * negative[q]
        assert areas[place] == pytest.approx(wins / pairs if pairs else 0.5)


def test_the_area_of_few_large_values_is_that_of_a_rank_test():
    counts = np.array([[900, 100], [500, 500], [50, 950]])
    ranks = np.repeat([0, 1, 2], counts[:, 1]), np.repeat([0, 1, 2], counts[:, 0])
    area = mannwhitneyu(*ranks).statistic / (len(ranks[0]) * len(ranks[1]))
    assert one_against_rest(counts) == pytest.approx([area, area])


def test_a_column_of_names_gets_no_credit():
    assert one_against_rest(np.eye(2, dtype=np.int64).repeat(30, axis=0)) == pytest.approx([0.5, 0.5])
    assert one_against_rest(np.diag([30, 30])) == pytest.approx([1.0, 1.0])


def test_p_values_are_corrected_for_their_number():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.001]) == pytest.approx([0.9, 0.002])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []

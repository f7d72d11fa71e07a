from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as run
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from medtool.errors import InputError
from medtool.segment import prompts
from medtool.segment.heatmap import otsu_threshold
from medtool.segment.options import PromptOptions, Strategy
from medtool.segment.prompts import choose_points

heatmaps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(0, 2.0**100, width=32),
)
options = st.builds(
    PromptOptions,
    points=st.integers(1, 6),
    negatives=st.integers(0, 4),
    strategy=st.sampled_from(Strategy),
    power=st.floats(0.01, 9999),
    min_distance_px=st.one_of(st.just(0.0), st.floats(0, 1e300)),
)


GOLDEN = [[51, 20], [50, 22], [51, 17], [51, 19], [50, 16], [5, 20], [28, 46]]


def hill(height: int = 60, width: int = 80, *, x: float = 50, y: float = 20, sigma: float = 8) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)


def distances(points: np.ndarray) -> np.ndarray:
    apart = np.hypot(*np.moveaxis(points[:, None] - points[None], -1, 0))
    return apart[np.triu_indices(len(points), 1)]


@run(max_examples=300)
@given(heatmaps, options)
def test_points_are_as_many_as_asked_distinct_inside_apart_and_on_heat_or_it_is_refused(heatmap, wanted):
    assume(heatmap.min() < heatmap.max())
    try:
        points, labels = choose_points(heatmap, wanted, seed_text="image")
    except InputError:
        assert wanted.points + wanted.negatives > 1  # one point always fits
        return
    assert points.dtype == np.float64
    assert labels.dtype == np.int64
    assert labels.tolist() == [1] * wanted.points + [0] * wanted.negatives
    x, y = points.astype(int).T
    np.testing.assert_array_equal(points, np.stack([x, y], axis=1))
    assert len({*zip(x, y, strict=True)}) == len(points)
    assert ((x >= 0) & (y >= 0) & (x < heatmap.shape[1]) & (y < heatmap.shape[0])).all()
    assert (heatmap[y, x][labels == 1] > 0).all()
    assert (heatmap[y, x][labels == 0] < heatmap.max()).all()
    apart = distances(points if wanted.strategy is not Strategy.PEAKS else points[labels == 1])
    assert (apart >= wanted.min_distance_px).all()


@given(heatmaps, options, st.sampled_from([2.0**-10, 2.0**10]))
def test_the_heatmaps_scale_does_not_matter(heatmap, wanted, factor):
    assume(heatmap.min() < heatmap.max())
    assume(heatmap[heatmap > 0].min() > 1e-30)

    def answer(scaled: np.ndarray) -> list[list[float]]:
        try:
            return choose_points(scaled, wanted, seed_text="image")[0].tolist()
        except InputError:
            return []

    assert answer(heatmap) == answer(heatmap * np.float32(factor))


def frequencies_follow(heatmap: np.ndarray, power: float) -> None:
    """Chi-square tests of the first and of the second point drawn, over many seeds."""
    n = 4000
    wanted = PromptOptions(points=2, power=power)
    drawn = np.zeros((2, *heatmap.shape))
    for image in range(n):
        x, y = choose_points(heatmap, wanted, seed_text=str(image))[0].astype(int).T
        drawn[[0, 1], y, x] += 1
    first = (heatmap.astype(np.float64) ** power).ravel()
    first /= first.sum()
    given_first = np.where(np.eye(first.size, dtype=bool), 0.0, first[np.newaxis] / (1 - first[:, np.newaxis]))
    for counts, expected in zip(drawn.reshape(2, -1), (first, first @ given_first), strict=True):
        is_possible = expected > 0
        assert counts[~is_possible].sum() == 0
        assert stats.chisquare(counts[is_possible], n * expected[is_possible]).pvalue > 1e-3


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_draws_follow_the_heatmap_to_the_power_without_replacement(power):
    heatmap = np.array([[0, 1, 2, 3], [4, 5, 6, 0], [2, 2, 9, 1]], dtype=np.float32)
    frequencies_follow(heatmap, power)


def test_draws_do_not_depend_on_how_the_map_is_cut_into_strips(monkeypatch):
    wanted = PromptOptions(points=6, negatives=3, min_distance_px=3, power=1)
    whole = choose_points(hill(), wanted, seed_text="image")[0]
    monkeypatch.setattr(prompts, "_CHUNK_PIXELS", 100)
    np.testing.assert_array_equal(choose_points(hill(), wanted, seed_text="image")[0], whole)


def test_the_points_of_one_seed_are_these_on_every_machine():
    points, _ = choose_points(hill(), PromptOptions(negatives=2), seed_text="image")
    assert points.tolist() == GOLDEN


def test_seed_and_seed_text_each_change_the_points():
    def answer(seed: int, text: str) -> list[list[float]]:
        return choose_points(hill(), PromptOptions(seed=seed), seed_text=text)[0].tolist()

    assert answer(905, "a") == answer(905, "a")
    assert len({str(answer(*each)) for each in ((905, "a"), (905, "b"), (906, "a"))}) == 3


def test_a_high_power_stays_close_to_the_maximum():
    points, _ = choose_points(hill(), PromptOptions(points=20), seed_text="image")
    assert np.median(np.hypot(points[:, 0] - 50, points[:, 1] - 20)) < 3


@pytest.mark.parametrize("top", [1e-38, 1.0, 3e38])
@pytest.mark.parametrize("power", [30.0, 9999.0])
def test_powers_neither_overflow_nor_run_dry(top, power):
    heatmap = np.array([[1, 0.5, 0.25], [0.125, 0, 1e-3]], dtype=np.float32) * np.float32(top)
    points, _ = choose_points(heatmap, PromptOptions(points=5, power=power), seed_text="image")
    assert points.tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [2, 1]]


def test_negatives_lie_where_the_heatmap_is_low():
    points, labels = choose_points(hill(), PromptOptions(points=1, negatives=40), seed_text="image")
    x, y = points[labels == 0].astype(int).T
    assert hill()[y, x].max() < 0.2


def test_negatives_keep_the_minimum_distance_from_positives():
    for image in range(20):
        wanted = PromptOptions(points=3, negatives=3, min_distance_px=12, power=1)
        points, _ = choose_points(hill(), wanted, seed_text=str(image))
        assert distances(points).min() >= 12


def two_hills() -> np.ndarray:
    return np.maximum(hill(x=20, y=15, sigma=5), np.float32(0.8) * hill(x=60, y=45, sigma=5))


def test_peaks_are_the_local_maxima_from_the_highest_down():
    points, _ = choose_points(two_hills(), PromptOptions(points=2, strategy=Strategy.PEAKS), seed_text="")
    assert points.tolist() == [[20, 15], [60, 45]]


def test_the_peak_of_a_plateau_lies_in_its_middle():
    heatmap = np.zeros((21, 31), dtype=np.float32)
    heatmap[4:11, 5:16] = 1
    points, _ = choose_points(heatmap, PromptOptions(points=1, strategy=Strategy.PEAKS), seed_text="")
    assert points.tolist() == [[10, 7]]


def test_where_there_are_too_few_peaks_the_next_highest_pixels_far_enough_away_follow():
    points, _ = choose_points(hill(), PromptOptions(points=4, strategy=Strategy.PEAKS), seed_text="")
    assert points[0].tolist() == [50, 20]
    assert distances(points).min() >= prompts.PEAK_SEPARATION * 60


def test_one_centroid_is_the_weighted_centroid_of_the_hot_pixels():
    points, _ = choose_points(hill(x=50, y=20), PromptOptions(points=1, strategy=Strategy.CENTROID), seed_text="")
    assert points.tolist() == [[50, 20]]


def test_centroids_spread_along_the_long_axis():
    rows, columns = np.mgrid[:40, :120]
    bar = ((np.abs(columns - 60) <= 45) & (np.abs(rows - 20) <= 6)).astype(np.float32)
    points, _ = choose_points(bar, PromptOptions(points=3, strategy=Strategy.CENTROID), seed_text="")
    assert sorted(points[:, 0]) == pytest.approx([30, 60, 90], abs=1.5)
    assert points[:, 1] == pytest.approx([20, 20, 20], abs=1)


@pytest.mark.parametrize("strategy", [Strategy.GRID, Strategy.CENTROID])
def test_grid_and_centroids_lie_on_hot_pixels(strategy):
    threshold, _ = otsu_threshold(two_hills())
    points, _ = choose_points(two_hills(), PromptOptions(points=9, strategy=strategy), seed_text="")
    x, y = points.astype(int).T
    assert (two_hills()[y, x] >= threshold).all()


def test_grid_points_share_rows_and_columns_of_one_step():
    rows, columns = np.mgrid[:100, :100]
    square = ((np.abs(columns - 50) <= 30) & (np.abs(rows - 50) <= 30)).astype(np.float32)
    points, _ = choose_points(square, PromptOptions(points=9, strategy=Strategy.GRID), seed_text="")
    steps = {int(step) for axis in points.T for step in np.diff(np.unique(axis))}
    assert len(steps) == 1
    assert steps.pop() >= 27


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize(
    ("heatmap", "reason"),
    [
        (np.zeros((5, 5)), "constant"),
        (np.full((5, 5), 0.3), "constant"),
        (np.full((5, 5), np.nan), "not finite"),
        (np.where(np.eye(5), np.inf, 0.0), "not finite"),
        (np.eye(5) - 0.5, "down to -0.5"),
        (np.ones((5, 5, 1)), "shape"),
        (np.ones((0, 5)), "shape"),
    ],
)
def test_a_heatmap_no_point_can_be_chosen_from_is_refused(heatmap, reason, strategy):
    with pytest.raises(InputError, match=reason):
        choose_points(heatmap.astype(np.float32), PromptOptions(strategy=strategy), seed_text="image")


@pytest.mark.parametrize("strategy", list(Strategy))
def test_fewer_pixels_than_points_are_refused_with_what_to_do(strategy):
    with pytest.raises(InputError, match="only 3 of 5 positive points") as caught:
        choose_points(np.eye(3, dtype=np.float32), PromptOptions(strategy=strategy), seed_text="image")
    assert "fewer points" in str(caught.value.hint)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_distance_that_the_image_has_no_room_for_is_refused(strategy):
    wanted = PromptOptions(points=2, strategy=strategy, min_distance_px=200)
    with pytest.raises(InputError, match="200 px apart"):
        choose_points(hill(), wanted, seed_text="image")


def test_negatives_without_room_are_refused():
    heatmap = np.ones((4, 4), dtype=np.float32)
    heatmap[0, 0] = 0
    with pytest.raises(InputError, match="only 1 of 2 negative points"):
        choose_points(heatmap, replace(PromptOptions(), negatives=2), seed_text="image")

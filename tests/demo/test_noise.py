"""Fields have the mean, the spread and the smoothness that phantoms count on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medtool.demo.noise import Lattice, generator, octaves, smooth_noise, smoothstep, standardised


def test_a_stream_depends_on_every_part_of_its_key() -> None:
    draws = {
        tuple(generator(*key).integers(0, 2**60, 2)) for key in [(1, 2, 3), (1, 2, 4), (1, 3, 2), (2, 2, 3), (1, 2)]
    }
    assert len(draws) == 5
    assert np.array_equal(generator(1, 2, 3).standard_normal(5), generator(1, 2, 3).standard_normal(5))


@pytest.mark.parametrize("period", [2.5, 9.0, 40.0])
def test_smooth_noise_has_mean_0_and_variance_1_over_many_draws(period: float) -> None:
    fields = np.stack([smooth_noise(generator(7, i), (60, 90), period_px=period) for i in range(200)])
    assert abs(float(fields.mean())) < 0.1
    assert float(fields.var()) == pytest.approx(1.0, abs=0.12)


def test_octaves_keep_the_variance_of_one() -> None:
    fields = np.stack([octaves(generator(8, i), (50, 50), coarse_px=32, count=4, gain=0.7) for i in range(200)])
    assert float(fields.var()) == pytest.approx(1.0, abs=0.12)


def test_a_lattice_has_mean_0_and_variance_1_and_repeats() -> None:
    x, y = np.meshgrid(np.linspace(0, 31, 200), np.linspace(0, 31, 200))
    lattice = Lattice(generator(3), period=1.0, cells=32)
    values = lattice.at(x, y)
    assert abs(float(values.mean())) < 0.1
    assert float(values.var()) == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(lattice.at(x + 32, y - 64), values, atol=0.05)


def test_a_lattice_is_the_cubic_spline_that_scipy_evaluates() -> None:
    rng = generator(5)
    weights = generator(5).standard_normal((32, 32)) / (151 / 315)
    lattice = Lattice(rng, period=2.0, cells=32)
    x, y = generator(6).uniform(0, 60, (2, 40, 40))
    places = np.stack([y / 2.0, x / 2.0])
    expected = ndimage.map_coordinates(weights, places, order=3, mode="grid-wrap", prefilter=False)
    np.testing.assert_allclose(lattice.at(x, y), expected, atol=0.03)


def test_a_lattice_zoomed_in_shows_the_same_structure() -> None:
    x, y = np.meshgrid(np.linspace(-5, 5, 81), np.linspace(-5, 5, 81))
    wide, close = Lattice(generator(4), period=1.3), Lattice(generator(4), period=1.3)
    np.testing.assert_allclose(close.at(x / 4, y / 4)[::4, ::4], wide.at(x, y)[30:51, 30:51], atol=1e-4)


@given(st.floats(-5, 5), st.floats(0.01, 5))
def test_smoothstep_rises_from_0_to_1(low: float, width: float) -> None:
    values = smoothstep(np.linspace(low - 1, low + width + 1, 101), low, low + width)
    assert values[0] == 0
    assert values[-1] == 1
    assert (np.diff(values) >= -1e-12).all()
    assert float(smoothstep(low + width / 2, low, low + width)) == pytest.approx(0.5)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100), st.floats(-50, 50))
def test_standardised_values_have_one_mean_and_contrast_whatever_they_were(
    seed: int, scale: float, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.gamma(1.5, scale, (30, 30)) + shift
    where = rng.random((30, 30)) < 0.5
    result = standardised(values, where, limit=2.5)[where]
    assert float(result.mean()) == pytest.approx(0.0, abs=1e-9)
    assert float(result.std()) == pytest.approx(1.0, abs=1e-9)


def test_an_even_field_is_standardised_to_nothing() -> None:
    assert not standardised(np.full((4, 4), 3.0), np.ones((4, 4), bool), limit=2.0).any()

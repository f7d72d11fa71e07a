from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.filters import threshold_otsu

from medtool.errors import InputError
from medtool.protocols import Prompt, Segmenter
from medtool.segment.heatmap import HeatmapThreshold, otsu_threshold

heatmaps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=20),
    elements=st.floats(0, 1000, width=32),
)


def prompt_of(heatmap: np.ndarray) -> Prompt:
    return Prompt(np.zeros((1, 2)), np.ones(1, dtype=np.int64), heatmap)


def test_the_threshold_parts_pixels_as_scikit_images_does():
    rng = np.random.default_rng(905)
    for share in (0.1, 0.3, 0.5, 0.8):
        high = rng.random((80, 90)) < share
        heatmap = np.where(high, rng.normal(5, 1, high.shape), rng.normal(2, 0.6, high.shape)).astype(np.float32)
        threshold, _ = otsu_threshold(heatmap)
        width = float(np.ptp(heatmap)) / 256
        assert threshold == pytest.approx(threshold_otsu(heatmap), abs=width)
        assert np.mean((heatmap >= threshold) != (heatmap > threshold_otsu(heatmap))) < 0.01


@given(heatmaps)
def test_both_sides_of_the_threshold_hold_pixels_and_the_separability_is_a_share(heatmap):
    assume(float(heatmap.max()) - float(heatmap.min()) >= float(np.finfo(np.float32).tiny))
    threshold, separability = otsu_threshold(heatmap)
    above = heatmap >= threshold
    assert above.any()
    assert not above.all()
    assert 0 < separability <= 1


def test_two_values_are_parted_wholly():
    heatmap = np.zeros((4, 4), dtype=np.float32)
    heatmap[1:3, 1:3] = 7
    candidates = HeatmapThreshold().segment((4, 4), prompt_of(heatmap))
    np.testing.assert_array_equal(candidates.masks, (heatmap > 0)[np.newaxis])
    assert candidates.scores == pytest.approx([1.0])


def test_it_is_a_segmenter_that_needs_no_torch_and_no_weights():
    assert isinstance(HeatmapThreshold(), Segmenter)
    assert HeatmapThreshold.weights is None
    assert not HeatmapThreshold.needs_torch


def test_the_embedding_is_the_images_size():
    assert HeatmapThreshold().embed(np.zeros((5, 9, 3), dtype=np.uint8)) == (5, 9)


def test_a_heatmap_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"\(4, 4\), the image \(5, 9\)"):
        HeatmapThreshold().segment((5, 9), prompt_of(np.zeros((4, 4), dtype=np.float32)))


@pytest.mark.parametrize(("value", "reason"), [(0.5, "constant"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_a_heatmap_without_a_threshold_is_refused(value, reason):
    heatmap = np.full((3, 3), value, dtype=np.float32)
    with pytest.raises(InputError, match=reason):
        HeatmapThreshold().segment((3, 3), prompt_of(heatmap))

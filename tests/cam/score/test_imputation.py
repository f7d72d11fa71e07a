"""Guessed pixels: equal to those of pytorch-grad-cam's ROAD, and quicker."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.road import NoisyLinearImputer

from medtool.cam.score.imputation import NOISE, LinearImputer


# The peer hands tensors to NumPy in a way that is on its way out.
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@given(st.integers(2, 40), st.integers(2, 40), st.floats(0.02, 0.95), st.integers(0, 2**16))
def test_guessed_pixels_are_those_of_the_peer(height: int, width: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(3, height, width)).astype(np.float32)
    is_missing = rng.random((height, width)) < share
    is_missing[0, 0], is_missing[-1, -1] = True, False
    theirs = NoisyLinearImputer(noise=0)(torch.from_numpy(image), torch.from_numpy(~is_missing).float())
    ours = LinearImputer(height, width).fill(image, is_missing)
    assert ours == pytest.approx(theirs.numpy(), abs=1e-5)
    assert (ours[:, ~is_missing] == image[:, ~is_missing]).all()


def test_what_is_missing_does_not_matter_even_if_it_is_no_number() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(size=(3, 20, 31)).astype(np.float32)
    is_missing = np.zeros((20, 31), bool)
    is_missing[4:15, 6:30] = True
    broken = image.copy()
    broken[:, is_missing] = np.nan
    imputer = LinearImputer(20, 31)
    assert (imputer.fill(broken, is_missing) == imputer.fill(image, is_missing)).all()


def test_a_plain_colour_stays_itself_and_noise_has_its_size() -> None:
    image = np.full((3, 64, 64), 0.25, np.float32)
    is_missing = np.ones((64, 64), bool)
    is_missing[0, 0] = False
    imputer = LinearImputer(64, 64)
    assert imputer.fill(image, is_missing) == pytest.approx(image, abs=1e-5)
    noisy = [imputer.fill(image, is_missing, chance=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert (noisy[0] == noisy[1]).all()
    assert not (noisy[0] == noisy[2]).all()
    assert (noisy[0] - image)[:, is_missing].std() == pytest.approx(NOISE, rel=0.05)


def test_nothing_missing_is_the_image_and_everything_missing_is_refused() -> None:
    image = np.ones((1, 5, 4), np.float32)
    imputer = LinearImputer(5, 4)
    assert (imputer.fill(image, np.zeros((5, 4), bool)) == image).all()
    with pytest.raises(ValueError, match="all pixels are missing"):
        imputer.fill(image, np.ones((5, 4), bool))

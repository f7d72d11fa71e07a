from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st
from scipy import stats

from medtool.errors import UsageError
from medtool.train.mixing import draw_mix, mixup


def batch(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand((n, 3, 4, 6), generator=generator)
    return images, torch.eye(n)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8), alpha=st.floats(0.01, 10))
@run(max_examples=50)
def test_targets_say_how_much_of_which_image_is_in_each(seed, n, alpha):
    images, targets = batch(n)
    mixed, shares = mixup(images, targets, torch.Generator().manual_seed(seed), alpha=alpha)
    assert torch.allclose(shares.sum(dim=1), torch.ones(n), atol=1e-6)
    assert (shares.diagonal() >= 0.5 - 1e-6).all()
    assert torch.allclose(mixed, torch.einsum("nk,kchw->nchw", shares, images), atol=1e-5)
    assert torch.allclose(shares.sum(dim=0), torch.ones(n), atol=1e-5)  # every image is a partner once


def test_the_same_generator_gives_the_same_mix_and_leaves_the_batch_as_it_was():
    images, targets = batch()
    kept = images.clone()
    torch.manual_seed(1)
    one = mixup(images, targets, torch.Generator().manual_seed(7), alpha=0.2)
    torch.manual_seed(2)
    other = mixup(images, targets, torch.Generator().manual_seed(7), alpha=0.2)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(images, kept)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_weights_follow_the_beta_distribution_folded_at_a_half(alpha: float):
    generator = torch.Generator().manual_seed(11)
    weights = np.array([draw_mix(2, generator, alpha=alpha).weight for _ in range(500)])
    expected = stats.beta(alpha, alpha)
    assert stats.kstest(weights, lambda w: 2 * expected.cdf(w) - 1).pvalue > 1e-3


def test_a_mix_blends_other_tensors_of_the_batch_alike():
    mix = draw_mix(5, torch.Generator().manual_seed(5), alpha=1.0)
    metadata = torch.arange(5.0)[:, None]
    expected = mix.weight * metadata + (1 - mix.weight) * metadata[mix.partners]
    assert torch.allclose(mix.of(metadata), expected)


def test_an_alpha_of_nothing_leaves_the_batch():
    images, targets = batch()
    assert mixup(images, targets, torch.Generator(), alpha=0.0) == (images, targets)


@pytest.mark.parametrize("alpha", [-0.2, float("nan"), float("inf")])
def test_an_alpha_that_is_no_amount_is_refused(alpha: float):
    images, targets = batch()
    with pytest.raises(UsageError, match="alpha"):
        mixup(images, targets, torch.Generator(), alpha=alpha)

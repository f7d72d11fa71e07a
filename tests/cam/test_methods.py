"""Each method's formula, on activations small enough to work out by hand, and its properties on any."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medtool.cam.choices import Method
from medtool.cam.methods import WEIGHTED, eigencam, gradcam, gradcam_plus_plus, hirescam, layercam, xgradcam

ACTIVATIONS = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 1.0]]]])
GRADIENTS = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[-2.0, 2.0], [0.0, 4.0]]]])


def test_the_formulas_give_what_is_worked_out_by_hand() -> None:
    assert gradcam(ACTIVATIONS, GRADIENTS)[0].tolist() == [[0.5, 2.0], [1.5, 3.0]]
    assert hirescam(ACTIVATIONS, GRADIENTS)[0].tolist() == [[1.0, 2.0], [0.0, 8.0]]
    assert layercam(ACTIVATIONS, GRADIENTS)[0].tolist() == [[1.0, 2.0], [0.0, 8.0]]
    # Weights: (1·1 + 4·1) / 10 and (1·2 + 1·4) / 2.
    assert np.allclose(xgradcam(ACTIVATIONS, GRADIENTS)[0], [[0.5, 4.0], [1.5, 5.0]], atol=1e-5)
    # Weights: 2 · 1 / (2 + 10) and 2 · 4 / (8 + 2 · 8) + 4 · 16 / (32 + 2 · 64).
    first, second = 2 / 12, 2 * 4 / 24 + 4 * 16 / 160
    expected = [[first, 2 * first + second], [3 * first, 4 * first + second]]
    assert np.allclose(gradcam_plus_plus(ACTIVATIONS, GRADIENTS)[0], expected, atol=1e-5)


def test_a_share_that_would_be_infinite_counts_nothing_where_its_gradient_is_not_positive() -> None:
    # 2 · g² + total · g³ + 10⁻⁶ = 0 for g = −1.
    activations = torch.full((1, 1, 1, 2), 1.0)
    activations[0, 0, 0, 0] = 2 + 1e-6 - 1
    gradients = torch.tensor([[[[-1.0, 0.5]]]])

    assert gradcam_plus_plus(activations, gradients).isfinite().all()


@given(st.integers(0, 10_000), st.sampled_from(sorted(WEIGHTED)))
def test_each_image_has_the_map_that_it_has_alone(seed: int, method: Method) -> None:
    activations, gradients = _drawn(seed)

    together = WEIGHTED[method](activations, gradients)

    alone = torch.cat([WEIGHTED[method](activations[i : i + 1], gradients[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 10_000))
def test_eigencam_is_the_projection_on_the_direction_of_most_variance(seed: int) -> None:
    activations, _ = _drawn(seed)

    found = eigencam(activations)

    for image, component in zip(activations.double(), found.double(), strict=True):
        cells = image.flatten(1).T
        centred = cells - cells.mean(0)
        _, values, directions = torch.linalg.svd(centred)
        expected = centred @ directions[0]
        if values[1] < 0.99 * values[0]:
            near = min((expected - sign * component.flatten()).abs().max() for sign in (1, -1))
            assert near < 1e-3 * expected.abs().max()


def test_eigencam_is_high_where_the_layer_responds_whichever_has_more_cells_or_channels() -> None:
    for channels in (3, 40):
        activations = torch.rand(1, channels, 4, 5, generator=torch.Generator().manual_seed(1)) * 0.1
        activations[0, :, 1, 3] += 2

        found = eigencam(activations)[0]

        assert found.argmax() == 1 * 5 + 3
        assert found.max() > 10 * found.min().abs()


def test_eigencam_of_what_is_no_number_is_none_and_leaves_the_others() -> None:
    activations, _ = _drawn(3)
    expected = eigencam(activations)
    activations[1, 2, 0, 0] = torch.inf

    found = eigencam(activations)

    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert (eigencam(torch.ones(1, 4, 3, 3)) == 0).all()


def _drawn(seed: int) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return torch.rand(3, 6, 4, 5, generator=chance), torch.randn(3, 6, 4, 5, generator=chance)

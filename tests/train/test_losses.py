from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional

from medtool.errors import InputError, UsageError
from medtool.runs.choices import Task
from medtool.train.losses import ClassWeights, LossName, class_weights, label_weights, make_loss, weights_of

CE, BCE, FOCAL = LossName.CROSS_ENTROPY, LossName.BCE, LossName.FOCAL
SINGLE, MULTI = Task.SINGLE, Task.MULTI


def of_seed(seed: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    """Logits (n, k) and classes (n,)."""
    chance = torch.Generator().manual_seed(seed)
    return 4 * torch.randn(n, k, generator=chance), torch.randint(k, (n,), generator=chance)


def one_hot(classes: Tensor, k: int) -> Tensor:
    return functional.one_hot(classes, k).float()


def multi_hot(seed: int, n: int, k: int) -> Tensor:
    return (torch.rand(n, k, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


@given(st.integers(0, 999), st.integers(1, 9), st.integers(2, 6), st.sampled_from([0.0, 0.1, 0.6]), st.booleans())
def test_cross_entropy_of_hard_targets_is_torchs(seed: int, n: int, k: int, smoothing: float, weighted: bool) -> None:
    logits, classes = of_seed(seed, n, k)
    weights = torch.rand(k, generator=torch.Generator().manual_seed(seed)) + 0.05 if weighted else None
    ours = make_loss(CE, task=SINGLE, class_weights=weights, label_smoothing=smoothing)(logits, one_hot(classes, k))
    torchs = functional.cross_entropy(logits, classes, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(ours, torchs)


def test_cross_entropy_of_mixed_targets_is_torchs() -> None:
    logits, classes = of_seed(3, 8, 4)
    targets = 0.7 * one_hot(classes, 4) + 0.3 * one_hot(classes.flip(0), 4)
    ours = make_loss(CE, task=SINGLE, label_smoothing=0.1)(logits, targets)
    torch.testing.assert_close(ours, functional.cross_entropy(logits, targets, label_smoothing=0.1))


def test_the_gradient_of_weighted_cross_entropy_is_torchs() -> None:
    logits, classes = of_seed(4, 8, 3)
    weights = torch.tensor([0.2, 1.0, 3.0])
    ours, torchs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    make_loss(CE, task=SINGLE, class_weights=weights)(ours, one_hot(classes, 3)).backward()
    functional.cross_entropy(torchs, classes, weight=weights).backward()
    torch.testing.assert_close(ours.grad, torchs.grad)


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 6), st.booleans())
def test_binary_cross_entropy_is_torchs(seed: int, n: int, k: int, weighted: bool) -> None:
    logits, targets = of_seed(seed, n, k)[0], multi_hot(seed, n, k)
    weights = torch.rand(2, k, generator=torch.Generator().manual_seed(seed)) + 0.05 if weighted else None
    ours = make_loss(BCE, task=MULTI, class_weights=weights)(logits, targets)
    options = {} if weights is None else {"weight": weights[0], "pos_weight": weights[1] / weights[0]}
    torch.testing.assert_close(ours, functional.binary_cross_entropy_with_logits(logits, targets, **options))


def test_smoothed_labels_stand_nearer_to_one_half() -> None:
    logits, targets = of_seed(5, 6, 3)[0], multi_hot(5, 6, 3)
    ours = make_loss(BCE, task=MULTI, label_smoothing=0.2)(logits, targets)
    torch.testing.assert_close(ours, functional.binary_cross_entropy_with_logits(logits, 0.8 * targets + 0.1))


@given(
    st.integers(0, 999),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    st.sampled_from([None, 0.25, 0.9]),
)
def test_focal_loss_of_labels_is_torchvisions(seed: int, k: int, gamma: float, alpha: float | None) -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, targets = of_seed(seed, 7, k)[0], multi_hot(seed, 7, k)
    ours = make_loss(FOCAL, task=MULTI, focal_alpha=alpha, focal_gamma=gamma)(logits, targets)
    theirs = sigmoid_focal_loss(logits, targets, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean")
    torch.testing.assert_close(ours, theirs)


@given(st.integers(0, 999), st.sampled_from([0.0, 0.5, 2.0, 5.0]))
def test_focal_loss_of_two_classes_is_torchvisions_of_their_difference(seed: int, gamma: float) -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, classes = of_seed(seed, 7, 2)
    ours = make_loss(FOCAL, task=SINGLE, focal_gamma=gamma)(logits, one_hot(classes, 2))
    difference = logits[:, 1] - logits[:, 0]
    theirs = sigmoid_focal_loss(difference, classes.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_focal_loss_without_focus_is_weighted_cross_entropy() -> None:
    logits, classes = of_seed(6, 8, 4)
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    focal = make_loss(FOCAL, task=SINGLE, class_weights=weights, label_smoothing=0.1, focal_gamma=0)
    expected = functional.cross_entropy(logits, classes, weight=weights, label_smoothing=0.1)
    torch.testing.assert_close(focal(logits, one_hot(classes, 4)), expected)


@pytest.mark.parametrize(("name", "task"), [(CE, SINGLE), (FOCAL, SINGLE), (BCE, MULTI), (FOCAL, MULTI)])
def test_a_mixture_of_targets_costs_the_mixture_of_their_losses(name: LossName, task: Task) -> None:
    logits, classes = of_seed(7, 9, 3)
    first, second = one_hot(classes, 3), one_hot(classes.flip(0), 3)
    loss = make_loss(name, task=task, label_smoothing=0.1)
    torch.testing.assert_close(
        loss(logits, 0.3 * first + 0.7 * second), 0.3 * loss(logits, first) + 0.7 * loss(logits, second)
    )


@pytest.mark.parametrize(("name", "task"), [(CE, SINGLE), (FOCAL, SINGLE), (BCE, MULTI), (FOCAL, MULTI)])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_logits_that_are_all_too_sure_have_finite_losses_and_slopes(name: LossName, task: Task, gamma: float) -> None:
    logits = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    loss = make_loss(name, task=task, focal_gamma=gamma)(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 100
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("name", "task"), [(CE, SINGLE), (FOCAL, SINGLE), (BCE, MULTI), (FOCAL, MULTI)])
def test_the_parts_of_a_batch_add_up_to_its_loss(name: LossName, task: Task) -> None:
    logits, classes = of_seed(8, 10, 3)
    targets = one_hot(classes, 3)
    weights = torch.tensor([0.3, 1.0, 5.0])
    loss = make_loss(
        name, task=task, class_weights=weights if task is SINGLE else torch.stack([weights, weights.flip(0)])
    )
    parts = [(logits[:3], targets[:3]), (logits[3:], targets[3:])]
    mean = sum(loss.total(*part) for part in parts) / sum(loss.weight(part[1]) for part in parts)
    torch.testing.assert_close(mean, loss(logits, targets))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_have_a_full_precision_loss(dtype: torch.dtype) -> None:
    logits, classes = of_seed(9, 5, 3)
    logits = logits.to(dtype)
    loss = make_loss(CE, task=SINGLE)(logits, one_hot(classes, 3))
    assert loss.dtype is torch.float32
    torch.testing.assert_close(loss, functional.cross_entropy(logits.float(), classes))


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=8))
def test_inverse_weights_are_scikit_learns_balanced_ones(counts: list[int]) -> None:
    classes = np.repeat(np.arange(len(counts)), counts)
    theirs = compute_class_weight("balanced", classes=np.arange(len(counts)), y=classes)
    np.testing.assert_allclose(class_weights(counts, ClassWeights.INVERSE), theirs, rtol=1e-6)


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=8).filter(any),
    st.sampled_from([ClassWeights.INVERSE, ClassWeights.EFFECTIVE]),
    st.sampled_from([0.0, 0.9, 0.999, 0.99999999]),
)
def test_the_mean_weight_over_all_images_is_one_and_rarer_classes_weigh_more(
    counts: list[int], how: ClassWeights, beta: float
) -> None:
    weights = class_weights(counts, how, beta=beta)
    assert weights is not None
    assert float((weights.double() * torch.tensor(counts)).sum()) / sum(counts) == pytest.approx(1, rel=1e-5)
    there = sorted((count, float(weight)) for count, weight in zip(counts, weights, strict=True) if count)
    assert all(rare[1] >= frequent[1] * (1 - 1e-6) for rare, frequent in itertools.pairwise(there))
    assert all(float(weight) == 1 for count, weight in zip(counts, weights, strict=True) if not count)


def test_effective_numbers_are_those_of_the_paper() -> None:
    counts, beta = [10, 100, 2000], 0.99
    effective = (1 - beta ** np.array(counts)) / (1 - beta)
    weights = class_weights(counts, ClassWeights.EFFECTIVE, beta=beta)
    assert weights is not None
    np.testing.assert_allclose(weights / weights[0], effective[0] / effective, rtol=1e-6)


def test_effective_numbers_lie_between_no_weights_and_inverse_frequency() -> None:
    counts = [10, 1000]
    gentle = class_weights(counts, ClassWeights.EFFECTIVE, beta=0.0)
    strong = class_weights(counts, ClassWeights.EFFECTIVE, beta=1 - 1e-9)
    assert gentle is not None
    assert strong is not None
    assert gentle.tolist() == [1, 1]
    torch.testing.assert_close(strong, class_weights(counts, ClassWeights.INVERSE))


def test_each_label_is_weighed_as_a_binary_task() -> None:
    weights = label_weights([10, 50, 0], 100, ClassWeights.INVERSE)
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([[100 / 180, 1.0, 1.0], [5.0, 1.0, 1.0]]))


def test_weights_come_from_the_targets_of_either_task() -> None:
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    single = weights_of(targets, task=SINGLE, how=ClassWeights.INVERSE)
    multi = weights_of(targets, task=MULTI, how=ClassWeights.INVERSE)
    torch.testing.assert_close(single, torch.tensor([2 / 3, 2.0]))
    torch.testing.assert_close(multi, torch.tensor([[2.0, 2 / 3], [2 / 3, 2.0]]))
    make_loss(CE, task=SINGLE, class_weights=single)
    make_loss(BCE, task=MULTI, class_weights=multi)


def test_without_weighing_there_are_no_weights() -> None:
    assert class_weights([1, 2], ClassWeights.NONE) is None
    assert label_weights([1, 2], 3, ClassWeights.NONE) is None


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_a_beta_out_of_range_is_refused(beta: float) -> None:
    with pytest.raises(UsageError, match="beta"):
        class_weights([1, 2], ClassWeights.EFFECTIVE, beta=beta)


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1]])
def test_numbers_of_images_that_cannot_be_are_refused(counts: list[int]) -> None:
    with pytest.raises(InputError, match="numbers of images"):
        class_weights(counts, ClassWeights.INVERSE)


@pytest.mark.parametrize(
    ("name", "task", "options", "message"),
    [
        (CE, MULTI, {}, "several labels take bce or focal"),
        (BCE, SINGLE, {}, "takes cross-entropy or focal"),
        (CE, SINGLE, {"label_smoothing": 1.0}, "label smoothing is 1"),
        (CE, SINGLE, {"label_smoothing": -0.1}, "label smoothing is -0.1"),
        (FOCAL, SINGLE, {"focal_gamma": -1.0}, "gamma is -1"),
        (FOCAL, SINGLE, {"focal_gamma": float("nan")}, "gamma is nan"),
        (FOCAL, SINGLE, {"focal_alpha": 0.25}, "class weights do the same"),
        (BCE, MULTI, {"focal_alpha": 0.25}, "has no alpha"),
        (FOCAL, MULTI, {"focal_alpha": 1.5}, "alpha is 1.5"),
        (FOCAL, MULTI, {"focal_alpha": 0.5, "class_weights": torch.ones(2, 3)}, "give one of them"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: LossName, task: Task, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_loss(name, task=task, **options)


@pytest.mark.parametrize(
    ("task", "weights", "message"),
    [
        (SINGLE, torch.ones(2, 3), "shape"),
        (MULTI, torch.ones(3), "shape"),
        (SINGLE, torch.tensor([1.0, 0.0]), "above 0"),
        (SINGLE, torch.tensor([1.0, float("inf")]), "finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(task: Task, weights: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_loss(FOCAL, task=task, class_weights=weights)


def test_shapes_that_do_not_fit_are_refused() -> None:
    loss = make_loss(CE, task=SINGLE, class_weights=torch.ones(3))
    with pytest.raises(InputError, match=r"shapes \(4, 3\) and \(4,\)"):
        loss(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(InputError, match="weights for 3 classes, and logits for 2"):
        loss(torch.zeros(4, 2), torch.zeros(4, 2))

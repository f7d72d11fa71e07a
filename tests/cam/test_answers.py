"""The answer for a class, and the classes that are asked for."""

from __future__ import annotations

import pytest
import torch

from medtool.cam.answers import classes_of, n_classes, selected
from medtool.cam.choices import Target
from medtool.errors import UsageError

SEVERAL = torch.tensor([[0.1, 2.0, -1.0], [3.0, -2.0, 0.5]])
SINGLE = torch.tensor([[0.7], [-0.2], [0.0]])


def test_of_several_logits_a_class_has_its_own() -> None:
    assert selected(SEVERAL, torch.tensor([[1, 0], [2, 2]])).tolist() == [
        [2.0, pytest.approx(0.1)],
        [0.5, 0.5],
    ]


def test_a_single_logit_is_that_of_class_1_and_its_negative_that_of_class_0() -> None:
    found = selected(SINGLE, torch.tensor([[1, 0], [1, 0], [1, 0]]))

    assert torch.equal(found, torch.cat([SINGLE, -SINGLE], 1))
    assert n_classes(SINGLE) == 2
    assert n_classes(SEVERAL) == 3


def test_classes_are_predicted_all_or_given() -> None:
    assert classes_of(SEVERAL, Target.PREDICTED).tolist() == [[1], [0]]
    assert classes_of(SINGLE, Target.PREDICTED).tolist() == [[1], [0], [0]]
    assert classes_of(SEVERAL, Target.ALL).tolist() == [[0, 1, 2]] * 2
    assert classes_of(SINGLE, Target.ALL).tolist() == [[0, 1]] * 3
    assert classes_of(SEVERAL, torch.tensor([2, 0])).tolist() == [[2], [0]]
    assert classes_of(SEVERAL, torch.tensor([[2, 0], [1, 1]])).tolist() == [[2, 0], [1, 1]]


def test_of_two_certain_classes_the_larger_logit_decides() -> None:
    logits = torch.tensor([[40.0, 41.0, -90.0], [1000.0, 1001.0, 0.0]])

    assert classes_of(logits, Target.PREDICTED).tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (torch.tensor([0]), "one row for each of 2 images"),
        (torch.tensor([0, 3]), "classes 0–2, not 3"),
        (torch.tensor([-1, 0]), "classes 0–2, not -1"),
        (torch.tensor([0.5, 1.0]), "whole numbers"),
        (torch.zeros(2, 0, dtype=torch.int64), "one row for each"),
        (torch.zeros(2, 1, 1, dtype=torch.int64), "one row for each"),
    ],
)
def test_what_is_no_class_of_each_image_is_refused(targets: torch.Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        classes_of(SEVERAL, targets)

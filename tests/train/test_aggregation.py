"""Patients get one row each, unknown ones never share one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.errors import InputError, UsageError
from medtool.runs.choices import Task
from medtool.train.aggregation import Aggregation, by_patient

PATIENTS = ("b", "a", "b", "", "a", " ", "b")
P = np.array([0.2, 0.9, 0.6, 0.3, 0.4, 0.7, 0.7])
TWO = np.stack([1 - P, P], axis=1)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Aggregation.MEAN, [0.5, 0.65, 0.3, 0.7]),
        (Aggregation.MAX, [0.7, 0.9, 0.3, 0.7]),
        (Aggregation.VOTE, [2 / 3, 0.5, 0.0, 1.0]),
    ],
)
def test_patients_by_hand(how: Aggregation, expected: list[float]) -> None:
    found = by_patient(TWO, PATIENTS, how=how, task=Task.SINGLE)
    assert found.patients == ("b", "a", "", "")
    assert found.n_images.tolist() == [3, 2, 1, 1]
    assert found.rows.tolist() == [0, 1, 0, 2, 1, 3, 0]
    np.testing.assert_allclose(found.probabilities[:, 1], expected)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    labels = by_patient(P[:, None], PATIENTS, how=how, task=Task.MULTI)
    np.testing.assert_allclose(labels.probabilities[:, 0], expected)


def test_the_highest_of_more_classes_sum_to_one() -> None:
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    found = by_patient(p, ["a", "a"], how=Aggregation.MAX, task=Task.SINGLE)
    np.testing.assert_allclose(found.probabilities, np.array([[0.6, 0.3, 0.6]]) / 1.5)


def test_votes_follow_decisions_where_they_are_given() -> None:
    decisions = np.stack([P < 0.25, P >= 0.25], axis=1)
    found = by_patient(TWO, PATIENTS, how=Aggregation.VOTE, task=Task.SINGLE, decisions=decisions)
    np.testing.assert_allclose(found.probabilities[:, 1], [2 / 3, 1, 1, 1])
    with pytest.raises(UsageError, match="for votes"):
        by_patient(TWO, PATIENTS, how=Aggregation.MEAN, task=Task.SINGLE, decisions=decisions)
    with pytest.raises(InputError, match=r"\(7, 1\)"):
        by_patient(TWO, PATIENTS, how=Aggregation.VOTE, task=Task.SINGLE, decisions=decisions[:, :1])


@given(
    st.lists(st.sampled_from(["", "a", "b", "c", "\t"]), max_size=30),
    st.sampled_from(Aggregation),
    st.sampled_from(Task),
    st.integers(2, 4),
)
def test_each_row_is_that_of_its_patients_images_alone(
    patients: list[str], how: Aggregation, task: Task, n_classes: int
) -> None:
    p = np.random.default_rng(len(patients)).random((len(patients), n_classes))
    if task is Task.SINGLE:
        p /= p.sum(axis=1, keepdims=True)
    found = by_patient(p, patients, how=how, task=task)
    n_unknown = sum(not patient.strip() for patient in patients)
    assert len(found.patients) == n_unknown + len({patient for patient in patients if patient.strip()})
    for place, patient in enumerate(found.patients):
        inside = found.rows == place
        assert {patients[row].strip() for row in np.flatnonzero(inside)} == {patient}
        alone = by_patient(p[inside], ["x"] * inside.sum(), how=how, task=task)
        np.testing.assert_allclose(found.probabilities[place], alone.probabilities[0], atol=1e-12)
    if task is Task.SINGLE:
        np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("how", Aggregation)
def test_images_that_all_say_the_same_make_a_patient_that_does(how: Aggregation) -> None:
    found = by_patient(np.tile([0.0, 1.0], (7, 1)), ["a"] * 7, how=how, task=Task.SINGLE)
    assert found.probabilities.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("p", "patients", "message"),
    [
        ([[0.5, 0.5]], [], "0 patients for 1 images"),
        ([[0.5, np.nan]], ["a"], "image 0"),
        ([0.5], ["a"], r"\(1,\)"),
    ],
)
def test_what_cannot_be_taken_together_is_refused(p: object, patients: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        by_patient(np.array(p), patients, how=Aggregation.MEAN, task=Task.MULTI)

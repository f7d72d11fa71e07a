"""Thresholds are the best of all there are by their rule, and say what they gave."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_curve

from medtool.errors import InputError, UsageError
from medtool.runs.choices import Task
from medtool.train.metrics import Bools, Floats
from medtool.train.thresholds import Costs, Threshold, ThresholdRule, choose, choose_for_classes

SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
TRUTHS = np.array([0, 0, 1, 0, 0, 1, 1, 1])


@st.composite
def scored(draw: st.DrawFn) -> tuple[Floats, Bools]:
    values = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 5e-324, 0.25, 0.5, np.nextafter(1.0, 0.0), 1.0]))
    scores = draw(st.lists(values, min_size=2, max_size=25))
    truths = [True, False, *draw(st.lists(st.booleans(), min_size=len(scores) - 2, max_size=len(scores) - 2))]
    return np.array(scores), np.array(truths)


def measured(threshold: Threshold, scores: Floats, truths: Bools) -> tuple[float, float]:
    given_ = threshold.decide(scores)
    return float(given_[truths].mean()), float((~given_[~truths]).mean())


def curve(scores: Floats, truths: Bools) -> tuple[Floats, Floats, Floats]:
    """Return sensitivities, specificities and thresholds of every possible decision, by scikit-learn."""
    false_alarms, sensitivity, thresholds = roc_curve(truths, scores, drop_intermediate=False)
    return sensitivity, 1 - false_alarms, thresholds


def with_options(rule: ThresholdRule) -> dict[str, float | Costs]:
    if rule in (ThresholdRule.SENSITIVITY, ThresholdRule.SPECIFICITY):
        return {"target": 0.8}
    return {"costs": Costs(10, 1)} if rule is ThresholdRule.COST else {}


@given(scored(), st.sampled_from(ThresholdRule))
def test_deciding_by_a_threshold_gives_what_it_says(drawn: tuple[Floats, Bools], rule: ThresholdRule) -> None:
    threshold = choose(rule, *drawn, **with_options(rule))
    assert measured(threshold, *drawn) == pytest.approx((threshold.sensitivity, threshold.specificity), abs=1e-12)
    assert (threshold.n_positive, threshold.n_negative) == (drawn[1].sum(), (~drawn[1]).sum())


@given(scored())
def test_no_threshold_has_a_higher_index_of_youden(drawn: tuple[Floats, Bools]) -> None:
    found = choose(ThresholdRule.YOUDEN, *drawn)
    sensitivity, specificity, _ = curve(*drawn)
    assert found.sensitivity + found.specificity == pytest.approx((sensitivity + specificity).max(), abs=1e-12)


@given(scored(), st.floats(0.01, 1))
def test_no_threshold_that_meets_the_target_has_more_of_the_other(drawn: tuple[Floats, Bools], target: float) -> None:
    sensitivity, specificity, _ = curve(*drawn)
    found = choose(ThresholdRule.SENSITIVITY, *drawn, target=target)
    assert found.sensitivity >= target - 1e-9
    assert found.specificity == pytest.approx(specificity[sensitivity >= target - 1e-9].max(), abs=1e-12)
    found = choose(ThresholdRule.SPECIFICITY, *drawn, target=target)
    assert found.specificity >= target - 1e-9
    assert found.sensitivity == pytest.approx(sensitivity[specificity >= target - 1e-9].max(), abs=1e-12)


@given(scored())
def test_no_threshold_has_a_higher_f1(drawn: tuple[Floats, Bools]) -> None:
    scores, truths = drawn
    found = choose(ThresholdRule.F1, scores, truths)
    best = max(f1_score(truths, scores >= cut) for cut in np.unique(scores))
    assert f1_score(truths, found.decide(scores)) == pytest.approx(best, abs=1e-12)


@given(scored(), st.floats(0.01, 100), st.floats(0.01, 100))
def test_no_threshold_costs_less(drawn: tuple[Floats, Bools], miss: float, false_alarm: float) -> None:
    scores, truths = drawn
    found = choose(ThresholdRule.COST, scores, truths, costs=Costs(miss, false_alarm))
    n_positive, n_negative = truths.sum(), (~truths).sum()
    sensitivity, specificity, _ = curve(scores, truths)
    least = ((1 - sensitivity) * n_positive * miss + (1 - specificity) * n_negative * false_alarm).min()
    lost = (1 - found.sensitivity) * n_positive * miss + (1 - found.specificity) * n_negative * false_alarm
    assert lost == pytest.approx(least, abs=1e-6)


def test_thresholds_lie_midway_between_scores_by_hand() -> None:
    assert choose(ThresholdRule.SENSITIVITY, SCORES, TRUTHS, target=1.0).value == pytest.approx(0.25)
    assert choose(ThresholdRule.SENSITIVITY, SCORES, TRUTHS, target=0.75).value == pytest.approx(0.65)
    assert choose(ThresholdRule.SPECIFICITY, SCORES, TRUTHS, target=0.5).value == pytest.approx(0.25)
    assert choose(ThresholdRule.YOUDEN, SCORES, TRUTHS).value == pytest.approx(0.65)
    assert choose(ThresholdRule.F1, SCORES, TRUTHS).value == pytest.approx(0.65)
    assert choose(ThresholdRule.COST, SCORES, TRUTHS, costs=Costs(10, 1)).value == pytest.approx(0.25)
    assert choose(ThresholdRule.COST, SCORES, TRUTHS, costs=Costs(1, 10)).value == pytest.approx(0.65)


def test_a_target_of_seven_in_ten_is_met_by_seven_of_ten() -> None:
    scores, truths = np.append(np.arange(10) / 10 + 0.05, 0.5), np.append(np.ones(10), 0)
    for tenths in range(1, 11):
        found = choose(ThresholdRule.SENSITIVITY, np.append(scores, 0.0), np.append(truths, 0), target=tenths / 10)
        assert found.sensitivity >= tenths / 10 - 1e-12
    assert choose(ThresholdRule.SENSITIVITY, scores, truths, target=0.1 * 7).sensitivity >= 0.7


def test_of_equally_good_thresholds_the_most_sensitive_is_taken() -> None:
    found = choose(ThresholdRule.YOUDEN, np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1]))
    assert (found.sensitivity, found.specificity) == (1.0, 0.5)


def test_where_even_the_highest_score_is_a_false_alarm_nothing_is_positive() -> None:
    found = choose(ThresholdRule.SPECIFICITY, np.array([1.0, 0.5]), np.array([0, 1]), target=1.0)
    assert found.value > 1
    assert (found.sensitivity, found.specificity) == (0.0, 1.0)


@pytest.mark.parametrize("rule", ThresholdRule)
def test_a_threshold_comes_back_from_json_as_it_was(rule: ThresholdRule) -> None:
    found = choose(rule, SCORES, TRUTHS, **with_options(rule))
    assert Threshold.of(json.loads(json.dumps(found.document(), allow_nan=False))) == found


@pytest.mark.parametrize("broken", [{"value": None}, {"value": float("inf")}, {"rule": "guess"}, {"costs": 3}])
def test_a_damaged_threshold_is_refused(broken: dict[str, object]) -> None:
    document = choose(ThresholdRule.YOUDEN, SCORES, TRUTHS).document()
    with pytest.raises(InputError, match="threshold"):
        Threshold.of({**document, **broken})
    with pytest.raises(InputError, match="damaged"):
        Threshold.of({})


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (ThresholdRule.SENSITIVITY, {}, "needs a target"),
        (ThresholdRule.SPECIFICITY, {"target": 0.0}, "above 0"),
        (ThresholdRule.SPECIFICITY, {"target": float("nan")}, "above 0"),
        (ThresholdRule.SENSITIVITY, {"target": 90.0}, "is 90; it must be above 0 and at most 1"),
        (ThresholdRule.YOUDEN, {"target": 0.9}, "has no target"),
        (ThresholdRule.COST, {}, "needs what a miss"),
        (ThresholdRule.F1, {"costs": Costs(1, 1)}, "has no costs"),
    ],
)
def test_options_that_are_missing_wrong_or_without_effect_are_refused(
    rule: ThresholdRule, options: dict[str, float | Costs], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        choose(rule, SCORES, TRUTHS, **options)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_costs_are_above_zero_and_finite(value: float) -> None:
    with pytest.raises(UsageError, match="miss"):
        Costs(value, 1)
    with pytest.raises(UsageError, match="false alarm"):
        Costs(1, value)


@pytest.mark.parametrize(
    ("scores", "truths", "message"),
    [
        ([0.1, 0.2], [0, 0], "0 positives and 2 negatives"),
        ([0.1, 0.2], [1, 1], "2 positives and 0 negatives"),
        ([], [], "0 positives and 0 negatives"),
        ([0.1, 1.2], [0, 1], "image 1"),
        ([0.1, 0.2], [0, 2], "neither 0 nor 1"),
        ([0.1, 0.2], [0, 1, 1], r"\(3, 1\)"),
        ([[0.1], [0.2]], [0, 1], r"\(2, 1\)"),
    ],
)
def test_what_no_threshold_can_be_chosen_from_is_refused(scores: object, truths: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(ThresholdRule.YOUDEN, np.array(scores, dtype=float), np.array(truths))


def test_of_two_classes_the_second_has_a_threshold_and_of_more_each_has_one() -> None:
    p = np.stack([1 - SCORES, SCORES], axis=1)
    targets = np.eye(2)[TRUTHS]
    options = {"classes": ("no", "yes")}
    found = choose_for_classes(ThresholdRule.YOUDEN, p, targets, task=Task.SINGLE, **options)
    assert found == {"yes": choose(ThresholdRule.YOUDEN, SCORES, TRUTHS)}
    found = choose_for_classes(ThresholdRule.YOUDEN, p, targets, task=Task.MULTI, **options)
    assert list(found) == ["no", "yes"]


def test_a_class_that_no_threshold_can_be_chosen_for_is_named() -> None:
    p = np.full((2, 3), 1 / 3)
    with pytest.raises(InputError, match="class 'c': no threshold can be chosen from 0 positives and 2 negatives"):
        choose_for_classes(ThresholdRule.F1, p, np.eye(3)[:2], task=Task.SINGLE, classes=("a", "b", "c"))

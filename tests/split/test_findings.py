"""Findings, their cases and the table of rules."""

from __future__ import annotations

import re

import pytest

from medtool.split.catalogue import GROUP_IN_TWO_PARTS, RULES
from medtool.split.findings import Case, Severity, finding


def test_every_rule_has_a_code_and_a_name_of_its_own():
    assert len({rule.code for rule in RULES}) == len({rule.name for rule in RULES}) == len(RULES) > 30
    for rule in RULES:
        assert re.fullmatch(r"[GDFCRMIB][1-8]\d\d", rule.code)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.name)
        assert rule.meaning.endswith(".")


def test_a_case_has_the_same_key_in_every_order_of_rows():
    one = Case("patient P1", ("a", "b"), "1 in train, 1 in test")
    assert key_of(one) == key_of(Case("patient P1", ("b", "a"), "1 in train, 1 in test"))
    assert len({one.key(rule, rule.severity) for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    "other",
    [
        Case("patient P1", ("a", "b", "c"), "1 in train, 1 in val"),
        Case("patient P1", ("a", "b"), "1 in train, 1 in test"),
        Case("patient P2", ("a", "b"), "1 in train, 1 in val"),
    ],
)
def test_a_case_that_became_another_has_another_key(other):
    one = Case("patient P1", ("a", "b"), "1 in train, 1 in val")
    assert key_of(other) != key_of(one)


def test_a_case_that_became_worse_has_another_key():
    one = Case("patient P1", ("a", "b"), "1 in train, 1 in val")
    assert one.key(GROUP_IN_TWO_PARTS, Severity.LOW) != one.key(GROUP_IN_TWO_PARTS, Severity.HIGH)


def test_the_key_of_a_case_stays_the_same_between_versions():
    # A baseline that somebody has written down must still be known.
    assert key_of(Case("patient P1", ("a", "b"), "1 in train, 1 in val")) == "94289bf820b0b517"


def key_of(case: Case) -> str:
    return case.key(GROUP_IN_TWO_PARTS, Severity.HIGH)


def test_cases_are_ordered_and_no_case_is_no_finding():
    cases = [Case("b", ("2",), ""), Case("a", ("3", "1"), ""), Case("a", ("1",), "")]
    [found] = finding(GROUP_IN_TWO_PARTS, cases)
    assert [case.subject for case in found.cases] == ["a", "a", "b"]
    assert found.n_rows == 3
    assert found.severity is Severity.HIGH
    assert finding(GROUP_IN_TWO_PARTS, cases, severity=Severity.LOW)[0].severity is Severity.LOW
    assert finding(GROUP_IN_TWO_PARTS, []) == []


def test_severities_are_ranked():
    assert [Severity.LOW.rank, Severity.MEDIUM.rank, Severity.HIGH.rank] == [0, 1, 2]

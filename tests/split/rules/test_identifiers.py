"""Ids as they were probably meant."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medtool.split.rules.identifiers import differences, is_known, normalised

UNICODE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
TRICKY = st.text("0019.aZ \u00a0\u200b\ufeffé\u0301ß\u017fİ\uff11\u00b4-", min_size=1, max_size=10)


def form(text: str) -> str:
    (only,) = normalised(pl.Series([text]))
    return str(only)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("P007", "p7"),
        ("010", "10"),
        ("000", "0"),
        (" P 1", "P\u00a0\t1  "),
        ("P\u200b1", "\ufeffP1"),
        ("123.0", "123"),
        ("00123.000", "123"),
        ("Müller", "Mu\u0308ller"),
        ("STRASSE 2", "straße 2"),
        ("\uff30\uff11\uff12", "P12"),
        ("site01/p003", "SITE1/P3"),
        ("100000000000000000000000000000000001", "0100000000000000000000000000000000001.0"),
    ],
)
def test_spellings_of_one_id_have_one_form(one, other):
    assert form(one) == form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "10"),
        ("100", "1"),
        ("P1-2", "P1_2"),
        ("P1", "P 1"),
        ("1-12", "11-2"),
        ("1.5", "1"),
        ("P1.0", "P1"),
        ("1e5", "100000"),
        ("100000000000000000000000000000000001", "100000000000000000000000000000000002"),
        ("9007199254740993", "9007199254740992"),
        ("a", "á"),
    ],
)
def test_ids_that_may_well_be_two_have_two_forms(one, other):
    assert form(one) != form(other)


@settings(max_examples=60)
@given(st.lists(UNICODE | TRICKY, max_size=20))
@example(["\u00b40", "\u2002\u00b4 007", "\u017f\u0130"])
def test_a_form_is_its_own_form_and_keeps_order_name_and_equality(ids):
    series = pl.Series("patient", ids, dtype=pl.String)
    forms = normalised(series)
    assert (forms.name, len(forms)) == ("patient", len(ids))
    assert normalised(forms).to_list() == forms.to_list()
    assert forms.to_list() == [form(text) for text in ids]


@given(st.text("0123456789", min_size=1, max_size=40), st.text("0123456789", min_size=1, max_size=40))
def test_digits_are_equal_when_python_reads_one_whole_number(one, other):
    assert (form(one) == form(other)) == (int(one) == int(other))


def test_what_differs_is_said():
    ids = pl.Series(["P1", "p01", "q", "q ", "7", "7.0", "é", "e\u0301"])
    told = differences(ids, normalised(ids))
    assert told == {
        "p1": "case and leading zeros",
        "q": "white space",
        "7": "a trailing .0",
        "é": "Unicode form",
    }


def test_exports_spell_nobody_in_many_ways():
    nobody = ["", " ", "\u00a0", "NaN", "N/A", "None", "unknown ", "NULL", "<NA>", "#N/A", "n.a.", "Unk", "Missing"]
    nobody += ["not available", "Not Available ", "-", " ?", "."]
    somebody = ["0", "anna", "-1", "999", "--1", "P-", "unk1", "missing link", "n", "9.9"]
    cells = pl.DataFrame({"patient": [*nobody, *somebody]})
    assert cells.filter(is_known("patient"))["patient"].to_list() == somebody

"""Ids as they were probably meant: one normal form for all spellings of one id, and which cells name nobody.

The normal form undoes what spreadsheets, exports and typing hands do to an id:

- white space: outer is dropped, inner runs become one space, and characters without width are dropped;
- Unicode forms (NFKC), so that a composed and a decomposed letter, or a full-width digit, are the same;
- case (case folding);
- a trailing ``.0`` of an id that is a whole number otherwise, as left by a column that once was numeric;
- leading zeros of every run of digits: ``P007`` and ``P7``, ``010`` and ``10``.

Ids are text throughout and never parsed as numbers, so 30 digits stay 30 digits. Two things are left as they are.
Separators: ``1-12`` and ``11-2`` may well be two patients. Exponents: ``1.2E+11`` has lost digits that nobody can put
back, and ``1e5`` is as likely a hexadecimal id.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import polars as pl

# How exports spell a missing value. A patient of such a name would be counted as unknown, which the audit says.
# Numbers are never placeholders: 0, -1 and 999 may be somebody's.
PLACEHOLDERS = (
    *("", "unknown", "unk", "missing", "not available", "none", "null"),
    *("nan", "na", "n/a", "n.a.", "<na>", "#n/a", "-", "?", "."),
)


def is_known(column: str) -> pl.Expr:
    """Return whether each cell names somebody: it is not empty, blank, or one of :data:`PLACEHOLDERS`."""
    return ~pl.col(column).str.strip_chars().str.to_lowercase().is_in(PLACEHOLDERS)


def normalised(ids: pl.Series) -> pl.Series:
    """Return the normal form of each id; equal ids have equal forms, and a form is its own form.

    Parameters
    ----------
    ids
        Text without nulls. The result has its name and order.
    """
    spellings = ids.rename("id").unique()
    forms = _passed(spellings)
    # One pass settles ASCII. Elsewhere a later step may leave work for an earlier one, such as a space out of NFKC.
    unsettled = _is_not_ascii(spellings)
    while unsettled.any():
        again = _passed(forms.filter(unsettled))
        changed = again != forms.filter(unsettled)
        places = unsettled.arg_true()
        forms = forms.scatter(places, again)
        unsettled = pl.zeros(len(forms), dtype=pl.Boolean, eager=True).scatter(places.filter(changed), True)
    table = pl.DataFrame({"id": spellings, "form": forms})
    joined = ids.rename("id").to_frame().join(table, on="id", how="left", maintain_order="left")
    return joined.get_column("form").alias(ids.name)


def differences(ids: pl.Series, forms: pl.Series) -> dict[str, str]:
    """Return, for each form that several of ``ids`` share, in what these ids differ, in words.

    Such as ``case and leading zeros``: whatever cannot be left out without telling the ids apart.
    """
    frame = pl.DataFrame({"form": forms, "id": ids}).unique()
    named: dict[str, list[str]] = {form: [] for form in forms.unique()}
    for name, _ in _STEPS:
        without = frame.with_columns(_passed(frame.get_column("id"), but_for=name).alias("id"))
        apart = without.group_by("form").agg(pl.col("id").n_unique()).filter(pl.col("id") > 1)
        for form in apart.get_column("form"):
            named[form].append(name)
    # Two steps can do the same work, as both know spaces that do not break; either is a Unicode form.
    return {form: _listed(names or ["Unicode form"]) for form, names in named.items()}


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _passed(ids: pl.Series, *, but_for: str = "") -> pl.Series:
    for name, step in _STEPS:
        ids = ids if name == but_for else step(ids)
    return ids


def _is_not_ascii(ids: pl.Series) -> pl.Series:
    return ids.str.len_bytes() != ids.str.len_chars()


def _without_spare_space(ids: pl.Series) -> pl.Series:
    return ids.str.replace_all(r"\p{Cf}", "").str.replace_all(r"\s+", " ").str.strip_chars()


def _composed(ids: pl.Series) -> pl.Series:
    return _where_not_ascii(ids, lambda text: unicodedata.normalize("NFKC", text))


def _case_folded(ids: pl.Series) -> pl.Series:
    return _where_not_ascii(ids, str.casefold).str.to_lowercase()


def _without_point_zero(ids: pl.Series) -> pl.Series:
    return ids.str.replace(r"\A([+-]?[0-9]+)\.0+\z", "${1}")


def _without_leading_zeros(ids: pl.Series) -> pl.Series:
    return ids.str.replace_all(r"(\A|[^0-9])0+([0-9])", "${1}${2}")


def _where_not_ascii(ids: pl.Series, change: Callable[[str], str]) -> pl.Series:
    places = _is_not_ascii(ids).arg_true()
    if not len(places):
        return ids
    return ids.clone().scatter(places, pl.Series([change(text) for text in ids.gather(places)], dtype=pl.String))


_STEPS: tuple[tuple[str, Callable[[pl.Series], pl.Series]], ...] = (
    ("white space", _without_spare_space),
    ("Unicode form", _composed),
    ("case", _case_folded),
    ("a trailing .0", _without_point_zero),
    ("leading zeros", _without_leading_zeros),
)

"""Findings that are known and accepted: what an earlier audit's ``--json`` listed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medtool.errors import InputError
from medtool.split.findings import FORMAT, FORMAT_VERSION, Finding
from medtool.storage import read_json

_HINT = "medtool split audit MANIFEST --json > known.json"


def read_baseline(path: Path) -> frozenset[str]:
    """Return the keys of all cases in what ``medtool split audit --json`` wrote.

    Cases that this audit took from a baseline of its own (``known``) are among them, so that a baseline can be made
    again on top of an earlier one. With which options it was made does not matter: a key says which rule is broken, by
    what and in which rows, and a key that a later audit does not come to accepts nothing.

    Raises
    ------
    InputError
        If the file cannot be read, is something else, is of a version that is not known, or is damaged.
    """
    if path.is_file() and not path.stat().st_size:
        raise InputError(
            f"{path} is empty; did the shell empty it for the output of this very command?",
            hint="medtool split audit MANIFEST --json > known.json; then --baseline known.json --json > another.json",
        )
    document = read_json(path)
    if document.get("format") != FORMAT:
        raise InputError(
            f"{path} is not what an audit of a split wrote: its format is {document.get('format')!r}, not {FORMAT!r}",
            hint=_HINT,
        )
    if document.get("version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has version {document.get('version')!r} of its format; this medtool reads {FORMAT_VERSION}",
            hint=_HINT,
        )
    try:
        keys = [case["key"] for found in document["findings"] for case in found["cases"]]
        return frozenset(_key(key) for key in keys + document.get("known", []))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: it does not say which cases it knows", hint=_HINT) from error


def without_known(findings: Sequence[Finding], known: Collection[str]) -> tuple[list[Finding], int]:
    """Return the findings without the cases whose key is known, and how many cases that left out.

    A case that has gained or lost a row since, or has other numbers, is another case: it is not known.
    """
    if not known:  # keys cost seconds where there are hundreds of thousands of cases
        return list(findings), 0
    kept, n_known = [], 0
    for found in findings:
        cases = tuple(case for key, case in found.keyed if key not in known)
        n_known += len(found.cases) - len(cases)
        if cases:
            kept.append(replace(found, cases=cases))
    return kept, n_known


def _key(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a key is {value!r}; it must be text")
    return value

"""What an audit reports: a finding for each rule that something breaks, with a case for each time it does."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

FORMAT = "medtool-split-audit"
FORMAT_VERSION = 1


class Severity(enum.StrEnum):
    """How much a finding may change the numbers that come from the split."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0 for low to 2 for high."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that the audit looks for.

    Attributes
    ----------
    code
        A letter for the family and three digits; never given to another rule.
    name
        The same in words, such as ``group-in-two-parts``.
    severity
        That of its findings, unless a finding says otherwise.
    meaning
        One sentence: what was found, and why it matters.
    remedy
        What to do about it, preferably a command.
    """

    code: str
    name: str
    severity: Severity
    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Case:
    """One time that a rule is broken.

    Attributes
    ----------
    subject
        What it is about, as text from the manifest: a patient, a column, the two ids of a pair.
    rows
        The ``image_id`` of every row involved, sorted; for a pair, the one that is trained on first.
    detail
        One line that says what is there, with numbers. With other numbers it is another case.
    values
        Numbers and texts behind ``detail``, ready for JSON, such as ``{"p_value": 0.003, "cramers_v": 0.41}``.
    """

    subject: str
    rows: tuple[str, ...]
    detail: str
    values: Mapping[str, float | int | str] = field(default_factory=dict)

    def key(self, rule: Rule, severity: Severity) -> str:
        """Return what tells this case from all others, the same in every later audit that finds just the same.

        Rows alone would not do: a patient who was in train and val may be in train and test now.
        """
        text = "\0".join((rule.code, severity, self.subject, self.detail, *sorted(self.rows)))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Finding:
    """All cases in which one rule is broken; there is one case or more."""

    rule: Rule
    cases: tuple[Case, ...]
    severity: Severity

    @property
    def keyed(self) -> Iterator[tuple[str, Case]]:
        """The cases, each with its key."""
        return ((case.key(self.rule, self.severity), case) for case in self.cases)

    @property
    def n_rows(self) -> int:
        """How many rows of the manifest are involved."""
        return len({row for case in self.cases for row in case.rows})


def finding(rule: Rule, cases: list[Case], *, severity: Severity | None = None) -> list[Finding]:
    """Return the finding of these cases, ordered by subject, in a list; an empty list where there is no case."""
    ordered = tuple(sorted(cases, key=lambda case: (case.subject, case.rows)))
    return [Finding(rule, ordered, severity or rule.severity)] if ordered else []

"""Write docs/reference/audit-rules.md from the rules themselves: ``python docs/rules.py``."""

from __future__ import annotations

from pathlib import Path

from medtool.split.catalogue import RULES

TARGET = Path(__file__).parent / "reference" / "audit-rules.md"
HEAD = """# Rules of the audit

Written by `python docs/rules.py` from the rules themselves. What each severity means for the exit code, and what else
`medtool split audit` gives, is in [the audit](audit.md). A code is never given to another rule.

The severity is the usual one. It is another where the case is milder or worse than usual:

- low: G103 within one part, D201 within one part, F302 for train and test without val, F304 for unequal folds and
  unused rows, C402 where the column is late by its name alone, G104 where it was said that every image is of somebody
  else;
- medium: G104 where nobody is known, R502 where only the id is the same and the bytes are not known;
- high: C401 from Cramér's V 0.5 on.

*Part* is where a row is used: train, val or test, or a fold. *Patient (or lesion, ...)* is any column
that must not be cut.
"""
FAMILIES = {
    "G": "Patients and other groups",
    "D": "Duplicates",
    "F": "Folds and parts",
    "C": "Confounding",
    "R": "Runs",
    "M": "Masks",
    "I": "Images",
    "B": "Balance",
}


def page() -> str:
    """Return the whole page."""
    sections = [HEAD]
    for letter, title in FAMILIES.items():
        lines = [f"## {title}\n", "| code | name | severity | what was found | what to do |", "|---|---|---|---|---|"]
        lines += [
            f"| {rule.code} | `{rule.name}` | {rule.severity} | {rule.meaning} | {rule.remedy} |"
            for rule in RULES
            if rule.code.startswith(letter)
        ]
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")

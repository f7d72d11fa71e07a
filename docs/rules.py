"""Write docs/reference/audit-rules.md from the rules themselves: ``python docs/rules.py``."""

from __future__ import annotations

from pathlib import Path

from medtool.split.catalogue import RULES

TARGET = Path(__file__).parent / "reference" / "audit-rules.md"
HEAD = """# Rules of the audit

Written by `python docs/rules.py` from the rules themselves. What each severity means for the exit code, and what else
`medtool split audit` gives, is in [the audit](audit.md). A code is never given to another rule.

*Part* is where a row is used: train, val or test, or a fold. *Patient (or lesion, ...)* is any column that must not be cut.
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

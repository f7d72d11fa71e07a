"""Tables to audit, written down in a test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from medtool.manifest import Manifest
from medtool.roles import folds_of, roles_of
from medtool.split.findings import Finding, Severity
from medtool.split.table import PART, AuditTable


def table_of(rows: Iterable[dict[str, str]], groups: Sequence[str] = ()) -> AuditTable:
    """Return the table of these rows; an image is called by its row's number where nothing else is said."""
    named = [{"image": f"{number}.png", "image_id": f"i{number}", **row} for number, row in enumerate(rows)]
    return AuditTable.of(Manifest.from_rows(named, Path()), groups)


def reordered(table: AuditTable, order: Sequence[int]) -> AuditTable:
    """Return the same table with its rows in another order."""
    manifest = table.manifest
    return AuditTable.of(Manifest(manifest.table[list(order)], manifest.root), table.groups)


def seen(findings: Iterable[Finding]) -> dict[tuple[str, str], set[str]]:
    """Return the subjects of the cases by rule and severity."""
    subjects: dict[tuple[str, str], set[str]] = defaultdict(set)
    for found in findings:
        assert len({key for key, _ in found.keyed}) == len(found.cases)
        subjects[found.rule.code, str(found.severity)] |= {case.subject for case in found.cases}
    return dict(subjects)


def only(findings: Sequence[Finding], code: str, severity: Severity | None = None) -> Finding:
    """Return the one finding of a rule."""
    (found,) = [one for one in findings if one.rule.code == code and severity in (None, one.severity)]
    return found


def leaking_groups(table: AuditTable, name: str) -> dict[str, set[str]]:
    """Return the rows of each group that has two roles in some fold, counted in plain Python."""
    manifest = table.manifest
    leaks: dict[str, set[str]] = {}
    if not table.has_parts:
        return leaks
    for fold in folds_of(manifest) or [None]:
        roles: dict[str, set[str]] = defaultdict(set)
        for group, role in zip(manifest.table[name], roles_of(manifest, fold), strict=True):
            if group and role:
                roles[group].add(role)
        for group, its_roles in roles.items():
            if len(its_roles) > 1:
                rows = table.frame.filter((pl.col(name) == group) & (pl.col(PART) != ""))
                leaks[group] = set(rows["image_id"])
    return leaks

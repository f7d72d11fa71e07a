"""All rules that need the table alone; none opens an image."""

from __future__ import annotations

from medtool.split.findings import Finding
from medtool.split.options import AuditOptions
from medtool.split.rules import confounding, folds, groups, labels, paths
from medtool.split.rules.votes import votes
from medtool.split.table import AuditTable


def table_findings(table: AuditTable, options: AuditOptions) -> list[Finding]:
    """Return whatever the table alone shows, ordered by code."""
    rows = votes(table)
    found = [
        *groups.groups_in_two_parts(table),
        *groups.ids_equal_when_normalised(table),
        *groups.unknown_groups(table),
        *groups.groups_at_two_sites(table),
        *groups.groups_with_two_labels(table),
        *paths.same_path_twice(table),
        *folds.folds_ensembled(table, are_folds_ensembled=options.are_folds_ensembled),
        *folds.validation_used_as_test(table),
        *folds.groups_partly_used(table),
        *folds.folds_incomplete(table),
        *confounding.sites_predicting_labels(table, rows),
        *confounding.columns_leaking_labels(table, rows),
        *confounding.parts_that_differ(table, rows),
        *labels.class_imbalance(table),
        *labels.classes_missing(table),
        *labels.classes_of_few_groups(table),
        *labels.rows_without_label(table),
    ]
    return sorted(found, key=lambda one: (one.rule.code, -one.severity.rank))


def cheap_findings(table: AuditTable, options: AuditOptions) -> list[Finding]:
    """Return the leaks that the table alone shows: what stands before training and scoring."""
    return [
        *groups.groups_in_two_parts(table),
        *paths.same_path_twice(table),
        *folds.folds_ensembled(table, are_folds_ensembled=options.are_folds_ensembled),
    ]


def against_findings(table: AuditTable, other: AuditTable) -> list[Finding]:
    """Return what a manifest shares with another, as far as the tables alone show."""
    return groups.groups_in_both(table, other)

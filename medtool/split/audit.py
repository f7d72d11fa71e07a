"""The audit from end to end: a manifest, and perhaps its images, to findings."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from medtool import __version__
from medtool.manifest import Manifest
from medtool.protocols import Steps
from medtool.split.baseline import without_known
from medtool.split.catalogue import RULES
from medtool.split.findings import FORMAT, FORMAT_VERSION, Finding, Rule, Severity
from medtool.split.options import AuditOptions
from medtool.split.rules.folds import no_split
from medtool.split.rules.of_table import against_findings, table_findings
from medtool.split.rules.runs import not_compared, run_findings
from medtool.split.table import PART, AuditTable

if TYPE_CHECKING:
    from medtool.split.duplicates.pairs import Duplicates
    from medtool.split.inflation import Inflation
    from medtool.split.seen import Seen

MakeSteps = Callable[[int, str], AbstractContextManager[Steps]]


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes
    ----------
    table, other
        The manifest that was audited, and the one that it was held against.
    findings
        The worst first; without what the baseline knows.
    known
        Keys of the cases that the baseline knows.
    duplicates
        None where no image was opened. Its images are the rows of ``table``, then those of ``other``.
    inflation
        How much of a score the leaks may make; None where it cannot be told, and ``not_checked`` says why.
    n_unread
        Images that could not be looked at.
    not_checked
        What was left out and why, a line each.
    notes
        What else the user should know, a line each.
    """

    table: AuditTable
    other: AuditTable | None
    findings: tuple[Finding, ...]
    known: frozenset[str]
    duplicates: Duplicates | None
    inflation: Inflation | None
    n_unread: int
    not_checked: tuple[str, ...]
    notes: tuple[str, ...]

    def fails(self, least: Severity | None) -> bool:
        """Tell whether there is a finding as bad as ``least`` or worse; never with None."""
        return least is not None and any(finding.severity.rank >= least.rank for finding in self.findings)


def audit(
    manifest: Manifest,
    options: AuditOptions,
    *,
    against: Manifest | None = None,
    runs: Sequence[Seen] = (),
    known: frozenset[str] = frozenset(),
    cache: Path | None = None,
    workers: int = 0,
    cluster: str | None = None,
    steps: MakeSteps | None = None,
) -> Audit:
    """Return what is wrong with a manifest and its split.

    Parameters
    ----------
    against
        Another manifest that must share nothing with this one.
    runs
        What the runs have seen that are to be scored on it.
    known
        Keys of cases that are accepted, as :func:`medtool.split.baseline.read_baseline` reads them.
    cache
        Where fingerprints of images are kept, so that an unchanged image is read once; None keeps none.
    workers, cluster
        As in :func:`medtool.parallel.map_unordered`; 0 workers is automatic.
    steps
        Shows progress; takes the number of images and a label.

    Raises
    ------
    ManifestError
        If a group column is not there.
    """
    table = AuditTable.of(manifest, options.group)
    other = None if against is None else AuditTable.of(against, options.group)
    findings = table_findings(table, options)
    if other is not None:
        findings += against_findings(table, other)
    not_checked: list[str] = []
    notes: list[str] = list(table.passed_over)
    if other is None and not runs:
        findings += no_split(table)
    n_unread = 0
    duplicates = inflation = sha256s = None
    nobody: set[int] = set()
    if options.read_images:
        from medtool.split.duplicates.search import find_duplicates  # what decodes images loads here
        from medtool.split.frames import of_nobody, ties_of
        from medtool.split.inflation import estimate
        from medtool.split.rules.images import image_findings
        from medtool.split.rules.masks import mask_findings
        from medtool.split.rules.pictures import duplicate_findings
        from medtool.split.units import units_of

        paths, missing = manifest.images()
        if against is not None:
            paths += against.images()[0]
        duplicates = find_duplicates(paths, cache=cache, workers=workers, cluster=cluster, steps=steps)
        notes += duplicates.notes
        ties = ties_of(duplicates, table.frame, table.groups, other=other)
        notes += ties.notes
        nobody = of_nobody(duplicates.fingerprints, ties)
        findings += duplicate_findings(table, duplicates, other=other)
        findings += image_findings(table, duplicates.fingerprints, missing=missing)
        images = pl.int_range(len(paths), eager=True).to_frame()
        masks, mask_notes = mask_findings(
            table,
            duplicates.fingerprints.sizes,
            pictures=units_of(images, (), [(pair.first, pair.second) for pair in duplicates.pairs]),
            workers=workers,
            cluster=cluster,
            steps=steps,
        )
        findings += masks
        notes += mask_notes
        inflation, why_not = estimate(table, duplicates, seed=options.seed)
        if inflation is None:
            not_checked.append(f"what leaks do to a score: {why_not}")
        n_unread = len(missing) + len(duplicates.problems)
        sha256s = dict(zip(manifest.table.get_column("image_id"), duplicates.fingerprints.sha256, strict=False))
    else:
        not_checked.append("duplicates, images, masks and what leaks do to a score: no image was opened (--no-images)")
    ids = table.frame.get_column("image_id")
    findings += run_findings(table, runs, sha256s=sha256s, nobody={ids[row] for row in nobody if row < len(ids)})
    not_checked += not_compared(table, runs)
    findings.sort(key=lambda found: (-found.severity.rank, RULES.index(found.rule)))
    kept, _ = without_known(findings, known)
    met = known & {key for found in findings for key, _ in found.keyed} if known else frozenset()
    return Audit(table, other, tuple(kept), met, duplicates, inflation, n_unread, tuple(not_checked), tuple(notes))


def document_of(audit: Audit, *, manifest: str, against: str | None, fail_on: Severity | None) -> dict[str, Any]:
    """Return the audit as ``--json`` prints it; see docs/reference/audit.md."""
    parts = Counter(audit.table.frame.get_column(PART).to_list())
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "medtool": __version__,
        "manifest": manifest,
        "against": against,
        "images": len(audit.table.manifest),
        "parts": {part: parts[part] for part in sorted(parts)},
        "groups": list(audit.table.groups),
        "fail_on": "never" if fail_on is None else fail_on.value,
        "failed": audit.fails(fail_on),
        "findings": [_document_of_finding(found, manifest) for found in audit.findings],
        "n_known": len(audit.known),
        "known": sorted(audit.known),
        "inflation": None if audit.inflation is None else audit.inflation.as_document(),
        "not_checked": list(audit.not_checked),
        "notes": list(audit.notes),
    }


def remedy_of(rule: Rule, manifest: str) -> str:
    """Return what to do about a finding, with commands that can be typed as they are."""
    repaired = shlex.quote(str(Path(manifest).with_name(f"{Path(manifest).stem}-repaired.csv")))
    words = {"MANIFEST": shlex.quote(manifest), "--fix FILE": f"--fix {repaired}", "--html FILE": "--html audit.html"}
    text = rule.remedy
    for general, own in words.items():
        text = text.replace(general, own)
    return text


def _document_of_finding(found: Finding, manifest: str) -> dict[str, Any]:
    return {
        "code": found.rule.code,
        "name": found.rule.name,
        "severity": found.severity.value,
        "meaning": found.rule.meaning,
        "remedy": remedy_of(found.rule, manifest),
        "n_cases": len(found.cases),
        "n_rows": found.n_rows,
        "cases": [
            {
                "key": key,
                "subject": case.subject,
                "rows": list(case.rows),
                "detail": case.detail,
                "values": dict(case.values),
            }
            for key, case in found.keyed
        ],
    }

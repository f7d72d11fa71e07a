"""What stands before training and scoring: the cheap part of the audit, and the marks of those who go on regardless.

Opens no image. A leak that is allowed (``--allow-leak``) is written into the lineage of the result (``made_with``,
``leaks``) and into that of everything made from it: a score never gets rid of the leak that it rests on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from medtool.errors import LeakError
from medtool.manifest import Manifest
from medtool.roles import VAL_FOLD, roles_of
from medtool.split.findings import Finding, Severity
from medtool.split.marks import Leak, inherited, leaks_of, marks_of
from medtool.split.options import AuditOptions
from medtool.split.rules.of_table import cheap_findings
from medtool.split.rules.runs import run_findings
from medtool.split.table import AuditTable

if TYPE_CHECKING:
    from medtool.split.seen import Seen

_SUBJECTS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Clearance:
    """Leave to train or to score, and what has to be written down for it.

    Attributes
    ----------
    findings
        Everything that the cheap audit found, the allowed leaks among them.
    leaks
        Of this manifest and of the runs, ordered by code; empty where all is well.
    """

    findings: tuple[Finding, ...]
    leaks: tuple[Leak, ...]

    @property
    def is_leaky(self) -> bool:
        """Whether a result made with this clearance rests on a leak."""
        return bool(self.leaks)

    @property
    def marks(self) -> dict[str, list[dict[str, Any]]]:
        """What goes into ``made_with`` of the result's lineage, clean or not."""
        return marks_of(self.leaks)


def gate(
    manifest: Manifest,
    options: AuditOptions,
    *,
    is_leak_allowed: bool,
    fold: int | None = None,
    runs: Sequence[Seen] = (),
    made_from: Iterable[Mapping[str, Any]] = (),
    source: str = "MANIFEST",
) -> Clearance:
    """Return leave to train or score on a manifest, or refuse.

    Parameters
    ----------
    is_leak_allowed
        Go on with leaks, and mark the result.
    fold
        Only what matters when this fold is held out; None audits the whole split. A patient who is in two folds that
        are both trained on does no harm to the third.
    runs
        What the runs have seen that are to be scored on the manifest, or trained further.
    made_from
        Lineages of what else the result will be made from, such as predictions; as those of ``runs``, their marks are
        passed on. They alone refuse nothing: whoever made them was told.
    source
        The manifest as the user named it, for the message.

    Raises
    ------
    LeakError
        On a finding of high severity, unless leaks are allowed.
    """
    table = AuditTable.of(manifest if fold is None else _of_fold(manifest, fold), options.group)
    findings = [*cheap_findings(table, options), *run_findings(table, runs)]
    worst = [found for found in findings if found.severity is Severity.HIGH]
    if worst and not is_leak_allowed:
        raise LeakError(
            f"{source} leaks: {'; '.join(_one_line(found) for found in worst)}",
            hint=f"medtool split audit {source}, which shows all and what to do; --allow-leak goes on, and marks every"
            " result",
        )
    own = [Leak(found.rule.code, len(found.cases)) for found in worst]
    return Clearance(tuple(findings), inherited(own, *(seen.leaks for seen in runs), *map(leaks_of, made_from)))


def _of_fold(manifest: Manifest, fold: int) -> Manifest:
    """Return the hold-out split that is trained and scored when ``fold`` is held out."""
    roles = roles_of(manifest, fold).alias("split")
    kept = pl.exclude("split", "fold", VAL_FOLD)
    return replace(manifest, table=manifest.table.select(kept, roles), _known={})


def _one_line(found: Finding) -> str:
    subjects = [case.subject for case in found.cases[:_SUBJECTS_SHOWN]]
    more = ", ..." if len(found.cases) > len(subjects) else ""
    number = "1 case" if len(found.cases) == 1 else f"{len(found.cases)} cases"
    return f"{found.rule.code} {found.rule.name}, {number} ({', '.join(subjects)}{more})"

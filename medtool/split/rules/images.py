"""Images that are missing, unreadable or blank (I701 to I703)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medtool.split import catalogue
from medtool.split.findings import Case, Finding, finding
from medtool.split.table import AuditTable

if TYPE_CHECKING:
    from medtool.split.duplicates.fingerprints import Fingerprints


def image_findings(
    table: AuditTable, fingerprints: Fingerprints, *, missing: Mapping[int, str] | None = None
) -> list[Finding]:
    """Return the images that a network cannot be given, or can learn nothing from.

    Parameters
    ----------
    fingerprints
        Of the rows of the table; what follows them, such as the rows of another manifest, is passed over.
    missing
        Why a row's file was not found, by the row; a row without fingerprint, problem and reason does not exist.
    """
    reasons = missing or {}
    ids = table.frame.get_column("image_id")
    paths = table.frame.get_column("image")
    gone, unreadable, blank = [], [], []
    for row, sha256 in enumerate(fingerprints.sha256[: table.frame.height]):
        if row in fingerprints.problems:
            unreadable.append(Case(ids[row], (ids[row],), f"{paths[row]}: {fingerprints.problems[row]}"))
        elif not sha256:
            gone.append(Case(ids[row], (ids[row],), f"{paths[row]}: {reasons.get(row, 'does not exist')}"))
        elif fingerprints.is_blank[row]:
            width, height = (int(side) for side in fingerprints.sizes[row])
            text = f"{paths[row]}: one value in all {width} × {height} px"
            blank.append(Case(ids[row], (ids[row],), text, {"width_px": width, "height_px": height}))
    return [
        *finding(catalogue.IMAGE_MISSING, gone),
        *finding(catalogue.IMAGE_UNREADABLE, unreadable),
        *finding(catalogue.IMAGE_BLANK, blank),
    ]

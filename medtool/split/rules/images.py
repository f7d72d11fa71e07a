"""Images that are missing, unreadable or blank (I701 to I703), and files whose form tells the label (C404)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from medtool.split import catalogue
from medtool.split.findings import Case, Finding, finding
from medtool.split.rules.association import accuracy, cramers_v, holm, p_value
from medtool.split.rules.votes import cross_table, votes
from medtool.split.table import AuditTable

if TYPE_CHECKING:
    from medtool.split.duplicates.fingerprints import Fingerprints

_LEAST_P_VALUE = 0.01  # these two as for sites (C401)
_LEAST_V = 0.1
_MOST_VALUES = 20  # that are told apart one by one; of more, as many bins of equally many images
_IMAGES_A_VALUE = 5


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
        *files_predicting_labels(table, fingerprints),
        *finding(catalogue.IMAGE_MISSING, gone),
        *finding(catalogue.IMAGE_UNREADABLE, unreadable),
        *finding(catalogue.IMAGE_BLANK, blank),
    ]


def files_predicting_labels(table: AuditTable, fingerprints: Fingerprints) -> list[Finding]:
    """Return whether width, height, aspect ratio or format of the files go with the label (C404).

    Each patient (lesion, ...) has one vote for each label, as in the rules on sites; a case needs p < 0.01 after Holm's
    correction and Cramér's V of 0.1 or more.
    """
    count = table.frame.height
    width, height = np.asarray(fingerprints.sizes[:count], dtype=np.float64).T
    is_known = (width > 0) & (height > 0)
    aspect = np.divide(width, height, out=np.zeros(count), where=is_known)
    measured = pl.DataFrame(
        {
            "image_id": table.frame.get_column("image_id"),
            "width": width,
            "height": height,
            "aspect ratio": aspect.round(2),
            "format": pl.Series(fingerprints.formats[:count], dtype=pl.String),
        }
    ).filter(pl.Series(is_known))
    rows = votes(table).select("image_id", "label").join(measured, on="image_id")
    tested = []
    for name in ("width", "height", "aspect ratio", "format"):
        counts, values, classes = cross_table(_categories(rows.get_column(name)), rows.get_column("label"))
        if len(values) > 1 and len(classes) > 1:
            tested.append((name, counts))
    cases = []
    for (name, counts), p in zip(tested, holm([p_value(counts) for _, counts in tested]), strict=True):
        size = cramers_v(counts)
        if p < _LEAST_P_VALUE and size >= _LEAST_V:
            guessed, most_frequent = accuracy(counts)
            text = (
                f"guessing the label from it is right for {guessed:.1%}, always the most frequent for"
                f" {most_frequent:.1%}; Cramér's V {size:.2f}, p = {p:.2g}, {int(counts.sum()):,} votes"
            )
            figures = {"p_value": p, "cramers_v": round(size, 4), "accuracy": round(guessed, 4)}
            cases.append(Case(name, (), text, figures))
    return finding(catalogue.FILE_PREDICTS_LABEL, cases)


def _categories(values: pl.Series) -> pl.Series:
    """Return values as text; numbers of many values as the number of their bin."""
    if values.dtype == pl.String or values.n_unique() <= min(_MOST_VALUES, len(values) // _IMAGES_A_VALUE):
        return values.cast(pl.String)
    n_bins = max(2, min(_MOST_VALUES, len(values) // _IMAGES_A_VALUE))
    return ((values.rank("average") - 0.5) * n_bins / len(values)).floor().cast(pl.String)

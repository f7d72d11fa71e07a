"""What the rules look at: the rows of a manifest, each with the part that it is in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from medtool.errors import ManifestError, UsageError
from medtool.manifest import COLUMNS, Manifest
from medtool.roles import parts_of
from medtool.split.options import NO_COLUMN

# Columns that by their name hold what must not be cut, the widest first; see _is_named.
GROUP_COLUMNS = (
    "patient",
    "subject",
    "participant",
    "case",
    "study",
    "exam",
    "slide",
    "specimen",
    "lesion",
    "nodule",
    "video",
    "volume",
)

_NO_GROUPS = frozenset(COLUMNS) - {"patient", "site"}
_PATIENTS = GROUP_COLUMNS[:3]
_ID = r"(?:instance)?(?:id|uid|identifier|key|code|name|no|nr|num|number|index)?"
_FRACTION = r"\A-?[0-9]*\.[0-9]*[1-9][0-9]*\z"
_MOST_PATIENTS = 5.0  # of a lesion, case, ...: what has more on average is a cohort, a device, a protocol
_FEWEST_IDS, _MOST_ROWS = 3, 20.0  # so few values with so many rows each are classes, not ids

PART = "_part"  # a manifest's columns are taken as they are; this one is added


@dataclass(frozen=True, eq=False)
class AuditTable:
    """A manifest as the audit sees it.

    Attributes
    ----------
    manifest
        As it was read.
    groups
        The columns whose values must not be cut, widest first; each is a column of the manifest with values.
    is_by_image
        Whether it was said that every image is of somebody else (``--group none``).
    passed_over
        Columns that have the name of such a column and not its values, a line each.
    frame
        The manifest's table and the column :data:`PART`: for two rows the same only where they have the same role in
        every fold; empty for rows that are not used.
    """

    manifest: Manifest
    groups: tuple[str, ...]
    frame: pl.DataFrame
    passed_over: tuple[str, ...] = ()
    is_by_image: bool = False

    @classmethod
    def of(cls, manifest: Manifest, groups: Sequence[str] = ()) -> AuditTable:
        """Return the table of a manifest.

        Parameters
        ----------
        groups
            The columns whose values must not be cut. Without any, those that are called like one of
            :data:`GROUP_COLUMNS` (``lesion_id``, ``PatientID``) and hold ids: a column ``study`` of two values that
            every second patient shares names a cohort, and ``volume`` with fractions a measurement. ``none`` alone
            says that every image is of somebody else.

        Raises
        ------
        ManifestError
            If a column of ``groups`` is not there.
        UsageError
            If one of them says what an image is or where it is used.
        """
        if tuple(groups) == (NO_COLUMN,) and NO_COLUMN not in manifest.columns:
            return cls(manifest, (), manifest.table.with_columns(parts_of(manifest).alias(PART)), is_by_image=True)
        for name in groups:
            if name not in manifest.columns:
                raise ManifestError(
                    f"the manifest has no column {name!r} to group by (there are: {', '.join(manifest.columns)})"
                )
            if name in _NO_GROUPS:
                raise UsageError(f"--group {name}: this column does not say who or what is shown")
        frame = manifest.table.with_columns(parts_of(manifest).alias(PART))
        if groups:
            return cls(manifest, tuple(groups), frame)
        chosen, passed_over = _guessed(manifest.table)
        return cls(manifest, chosen, frame, passed_over)

    @property
    def has_parts(self) -> bool:
        """Whether any row is in a part."""
        return bool((self.frame.get_column(PART) != "").any())


def _guessed(table: pl.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns that by their names and values must not be cut, and why others of such names may be."""
    chosen: list[str] = []
    passed_over: list[str] = []
    for kind in GROUP_COLUMNS:
        for name in table.columns:
            if name in _NO_GROUPS or not _is_named(name, kind) or not (table.get_column(name) != "").any():
                continue
            patient = next((column for column in chosen if _kind_of(column) in _PATIENTS), None)
            reason = "" if kind in _PATIENTS else _why_no_ids(table, name, patient)
            if reason:
                passed_over.append(f"the column {name!r} is not taken for ids ({reason}); --group {name} takes it")
            else:
                chosen.append(name)
    return tuple(chosen), tuple(passed_over)


def _is_named(column: str, kind: str) -> bool:
    """Tell whether a column is called like a kind of group, as ``lesion``, ``Lesion ID`` and ``lesionId`` are."""
    return re.fullmatch(kind + _ID, re.sub(r"[\W_]", "", column.casefold())) is not None


def _kind_of(column: str) -> str:
    return next(kind for kind in GROUP_COLUMNS if _is_named(column, kind))


def _why_no_ids(table: pl.DataFrame, name: str, patient: str | None) -> str:
    """Return why the values of a column cannot be ids, empty if they can."""
    known = table.filter(pl.col(name) != "")
    n_values = known.get_column(name).n_unique()
    if (n_fractions := known.get_column(name).str.contains(_FRACTION).sum()) * 2 > known.height:
        return f"{n_fractions:,} of {known.height:,} values are fractions"
    if n_values <= _FEWEST_IDS and known.height > _MOST_ROWS * n_values:
        return f"{n_values:,} value{'' if n_values == 1 else 's'} in {known.height:,} rows"
    if patient is not None:
        pairs = known.filter(pl.col(patient) != "").select(name, patient).unique()
        n_patients = pairs.height / max(1, pairs.get_column(name).n_unique())
        if n_patients > _MOST_PATIENTS:
            return f"each value has {n_patients:.0f} patients on average"
    return ""

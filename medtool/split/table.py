"""What the rules look at: the rows of a manifest, each with the part that it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from medtool.errors import ManifestError
from medtool.manifest import Manifest
from medtool.roles import parts_of

# Columns that by their name hold what must not be cut, the widest first.
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
    frame
        The manifest's table and the column :data:`PART`: for two rows the same only where they have the same role in
        every fold; empty for rows that are not used.
    """

    manifest: Manifest
    groups: tuple[str, ...]
    frame: pl.DataFrame

    @classmethod
    def of(cls, manifest: Manifest, groups: Sequence[str] = ()) -> AuditTable:
        """Return the table of a manifest; without ``groups``, those of :data:`GROUP_COLUMNS` (or with _id) it has.

        Raises
        ------
        ManifestError
            If a column of ``groups`` is not there.
        """
        for name in groups:
            if name not in manifest.columns:
                raise ManifestError(
                    f"the manifest has no column {name!r} to group by (there are: {', '.join(manifest.columns)})"
                )
        known = [text for name in GROUP_COLUMNS for text in (name, f"{name}_id")]
        filled = (name for name in known if name in manifest.columns and (manifest.table.get_column(name) != "").any())
        chosen = tuple(groups) or tuple(filled)
        return cls(manifest, chosen, manifest.table.with_columns(parts_of(manifest).alias(PART)))

    @property
    def has_parts(self) -> bool:
        """Whether any row is in a part."""
        return bool((self.frame.get_column(PART) != "").any())

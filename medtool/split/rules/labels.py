"""How the labels are spread: rare classes, classes that a part lacks, rows without a label.

A column of measurements or free text has no classes: nearly every row has a value of its own. B801 to B803 are silent
on such labels.
"""

from __future__ import annotations

import polars as pl

from medtool.roles import VAL_FOLD, folds_of
from medtool.split.catalogue import CLASS_IMBALANCE, CLASS_MISSING, CLASS_OF_FEW_GROUPS, NO_LABEL
from medtool.split.findings import Case, Finding, finding
from medtool.split.rules.identifiers import is_known
from medtool.split.rules.tally import counted, held_out, in_order, name_of, told, used
from medtool.split.table import PART, AuditTable

_IMBALANCE = 10.0  # images of the most frequent class for one of the rarest
_FEW_GROUPS = 10
_ALWAYS_CLASSES = 20  # labels of so few values are classes in any table
_MOST_CLASSES = 1000


def class_imbalance(table: AuditTable) -> list[Finding]:
    """Return whether the most frequent class has ten times the images of the rarest, or more (B801)."""
    if not _has_classes(table):
        return []
    counted = used(table).filter(pl.col("label") != "").group_by("label").len()
    sizes = sorted(((n, label) for label, n in counted.iter_rows()), key=lambda item: (-item[0], item[1]))
    (most, frequent), (least, rare) = sizes[0], sizes[-1]
    if most < _IMBALANCE * least:
        return []
    detail = f"{most:,} images of {frequent}, {least:,} of {rare}: {most / least:.0f} to 1"
    values = {"largest": most, "smallest": least, "ratio": round(most / least, 1)}
    return finding(CLASS_IMBALANCE, [Case("label", (), detail, values)])


def classes_missing(table: AuditTable) -> list[Finding]:
    """Return the classes that have no image in a part (B802): train, val, test, a fold, or the val part of a fold.

    A part without any label is another matter (B804), and so is a class of no part.
    """
    if not _has_classes(table) or not table.has_parts:
        return []
    places = _places(table)
    counts = dict(places.group_by("place").len().iter_rows())
    classes = sorted(places.get_column("label").unique())
    present = set(places.select("place", "label").unique().iter_rows())
    cases = []
    for place in in_order(counts):
        lacking = [label for label in classes if (place, label) not in present]
        for label in lacking:
            detail = f"none of the {counts[place]:,} images with a label in {place} is of {label}"
            cases.append(Case(f"{label} in {place}", (), detail, {"images": counts[place]}))
    return finding(CLASS_MISSING, cases)


def classes_of_few_groups(table: AuditTable) -> list[Finding]:
    """Return the classes that fewer than ten patients (or lesions, ...) have in a part that measures (B803).

    These are val, test and the folds. Of several columns the widest counts; rows of unknown groups count one each, so
    the true number may be lower still. Without such a column images are counted.
    """
    if not _has_classes(table) or not table.has_parts:
        return []
    rows = table.frame.filter((pl.col("label") != "") & ~pl.col(PART).is_in(["", "train"]))
    name = table.groups[0] if table.groups else None
    alone = pl.lit("? ") + pl.col("image_id")
    who = alone if name is None else pl.when(is_known(name)).then(pl.lit("= ") + pl.col(name)).otherwise(alone)
    voters = rows.select(held_out().alias("place"), "label", "image_id", who.alias("who"))
    few = (
        voters.group_by("place", "label")
        .agg(pl.col("who").n_unique(), pl.len().alias("n"))
        .filter(pl.col("who") < _FEW_GROUPS)
    )
    images = voters.join(few, on=["place", "label"], how="semi").group_by("place", "label").agg("image_id")
    cases = []
    for place, label, n_groups, n, ids in few.join(images, on=["place", "label"]).iter_rows():
        detail = (
            f"{counted(n, 'image')} of {counted(n_groups, name)}"
            if name
            else f"{counted(n, 'image')}, patients unknown"
        )
        cases.append(Case(f"{label} in {place}", tuple(sorted(ids)), detail, {"groups": n_groups, "images": n}))
    return finding(CLASS_OF_FEW_GROUPS, cases)


def rows_without_label(table: AuditTable) -> list[Finding]:
    """Return the rows of a part that have no label, where others have one (B804)."""
    if not table.has_parts or not _has_labels(table):
        return []
    rows = table.frame.filter((pl.col(PART) != "") & (pl.col("label") == "")).with_columns(held_out().alias("place"))
    cases = []
    for place, images in rows.group_by("place").agg("image_id").iter_rows():
        case = Case(name_of(place), tuple(sorted(images)), told({place: len(images)}), {"rows": len(images)})
        cases.append(case)
    return finding(NO_LABEL, cases)


def _has_labels(table: AuditTable) -> bool:
    return "label" in table.manifest.columns and bool((table.frame.get_column("label") != "").any())


def _has_classes(table: AuditTable) -> bool:
    if not _has_labels(table):
        return False
    labels = used(table).get_column("label")
    labels = labels.filter(labels != "")
    n_classes = labels.n_unique()
    return 0 < n_classes <= _ALWAYS_CLASSES or n_classes <= min(_MOST_CLASSES, len(labels) // 2)


def _places(table: AuditTable) -> pl.DataFrame:
    """Return ``place`` and ``label`` of each row with a label: a row that is in val of a fold is in two places."""
    rows = table.frame.filter((pl.col("label") != "") & (pl.col(PART) != ""))
    places = [rows.select(held_out().alias("place"), "label")]
    numbers = [str(number) for number in folds_of(table.manifest)]
    if VAL_FOLD in table.manifest.columns and numbers:
        in_val = rows.filter(
            pl.col(PART).str.contains(", val of fold ", literal=True) & pl.col(VAL_FOLD).is_in(numbers)
        )
        places.append(in_val.select((pl.lit("val of fold ") + pl.col(VAL_FOLD)).alias("place"), "label"))
    return pl.concat(places)

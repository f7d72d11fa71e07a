"""What must not be cut: patients, lesions and the like in two parts, under two spellings, at two sites, unknown.

A cell that names nobody (:func:`medtool.split.rules.identifiers.is_known`) is counted and never grouped. What rests on
the ids as they are written, and what rests on their normal form, are findings of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from medtool.roles import folds_of
from medtool.split.catalogue import (
    GROUP_AT_TWO_SITES,
    GROUP_IN_BOTH_MANIFESTS,
    GROUP_IN_TWO_FOLDS,
    GROUP_IN_TWO_PARTS,
    GROUP_WITH_TWO_LABELS,
    IDS_EQUAL_IN_BOTH_MANIFESTS,
    IDS_EQUAL_WHEN_NORMALISED,
    UNKNOWN_GROUPS,
)
from medtool.split.findings import Case, Finding, Severity, finding
from medtool.split.rules.identifiers import differences, is_known, normalised
from medtool.split.rules.tally import cases_of, held_out, in_order, name_of, subject_of, told, used
from medtool.split.table import PART, AuditTable

_MOST_SPELLINGS = 4  # shown of one id


def groups_in_two_parts(table: AuditTable) -> list[Finding]:
    """Return the groups that are in several of train, val and test (G101), and those in several folds (G102).

    A group of one fold that ``val_fold`` cuts counts as in two parts: in one fold it is in train and in val. A lesion
    whose rows are all of one patient who is in the same finding is no case of its own.
    """
    in_parts: dict[str, pl.DataFrame] = {}
    in_folds: dict[str, pl.DataFrame] = {}
    folds = [str(number) for number in folds_of(table.manifest)]
    for name in table.groups:
        fold = pl.when(pl.col(PART).str.starts_with("fold ")).then(held_out())
        kind = pl.when(fold.is_null()).then(PART).otherwise(pl.lit("fold"))
        cut = _varied(_rows(table, name).filter(pl.col(PART) != ""), PART)
        cut = cut.with_columns(_possible(folds)).with_columns(_fold=fold, _kind=kind)
        n_folds = pl.col("_fold").drop_nulls().n_unique().over("group")
        n_parts, n_kinds = (pl.col(column).n_unique().over("group") for column in (PART, "_kind"))
        is_in_parts = (n_kinds > 1) | ((n_folds == 1) & (n_parts > 1))
        is_in_folds = (n_folds > 1) & pl.col("_fold").is_not_null()
        in_parts[name] = cut.filter(is_in_parts)
        in_folds[name] = cut.filter(is_in_folds)
    return finding(GROUP_IN_TWO_PARTS, _widest_cases(in_parts)) + finding(GROUP_IN_TWO_FOLDS, _widest_cases(in_folds))


def ids_equal_when_normalised(table: AuditTable) -> list[Finding]:
    """Return the ids that share a normal form (G103): across parts medium, else low.

    That an id as it is written is in two parts is no business of this rule: it is one where another spelling adds a
    part, and where it does not.
    """
    across: list[Case] = []
    within: list[Case] = []
    for name in table.groups:
        rows = _rows(table, name)
        ids = rows.get_column("group").unique()
        spellings = pl.DataFrame({"id": ids, "form": normalised(ids)}).filter(pl.col("form").is_duplicated())
        if spellings.is_empty():
            continue
        shared = rows.rename({"group": "id"}).join(spellings, on="id").rename({"form": "group"})
        # Two ids that together are in two parts: some row of the one and some row of the other are in different parts.
        n_parts = pl.col(PART).filter(pl.col(PART) != "").n_unique().over("group")
        written = dict(spellings.group_by("form").agg(pl.col("id").sort()).iter_rows())
        detail = _also(differences(spellings.get_column("id"), spellings.get_column("form")))
        across += cases_of(shared.filter(n_parts > 1), subject_of(name, _spelt(written)), detail)
        within += cases_of(shared.filter(n_parts <= 1), subject_of(name, _spelt(written)), detail)
    return finding(IDS_EQUAL_WHEN_NORMALISED, across) + finding(
        IDS_EQUAL_WHEN_NORMALISED, within, severity=Severity.LOW
    )


def unknown_groups(table: AuditTable) -> list[Finding]:
    """Return how many rows name no group, by column (G104): medium where none of the rows does, else low.

    Low, too, where it was said that every image is of somebody else.

    Rows that no part uses are left out where there are parts.
    """
    rows = used(table)
    if not table.groups:
        if not table.has_parts:
            return []
        detail = "no column names patients (or lesions, ...): whether the parts share any cannot be told"
        severity = Severity.LOW if table.is_by_image else Severity.MEDIUM
        return finding(UNKNOWN_GROUPS, [Case("no such column", (), detail)], severity=severity)
    cases = []
    for name in table.groups:
        unknown = rows.filter(~is_known(name)).select(pl.col(name).alias("spelling"), PART, "image_id")
        if unknown.height:
            cases.append(_unknown(name, unknown, of=rows.height))
    nobody_is_known = rows.filter(pl.any_horizontal(is_known(name) for name in table.groups)).is_empty()
    return finding(UNKNOWN_GROUPS, cases, severity=Severity.MEDIUM if nobody_is_known else None)


def groups_at_two_sites(table: AuditTable) -> list[Finding]:
    """Return the groups with rows at several sites (G105); a row without site is at none."""
    return finding(GROUP_AT_TWO_SITES, _with_two(table, "site"))


def groups_with_two_labels(table: AuditTable) -> list[Finding]:
    """Return the groups with rows of several labels (G106); a row without label has none.

    It is low for every column: a patient may have a benign and a malignant lesion, and what a column is called does
    not tell whether its groups have one diagnosis.
    """
    return finding(GROUP_WITH_TWO_LABELS, _with_two(table, "label"))


def groups_in_both(table: AuditTable, other: AuditTable) -> list[Finding]:
    """Return the groups that two manifests share: as they are written (G107), and by their normal form only (G108).

    Columns are compared that have one name, ``patient`` and ``patient_id`` being one. Of a manifest with parts, only
    the rows in a part count. The rows of a case are those of ``table``. Where the manifests have no such column in
    common, that is said (G104, medium).
    """
    theirs = {_plain(name): name for name in other.groups}
    pairs = [(name, theirs[_plain(name)]) for name in table.groups if _plain(name) in theirs]
    if not pairs:
        detail = "no column of patients (or lesions, ...) is in both manifests: whether they share any cannot be told"
        return finding(UNKNOWN_GROUPS, [Case("no such column in both", (), detail)], severity=Severity.MEDIUM)
    same: list[Case] = []
    alike: list[Case] = []
    for name, its_name in pairs:
        here, there = _ids(table, name), _ids(other, its_name)
        same += _shared_cases(table, name, here.join(there.rename({"id": "its_id"}), left_on="id", right_on="its_id"))
        same_form = here.join(there.rename({"id": "its_id"}), on="form").filter(pl.col("id") != pl.col("its_id"))
        alike += _shared_cases(table, name, same_form)
    return finding(GROUP_IN_BOTH_MANIFESTS, same) + finding(IDS_EQUAL_IN_BOTH_MANIFESTS, alike)


def _widest_cases(cut: Mapping[str, pl.DataFrame]) -> list[Case]:
    """Return a case for each group that is cut, but for those within a cut group of another column.

    Of groups with the very same rows, that of the first column is the case.

    Parameters
    ----------
    cut
        The rows of the groups that are cut, by column: ``group``, :data:`PART` and ``image_id``.
    """
    cases: list[Case] = []
    names = [name for name, rows in cut.items() if rows.height]
    for place, name in enumerate(names):
        rows = cut[name]
        for number, other in enumerate(names):
            if other == name:
                continue
            wider = cut[other].select("image_id", _wider="group", _n_wider=pl.len().over("group"))
            held = rows.join(wider, on="image_id", how="left")
            is_within = (pl.col("_wider").null_count() == 0) & (pl.col("_wider").n_unique() == 1)
            is_less = pl.col("_n_wider").first() >= pl.len() + (1 if number > place else 0)
            within = held.group_by("group").agg(is_within=is_within & is_less).filter("is_within")
            rows = rows.join(within, on="group", how="anti")
        cases += cases_of(rows, subject_of(name))
    return cases


def _possible(folds: Sequence[str]) -> pl.Expr:
    """Return the part of each row, without a ``val_fold`` that names its own fold or none: it has no effect."""
    of, val_of = (pl.col(PART).str.extract(r"(?s)\Afold ([^,]*), val of fold (.*)\z", place) for place in (1, 2))
    return pl.when((val_of != of) & val_of.is_in(folds)).then(PART).otherwise(held_out()).alias(PART)


def _rows(table: AuditTable, name: str) -> pl.DataFrame:
    """Return the rows that name a group, with the columns ``group``, :data:`PART` and ``image_id``."""
    return table.frame.filter(is_known(name)).select(pl.col(name).alias("group"), PART, "image_id")


def _varied(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return the rows of the groups that have several values of ``column``."""
    value = pl.col(column).cast(pl.Categorical).to_physical()  # numbers are faster to compare than text
    ranges = rows.select("group", value.alias("value")).group_by("group")
    varied = ranges.agg(low=pl.col("value").min(), high=pl.col("value").max()).filter(pl.col("low") != pl.col("high"))
    return rows.join(varied.select("group"), on="group", how="semi")


def _spelt(written: Mapping[str, list[str]]) -> Callable[[str], str]:
    def spelt(form: str) -> str:
        ids = written[form]
        more = len(ids) - _MOST_SPELLINGS
        return " = ".join(ids[:_MOST_SPELLINGS]) + (f" = {more} more" if more > 0 else "")

    return spelt


def _also(differ: Mapping[str, str]) -> Callable[[str, str], str]:
    return lambda form, spread: f"{spread}; the ids differ in {differ[form]}"


def _unknown(name: str, unknown: pl.DataFrame, *, of: int) -> Case:
    """Return the case of a column with rows that name nobody; ``of`` is the number of rows looked at."""
    counts = dict(unknown.group_by(PART).len().iter_rows())
    counts = {part: counts[part] for part in in_order(counts)}
    spellings = unknown.filter(pl.col("spelling").str.strip_chars() != "").group_by("spelling").len()
    written = [f"{n:,} of them say {spelling!r}" for spelling, n in sorted(spellings.iter_rows())]
    places = [told(counts)] if list(counts) != [""] else []
    detail = "; ".join([f"{unknown.height:,} of {of:,} rows name no {name}", *places, *written])
    values = {"rows": unknown.height, "of": of, **{name_of(part): n for part, n in counts.items() if part}}
    return Case(name, tuple(unknown.get_column("image_id").sort()), detail, values)


def _with_two(table: AuditTable, column: str) -> list[Case]:
    """Return the groups whose rows have several values of a column, empty cells left out."""
    if column not in table.manifest.columns:
        return []
    cases = []
    for name in table.groups:
        if name == column:
            continue
        known = table.frame.filter(is_known(name) & (pl.col(column) != ""))
        varied = _varied(known.select(pl.col(name).alias("group"), pl.col(column).alias("value"), "image_id"), "value")
        counted = varied.group_by("group", "value").agg(pl.len().alias("n"), "image_id").sort("group", "value")
        groups = counted.group_by("group", maintain_order=True).agg("value", "n", pl.col("image_id").explode().sort())
        for group, values, numbers, images in groups.iter_rows():
            counts = dict(zip(values, numbers, strict=True))
            detail = ", ".join(f"{n:,} of {column} {value}" for value, n in counts.items())
            cases.append(Case(f"{name} {group}", tuple(images), detail, counts))
    return cases


def _plain(name: str) -> str:
    return name.removesuffix("_id")


def _ids(table: AuditTable, name: str) -> pl.DataFrame:
    """Return the ids of the rows that count, their normal forms and numbers of rows: ``id``, ``form``, ``n``."""
    counted = used(table).filter(is_known(name)).group_by(pl.col(name).alias("id")).agg(pl.len().alias("n"))
    return counted.with_columns(form=normalised(counted.get_column("id")))


def _shared_cases(table: AuditTable, name: str, shared: pl.DataFrame) -> list[Case]:
    """Return a case for each row of ``shared``: ``id`` and ``n`` here, ``its_id`` and ``n_right`` in the other."""
    if "its_id" not in shared.columns:
        shared = shared.with_columns(its_id="id")
    images = (
        used(table)
        .select(pl.col(name).alias("id"), "image_id")
        .join(shared.select("id").unique(), on="id", how="semi")
        .group_by("id")
        .agg(pl.col("image_id").sort())
    )
    cases = []
    for row in shared.join(images, on="id").iter_rows(named=True):
        subject = row["id"] if row["id"] == row["its_id"] else f"{row['id']} = {row['its_id']}"
        counts = {"here": row["n"], "there": row["n_right"]}
        detail = f"{row['n']:,} here, {row['n_right']:,} in the other manifest"
        cases.append(Case(f"{name} {subject}", tuple(row["image_id"]), detail, counts))
    return cases

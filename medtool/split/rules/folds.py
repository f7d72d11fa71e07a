"""What the parts are used for: folds whose networks vote together, parts that both choose and measure, odd folds.

Some of these are about the table as a whole. Their cases name no rows, so that a baseline knows them again after rows
were added.
"""

from __future__ import annotations

import polars as pl

from medtool.manifest import Manifest
from medtool.roles import VAL_FOLD, folds_of, has_fixed_test
from medtool.split.catalogue import FOLDS_ENSEMBLED, FOLDS_INCOMPLETE, GROUP_PARTLY_USED, NO_SPLIT, VALIDATION_IS_TEST
from medtool.split.findings import Case, Finding, Severity, finding
from medtool.split.rules.identifiers import is_known
from medtool.split.rules.tally import cases_of, held_out, subject_of
from medtool.split.table import PART, AuditTable

_UNEQUAL = 2.0  # the largest fold to the smallest, in images


def no_split(table: AuditTable) -> list[Finding]:
    """Return whether no row is in a part (F305)."""
    if table.has_parts:
        return []
    n_rows = table.frame.height
    return finding(NO_SPLIT, [Case("split", (), f"{_rows(n_rows)}, none in a part", {"rows": n_rows})])


def folds_ensembled(table: AuditTable, *, are_folds_ensembled: bool) -> list[Finding]:
    """Return whether networks are to vote together that were each tested on what the others trained on (F301)."""
    folds = folds_of(table.manifest)
    if not are_folds_ensembled or len(folds) < 2 or has_fixed_test(table.manifest):
        return []
    detail = (
        f"{len(folds)} folds and no fixed test part: whatever image the {len(folds)} networks vote on, "
        f"{len(folds) - 1} of them have trained on or chosen with it"
    )
    return finding(FOLDS_ENSEMBLED, [Case(_named(folds), (), detail, {"folds": len(folds)})])


def validation_used_as_test(table: AuditTable) -> list[Finding]:
    """Return the parts that have to do for choosing and for measuring, because one of the two has none (F302).

    - Folds without a fixed test part, some without a val part inside the training part: medium. The held-out images
      stop the training, and then measure it.
    - Train and val and no test part: medium, since the only score there is comes from val. With a test part in another
      manifest it may be accepted.
    - Train and test and no val part: low, a risk. It is right where nothing is chosen.
    """
    manifest = table.manifest
    if folds := folds_of(manifest):
        without = sorted(set(folds) - {int(text) for text in _val_folds(manifest)})
        if has_fixed_test(manifest) or not without:
            return []
        detail = f"{_named(without)}: no val part inside the training part, so the held-out images choose and measure"
        return finding(VALIDATION_IS_TEST, [Case("held-out folds", (), detail, {"folds": len(without)})])
    splits = manifest.counts("split")
    if set(splits) == {"train", "val"}:
        detail = f"{splits['val']:,} images in val and none in test: a score on val is that of the luckiest choice"
        return finding(VALIDATION_IS_TEST, [Case("val", (), detail, {"val": splits["val"]})])
    if set(splits) == {"train", "test"}:
        detail = f"{splits['test']:,} images in test and none in val: whatever is chosen would be chosen on test"
        case = Case("test", (), detail, {"test": splits["test"]})
        return finding(VALIDATION_IS_TEST, [case], severity=Severity.LOW)
    return []


def groups_partly_used(table: AuditTable) -> list[Finding]:
    """Return the groups of which some rows are in a part and others in none (F303).

    Rows without a label do not count where others have one: it is plain why they are left out.
    """
    if not table.has_parts:
        return []
    rows = table.frame
    if table.manifest.counts("label"):
        rows = rows.filter((pl.col("label") != "") | (pl.col(PART) != ""))
    cases = []
    for name in table.groups:
        unused = rows.filter((pl.col(PART) == "") & is_known(name)).select(pl.col(name).alias("group")).unique()
        of_those = rows.select(pl.col(name).alias("group"), PART, "image_id").join(unused, on="group", how="semi")
        partly = of_those.filter((pl.col(PART) != "").any().over("group"))
        cases += cases_of(partly, subject_of(name))
    return finding(GROUP_PARTLY_USED, cases)


def folds_incomplete(table: AuditTable) -> list[Finding]:
    """Return what is wrong with the numbers of the folds and who has one (F304).

    Missing numbers, a single fold, rows with a fold that are in test or say val, and a ``val_fold`` that cannot be are
    medium. Rows of no part, and folds of unequal size unless each fold is a site, are low.
    """
    folds = folds_of(table.manifest)
    if not folds:
        return []
    wrong = [*_missing_numbers(folds), *_rows_with_two_roles(table, folds)]
    odd = [*_unused(table), *_unequal(table)]
    return finding(FOLDS_INCOMPLETE, wrong) + finding(FOLDS_INCOMPLETE, odd, severity=Severity.LOW)


def _val_folds(manifest: Manifest) -> list[str]:
    """Return the numbers in ``val_fold``; what is no number is none."""
    if VAL_FOLD not in manifest.columns:
        return []
    in_fold = manifest.table.filter(pl.col("fold") != "").get_column(VAL_FOLD).unique()
    return in_fold.filter(in_fold.str.contains(r"\A[0-9]{1,9}\z")).to_list()


def _missing_numbers(folds: list[int]) -> list[Case]:
    if len(folds) == 1:
        return [
            Case("number of folds", (), f"only fold {folds[0]} is there: nothing is left to train on", {"folds": 1})
        ]
    first = min(folds[0], 1)  # counted from 0 or from 1
    n_missing = folds[-1] - first + 1 - len(folds)
    if not n_missing:
        return []
    # One case however many are missing: a fold may be called 20240131.
    detail = f"{_named(folds)} of {first} to {folds[-1]} are there: {n_missing:,} missing"
    return [Case("numbers of the folds", (), detail, {"folds": len(folds), "missing": n_missing})]


def _rows_with_two_roles(table: AuditTable, folds: list[int]) -> list[Case]:
    columns = table.manifest.columns
    split = pl.col("split") if "split" in columns else pl.lit("")
    val_fold = pl.col(VAL_FOLD) if VAL_FOLD in columns else pl.lit("")
    fold = pl.col("fold")
    numbers = [str(number) for number in folds]
    broken = {
        "in a fold and in test": (fold != "") & (split == "test"),
        "in a fold and in val": (fold != "") & (split == "val"),
        "val_fold and no fold": (val_fold != "") & (fold == ""),
        "val_fold is the row's own fold": (val_fold != "") & (val_fold == fold),
        "val_fold is no fold": (val_fold != "") & ~val_fold.is_in(numbers),
    }
    meant = {
        "in a fold and in test": "they count as test",
        "in a fold and in val": "the fold counts, so they are no val part",
        "val_fold and no fold": "they are in val of a fold, and held out by none",
        "val_fold is the row's own fold": "it is held out there, so it cannot be val",
        "val_fold is no fold": f"there are {_named(folds)}",
    }
    cases = []
    for subject, is_broken in broken.items():
        rows = table.frame.filter(is_broken).get_column("image_id").sort()
        if len(rows):
            cases.append(Case(subject, tuple(rows), f"{_rows(len(rows))}; {meant[subject]}", {"rows": len(rows)}))
    return cases


def _unused(table: AuditTable) -> list[Case]:
    rows = table.frame.filter(pl.col(PART) == "").get_column("image_id").sort()
    if rows.is_empty():
        return []
    detail = f"{_rows(len(rows))} of {table.frame.height:,} in no fold and in no other part"
    return [Case("in no part", tuple(rows), detail, {"rows": len(rows), "of": table.frame.height})]


def _unequal(table: AuditTable) -> list[Case]:
    """Return the folds' sizes where they differ much, unless each fold is a site."""
    rows = table.frame.filter(pl.col(PART).str.starts_with("fold ")).with_columns(held_out().alias("held out"))
    sizes = sorted(rows.group_by("held out").len().iter_rows(), key=lambda item: (item[1], item[0]))
    if len(sizes) < 2:
        return []
    if "site" in table.manifest.columns:
        pairs = rows.select("site", "held out").unique()
        if pairs.get_column("site").is_unique().all():
            return []
    (smallest, least), (largest, most) = sizes[0], sizes[-1]
    if most < _UNEQUAL * least:
        return []
    detail = f"{largest} has {most:,} images, {smallest} has {least:,}"
    return [Case("sizes of the folds", (), detail, {"largest": most, "smallest": least})]


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"


def _named(folds: list[int]) -> str:
    """Return folds in words: ``folds 0, 1 and 3``, ``folds 0 to 4``."""
    if len(folds) == 1:
        return f"fold {folds[0]}"
    if len(folds) > 2 and folds[-1] - folds[0] == len(folds) - 1:
        return f"folds {folds[0]} to {folds[-1]}"
    shown = [str(number) for number in folds[:20]]
    if len(folds) > len(shown):
        return f"folds {', '.join(shown)} and {len(folds) - len(shown):,} more"
    return f"folds {', '.join(shown[:-1])} and {shown[-1]}"

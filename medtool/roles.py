"""Which images train, choose and measure: the meaning of a manifest's ``split``, ``fold`` and ``val_fold`` columns.

- ``split`` says train, val or test, where a row has no fold. A row with the split test is in test, fold or not.
- ``fold`` says in which fold an image is held out. Where some rows have the split test, an image held out is in val;
  else it is in test.
- ``val_fold`` says in which fold, another than its own, an image is in the val part inside the training part.
"""

from __future__ import annotations

import polars as pl

from medtool.errors import ManifestError
from medtool.manifest import Manifest

VAL_FOLD = "val_fold"


def folds_of(manifest: Manifest) -> list[int]:
    """Return the numbers of the folds, in order; empty where there are none."""
    return sorted(int(number) for number in manifest.counts("fold"))


def roles_of(manifest: Manifest, fold: int | None = None) -> pl.Series:
    """Return train, val, test or an empty text for each row.

    Parameters
    ----------
    fold
        Which fold is held out; None where the manifest has no folds.

    Raises
    ------
    ManifestError
        If the manifest has folds and ``fold`` is None, has no such fold, or has neither splits nor folds.
    """
    folds = folds_of(manifest)
    known = ", ".join(str(number) for number in folds)
    if fold is None:
        if folds:
            raise ManifestError(f"the manifest has folds ({known}); say which one is held out")
        if not manifest.counts("split"):
            raise ManifestError("the manifest has no split", hint="medtool split make MANIFEST")
        return manifest.table.get_column("split").alias("role")
    if fold not in folds:
        raise ManifestError(f"the manifest has no fold {fold} (there are: {known or 'none'})")
    held_out = pl.lit("val" if has_fixed_test(manifest) else "test")
    split = _column(manifest, "split")
    in_fold = (
        pl.when(pl.col("fold") == str(fold))
        .then(held_out)
        .when(_column(manifest, VAL_FOLD) == str(fold))
        .then(pl.lit("val"))
        .otherwise(pl.lit("train"))
    )
    split = _column(manifest, "split")
    role = pl.when((split == "test") | (pl.col("fold") == "")).then(split).otherwise(in_fold)
    return manifest.table.select(role.alias("role")).to_series()


def has_fixed_test(manifest: Manifest) -> bool:
    """Tell whether some rows are the test part of every fold."""
    return "test" in manifest.counts("split")


def parts_of(manifest: Manifest) -> pl.Series:
    """Return a text for each row that is equal for two rows only where they have the same role in every fold.

    Such as ``train``, ``fold 2`` or ``fold 2, val of fold 3``; empty for rows that no fold and no split uses. What must
    not be cut, such as a patient, must have one part.
    """
    split, fold, val_fold = (_column(manifest, name) for name in ("split", "fold", VAL_FOLD))
    has_fold = (fold != "") & (split != "test")
    val_of = pl.when(val_fold != "").then(pl.lit(", val of fold ") + val_fold).otherwise(pl.lit(""))
    part = pl.when(has_fold).then(pl.lit("fold ") + fold + val_of).otherwise(split)
    return manifest.table.with_columns(part.alias("part")).get_column("part")


def _column(manifest: Manifest, name: str) -> pl.Expr:
    return pl.col(name) if name in manifest.columns else pl.lit("")

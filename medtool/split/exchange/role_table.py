"""The role of every image in every fold as one array, from a manifest's columns and back to them.

Other programs list the images of each part of each fold. A manifest says the same in three columns (see
:mod:`medtool.roles`), which hold less: an image is held out of one fold, and may be in the val part of one other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from medtool.errors import ManifestError
from medtool.manifest import Manifest
from medtool.roles import VAL_FOLD, folds_of, roles_of
from medtool.split.exchange.format import FoldCounts, counted, numbers, shown

ROLES = ("", "train", "val", "test")
UNUSED, TRAIN, VAL, TEST = range(4)

Codes = npt.NDArray[np.uint8]

# A million images in 268 folds; a file with more has been made to fill the memory.
_MAX_CELLS = 1 << 28


@dataclass(frozen=True, eq=False)
class RoleTable:
    """The role of every image in every fold.

    Attributes
    ----------
    folds
        The numbers of the folds, ascending; empty for a hold-out split.
    codes
        Shape ``(images, folds)``, or ``(images, 1)`` for a hold-out split; each a place in :data:`ROLES`.
    """

    folds: tuple[int, ...]
    codes: Codes

    @property
    def is_used(self) -> npt.NDArray[np.bool_]:
        """Shape ``(images,)``: whether an image has a role in any fold."""
        used: npt.NDArray[np.bool_] = (self.codes != UNUSED).any(axis=1)
        return used

    @property
    def n_unused(self) -> int:
        """How many images have no role in any fold."""
        return int((~self.is_used).sum())

    def rows_of(self, column: int, code: int) -> list[int]:
        """Return the rows of the images with a role in one column, in order."""
        rows: list[int] = np.flatnonzero(self.codes[:, column] == code).tolist()
        return rows

    @property
    def used_rows(self) -> list[int]:
        """The rows of the images that have a role in any fold, in order."""
        rows: list[int] = np.flatnonzero(self.is_used).tolist()
        return rows

    def counts(self) -> tuple[FoldCounts, ...]:
        """Return how many images each part of each fold has."""
        made = []
        for column, fold in enumerate(self.folds or (None,)):
            n_by_code = np.bincount(self.codes[:, column], minlength=len(ROLES))
            made.append(FoldCounts(fold, int(n_by_code[TRAIN]), int(n_by_code[VAL]), int(n_by_code[TEST])))
        return tuple(made)

    def describe(self, row: int) -> str:
        """Return the roles of one image for a message: ``test in fold 0; train in folds 1, 2``."""
        codes = self.codes[row]
        if not self.folds:
            return ROLES[codes[0]] or "in no part"
        words = []
        for code in (TEST, VAL, TRAIN, UNUSED):
            having = [fold for fold, found in zip(self.folds, codes, strict=True) if found == code]
            if having:
                plural = "s" if len(having) > 1 else ""
                words.append(f"{ROLES[code] or 'in no part'} in fold{plural} {numbers(having)}")
        return "; ".join(words)


def empty_table(n_images: int, folds: Sequence[int]) -> RoleTable:
    """Return a table in which no image has a role yet.

    Raises
    ------
    ManifestError
        If there are more folds than there is memory for.
    """
    n_columns = max(1, len(folds))
    if n_images * n_columns > _MAX_CELLS:
        raise ManifestError(f"{counted(len(folds), 'fold')} of {counted(n_images)} are more than can be held")
    return RoleTable(tuple(folds), np.zeros((n_images, n_columns), dtype=np.uint8))


def roles_in(manifest: Manifest, fold: int | None = None) -> RoleTable:
    """Return the role of every image in every fold, or in one of them as a hold-out split.

    Raises
    ------
    ManifestError
        If the manifest has neither splits nor folds, or not that fold.
    """
    folds = () if fold is not None else tuple(folds_of(manifest))
    table = empty_table(len(manifest), folds)
    for column, number in enumerate(folds or (fold,)):
        table.codes[:, column] = roles_of(manifest, number).replace_strict(
            list(ROLES), list(range(len(ROLES))), return_dtype=pl.UInt8
        )
    return table


def with_roles(
    manifest: Manifest, table: RoleTable, *, source: str, said: RoleTable | None = None
) -> tuple[Manifest, tuple[str, ...]]:
    """Return the manifest with columns that give every image these roles, and what should be said about it.

    Parameters
    ----------
    source
        What the roles come from, for messages.
    said
        The roles in the words of the file, where they are others.

    Raises
    ------
    ManifestError
        If ``split``, ``fold`` and ``val_fold`` cannot hold the roles; the message names the first image.
    """
    if not table.is_used.any():
        raise ManifestError(f"{source}: no image is in any part")
    if not table.folds:
        return with_columns(manifest, split=[ROLES[code] for code in table.codes[:, 0]]), ()
    codes, n_folds = table.codes, len(table.folds)
    is_constant = (codes == codes[:, :1]).all(axis=1)
    if is_constant.all():
        note = f"all {n_folds:,} folds of {source} are one and the same split; it is taken once, without folds"
        same = RoleTable((), codes[:, :1])
        return with_roles(manifest, same, source=source)[0], ((note,) if n_folds > 1 else ())
    has_fixed_test = bool((is_constant & (codes[:, 0] == TEST)).any())
    n_val, n_test = (codes == VAL).sum(axis=1), (codes == TEST).sum(axis=1)
    is_rest_train = (codes == TRAIN).sum(axis=1) == n_folds - n_val - n_test
    fits = (n_test == 0) & (n_val == 1) if has_fixed_test else (n_test == 1) & (n_val <= 1)
    bad = np.flatnonzero(~is_constant & ~(fits & is_rest_train))
    if len(bad):
        raise _does_not_fit(manifest, said or table, bad, source, has_fixed_test=has_fixed_test)
    held_out = codes == (VAL if has_fixed_test else TEST)
    held_out[is_constant] = False
    idle = [fold for fold, count in zip(table.folds, held_out.sum(axis=0), strict=True) if not count]
    if idle:
        raise ManifestError(
            f"{source}: fold {idle[0]} holds out no image, which a manifest's columns cannot say",
            hint=f"--fold {idle[0]} imports that fold alone, as a hold-out split",
        )
    folds = np.array([str(fold) for fold in table.folds], dtype=object)
    fold = _number_of(folds, held_out)
    val_fold = [""] * len(manifest) if has_fixed_test else _number_of(folds, (codes == VAL) & ~is_constant[:, None])
    split = [ROLES[code] if same else "" for code, same in zip(codes[:, 0], is_constant, strict=True)]
    return with_columns(manifest, split=split, fold=fold, val_fold=val_fold), ()


def with_columns(
    manifest: Manifest, *, split: Sequence[str] = (), fold: Sequence[str] = (), val_fold: Sequence[str] = ()
) -> Manifest:
    """Return the manifest with these in the place of its own ``split``, ``fold`` and ``val_fold``.

    A column without any value is left out.
    """
    table = manifest.table
    for name, values in (("split", split), ("fold", fold), (VAL_FOLD, val_fold)):
        if any(values):
            table = table.with_columns(pl.Series(name, values, dtype=pl.String))
        elif name in table.columns:
            table = table.drop(name)
    return replace(manifest, table=table, _known={})


def _number_of(folds: npt.NDArray[np.object_], is_in: npt.NDArray[np.bool_]) -> list[str]:
    """Return for each image the number of the one fold in which it is True; empty for none."""
    first = folds[is_in.argmax(axis=1)]
    first[~is_in.any(axis=1)] = ""
    cells: list[str] = first.tolist()
    return cells


def _does_not_fit(
    manifest: Manifest, said: RoleTable, bad: npt.NDArray[np.intp], source: str, *, has_fixed_test: bool
) -> ManifestError:
    image = shown(manifest.table.get_column("image_id")[int(bad[0])])
    rule = "val in one fold, or test in all," if has_fixed_test else "test in one fold, val in one other at most,"
    return ManifestError(
        f"{source}: image {image} is {said.describe(int(bad[0]))}; a manifest with folds can say of an image that it "
        f"is {rule} and train in the rest ({counted(len(bad))} that it cannot hold)",
        hint=f"--fold {said.folds[0]} imports that fold alone, as a hold-out split",
    )

"""The options of making and auditing a split; the command line reads its defaults here."""

from __future__ import annotations

from dataclasses import dataclass

from medtool.errors import UsageError


@dataclass(frozen=True)
class MakeOptions:
    """How a split is made.

    Attributes
    ----------
    fractions
        Shares of train, val and test; they add up to 1. Not used with ``folds`` or ``leave_one_site_out``.
    folds
        Number of folds; 0 makes a hold-out split.
    leave_one_site_out
        One fold a site instead.
    test_fraction
        With folds: the share of a fixed test part that no fold trains on; 0 has none.
    val_fraction
        With folds: the share of each fold's training part that is its val part.
    group
        The columns whose values must not be cut, such as ``patient``.
    stratify
        The columns whose values are to be spread equally over the parts.
    seed
        Another seed, another split; the same seed, the same split on every machine and for every order of rows.
    """

    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    folds: int = 0
    leave_one_site_out: bool = False
    test_fraction: float = 0.0
    val_fraction: float = 0.15
    group: tuple[str, ...] = ("patient",)
    stratify: tuple[str, ...] = ("label",)
    seed: int = 0


@dataclass(frozen=True)
class AuditOptions:
    """What is audited, and how.

    Attributes
    ----------
    group
        Columns whose values must not be cut; empty takes those of ``patient``, ``lesion`` and the like that are there.
    are_folds_ensembled
        Whether the networks of all folds are to vote together on one test part.
    read_images
        Whether images and masks are opened; without, only the table is audited.
    seed
        For the resampling of intervals.
    """

    group: tuple[str, ...] = ()
    are_folds_ensembled: bool = False
    read_images: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if len(set(self.group)) != len(self.group):
            raise UsageError(f"--group is given twice for one column: {', '.join(self.group)}")

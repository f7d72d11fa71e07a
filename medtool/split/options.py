"""The options of making and auditing a split; the command line reads its defaults here."""

from __future__ import annotations

from dataclasses import dataclass

from medtool.errors import UsageError

NO_COLUMN = "none"  # said instead of a column
MAX_FOLDS = 100
WRITTEN = ("split", "fold", "val_fold", "images")  # columns of the files of a split


@dataclass(frozen=True)
class MakeOptions:
    """How a split is made.

    Attributes
    ----------
    fractions
        Shares of train, val and test; they add up to 1. Not used with ``folds`` or ``leave_one_site_out``. With
        ``keep_test``, train and val share the other images in this proportion.
    folds
        Number of folds; 0 makes a hold-out split.
    leave_one_site_out
        One fold a site instead.
    test_fraction
        With folds: the share of a fixed test part that no fold trains on; 0 has none.
    val_fraction
        With folds: the share of each fold's training part that is its val part. None is 0.15, or less where so many
        folds do not leave as much: an image is in one val part at most. With a fixed test part there is none, since
        the fold that is held out is the val part.
    keep_test
        Whether the rows that are in the manifest's test part stay there, and only the others are split.
    group
        The columns whose values must not be cut, such as ``patient``. Empty takes those of ``patient``, ``lesion`` and
        the like that are there; ``("none",)`` splits by image.
    stratify
        The columns whose values are to be spread equally over the parts; those of the first are the classes, which no
        part must lack. Empty takes ``label`` if it is there; ``("none",)`` spreads nothing.
    seed
        Another seed, another split; the same seed, the same split on every machine and for every order of rows.
    """

    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    folds: int = 0
    leave_one_site_out: bool = False
    test_fraction: float = 0.0
    val_fraction: float | None = None
    keep_test: bool = False
    group: tuple[str, ...] = ()
    stratify: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_combination()
        for flag, columns in (("--group", self.group), ("--stratify", self.stratify)):
            if len(set(columns)) != len(columns):
                raise UsageError(f"{flag} is given twice for one column: {', '.join(columns)}")
            if NO_COLUMN in columns and len(columns) > 1:
                raise UsageError(f"{flag} {NO_COLUMN} stands alone; given are {', '.join(columns)}")
        for name in self.group:
            if name in WRITTEN:
                raise UsageError(f"--group {name}: this is a column that is written, not one that names patients")

    def _check_numbers(self) -> None:
        shown = ",".join(f"{share:g}" for share in self.fractions)
        if not all(0 <= share <= 1 for share in self.fractions):
            raise UsageError(f"--fractions {shown}: they must be from 0 to 1 and add up to 1")
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise UsageError(f"--fractions {shown}: they must add up to 1, and add up to {sum(self.fractions):.7g}")
        if not self.fractions[0]:
            raise UsageError(f"--fractions {shown}: nothing is left to train on")
        if not self.is_by_fold and not self.keep_test and not any(self.fractions[1:]):
            raise UsageError(f"--fractions {shown}: a split needs two parts")
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"--folds is {self.folds}; it must be 2 or more")
        if self.folds > MAX_FOLDS:
            raise UsageError(f"--folds is {self.folds}; {MAX_FOLDS} is the most")
        for flag, share in (("--test", self.test_fraction), ("--val", self.val_fraction)):
            if share is not None and not 0 <= share < 1:
                raise UsageError(f"{flag} is {share:g}; it must be at least 0 and below 1")

    def _check_combination(self) -> None:
        has_fixed_test = self.keep_test or self.test_fraction > 0
        if self.folds and self.leave_one_site_out:
            raise UsageError("--folds and --leave-one-site-out exclude each other: each site is a fold")
        if self.leave_one_site_out and has_fixed_test:
            raise UsageError("--leave-one-site-out has no fixed test part: the site that is left out is the test part")
        if self.keep_test and self.test_fraction:
            raise UsageError("--keep-test and --test exclude each other: there is one test part")
        if self.test_fraction and not self.is_by_fold:
            raise UsageError("--test is for --folds; without, the third of --fractions is the test part's share")
        if self.val_fraction is not None and not self.is_by_fold:
            raise UsageError("--val is for --folds; without, the second of --fractions is the val part's share")
        if self.val_fraction and has_fixed_test:
            raise UsageError("--val is not for a fixed test part: there, the fold that is held out is the val part")

    @property
    def is_by_fold(self) -> bool:
        """Whether folds are made, not one split."""
        return self.folds > 0 or self.leave_one_site_out


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

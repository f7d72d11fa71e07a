"""How large the parts of a split should be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medtool.errors import UsageError
from medtool.manifest import SPLITS
from medtool.split.assign import SHARE_UNIT
from medtool.split.balance import Ints
from medtool.split.options import MakeOptions

DEFAULT_VAL_FRACTION = 0.15


def named_shares(options: MakeOptions, n_sites: int) -> tuple[list[str], list[float]]:
    """Return the names of the parts that rows are shared out to, and their shares; parts of no share are left out."""
    n_folds = n_sites or options.folds
    if n_folds:
        test = options.test_fraction
        names = [str(fold) for fold in range(n_folds)]
        shares = [(1 - test) / n_folds] * n_folds
        return (["test", *names], [test, *shares]) if test else (names, shares)
    train, val, test = options.fractions
    if options.keep_test:
        train, val, test = train / (train + val), val / (train + val), 0.0
    pairs = [(name, share) for name, share in zip(SPLITS, (train, val, test), strict=True) if share]
    return [name for name, _ in pairs], [share for _, share in pairs]


def millionths(shares: Sequence[float]) -> Ints:
    """Return shares in whole millionths that add up; what rounding leaves over goes to the largest remainders."""
    exact = [share * SHARE_UNIT for share in shares]
    whole = np.array([int(value + 1e-6) for value in exact], dtype=np.int64)
    by_remainder = sorted(range(len(exact)), key=lambda part: whole[part] - exact[part])
    for part in by_remainder[: SHARE_UNIT - int(whole.sum())]:
        whole[part] += 1
    return whole


def val_fraction_of(options: MakeOptions, n_folds: int) -> float:
    """Return the share of each fold's other folds that is its val part; 0 where there is none."""
    if not n_folds or options.keep_test or options.test_fraction:
        return 0.0
    most = 1 / (n_folds - 1)
    if options.val_fraction is None:
        return min(DEFAULT_VAL_FRACTION, most)
    if options.val_fraction > most + 1e-9:
        raise UsageError(
            f"--val {options.val_fraction:g} is too much for {n_folds} folds: an image is in the val part of one fold"
            f" at most, so {most:.3g} is the most",
            hint=f"--val {np.floor(most * 1000) / 1000:g}",
        )
    return min(options.val_fraction, most)


def refuse_tiny(n_images: int, names: Sequence[str], shares: Sequence[float], options: MakeOptions) -> None:
    """Refuse a share that was asked for and is less than an image, or than what shares are counted in.

    Parameters
    ----------
    n_images
        That are shared out.
    names, shares
        As :func:`named_shares` returns them.

    Raises
    ------
    UsageError
        With how many images the share makes.
    """
    is_asked = not options.is_by_fold and options.fractions != MakeOptions.fractions
    asked = dict(zip(names, shares, strict=True)) if is_asked else {}
    asked |= {name: share for name, share in (("test", options.test_fraction), ("val", options.val_fraction)) if share}
    least = max(1 / n_images, 1 / SHARE_UNIT)
    for name, share in asked.items():
        if share < least - 1e-12:
            flag = f"--{name}" if options.is_by_fold else "--fractions"
            limit = f"; a share is 0, or {1 / SHARE_UNIT:f} or more" if share < 1 / SHARE_UNIT else ""
            raise UsageError(
                f"{flag}: a share of {share:g} for {name} makes {share * n_images:.3g} of {n_images:,} images{limit}",
                hint=f"0 leaves the part out; at least one image is a share of {least:.2g} or more",
            )

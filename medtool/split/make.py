"""Make a split that cuts no patient and spreads every stratum as equally as whole patients allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from medtool.errors import ManifestError
from medtool.manifest import SPLITS, Manifest
from medtool.roles import VAL_FOLD
from medtool.split.assign import SHARE_UNIT, Problem, assign
from medtool.split.balance import Ints
from medtool.split.binning import stratified
from medtool.split.grouping import Grouping, grouping_of, on_spelling
from medtool.split.make_report import Part, report_of
from medtool.split.options import MakeOptions
from medtool.split.rules.identifiers import is_known
from medtool.split.shares import millionths, named_shares, refuse_tiny, val_fraction_of
from medtool.split.strata import Strata, strata_of
from medtool.split.units import shuffled_units
from medtool.split.val_parts import val_folds

_LEAST_IMAGES = 2  # of a joint stratum in the smallest part, to be looked at for itself
_NONE = -1  # no fold
_MAX_NAMED = 5
_COLUMNS = ("split", "fold", VAL_FOLD)


@dataclass(frozen=True, eq=False)
class Split:
    """A split that was made.

    Attributes
    ----------
    manifest
        As it was given, with the columns ``split``, or ``fold`` and ``val_fold``; see docs/reference/splits.md.
    groups
        A row a patient (or lesion, ...; what the split was grouped by) and part: the columns grouped by, ``images``,
        and the columns of the split.
    report
        What was made, from what and how, and how far it is from what was wanted; ready for JSON.
    """

    manifest: Manifest
    groups: pl.DataFrame
    report: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Units:
    """The units, and where each of them is; shapes ``(units,)``.

    Attributes
    ----------
    places
        In the seeded order.
    is_kept
        Whether a unit is in the test part that the manifest came with.
    split
        train, val, test or empty.
    fold, val_fold
        -1 for none.
    """

    grouping: Grouping
    strata: Strata
    places: Ints
    is_kept: npt.NDArray[np.bool_]
    split: npt.NDArray[np.str_]
    fold: Ints
    val_fold: Ints

    def classes(self) -> list[tuple[int, str]]:
        """Return the columns of the counts that count a class, with its name."""
        return [(int(column), self.strata.strata[column].values[0]) for column in np.flatnonzero(self.strata.is_class)]

    def has(self, column: int) -> npt.NDArray[np.bool_]:
        """Return which units have an image of a stratum."""
        return np.asarray(self.strata.counts[:, [column]].toarray().ravel() > 0)


def make_split(manifest: Manifest, options: MakeOptions, *, joined: Sequence[tuple[int, int]] | None = None) -> Split:
    """Split a manifest: hold-out, folds, or a fold a site.

    Parameters
    ----------
    joined
        Pairs of row numbers that must stay together, those of duplicate images; None where none were looked for.

    Returns
    -------
    split
        A function of the rows, the options and ``joined`` alone: any order of the rows gives every row the same part.

    Raises
    ------
    ManifestError
        If a column that is needed is not there or empty, a class has too few patients for the parts, the test part that
        is to be kept shares a patient with other rows, or a patient that is left out with its site is at two.
    UsageError
        If so many folds leave no room for val parts of the asked size.
    """
    grouping = grouping_of(manifest, options.group, joined or ())
    frame, columns, notes = stratified(manifest, options.stratify)
    is_kept = _kept(manifest, grouping) if options.keep_test else np.zeros(grouping.units.max() + 1, dtype=bool)
    sites = _sites(manifest, grouping) if options.leave_one_site_out else []
    names, shares = named_shares(options, len(sites))
    val_fraction = val_fraction_of(options, len(sites) or options.folds)
    least_share = min(share for share in shares if share)
    strata = strata_of(
        frame, columns, grouping.units, least_units=len(names), least_images=int(_LEAST_IMAGES / least_share)
    )
    n_units = len(is_kept)
    units = _Units(
        grouping,
        strata,
        shuffled_units(manifest.table.get_column("image_id"), grouping.units, seed=options.seed),
        is_kept,
        np.full(n_units, "", dtype="<U5"),
        np.full(n_units, _NONE, dtype=np.int64),
        np.full(n_units, _NONE, dtype=np.int64),
    )
    units.split[is_kept] = "test"
    if sites:
        units.fold[:] = _site_of_units(manifest, grouping, sites)
    else:
        _share_out(units, names, shares, options)
    if val_fraction:
        units.val_fold[:] = val_folds(strata, units.fold, units.places, val_fraction)
    parts = _report_parts(units, names, None if sites else shares, val_fraction)
    made = _with_columns(manifest, units, is_by_fold=options.is_by_fold)
    report = report_of(
        manifest,
        made,
        options=options,
        grouping=grouping,
        strata=strata,
        columns=columns,
        sites=sites,
        val_fraction=val_fraction,
        joined=joined,
        parts=parts,
        notes=[
            *grouping.notes,
            *(on_spelling(manifest.table.select("site")) if sites else []),
            *notes,
            *_on_replaced(manifest, options),
            *([] if sites else _on_large(units, shares)),
        ],
    )
    return Split(made, _groups_table(made, grouping), report)


def _kept(manifest: Manifest, grouping: Grouping) -> npt.NDArray[np.bool_]:
    """Return which units are in the test part that the manifest comes with."""
    n_units = int(grouping.units.max()) + 1
    if "test" not in manifest.counts("split"):
        raise ManifestError("--keep-test: no row of the manifest has the split test", hint="leave out --keep-test")
    is_test = (manifest.table.get_column("split") == "test").to_numpy()
    if is_test.all():
        raise ManifestError("--keep-test: all rows have the split test, and none is left to split")
    is_kept, is_other = np.zeros(n_units, dtype=bool), np.zeros(n_units, dtype=bool)
    is_kept[grouping.units[is_test]] = True
    is_other[grouping.units[~is_test]] = True
    cut = np.flatnonzero(is_kept & is_other)
    if len(cut):
        raise ManifestError(
            f"--keep-test: the test part shares {grouping.counted(len(cut))} with other rows: {grouping.named(cut)}",
            hint="take these rows out of one of the two, or split anew without --keep-test",
        )
    return is_kept


def _sites(manifest: Manifest, grouping: Grouping) -> list[str]:
    """Return the sites in order, after making sure that each row has one, and each unit only one."""
    if "site" not in manifest.columns:
        raise ManifestError(
            f"--leave-one-site-out: the manifest has no column 'site' (there are: {', '.join(manifest.columns)})"
        )
    site = manifest.table.get_column("site")
    unknown = manifest.table.filter(~is_known("site")).get_column("image_id").sort()
    if len(unknown):
        more = f" and {len(unknown) - _MAX_NAMED:,} more" if len(unknown) > _MAX_NAMED else ""
        raise ManifestError(
            f"--leave-one-site-out: the site is unknown for {len(unknown):,} of {len(manifest):,} images:"
            f" {', '.join(unknown[:_MAX_NAMED])}{more}",
            hint="fill in the column site, or leave these rows out",
        )
    sites = site.unique().sort().to_list()
    if len(sites) < 2:
        raise ManifestError(f"--leave-one-site-out: all images are from one site, {sites[0]!r}")
    places = pl.DataFrame({"unit": grouping.units, "site": site}).unique()
    cut = places.filter(pl.col("unit").is_duplicated()).get_column("unit").unique().to_list()
    if cut:
        raise ManifestError(
            f"--leave-one-site-out: {grouping.counted(len(cut))} at several sites: {grouping.named(cut)}",
            hint="check that ids are unique across sites; if they are, leave these out, or use --folds",
        )
    return [str(name) for name in sites]


def _site_of_units(manifest: Manifest, grouping: Grouping, sites: Sequence[str]) -> Ints:
    number = {site: place for place, site in enumerate(sites)}
    result = np.empty(int(grouping.units.max()) + 1, dtype=np.int64)
    result[grouping.units] = [number[site] for site in manifest.table.get_column("site")]
    return result


def _share_out(units: _Units, names: Sequence[str], shares: Sequence[float], options: MakeOptions) -> None:
    """Fill in ``split`` or ``fold`` of every unit that is not kept."""
    chosen = np.flatnonzero(~units.is_kept)
    refuse_tiny(int(units.strata.counts[chosen][:, [0]].sum()), names, shares, options)
    _refuse_rare(units, chosen, len(names), options)
    problem = Problem(
        units.strata.counts[chosen],
        units.strata.importance,
        np.zeros(len(chosen), dtype=np.int64),
        millionths(shares)[np.newaxis],
        np.tile(units.strata.needed(), (len(names), 1)),
        _dense(units.places[chosen]),
    )
    part, is_complete = assign(problem)
    if not is_complete:
        raise _no_arrangement(units, chosen, part, names)
    is_split = np.array([name in SPLITS for name in names])
    units.split[chosen] = np.where(is_split, names, "")[part]
    units.fold[chosen] = np.array([_NONE if name in SPLITS else int(name) for name in names])[part]


def _dense(places: Ints) -> Ints:
    result = np.empty(len(places), dtype=np.int64)
    result[np.argsort(places)] = np.arange(len(places))
    return result


def _refuse_rare(units: _Units, chosen: Ints, n_parts: int, options: MakeOptions) -> None:
    n_holders = {name: int(units.has(column)[chosen].sum()) for column, name in units.classes()}
    n_images = int(units.strata.counts[chosen][:, [0]].sum())
    fewer = _fewer_parts(min([len(chosen), *n_holders.values()]), n_parts, n_images, options)
    if len(chosen) < n_parts:
        raise ManifestError(
            f"{units.grouping.counted(len(chosen))} cannot be shared out to {n_parts} parts without cutting one",
            hint=fewer,
        )
    rare = {name: count for name, count in n_holders.items() if count < n_parts}
    if not rare:
        return
    counted = units.grouping.counted
    shown = "; ".join(f"{name!r} is in {counted(count)}" for name, count in list(rare.items())[:_MAX_NAMED])
    more = f"; and {len(rare) - _MAX_NAMED} more" if len(rare) > _MAX_NAMED else ""
    outside = " outside the kept test part" if options.keep_test else ""
    raise ManifestError(
        f"no part may lack a class, and there are {n_parts} parts: {shown}{outside}{more}",
        hint=(f"{fewer}; or " if fewer else "")
        + "merge such a class with another, leave its rows out, or --stratify with another column first",
    )


def _fewer_parts(most: int, n_parts: int, n_images: int, options: MakeOptions) -> str | None:
    """Return the option that makes so few parts that each can have what it must; None where none does."""
    if most >= n_parts:
        return None
    if options.folds:
        folds = most - bool(options.test_fraction)
        return f"--folds {folds}" if folds > 1 else None
    fractions = "0.8,0.2" if n_images >= 5 else "0.5,0.5"  # at least an image in each
    return f"--fractions {fractions}" if most > 1 else None


def _no_arrangement(units: _Units, chosen: Ints, part: Ints, names: Sequence[str]) -> ManifestError:
    lacking = [
        f"{class_name!r} in {name if name in SPLITS else f'fold {name}'}"
        for column, class_name in units.classes()
        for place, name in enumerate(names)
        if not units.has(column)[chosen][part == place].any()
    ]
    return ManifestError(
        "no part may lack a class, and no way was found, since some have few images that always come with others:"
        f" {', '.join(lacking[:_MAX_NAMED])}",
        hint="fewer parts, merge such a class with another, or leave its rows out",
    )


def _report_parts(
    units: _Units, names: Sequence[str], shares: Sequence[float] | None, val_fraction: float
) -> list[Part]:
    """Return every part: the units in it, and those that it was drawn from; ``shares`` is None for folds of sites."""
    parts = [Part("test", units.is_kept)] if units.is_kept.any() else []
    is_free = ~units.is_kept
    for place, name in enumerate(names):
        is_split = name in SPLITS
        is_in = is_free & (units.split == name) if is_split else units.fold == int(name)
        drawn = (None, 0.0) if shares is None else (is_free, shares[place])
        parts.append(Part(name if is_split else f"fold {name}", is_in, *drawn))
    for fold in range(int(units.fold.max()) + 1):
        others = (units.fold >= 0) & (units.fold != fold)
        if val_fraction:
            parts.append(Part(f"val of fold {fold}", units.val_fold == fold, others, val_fraction))
        parts.append(Part(f"train of fold {fold}", others & (units.val_fold != fold)))
    return parts


def _with_columns(manifest: Manifest, units: _Units, *, is_by_fold: bool) -> Manifest:
    """Return the manifest with the columns of the split, and without those that it has no use for."""
    rows = units.grouping.units
    made: dict[str, pl.Series] = {}
    if not is_by_fold or (units.split == "test").any():
        made["split"] = pl.Series(units.split[rows])
    if is_by_fold:
        for name, folds in (("fold", units.fold), (VAL_FOLD, units.val_fold)):
            if (folds != _NONE).any():
                texts = np.array([*map(str, range(int(folds.max()) + 1)), ""])  # the last one is that of -1
                made[name] = pl.Series(texts[folds][rows])
    columns = [cells.cast(pl.String).alias(name) for name, cells in made.items()]
    stale = [name for name in _COLUMNS if name in manifest.columns and name not in made]
    return replace(manifest, table=manifest.table.drop(stale).with_columns(columns))


def _groups_table(made: Manifest, grouping: Grouping) -> pl.DataFrame:
    """Return a row a group and part, ordered by part (none before fold 0), then by the text of the group."""
    of_split = [name for name in _COLUMNS if name in made.columns]
    rows = grouping.frame.with_columns(made.table.select(of_split))
    names = grouping.frame.columns
    counted = rows.group_by([*names, *of_split]).agg(pl.len().cast(pl.String).alias("images"))
    in_order = [pl.col(name).cast(pl.Int64, strict=False) if name != "split" else pl.col(name) for name in of_split]
    return counted.sort(*in_order, *names).select(*names, "images", *of_split)


def _on_replaced(manifest: Manifest, options: MakeOptions) -> list[str]:
    """Say what happens to a split that the manifest came with."""
    notes = []
    counts = manifest.counts("split")
    if counts:
        shown = ", ".join(f"{name} {counts[name]:,}" for name in SPLITS if name in counts)
        if options.keep_test:
            notes.append(f"the manifest's own split ({shown}) is replaced but for its test part")
        elif "test" in counts:
            notes.append(f"the manifest's own split ({shown}) is replaced; --keep-test keeps its test part")
        else:
            notes.append(f"the manifest's own split ({shown}) is replaced")
    n_folds = len(manifest.counts("fold"))
    if n_folds:
        notes.append(f"the manifest's own {n_folds} fold{'s are' if n_folds > 1 else ' is'} replaced")
    return notes


def _on_large(units: _Units, shares: Sequence[float]) -> list[str]:
    """Say that a unit is larger than a whole part should be."""
    images = units.strata.counts[:, [0]].toarray().ravel() * ~units.is_kept
    # Rounded up, in whole numbers: a third of three images is one, and none of one image is larger.
    wanted = -(-int(millionths(shares).min()) * int(images.sum()) // SHARE_UNIT)
    large = np.flatnonzero(images > wanted)
    if not len(large):
        return []
    return [
        f"{units.grouping.counted(len(large))} with more images than the {wanted:,} of the smallest part, so the"
        f" parts cannot all have their size: {units.grouping.named(large)}"
    ]

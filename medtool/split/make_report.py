"""What a split that was made is like: the report beside it, and the facts to make it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from medtool import __version__
from medtool.lineage import digest_of
from medtool.manifest import Manifest
from medtool.roles import VAL_FOLD
from medtool.split.grouping import Grouping
from medtool.split.options import MakeOptions
from medtool.split.strata import Strata

FORMAT = "medtool-split"
FORMAT_VERSION = 1
METHOD_VERSION = 1  # goes up when the same rows, options and seed give another split

_MAX_NAMED = 5


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the split.

    Attributes
    ----------
    name
        train, val, test, ``fold 0``, ``val of fold 0``, ``train of fold 0``.
    is_in
        Whether a unit is in it, shape ``(units,)``.
    drawn_from
        The units that it is a share of; None where nothing was wanted of it: a test part that was kept, a site, what is
        left to train on.
    share
        Of the images of ``drawn_from``, 0 to 1.
    """

    name: str
    is_in: npt.NDArray[np.bool_]
    drawn_from: npt.NDArray[np.bool_] | None = None
    share: float = 0.0


@dataclass(frozen=True, eq=False)
class _Classes:
    """How many images of each known value of a column every unit has.

    Attributes
    ----------
    counts
        A scipy CSR array, shape ``(units, names)``.
    """

    column: str
    names: tuple[str, ...]
    counts: Any

    def images_in(self, part: Part) -> dict[str, int]:
        """Return the images of each class in a part."""
        sums = np.asarray(self.counts[np.flatnonzero(part.is_in)].sum(axis=0)).ravel()
        return dict(zip(self.names, sums.tolist(), strict=True))

    def units_with(self, name: str, units: npt.NDArray[np.bool_] | None) -> int:
        """Return how many of these units have an image of a class; None is no unit."""
        if units is None:
            return 0
        own = self.counts[:, [self.names.index(name)]].toarray().ravel() > 0
        return int((own & units).sum())


def report_of(
    manifest: Manifest,
    made: Manifest,
    *,
    options: MakeOptions,
    grouping: Grouping,
    strata: Strata,
    columns: Sequence[str],
    sites: Sequence[str],
    val_fraction: float,
    joined: Sequence[tuple[int, int]] | None,
    parts: Sequence[Part],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the report, ready for JSON; its keys are in docs/reference/splits.md. No order of rows changes it."""
    counts = {part.name: np.asarray(strata.counts[part.is_in].sum(axis=0)).ravel() for part in parts}
    deviations = [row for part in parts if part.drawn_from is not None for row in _deviations(part, counts, strata)]
    sizes = [_deviation_of_size(part, counts, strata) for part in parts if part.drawn_from is not None]
    classes = _classes_of(manifest, grouping, strata, columns)
    lacking = [row for each in classes for row in _lacking(parts, each)]
    own_split = ["split"] if options.keep_test and "split" in manifest.columns else []
    site = ["site"] if sites else []
    decisive = list(dict.fromkeys(["image_id", *grouping.columns, *columns, *site, *own_split]))
    of_split = [name for name in ("split", "fold", VAL_FOLD) if name in made.columns]
    image_ids = manifest.table.get_column("image_id")
    pairs = sorted(sorted((image_ids[one], image_ids[other])) for one, other in joined or ())
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "medtool": __version__,
        "method": METHOD_VERSION,
        "made_with": {
            "rows": len(manifest),
            "columns": decisive,
            "rows_sha256": _digest(manifest.table.select(decisive)),
            "kind": _kind(options),
            **_numbers_of(options, val_fraction),
            "group": list(grouping.columns),
            "stratify": list(columns),
            "seed": options.seed,
            "joined_pairs": len(pairs),
            "joined_sha256": digest_of([" ".join(pair) for pair in pairs]),
            "duplicates_together": joined is not None,
            "fingerprint_version": None if joined is None else _fingerprint_version(),
            "joined": pairs,
        },
        "split_sha256": _digest(made.table.select("image_id", *of_split)),
        "images": len(manifest),
        "unit": grouping.noun,
        "units": len(parts[0].is_in),
        "unknown": {name: n_rows for name, n_rows in grouping.unknown.items() if name},
        "images_of_unknown": grouping.unknown.get("", 0),
        "sites": {str(fold): name for fold, name in enumerate(sites)},
        "parts": _facts(manifest, grouping, strata, parts, counts, classes=classes[0] if classes else None),
        "largest_deviation": {
            "percentage_points": max(
                [*deviations, *sizes], key=lambda row: abs(row["percentage_points"]), default=None
            ),
            "images": max([*deviations, *sizes], key=lambda row: abs(row["images"] - row["wanted"]), default=None),
        },
        "strata": deviations,
        "lacking": lacking,
        "notes": [*notes, *_on_empty(parts), *(note for each in classes for note in _on_lacking(parts, each))],
    }


def _kind(options: MakeOptions) -> str:
    return "leave-one-site-out" if options.leave_one_site_out else "folds" if options.folds else "hold-out"


def _numbers_of(options: MakeOptions, val_fraction: float) -> dict[str, Any]:
    if not options.is_by_fold:
        return {"fractions": list(options.fractions), "keep_test": options.keep_test}
    if options.leave_one_site_out:
        return {"val_fraction": val_fraction}
    return {
        "folds": options.folds,
        "val_fraction": val_fraction,
        "test_fraction": options.test_fraction,
        "keep_test": options.keep_test,
    }


def _digest(table: pl.DataFrame) -> str:
    r"""Return one SHA-256 over the rows, ordered; a row is its cells with ``\x1f`` between them."""
    return digest_of(table.select(pl.concat_str(pl.all(), separator="\x1f")).to_series().sort())


def _facts(
    manifest: Manifest,
    grouping: Grouping,
    strata: Strata,
    parts: Sequence[Part],
    counts: Mapping[str, npt.NDArray[np.int64]],
    *,
    classes: _Classes | None,
) -> list[dict[str, Any]]:
    sites = manifest.table.get_column("site") if "site" in manifest.columns else None
    facts = []
    for part in parts:
        fact: dict[str, Any] = {"part": part.name}
        if part.drawn_from is not None:
            fact["share"] = round(part.share, 6)
            fact["wanted"] = round(part.share * _images(strata, part.drawn_from), 2)
        fact["images"] = int(counts[part.name][0])
        fact["units"] = int(part.is_in.sum())
        fact["classes"] = {} if classes is None else classes.images_in(part)
        if sites is not None:
            there = sites.filter(pl.Series(part.is_in[grouping.units]))
            fact["sites"] = dict(sorted(there.filter(there != "").value_counts().iter_rows()))
        facts.append(fact)
    return facts


def _classes_of(manifest: Manifest, grouping: Grouping, strata: Strata, columns: Sequence[str]) -> list[_Classes]:
    """Return what is counted as classes: the labels, where there are any, and the column that no part may lack."""
    classes = []
    labels = sorted(manifest.counts("label"))
    if labels and (not columns or columns[0] != "label"):
        from scipy.sparse import coo_array

        names = pl.Series(labels).to_frame("name").with_row_index("place")
        rows = pl.DataFrame({"name": manifest.table.get_column("label"), "unit": grouping.units}).join(names, on="name")
        cells = (rows.get_column("unit").to_numpy(), rows.get_column("place").to_numpy().astype(np.int64))
        ones = np.ones(rows.height, dtype=np.int64)
        shape = (strata.counts.shape[0], len(labels))
        classes.append(_Classes("label", tuple(labels), coo_array((ones, cells), shape=shape).tocsr()))
    if columns:
        places = np.flatnonzero(strata.is_class)
        names_of_first = tuple(strata.strata[place].values[0] for place in places)
        classes.append(_Classes(columns[0], names_of_first, strata.counts[:, places]))
    return classes


def _fingerprint_version() -> int:
    from medtool.split.duplicates.fingerprint import VERSION  # loads what decodes images

    return VERSION


def _images(strata: Strata, units: npt.NDArray[np.bool_]) -> int:
    return int(strata.counts[units][:, [0]].sum())


def _deviations(part: Part, counts: Mapping[str, npt.NDArray[np.int64]], strata: Strata) -> Iterator[dict[str, Any]]:
    """Yield, for each stratum, how many images the part should have and has, and by how much its share is off."""
    pool = np.asarray(strata.counts[part.drawn_from].sum(axis=0)).ravel()
    got = counts[part.name]
    for column, stratum in enumerate(strata.strata):
        if not stratum.columns or not pool[column]:
            continue
        points = 100 * (int(got[column]) / max(int(got[0]), 1) - int(pool[column]) / int(pool[0]))
        yield {
            "part": part.name,
            "stratum": dict(zip(stratum.columns, stratum.values, strict=True)),
            "wanted": round(part.share * int(pool[column]), 2),
            "images": int(got[column]),
            "percentage_points": round(points, 3),
        }


def _deviation_of_size(part: Part, counts: Mapping[str, npt.NDArray[np.int64]], strata: Strata) -> dict[str, Any]:
    """Return how many images the part should have and has, of all strata; the points are of what it was drawn from."""
    n_pool = 0 if part.drawn_from is None else _images(strata, part.drawn_from)
    n_images = int(counts[part.name][0])
    return {
        "part": part.name,
        "stratum": {},
        "wanted": round(part.share * n_pool, 2),
        "images": n_images,
        "percentage_points": round(100 * (n_images / max(n_pool, 1) - part.share), 3),
    }


def _lacking(parts: Sequence[Part], classes: _Classes) -> list[dict[str, str]]:
    return [
        {"part": part.name, "column": classes.column, "class": name}
        for part in parts
        for name, n_images in classes.images_in(part).items()
        if part.is_in.any() and not n_images
    ]


def _on_lacking(parts: Sequence[Part], classes: _Classes) -> list[str]:
    """Say which class is missing where, a line a class."""
    named = {part.name: part for part in parts}
    parts_of: dict[str, list[str]] = {}
    for row in _lacking(parts, classes):
        parts_of.setdefault(row["class"], []).append(row["part"])
    notes = []
    for name, lacking in parts_of.items():
        reason = ""
        if all(part.startswith("val of") for part in lacking):
            are_too_few = all(classes.units_with(name, named[part].drawn_from) < 2 for part in lacking)
            reason = ": too few have it" if are_too_few else ": no way was found that leaves it in training too"
        what = "the class" if classes.column == "label" else classes.column
        notes.append(f"{what} {name!r} is missing in {_listed(lacking)}{reason}")
    return notes


def _on_empty(parts: Sequence[Part]) -> list[str]:
    empty = [part.name for part in parts if not part.is_in.any()]
    return [f"no image is in {_listed(empty)}: there are too few that may be apart"] if empty else []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more

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
    joined: Sequence[tuple[int, int]],
    parts: Sequence[Part],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the report, ready for JSON; its keys are in docs/reference/splits.md. No order of rows changes it."""
    counts = {part.name: np.asarray(strata.counts[part.is_in].sum(axis=0)).ravel() for part in parts}
    deviations = [row for part in parts if part.drawn_from is not None for row in _deviations(part, counts, strata)]
    lacking = _lacking(parts, counts, strata)
    own_split = ["split"] if options.keep_test and "split" in manifest.columns else []
    site = ["site"] if sites else []
    decisive = list(dict.fromkeys(["image_id", *grouping.columns, *columns, *site, *own_split]))
    of_split = [name for name in ("split", "fold", VAL_FOLD) if name in made.columns]
    image_ids = manifest.table.get_column("image_id")
    pairs = sorted(" ".join(sorted((image_ids[one], image_ids[other]))) for one, other in joined)
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
            "joined_sha256": digest_of(pairs),
        },
        "split_sha256": _digest(made.table.select("image_id", *of_split)),
        "images": len(manifest),
        "unit": grouping.noun,
        "units": len(parts[0].is_in),
        "unknown": {name: n_rows for name, n_rows in grouping.unknown.items() if name},
        "images_of_unknown": grouping.unknown.get("", 0),
        "sites": {str(fold): name for fold, name in enumerate(sites)},
        "parts": _facts(manifest, grouping, strata, parts, counts),
        "largest_deviation": {
            "percentage_points": max(deviations, key=lambda row: abs(row["percentage_points"]), default=None),
            "images": max(deviations, key=lambda row: abs(row["images"] - row["wanted"]), default=None),
        },
        "strata": deviations,
        "lacking": lacking,
        "notes": [*notes, *_on_empty(parts), *_on_lacking(lacking, is_by_site=bool(sites))],
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
) -> list[dict[str, Any]]:
    classes = [(int(column), strata.strata[column].values[0]) for column in np.flatnonzero(strata.is_class)]
    sites = manifest.table.get_column("site") if "site" in manifest.columns else None
    facts = []
    for part in parts:
        fact: dict[str, Any] = {"part": part.name}
        if part.drawn_from is not None:
            fact["share"] = round(part.share, 6)
            fact["wanted"] = round(part.share * _images(strata, part.drawn_from), 2)
        fact["images"] = int(counts[part.name][0])
        fact["units"] = int(part.is_in.sum())
        fact["classes"] = {name: int(counts[part.name][column]) for column, name in classes}
        if sites is not None:
            there = sites.filter(pl.Series(part.is_in[grouping.units]))
            fact["sites"] = dict(sorted(there.filter(there != "").value_counts().iter_rows()))
        facts.append(fact)
    return facts


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


def _lacking(
    parts: Sequence[Part], counts: Mapping[str, npt.NDArray[np.int64]], strata: Strata
) -> list[dict[str, str]]:
    return [
        {"part": part.name, "class": strata.strata[column].values[0]}
        for part in parts
        for column in np.flatnonzero(strata.is_class)
        if part.is_in.any() and not counts[part.name][column]
    ]


def _on_lacking(lacking: Sequence[Mapping[str, str]], *, is_by_site: bool) -> list[str]:
    """Say which class is missing where, a line a class."""
    parts_of: dict[str, list[str]] = {}
    for row in lacking:
        parts_of.setdefault(row["class"], []).append(row["part"])
    notes = []
    for name, parts in parts_of.items():
        reason = ": too few have it" if all(part.startswith("val of") for part in parts) and not is_by_site else ""
        notes.append(f"the class {name!r} is missing in {_listed(parts)}{reason}")
    return notes


def _on_empty(parts: Sequence[Part]) -> list[str]:
    empty = [part.name for part in parts if not part.is_in.any()]
    return [f"no image is in {_listed(empty)}: there are too few that may be apart"] if empty else []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more

"""Several runs of one manifest, one a fold and seed, and what they come to together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medtool.errors import UsageError
from medtool.manifest import Manifest
from medtool.roles import folds_of
from medtool.runs import predictions
from medtool.runs.folder import TOGETHER_FORMAT, TOGETHER_NAME
from medtool.storage import make_folder, write_json, write_whole
from medtool.train.material import targets_of
from medtool.train.options import MAX_SEED
from medtool.train.outcome import scored
from medtool.train.run import Summary

_FORMAT_VERSION = 1
_MAIN = ("accuracy", "balanced_accuracy", "auc", "f1")


@dataclass(frozen=True)
class Plan:
    """One run to train.

    Attributes
    ----------
    fold
        Which fold is held out; None where the manifest has no folds.
    seed
        Of the run.
    name
        Of its folder below that of all; empty where there is one run alone.
    """

    fold: int | None
    seed: int
    name: str


def plans_of(manifest: Manifest, *, folds: str, seeds: Sequence[int], seed: int) -> list[Plan]:
    """Return the runs to train.

    Parameters
    ----------
    folds
        ``all``, or numbers such as ``0,2``; empty where the manifest has none.
    seeds
        Empty takes ``seed`` alone.

    Raises
    ------
    UsageError
        If the manifest has folds and none is named, or the other way round, or one is not there.
    """
    known = folds_of(manifest)
    shown = ", ".join(map(str, known))
    chosen: list[int | None]
    if known and not folds:
        raise UsageError(f"the manifest has folds ({shown}); say which are held out", hint="--folds all, or --folds 0")
    if folds and not known:
        raise UsageError(f"--folds {folds}: the manifest has no folds", hint="medtool split make MANIFEST --folds 5")
    if not folds:
        chosen = [None]
    elif folds.strip() == "all":
        chosen = list(known)
    else:
        if not re.fullmatch(r"\s*\d{1,4}\s*(,\s*\d{1,4}\s*)*", folds, re.ASCII):
            raise UsageError(f"--folds {folds!r} must be all, or numbers of folds such as 0,2 (there are: {shown})")
        numbers = sorted({int(part) for part in folds.split(",")})
        lacking = [number for number in numbers if number not in known]
        if lacking:
            raise UsageError(f"--folds {folds}: there is no fold {lacking[0]} (there are: {shown})")
        chosen = list(numbers)
    each = list(seeds) or [seed]
    if max(each) > MAX_SEED:
        raise UsageError(f"--seeds has {max(each)}; {MAX_SEED} is the largest")
    is_alone = len(chosen) * len(each) == 1 and folds.strip() != "all"
    return [
        Plan(fold, one, "" if is_alone else f"{'' if fold is None else f'fold{fold}_'}seed{one}")
        for fold in chosen
        for one in each
    ]


def put_together(folder: Path, plans: Sequence[Plan], summaries: Sequence[Summary]) -> Path:
    """Write ``together.json``, and the pooled predictions of each seed; return the file's path.

    Every image that was held out in one of the folds has one prediction, by the network that did not train on it. The
    pooled scores are over those; scores of the folds are listed beside them, with mean and standard deviation, which
    is not that of the mean: folds share most of their training images.
    """
    make_folder(folder)
    runs = [
        {
            "name": plan.name,
            "fold": plan.fold,
            "seed": plan.seed,
            "checkpoint": summary.checkpoint.name,
            "checkpoint_sha256": summary.card.sha256,
            "val": summary.scores["val"],
            "test": summary.scores["test"],
        }
        for plan, summary in zip(plans, summaries, strict=True)
    ]
    document: dict[str, Any] = {
        "format": TOGETHER_FORMAT,
        "version": _FORMAT_VERSION,
        "runs": runs,
        "over_runs": {part: _spread(summaries, part) for part in ("val", "test")},
        "pooled": None,
        "pooled_by_seed": {},
    }
    if plans[0].fold is not None:
        for seed in dict.fromkeys(plan.seed for plan in plans):
            of_seed = [s for plan, s in zip(plans, summaries, strict=True) if plan.seed == seed]
            document["pooled_by_seed"][str(seed)] = _pooled(folder, of_seed, seed=seed)
        document["pooled"] = document["pooled_by_seed"][str(plans[0].seed)]
    path = folder / TOGETHER_NAME
    write_json(path, document)
    return path


def _spread(summaries: Sequence[Summary], part: str) -> dict[str, Any]:
    spread = {}
    for name in _MAIN:
        values = [summary.scores[part]["scores"].get(name) for summary in summaries]
        known = [value for value in values if value is not None]
        spread[name] = {
            "n_runs": len(known),
            "mean": float(np.mean(known)) if known else None,
            "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        }
    return spread


def _pooled(folder: Path, summaries: Sequence[Summary], *, seed: int) -> dict[str, Any]:
    """Pool what each fold's network says of the fold that was held out."""
    card = summaries[0].card
    tables = [pl.read_csv(summary.out / predictions.NAME, infer_schema=False).fill_null("") for summary in summaries]
    ids = [set(table.filter(pl.col("split") == "test").get_column("image_id")) for table in tables]
    # With a fixed test part all folds measure the same images, and what is held out is the val part.
    part = "val" if len(ids) > 1 and ids[0] and all(other == ids[0] for other in ids[1:]) else "test"
    table = pl.concat(each.filter(pl.col("split") == part) for each in tables).sort("image_id")
    p = table.select(pl.col(f"probability/{name}").cast(pl.Float64) for name in card.classes).to_numpy()
    targets = targets_of(table.get_column("label").to_list(), card.classes, task=card.task)
    write_whole(folder / f"out-of-fold_seed{seed}.csv", table.write_csv().encode())
    found = scored(p, targets, table.get_column("patient").to_list(), card, seed=seed)
    if part == "val":
        found["note"] = "held-out folds, on which the best epochs, the calibration and any thresholds were chosen"
    return {"part": part, **found}

"""Scores as a document: every value with its interval, its number of images and patients, and who is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from medtool.cam.score.cases import Case, Source, count_reasons
from medtool.cam.score.intervals import SIGNS, Mean, adjusted, difference_of, means_of
from medtool.cam.score.metrics import Floats, Measured, Outcome
from medtool.cam.score.options import ScoreOptions
from medtool.cam.score.run import Found, Job
from medtool.lineage import digest_of
from medtool.statistics.bootstrap import DRAWS

FORMAT = "medtool-cam-scores"
FORMAT_VERSION = 1
ALL = ""  # of the classes: all images together

INTERVAL_METHOD = f"mean over images; percentile bootstrap over patients, {DRAWS} draws, 95%"
TEST_METHOD = (
    "two-sided sign flips of the paired differences, those of a patient together,"
    f" all of up to {SIGNS} or else {SIGNS} random ones; p_adjusted by Holm over all comparisons of this document"
)


def document_of(job: Job, found: Found, options: ScoreOptions, *, manifest_sha256: str, group: str) -> dict[str, Any]:
    """Return everything as one document, ready for JSON; docs/reference/formats.md describes it.

    Parameters
    ----------
    manifest_sha256
        Of the manifest's file.
    group
        The column that says which images belong together; empty where each stands alone.
    """
    groups = [case.group for case in found.scored]
    n_seen = sum(1 for case in found.scored if case.seen)
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "made_with": {
            "manifest_sha256": manifest_sha256,
            "images_sha256": digest_of(sorted(case.image_id for case in found.scored)),
            "split": list(job.parts),
            "group": group,
            "weights": "" if job.run is None else job.run.card.sha256,
            "options": _options(options, has_run=job.run is not None),
        },
        "n_images": len(found.scored),
        "n_patients": len({name for name in groups if name.strip()}) + sum(1 for name in groups if not name.strip()),
        "n_unknown_patients": sum(1 for name in groups if not name.strip()),
        "n_seen": n_seen,
        "interval_method": INTERVAL_METHOD,
        "results": [
            _result(job.sources[number], found, number, seed=options.seed) for number in range(len(job.sources))
        ],
        "test_method": TEST_METHOD,
        "comparisons": _comparisons(job, found, seed=options.seed),
        "failed": [{"image_id": image_id, "reason": reason} for image_id, reason in found.failed.items()],
    }


def _options(options: ScoreOptions, *, has_run: bool) -> dict[str, Any]:
    """Return what decides the values; without a run nothing of what concerns networks."""
    given = asdict(options)
    for name in ("batch_size", "threads"):
        del given[name]
    if not has_run:
        for name in ("steps", "sanity", "sanity_images", "sanity_stages", "device", "precision", "channels_last"):
            del given[name]
    return given


def _result(source: Source, found: Found, number: int, *, seed: int) -> dict[str, Any]:
    file = source.file
    outcome = found.outcomes[number]
    check = found.sanities[number]
    lineage = file.lineage
    return {
        "heatmaps": file.path.name,
        "heatmaps_sha256": file.content_hash,
        "method": file.attributes.method,
        "layer": file.attributes.layer,
        "target": source.target or file.attributes.target,
        "multi_scale": file.attributes.multi_scale,
        "weights": file.attributes.weights,
        "is_oracle": source.is_oracle,
        "is_lineage_known": lineage is not None,
        "leaks": [] if lineage is None else lineage.get("made_with", {}).get("leaks", []),
        "scores": _scores(found.scored, outcome, is_oracle=source.is_oracle, seed=seed),
        "sanity": None if check is None else _sanity(check, seed=seed),
    }


def classes_of(cases: Sequence[Case]) -> list[str]:
    """Return the labels of some images, in order; then :data:`ALL`."""
    return [*sorted({case.label for case in cases if case.label}), ALL]


def _scores(scored: Sequence[Case], outcome: Outcome, *, is_oracle: bool, seed: int) -> list[dict[str, Any]]:
    found = []
    for label in classes_of(scored):
        places = [place for place, case in enumerate(scored) if label in (ALL, case.label)]
        groups = [scored[place].group for place in places]
        means = means_of(_by_name(outcome.measured, places), groups, seed=seed)
        for measured in outcome.measured:
            metric = measured.metric
            reasons = [outcome.reasons[metric.kind][place] for place in places]
            is_seen = [bool(scored[place].seen) for place in places]
            found.append(
                {
                    "class": label or None,
                    "kind": metric.kind.value,
                    "score": metric.name,
                    **means[metric.name].document(),
                    "n_excluded": sum(1 for reason in reasons if reason),
                    "excluded": count_reasons(reasons),
                    "n_seen": sum(1 for seen, reason in zip(is_seen, reasons, strict=True) if seen and not reason),
                    "better": metric.better or None,
                    "is_oracle": metric.is_oracle or is_oracle,
                    "threshold": metric.threshold,
                    "threshold_from": metric.threshold_from or None,
                }
            )
    return found


def _by_name(measured: Sequence[Measured], places: Sequence[int]) -> dict[str, Floats]:
    return {each.metric.name: each.values[list(places)] for each in measured}


def _sanity(check: Any, *, seed: int) -> dict[str, Any]:
    from medtool.cam.score.sanity import LIMIT_ALL, LIMIT_TOP

    groups = [case.group for case in check.cases]
    stages = []
    for stage in check.stages:
        scores = {"rank_correlation": stage.rank_correlation, "ssim": stage.ssim}
        means = means_of(scores, groups, seed=seed)
        stages.append(
            {
                "n_random_layers": stage.n_layers,
                "down_to": stage.lowest,
                **{name: mean.document() for name, mean in means.items()},
            }
        )
    return {
        "passes": check.passes,
        "needs_classifier": check.needs_classifier,
        "needs_weights": check.needs_weights,
        "limits": {"rank_correlation_classifier_random": LIMIT_TOP, "rank_correlation_all_random": LIMIT_ALL},
        "n_layers": check.n_layers,
        "n_images": len(check.cases),
        "excluded": count_reasons(check.reasons.values()),
        "stages": stages,
    }


def _comparisons(job: Job, found: Found, *, seed: int) -> list[dict[str, Any]]:
    """Return the difference of every other file to the first, score by score, over all classes together."""
    rows: list[dict[str, Any]] = []
    groups = [case.group for case in found.scored]
    first = {each.metric.name: each for each in found.outcomes[0].measured}
    for number in range(1, len(job.sources)):
        for other in found.outcomes[number].measured:
            own = first.get(other.metric.name)
            if own is None or not other.metric.better:
                continue
            difference = difference_of(own.values, other.values, groups, seed=seed)
            rows.append(
                {
                    "first": _named(job, 0),
                    "second": _named(job, number),
                    "kind": other.metric.kind.value,
                    "score": other.metric.name,
                    **_difference(difference.mean),
                    "p_value": difference.p_value,
                    "better": other.metric.better,
                    "is_oracle": other.metric.is_oracle or job.sources[0].is_oracle or job.sources[number].is_oracle,
                }
            )
    tested = [row for row in rows if row["p_value"] is not None]
    for row, p in zip(tested, adjusted([row["p_value"] for row in tested]).tolist(), strict=True):
        row["p_adjusted"] = p
    for row in rows:
        row.setdefault("p_adjusted", None)
    return rows


def _difference(mean: Mean) -> dict[str, Any]:
    said = mean.document()
    return {"difference": said.pop("value"), **said}


def _named(job: Job, number: int) -> dict[str, str]:
    file = job.sources[number].file
    return {"heatmaps": file.path.name, "method": file.attributes.method}


def table_of(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table for people: per class first, then all."""
    header = ["heatmaps", "class", "score", "value", "95% interval", "images", "patients", "excluded", "note"]
    rows = []
    for result in document["results"]:
        for each in result["scores"]:
            notes = [f"at {each['threshold']:g} of the peak"] if each["threshold"] is not None else []
            notes += ["oracle"] if each["is_oracle"] else []
            notes += ["lower is better"] if each["better"] == "lower" else []
            notes += [f"{each['n_seen']} images seen"] if each["n_seen"] else []
            rows.append(
                [
                    result["heatmaps"],
                    "all" if each["class"] is None else each["class"],
                    each["score"],
                    number_text(each["value"]),
                    interval_text(each["low"], each["high"]),
                    str(each["n_images"]),
                    str(each["n_patients"]),
                    str(each["n_excluded"]),
                    ", ".join(notes),
                ]
            )
    return header, rows


def comparison_table(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the comparisons."""
    header = ["second − first", "score", "difference", "95% interval", "images", "patients", "p", "p adjusted", "note"]
    rows = []
    for each in document["comparisons"]:
        notes = ["oracle"] if each["is_oracle"] else []
        notes += ["lower is better"] if each["better"] == "lower" else []
        rows.append(
            [
                f"{each['second']['heatmaps']} − {each['first']['heatmaps']}",
                each["score"],
                number_text(each["difference"], sign="+"),
                interval_text(each["low"], each["high"], sign="+"),
                str(each["n_images"]),
                str(each["n_patients"]),
                _p_text(each["p_value"]),
                _p_text(each["p_adjusted"]),
                ", ".join(notes),
            ]
        )
    return header, rows


def number_text(value: float | None, *, sign: str = "") -> str:
    """Return a value with three decimals; a dash for none."""
    return "–" if value is None or np.isnan(value) else f"{value:{sign}.3f}"


def interval_text(low: float | None, high: float | None, *, sign: str = "") -> str:
    """Return the ends of an interval; a dash for none."""
    return "–" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"


def _p_text(p: float | None) -> str:
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"

"""What a run has seen of what it is about to be scored on (R501 to R503).

It is to be scored on the rows of the test part; without one, on those of val; in a manifest without parts, on all. Of
folds without a fixed test part, it is to be scored on those of which it has seen no image itself: a run that trained on
four folds of five is held against the fifth. One that has seen images of every fold is held against all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from medtool.roles import folds_of, has_fixed_test, roles_of
from medtool.split import catalogue
from medtool.split.findings import Case, Finding, Severity, finding
from medtool.split.rules.identifiers import is_known, normalised
from medtool.split.rules.tally import told
from medtool.split.seen import Seen
from medtool.split.table import PART, AuditTable

_ROLES = {"train": "trained on", "val": "chose on"}
_LISTED = 4


def run_findings(
    table: AuditTable,
    runs: Sequence[Seen],
    *,
    sha256s: Mapping[str, str] | None = None,
    nobody: Collection[str] = (),
) -> list[Finding]:
    """Return which patients (or lesions, ...) and images the runs have seen of what they are to be scored on.

    Ids that are equal only in their normal form are a finding of their own, of medium severity; so are images of one
    ``image_id`` where the bytes of one of the two are not known.

    Parameters
    ----------
    sha256s
        By ``image_id`` of the table: of the files' bytes. None, or lacking an image, leaves its id to compare.
    nobody
        The ``image_id`` of pictures that show nobody, such as a blank image: to have seen these tells nothing.
    """
    exact: list[Case] = []
    alike: list[Case] = []
    for column in table.groups:
        sights = [_groups_seen(table, seen, column) for seen in runs]
        equal = _of_one_subject(sight for same, _ in sights for sight in same)
        exact += [_group_case(column, value, found) for value, found in equal.items()]
        weaker = _of_one_subject(sight for _, near in sights for sight in near)
        alike += [_group_case(column, value, found) for value, found in weaker.items() if value not in equal]
    sights = [_images_seen(table, seen, sha256s or {}, nobody) for seen in runs]
    same = _of_one_subject(sight for found, _ in sights for sight in found)
    by_id = _of_one_subject(sight for _, found in sights for sight in found)
    images = [_image_case(name, found, sameness="same bytes") for name, found in same.items()]
    named = [
        _image_case(name, found, sameness="same id, bytes not compared")
        for name, found in by_id.items()
        if name not in same
    ]
    leaky = [
        Case(f"run {seen.run}", (), _listed([str(leak) for leak in seen.leaks]), {"leaks": len(seen.leaks)})
        for seen in runs
        if seen.leaks
    ]
    return [
        *finding(catalogue.RUN_HAS_SEEN_GROUP, exact),
        *finding(catalogue.RUN_HAS_SEEN_GROUP, alike, severity=Severity.MEDIUM),
        *finding(catalogue.RUN_HAS_SEEN_IMAGE, images),
        *finding(catalogue.RUN_HAS_SEEN_IMAGE, named, severity=Severity.MEDIUM),
        *finding(catalogue.RUN_IS_LEAKY, list({case.subject: case for case in leaky}.values())),
    ]


def not_compared(table: AuditTable, runs: Sequence[Seen]) -> list[str]:
    """Return what could not be held against the runs, a line each, such as a column that a run does not know."""
    lines = []
    for seen in runs:
        if not scored_rows(table, seen).height:
            lines.append(f"run {seen.run}: no row is in test or val, so there is nothing to score it on")
            continue
        unknown = [column for column in table.groups if _column_of(seen, column) is None]
        if unknown:
            known = f"it knows {', '.join(seen.groups)}" if seen.groups else "it knows no such column"
            lines.append(f"run {seen.run}: {', '.join(unknown)} not compared ({known})")
        elif not table.groups:
            lines.append(f"run {seen.run}: only images compared, as the manifest has no patient, lesion, ...")
    return lines


def scored_rows(table: AuditTable, seen: Seen) -> pl.DataFrame:
    """Return the rows of the table that a run is to be scored on; see the module's text."""
    frame = table.frame
    if not table.has_parts:
        return frame
    folds = folds_of(table.manifest)
    if folds and not has_fixed_test(table.manifest):
        own = seen.frame.filter(pl.col("run") == seen.run).get_column("image_id")
        is_own = frame.get_column("image_id").is_in(own.to_list())
        held_out = [(roles_of(table.manifest, fold) == "test") for fold in folds]
        unseen = [rows for rows in held_out if not (rows & is_own).any()] or held_out
        chosen = unseen[0]
        for rows in unseen[1:]:
            chosen = chosen | rows
        return frame.filter(chosen)
    test = frame.filter(pl.col(PART) == "test")
    return test if test.height else frame.filter(pl.col(PART) == "val")


def _column_of(seen: Seen, column: str) -> str | None:
    """Return the run's column of the same meaning: ``patient_id`` is ``patient``."""
    names = {_stem(name): name for name in seen.groups}
    return column if column in seen.groups else names.get(_stem(column))


def _stem(name: str) -> str:
    return name.strip().casefold().removesuffix("_id")


@dataclass(frozen=True, slots=True)
class _Sight:
    """One thing that a run has seen.

    Attributes
    ----------
    subject
        A patient (lesion, ...) or an image, as the table writes it.
    parts
        The part of each row that it is about, by ``image_id``.
    run
        The run in words; a parent with the run that started from it.
    role
        Train or val.
    count
        How many images of it the run has seen.
    written
        How the run writes it.
    """

    subject: str
    parts: Mapping[str, str]
    run: str
    role: str
    count: int
    written: str


def _groups_seen(table: AuditTable, seen: Seen, column: str) -> tuple[list[_Sight], list[_Sight]]:
    """Return where a run has seen the values of a column: as they are written, and in another spelling."""
    theirs = _column_of(seen, column)
    if theirs is None:
        return [], []
    scored = scored_rows(table, seen).filter(is_known(column))
    here = scored.select(pl.col(column).alias("subject"), "image_id", pl.col(PART).alias("part"))
    here = here.with_columns(normalised(here.get_column("subject")).alias("form"))
    there = seen.frame.filter(is_known(theirs)).select("run", "role", pl.col(theirs).alias("written"))
    there = there.group_by("run", "role", "written").agg(pl.len().alias("count"))
    there = there.with_columns(normalised(there.get_column("written")).alias("form"))
    met = here.filter(pl.col("form").is_in(there.get_column("form").to_list()))
    groups = met.group_by("subject", "form").agg(pl.col("image_id").sort(), "part")
    both = groups.join(there, on="form")
    is_same = pl.col("subject") == pl.col("written")
    return _sights(both.filter(is_same), seen), _sights(both.filter(~is_same), seen)


def _images_seen(
    table: AuditTable, seen: Seen, sha256s: Mapping[str, str], nobody: Collection[str]
) -> tuple[list[_Sight], list[_Sight]]:
    """Return the images that a run has seen: by their bytes, and by their id where bytes are not known."""
    scored = scored_rows(table, seen).filter(~pl.col("image_id").is_in(list(nobody)))
    ids = scored.get_column("image_id")
    here = scored.select(
        pl.col("image_id").alias("subject"),
        pl.concat_list("image_id").alias("image_id"),
        pl.concat_list(PART).alias("part"),
        pl.Series("sha256", [sha256s.get(name, "") for name in ids], dtype=pl.String),
    )
    there = seen.frame.select(
        "run",
        "role",
        pl.col("image_id").alias("written"),
        pl.col("image_sha256").alias("sha256"),
        pl.lit(1).alias("count"),
    )
    same = here.filter(pl.col("sha256") != "").join(there, on="sha256")
    named = here.join(there, left_on="subject", right_on="written", suffix="_seen", coalesce=False)
    named = named.filter((pl.col("sha256") == "") | (pl.col("sha256_seen") == ""))
    return _sights(same, seen), _sights(named, seen)


def _sights(found: pl.DataFrame, seen: Seen) -> list[_Sight]:
    ordered = found.sort("subject", pl.col("run") != seen.run, "run", "role", "written")
    return [
        _Sight(
            row["subject"],
            dict(zip(row["image_id"], row["part"], strict=True)),
            row["run"] if row["run"] == seen.run else f"{row['run']} (which {seen.run} started from)",
            row["role"],
            row["count"],
            row["written"],
        )
        for row in ordered.iter_rows(named=True)
    ]


def _of_one_subject(sights: Iterable[_Sight]) -> dict[str, list[_Sight]]:
    subjects: dict[str, list[_Sight]] = {}
    for sight in sights:
        subjects.setdefault(sight.subject, []).append(sight)
    return subjects


def _group_case(column: str, value: str, sights: Sequence[_Sight]) -> Case:
    parts = {name: part for sight in sights for name, part in sight.parts.items()}
    here = told(Counter(parts.values())) if any(parts.values()) else f"{len(parts):,} here"
    there = _in_words(sights, lambda sight: f"{sight.count:,} {'image' if sight.count == 1 else 'images'}")
    values = {"images_here": len(parts), "images_seen": sum(sight.count for sight in sights)}
    return Case(f"{column} {value}", tuple(sorted(parts)), f"{there}; {here}", values)


def _image_case(name: str, sights: Sequence[_Sight], *, sameness: str) -> Case:
    text = f"{_in_words(sights, lambda _: 'it')} ({sameness})"
    return Case(name, (name,), text, {"seen_as": sights[0].written, "run": sights[0].run})


def _in_words(sights: Sequence[_Sight], amount: Callable[[_Sight], str]) -> str:
    lines = [
        f"{sight.run} {_ROLES[sight.role]} {amount(sight)}"
        + (f", written {sight.written!r}" if sight.written != sight.subject else "")
        for sight in sights
    ]
    return _listed(list(dict.fromkeys(lines)))


def _listed(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return "; ".join(texts[:_LISTED]) + more

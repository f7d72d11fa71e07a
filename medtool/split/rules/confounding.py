"""What goes with the label that is no disease: the site or device, a column that holds the answer, the part.

All three count the rows of :func:`medtool.split.rules.votes.votes`: one vote a patient. A finding needs both evidence
(p < 0.01 after Holm's correction for the number of columns) and size: in a table of a million rows the least
association is significant, and in one of twenty rows a large one may be chance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from medtool.manifest import COLUMNS
from medtool.roles import VAL_FOLD
from medtool.split.catalogue import COLUMN_LEAKS_LABEL, PART_PREDICTS_LABEL, SITE_PREDICTS_LABEL
from medtool.split.findings import Case, Finding, Severity, finding
from medtool.split.rules.association import Counts, accuracy, cramers_v, holm, one_against_rest, p_value
from medtool.split.rules.tally import held_out
from medtool.split.rules.votes import cross_table
from medtool.split.table import GROUP_COLUMNS, PART, AuditTable

_LEAST_P_VALUE = 0.01
_WEAK = 0.1  # Cramér's V from which an association is worth a finding
_STRONG = 0.5  # from which the site is half of the answer
_NEARLY_ALL = 0.95  # area under the ROC curve from which a column gives a class away
_LATE = 0.3  # Cramér's V from which a column that is filled in after the diagnosis is worth a finding
_FEWEST_VOTES = 10  # of a class and of the rest, to be judged at all
_MOST_VALUES = 1000
_VOTES_A_VALUE = 5
_MOST_BINS = 20

# Words in the names of columns. Of a site: whatever took or sent the image; ...
_SITE_WORD = re.compile(
    "site|cent(?:re|er)|hospital|clinic|institut(?:ion|e)|source|origin|provider|vendor|manufacturers?|model|device"
    "|scanner|camera|microscope|derm(?:at)?oscope|detector|machine|magnification|protocol|dataset|cohort|country"
)
# ... but not a site on the body.
_BODY_WORD = re.compile("anatom(?:y|ic|ical)?|body|lesion|tumou?r|primary|biopsy")
# Of a name: whatever tells rows apart and says nothing else.
_NAME_WORD = re.compile(
    "ids?|uu?id|guid|pid|mrn|ind(?:e)?x|number|no|nr|row|key|names?|files?|filenames?|paths?|ur[li]|hash|sha256|md5|checksum"
    "|accession|barcode|subject|participant|person|unnamed"
)
# Of what is known only once the diagnosis is.
_LATE_WORD = re.compile(
    "dx|diagnos(?:is|es|ed|tic)|confirm(?:ed|ation)?|biops(?:y|ied)|histo(?:logy|logical|pathology)?|patholog(?:y|ical)"
    "|report|grade|stag(?:e|ing)|birads|breslow|thickness|benign|malignan(?:t|cy)|outcome|treatment|therapy|target|class"
    "|truth"
)


@dataclass(frozen=True, eq=False)
class _Association:
    """How a column goes with the label (or the part): the numbers of votes and what they say."""

    column: str
    counts: Counts
    values: list[str]
    classes: list[str]

    @property
    def figures(self) -> dict[str, float | int]:
        """What every case of an association gives."""
        guessed, most_frequent = accuracy(self.counts)
        return {
            "votes": int(self.counts.sum()),
            "values": len(self.values),
            "cramers_v": round(cramers_v(self.counts), 4),
            "accuracy": round(guessed, 4),
            "accuracy_of_most_frequent": round(most_frequent, 4),
        }


def sites_predicting_labels(table: AuditTable, rows: pl.DataFrame) -> list[Finding]:
    """Return the columns of sites and devices that go with the label (C401): medium, and high from V = 0.5 on.

    ``site`` is such a column, and so are others by their name, such as ``scanner`` or ``magnification``. An empty
    cell is no site.
    """
    names = [name for name in table.manifest.columns if _is_site(name) and name not in table.groups]
    tested = []
    for name in names:
        known = rows.filter(pl.col(name).str.strip_chars() != "")
        counts, values, classes = cross_table(known.get_column(name), known.get_column("label"))
        if 2 <= len(values) <= min(_MOST_VALUES, known.height // 2) and len(classes) > 1:
            tested.append(_Association(name, counts, values, classes))
    cases: dict[Severity, list[Case]] = {Severity.HIGH: [], Severity.MEDIUM: []}
    for one, p in zip(tested, holm([p_value(one.counts) for one in tested]), strict=True):
        size = cramers_v(one.counts)
        if p < _LEAST_P_VALUE and size >= _WEAK:
            severity = Severity.HIGH if size >= _STRONG else Severity.MEDIUM
            cases[severity].append(_case(table, one, p, _guess(one)))
    return [
        one for severity, listed in cases.items() for one in finding(SITE_PREDICTS_LABEL, listed, severity=severity)
    ]


def columns_leaking_labels(table: AuditTable, rows: pl.DataFrame) -> list[Finding]:
    """Return the other columns that nearly tell a class from the rest (C402).

    Medium: guessing a class from the value, left one out, has an area under the ROC curve of 0.95 or more. An empty
    cell is a value, since being filled in may be the answer; numbers of many values are cut into twenty equal bins.
    Low: a column that by its name is filled in once the diagnosis is known (``dx_type``) and goes with it, V >= 0.3.

    Left out are the manifest's own columns, groups, sites, names by their own name (``file``, ``uid``), texts with
    fewer than five votes a value, and whole numbers that are all different.
    """
    names = [name for name in table.manifest.columns if _may_leak(name) and name not in table.groups]
    labels = rows.get_column("label")
    tested = 0
    suspects: list[tuple[_Association, npt.NDArray[np.float64] | None]] = []
    for name in names:
        values = _categories(rows.get_column(name))
        if values is None:
            continue
        one = _Association(name, *cross_table(values, labels))
        if len(one.values) < 2 or len(one.classes) < 2:
            continue
        tested += 1
        areas = _areas(one.counts)
        if areas.max(initial=0.0) >= _NEARLY_ALL:
            suspects.append((one, areas))
        elif _has_word(name, _LATE_WORD) and cramers_v(one.counts) >= _LATE:
            suspects.append((one, None))
    p_values = holm([p_value(one.counts) for one, _ in suspects] + [1.0] * (tested - len(suspects)))
    leaks, late = [], []
    for (one, all_areas), p in zip(suspects, p_values, strict=False):
        if p >= _LEAST_P_VALUE:
            continue
        if all_areas is None:
            late.append(_case(table, one, p, "by its name it is known only once the diagnosis is"))
        else:
            told = [name for name, area in zip(one.classes, all_areas, strict=True) if area >= _NEARLY_ALL]
            area = float(all_areas.max())
            detail = f"tells {_listed(told)} from the rest (area under the ROC curve {area:.3f}, each vote left out)"
            leaks.append(_case(table, one, p, detail, area=round(area, 4)))
    return finding(COLUMN_LEAKS_LABEL, leaks) + finding(COLUMN_LEAKS_LABEL, late, severity=Severity.LOW)


def parts_that_differ(table: AuditTable, rows: pl.DataFrame) -> list[Finding]:
    """Return whether labels or sites are spread over the parts more unequally than chance does (C403).

    Sites are not looked at where each is in one part: such a split was made by site.
    """
    if not table.has_parts:
        return []
    part = rows.select(held_out()).to_series()
    tested = [_Association("label", *cross_table(rows.get_column("label"), part))]
    if "site" in table.manifest.columns and "site" not in table.groups:
        is_known = rows.get_column("site").str.strip_chars() != ""
        site = _Association("site", *cross_table(rows.get_column("site").filter(is_known), part.filter(is_known)))
        is_by_site = bool(((site.counts > 0).sum(axis=1) == 1).all())
        tested += [] if is_by_site or len(site.values) > _MOST_VALUES else [site]
    cases = []
    for one, p in zip(tested, holm([p_value(one.counts) for one in tested]), strict=True):
        if p < _LEAST_P_VALUE and cramers_v(one.counts) >= _WEAK:
            cases.append(_case(table, one, p, _most_unequal(one)))
    return finding(PART_PREDICTS_LABEL, cases)


def _case(table: AuditTable, one: _Association, p: float, detail: str, **more: float) -> Case:
    figures = one.figures
    voters = table.groups[0] if table.groups else "image"
    text = f"{detail}; Cramér's V {figures['cramers_v']:.2f}, p {_told(p)}, one vote of each {voters} and label"
    return Case(one.column, (), text, {"p_value": p, **figures, **more})


def _told(p: float) -> str:
    return f"= {p:.2g}" if p >= 1e-99 else "< 1e-99"


def _guess(one: _Association) -> str:
    guessed, most_frequent = accuracy(one.counts)
    return f"guessing the label from it is right for {guessed:.1%}, always the most frequent for {most_frequent:.1%}"


def _most_unequal(one: _Association) -> str:
    """Return the value whose share differs most between two parts."""
    shares = one.counts / one.counts.sum(axis=0)
    value = int(np.ptp(shares, axis=1).argmax())
    least, most = int(shares[value].argmin()), int(shares[value].argmax())
    return (
        f"{one.values[value]} is {shares[value, most]:.1%} of {one.classes[most]}"
        f" and {shares[value, least]:.1%} of {one.classes[least]}"
    )


def _areas(counts: Counts) -> npt.NDArray[np.float64]:
    """Return the area of each class that can be judged, 0 of the others."""
    of_class = counts.sum(axis=0)
    can_be_judged = (of_class >= _FEWEST_VOTES) & (counts.sum() - of_class >= _FEWEST_VOTES)
    return np.where(can_be_judged, one_against_rest(counts), 0.0)


def _categories(values: pl.Series) -> pl.Series | None:
    """Return a column as text of few values, numbers in bins; None where it can be none."""
    filled = values.filter(values.str.strip_chars() != "")
    n_values = filled.n_unique()
    if n_values <= min(_MOST_BINS, len(values) // _VOTES_A_VALUE):
        return values
    numbers = values.cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite(), None)
    if numbers.count() >= 0.9 * len(filled):
        is_numbering = n_values == len(filled) and bool((numbers.drop_nulls() % 1 == 0).all())
        return None if is_numbering else _binned(numbers)
    return values if n_values <= min(_MOST_VALUES, len(values) // _VOTES_A_VALUE) else None


def _binned(numbers: pl.Series) -> pl.Series:
    """Return the bin of each number as text, equal numbers in one bin; empty for nulls."""
    n_bins = max(2, min(_MOST_BINS, numbers.count() // _VOTES_A_VALUE))
    place = ((numbers.rank("average") - 0.5) * n_bins / numbers.count()).floor()
    return place.cast(pl.Int64).cast(pl.String).fill_null("")


def _is_site(name: str) -> bool:
    return _has_word(name, _SITE_WORD) and not _has_word(name, _BODY_WORD)


def _may_leak(name: str) -> bool:
    own = {*COLUMNS, VAL_FOLD, PART, *GROUP_COLUMNS, *(f"{group}_id" for group in GROUP_COLUMNS)}
    return name not in own and not _is_site(name) and not _has_word(name, _NAME_WORD)


def _has_word(name: str, word: re.Pattern[str]) -> bool:
    """Tell whether a column's name has such a word; ``dx_type``, ``DxType`` and ``dx type`` have the same."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+\d*|\d+", name)
    return any(word.fullmatch(one.lower()) for one in words)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

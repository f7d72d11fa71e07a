"""How much the leaks of a split may raise a score: what a nearest-neighbour classifier gains by them.

Each image of the test part (without one, of val; of folds, of each against the rest) is given the label of the training
image that looks most like it. Then again, *without* the training images that leak into it: those of its unit, which is
what ``medtool split make --keep-duplicates-together`` would have kept in one part (the same patient, lesion, ..., or a
copy of one picture, or linked by a chain of these). The difference is what the leaks gave to this classifier. An image
into which all training images leak is compared with none and does not count. Copies that show nobody are no leaks
(:mod:`medtool.split.frames`).

What the figure is, and what it is not:

- It is an estimate for a weak classifier: it knows colours and coarse shapes, not diseases. It is neither a lower nor
  an upper bound for a network. One that memorises its training images recognises a patient by details that are lost
  here, and gains more; one that is right without the leaks has less left to gain.
- Zero says that this classifier gained nothing, not that a network would not. Where no leak is known, nothing is left
  out and the difference is zero by construction.
- Leaving images out also makes the training part smaller. The *control* leaves out as many others of the same labels,
  at random: its difference is what the smaller number alone does, and should be about zero.

How images are described and compared: :mod:`medtool.split.neighbours`. The order of the rows changes nothing.

Intervals are percentiles (2.5 and 97.5) of resampled units, not images, since the images of a patient are not
independent. All differences are paired: both answers for an image are in the same resample.

References
----------
Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), on percentile intervals. Field and Welsh,
"Bootstrapping clustered data", Journal of the Royal Statistical Society B 69 (2007), on resampling clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from medtool.roles import folds_of, has_fixed_test, roles_of
from medtool.split.duplicates.pairs import Duplicates
from medtool.split.frames import noun_of, ties_of
from medtool.split.grouping import plural
from medtool.split.neighbours import Answers, Describer, Training, answers_of
from medtool.split.rules.identifiers import is_known
from medtool.split.rules.tally import counted
from medtool.split.table import AuditTable
from medtool.split.units import units_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.split.duplicates.fingerprints import Fingerprints

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

MAX_SCORED = 5_000
RESAMPLES = 2_000

_LEAST_IMAGES = 20  # on either side
_LEAST_UNITS, _FEW_UNITS = 5, 20  # for intervals at all, and for trustworthy ones
_MOST_CLASSES = 100
_DRAWN_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A score with and without the leaks.

    Attributes
    ----------
    with_leaks, without_leaks
        0 to 1.
    difference
        The first minus the second.
    control
        The first minus the score where as many other images were left out at random.
    n_images
        What it was measured on.
    """

    with_leaks: Interval
    without_leaks: Interval
    difference: Interval
    control: Interval
    n_images: int

    def as_document(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        named = {
            "with": self.with_leaks,
            "without": self.without_leaks,
            "difference": self.difference,
            "control": self.control,
        }
        figures = {
            name: {"value": round(one.value, 6), "low": round(one.low, 6), "high": round(one.high, 6)}
            for name, one in named.items()
        }
        return {**figures, "n_images": self.n_images}


@dataclass(frozen=True, slots=True)
class Inflation:
    """What the leaks of a split gave to a nearest-neighbour classifier; see the module's text.

    Attributes
    ----------
    classes
        The share of each class that was given its label, by class.
    balanced
        The mean of these shares: balanced accuracy.
    accuracy
        The share of all images that were given their label.
    leaking
        The same of the images alone into which something leaks; None where these are of fewer than 5 units.
    scored
        ``test``, ``val`` or ``folds``.
    n_patients
        Units among the scored images.
    unit
        What a unit is, as it is said of so many: ``patients``, ``lesions``, ..., ``groups`` where several columns or
        copies make them, ``images`` where nobody is known; ``patient`` and so on of one.
    n_leaking
        Scored images that something leaks into.
    n_left_out
        Training images that were left out for an image, added up over the images.
    notes
        What is to be known about the figures, a line each.
    """

    classes: Mapping[str, Comparison]
    balanced: Comparison
    accuracy: Comparison
    leaking: Comparison | None
    scored: str
    n_patients: int
    unit: str
    n_leaking: int
    n_left_out: int
    notes: tuple[str, ...] = ()

    def as_document(self) -> dict[str, Any]:
        """Return it ready for JSON; the figures on top are those of plain accuracy."""
        return {
            "method": "1-nearest-neighbour",
            **self.accuracy.as_document(),
            "balanced": self.balanced.as_document(),
            "classes": {label: one.as_document() for label, one in self.classes.items()},
            "leaking": self.leaking.as_document() if self.leaking else None,
            "scored": self.scored,
            "n_patients": self.n_patients,
            "unit": self.unit,
            "n_leaking": self.n_leaking,
            "n_left_out": self.n_left_out,
            "resamples": RESAMPLES,
            "notes": list(self.notes),
        }


def estimate(
    table: AuditTable, duplicates: Duplicates, *, seed: int = 0, max_scored: int = MAX_SCORED
) -> tuple[Inflation | None, str]:
    """Return how much the known leaks raise the score of a nearest-neighbour classifier, or None and why not.

    Parameters
    ----------
    duplicates
        Of the rows of the table; what follows them, such as the rows of another manifest, is passed over.
    seed
        For the resampling, the control, and the choice among more than ``max_scored`` images.
    max_scored
        So many images are scored at most. All training images are compared with each, in blocks.
    """
    if "label" not in table.frame.columns:
        return None, "there is no column 'label'"
    labels = table.frame.get_column("label")
    is_usable = (labels != "").to_numpy() & _has_picture(duplicates.fingerprints, table.frame.height)
    # Rows are gone through by image_id, so that no order of theirs decides what is drawn, or which of two wins.
    by_id = table.frame.get_column("image_id").arg_sort().to_numpy().astype(np.int64)
    usable = by_id[is_usable[by_id]]
    scored, rounds = _rounds(table, usable)
    n_test, n_train = (sum(len(one[side]) for one in rounds) for side in (0, 1))
    reason = _reason_against(labels.filter(pl.Series(is_usable)), scored, n_test, n_train)
    if reason:
        return None, reason
    rng = np.random.Generator(np.random.PCG64(seed))
    notes = []
    if n_test > max_scored:
        rounds = _fewer(rounds, max_scored, rng)
        notes.append(f"{max_scored:,} of {n_test:,} images are scored, chosen at random")
    names, classes = np.unique(labels.to_numpy().astype(str), return_inverse=True)
    units = _units(table, duplicates)
    describe = Describer(duplicates.fingerprints, usable)
    answers = [answers_of(test, Training(train, classes, units), describe, rng) for test, train in rounds if len(test)]
    joined = Answers.joined(answers)
    n_asked, n_without = len(joined.rows), int((~joined.has_answer).sum())
    if n_without * 2 > n_asked:
        return None, f"all training images leak into {n_without:,} of {counted(n_asked, 'image')} to be scored"
    if n_without:
        joined = joined.kept(joined.has_answer)
        verb = "has" if n_without == 1 else "have"
        notes.append(f"{counted(n_without, 'image')} {verb} only leaks to be compared with, and {verb} no part in this")
    clusters = _numbered(units[joined.rows], joined.rows, by_id)
    n_units = int(clusters.max()) + 1
    unit = plural(_unit_noun(table, joined.rows, n_units), n_units)
    if n_units < _LEAST_UNITS:
        return None, f"the {len(joined.rows):,} scored images are of {n_units} {unit}; {_LEAST_UNITS} are needed"
    if n_units < _FEW_UNITS:
        notes.append(f"the intervals rest on {n_units} {unit} and may be too narrow")
    if not joined.n_left_out.any():
        notes.append("no leak is known, so nothing is left out and the difference is zero by construction")
    by_class, balanced, accuracy = _compared(joined.right, classes[joined.rows], clusters, rng)
    is_leaking = joined.n_left_out > 0
    leaking = None
    _, of_leaking = np.unique(clusters[is_leaking], return_inverse=True)
    if len(of_leaking) and of_leaking.max() + 1 >= _LEAST_UNITS:
        leaking = _compared(joined.right[is_leaking], np.zeros(is_leaking.sum(), np.int64), of_leaking, rng)[2]
    return Inflation(
        {str(names[number]): one for number, one in by_class.items()},
        balanced,
        accuracy,
        leaking,
        scored,
        n_units,
        unit,
        int(is_leaking.sum()),
        int(joined.n_left_out.sum()),
        tuple(notes),
    ), ""


def _has_picture(fingerprints: Fingerprints, count: int) -> npt.NDArray[np.bool_]:
    return np.array([bool(sha256) for sha256 in fingerprints.sha256[:count]]) & (fingerprints.sizes[:count] > 0).all(
        axis=1
    )


def _reason_against(labels: pl.Series, scored: str, n_test: int, n_train: int) -> str:
    """Return why there is nothing to estimate, or an empty text."""
    n_classes = labels.n_unique()
    if not scored:
        return "no rows are in a test, val or held-out part with others to train on"
    if min(n_test, n_train) < _LEAST_IMAGES:
        return (
            f"{n_train} training and {n_test} {scored} images have a label and can be read; {_LEAST_IMAGES} are needed"
        )
    if n_classes < 2:
        return "all images have the same label"
    if n_classes > min(_MOST_CLASSES, len(labels) // 2):
        return f"the labels of {len(labels):,} images have {n_classes:,} values, which are no classes"
    return ""


def _rounds(table: AuditTable, usable: Ints) -> tuple[str, list[tuple[Ints, Ints]]]:
    """Return what is scored, and the rows that are scored and trained on in each round, in the order of ``usable``."""
    manifest = table.manifest
    folds = folds_of(manifest)
    if folds and not has_fixed_test(manifest):
        roles = [roles_of(manifest, fold) for fold in folds]
        return "folds", [(_rows(role == "test", usable), _rows(role == "train", usable)) for role in roles]
    if "split" not in manifest.columns:
        return "", []
    split = manifest.table.get_column("split")
    scored = "test" if (split == "test").any() else "val"
    in_fold = (manifest.table.get_column("fold") != "") if folds else split == "train"
    test, train = (
        _rows(split == scored, usable),
        _rows((in_fold | (split == "train")) & (split != scored), usable),
    )
    return (scored, [(test, train)]) if len(test) and len(train) else ("", [])


def _rows(are_in: pl.Series, usable: Ints) -> Ints:
    rows: Ints = usable[are_in.to_numpy()[usable]]
    return rows


def _fewer(rounds: Sequence[tuple[Ints, Ints]], count: int, rng: np.random.Generator) -> list[tuple[Ints, Ints]]:
    chosen = np.sort(rng.choice(sum(len(test) for test, _ in rounds), size=count, replace=False))
    fewer, start = [], 0
    for test, train in rounds:
        here = chosen[(chosen >= start) & (chosen < start + len(test))] - start
        fewer.append((test[here], train))
        start += len(test)
    return fewer


def _units(table: AuditTable, duplicates: Duplicates) -> Ints:
    """Return the unit of each row; what names nobody joins nothing."""
    joined = ties_of(duplicates, table.frame, table.groups).joined
    return units_of(_named(table) if table.groups else table.frame, table.groups, joined)


def _named(table: AuditTable) -> pl.DataFrame:
    """Return the columns that must not be cut, empty where a cell names nobody."""
    return table.frame.select(
        pl.when(is_known(column)).then(column).otherwise(pl.lit("")).alias(column) for column in table.groups
    )


def _numbered(units: Ints, rows: Ints, by_id: Ints) -> Ints:
    """Return the units of these rows, numbered from 0 by the least image_id that each has among them."""
    rank = np.empty_like(by_id)
    rank[by_id] = np.arange(len(by_id))
    least = np.full(int(units.max()) + 1, len(by_id))
    np.minimum.at(least, units, rank[rows])
    numbers: Ints = np.unique(least[units], return_inverse=True)[1]
    return numbers


def _unit_noun(table: AuditTable, rows: Ints, n_units: int) -> str:
    """Return what the units of these rows are: values of the widest column, images where nobody is known, or groups."""
    if not table.groups:
        return "image" if n_units == len(np.unique(rows)) else "group"
    named = _named(table)[rows]
    widest = named.get_column(table.groups[0])
    if (widest != "").all() and widest.n_unique() == n_units:
        return noun_of(table.groups)
    is_nobody_known = named.select(pl.all_horizontal(pl.all() == "").all()).item()
    return "image" if is_nobody_known and n_units == len(np.unique(rows)) else "group"


def _compared(
    right: Floats, classes: Ints, clusters: Ints, rng: np.random.Generator
) -> tuple[dict[int, Comparison], Comparison, Comparison]:
    """Return the comparison of each class, of their mean, and of all images, with intervals over clusters."""
    present, classes = np.unique(classes, return_inverse=True)
    n_clusters, n_classes = int(clusters.max()) + 1, len(present)
    # By cluster, class, and: images, right with, right without, right in the control.
    sums = np.zeros((n_clusters, n_classes, 4))
    np.add.at(sums, (clusters, classes), np.column_stack([np.ones(len(right)), right]))
    flat = sums.reshape(n_clusters, -1)
    totals = [flat.sum(axis=0, keepdims=True)]
    for start in range(0, RESAMPLES, _DRAWN_AT_ONCE):
        count = min(_DRAWN_AT_ONCE, RESAMPLES - start)
        totals.append(rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=count) @ flat)
    drawn = np.concatenate(totals).reshape(-1, n_classes, 4)
    with np.errstate(invalid="ignore"):
        shares = drawn[..., 1:] / drawn[..., :1]  # not a number where a class is in no drawn cluster
    pooled = drawn.sum(axis=1)
    return (
        {int(label): _comparison(shares[:, place], drawn[0, place, 0]) for place, label in enumerate(present)},
        _comparison(np.nanmean(shares, axis=1), len(right)),
        _comparison(pooled[:, 1:] / pooled[:, :1], len(right)),
    )


def _comparison(shares: Floats, n_images: float) -> Comparison:
    """Return the comparison of shares ``(1 + resamples, 3)``, the first row being those of the data itself."""
    of_each = [shares[:, 0], shares[:, 1], shares[:, 0] - shares[:, 1], shares[:, 0] - shares[:, 2]]
    with_leaks, without_leaks, difference, control = map(_interval, of_each)
    return Comparison(with_leaks, without_leaks, difference, control, int(n_images))


def _interval(figures: Floats) -> Interval:
    low, high = np.nanquantile(figures[1:], [0.025, 0.975])
    return Interval(float(figures[0]), float(low), float(high))

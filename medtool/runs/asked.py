"""Images that something is asked of: what is known of each beforehand, and how the run calls its label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from medtool.errors import InputError, UsageError
from medtool.runs.choices import SEPARATOR, Task
from medtool.runs.folder import Run


@dataclass(frozen=True, slots=True)
class Asked:
    """One image.

    Attributes
    ----------
    image
        As the result names the file.
    path
        The file; None where there is none to read.
    columns
        Its row of the manifest; empty without one.
    split
        Its part of the split, where that is known.
    seen
        Train or val where it is known beforehand that a run has seen it.
    reason
        Why it cannot be used; empty where it may be tried.
    """

    image_id: str
    image: str
    path: Path | None
    columns: Mapping[str, str] = field(default_factory=dict)
    split: str = ""
    seen: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Labels:
    """How runs call what a manifest calls otherwise.

    Attributes
    ----------
    positive
        The label that they tell from all others, which together are the first class; empty where all are told apart.
    """

    classes: tuple[str, ...]
    task: Task
    positive: str = ""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Labels:
        """Return how these runs call labels; where they do not agree on a positive one, labels stay as they are."""
        positives = {run.positive for run in runs}
        card = runs[0].card
        return cls(card.classes, card.task, positives.pop() if len(positives) == 1 else "")

    def known(self, label: str) -> str:
        """Return a label as the runs know it, and one that they do not know as it is written."""
        plain = label.strip()
        if self.task is Task.MULTI:
            names = {part.strip() for part in plain.split(SEPARATOR) if part.strip()}
            is_known = names <= set(self.classes)
            return SEPARATOR.join(name for name in self.classes if name in names) if is_known else label
        if self.positive and plain:
            return plain if plain == self.positive else self.classes[0]
        return plain if plain in self.classes else label

    def is_known(self, label: str) -> bool:
        """Tell whether a label is empty, or one that the runs know."""
        found = self.known(label)
        names = found.split(SEPARATOR) if self.task is Task.MULTI else [found]
        return not found.strip() or all(name in self.classes for name in names)


def check_columns(asked: Sequence[Asked], columns: Sequence[str]) -> None:
    """Refuse images that have not got what the networks take beside them.

    Raises
    ------
    UsageError
        Naming the column and the image.
    """
    for each in asked:
        lacking = [name for name in columns if name not in each.columns]
        if lacking and not each.reason:
            what = "is no row of a manifest" if not each.columns else "comes from a manifest without it"
            raise UsageError(
                f"the network takes the column {lacking[0]!r} beside the image, and {each.image} {what}",
                hint=f"a manifest with the columns {', '.join(columns)}; unknown cells may be empty",
            )


def encoded(
    asked: Sequence[Asked],
    reasons: list[str],
    columns: Sequence[str],
    encode: Callable[[pl.DataFrame], list[npt.NDArray[np.float32] | None]],
) -> list[npt.NDArray[np.float32] | None]:
    """Return what each network takes beside the images; a row that cannot be encoded gets its reason in ``reasons``.

    Parameters
    ----------
    columns
        Of the manifest, which the networks take.
    encode
        Gives for each network its numbers for a table of them; raises ``InputError``.
    """
    values = {name: [each.columns.get(name, "") for each in asked] for name in columns}
    table = pl.DataFrame(values, schema=dict.fromkeys(values, pl.String))
    try:
        return encode(table)
    except InputError:
        for place in range(len(asked)):
            try:
                encode(table[place])
            except InputError as error:
                reasons[place] = reasons[place] or error.message.replace("row 1", "this row")
        # A row that failed is not shown to the network; what stands in its place does not matter.
        is_bad = pl.Series([bool(reason) for reason in reasons])
        emptied = [pl.when(is_bad).then(pl.lit("")).otherwise(pl.col(name)).alias(name) for name in table.columns]
        return encode(table.select(emptied))

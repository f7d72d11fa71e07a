"""From probabilities to what is said of an image: the most probable class, or what lies above a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medtool.runs.choices import SEPARATOR, Task
from medtool.train.metrics import Bools, Floats, decided
from medtool.train.thresholds import Threshold


def decisions_of(
    probabilities: Floats, thresholds: Mapping[str, Threshold], *, task: Task, classes: Sequence[str]
) -> Bools:
    """Return what is decided, ``(n, classes)``: one class an image, or any number of labels.

    Of two classes the second is decided from its threshold on; labels each from theirs. Of three classes and more the
    most probable one is decided whatever the thresholds say, since these are for one class against the rest.

    Parameters
    ----------
    probabilities
        Shape ``(n, classes)``.
    thresholds
        By class; empty has none: the most probable class, and labels from 0.5 on.
    """
    given = decided(probabilities, task)
    if task is Task.SINGLE and len(classes) == 2 and classes[1] in thresholds:
        given[:, 1] = thresholds[classes[1]].decide(probabilities[:, 1])
        given[:, 0] = ~given[:, 1]
    if task is Task.MULTI:
        for place, name in enumerate(classes):
            if name in thresholds:
                given[:, place] = thresholds[name].decide(probabilities[:, place])
    return given


def names_of(decisions: Bools, classes: Sequence[str]) -> list[str]:
    """Return for each image the names that are decided, separated by ``|``."""
    return [SEPARATOR.join(name for name, is_so in zip(classes, row, strict=True) if is_so) for row in decisions]

"""Logits to probabilities, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.runs.choices import Task


def probabilities_of(logits: npt.NDArray[np.floating[Any]], task: Task) -> npt.NDArray[np.float64]:
    """Return the probabilities ``(n, classes)``: by softmax for one class of several, else by sigmoids."""
    values = np.asarray(logits, np.float64)
    if task is Task.SINGLE:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    # Of either sign, so that no power overflows.
    powers = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1, powers) / (1 + powers))

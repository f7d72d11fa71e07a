"""What a classifier answers: one class of several, or each of several labels on its own."""

from __future__ import annotations

import enum


class Task(enum.StrEnum):
    """How logits become probabilities.

    ``single``: one of K ≥ 2 classes, by softmax; a binary task is K = 2. ``multi``: K ≥ 1 labels of which each may be
    there or not, by K sigmoids.
    """

    SINGLE = "single"
    MULTI = "multi"

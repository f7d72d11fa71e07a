"""The choices that a run is made of and read with; nothing here imports numpy or torch."""

from __future__ import annotations

import enum

SEPARATOR = "|"  # between the labels of one image


class Task(enum.StrEnum):
    """What a network decides.

    ``single``: one class of two or more; probabilities sum to 1. ``multi``: labels that may each be there or not.
    """

    SINGLE = "single"
    MULTI = "multi"


class StainNormalisation(enum.StrEnum):
    """To which appearance every H&E image is brought, in training and in use alike."""

    NONE = "none"
    MACENKO = "macenko"
    REINHARD = "reinhard"

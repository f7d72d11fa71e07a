"""What every kind of phantom hands over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.demo.patients import Patient


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """One drawn picture with its truth.

    Attributes
    ----------
    pixels
        Shape ``(height, width, 3)`` uint8, or ``(height, width)`` uint16.
    mask
        Shape ``(height, width)`` uint8. Two classes are 0 and 255; more are 0, 1, 2 and so on.
    """

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    mask: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """One phantom that can be drawn: cheap to make, so that a whole demo is planned before anything is drawn.

    Attributes
    ----------
    patient
        Whose it is.
    name
        The image identifier; a file name without its suffix.
    keys
        What the drawing function takes beside the patient.
    columns
        Further columns of the manifest.
    """

    patient: Patient
    name: str
    keys: Mapping[str, int]
    columns: Mapping[str, str]


def to_bytes(values: Any) -> npt.NDArray[np.uint8]:
    """Return ``values`` in 0 to 1 as uint8, rounded; what lies outside is cut."""
    return np.asarray(np.rint(np.clip(values, 0.0, 1.0) * 255.0), dtype=np.uint8)

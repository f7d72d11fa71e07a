"""Pairs of images that show the same picture."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medtool.split.duplicates.fingerprints import Fingerprints


class Kind(enum.StrEnum):
    """How much two files have in common."""

    BYTES = "bytes"
    PIXELS = "pixels"
    NEAR = "near"


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two images that show the same picture.

    Attributes
    ----------
    first, second
        Their places in the list of images; ``first`` is the smaller.
    kind
        The same bytes; else the same decoded, upright pixels; else an altered copy.
    similarity
        0 to 1, over the part of the picture that both show; 1 for the same pixels.
    alteration
        One line on what makes the second of the first: ``mirrored, cropped to 81%``; empty for the same pixels.
    back
        The same on what makes the first of the second; None where these are the same words.
    """

    first: int
    second: int
    kind: Kind
    similarity: float
    alteration: str
    back: str | None = None

    def alteration_from(self, place: int) -> str:
        """Return what makes the other one of the image at this place."""
        return self.alteration if place == self.first or self.back is None else self.back


@dataclass(frozen=True, eq=False)
class Duplicates:
    """What a search for duplicates found.

    Attributes
    ----------
    pairs
        Ordered by ``first``, then ``second``. Of many copies of one picture at least a chain that links them is there.
    fingerprints
        Of all images, in their order.
    problems
        Why an image could not be looked at, by its place.
    notes
        What else the user should know, a line each.
    """

    pairs: tuple[DuplicatePair, ...]
    fingerprints: Fingerprints
    problems: Mapping[int, str]
    notes: tuple[str, ...] = ()

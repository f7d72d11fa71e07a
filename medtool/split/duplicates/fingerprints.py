"""The fingerprints of many images: made in parallel, taken from a cache where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medtool.errors import reason_of
from medtool.parallel import choose_workers, map_unordered
from medtool.protocols import Steps
from medtool.split.duplicates.fingerprint import N_COLOURS, N_WAVES, Fingerprint, fingerprint

ShowSteps = Callable[[int, str], AbstractContextManager[Steps]]

_BATCH = 16


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """What is kept of each of many images, in columns; a row without a fingerprint is zero throughout.

    Attributes
    ----------
    sha256
        Of the files' bytes, in hexadecimal; empty where there is no fingerprint.
    sizes
        Shape ``(n, 2)``, int32: width and height in pixels, upright.
    formats
        Names of the files' formats.
    spectra
        Shape ``(n, 16, 16)``, int8: see :class:`medtool.split.duplicates.fingerprint.Fingerprint`.
    colours
        Shape ``(n, 8, 8, 3)``, uint8.
    is_blank
        Shape ``(n,)``, bool.
    problems
        Why an image cannot be read, by its place.
    notes
        Why an image that is no problem has no picture to compare, by its place: a file of several pages.
    cache_notes
        What should be known about the cache, a line each.
    """

    sha256: list[str]
    sizes: npt.NDArray[np.int32]
    formats: list[str]
    spectra: npt.NDArray[np.int8]
    colours: npt.NDArray[np.uint8]
    is_blank: npt.NDArray[np.bool_]
    problems: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    cache_notes: tuple[str, ...] = ()

    @classmethod
    def empty(cls, count: int) -> Fingerprints:
        """Return room for so many."""
        return cls(
            [""] * count,
            np.zeros((count, 2), np.int32),
            [""] * count,
            np.zeros((count, N_WAVES, N_WAVES), np.int8),
            np.zeros((count, N_COLOURS, N_COLOURS, 3), np.uint8),
            np.zeros(count, bool),
        )

    def put(self, place: int, one: Fingerprint) -> None:
        """Fill one row."""
        self.sha256[place] = one.sha256
        self.sizes[place] = one.width, one.height
        self.formats[place] = one.format
        self.spectra[place] = one.spectrum
        self.colours[place] = one.colours
        self.is_blank[place] = one.is_blank
        if one.note:
            self.notes[place] = one.note


def fingerprints_of(
    paths: Sequence[Path | None],
    *,
    cache: Path | None,
    workers: int = 0,
    cluster: str | None = None,
    steps: ShowSteps | None = None,
) -> Fingerprints:
    """Return the fingerprints of images, in their order; None is an image that is not there."""
    places: dict[Path, list[int]] = {}
    for place, path in enumerate(paths):
        if path is not None:
            places.setdefault(path, []).append(place)
    todo = list(places)
    found = Fingerprints.empty(len(paths))
    batches = [todo[start : start + _BATCH] for start in range(0, len(todo), _BATCH)]
    count = choose_workers(workers, items=len(batches))
    for outcome in map_unordered(_batch, batches, setup=dict, workers=count, cluster=cluster):
        for path, answer in zip(batches[outcome.index], outcome.get(), strict=True):
            for place in places[path]:
                if isinstance(answer, str):
                    found.problems[place] = answer
                else:
                    found.put(place, answer)
    return found


def _batch(_: object, paths: list[Path]) -> list[Fingerprint | str]:
    answers: list[Fingerprint | str] = []
    for path in paths:
        try:
            answers.append(fingerprint(path))
        except Exception as error:
            answers.append(reason_of(error))
    return answers

"""The fingerprints of many images: made in parallel, taken from a cache where there is one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from medtool.errors import reason_of
from medtool.images.reader import read_bytes
from medtool.parallel import Outcome, WorkerDiedError, choose_workers, map_unordered
from medtool.protocols import Steps
from medtool.split.duplicates.cache import Cache, prefix_of
from medtool.split.duplicates.fingerprint import N_COLOURS, N_WAVES, Draft, Fingerprint, completed, draft_of
from medtool.split.duplicates.threads import have_few_processors, map_in_threads

if TYPE_CHECKING:
    from medtool.split.duplicates.small import SmallPicture

ShowSteps = Callable[[int, str], AbstractContextManager[Steps]]

_BATCH = 16
_FEW = 600  # images: to start processes for so many takes longer than they save
_MOST_KEPT = 8000  # small pictures, about 12 kB each
_JPEG_NAMES: Final = (".jpg", ".jpeg", ".jpe", ".jfif")
_JPEG: Final = b"\xff\xd8\xff"


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
    small
        Small pictures, by their place, that were read on the way and may serve again; not of many images.
    """

    sha256: list[str]
    sizes: npt.NDArray[np.int32]
    formats: list[str]
    spectra: npt.NDArray[np.int8]
    colours: npt.NDArray[np.uint8]
    is_blank: npt.NDArray[np.bool_]
    problems: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    cache_notes: list[str] = field(default_factory=list)
    small: dict[int, SmallPicture] = field(default_factory=dict)

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
        if one.small is not None:
            self.small[place] = one.small


def fingerprints_of(
    paths: Sequence[Path | None],
    *,
    cache: Path | None,
    workers: int = 0,
    cluster: str | None = None,
    steps: ShowSteps | None = None,
) -> Fingerprints:
    """Return the fingerprints of images, in their order.

    Parameters
    ----------
    paths
        None is an image that is not there: no fingerprint, no problem. A path that comes again is read once.
    cache
        From :func:`medtool.split.duplicates.cache.cache_path`; None keeps nothing.
    workers
        Processes; 0 is automatic, which is threads for few images, and for JPEG files where there are few processors.
    cluster
        Address of a Dask scheduler that does the work instead.
    steps
        Shows the progress, such as :func:`medtool.cli.console.steps`.
    """
    places: dict[Path, list[int]] = {}
    for place, path in enumerate(paths):
        if path is not None:
            places.setdefault(path, []).append(place)
    todo = list(places)
    found = Fingerprints.empty(len(paths))
    kept = Cache(cache)
    show = steps or _unseen
    crew = _Crew(kept.prefixes, cluster is not None or len(todo) > _MOST_KEPT, workers, cluster)
    try:
        with show(len(todo), "Fingerprints") as bar:
            for path, answer in crew.answers(todo):
                made = _kept_or_made(path, answer, kept)
                for place in places[path]:
                    if isinstance(made, str):
                        found.problems[place] = made
                    else:
                        found.put(place, made)
                bar.advance()
    finally:
        kept.close()
    found.cache_notes.extend(kept.notes)
    return found


@dataclass(frozen=True, slots=True)
class _Hash:
    """The hash of a file whose fingerprint should be in the cache."""

    sha256: str


@dataclass(frozen=True, slots=True)
class _Left:
    """A file that is left to processes."""


_LEFT = _Left()
_Answer = Fingerprint | _Hash | _Left | str


@dataclass(frozen=True)
class _Crew:
    """Who makes fingerprints."""

    known: npt.NDArray[np.uint64]
    is_lean: bool
    workers: int
    cluster: str | None

    def answers(self, paths: Sequence[Path]) -> Iterator[tuple[Path, _Answer]]:
        """Yield each path with its answer, in no order."""
        is_free = self.workers == 0 and self.cluster is None
        if is_free and len(paths) > _FEW and have_few_processors():
            left = []
            for path, answer in self._by_threads(paths, are_jpegs_only=True):
                if isinstance(answer, _Left):
                    left.append(path)
                else:
                    yield path, answer
            paths = left
        if is_free and len(paths) <= _FEW:
            yield from self._by_threads(paths)
        else:
            yield from self._by_processes(paths)

    def _by_threads(self, paths: Sequence[Path], *, are_jpegs_only: bool = False) -> Iterator[tuple[Path, _Answer]]:
        batches = _batches(paths)
        work = partial(_batch, is_lean=self.is_lean, are_jpegs_only=are_jpegs_only)
        count = choose_workers(0, items=len(batches))
        for outcome in map_in_threads(work, batches, setup=partial(_known, self.known), threads=count):
            yield from zip(batches[outcome.index], outcome.get(), strict=True)

    def _by_processes(self, paths: Sequence[Path]) -> Iterator[tuple[Path, _Answer]]:
        batches = _batches(paths)
        work = partial(_batch, is_lean=self.is_lean)
        setup = partial(_known, self.known)
        count = choose_workers(self.workers, items=len(batches))
        for outcome in map_unordered(work, batches, setup=setup, workers=count, cluster=self.cluster):
            batch = batches[outcome.index]
            yield from zip(batch, _answers(outcome, batch), strict=True)


def _batches(paths: Sequence[Path]) -> list[list[Path]]:
    return [list(paths[start : start + _BATCH]) for start in range(0, len(paths), _BATCH)]


def _known(prefixes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return prefixes


def _batch(
    known: npt.NDArray[np.uint64], paths: list[Path], *, is_lean: bool = False, are_jpegs_only: bool = False
) -> list[_Answer]:
    """Return, for each path, its fingerprint, its hash if that is all that is needed, or why it cannot be read.

    Parameters
    ----------
    is_lean
        Without the small pictures.
    are_jpegs_only
        Files of other formats are left: their decoders may end the process that they run in.
    """
    read = [
        _LEFT if are_jpegs_only and not _is_named_jpeg(path) else _answer(known, path, are_jpegs_only) for path in paths
    ]
    answers = _completed(read)
    return [replace(one, small=None) if is_lean and isinstance(one, Fingerprint) else one for one in answers]


def _is_named_jpeg(path: Path) -> bool:
    return path.suffix.lower() in _JPEG_NAMES


def _completed(answers: list[_Answer | Draft]) -> list[_Answer]:
    """Return the answers with fingerprints in the place of drafts."""
    drafts = [one for one in answers if isinstance(one, Draft)]
    try:
        made: list[_Answer] = [*completed(drafts)]
    except Exception:  # not enough memory: by one
        made = [_one_completed(draft) for draft in drafts]
    rest = iter(made)
    return [next(rest) if isinstance(one, Draft) else one for one in answers]


def _one_completed(draft: Draft) -> _Answer:
    try:
        return completed([draft])[0]
    except Exception as error:
        return reason_of(error)


def _answer(known: npt.NDArray[np.uint64], path: Path, is_jpeg_only: bool = False) -> _Answer | Draft:
    try:
        data = read_bytes(path)
        if is_jpeg_only and not data.startswith(_JPEG):
            return _LEFT
        sha256 = hashlib.sha256(data).hexdigest()
        prefix = np.uint64(prefix_of(sha256))
        place = np.searchsorted(known, prefix)
        if place < len(known) and known[place] == prefix:
            return _Hash(sha256)
        return draft_of(data, sha256=sha256)
    except Exception as error:
        return reason_of(error)


def _answers(outcome: Outcome[list[_Answer]], batch: list[Path]) -> list[_Answer]:
    """Return the answers of a batch; where it took its worker with it, each of its images is tried on its own."""
    if not isinstance(outcome.error, WorkerDiedError):
        return outcome.get()
    answers: list[_Answer] = []
    for path in batch:
        (alone,) = map_unordered(_batch, [[path]], setup=partial(_known, np.empty(0, np.uint64)), workers=2)
        answers += alone.get() if alone.error is None else [reason_of(alone.error)]
    return answers


def _kept_or_made(path: Path, answer: _Answer, kept: Cache) -> Fingerprint | str:
    assert not isinstance(answer, _Left)
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Fingerprint):
        kept.add(answer)
        return answer
    found = kept.find(answer.sha256)
    if found is not None:
        return found
    # Another file's hash begins with the same eight bytes.
    (made,) = _batch(np.empty(0, np.uint64), [path])
    return made if isinstance(made, str) else _kept_or_made(path, made, kept)


@contextlib.contextmanager
def _unseen(total: int, label: str) -> Iterator[Steps]:
    yield _NoSteps()


class _NoSteps:
    def advance(self, label: str = "") -> None:
        """Show nothing."""

"""All pairs of images that show the same picture: equal bytes, equal pixels, then likely pairs and a look at each."""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from medtool.errors import MedtoolError, reason_of
from medtool.parallel import WorkerDiedError, choose_workers, map_unordered
from medtool.protocols import Steps
from medtool.split.duplicates.candidates import LEAST_CONTRAST, Candidates, candidate_pairs, contrast_of
from medtool.split.duplicates.fingerprints import Fingerprints, ShowSteps, fingerprints_of
from medtool.split.duplicates.links import Links
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.duplicates.small import SmallPicture
from medtool.split.duplicates.threads import have_few_processors, map_in_threads
from medtool.split.duplicates.verification import Picture, Verdict, picture_of, pixel_digest, verify

_BATCH: Final = 16
_FEW: Final = 200  # pairs: to start processes for so many takes longer than they save
_JPEG: Final = "JPEG"  # as fingerprints name it
_PICTURES_KEPT: Final = 128  # by each worker, about 150 kB each

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Context = TypeVar("Context")


def find_duplicates(
    paths: Sequence[Path | None],
    *,
    cache: Path | None,
    workers: int = 0,
    cluster: str | None = None,
    steps: ShowSteps | None = None,
) -> Duplicates:
    """Return which images show the same picture, byte for byte, pixel for pixel, or altered.

    The result depends on the files and their order alone, not on the workers. Of many copies of one picture not every
    pair is looked at, but so many that they are linked.

    Parameters
    ----------
    paths
        None is an image that is not there.
    cache
        From :func:`medtool.split.duplicates.cache.cache_path`; None keeps no fingerprints.
    workers
        Processes; 0 is automatic, which is threads for few images.
    cluster
        Address of a Dask scheduler that does the work instead.
    steps
        Shows the progress, such as :func:`medtool.cli.console.steps`.
    """
    fingerprints = fingerprints_of(paths, cache=cache, workers=workers, cluster=cluster, steps=steps)
    candidates = candidate_pairs(fingerprints)
    crew = _Crew(workers, cluster, steps or _unseen)
    found = _Found()
    likely = _likely_pairs(candidates, paths)
    likely = _without_equal_bytes(likely, fingerprints, found)
    likely = _without_equal_pixels(likely, fingerprints, found, crew)
    # Pairs that link new images first; what these link already is then left out, so that many copies cost little.
    trial = found.links.copy()
    is_new = [trial.join(pair.first, pair.second) for pair in likely]
    _look([pair for pair, new in zip(likely, is_new, strict=True) if new], fingerprints, found, crew)
    _look(
        [
            pair
            for pair, new in zip(likely, is_new, strict=True)
            if not new and not found.links.are_linked(pair.first, pair.second)
        ],
        fingerprints,
        found,
        crew,
    )
    fingerprints.small.clear()
    pairs = sorted(found.pairs, key=lambda pair: (pair.first, pair.second))
    problems = {**found.problems, **fingerprints.problems}
    notes = (*fingerprints.cache_notes, *_notes_on_pages(fingerprints), *candidates.notes, *found.notes)
    return Duplicates(tuple(pairs), fingerprints, dict(sorted(problems.items())), notes)


@dataclass(frozen=True, slots=True)
class _Likely:
    """A pair to look at; the fields are those of :class:`Candidates` and of :func:`verify`."""

    first: int
    second: int
    first_path: Path
    second_path: Path
    orientation: int
    cut: tuple[float, float, float, float]
    is_second_larger: bool
    may_be_equal: bool = True


@dataclass(frozen=True, slots=True)
class _Unread:
    """Why an image could not be read, and its place."""

    place: int
    reason: str


class _Found:
    """What the search knows so far."""

    def __init__(self) -> None:
        self.pairs: list[DuplicatePair] = []
        self.links = Links()
        self.problems: dict[int, str] = {}
        self.notes: list[str] = []

    def add(self, first: int, second: int, verdict: Verdict | None) -> None:
        """Take a pair; no verdict stands for equal bytes."""
        self.links.join(first, second)
        if verdict is None:
            self.pairs.append(DuplicatePair(first, second, Kind.BYTES, 1.0, ""))
        else:
            self.pairs.append(
                DuplicatePair(first, second, verdict.kind, verdict.similarity, verdict.alteration, verdict.back)
            )


@dataclass(frozen=True)
class _Crew:
    """Who does the work."""

    workers: int
    cluster: str | None
    show: ShowSteps

    def is_for_threads(self, items: Sequence[object], *, are_jpegs: bool) -> bool:
        """Tell whether these are best done by threads: those end before processes would have started."""
        if self.workers or self.cluster is not None:
            return False
        return len(items) <= _FEW or (are_jpegs and have_few_processors())

    def answers(
        self,
        function: Callable[[Context, list[Item]], list[Answer]],
        items: Sequence[Item],
        *,
        setup: Callable[[], Context],
        label: str,
        are_jpegs: bool = False,
    ) -> Iterator[tuple[Item, Answer | BaseException]]:
        """Yield each item with its answer, or with the error of whoever was at work on it, in no order.

        Parameters
        ----------
        are_jpegs
            All files that are opened for it are JPEG files.
        """
        batches = [list(items[start : start + _BATCH]) for start in range(0, len(items), _BATCH)]
        count = choose_workers(self.workers, items=len(batches))
        with self.show(len(items), label) as bar:
            if self.is_for_threads(items, are_jpegs=are_jpegs):
                outcomes = map_in_threads(function, batches, setup=setup, threads=count)
            else:
                outcomes = map_unordered(function, batches, setup=setup, workers=count, cluster=self.cluster)
            for outcome in outcomes:
                batch = batches[outcome.index]
                given: Sequence[Answer | BaseException]
                if isinstance(outcome.error, WorkerDiedError):
                    alone = _one_by_one(function, batch, setup)
                    given = alone
                else:
                    given = outcome.get()
                for item, answer in zip(batch, given, strict=True):
                    bar.advance()
                    yield item, answer


def _one_by_one(
    function: Callable[[Context, list[Item]], list[Answer]], batch: list[Item], setup: Callable[[], Context]
) -> list[Answer | BaseException]:
    """Return the answers of a batch of which one item took its worker with it; for that item, the error."""
    outcomes = map_unordered(function, [[item] for item in batch], setup=setup, workers=2)
    given = {outcome.index: outcome.error or outcome.get()[0] for outcome in outcomes}
    return [given[index] for index in range(len(batch))]


def _likely_pairs(candidates: Candidates, paths: Sequence[Path | None]) -> list[_Likely]:
    pairs = []
    for row in range(len(candidates)):
        first, second = int(candidates.first[row]), int(candidates.second[row])
        first_path, second_path = paths[first], paths[second]
        if first_path is None or second_path is None:
            continue
        top, bottom, left, right = candidates.cut[row].tolist()
        pairs.append(
            _Likely(
                first,
                second,
                first_path,
                second_path,
                int(candidates.orientation[row]),
                (top, bottom, left, right),
                bool(candidates.is_second_larger[row]),
            )
        )
    return pairs


def _without_equal_bytes(pairs: list[_Likely], fingerprints: Fingerprints, found: _Found) -> list[_Likely]:
    """Report the pairs of equal bytes, and return the others."""
    left = []
    for pair in pairs:
        if fingerprints.sha256[pair.first] == fingerprints.sha256[pair.second]:
            found.add(pair.first, pair.second, None)
        else:
            left.append(pair)
    return left


def _without_equal_pixels(
    pairs: list[_Likely], fingerprints: Fingerprints, found: _Found, crew: _Crew
) -> list[_Likely]:
    """Report images of equal fingerprints that have equal pixels, and return the pairs still to be looked at.

    Images of nearly one tone have nothing to be recognised by: of them nothing is left to look at.
    """
    spectra = fingerprints.spectra
    is_flat = contrast_of(spectra) < LEAST_CONTRAST
    sizes, colours = fingerprints.sizes, fingerprints.colours
    twins: dict[int, Path] = {}
    left = []
    for pair in pairs:
        one, other = pair.first, pair.second
        are_flat = bool(is_flat[one] and is_flat[other])
        if (
            (sizes[one] == sizes[other]).all()
            and (colours[one] == colours[other]).all()
            and (are_flat or (spectra[one] == spectra[other]).all())
        ):
            twins[one], twins[other] = pair.first_path, pair.second_path
        if not are_flat:
            left.append(pair)
    by_digest: dict[bytes, list[int]] = {}
    are_jpegs = all(fingerprints.formats[place] == _JPEG for place in twins)
    for (place, _), answer in crew.answers(
        _digests, sorted(twins.items()), setup=_nothing, label="Equal pixels", are_jpegs=are_jpegs
    ):
        if isinstance(answer, bytes):
            by_digest.setdefault(answer, []).append(place)
        else:
            found.problems[place] = answer.reason if isinstance(answer, _Unread) else reason_of(answer)
    for places in by_digest.values():
        places.sort()
        for one, other in itertools.pairwise(places):
            found.add(one, other, Verdict(Kind.PIXELS, 1.0, ""))
    return [
        replace(pair, may_be_equal=not (pair.first in twins and pair.second in twins))
        for pair in left
        if not found.links.are_linked(pair.first, pair.second)
    ]


def _look(pairs: list[_Likely], fingerprints: Fingerprints, found: _Found, crew: _Crew) -> None:
    """Compare pairs on pixels and report those that show the same picture."""
    small, formats = fingerprints.small, fingerprints.formats
    are_jpegs = all(formats[place] == _JPEG for pair in pairs for place in (pair.first, pair.second))
    # Ordered by the first image, so that what was read of it serves for several pairs.
    ordered = sorted(pairs, key=lambda pair: (pair.first, pair.second))
    tasks = [_Task(pair, small.get(pair.first), small.get(pair.second)) for pair in ordered]
    for task, answer in crew.answers(_verdicts, tasks, setup=_Pictures, label="Likely duplicates", are_jpegs=are_jpegs):
        pair = task.pair
        if isinstance(answer, Verdict):
            found.add(pair.first, pair.second, answer)
        elif isinstance(answer, _Unread):
            found.problems[answer.place] = answer.reason
        elif answer is not None:
            found.notes.append(
                f"{pair.first_path.name} and {pair.second_path.name} were not compared: {reason_of(answer)}"
            )
    found.notes.sort()


@dataclass(frozen=True, slots=True)
class _Task:
    """A pair to look at, and what was read of its images before."""

    pair: _Likely
    first: SmallPicture | None
    second: SmallPicture | None


class _Pictures:
    """The pictures that a worker made last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, Picture] = OrderedDict()

    def get(self, path: Path, small: SmallPicture | None) -> Picture:
        picture = self._kept.pop(path, None) or picture_of(path, small=small)
        self._kept[path] = picture
        while len(self._kept) > _PICTURES_KEPT:
            self._kept.popitem(last=False)
        return picture


def _nothing() -> None:
    return None


def _digests(_: None, items: list[tuple[int, Path]]) -> list[bytes | _Unread]:
    answers: list[bytes | _Unread] = []
    for place, path in items:
        try:
            answers.append(pixel_digest(path))
        except (MedtoolError, OSError, MemoryError) as error:
            answers.append(_Unread(place, reason_of(error)))
    return answers


def _verdicts(pictures: _Pictures, tasks: list[_Task]) -> list[Verdict | _Unread | None]:
    return [_verdict(pictures, task) for task in tasks]


def _verdict(pictures: _Pictures, task: _Task) -> Verdict | _Unread | None:
    pair = task.pair
    place = pair.first
    try:
        first = pictures.get(pair.first_path, task.first)
        place = pair.second
        second = pictures.get(pair.second_path, task.second)
        return verify(
            first,
            second,
            pair.orientation,
            cut=pair.cut,
            is_second_larger=pair.is_second_larger,
            may_be_equal=pair.may_be_equal,
        )
    except (MedtoolError, OSError, MemoryError) as error:
        return _Unread(place, reason_of(error))


def _notes_on_pages(fingerprints: Fingerprints) -> list[str]:
    if not fingerprints.notes:
        return []
    return [f"{len(fingerprints.notes):,} files hold several pages or volumes: only their bytes were compared"]


@contextlib.contextmanager
def _unseen(total: int, label: str) -> Iterator[Steps]:
    yield _NoSteps()


class _NoSteps:
    def advance(self, label: str = "") -> None:
        """Show nothing."""

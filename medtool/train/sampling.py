"""In which order an epoch shows its images, and how often each.

An order follows from seed and epoch alone, by a hash that is the same on every machine and for every release of numpy;
a training that was stopped goes on with the order it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medtool.errors import InputError, UsageError
from medtool.train.choices import Sampling

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_SHUFFLE, _ROUNDS = 1, 2  # keep the numbers of one purpose apart from the other's


def epoch_order(labels: Sequence[int], patients: Sequence[str], *, sampling: Sampling, seed: int, epoch: int) -> Ints:
    """Return the images of one epoch, in order; as many as there are images.

    With the balanced ways, classes (or patients) take turns, and the turns go on from epoch to epoch, as do the rounds
    through each class's images: in any number of epochs two classes differ by one image at most, and so do two images
    of one class. So the images of a large class that one epoch leaves out are first in line in the next.

    Parameters
    ----------
    labels
        Class of each image.
    patients
        Patient of each image; blank is unknown, and such an image counts as a patient of its own.
    sampling
        What is shown equally often.
    seed
        Another seed, another order.
    epoch
        0 or more.

    Returns
    -------
    array
        Shape ``(n,)``, int64, places in ``labels``; a permutation where sampling is natural.

    Raises
    ------
    InputError
        If there is no image, or labels and patients are not equally many.
    UsageError
        If ``epoch`` is negative.
    """
    n = len(labels)
    if n != len(patients):
        raise InputError(f"there are {n} labels and {len(patients)} patients; each image has one of both")
    if not n:
        raise InputError("there is no image to train on")
    if epoch < 0:
        raise UsageError(f"the epoch is {epoch}; it must be 0 or more")
    shown = np.arange(n)
    if sampling is Sampling.BALANCED:
        shown = _in_turns(np.unique(np.asarray(labels), return_inverse=True)[1], seed=seed, epoch=epoch)
    elif sampling is Sampling.PATIENT_BALANCED:
        shown = _in_turns(_patient_numbers(patients), seed=seed, epoch=epoch)
    return shown[np.argsort(_hashed(_SHUFFLE, seed, epoch, np.arange(n)), kind="stable")]


def _patient_numbers(patients: Sequence[str]) -> Ints:
    numbers: dict[object, int] = {}
    for place, patient in enumerate(patients):
        numbers.setdefault(patient.strip() or place, len(numbers))
    return np.array([numbers[patient.strip() or place] for place, patient in enumerate(patients)], dtype=np.int64)


def _in_turns(groups: Ints, *, seed: int, epoch: int) -> Ints:
    """Return one epoch's images where groups take turns.

    Think of all epochs as one row of turns: turn s belongs to group s mod G and is its (s div G)-th. A group of m
    images spends m turns on one round through them, each round in an order of its own.

    Parameters
    ----------
    groups
        Shape ``(n,)``, the group of each image, 0 to G − 1, none empty.
    """
    n = len(groups)
    members = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    turns = np.arange(epoch * n, (epoch + 1) * n, dtype=np.int64)
    # Who comes first in a turn is drawn too, or the first groups would be favoured where there are more than turns.
    line = np.argsort(_hashed(_ROUNDS, seed, -1, np.arange(len(sizes))), kind="stable")
    group, rank = line[turns % len(sizes)], turns // len(sizes)
    round_, place = np.divmod(rank, sizes[group])
    rounds, which = np.unique(np.stack([group, round_], axis=1), axis=0, return_inverse=True)
    which = which.reshape(-1)
    # All rounds that the epoch touches, one after the other, each with its group's images in a drawn order.
    lengths = sizes[rounds[:, 0]]
    begins = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(len(rounds)), lengths)
    image = members[starts[rounds[row, 0]] + np.arange(len(row)) - begins[row]]
    drawn = np.lexsort((_hashed(_ROUNDS, seed, rounds[row, 1], image), row))
    shown: Ints = image[drawn[begins[which] + place]]
    return shown


def _hashed(*numbers: int | Ints) -> Words:
    """Return a 64-bit hash of whole numbers, broadcast against one another (chained splitmix64)."""
    state = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        word = np.array([number % (1 << 64)], dtype=np.uint64) if isinstance(number, int) else number.astype(np.uint64)
        state = _mixed(state ^ word)
    return state


def _mixed(words: Words) -> Words:
    """Return splitmix64's next number after each state; arrays of unsigned numbers wrap around by definition.

    References
    ----------
    Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
    """
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))

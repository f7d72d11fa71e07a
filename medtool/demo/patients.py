"""Who the phantoms belong to: patients with a site, a label and metadata, the same for every number of images.

Sites and labels are balanced within every four patients, so that the site never tells the label. Age, sex and the site
on the body go with the label, as they do in clinics, and do not settle it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from medtool.demo.noise import generator
from medtool.demo.options import Kind

SITES = ("A", "B")
LABELS: Mapping[Kind, tuple[str, str]] = {
    Kind.LESION: ("benign", "malignant"),
    Kind.TISSUE: ("benign", "malignant"),
    Kind.XRAY: ("normal", "opacity"),
}

_KEYS: Mapping[Kind, int] = {Kind.LESION: 1, Kind.TISSUE: 2, Kind.XRAY: 3}

_AGES: Mapping[Kind, tuple[float, float]] = {Kind.LESION: (47, 58), Kind.TISSUE: (50, 60), Kind.XRAY: (52, 61)}
_MALE: Mapping[Kind, tuple[float, float]] = {Kind.LESION: (0.45, 0.60), Kind.TISSUE: (0.0, 0.0), Kind.XRAY: (0.5, 0.58)}
_PLACES: Mapping[Kind, tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]] = {
    Kind.LESION: (
        ("back", "trunk", "lower extremity", "upper extremity", "abdomen", "face"),
        (0.20, 0.24, 0.24, 0.14, 0.13, 0.05),
        (0.32, 0.17, 0.15, 0.18, 0.05, 0.13),
    ),
    Kind.TISSUE: (
        ("left breast", "right breast"),
        (0.5, 0.5),
        (0.5, 0.5),
    ),
    Kind.XRAY: (("chest",), (1.0,), (1.0,)),
}


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient of a demo.

    Attributes
    ----------
    number
        From 0; :attr:`name` counts from 1.
    is_positive
        Whether the label is the second of :data:`LABELS`.
    visits
        How many pictures are taken (lesions, chests), or fields of view (tissue).
    """

    kind: Kind
    seed: int
    number: int
    site: str
    is_positive: bool
    age: int
    sex: str
    localization: str
    visits: int

    @property
    def name(self) -> str:
        """The patient's identifier, as in P0012."""
        return f"P{self.number + 1:04d}"

    @property
    def label(self) -> str:
        """The class."""
        return LABELS[self.kind][int(self.is_positive)]

    def stream(self, *key: int) -> np.random.Generator:
        """Return a random stream of this patient; ``key`` tells its streams apart."""
        return generator(self.seed, _KEYS[self.kind], self.number, 1, *key)


def patients(kind: Kind, seed: int) -> Iterator[Patient]:
    """Yield the endless list of patients of this kind and seed."""
    number = 0
    while True:
        order = generator(seed, _KEYS[kind], number, 0).permutation(4)
        for combination in order:
            yield _patient(kind, seed, number, site=SITES[combination % 2], is_positive=bool(combination // 2))
            number += 1


def _patient(kind: Kind, seed: int, number: int, *, site: str, is_positive: bool) -> Patient:
    rng = generator(seed, _KEYS[kind], number, 2)
    row = int(is_positive)
    places, *weights = _PLACES[kind]
    return Patient(
        kind=kind,
        seed=seed,
        number=number,
        site=site,
        is_positive=is_positive,
        age=int(np.clip(np.rint(rng.normal(_AGES[kind][row], 15.0)), 18, 90)),
        sex="male" if rng.random() < _MALE[kind][row] else "female",
        localization=places[int(rng.choice(len(places), p=weights[row]))],
        visits=int(rng.integers(1, 3)) if kind is Kind.TISSUE else int(rng.integers(2, 5)),
    )

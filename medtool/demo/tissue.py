"""Breast tissue stained with haematoxylin and eosin, drawn at four magnifications, with exact class masks.

A field of view is a list of glands, nuclei and fibres in micrometres; each magnification draws the same list, centred
on the same place. The label lies in architecture and nuclei. Benign: round glands with open lumens, lined by one or two
even rows of small, alike nuclei. Malignant: ragged, solid, slit-like or cribriform nests, and large nuclei of unlike
sizes in no order, pale inside, with nucleoli. How much of either stain a picture holds, lymphocytes, fat and how
densely glands lie are drawn without looking at the label.

Colours are mixed in optical density: Ruifrok and Johnston, "Quantification of histochemical staining by color
deconvolution", Anal Quant Cytol Histol 23 (2001).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from medtool.demo.cells import Gland, Nuclei, View, draw_glands, draw_nuclei, lining, scattered
from medtool.demo.noise import Field, Lattice, smooth_noise, smoothstep
from medtool.demo.patients import Patient
from medtool.demo.phantom import Case, Phantom, to_bytes

MAGNIFICATIONS = (40, 100, 200, 400)
CLASSES = ("background", "stroma", "epithelium", "nucleus of epithelium", "other nucleus")

_BACKGROUND, _STROMA, _EPITHELIUM, _NUCLEUS, _OTHER_NUCLEUS = range(5)
_REACH_UM = 560.0  # half the side of the square that a field of view is filled in; the widest picture shows less
_STREAMS = {"stain": 10, "field": 11, "photo": 12}


@dataclass(frozen=True, slots=True, eq=False)
class _Microscope:
    """One site's scanner and stain."""

    shape: tuple[int, int]
    pixel_um: float  # at 400
    haematoxylin: Field
    eosin: Field
    white: Field
    noise: float


_MICROSCOPES = {
    "A": _Microscope(
        shape=(360, 480),
        pixel_um=0.20,
        haematoxylin=np.array([0.65, 0.70, 0.29]),
        eosin=np.array([0.09, 0.95, 0.30]),
        white=np.array([0.95, 0.94, 0.95]),
        noise=0.008,
    ),
    "B": _Microscope(
        shape=(384, 384),
        pixel_um=0.22,
        haematoxylin=np.array([0.75, 0.62, 0.22]),
        eosin=np.array([0.05, 0.80, 0.45]),
        white=np.array([0.93, 0.90, 0.85]),
        noise=0.013,
    ),
}


def cases(patient: Patient) -> Iterator[Case]:
    """Yield every field of view of one patient at every magnification."""
    for visit in range(patient.visits):
        for magnification in MAGNIFICATIONS:
            yield Case(
                patient=patient,
                name=f"{patient.name}_{visit + 1}_{magnification:03d}x",
                keys={"field": visit, "magnification": magnification},
                columns={"magnification": str(magnification), "field": f"{patient.name}_F{visit + 1}"},
            )


def draw(patient: Patient, *, field: int, magnification: int) -> Phantom:
    """Draw one field of view, counted from 0, at one of :data:`MAGNIFICATIONS`."""
    microscope = _MICROSCOPES[patient.site]
    scene = patient.stream(_STREAMS["field"], field)
    photo = patient.stream(_STREAMS["photo"], field, magnification)
    stain = patient.stream(_STREAMS["stain"])

    view = View(microscope.shape, microscope.pixel_um * 400 / magnification)
    glands = _glands(scene, is_malignant=patient.is_positive)
    nuclei = _epithelial_nuclei(scene, glands, is_malignant=patient.is_positive)
    fibres = _stroma(scene, view)
    others = _other_nuclei(scene, glands)
    fat = _fat(scene, view)
    grain = Lattice(scene, period=1.3, cells=256).at(view.x, view.y)
    chromatin = Lattice(scene, period=0.9, cells=256).at(view.x, view.y)

    depth, lumen = draw_glands(view, glands)
    # The stroma draws back from glands here and there as the tissue dries, from tumours more.
    cleft = float(scene.uniform(-3.0, 2.5)) + (1.5 if patient.is_positive else 0.0)
    ragged = cleft + 2.5 * Lattice(scene, period=22.0).at(view.x, view.y)
    fat = np.maximum(fat, np.where(depth > 0, -100.0, np.minimum(depth + ragged, ragged)))
    is_gland = depth > 0
    is_lumen = (is_gland & (lumen > 0)) | (~is_gland & (fat > 0))
    classes = np.where(is_lumen, _BACKGROUND, np.where(is_gland, _EPITHELIUM, _STROMA)).astype(np.uint8)

    inside, dark = draw_nuclei(view, nuclei, chromatin)
    shown = (inside > 0) & (classes == _EPITHELIUM)
    inside, dark = np.where(shown, inside, 0.0), np.where(shown, dark, 0.0)
    other_inside, other_dark = draw_nuclei(view, others, chromatin)
    shown = (other_inside > 0) & (classes == _STROMA)
    other_inside, other_dark = np.where(shown, other_inside, 0.0), np.where(shown, other_dark, 0.0)
    classes[inside >= 0.5] = _NUCLEUS
    classes[other_inside >= 0.5] = _OTHER_NUCLEUS

    secretion = float(scene.choice([0.06, 0.20, 0.34])) * (1.0 + 0.3 * Lattice(scene, period=12.0).at(view.x, view.y))
    blue, pink = _concentrations(view, depth, lumen, fat, fibres=fibres, grain=grain, secretion=secretion)
    blue = blue * (1 - np.maximum(inside, other_inside)) + 0.95 * dark + 1.15 * other_dark
    pink = pink * (1 - 0.6 * np.maximum(inside, other_inside))
    return Phantom(pixels=_photograph(stain, photo, microscope, blue, pink), mask=classes)


def _glands(rng: np.random.Generator, *, is_malignant: bool) -> list[Gland]:
    """Return glands that do not touch; the wall of the first passes the centre, so every magnification shows it."""
    spacing = float(rng.uniform(105.0, 165.0))
    glands: list[Gland] = []
    tries = rng.uniform(-_REACH_UM, _REACH_UM, (260, 2))
    towards = rng.uniform(0, 2 * np.pi)
    for number, place in enumerate(tries):
        radius = float(np.exp(rng.normal(np.log((0.25 if is_malignant else 0.29) * spacing), 0.25)))
        own = Gland.irregular(rng, radius) if is_malignant else Gland.regular(rng, radius)
        x, y = float(place[0]), float(place[1])
        if number == 0:
            x, y = 0.8 * radius * np.cos(towards), 0.8 * radius * np.sin(towards)
        if all(np.hypot(x - other.x, y - other.y) > own.reach + other.reach + 4.0 for other in glands):
            glands.append(own.moved(x, y))
    return glands


def _epithelial_nuclei(rng: np.random.Generator, glands: list[Gland], *, is_malignant: bool) -> Nuclei:
    radius = float(rng.uniform(4.1, 5.4)) if is_malignant else float(rng.uniform(2.9, 3.8))
    if is_malignant:
        spacing = 2.0 * radius * float(rng.uniform(0.92, 1.1))
        return scattered(
            rng, glands, radius=radius, spread=0.24, spacing=spacing, paleness=float(rng.uniform(0.2, 0.6))
        )
    return lining(rng, glands, radius=radius, spread=0.09, paleness=float(rng.uniform(0.0, 0.4)))


def _other_nuclei(rng: np.random.Generator, glands: list[Gland]) -> Nuclei:
    """Return spindle-shaped nuclei of fibroblasts, and crowds of small round lymphocytes."""
    count = int(rng.uniform(250, 700))
    places = rng.uniform(-_REACH_UM, _REACH_UM, (count, 2))
    flow = Lattice(rng, period=130.0).at(places[:, 0], places[:, 1])
    fibroblasts = Nuclei.of(
        rng, places, radius=3.6, spread=0.2, stretch=rng.uniform(1.9, 3.0, count), angle=1.2 * flow, paleness=0.1
    )
    crowds = int(rng.integers(0, 7))
    middles = rng.uniform(-_REACH_UM, _REACH_UM, (crowds, 2))
    sizes = rng.integers(20, 140, crowds)
    crowd = (
        np.concatenate(
            [
                middle + rng.standard_normal((size, 2)) * 3.2 * np.sqrt(size)
                for middle, size in zip(middles, sizes, strict=True)
            ]
        )
        if crowds
        else np.zeros((0, 2))
    )
    alone = rng.uniform(-_REACH_UM, _REACH_UM, (int(rng.integers(20, 160)), 2))
    round_places = np.concatenate([crowd, alone])
    angle = rng.uniform(0, np.pi, len(round_places))
    lymphocytes = Nuclei.of(
        rng, round_places, radius=2.9, spread=0.1, stretch=np.full(len(round_places), 1.05), angle=angle, paleness=0.0
    )
    return fibroblasts.joined(lymphocytes)


def _stroma(rng: np.random.Generator, view: View) -> Field:
    """Return the fibres of collagen: bands of three widths, of which a view draws what its pixels can show."""
    bend = 26.0 * Lattice(rng, period=90.0).at(view.x, view.y)
    main = rng.uniform(0, np.pi)
    across = np.cos(main) * view.x + np.sin(main) * view.y + bend
    along = np.cos(main) * view.y - np.sin(main) * view.x
    total = np.zeros_like(across)
    for period in (14.0, 5.0, 1.8):
        weight = float(np.clip(period / (2.0 * view.pixel_um) - 0.5, 0.0, 1.0))
        lattice = Lattice(rng, period=1.0, cells=256)
        if weight > 0:
            total += weight * lattice.at(along / (7.0 * period), across / period)
    return np.asarray(total / 1.7)


def _fat(rng: np.random.Generator, view: View) -> Field:
    """Return how deep each place lies in a fat cell, in micrometres; negative outside. Many fields have none."""
    depth = np.full(view.shape, -100.0)
    patches = int(rng.choice([0, 1, 2, 3], p=[0.45, 0.25, 0.2, 0.1]))
    for _ in range(patches):
        middle = rng.uniform(-_REACH_UM, _REACH_UM, 2)
        for place in middle + rng.standard_normal((int(rng.integers(8, 30)), 2)) * 75.0:
            radius = rng.uniform(18.0, 34.0)
            box = view.box(float(place[0]), float(place[1]), radius + 4.0)
            if box is not None:
                own = radius - np.hypot(view.x[box] - place[0], view.y[box] - place[1])
                np.maximum(depth[box], own, out=depth[box])
    return depth


def _concentrations(
    view: View, depth: Field, lumen: Field, fat: Field, *, fibres: Field, grain: Field, secretion: Field
) -> tuple[Field, Field]:
    """Return how much haematoxylin and eosin each place holds beside its nuclei."""
    edge = max(0.7, 0.7 * view.pixel_um)
    cells = smoothstep(depth, -edge, edge)
    holes = np.maximum(cells * smoothstep(lumen, -edge, edge), (1 - cells) * smoothstep(fat, -edge, edge))
    gap = (1 - cells) * (1 - smoothstep(-depth, 0.0, 3.0)) * 0.5
    pink = cells * (0.44 + 0.10 * grain) + (1 - cells) * np.clip(0.66 + 0.30 * fibres, 0.10, None) * (1 - gap)
    blue = cells * (0.36 + 0.08 * grain) + (1 - cells) * np.clip(0.10 + 0.05 * fibres, 0.0, None)
    return blue * (1 - holes) + 0.01 * holes, np.clip(pink, 0.0, None) * (1 - holes) + np.where(
        cells > 0.5, secretion, 0.02
    ) * holes


def _photograph(
    stain: np.random.Generator, photo: np.random.Generator, microscope: _Microscope, blue: Field, pink: Field
) -> npt.NDArray[np.uint8]:
    """Mix the stains, light and photograph."""
    blue, pink = (
        _stained(field, stain, photo, mean=mean, spread=spread)
        for field, mean, spread in ((blue, 0.34, 0.28), (pink, 0.37, 0.19))
    )
    vectors = np.stack([microscope.haematoxylin, microscope.eosin]) * np.exp(stain.normal(0, 0.05, (2, 3)))
    density = blue[..., None] * vectors[0] + pink[..., None] * vectors[1]
    light = 1.0 + 0.02 * smooth_noise(photo, microscope.shape, period_px=300.0)
    picture = microscope.white * np.exp(photo.normal(0, 0.015, 3)) * np.exp(-density) * light[..., None]
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(photo.uniform(0.5, 0.95))), np.float64)
    return to_bytes(picture + photo.standard_normal(picture.shape) * microscope.noise)


def _stained(
    field: Field, stain: np.random.Generator, photo: np.random.Generator, *, mean: float, spread: float
) -> Field:
    """Return a stain's field with a mean and a spread that go with the slide, not with what is on it."""
    mean *= float(np.exp(stain.normal(0.0, 0.18) + photo.normal(0.0, 0.12)))
    spread *= float(np.exp(stain.normal(0.0, 0.12) + photo.normal(0.0, 0.10)))
    contrast = float(np.clip(spread / max(float(field.std()), 1e-6), 0.5, 2.0))
    return np.asarray(np.clip(mean + contrast * (field - field.mean()), 0.0, None))

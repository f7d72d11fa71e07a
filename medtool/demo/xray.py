"""Chest radiographs: 16-bit grey, lungs, ribs, heart and vessels, with exact masks of the opacity.

The picture is a sum of path lengths: every part of the body adds to what the beam passes through. An opacity is a
patchy, soft-edged thickening in one lung; where and how large it is varies, and it is about as dense as what normal
chests hold too: breasts, the heart, crossing ribs and vessels, the diaphragm, tubes and electrodes. Exposure and the
patient's thickness are drawn without looking at the label, so neither brightness nor a threshold finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medtool.demo.noise import Field, Mask, octaves, smooth_noise, smoothstep
from medtool.demo.patients import Patient
from medtool.demo.phantom import Case, Phantom

_STREAMS = {"body": 10, "opacity": 11, "photo": 12}
_SIDE = 384
_SHIFT = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Detector:
    """One site's detector.

    Attributes
    ----------
    bits
        Of the numbers that it gives; they are stored as they are, in 16 bits.
    contrast
        Of the displayed curve.
    collimated
        How often the field is narrower than the detector.
    marker
        The side marker's text, burnt into the picture.
    """

    bits: int
    contrast: float
    noise: float
    collimated: float
    marker: str


_DETECTORS = {
    "A": _Detector(bits=12, contrast=1.0, noise=0.006, collimated=0.2, marker="L"),
    "B": _Detector(bits=14, contrast=1.25, noise=0.011, collimated=0.5, marker="R"),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Body:
    """One patient's chest; lengths are fractions of the picture's side."""

    lung_width: float
    lung_height: float
    apart: float
    heart: float
    ribs: float
    rib_slope: float
    soft: float
    breasts: float
    skew: float

    @classmethod
    def of_patient(cls, rng: np.random.Generator) -> _Body:
        return cls(
            lung_width=float(rng.uniform(0.145, 0.18)),
            lung_height=float(rng.uniform(0.30, 0.37)),
            apart=float(rng.uniform(0.195, 0.23)),
            heart=float(rng.uniform(0.10, 0.155)),
            ribs=float(rng.uniform(0.055, 0.072)),
            rib_slope=float(rng.uniform(0.25, 0.6)),
            soft=float(rng.uniform(0.8, 1.25)),
            breasts=float(rng.uniform(0.0, 0.22)) if rng.random() < 0.6 else 0.0,
            skew=float(rng.normal(0.0, 0.02)),
        )


def cases(patient: Patient) -> Iterator[Case]:
    """Yield the radiographs of one patient."""
    for visit in range(patient.visits):
        yield Case(patient=patient, name=f"{patient.name}_{visit + 1}", keys={"photo": visit}, columns={"view": "PA"})


def draw(patient: Patient, *, photo: int) -> Phantom:
    """Draw one radiograph, counted from 0."""
    body = _Body.of_patient(patient.stream(_STREAMS["body"]))
    rng = patient.stream(_STREAMS["photo"], photo)
    detector = _DETECTORS[patient.site]
    x, y = _pose(rng)

    lungs, depth = _lungs(patient.stream(_STREAMS["body"], 1), body, x, y)
    thickness = _soft_parts(rng, body, x, y, lungs)
    thickness = thickness + _bones(patient.stream(_STREAMS["body"], 2), body, x, y)
    thickness = thickness + _vessels(patient.stream(_STREAMS["body"], 3), body, x, y, lungs)
    mask = np.zeros((_SIDE, _SIDE), dtype=bool)
    if patient.is_positive:
        mask, opacity = _opacity(patient.stream(_STREAMS["opacity"], photo), lungs, depth)
        thickness = thickness + opacity
    thickness = thickness + _devices(rng, x, y)
    pixels = _expose(rng, detector, thickness)
    return Phantom(pixels=pixels, mask=np.where(mask, 255, 0).astype(np.uint8))


def _pose(rng: np.random.Generator) -> tuple[Field, Field]:
    """Return body coordinates of every pixel: the spine is x = 0, the middle of the lungs y = 0, down is positive."""
    rows, columns = np.mgrid[:_SIDE, :_SIDE].astype(np.float64) / _SIDE - 0.5
    angle, zoom = rng.normal(0.0, 0.03), float(np.exp(rng.normal(0.0, 0.05)))
    columns, rows = (columns - rng.normal(0, 0.018)) / zoom, (rows + 0.03 - rng.normal(0, 0.02)) / zoom
    bend = 0.006 * octaves(rng, (_SIDE, _SIDE), coarse_px=150, count=2, gain=0.5)
    return np.cos(angle) * columns + np.sin(angle) * rows + bend, np.cos(angle) * rows - np.sin(angle) * columns - bend


def _lungs(rng: np.random.Generator, body: _Body, x: Field, y: Field) -> tuple[Field, Field]:
    """Return how much air the beam meets, 0 to 1, and how deep each place lies in a lung, as a fraction of the side."""
    depth = np.full_like(x, -1.0)
    for side in (-1.0, 1.0):
        dome = 0.62 * body.lung_height + (0.03 if side < 0 else 0.0) + rng.normal(0, 0.008)
        u = (x - side * body.apart) * side
        top = smoothstep(-y, 0.0, body.lung_height)
        narrow = body.lung_width * (1.0 - 0.42 * top**1.5)
        centre = -0.035 * top
        wall = narrow - np.abs(u - centre)
        above = body.lung_height - np.hypot(np.maximum(-y, 0.0), 0.35 * (u - centre))
        diaphragm = dome - 0.05 + 0.75 * (u + 0.01) ** 2 / body.lung_width + 0.22 * u - y
        own = _smooth_minimum(_smooth_minimum(wall, above, 0.04), diaphragm, 0.015)
        if side > 0:
            heart_edge = np.hypot((u + body.apart - 0.05) / 1.1, (y - 0.13) / 1.15) - body.heart
            own = _smooth_minimum(own, heart_edge, 0.02)
        depth = np.maximum(depth, own)
    return smoothstep(depth, -0.004, 0.05), depth


def _smooth_minimum(a: Field, b: Field, width: float) -> Field:
    share = np.clip(0.5 + 0.5 * (b - a) / width, 0.0, 1.0)
    return np.asarray(b * (1 - share) + a * share - width * share * (1 - share))


def _soft_parts(rng: np.random.Generator, body: _Body, x: Field, y: Field, lungs: Field) -> Field:
    """Return the thickness of trunk, heart, liver, breasts and muscle, less the air in the lungs."""
    waist = 0.47 + 0.05 * smoothstep(y, -0.1, 0.45) - 0.24 * smoothstep(-y, 0.30, 0.46)
    trunk = 1.05 * smoothstep(waist - np.abs(x), -0.01, 0.15)
    neck = 0.75 * smoothstep(0.13 - np.abs(x), -0.02, 0.06) * smoothstep(-y, 0.25, 0.40)
    mediastinum = 0.34 * smoothstep(0.075 + 0.03 * y - np.abs(x - 0.012), -0.03, 0.03)
    heart = 0.40 * smoothstep(body.heart * 1.12 - np.hypot((x - 0.045) / 1.1, (y - 0.13) / 1.15), -0.02, 0.06)
    belly = 0.40 * smoothstep(y - 0.62 * body.lung_height, -0.02, 0.10) * trunk
    thickness = body.soft * np.maximum(trunk, neck) + np.maximum(mediastinum, heart) + belly
    for side in (-1.0, 1.0):
        fold = 0.16 - np.hypot((x - side * 0.23) / 0.95, (y - 0.14) * 1.05)
        thickness = thickness + body.breasts * smoothstep(fold, -0.01, 0.09)
    muscle = 0.05 * octaves(rng, (_SIDE, _SIDE), coarse_px=90, count=4, gain=0.6)
    return np.asarray(thickness * (1.0 + muscle) - 0.92 * lungs * body.soft)


def _bones(rng: np.random.Generator, body: _Body, x: Field, y: Field) -> Field:
    """Return the thickness of spine, ribs (behind and in front), collar bones and shoulder blades."""
    vertebra = np.abs(np.sin(np.pi * (y + 0.5) / 0.052 / 2 + rng.uniform(0, np.pi)))
    spine = 0.26 * smoothstep(0.038 - np.abs(x - body.skew * y), -0.006, 0.006) * (0.75 + 0.25 * vertebra)
    total = spine
    for side in (-1.0, 1.0):
        columns = np.nonzero((x * side > 0.0).any(axis=0))[0]
        half = (slice(None), slice(int(columns[0]), int(columns[-1]) + 1))
        total[half] += _half_cage(rng, body, x[half] * side, y[half])
    return np.asarray(total)


def _half_cage(rng: np.random.Generator, body: _Body, u: Field, y: Field) -> Field:
    """Return the thickness of one side's ribs, collar bone and shoulder blade; ``u`` grows away from the spine."""
    wall = 0.17 + 0.22 * smoothstep(y, -0.42, 0.05)
    inside = smoothstep(wall + 0.015 - u, -0.006, 0.012) * smoothstep(u, 0.02, 0.05)
    total = np.zeros_like(u)
    for number in range(9):
        level = -0.36 + number * body.ribs + rng.normal(0, 0.003)
        width = 0.0115 + 0.001 * number
        behind = level + body.rib_slope * (u - 0.12) ** 2 * 2.2 + 0.10 * u - 0.02
        total += 0.20 * _tube(y - behind, width)
        if 0 < number < 7:
            front = level + 0.12 + 0.95 * (0.30 - u) * body.rib_slope
            total += 0.12 * _tube(y - front, width * 1.15) * smoothstep(u, 0.08, 0.13)
    total *= inside
    collar = -0.335 - 0.16 * (u - 0.05) + 0.5 * (u - 0.2) ** 2
    total += 0.24 * _tube(y - collar, 0.014) * smoothstep(u, 0.03, 0.05) * (1 - smoothstep(u, 0.34, 0.40))
    blade = 0.05 - np.hypot((u - 0.385) / 1.1, (y + 0.12) / 3.0)
    return np.asarray(total + 0.13 * smoothstep(blade, -0.006, 0.014))


def _tube(distance: Field, width: float) -> Field:
    """Return a hollow bone's profile: denser at its two edges than in between."""
    near = np.abs(distance) < 1.1 * width
    t = np.abs(distance[near]) / width
    profile = np.zeros_like(distance)
    profile[near] = (1 - smoothstep(t, 0.75, 1.1)) * (0.65 + 0.35 * smoothstep(t, 0.3, 0.9))
    return profile


def _vessels(rng: np.random.Generator, body: _Body, x: Field, y: Field, lungs: Field) -> Field:
    """Return branching vessels, thick near the hilum and thin towards the wall."""
    total = np.zeros((_SIDE, _SIDE))
    place = _pixel_of(x, y)
    for side in (-1.0, 1.0):
        for _ in range(16):
            tree = np.zeros((_SIDE, _SIDE), np.uint8)
            start = np.array([side * 0.085, -0.01 + rng.normal(0, 0.025)])
            heading = (0.0 if side > 0 else np.pi) + rng.uniform(-1.25, 1.25)
            _branch(rng, tree, place, start, heading=heading, width=float(rng.uniform(1.6, 3.6)), depth=0)
            total += tree
        hilum = 0.05 - np.hypot(x - side * 0.085, (y + 0.005) / 1.5)
        total += 255.0 * smoothstep(hilum, -0.02, 0.03)
    return np.asarray(ndimage.gaussian_filter(total * (0.16 / 255.0), 0.8) * (0.25 + 0.75 * lungs))


def _pixel_of(x: Field, y: Field) -> Field:
    """Return the (3, 2) matrix from (1, x, y) of the body to (column, row), as near as a straight map comes."""
    rows, columns = np.mgrid[:_SIDE, :_SIDE].astype(np.float64)
    few = (slice(None, None, 16), slice(None, None, 16))
    body = np.stack([np.ones_like(x[few]), x[few], y[few]], axis=-1).reshape(-1, 3)
    pixels = np.stack([columns[few], rows[few]], axis=-1).reshape(-1, 2)
    return np.asarray(np.linalg.lstsq(body, pixels, rcond=None)[0])


def _branch(
    rng: np.random.Generator,
    tree: npt.NDArray[np.uint8],
    place: Field,
    start: Field,
    *,
    heading: float,
    width: float,
    depth: int,
) -> None:
    length = rng.uniform(0.06, 0.11) * (0.9**depth)
    bends = heading + np.linspace(0, rng.normal(0, 0.5), 7)
    steps = np.stack([np.cos(bends), np.sin(bends)], axis=1) * length / 7
    points = np.vstack([start, start + np.cumsum(steps, axis=0)])
    _line(
        tree, np.column_stack([np.ones(len(points)), points]) @ place, max(1, round(width)), min(255, round(72 * width))
    )
    if depth < 3 and width > 0.7:
        for turn in (-1, 1):
            side = float(bends[-1] + turn * rng.uniform(0.15, 0.6))
            thinner = float(width * rng.uniform(0.66, 0.86))
            _branch(rng, tree, place, points[-1], heading=side, width=thinner, depth=depth + 1)


def _line(canvas: npt.NDArray[np.uint8], points: Field, thickness: int, value: int) -> None:
    fixed = np.rint(points * 2**_SHIFT).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(canvas, [fixed], False, (value,), thickness, cv2.LINE_AA, _SHIFT)


def _opacity(rng: np.random.Generator, lungs: Field, depth: Field) -> tuple[Mask, Field]:
    """Return the mask and the thickness of one patchy opacity in a lung."""
    rows, columns = np.nonzero(depth > 0.02)
    chosen = int(rng.integers(len(rows)))
    radius = float(rng.uniform(0.055, 0.115)) * _SIDE
    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float64)
    stretch, angle = float(np.exp(rng.normal(0, 0.2))), rng.uniform(0, np.pi)
    dx, dy = x - columns[chosen], y - rows[chosen]
    u, v = (np.cos(angle) * dx + np.sin(angle) * dy) / stretch, (np.cos(angle) * dy - np.sin(angle) * dx) * stretch
    ragged = 0.20 * smooth_noise(rng, (_SIDE, _SIDE), period_px=0.8 * radius)
    ragged += 0.10 * smooth_noise(rng, (_SIDE, _SIDE), period_px=0.3 * radius)
    level = 1.0 - np.hypot(u, v) / radius + ragged
    level = np.minimum(level, 12.0 * (depth + 0.004))
    pieces, _ = ndimage.label(level > 0)
    name = int(pieces[rows[chosen], columns[chosen]])
    mask = pieces == name if name else level > 0
    mask = np.asarray(ndimage.binary_fill_holes(mask))
    patchy = np.clip(1.0 + 0.38 * octaves(rng, (_SIDE, _SIDE), coarse_px=0.5 * radius, count=3, gain=0.7), 0.25, None)
    strength = float(rng.uniform(0.42, 0.75))
    near = ndimage.gaussian_filter(mask.astype(np.float64), 1.5) * (0.35 + 0.65 * smoothstep(level, -0.05, 0.45))
    return mask, np.asarray(strength * patchy * near * (0.4 + 0.6 * lungs))


def _devices(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Return what lies on normal chests as well: electrodes, leads and tubes."""
    layer = np.zeros((_SIDE, _SIDE), np.uint8)
    total = np.zeros_like(x)
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 4))):
            place = rng.uniform([-0.3, -0.3], [0.3, 0.25])
            total += 0.22 * smoothstep(0.013 - np.hypot(x - place[0], y - place[1]), -0.002, 0.002)
            end = rng.uniform([0.0, 0.3], [1.0, 1.0]) * _SIDE
            middle = (place + 0.5) * _SIDE
            t = np.linspace(0, 1, 20)[:, None]
            curve = middle * (1 - t) ** 2 + 2 * t * (1 - t) * rng.uniform(0, _SIDE, 2) + t**2 * end
            _line(layer, curve, 1, 140)
    if rng.random() < 0.2:
        path = np.array([[0.5, 0.0], [0.5 + rng.normal(0, 0.01), 0.2], [0.51, rng.uniform(0.3, 0.42)]]) * _SIDE
        _line(layer, path, 3, 150)
    return np.asarray(total + 0.25 * layer / 255.0)


def _expose(rng: np.random.Generator, detector: _Detector, thickness: Field) -> npt.NDArray[np.uint16]:
    """Return the detector's numbers: more where less of the beam arrived, as radiographs are shown."""
    scatter = ndimage.gaussian_filter(thickness, 14.0)
    shown = 0.85 * thickness + 0.15 * scatter
    shown = shown * detector.contrast * float(np.exp(rng.normal(0, 0.08)))
    x, y = np.meshgrid(np.linspace(-1, 1, _SIDE), np.linspace(-1, 1, _SIDE))
    shown = shown + rng.normal(0, 0.05) * x + rng.normal(0, 0.05) * y
    middle = float(np.median(shown)) + rng.normal(0.0, 0.18)
    level = 1.0 / (1.0 + np.exp(-1.9 * (shown - middle) * float(np.exp(rng.normal(0, 0.12)))))
    level = level + rng.standard_normal(level.shape) * detector.noise * (1.3 - 0.6 * level)
    level = ndimage.gaussian_filter(level, float(rng.uniform(0.3, 0.7)))
    low, high = rng.uniform(0.03, 0.10), rng.uniform(0.86, 0.97)
    if rng.random() < detector.collimated:
        edges = rng.uniform(0.80, 1.02, 4)
        outside = (x > edges[0]) | (x < -edges[1]) | (y > edges[2]) | (y < -edges[3])
        level = np.where(outside, 0.02, level)
    stamp = np.zeros((_SIDE, _SIDE), np.uint8)
    place = (int(rng.uniform(0.82, 0.90) * _SIDE), int(rng.uniform(0.07, 0.14) * _SIDE))
    cv2.putText(stamp, detector.marker, place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255,), 2, cv2.LINE_AA)
    level = np.maximum(level, stamp / 255.0)
    values = np.clip(low + (high - low) * level, 0.0, 1.0) * (2**detector.bits - 1)
    return np.asarray(np.rint(values), dtype=np.uint16)

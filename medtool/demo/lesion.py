"""Skin lesions as a dermatoscope shows them, with exact masks.

The label lies in structure. Benign lesions have one regular pattern (pigment network, globules, or nearly none) that is
spread evenly, and a smooth border. Malignant ones mix two to four of atypical network, streaks, irregular globules,
blotches and a veil, unevenly, within a notched and lopsided border. Area, mean colour, contrast, the amount of hue
variation and the softness of the border are drawn without looking at the label, and textures are standardised within
the mask before they are applied: neither size nor colour tells the classes apart.

The vocabulary follows pattern analysis in dermoscopy: Argenziano et al., "Dermoscopy of pigmented skin lesions: results
of a consensus meeting via the Internet", J Am Acad Dermatol 48 (2003).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medtool.demo import dermatoscope
from medtool.demo.noise import Field, Lattice, Mask, grid, smooth_noise, smoothstep, standardised
from medtool.demo.patients import Patient
from medtool.demo.phantom import Case, Phantom, to_bytes

_BROWN = np.array([0.74, 1.00, 1.16])  # optical density per unit of superficial melanin
_BLUE = np.array([1.22, 1.06, 0.78])  # of deep melanin, which light reaches through blue-scattering dermis
_RED = np.array([0.12, 0.80, 0.62])  # of blood

_HARMONICS = 9
_STREAMS = {"family": 10, "lesion": 11, "photo": 12}


def cases(patient: Patient) -> Iterator[Case]:
    """Yield the photographs of one patient; the second one shows the first one's lesion again."""
    for visit in range(patient.visits):
        lesion = max(0, visit - 1)
        yield Case(
            patient=patient,
            name=f"{patient.name}_{visit + 1}",
            keys={"lesion": lesion, "photo": visit},
            columns={"lesion": f"{patient.name}_L{lesion + 1}"},
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """A border in units of the lesion's mean radius: 1 + a sum of harmonics, then bent by noise."""

    amplitudes: Field
    phases: Field
    stretch: float
    bend: float
    bend_fine: float

    def reach(self, u: Field, v: Field, rng: np.random.Generator) -> Field:
        """Return how deep each place lies within the border: 1 at the centre, 0 on the border, negative outside."""
        coarse_u, coarse_v, fine_u, fine_v = (Lattice(rng, period=period) for period in (0.55, 0.55, 0.2, 0.2))
        bent_u = u + self.bend * coarse_u.at(u, v) + self.bend_fine * fine_u.at(u, v)
        bent_v = v + self.bend * coarse_v.at(u, v) + self.bend_fine * fine_v.at(u, v)
        bent_u, bent_v = bent_u / self.stretch, bent_v * self.stretch
        distance = np.hypot(bent_u, bent_v)
        direction = (bent_u + 1j * bent_v) / np.maximum(distance, 1e-9)
        turned = direction.copy()
        radius = np.ones_like(distance)
        for amplitude, phase in zip(self.amplitudes, self.phases, strict=True):
            turned *= direction  # its real part is the cosine of twice, three times ... the angle
            radius += amplitude * (turned.real * np.cos(phase) - turned.imag * np.sin(phase))
        area = 1.0 + float(np.sum(self.amplitudes**2)) / 2.0
        return np.asarray(1.0 - distance / np.maximum(radius / np.sqrt(area), 0.15))


def draw(patient: Patient, *, lesion: int, photo: int) -> Phantom:
    """Draw one photograph: ``lesion`` counts the patient's lesions, ``photo`` their photographs, both from 0."""
    family = patient.stream(_STREAMS["family"])
    camera = dermatoscope.Camera.of_site(patient.site)
    skin = dermatoscope.Skin.of_patient(family)
    view = patient.stream(_STREAMS["photo"], photo)

    traits = patient.stream(_STREAMS["lesion"], lesion)
    size = float(np.exp(traits.uniform(np.log(0.19), np.log(0.37)))) * min(camera.shape)
    radius_px = size * float(view.uniform(0.92, 1.08))
    u, v = _lesion_coordinates(view, camera.shape, radius_px)
    shape = _shape(family, traits, is_irregular=patient.is_positive)

    mask = np.zeros(camera.shape, dtype=bool)
    density = np.zeros((*camera.shape, 3))
    near = _box((np.abs(u) < 2.2) & (np.abs(v) < 2.2))
    mask[near] = _largest_piece(shape.reach(u[near], v[near], traits) > 0)
    near = _box(mask, margin_px=40)
    density[near] = _density(
        traits, mask[near], u[near], v[near], radii_px=(size, radius_px), is_atypical=patient.is_positive
    )

    picture = skin.draw(view, camera.shape) * np.exp(-density)
    picture = camera.photograph(view, picture, around=_centre(mask), radius_px=radius_px)
    return Phantom(pixels=to_bytes(picture), mask=np.where(mask, 255, 0).astype(np.uint8))


def _density(
    rng: np.random.Generator, mask: Mask, u: Field, v: Field, *, radii_px: tuple[float, float], is_atypical: bool
) -> Field:
    """Return the optical density ``(height, width, 3)`` that the lesion adds to the skin.

    ``radii_px`` is the lesion's nominal mean radius, which its structures go with, and the one in this photograph.
    """
    nominal_px, radius_px = radii_px
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    depth_px = np.where(mask, inside - 0.5, 0.5 - outside)
    period = float(np.clip(rng.uniform(0.13, 0.20), 11.0 / nominal_px, 16.0 / nominal_px))
    texture, hue = _patterns(rng, u, v, depth_px / radius_px, period=period, is_atypical=is_atypical)
    return _pigment(rng, mask, depth_px, radius_px, texture=texture, hue=hue)


def _box(where: Mask, *, margin_px: int = 0) -> tuple[slice, slice]:
    """Return the rows and columns that hold every True place, with a margin."""
    rows, columns = np.nonzero(where.any(axis=1))[0], np.nonzero(where.any(axis=0))[0]
    return (
        slice(max(0, int(rows[0]) - margin_px), int(rows[-1]) + 1 + margin_px),
        slice(max(0, int(columns[0]) - margin_px), int(columns[-1]) + 1 + margin_px),
    )


def _lesion_coordinates(view: np.random.Generator, shape: tuple[int, int], radius_px: float) -> tuple[Field, Field]:
    x, y = grid(shape)
    room_x, room_y = (max(0.06 * side, side / 2 - 1.15 * radius_px) for side in (shape[1], shape[0]))
    centre_x = shape[1] / 2 + np.clip(view.normal(0.0, 0.09) * shape[1], -room_x, room_x)
    centre_y = shape[0] / 2 + np.clip(view.normal(0.0, 0.09) * shape[0], -room_y, room_y)
    angle = view.uniform(0.0, 2 * np.pi)
    dx, dy = (x - centre_x) / radius_px, (y - centre_y) / radius_px
    return np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx


def _shape(family: np.random.Generator, traits: np.random.Generator, *, is_irregular: bool) -> _Shape:
    """Return a lesion's border; lesions of one patient resemble one another."""
    orders = np.arange(2, 2 + _HARMONICS)
    size = 0.46 / orders**1.0 if is_irregular else 0.16 / orders**1.3
    shared = family.standard_normal(_HARMONICS)
    own = traits.standard_normal(_HARMONICS)
    amplitudes = np.clip(size * (0.7 * shared + 0.7 * own) * 0.6, -0.3, 0.3)
    phases = family.uniform(0, 2 * np.pi, _HARMONICS) + traits.normal(0.0, 0.5, _HARMONICS)
    return _Shape(
        amplitudes=amplitudes,
        phases=phases,
        stretch=float(np.exp(traits.normal(0.0, 0.13))),
        bend=float(traits.uniform(0.06, 0.14)) if is_irregular else float(traits.uniform(0.0, 0.045)),
        bend_fine=float(traits.uniform(0.012, 0.04)) if is_irregular else float(traits.uniform(0.002, 0.014)),
    )


def _largest_piece(where: Mask) -> Mask:
    """Return the largest connected piece without its holes."""
    pieces, count = ndimage.label(where)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(pieces == int(np.argmax(sizes))))


def _centre(mask: Mask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


def _patterns(
    rng: np.random.Generator, u: Field, v: Field, depth: Field, *, period: float, is_atypical: bool
) -> tuple[Field, Field]:
    """Return how dark the pigment's structures are, and how blue its hue is, both on no fixed scale."""
    angle = np.arctan2(v, u)
    grain = 0.5 * Lattice(rng, period=0.45 * period, cells=96).at(u, v)
    cloud = 0.6 * Lattice(rng, period=0.5).at(u, v) + 0.4 * Lattice(rng, period=0.2).at(u, v)
    if not is_atypical:
        return _typical(rng, u, v, depth, period=period, ground=grain + 0.4 * cloud), _rings(rng, u, v, depth)

    chosen = rng.permutation(4)[: int(rng.integers(2, 5))]
    texture = grain + cloud
    hue = Lattice(rng, period=0.8).at(u, v) + 0.5 * Lattice(rng, period=0.35).at(u, v)
    for pattern in chosen:
        region = smoothstep(Lattice(rng, period=0.9).at(u, v), -0.4, 0.4)
        if pattern == 0:
            texture += 1.1 * region * _network(rng, u, v, period * rng.uniform(1.1, 1.5), warp=0.5)
        elif pattern == 1:
            texture += 1.9 * _streaks(rng, u, v, depth, angle)
        elif pattern == 2:
            texture += 1.5 * region * _dots(rng, u, v, period)
        else:
            texture += 2.4 * smoothstep(Lattice(rng, period=0.55).at(u, v), 0.2, 0.75)
    if rng.random() < 0.4:
        pale = smoothstep(Lattice(rng, period=0.7).at(u, v), 0.6, 1.1)
        texture = texture * (1 - 0.6 * pale) - 1.2 * pale
    return np.asarray(texture), np.asarray(hue)


def _typical(rng: np.random.Generator, u: Field, v: Field, depth: Field, *, period: float, ground: Field) -> Field:
    """Return one regular pattern over all of the lesion, thinning out towards the border, over its ``ground``."""
    kind = int(rng.integers(0, 3))
    faint = smoothstep(Lattice(rng, period=0.6).at(u, v), -2.0, 0.2)
    if kind == 0:
        pattern = 1.1 * _network(rng, u, v, period, warp=0.16) * faint * smoothstep(depth, -0.05, 0.3)
    elif kind == 1:
        pattern = 1.0 * _globules(rng, u, v, period * 1.1, warp=0.2) * faint
    else:
        pattern = 0.7 * _network(rng, u, v, period, warp=0.2) * faint
    return np.asarray(pattern + ground + rng.uniform(0.3, 1.5) * rng.choice([-1.0, 1.0]) * smoothstep(depth, 0.0, 0.7))


def _rings(rng: np.random.Generator, u: Field, v: Field, depth: Field) -> Field:
    """Return a hue that changes from the border to the centre, nearly alike on all sides."""
    return np.asarray(rng.choice([-1.0, 1.0]) * smoothstep(depth, 0.05, 0.6) + 0.3 * Lattice(rng, period=0.5).at(u, v))


def _hexagonal(rng: np.random.Generator, u: Field, v: Field, period: float, *, warp: float) -> Field:
    """Return three plane waves at 60°, bent: peaks of 1 in a hexagonal grid, a low web of about -0.5 between them."""
    bend_u, bend_v = Lattice(rng, period=2.2 * period, cells=48), Lattice(rng, period=2.2 * period, cells=48)
    wide_u, wide_v = Lattice(rng, period=7 * period), Lattice(rng, period=7 * period)
    x = u + period * (warp * bend_u.at(u, v) + 1.2 * warp * wide_u.at(u, v))
    y = v + period * (warp * bend_v.at(u, v) + 1.2 * warp * wide_v.at(u, v))
    turn = rng.uniform(0, np.pi)
    total = np.zeros_like(x)
    for third in range(3):
        direction = turn + third * 2 * np.pi / 3
        total += np.cos(2 * np.pi * (np.cos(direction) * x + np.sin(direction) * y) / (period * np.sqrt(3) / 2))
    return np.asarray(total / 3.0)


def _network(rng: np.random.Generator, u: Field, v: Field, period: float, *, warp: float) -> Field:
    """Return a pigment network: dark lines around pale holes. Standard deviation about 1."""
    return np.asarray(2.6 * (0.35 - smoothstep(_hexagonal(rng, u, v, period, warp=warp), -0.35, 0.35)))


def _globules(rng: np.random.Generator, u: Field, v: Field, period: float, *, warp: float) -> Field:
    """Return round dark clods in a regular grid (cobblestones). Standard deviation about 1."""
    return np.asarray(2.6 * (smoothstep(_hexagonal(rng, u, v, period, warp=warp), -0.1, 0.4) - 0.35))


def _dots(rng: np.random.Generator, u: Field, v: Field, period: float) -> Field:
    """Return dark clods of unlike sizes in no order."""
    spots = np.zeros_like(u)
    for scale, level in ((0.75, 1.25), (1.2, 1.45)):
        spots = np.maximum(
            spots, smoothstep(Lattice(rng, period=scale * period, cells=96).at(u, v), level - 0.4, level)
        )
    return np.asarray(2.6 * spots)


def _streaks(rng: np.random.Generator, u: Field, v: Field, depth: Field, angle: Field) -> Field:
    """Return radial lines along a part of the border."""
    lines = int(rng.integers(26, 44))
    bend = 0.9 * Lattice(rng, period=0.4).at(u, v)
    ridge = smoothstep(np.cos(lines * angle + bend), 0.1, 0.8)
    sector = smoothstep(np.cos(angle - rng.uniform(0, 2 * np.pi)), rng.uniform(-0.6, 0.2), 0.6)
    rim = smoothstep(depth, -0.1, 0.02) * (1 - smoothstep(depth, 0.22, 0.42))
    return np.asarray(2.2 * ridge * sector * rim)


def _pigment(
    rng: np.random.Generator, mask: Mask, depth_px: Field, radius_px: float, *, texture: Field, hue: Field
) -> Field:
    """Return the optical density ``(height, width, 3)`` that the lesion adds to the skin."""
    base = float(np.exp(rng.uniform(np.log(0.24), np.log(1.15))))
    contrast = float(rng.uniform(0.38, 0.50))
    blood = float(rng.uniform(0.0, 0.28))
    blue = float(rng.uniform(0.05, 0.55))
    blue_spread = float(rng.uniform(0.10, 0.25))
    soft_px = float(np.clip(radius_px * rng.uniform(0.05, 0.22), 2.0, 16.0))
    sheen = smooth_noise(rng, (mask.shape[0], mask.shape[1]), period_px=24.0)

    cover = smoothstep(depth_px, -soft_px / 2, soft_px / 2)
    strength = base * np.clip(1.0 + contrast * standardised(texture, mask, limit=2.2) + 0.04 * sheen, 0.08, None)
    share = np.clip(blue + blue_spread * standardised(hue, mask, limit=2.0), 0.0, 1.0)[..., None]
    melanin = (strength * cover)[..., None] * (share * _BLUE + (1 - share) * _BROWN)
    redness = (blood * smoothstep(depth_px, -2.0 * soft_px, soft_px))[..., None] * _RED
    return np.asarray(melanin + redness)

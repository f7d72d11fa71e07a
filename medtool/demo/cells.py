"""Glands and nuclei in micrometres, and how a view of any pixel size draws them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medtool.demo.noise import Field, Mask, smoothstep

_HARMONICS = 6


class View:
    """A grid of pixels over tissue, centred on the origin.

    Attributes
    ----------
    shape
        (height, width) in pixels.
    pixel_um
        Side of a pixel in micrometres.
    x, y
        Place of every pixel centre in micrometres, each of ``shape``.
    """

    def __init__(self, shape: tuple[int, int], pixel_um: float) -> None:
        self.shape = shape
        self.pixel_um = pixel_um
        rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
        self.x: Field = (columns - (shape[1] - 1) / 2) * pixel_um
        self.y: Field = (rows - (shape[0] - 1) / 2) * pixel_um

    def box(self, x: float, y: float, reach: float) -> tuple[slice, slice] | None:
        """Return the rows and columns within ``reach`` micrometres of a place, or None if that is out of view."""
        slices = []
        for place, length in ((y, self.shape[0]), (x, self.shape[1])):
            middle = place / self.pixel_um + (length - 1) / 2
            first, last = int(middle - reach / self.pixel_um), int(middle + reach / self.pixel_um) + 2
            if last <= 0 or first >= length:
                return None
            slices.append(slice(max(0, first), min(length, last)))
        return slices[0], slices[1]


@dataclass(frozen=True, slots=True, eq=False)
class Gland:
    """A gland or a nest of cells: an outline around its centre, with holes in it.

    Attributes
    ----------
    amplitudes, phases
        Of the outline's harmonics, from the second on, relative to the mean radius.
    lining_um
        Thickness of the epithelium around an open lumen; 0 when there is none.
    holes
        Shape ``(n, 3)``: x, y from the centre and radius of further round lumens.
    rows
        How many rows of nuclei line it, where they stand in rows.
    """

    x: float
    y: float
    radius: float
    amplitudes: Field
    phases: Field
    lining_um: float
    holes: Field
    rows: int

    @classmethod
    def regular(cls, rng: np.random.Generator, radius: float) -> Gland:
        """Return a round gland with an open lumen."""
        rows = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
        orders = np.arange(2, 2 + _HARMONICS)
        return cls(
            x=0.0,
            y=0.0,
            radius=radius,
            amplitudes=rng.standard_normal(_HARMONICS) * 0.13 / orders,
            phases=rng.uniform(0, 2 * np.pi, _HARMONICS),
            lining_um=min((5.0 + 7.5 * rows) * float(rng.uniform(0.9, 1.1)), 0.85 * radius),
            holes=np.zeros((0, 3)),
            rows=rows,
        )

    @classmethod
    def irregular(cls, rng: np.random.Generator, radius: float) -> Gland:
        """Return a ragged nest: solid, sieve-like, or with a narrow lumen."""
        orders = np.arange(2, 2 + _HARMONICS)
        kind = int(rng.choice(3, p=[0.35, 0.35, 0.3]))
        holes = np.zeros((0, 3))
        if kind == 1:
            count = int(rng.integers(2, 7))
            angles, distances = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.15, 0.62, count) * radius
            sizes = rng.uniform(0.10, 0.20, count) * radius
            holes = np.stack([distances * np.cos(angles), distances * np.sin(angles), sizes], axis=1)
        return cls(
            x=0.0,
            y=0.0,
            radius=radius,
            amplitudes=np.clip(rng.standard_normal(_HARMONICS) * 0.36 / orders, -0.28, 0.28),
            phases=rng.uniform(0, 2 * np.pi, _HARMONICS),
            lining_um=radius * float(rng.uniform(0.55, 0.8)) if kind == 2 else 0.0,
            holes=holes,
            rows=0,
        )

    def moved(self, x: float, y: float) -> Gland:
        """Return the same gland elsewhere."""
        return replace(self, x=x, y=y)

    @property
    def reach(self) -> float:
        """No part of the outline is farther from the centre than this."""
        return self.radius * (1.0 + float(np.abs(self.amplitudes).sum()))

    def outline(self, angle: Field) -> Field:
        """Return the outline's distance from the centre in each direction."""
        ratio = np.ones_like(angle)
        for order, amplitude, phase in zip(range(2, 2 + _HARMONICS), self.amplitudes, self.phases, strict=True):
            ratio = ratio + amplitude * np.cos(order * angle + phase)
        return np.asarray(self.radius * np.maximum(ratio, 0.3))

    def depths(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Return how deep each place lies in the gland, and in a lumen of it; negative outside, micrometres."""
        dx, dy = x - self.x, y - self.y
        depth = self.outline(np.arctan2(dy, dx)) - np.hypot(dx, dy)
        lumen = depth - self.lining_um if self.lining_um > 0 else np.full_like(depth, -100.0)
        for hole_x, hole_y, radius in self.holes:
            lumen = np.maximum(lumen, radius - np.hypot(dx - hole_x, dy - hole_y))
        return np.asarray(depth), np.asarray(lumen)


def draw_glands(view: View, glands: list[Gland]) -> tuple[Field, Field]:
    """Return how deep each pixel lies in any gland, and in any lumen; negative outside, micrometres."""
    depth, lumen = np.full(view.shape, -100.0), np.full(view.shape, -100.0)
    for gland in glands:
        box = view.box(gland.x, gland.y, gland.reach + 4.0)
        if box is None:
            continue
        own_depth, own_lumen = gland.depths(view.x[box], view.y[box])
        np.maximum(depth[box], own_depth, out=depth[box])
        np.maximum(lumen[box], own_lumen, out=lumen[box])
    return depth, lumen


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """Many nuclei; each attribute has one value a nucleus.

    Attributes
    ----------
    places
        Shape ``(n, 2)``, x and y in micrometres.
    long, short
        Half axes in micrometres.
    angle
        Of the long axis.
    dent
        Shape ``(n, 4)``: size and phase of the second and third harmonic of the outline.
    paleness
        0 is evenly dark, 1 a dark rim around a clear middle with a nucleolus.
    darkness
        How much stain the nucleus takes.
    """

    places: Field
    long: Field
    short: Field
    angle: Field
    dent: Field
    paleness: Field
    darkness: Field

    @classmethod
    def of(
        cls,
        rng: np.random.Generator,
        places: Field,
        *,
        radius: float,
        spread: float,
        stretch: Field,
        angle: Field,
        paleness: float,
    ) -> Nuclei:
        """Return nuclei of a mean radius; ``spread`` is how unlike they are in size, outline and stain."""
        count = len(places)
        size = radius * np.exp(rng.normal(0.0, spread, count))
        dent = np.stack(
            [
                rng.normal(0, 0.25 * spread, count),
                rng.uniform(0, 2 * np.pi, count),
                rng.normal(0, 0.30 * spread, count),
                rng.uniform(0, 2 * np.pi, count),
            ],
            axis=1,
        )
        return cls(
            places=places,
            long=size * np.sqrt(stretch),
            short=size / np.sqrt(stretch),
            angle=angle,
            dent=dent,
            paleness=np.clip(paleness + rng.normal(0, 0.6 * spread, count), 0.0, 1.0),
            darkness=np.exp(rng.normal(0.0, 0.08 + 0.6 * spread, count)),
        )

    def joined(self, other: Nuclei) -> Nuclei:
        """Return both together."""
        return Nuclei(
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in ("places", "long", "short", "angle", "dent", "paleness", "darkness")
            )
        )

    def where(self, chosen: Mask) -> Nuclei:
        """Return some of them."""
        return Nuclei(
            *(
                getattr(self, name)[chosen]
                for name in ("places", "long", "short", "angle", "dent", "paleness", "darkness")
            )
        )


def lining(rng: np.random.Generator, glands: list[Gland], *, radius: float, spread: float, paleness: float) -> Nuclei:
    """Return nuclei that stand in even rows along the outlines, each pointing to its gland's centre."""
    places, angles = [np.zeros((0, 2))], [np.zeros(0)]
    for gland in glands:
        for row in range(gland.rows):
            depth = gland.lining_um * (row + 0.5 if gland.rows > 1 else 0.42) / gland.rows
            around = 2 * np.pi * max(gland.radius - depth, 1.0)
            count = max(3, int(around / (2.25 * radius)))
            direction = (np.arange(count) + rng.uniform() + rng.normal(0, 0.09, count)) * 2 * np.pi / count
            distance = gland.outline(direction) - depth + rng.normal(0, 0.06 * gland.lining_um, count)
            offsets = np.stack([distance * np.cos(direction), distance * np.sin(direction)], axis=1)
            places.append(offsets + np.array([gland.x, gland.y]))
            angles.append(direction + rng.normal(0, 0.12, count))
    all_places = np.concatenate(places)
    stretch = rng.uniform(1.25, 1.6) * np.exp(rng.normal(0, 0.06, len(all_places)))
    return Nuclei.of(
        rng,
        all_places,
        radius=radius,
        spread=spread,
        stretch=stretch,
        angle=np.concatenate(angles),
        paleness=paleness,
    )


def scattered(
    rng: np.random.Generator, glands: list[Gland], *, radius: float, spread: float, spacing: float, paleness: float
) -> Nuclei:
    """Return nuclei that fill the epithelium in no order, pointing anywhere."""
    places = [np.zeros((0, 2))]
    for gland in glands:
        side = np.arange(-gland.reach, gland.reach + spacing, spacing)
        x, y = (axis.ravel() for axis in np.meshgrid(side, side))
        x = x + rng.normal(0, 0.24 * spacing, x.size)
        y = y + rng.normal(0, 0.24 * spacing, y.size)
        depth, lumen = gland.depths(x + gland.x, y + gland.y)
        kept = (depth > 0.8 * radius) & (lumen < -0.6 * radius) & (rng.random(x.size) < 0.93)
        places.append(np.stack([x[kept] + gland.x, y[kept] + gland.y], axis=1))
    all_places = np.concatenate(places)
    count = len(all_places)
    return Nuclei.of(
        rng,
        all_places,
        radius=radius,
        spread=spread,
        stretch=np.exp(np.abs(rng.normal(0.12, 0.2, count))),
        angle=rng.uniform(0, np.pi, count),
        paleness=paleness,
    )


def draw_nuclei(view: View, nuclei: Nuclei, chromatin: Field) -> tuple[Field, Field]:
    """Return how much of each pixel nuclei cover, 0 to 1, and how dark they are there.

    All nuclei are stamped at once, each into a window that holds the largest of them.
    """
    height, width = view.shape
    cover, dark = np.zeros(height * width), np.zeros(height * width)
    pixels = nuclei.places / view.pixel_um + ((width - 1) / 2, (height - 1) / 2)
    size = nuclei.long / view.pixel_um
    visible = np.all((pixels > -size[:, None] - 1) & (pixels < (width, height) + size[:, None] + 1), axis=1)
    if not visible.any():
        return cover.reshape(view.shape), dark.reshape(view.shape)
    nuclei, pixels = nuclei.where(visible), pixels[visible]
    half = int(np.ceil(1.25 * float(nuclei.long.max()) / view.pixel_um)) + 1

    offsets = np.arange(-half, half + 1)
    corner = np.rint(pixels).astype(np.int64)
    columns = corner[:, 0, None, None] + offsets[None, None, :]
    rows = corner[:, 1, None, None] + offsets[None, :, None]
    dx = (columns - pixels[:, 0, None, None]) * view.pixel_um
    dy = (rows - pixels[:, 1, None, None]) * view.pixel_um
    cosine, sine = np.cos(nuclei.angle)[:, None, None], np.sin(nuclei.angle)[:, None, None]
    u = (cosine * dx + sine * dy) / nuclei.long[:, None, None]
    v = (cosine * dy - sine * dx) / nuclei.short[:, None, None]
    turn = np.arctan2(v, u)
    dent = nuclei.dent[:, :, None, None]
    outline = 1.0 + dent[:, 0] * np.cos(2 * turn + dent[:, 1]) + dent[:, 2] * np.cos(3 * turn + dent[:, 3])
    ratio = np.hypot(u, v) / outline
    covered = np.clip(0.5 + (1.0 - ratio) * nuclei.short[:, None, None] / view.pixel_um, 0.0, 1.0)

    inside_view = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width) & (covered > 0)
    where = (rows * width + columns)[inside_view]
    pale = np.broadcast_to(nuclei.paleness[:, None, None], ratio.shape)[inside_view]
    stain = np.broadcast_to(nuclei.darkness[:, None, None], ratio.shape)[inside_view]
    covered, ratio = covered[inside_view], ratio[inside_view]
    clearing = 1.0 - smoothstep(ratio, 0.45, 0.92)
    nucleolus = 0.75 * (1.0 - smoothstep(ratio, 0.12, 0.26))
    texture = 1.0 + 0.16 * chromatin.ravel()[where]
    shade = stain * np.clip(texture, 0.4, None) * (1.0 - pale * (0.85 * clearing - nucleolus))
    np.maximum.at(cover, where, covered)
    np.maximum.at(dark, where, covered * shade)
    return cover.reshape(view.shape), dark.reshape(view.shape)

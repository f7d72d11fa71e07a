"""Everything in a dermoscopic photograph but the lesion: skin, camera, and what lies in the way.

Nothing here looks at the label. Hairs, rulers, stickers, pen marks, gel bubbles and dark corners are there because they
are in real photographs, and because a threshold or an edge detector trips over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from medtool.demo.noise import Field, grid, octaves, smooth_noise, smoothstep

_MELANIN = np.array([0.50, 0.80, 1.00])
_BLOOD = np.array([0.10, 0.80, 0.62])
_STICKERS = ((0.20, 0.55, 0.25), (0.90, 0.80, 0.25), (0.20, 0.40, 0.75), (0.85, 0.35, 0.15), (0.10, 0.10, 0.12))
_SHIFT = 4  # fractional bits of coordinates given to cv2


@dataclass(frozen=True, slots=True, eq=False)
class Skin:
    """One patient's skin.

    Attributes
    ----------
    melanin, redness
        Optical density of even pigment, and of blood.
    freckles
        How many small pigmented spots per 10,000 pixels.
    mottle
        How uneven the redness is.
    """

    melanin: float
    redness: float
    freckles: float
    mottle: float

    @classmethod
    def of_patient(cls, rng: np.random.Generator) -> Skin:
        """Draw a patient's skin."""
        return cls(
            melanin=float(np.clip(rng.gamma(1.4, 0.09), 0.0, 0.7)),
            redness=float(rng.uniform(0.0, 0.22)),
            freckles=float(rng.gamma(0.7, 0.7)),
            mottle=float(rng.uniform(0.02, 0.09)),
        )

    def draw(self, rng: np.random.Generator, shape: tuple[int, int]) -> Field:
        """Return a picture of lesion-free skin, shape ``(*shape, 3)``, 0 to 1."""
        tone = self.melanin * (1 + 0.10 * octaves(rng, shape, coarse_px=160, count=3, gain=0.6))
        tone = tone + 0.018 * octaves(rng, shape, coarse_px=14, count=3, gain=0.8)
        blood = self.redness + self.mottle * octaves(rng, shape, coarse_px=60, count=4, gain=0.75)
        blood += self.mottle * 1.6 * _vessels(rng, shape)
        tone = tone + _freckles(rng, shape, self.freckles)
        density = tone[..., None] * _MELANIN + np.clip(blood, 0.0, None)[..., None] * _BLOOD
        return np.asarray(np.array([0.97, 0.90, 0.86]) * np.exp(-np.clip(density, -0.05, None)))


def _vessels(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Return faint branching lines, where two noise fields cross zero."""
    ridge = np.abs(smooth_noise(rng, shape, period_px=30.0) + 0.5 * smooth_noise(rng, shape, period_px=12.0))
    where = smoothstep(smooth_noise(rng, shape, period_px=90.0), -0.2, 1.0)
    return np.asarray((1 - smoothstep(ridge, 0.0, 0.14)) * where)


def _freckles(rng: np.random.Generator, shape: tuple[int, int], rate: float) -> Field:
    spots = np.zeros(shape)
    for _ in range(int(rng.poisson(rate * shape[0] * shape[1] / 1e4))):
        _add_spot(
            spots, rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), rng.uniform(2.0, 8.0), rng.uniform(0.04, 0.3)
        )
    return np.asarray(spots * np.clip(1.0 + 0.4 * smooth_noise(rng, shape, period_px=5.0), 0.0, None))


def _add_spot(picture: Field, x: float, y: float, radius: float, strength: float) -> None:
    top, left = max(0, int(y - 2 * radius)), max(0, int(x - 2 * radius))
    rows, columns = np.ogrid[top : int(y + 2 * radius) + 1, left : int(x + 2 * radius) + 1]
    part = picture[top : top + rows.shape[0], left : left + columns.shape[1]]
    distance = np.hypot(rows - y, columns - x)[: part.shape[0], : part.shape[1]]
    part += strength * (1 - smoothstep(distance, 0.6 * radius, 1.3 * radius))


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """One site's camera and habits.

    Attributes
    ----------
    shape
        (height, width) in pixels.
    gain
        Of red, green and blue.
    corners, ruler, sticker, pen, bubbles
        How often a photograph has them.
    blur_px, noise
        Standard deviations of blur, and of sensor noise in 0 to 1.
    """

    shape: tuple[int, int]
    gain: tuple[float, float, float]
    vignette: float
    corners: float
    ruler: float
    sticker: float
    pen: float
    bubbles: float
    blur_px: float
    noise: float

    @classmethod
    def of_site(cls, site: str) -> Camera:
        """Return the camera of site ``A`` or ``B``."""
        return _CAMERAS[site]

    def photograph(
        self,
        rng: np.random.Generator,
        picture: Field,
        *,
        around: tuple[float, float],
        radius_px: float,
    ) -> Field:
        """Put things in the way of ``picture``, light it and take the photograph; ``around`` is the lesion's centre."""
        if rng.random() < self.pen:
            picture = _pen(rng, picture, around, radius_px)
        if rng.random() < self.ruler:
            picture = _ruler(rng, picture)
        if rng.random() < self.sticker:
            picture = _sticker(rng, picture, around, radius_px)
        picture = _hairs(rng, picture)
        if rng.random() < self.bubbles:
            picture = _bubbles(rng, picture)
        picture = picture * self._light(rng)[..., None] * np.array(self.gain) * np.exp(rng.normal(0, 0.03, 3))
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), self.blur_px * float(rng.uniform(0.8, 1.3))), np.float64)
        grain = rng.standard_normal((*self.shape, 3)) * self.noise
        if rng.random() < self.corners:
            picture = _corners(rng, picture)
        return np.asarray(np.clip(picture, 0.0, 1.0) ** float(rng.uniform(0.9, 1.12)) + grain)

    def _light(self, rng: np.random.Generator) -> Field:
        x, y = grid(self.shape)
        height, width = self.shape
        across, down = (x - width / 2) / width, (y - height / 2) / height
        slope = rng.normal(0.0, 0.11, 2)
        fall = self.vignette * float(rng.uniform(0.5, 1.5))
        light = 1.0 + slope[0] * across + slope[1] * down - fall * 2.0 * (across**2 + down**2)
        return np.asarray(light * float(np.exp(rng.normal(-0.02, 0.10))))


_CAMERAS = {
    "A": Camera(
        shape=(360, 480),
        gain=(1.02, 0.97, 0.90),
        vignette=0.60,
        corners=0.50,
        ruler=0.15,
        sticker=0.06,
        pen=0.06,
        bubbles=0.25,
        blur_px=0.7,
        noise=0.010,
    ),
    "B": Camera(
        shape=(400, 400),
        gain=(0.95, 0.99, 1.03),
        vignette=0.30,
        corners=0.20,
        ruler=0.45,
        sticker=0.14,
        pen=0.14,
        bubbles=0.08,
        blur_px=1.0,
        noise=0.016,
    ),
}


def _blend(picture: Field, cover: Field, colour: tuple[float, float, float] | Field) -> Field:
    return np.asarray(picture * (1 - cover[..., None]) + cover[..., None] * np.asarray(colour))


def _line(canvas: npt.NDArray[np.uint8], points: Field, thickness: int, value: int = 255) -> None:
    fixed = np.rint(points * 2**_SHIFT).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(canvas, [fixed], False, (value,), thickness, cv2.LINE_AA, _SHIFT)


def _hairs(rng: np.random.Generator, picture: Field) -> Field:
    height, width = picture.shape[:2]
    count = int(rng.poisson(rng.choice([0.0, 3.0, 8.0, 22.0], p=[0.42, 0.34, 0.18, 0.06])))
    canvas = np.zeros((height, width), np.uint8)
    mane = rng.uniform(0, 2 * np.pi)
    for _ in range(count):
        start = rng.uniform([0, 0], [width, height])
        heading = mane + rng.normal(0, 0.6)
        length = rng.uniform(0.15, 0.7) * width
        t = np.linspace(0, 1, 24)[:, None]
        turn = heading + rng.normal(0, 0.9) * t
        steps = np.hstack([np.cos(turn), np.sin(turn)]) * length / 24
        _line(canvas, start + np.cumsum(steps, axis=0), int(rng.choice([1, 1, 2])), int(rng.integers(120, 245)))
    shade = rng.uniform(0.06, 0.28) * np.array([1.0, 0.82, 0.68])
    return _blend(picture, canvas / 255.0, shade)


def _ruler(rng: np.random.Generator, picture: Field) -> Field:
    """Draw a scale: ticks along a line near a border, every tenth one long."""
    height, width = picture.shape[:2]
    canvas = np.zeros((height, width), np.uint8)
    angle = rng.choice([0.0, np.pi / 2, np.pi, 3 * np.pi / 2]) + rng.normal(0, 0.12)
    along, inward = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    half = np.array([width, height]) / 2
    origin = half - inward * rng.uniform(0.78, 0.95) * abs(float(inward @ half)) - along * rng.uniform(0.3, 0.6) * width
    spacing, ticks = rng.uniform(7, 13), int(rng.integers(18, 46))
    has_line = rng.random() < 0.6
    if has_line:
        _line(canvas, np.stack([origin, origin + along * spacing * ticks]), 1)
    for tick in range(ticks + 1):
        foot = origin + along * spacing * tick
        long = 1.0 if tick % 10 == 0 else 0.75 if tick % 5 == 0 else 0.45
        _line(canvas, np.stack([foot, foot + inward * 22 * long]), 2 if tick % 10 == 0 else 1)
    return _blend(picture, canvas / 255.0, (0.08, 0.08, 0.10))


def _sticker(rng: np.random.Generator, picture: Field, around: tuple[float, float], radius_px: float) -> Field:
    """Stick a coloured disc on the skin, on the side away from the lesion."""
    height, width = picture.shape[:2]
    x, y = grid((height, width))
    away = np.array([width / 2, height / 2]) - np.array(around) + rng.normal(0, 0.15 * width, 2)
    away /= max(float(np.hypot(*away)), 1e-6)
    radius = rng.uniform(0.16, 0.30) * width
    reach = max(1.9 * radius_px, 0.55 * width) + radius
    centre = np.array(around) + away * reach
    distance = np.hypot(x - centre[0], y - centre[1])
    colour = np.array(_STICKERS[int(rng.integers(len(_STICKERS)))])
    paper = colour * (1 + 0.06 * smooth_noise(rng, (height, width), period_px=2.5))[..., None]
    return _blend(picture, 1 - smoothstep(distance, radius - 1.2, radius + 1.2), paper)


def _pen(rng: np.random.Generator, picture: Field, around: tuple[float, float], radius_px: float) -> Field:
    """Draw the surgeon's purple ink around the lesion, in broken strokes."""
    height, width = picture.shape[:2]
    canvas = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        start = rng.uniform(0, 2 * np.pi)
        angles = start + np.linspace(0, rng.uniform(0.4, 1.6), 30)
        radii = radius_px * rng.uniform(1.6, 2.1) * (1 + 0.06 * np.sin(angles * 3 + start))
        points = np.stack([around[0] + radii * np.cos(angles), around[1] + radii * np.sin(angles)], axis=1)
        _line(canvas, points, int(rng.integers(4, 9)))
    grain = smoothstep(smooth_noise(rng, (height, width), period_px=3.0), -0.9, 0.6)
    return _blend(picture, canvas / 255.0 * grain * rng.uniform(0.35, 0.7), (0.38, 0.30, 0.62))


def _bubbles(rng: np.random.Generator, picture: Field) -> Field:
    """Draw air bubbles in the immersion gel: bright rims with a spark."""
    height, width = picture.shape[:2]
    x, y = grid((height, width))
    for _ in range(int(rng.integers(1, 9))):
        centre, radius = rng.uniform([0, 0], [width, height]), rng.uniform(3.0, 13.0)
        distance = np.hypot(x - centre[0], y - centre[1])
        rim = np.exp(-(((distance - radius) / 1.1) ** 2)) * 0.28
        spark = np.exp(-((x - centre[0] + radius / 2) ** 2 + (y - centre[1] + radius / 2) ** 2) / 3.0) * 0.7
        picture = _blend(picture, np.clip(rim + spark, 0, 1), (1.0, 1.0, 1.0))
    return picture


def _corners(rng: np.random.Generator, picture: Field) -> Field:
    """Darken what lies outside the round end of the dermatoscope's tube."""
    height, width = picture.shape[:2]
    x, y = grid((height, width))
    radius = np.hypot(width, height) / 2 * rng.uniform(0.78, 0.98)
    distance = np.hypot(x - width / 2 - rng.normal(0, 0.02 * width), y - height / 2 - rng.normal(0, 0.02 * height))
    edge = rng.uniform(2, 16)
    return _blend(picture, smoothstep(distance, radius - edge, radius + edge), (0.03, 0.025, 0.03))

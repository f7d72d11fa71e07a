"""Flips, turns, shifts, zoom, shear and elastic deformation of an image, resampled once however many are drawn.

Coordinates are (x, y) from the middle of the image, x to the right and y down. Parts are applied in this order:
mirroring, quarter turns, zoom, shear along x, shear along y, rotation, shift, deformation. What comes in from outside
is the image's own reflection, because black corners would tell the network how far an image was turned.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SPANS = 4  # pieces of the deformation's spline along each side
NODES = SPANS + 3  # control points along each side, one outside at each end and one for the cubic's degree


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the pixels of one image go.

    Attributes
    ----------
    mirrored, upended
        Whether left and right, top and bottom are exchanged; before anything else.
    quarter_turns
        Anticlockwise, 0 to 3; odd ones only for square images.
    angle_deg
        Clockwise as seen on a screen, as torchvision's ``affine`` takes it.
    shift
        (x, y), as shares of width and height.
    zoom
        Above 1 magnifies.
    shear_deg
        Along x and along y.
    nodes
        Shape ``(2, 7, 7)``, float32: x and y displacements of the deformation's control points, as shares of the
        shorter side; or None.
    """

    mirrored: bool = False
    upended: bool = False
    quarter_turns: int = 0
    angle_deg: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    shear_deg: tuple[float, float] = (0.0, 0.0)
    nodes: Tensor | None = None

    @property
    def needs_resampling(self) -> bool:
        """Whether pixels go to places between pixels; otherwise they only change places."""
        moved = (self.angle_deg, *self.shift, self.zoom - 1.0, *self.shear_deg)
        return self.nodes is not None or any(moved)


def warped(image: Tensor, geometry: Geometry) -> Tensor:
    """Return the image in its new pose.

    Parameters
    ----------
    image
        Shape ``(channels, height, width)``, uint8 or float32.
    geometry
        An odd number of quarter turns needs a square image.

    Returns
    -------
    image
        Of the same shape: of the same type where pixels only change places, else float32, not rounded, from bilinear
        interpolation.
    """
    height, width = image.shape[-2:]
    if geometry.quarter_turns % 2 and height != width:
        raise ValueError(f"a quarter turn would change the shape of an image of {width} by {height} px")
    if geometry.needs_resampling:
        places = _source_grid(geometry, height, width)[None]
        return functional.grid_sample(
            image.float()[None], places, mode="bilinear", padding_mode="reflection", align_corners=False
        )[0]
    dims = ([-1] if geometry.mirrored else []) + ([-2] if geometry.upended else [])
    posed = torch.flip(image, dims) if dims else image
    return torch.rot90(posed, geometry.quarter_turns, (-2, -1)) if geometry.quarter_turns % 4 else posed


def displacement(nodes: Tensor, height: int, width: int) -> Tensor:
    """Return how far each pixel is displaced: a uniform cubic B-spline over the control points, smooth everywhere.

    Parameters
    ----------
    nodes
        Shape ``(2, 7, 7)``: x and y displacements of the control points.

    Returns
    -------
    displacement
        Shape ``(2, height, width)``, in the unit of ``nodes``.

    Notes
    -----
    A B-spline stays within the range of its control points, and its slope within their differences over their
    distance, a quarter of a side. With displacements of at most a of the shorter side, both slopes of one coordinate
    add up to at most 16 a; below 1, that is for a < 1/16, no two pixels come from one place.

    References
    ----------
    Rueckert et al., "Nonrigid Registration Using Free-Form Deformations", IEEE Transactions on Medical Imaging 18,
    1999, for B-splines as deformations; Simard et al., "Best Practices for Convolutional Neural Networks", ICDAR 2003,
    for elastic deformations as augmentation.
    """
    return _spline_basis(height) @ nodes @ _spline_basis(width).T


def _source_grid(geometry: Geometry, height: int, width: int) -> Tensor:
    """Return where each pixel comes from, shape ``(height, width, 2)``, in grid_sample's units of half a side."""
    (a, b), (c, d) = _inverse(geometry)
    shift_x, shift_y = 2 * geometry.shift[0], 2 * geometry.shift[1]
    x, y = _axis(width)[None, :] - shift_x, _axis(height)[:, None] - shift_y
    if geometry.nodes is not None:
        off = displacement(geometry.nodes, height, width) * (2 * min(height, width))
        x, y = x + off[0] / width, y + off[1] / height
    grid = torch.empty((height, width, 2), dtype=torch.float32)
    torch.add(a * x, (b * height / width) * y, out=grid[..., 0])
    torch.add((c * width / height) * x, d * y, out=grid[..., 1])
    return grid


def _inverse(geometry: Geometry) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the matrix that takes a pixel's new (x, y), without shift, to its old one."""
    angle = math.radians(geometry.angle_deg)
    along_x, along_y = (math.tan(math.radians(degrees)) for degrees in geometry.shear_deg)
    cos, sin = math.cos(angle) / geometry.zoom, math.sin(angle) / geometry.zoom
    # the rotation back, then the shear along y back, then the one along x
    upper, lower = (cos, sin), (along_y * cos - sin, along_y * sin + cos)
    upper = (upper[0] + along_x * lower[0], upper[1] + along_x * lower[1])
    for _ in range(geometry.quarter_turns % 4):
        upper, lower = (-lower[0], -lower[1]), upper
    if geometry.mirrored:
        upper = (-upper[0], -upper[1])
    if geometry.upended:
        lower = (-lower[0], -lower[1])
    return upper, lower


@functools.lru_cache(maxsize=64)
def _axis(n: int) -> Tensor:
    """Return the pixel centres along a side, from -1 at one edge of the image to 1 at the other."""
    return (torch.arange(n, dtype=torch.float64) * 2 + 1).div_(n).sub_(1).float()


@functools.lru_cache(maxsize=64)
def _spline_basis(n: int) -> Tensor:
    """Return the weight of each control point in each pixel along a side, shape ``(n, 7)``; rows add up to 1."""
    place = (torch.arange(n, dtype=torch.float64) + 0.5) * (SPANS / n)
    span = place.floor().clamp_(max=SPANS - 1)
    t = place - span
    weights = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], dim=1).div_(
        6
    )
    basis = torch.zeros((n, NODES), dtype=torch.float64)
    return basis.scatter_(1, span.long()[:, None] + torch.arange(4), weights).float()

"""What lies over or around the object and is no part of it: dark corners and frames, stickers, hairs, ink.

Everything here works on a small image in CIELAB (L 0 to 100), and only on coloured ones: in a grey image the dark
surround is the background itself, and thin dark lines may be what one looks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.protocols import BoolMask

    Lab = npt.NDArray[np.float32]

_GREY_CHROMA = 8.0  # an image with less chroma than this at nine tenths of its pixels counts as grey
_DARK_SHARE, _DARK_RANGE = 0.45, (12.0, 25.0)  # of the bright pixels' L, and its limits: what a dark corner is below
_HAIR_DEPTH = 6.0  # how much darker than its surround, in L, a thin line is to count as a hair or a ruler's mark
_CORE_RADIUS = 0.1  # of half the image's side: what reaches this far in is the object rather than an artefact
_STICKER_COLOUR = 22.0  # colour difference from the skin, of which at most ...
_STICKER_DARKENING = 0.8  # ... this share may go together with darkening: lesions darken more than they colour
_BLUER, _GREENER = 22.0, 16.0  # differences in b and a that skin and lesions do not reach
_INK_START, _INK_SCALE, _INK_LOSS = 6.0, 8.0, 0.7  # bluer than this fades over this range by up to this share


def is_coloured(lab: Lab) -> bool:
    """Return whether the image has colour at all."""
    return bool(np.percentile(np.hypot(lab[..., 1], lab[..., 2]), 90) > _GREY_CHROMA)


def field_of_view(lab: Lab) -> BoolMask:
    """Return False in dark corners, round vignettes and black frames: dark regions that reach in from the edge.

    Parameters
    ----------
    lab
        Shape ``(height, width, 3)``, CIELAB.
    """
    height, width = lab.shape[:2]
    lightness = lab[..., 0]
    dark = lightness < np.clip(_DARK_SHARE * np.percentile(lightness, 75), *_DARK_RANGE)
    outside = _from_the_edge(dark, _edge(height, width))
    if outside.any():
        outside = ndimage.binary_dilation(outside, iterations=max(2, round(0.015 * max(height, width))))
    return np.asarray(~outside)


def without_hairs(lab: Lab) -> Lab:
    """Return the image with thin dark lines (hairs, ruler marks) replaced by the colours around them.

    As DullRazor does, lines are found by a grey closing; what they hide is filled by a normalised average.

    References
    ----------
    Lee et al., "DullRazor: A Software Approach to Hair Removal from Images", Computers in Biology and Medicine, 1997.
    """
    side = max(3, 2 * round(0.014 * max(lab.shape[:2])) + 1)
    lightness = lab[..., 0]
    is_hair = ndimage.grey_closing(lightness, size=(side, side)) - lightness > _HAIR_DEPTH
    if not is_hair.any():
        return lab
    weight = (~is_hair).astype(np.float32)
    spread = ndimage.gaussian_filter(weight, side / 2) + 1e-3
    filled = [ndimage.gaussian_filter(lab[..., channel] * weight, side / 2) / spread for channel in range(3)]
    return np.asarray(np.where(is_hair[..., np.newaxis], np.stack(filled, axis=-1), lab))


def find_stickers(difference: Lab, inside: BoolMask) -> BoolMask:
    """Return True on coloured stickers: regions at the edge whose colour, rather than darkness, differs from the skin.

    Parameters
    ----------
    difference
        Shape ``(height, width, 3)``, CIELAB, what is left after the background is taken away.
    inside
        Shape ``(height, width)``, the field of view.
    """
    darker, redder, yellower = difference[..., 0], difference[..., 1], difference[..., 2]
    colour = np.hypot(redder, yellower)
    unlike = (colour > _STICKER_COLOUR) & (darker > -_STICKER_DARKENING * colour)
    unlike |= (yellower < -_BLUER) | (redder < -_GREENER)
    rim = _edge(*inside.shape)
    if not inside.all():
        rim = rim | ndimage.binary_dilation(~inside, iterations=3)
    stickers = _from_the_edge(unlike & inside, rim)
    if not stickers.any():
        return stickers
    return np.asarray(ndimage.binary_dilation(ndimage.binary_fill_holes(stickers), iterations=3))


def ink_weight(difference: Lab) -> npt.NDArray[np.float32]:
    """Return how much a pixel keeps of its distance, by how much bluer than the skin it is: 1 for none, 0.3 for ink.

    Ink is not cut out, because blue-white veils and blue naevi are lesions: where nothing else stands out, they still
    do.
    """
    bluer = np.maximum(0.0, -difference[..., 2] - _INK_START) / _INK_SCALE
    return np.asarray(1.0 - _INK_LOSS * (1.0 - np.exp(-(bluer**2))), dtype=np.float32)


def _edge(height: int, width: int) -> BoolMask:
    edge = np.zeros((height, width), dtype=bool)
    edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = True, True, True, True
    return edge


def _from_the_edge(mask: BoolMask, edge: BoolMask) -> BoolMask:
    """Keep the regions that meet the edge and stay out of the image's middle; thin links are cut first."""
    opened = ndimage.binary_opening(np.pad(mask, 3, mode="edge"), iterations=2)[3:-3, 3:-3]
    labels, count = ndimage.label(opened, structure=np.ones((3, 3)))
    height, width = mask.shape
    down = (np.arange(height) + 0.5) / height * 2 - 1
    along = (np.arange(width) + 0.5) / width * 2 - 1
    core = down[:, np.newaxis] ** 2 + along**2 < _CORE_RADIUS**2
    is_kept = np.zeros(count + 1, dtype=bool)
    is_kept[labels[edge]] = True
    is_kept[labels[core]] = False
    is_kept[0] = False
    return np.asarray(is_kept[labels])

"""Pictures to look at: contour and points over an image, and many images on one sheet."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from medtool.inert import inert

if TYPE_CHECKING:
    from medtool.protocols import RGB8, BoolMask, Points

MAX_OVERLAY_PX = 4096
LEAST_OVERLAY_PX = 240
TILE_PX = 240
CAPTION_PX = 18
MAX_TILES = 60

# Bright on skin, tissue and grey alike, and told apart with any colour vision: yellow, blue, vermilion.
CONTOUR = (255, 230, 0)
POSITIVE = (0, 130, 255)
NEGATIVE = (255, 80, 0)
EDGE = (0, 0, 0)


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet; ``overlay`` is None where there is nothing to show but the reason."""

    overlay: RGB8 | None
    caption: str
    reason: str = ""


def draw_overlay(rgb: RGB8, mask: BoolMask, points: Points, point_labels: Sequence[int], *, long_side_px: int) -> RGB8:
    """Return the image with the mask's contour and the points drawn on it.

    Parameters
    ----------
    rgb
        Shape ``(height, width, 3)``, uint8.
    mask
        Shape ``(height, width)``.
    points
        Shape ``(n, 2)``, (x, y) in pixels of the image.
    long_side_px
        A larger image is scaled down to this before drawing, so that lines keep their width. One below
        :data:`LEAST_OVERLAY_PX` is enlarged by a whole factor, so that points do not cover what they are to show.

    Returns
    -------
    uint8 array ``(height, width, 3)``.
    """
    height, width = mask.shape
    long = max(height, width)
    scale = min(max(1, LEAST_OVERLAY_PX // long), long_side_px / long)
    picture = PillowImage.fromarray(rgb)
    shown = PillowImage.fromarray(mask)
    if scale != 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = picture.resize(size, PillowImage.Resampling.BOX)
        shown = shown.resize(size, PillowImage.Resampling.NEAREST)
    unit = max(1.0, max(picture.size) / 400)
    pixels = np.array(picture)
    inside = np.array(shown)
    _paint_contour(pixels, inside, thickness_px=max(1, round(unit)))
    picture = PillowImage.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    ratio = np.array([picture.size[0] / width, picture.size[1] / height])
    for (x, y), label in zip((points + 0.5) * ratio - 0.5, point_labels, strict=True):
        _paint_point(pen, float(x), float(y), positive=label == 1, radius_px=2.5 * unit)
    return np.array(picture)


def _paint_contour(pixels: RGB8, inside: BoolMask, *, thickness_px: int) -> None:
    """Draw a bright line just inside the mask's edge and a dark one just outside it, so that it shows on anything."""
    square = np.ones((3, 3), bool)
    inner = inside & ~ndimage.binary_erosion(inside, square, iterations=thickness_px, border_value=1)
    outer = ndimage.binary_dilation(inside, square, iterations=1) & ~inside
    pixels[outer] = EDGE
    pixels[inner] = CONTOUR


def _paint_point(pen: ImageDraw.ImageDraw, x: float, y: float, *, positive: bool, radius_px: float) -> None:
    line = max(1, round(radius_px / 2.5))
    if positive:
        box = (x - radius_px, y - radius_px, x + radius_px, y + radius_px)
        pen.ellipse(box, fill=POSITIVE, outline=(255, 255, 255), width=line)
        return
    for colour, extra in ((EDGE, 2 * line), (NEGATIVE, 0)):
        for sign in (-1, 1):
            ends = (x - radius_px, y - sign * radius_px, x + radius_px, y + sign * radius_px)
            pen.line(ends, fill=colour, width=2 * line + extra)


def pick_evenly(n: int, most: int = MAX_TILES) -> list[int]:
    """Return at most ``most`` indices of ``n``, evenly spread, the first and the last among them."""
    if n <= most:
        return list(range(n))
    return [round(index * (n - 1) / (most - 1)) for index in range(most)]


def lay_out(tiles: Sequence[Tile]) -> RGB8:
    """Return one picture with all tiles in rows, captions below; uint8 ``(height, width, 3)``."""
    columns = max(1, math.ceil(math.sqrt(len(tiles) * 1.4)))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    pictures = [[_thumbnail(tile) for tile in row] for row in rows]
    heights = [max(picture.height for picture in row) for row in pictures]
    gap = 6
    width = columns * (TILE_PX + gap) + gap
    sheet = PillowImage.new("RGB", (width, sum(heights) + len(rows) * (CAPTION_PX + gap) + gap), (250, 250, 250))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    top = gap
    for row, shown, height in zip(rows, pictures, heights, strict=True):
        for column, (tile, picture) in enumerate(zip(row, shown, strict=True)):
            left = gap + column * (TILE_PX + gap)
            sheet.paste(picture, (left + (TILE_PX - picture.width) // 2, top + (height - picture.height) // 2))
            pen.text((left, top + height + 1), _shortened(tile.caption, pen, font), fill=(20, 20, 20), font=font)
        top += height + CAPTION_PX + gap
    return np.array(sheet)


def _thumbnail(tile: Tile) -> PillowImage.Image:
    """Return a tile's picture, at most a tile wide and high; a grey one where there is none."""
    if tile.overlay is None:
        box = PillowImage.new("RGB", (TILE_PX, TILE_PX // 2), (225, 225, 225))
        lines = textwrap.wrap(inert(tile.reason), width=36)[:6]
        ImageDraw.Draw(box).multiline_text((6, 6), "\n".join(lines), fill=(90, 0, 0), font_size=12)
        return box
    picture = PillowImage.fromarray(tile.overlay)
    picture.thumbnail((TILE_PX, TILE_PX))
    return picture


def _shortened(caption: str, pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Cut a caption to the tile's width, keeping its end, where file names differ."""
    text = inert(caption)
    if pen.textlength(text, font=font) <= TILE_PX:
        return text
    while text and pen.textlength(f"…{text}", font=font) > TILE_PX:
        text = text[1:]
    return f"…{text}"


def to_jpeg(rgb: RGB8) -> bytes:
    """Return the picture as JPEG without chroma subsampling, so that thin coloured lines stay sharp."""
    stream = io.BytesIO()
    PillowImage.fromarray(rgb).save(stream, "JPEG", quality=90, subsampling=0)
    return stream.getvalue()


def to_label_png(mask: BoolMask) -> bytes:
    """Return the mask as an 8-bit grey PNG of labels: 0 background, 1 object."""
    stream = io.BytesIO()
    PillowImage.fromarray(mask.astype(np.uint8)).save(stream, "PNG", compress_level=6)
    return stream.getvalue()

"""A heatmap over its image, with a bar that says what the colours mean."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

if TYPE_CHECKING:
    from medtool.protocols import RGB8, Heatmap

MAX_OVERLAY_PX = 2048
_LEAST_PX = 240
_BAR_SHARE, _GAP_SHARE = 0.035, 0.02  # of the picture's height
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_OPACITY = 0.75

#: Of equal steps to the eye, readable without colour vision and in grey: viridis.
_COLOURS: npt.NDArray[np.uint8] = np.ascontiguousarray(
    cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
)


def coloured(heatmap: Heatmap) -> RGB8:
    """Return a map of values 0–1 in colours, ``(height, width, 3)`` uint8."""
    places = np.clip(np.rint(heatmap * 255), 0, 255).astype(np.uint8)
    found: RGB8 = _COLOURS[places]
    return found


def overlay(rgb: RGB8, heatmap: Heatmap, *, caption: str = "") -> RGB8:
    """Return an image under its heatmap, beside it the bar of colours with its ends, below it a caption.

    The map is opaque where it is at its peak and clear where it is 0, so that what it does not point at stays as it is.

    Parameters
    ----------
    rgb
        Shape ``(height, width, 3)``, uint8.
    heatmap
        Shape ``(height, width)``, ≥ 0, in any unit: its peak is the upper end of the bar.
    """
    height, width = heatmap.shape
    long = max(height, width)
    scale = min(max(1, _LEAST_PX // long), MAX_OVERLAY_PX / long)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = np.asarray(PillowImage.fromarray(rgb).resize(size, PillowImage.Resampling.BOX), np.float32)
    shown = np.asarray(
        PillowImage.fromarray(np.asarray(heatmap, np.float32)).resize(size, PillowImage.Resampling.BILINEAR)
    )
    peak = float(shown.max())
    share: Heatmap = np.asarray(shown / peak if peak > 0 else shown, np.float32)
    weight = _OPACITY * np.sqrt(share)[:, :, None]
    blended = np.rint(picture * (1 - weight) + coloured(share) * weight).astype(np.uint8)
    return _with_bar(blended, peak=peak, caption=caption)


def _with_bar(picture: RGB8, *, peak: float, caption: str) -> RGB8:
    height, width = picture.shape[:2]
    font_px = max(12, round(height * 0.03))
    font = ImageFont.load_default(font_px)
    labels = [f"{peak * share:.3g}" for share in (1, 0.5, 0)]
    text_px = max(round(font.getlength(label)) for label in labels)
    gap, bar = max(6, round(height * _GAP_SHARE)), max(10, round(height * _BAR_SHARE))
    below = font_px + 2 * gap if caption else 0
    sheet = PillowImage.new("RGB", (width + gap + bar + gap // 2 + text_px + gap, height + below), _WHITE)
    sheet.paste(PillowImage.fromarray(picture), (0, 0))
    levels = np.linspace(1, 0, height, dtype=np.float32)[:, None].repeat(bar, 1)
    sheet.paste(PillowImage.fromarray(coloured(levels)), (width + gap, 0))
    pen = ImageDraw.Draw(sheet)
    for label, anchor, y in zip(labels, ("la", "lm", "ld"), (0, height // 2, height - 1), strict=True):
        pen.text((width + gap + bar + gap // 2, y), label, fill=_BLACK, font=font, anchor=anchor)
    if caption:
        pen.text((gap // 2, height + gap), _fitting(caption, font, sheet.width - gap), fill=_BLACK, font=font)
    return np.asarray(sheet)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """Return a text, its end cut off where it is too wide."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(f"{text}…") > width_px:
        text = text[:-1]
    return f"{text}…"


def to_jpeg(picture: RGB8) -> bytes:
    """Return a picture as a JPEG file."""
    stream = io.BytesIO()
    PillowImage.fromarray(picture).save(stream, "JPEG", quality=90)
    return stream.getvalue()

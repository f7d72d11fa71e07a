"""Learning curves as SVG and PNG: one panel for the losses, one for the scores of the val part; no plotting library."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

_WIDTH, _HEIGHT = 760, 314
_LEFT, _TOP, _GAP, _BOTTOM = 56, 34, 70, 58
_COLOURS = ("#1f6f8b", "#c8553d", "#5b8c3a", "#7a5195", "#b8860b")
_LETTER = 6  # px, roughly
_SCALE = 2  # of the PNG, for dense screens
_SHOWN = ("auc", "balanced_accuracy", "f1")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line through points, in pixels of the drawing; a single point is a dot."""

    points: Points
    colour: str
    width: float = 1.0
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text; ``x`` is its left end, its middle or its right end, by ``anchor``."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    is_bold: bool = False


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a panel lies, and what it spans."""

    left: float
    width: float
    epochs: tuple[int, int]
    values: tuple[float, float]

    def x(self, epoch: float) -> float:
        first, last = self.epochs
        return self.left + self.width * (epoch - first) / max(1, last - first)

    def y(self, value: float) -> float:
        low, high = self.values
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (value - low) / (high - low))


def curves(epochs: Sequence[Mapping[str, Any]], *, monitor: str, best_epoch: int) -> list[Stroke | Text]:
    """Return the drawing of a training's curves.

    Parameters
    ----------
    epochs
        The lines of ``metrics.jsonl``: ``epoch``, ``train_loss`` and ``val``, scores by name of which None is unknown.
    monitor
        Named in the second panel's title, and drawn there.
    best_epoch
        Marked by an upright line.
    """
    losses = {
        "train loss": [line["train_loss"] for line in epochs],
        "val loss": [line["val"].get("loss") for line in epochs],
    }
    names = [name for name in dict.fromkeys((*_SHOWN, monitor)) if name not in ("loss", "nll", "brier")]
    scores = {name.replace("_", " "): [line["val"].get(name) for line in epochs] for name in names}
    scores = {name: values for name, values in scores.items() if any(value is not None for value in values)}
    numbers = [int(line["epoch"]) for line in epochs]
    span = (numbers[0], numbers[-1])
    width = (_WIDTH - 2 * _LEFT - _GAP) / 2
    known = [value for values in losses.values() for value in values if value is not None]
    title = f"val (best epoch {best_epoch} by {monitor})"
    return [
        *_panel(_Frame(_LEFT, width, span, (0.0, max([*known, 1e-9]))), numbers, losses, "loss", best_epoch),
        *_panel(_Frame(_LEFT + width + _GAP, width, span, (0.0, 1.0)), numbers, scores, title, best_epoch),
    ]


def as_svg(drawing: Sequence[Stroke | Text]) -> str:
    """Return a drawing as an SVG that needs no font, script or file of its own."""
    parts = []
    for item in drawing:
        if isinstance(item, Text):
            bold = ' font-weight="bold"' if item.is_bold else ""
            parts.append(
                f'<text x="{item.x:.1f}" y="{item.y:.1f}" text-anchor="{item.anchor}"{bold}>{escape(item.text)}</text>'
            )
        elif len(item.points) == 1:
            (x, y), radius = item.points[0], item.width * 1.7
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{item.colour}"/>')
        else:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in item.points)
            dashed = ' stroke-dasharray="3 3"' if item.is_dashed else ""
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{item.colour}" stroke-width="{item.width}"{dashed}/>'
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
        ' font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def as_png(drawing: Sequence[Stroke | Text]) -> bytes:
    """Return a drawing as a PNG."""
    sheet = Pillow.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11 * _SCALE)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for item in drawing:
        if isinstance(item, Text):
            place = (item.x * _SCALE, item.y * _SCALE)
            # A little to the right once more is bold enough, and needs no other font.
            for shift in (0, 1) if item.is_bold else (0,):
                pen.text((place[0] + shift, place[1]), item.text, fill="black", font=font, anchor=anchors[item.anchor])
            continue
        points = [(x * _SCALE, y * _SCALE) for x, y in item.points]
        width = max(1, round(item.width * _SCALE))
        if len(points) == 1:
            pen.circle(points[0], item.width * 1.7 * _SCALE, fill=item.colour)
        elif item.is_dashed:
            for start, end in _dashes(*points):
                pen.line((start, end), fill=item.colour, width=width)
        else:
            pen.line(points, fill=item.colour, width=width, joint="curve")
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _panel(
    frame: _Frame, numbers: Sequence[int], lines: Mapping[str, Sequence[float | None]], title: str, best_epoch: int
) -> list[Stroke | Text]:
    left, right, bottom = frame.left, frame.left + frame.width, _HEIGHT - _BOTTOM
    low, high = frame.values
    drawing: list[Stroke | Text] = [Text(left, _TOP - 12, title, is_bold=True)]
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = low + share * (high - low)
        y = frame.y(value)
        drawing += [
            Stroke([(left, y), (right, y)], "#e4e4e4"),
            Text(left - 6, y + 4, f"{value:.3g}", "end"),
        ]
    first, last = frame.epochs
    for epoch in sorted({first, last, (first + last) // 2}):
        drawing.append(Text(frame.x(epoch), bottom + 16, str(epoch), "middle"))
    drawing += [
        Text(right, bottom + 32, "epoch", "end"),
        Stroke([(frame.x(best_epoch), float(_TOP)), (frame.x(best_epoch), float(bottom))], "#555555", is_dashed=True),
    ]
    across, down = left + 8, bottom + 32
    for (name, values), colour in zip(lines.items(), _COLOURS, strict=False):
        known = [
            (frame.x(epoch), frame.y(value)) for epoch, value in zip(numbers, values, strict=True) if value is not None
        ]
        if known:
            drawing.append(Stroke(known, colour, 1.8))
        width = 30 + _LETTER * len(name)
        if across + width > right - 30:  # where the word epoch stands
            across, down = left + 8, down + 14
        drawing += [Stroke([(across, down - 4), (across + 14, down - 4)], colour, 2), Text(across + 18, down, name)]
        across += width
    return drawing


def _dashes(start: tuple[float, float], end: tuple[float, float]) -> list[Points]:
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    n = max(1, int(length / (3 * _SCALE)))
    at = [(start[0] + (end[0] - start[0]) * k / n, start[1] + (end[1] - start[1]) * k / n) for k in range(n + 1)]
    return [(at[k], at[k + 1]) for k in range(0, n, 2)]

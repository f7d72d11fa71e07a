"""The reliability diagram: what was claimed against what came true, before and after calibration, as an SVG."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from medtool.runs.choices import Task
from medtool.train.calibration import BINS, Bins, binned, claims, expected_calibration_error

_SIDE, _LEFT, _TOP, _GAP = 260, 56, 62, 76  # px; a panel's square, and what is around it
_COUNTS, _BELOW = 56, 14  # height of the drawing of counts, and its distance from the square
_FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\""
_INK, _PALE, _GRID, _COUNT = "#1f2933", "#52606d", "#e4e7eb", "#9fb3c8"
_AS_CLAIMED, _TOO_MUCH, _TOO_LITTLE = "#6f9fc8", "#f0a04b", "#7a5195"
_KEY = (("came true as claimed", _AS_CLAIMED), ("claimed too much", _TOO_MUCH), ("claimed too little", _TOO_LITTLE))


def reliability_diagram(
    before: npt.NDArray[np.floating[Any]],
    after: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[Any],
    *,
    task: Task,
    bins: int = BINS,
    method: str = "calibration",
    note: str = "",
) -> str:
    """Return an SVG of two panels, before and after, each with the numbers of claims below it.

    In each bin of confidence, blue is what was claimed and came true; orange above it was claimed and did not, purple
    came true without having been claimed. The dashed diagonal is perfect calibration. Labels are drawn together; their
    error is the mean over labels. The text is dark on white, needs no font, script or file of its own.

    Parameters
    ----------
    before, after, targets
        Shape ``(n, classes)``, of the same images.
    method
        How it was calibrated, for the heading of the second panel.
    note
        A line below, such as on which images this was measured.

    Raises
    ------
    InputError
        If there is no image, or shapes or values are wrong.
    """
    panels = [("before", before), (f"after {method}", after)]
    drawn, spoken = [], []
    for place, (name, p) in enumerate(panels):
        pairs = claims(p, targets, task=task)
        together = binned(*(np.concatenate(part) for part in zip(*pairs, strict=True)), bins=bins)
        error = expected_calibration_error(p, targets, task=task, bins=bins)
        drawn.append(_panel(together, name, error, _LEFT + place * (_SIDE + _GAP), axes=_axes_of(task, p.shape[1])))
        spoken.append(f"{name}: expected calibration error {error:.3f}")
    width = _LEFT + 2 * _SIDE + _GAP + 24
    height = _TOP + _SIDE + _BELOW + _COUNTS + 46 + (22 if note else 0)
    images = f"{len(before):,} image{'' if len(before) == 1 else 's'}"
    title = escape(f"Reliability diagram of {images}; {'; '.join(spoken)}")
    below = _text(_LEFT, height - 10, note, fill=_PALE) if note else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' role="img" aria-label="{title}" {_FONT} font-size="12"><title>{title}</title>'
        f'<rect x="0" y="0" width="{width}" height="{height}" fill="#ffffff"/>'
        f"{_text(_LEFT, 22, f'Reliability on {images}', size=15, weight=600)}{_key(_LEFT + 220)}"
        f"{''.join(drawn)}{below}</svg>\n"
    )


def _axes_of(task: Task, n_classes: int) -> tuple[str, str]:
    if task is Task.MULTI:
        return "probability of a label", "share of images with it"
    if n_classes == 2:
        return "probability of the second class", "share of images that are of it"
    return "probability of the most probable class", "share of images with it right"


def _key(left: float) -> str:
    parts = []
    for place, (words, fill) in enumerate(_KEY):
        x = left + place * 138
        parts += [_box(x, 12, 11, 11, fill=fill), _text(x + 15, 22, words, size=11)]
    return "".join(parts)


def _panel(found: Bins, name: str, error: float, left: float, *, axes: tuple[str, str]) -> str:
    bottom = _TOP + _SIDE
    parts = [
        _text(left, _TOP - 14, name, size=13, weight=600),
        _text(left + _SIDE, _TOP - 14, f"ECE {error:.3f}", size=13, anchor="end"),
    ]
    for step in range(6):
        share = step / 5
        x, y = left + share * _SIDE, bottom - share * _SIDE
        parts += [_line(x, _TOP, x, bottom, _GRID), _line(left, y, left + _SIDE, y, _GRID)]
        parts.append(_text(left - 7, y + 4, f"{share:.1f}", fill=_PALE, size=11, anchor="end"))
        parts.append(_text(x, bottom + _BELOW + _COUNTS + 16, f"{share:.1f}", fill=_PALE, size=11, anchor="middle"))
    most = int(found.counts.max())
    for low, high, claimed, observed, count in zip(
        found.low, found.high, found.confidence, found.observed, found.counts, strict=True
    ):
        x, wide = left + low * _SIDE, (high - low) * _SIDE
        words = f"{low:.2f} to {high:.2f}: {count:,} claims of {claimed:.3f} on average, {observed:.3f} came true"
        gap_low, gap_high = sorted((claimed, observed))
        gap_fill = _TOO_MUCH if claimed > observed else _TOO_LITTLE
        tall = max(count / most * _COUNTS, 1.0)  # a bin with a single image is seen, too
        parts.append(
            f"<g><title>{words}</title>"
            f"{_box(x, bottom - gap_low * _SIDE, wide, gap_low * _SIDE, fill=_AS_CLAIMED)}"
            f"{_box(x, bottom - gap_high * _SIDE, wide, (gap_high - gap_low) * _SIDE, fill=gap_fill)}"
            f"{_box(x, bottom + _BELOW + _COUNTS - tall, wide, tall, fill=_COUNT)}</g>"
        )
    parts += [
        f'<line x1="{_n(left)}" y1="{_n(bottom)}" x2="{_n(left + _SIDE)}" y2="{_n(_TOP)}" stroke="{_INK}"'
        ' stroke-width="1.2" stroke-dasharray="5 4"/>',
        _line(left, bottom, left + _SIDE, bottom, _PALE),
        _line(left, bottom + _BELOW + _COUNTS, left + _SIDE, bottom + _BELOW + _COUNTS, _PALE),
        _text(left - 7, bottom + _BELOW + 8, f"{most:,}", fill=_PALE, size=11, anchor="end"),
        _text(left + _SIDE / 2, bottom + _BELOW + _COUNTS + 34, axes[0], anchor="middle"),
        f'<text x="{_n(left - 38)}" y="{_n(_TOP + _SIDE / 2)}" text-anchor="middle" fill="{_INK}"'
        f' transform="rotate(-90 {_n(left - 38)} {_n(_TOP + _SIDE / 2)})">{escape(axes[1])}</text>',
    ]
    return f"<g>{''.join(parts)}</g>"


def _text(
    x: float, y: float, words: str, *, fill: str = _INK, size: int = 12, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" fill="{fill}" font-size="{size}" font-weight="{weight}"'
        f' text-anchor="{anchor}">{escape(words)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" stroke="{colour}" stroke-width="1"/>'


def _box(x: float, y: float, width: float, height: float, *, fill: str) -> str:
    return (
        f'<rect x="{_n(x + 0.5)}" y="{_n(y)}" width="{_n(max(width - 1, 0.5))}" height="{_n(height)}" fill="{fill}"/>'
    )


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")

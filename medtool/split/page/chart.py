"""Scores with their intervals as a small drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _LEFT, _RIGHT, _ROW, _GAP, _TOP = 680, 256, 60, 26, 14, 8
_SIDES = (("with", "with leaks", "leaky"), ("without", "without", "clean"))


def interval_chart(comparisons: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return an SVG with a point and a 95% interval for scores with and without leaks, on a scale from 0 to 1.

    Parameters
    ----------
    comparisons
        What was scored, in words that need no escaping, and its scores as in the audit's document: ``with`` and
        ``without``, each with ``value``, ``low`` and ``high``.
    """
    block = _ROW * len(_SIDES) + _GAP
    bottom = _TOP + block * len(comparisons) - _GAP
    title = "; ".join(f"{name}: {_in_words(scores)}" for name, scores in comparisons)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {bottom + 26}" role="img" aria-labelledby="chart-title">',
        f'<title id="chart-title">{title}</title>',
    ]
    for step in range(6):
        x = _x(step / 5)
        parts.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 18}" text-anchor="middle">{step / 5:.1f}</text>')
    for place, (name, scores) in enumerate(comparisons):
        top = _TOP + block * place
        parts.append(f'<text class="name" x="0" y="{top + _ROW / 2 + 4.5}">{name}</text>')
        for row, (key, side, kind) in enumerate(_SIDES):
            parts.append(_row(scores[key], side, kind, top + _ROW * row + _ROW / 2))
    return "".join([*parts, "</svg>"])


def _row(score: Mapping[str, Any], name: str, kind: str, y: float) -> str:
    value, low, high = (float(score[key]) for key in ("value", "low", "high"))
    ends = "".join(f'<line class="bar" x1="{_x(x)}" y1="{y - 5}" x2="{_x(x)}" y2="{y + 5}"/>' for x in (low, high))
    return (
        f'<text x="{_LEFT - 14}" y="{y + 4.5}" text-anchor="end">{name}</text>'
        f'<g class="{kind}"><line class="bar" x1="{_x(low)}" y1="{y}" x2="{_x(high)}" y2="{y}"/>{ends}'
        f'<circle cx="{_x(value)}" cy="{y}" r="4.5"/></g>'
        f'<text class="value" x="{_WIDTH - _RIGHT + 14}" y="{y + 4.5}">{value:.3f}</text>'
    )


def _x(value: float) -> float:
    return round(_LEFT + value * (_WIDTH - _LEFT - _RIGHT), 1)


def _in_words(scores: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {scores[key]['value']:.3f} ({scores[key]['low']:.3f} to {scores[key]['high']:.3f})"
        for key, name, _ in _SIDES
    )

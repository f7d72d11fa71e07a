"""Scores with their intervals as a small drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 640, 150, 70, 34, 10


def interval_chart(inflation: Mapping[str, Any]) -> str:
    """Return an SVG with a point and a 95% interval for the score with and without leaks, on a scale from 0 to 1.

    Parameters
    ----------
    inflation
        As in the audit's document: ``with`` and ``without``, each with ``value``, ``low`` and ``high``.
    """
    rows = [("with the leaks", inflation["with"], "leaky"), ("without them", inflation["without"], "clean")]
    bottom = _TOP + _ROW * len(rows)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {bottom + 28}" role="img" aria-labelledby="chart-title">',
        f'<title id="chart-title">{_sentence(rows)}</title>',
    ]
    for step in range(6):
        x = _x(step / 5)
        parts.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 18}" text-anchor="middle">{step / 5:.1f}</text>')
    for place, (name, score, kind) in enumerate(rows):
        value, low, high = (float(score[key]) for key in ("value", "low", "high"))
        y = _TOP + _ROW * place + _ROW / 2
        parts.append(f'<text x="{_LEFT - 14}" y="{y + 4.5}" text-anchor="end">{name}</text>')
        parts.append(f'<g class="{kind}"><line class="bar" x1="{_x(low)}" y1="{y}" x2="{_x(high)}" y2="{y}"/>')
        parts += [f'<line class="bar" x1="{_x(end)}" y1="{y - 5}" x2="{_x(end)}" y2="{y + 5}"/>' for end in (low, high)]
        parts.append(f'<circle cx="{_x(value)}" cy="{y}" r="5"/></g>')
        parts.append(f'<text class="value" x="{_WIDTH - _RIGHT + 14}" y="{y + 4.5}">{value:.3f}</text>')
    return "".join([*parts, "</svg>"])


def _x(value: float) -> float:
    inside = min(1.0, max(0.0, value))
    return round(_LEFT + inside * (_WIDTH - _LEFT - _RIGHT), 1)


def _sentence(rows: list[tuple[str, Mapping[str, Any], str]]) -> str:
    scores = [
        f"{name} {float(score['value']):.3f} ({float(score['low']):.3f} to {float(score['high']):.3f})"
        for name, score, _ in rows
    ]
    return f"Nearest-neighbour accuracy: {', '.join(scores)}"

"""The audit as one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from medtool.inert import inert
from medtool.protocols import Steps
from medtool.split.page.chart import interval_chart
from medtool.split.page.pairs import Place, Selection, ShownPair
from medtool.split.page.parts import PartCount
from medtool.split.page.thumbnails import thumbnails_of

#: Cases of a finding that are listed, of these the ones that stand open, and rows that a case names.
MAX_CASES, OPEN_CASES, MAX_ROWS = 200, 12, 8
#: Longer texts are cut: a cell may hold a megabyte, and a page many cells.
MOST_CHARACTERS = 400

_PLACES = {
    Place.TWO_PARTS: "In two parts",
    Place.TWO_MANIFESTS: "In both manifests",
    Place.ONE_PART: "In one part, or not used",
    Place.NOBODY: "Blank, or shared by many patients: no leak",
}


def page_of(
    document: Mapping[str, Any],
    *,
    parts: Sequence[PartCount] | None = None,
    selection: Selection | None = None,
    workers: int = 1,
    steps: Callable[[int, str], AbstractContextManager[Steps]] | None = None,
) -> str:
    """Return the page of an audit.

    Parameters
    ----------
    document
        What ``medtool split audit --json`` prints.
    parts
        What each part holds; None shows the number of images alone.
    selection
        The duplicate pairs to show side by side; None where no image was opened.
    workers
        Processes that read the images; 0 is automatic.
    steps
        Shows how far the reading of images is.
    """
    pairs = selection.pairs if selection else ()
    paths = [side.path for pair in pairs for side in (pair.first, pair.second) if isinstance(side.path, Path)]
    thumbnails = thumbnails_of(paths, workers=workers, steps=steps)
    inflation = document.get("inflation")
    return _template().render(
        audit=document,
        parts=[PartCount(name, n) for name, n in document["parts"].items()] if parts is None else parts,
        counts=_counts(document),
        groups=_by_place(selection) if selection else [],
        pictures=thumbnails,
        chart=markupsafe.Markup(interval_chart(_compared(inflation))) if inflation else "",
        limits={"cases": MAX_CASES, "open": OPEN_CASES, "rows": MAX_ROWS},
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = _number
    environment.filters["counted"] = _counted
    source = importlib.resources.files(__package__).joinpath("page.html.j2")
    return environment.from_string(source.read_text("utf-8"))


def _finalized(value: Any) -> Any:
    """Make every text inert that the template shows, but what is HTML already."""
    return shown(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value


def shown(text: str) -> str:
    """Return a text from outside as the page shows it: inert, and cut with a count of the rest if it is very long."""
    more = len(text) - MOST_CHARACTERS
    return inert(text) if more <= 0 else f"{inert(text[:MOST_CHARACTERS])}… ({more:,} more characters)"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _counts(document: Mapping[str, Any]) -> dict[str, int]:
    """Return how many findings there are of each severity, the worst first."""
    severities = [found["severity"] for found in document["findings"]]
    return {severity: severities.count(severity) for severity in ("high", "medium", "low") if severity in severities}


def _compared(inflation: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what the chart compares: all scored images, and those that something leaks into."""
    compared = [("all images", inflation)]
    if inflation["leaking"]:
        compared.append(("images with a leak", inflation["leaking"]))
    return compared


def _by_place(selection: Selection) -> list[tuple[str, list[ShownPair], int]]:
    """Return a heading, the pairs shown and the number of all pairs, for each place that has any."""
    return [
        (_PLACES[place], [pair for pair in selection.pairs if pair.place is place], total)
        for place, total in selection.totals.items()
    ]

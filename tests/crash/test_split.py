"""``medtool split make`` and ``split audit`` killed and failed wherever they write, then run again."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtool.storage import TEMPORARY_PREFIX
from tests.crash.sweep import Point, run, stop_at, tree, write_points

# A few of the points here; all of them with MEDTOOL_CRASH_POINTS=0, which ``nox -s crash`` sets.
MOST_POINTS = int(os.environ.get("MEDTOOL_CRASH_POINTS", "3"))

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

MEDTOOL = [sys.executable, "-m", "medtool", "split"]
MAKE = [*MEDTOOL, "make", "manifest.csv", "--keep-duplicates-together", "--workers", "1", "--out", "split.csv"]
AUDIT = [*MEDTOOL, "audit", "leaky.csv", "--workers", "1", "--fail-on", "never", "--html", "page.html"]
COMMANDS = {"make": MAKE, "audit": [*AUDIT, "--fix", "repaired.csv"]}
GIVEN = ("images", "manifest.csv", "leaky.csv")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 patients with two images each, and a copy of one image in another part."""
    folder = tmp_path_factory.mktemp("split")
    (folder / "images").mkdir()
    rng = np.random.default_rng(905)
    rows, leaky = ["image,patient,label"], ["image,patient,label,split"]
    for index in range(24):
        small = rng.uniform(0, 255, (9, 12, 3)).astype(np.uint8)
        Image.fromarray(small).resize((120, 90)).save(folder / f"images/{index:02}.png")
        row = f"images/{index:02}.png,P{index // 2},{'ab'[index // 2 % 2]}"
        rows.append(row)
        leaky.append(f"{row},{('train', 'train', 'train', 'val', 'val', 'test')[index % 6]}")
    shutil.copy(folder / "images/00.png", folder / "images/05.png")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "leaky.csv").write_text("\n".join(leaky) + "\n")
    return folder


def clear(work: Path) -> None:
    for path in work.iterdir():
        if path.name not in GIVEN:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def results(work: Path) -> dict[str, bytes]:
    """Return what was written but the fingerprints, and but a write that was killed half-way, which nothing reads.

    In how many files the fingerprints are depends on how often the command was stopped.
    """
    files = tree(work).items()
    return {name: data for name, data in files if not name.startswith(("medtool.hashes/", TEMPORARY_PREFIX))}


def some(points: list[Point]) -> list[Point]:
    if MOST_POINTS == 0 or len(points) <= MOST_POINTS:
        return points
    return [points[index * (len(points) - 1) // (MOST_POINTS - 1)] for index in range(MOST_POINTS)]


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_write_call_the_same_command_ends_like_an_uninterrupted_one(
    name: str, work: Path, tmp_path: Path
) -> None:
    command = COMMANDS[name]
    clear(work)
    points = write_points(command, work, tmp_path / "log", all_threads=False)
    expected = results(work)
    assert len(expected) > 24 + len(GIVEN)
    assert len(points) > 8
    for point in some(points):
        clear(work)
        assert stop_at(point, "kill", command, work, all_threads=False).code == -9, point
        again = run(command, work)
        assert again.code == 0, (point, again.err)
        assert results(work) == expected, point


@pytest.mark.parametrize("action", ["disk full", "disk broken"] if MOST_POINTS == 0 else ["disk full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_failing_disk_is_one_clear_line_and_loses_nothing(name: str, action: str, work: Path, tmp_path: Path) -> None:
    command = COMMANDS[name]
    clear(work)
    points = write_points(command, work, tmp_path / "log", all_threads=False)
    expected = results(work)
    for point in some(points):
        clear(work)
        ended = stop_at(point, action, command, work, all_threads=False)
        assert "Traceback" not in ended.err, (point, ended.err)
        assert ended.code in (0, 1), (point, ended.err)
        again = run(command, work)
        assert again.code == 0, (point, again.err)
        assert results(work) == expected, point

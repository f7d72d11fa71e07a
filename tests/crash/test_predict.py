"""``medtool predict`` killed and failed wherever it writes, then run again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.crash.forks import Forks, forks
from tests.crash.sweep import Point, tree
from tests.train.conftest import MODEL, write_pictures

# A few of the points here; all of them with MEDTOOL_CRASH_POINTS=0, which ``nox -s crash`` sets.
MOST_POINTS = int(os.environ.get("MEDTOOL_CRASH_POINTS", "4"))
N_IMAGES = 600  # three chunks

COMMAND = ["predict", "run", "images", "--out", "out", "--device", "cpu", "--patients", "mean", "-q"]
MODULES = ["medtool.cli.app", "medtool.cli.asked", "medtool.inputs", "medtool.split.recognise", "timm"]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork and POSIX signals")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@pytest.fixture(scope="module")
def medtool() -> Iterator[Forks]:
    with forks(*MODULES) as found:
        yield found


@pytest.fixture(scope="module")
def work(medtool: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, and images that it has not seen."""
    folder = tmp_path_factory.mktemp("crash")
    write_pictures(folder / "train")
    train = ["train", "train/manifest.csv", "--model", MODEL, "--size", "32", "--epochs", "1", "--out", "run"]
    ended = medtool.run([*train, "--device", "cpu"], folder)
    assert ended.code == 0, ended.err
    (folder / "images").mkdir()
    rng = np.random.default_rng(905)
    for index in range(N_IMAGES):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(folder / f"images/{index:03}.png")
    (folder / "images/300.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def expected(medtool: Forks, work: Path) -> dict[str, bytes]:
    """Return what an uninterrupted call writes."""
    ended = medtool.run(COMMAND, work)
    assert ended.code == 4, ended.err
    files = tree(work / "out")
    assert set(files) == {"predictions.csv", "patients.csv", "lineage.json"}
    assert files["predictions.csv"].count(b"\n") == N_IMAGES + 1
    return files


@pytest.fixture(scope="module")
def points(
    medtool: Forks, work: Path, expected: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> list[Point]:
    shutil.rmtree(work / "out", ignore_errors=True)
    # The call ends with 4, and one that is followed to its end must not: the broken image is mended for this one.
    broken = (work / "images/300.png").read_bytes()
    shutil.copy(work / "images/301.png", work / "images/300.png")
    found = medtool.write_points(COMMAND, work, tmp_path_factory.mktemp("log") / "strace")
    (work / "images/300.png").write_bytes(broken)
    assert len(found) > 20, found
    return found


def some(points: list[Point], most: int) -> list[Point]:
    if MOST_POINTS == 0 or len(points) <= most:
        return points
    return [points[index * (len(points) - 1) // (most - 1)] for index in range(most)]


@needs_strace
def test_killed_at_any_write_call_it_goes_on_to_the_same_bytes(
    medtool: Forks, work: Path, expected: dict[str, bytes], points: list[Point]
) -> None:
    for point in some(points, MOST_POINTS):
        shutil.rmtree(work / "out", ignore_errors=True)
        ended = medtool.stop_at(point, "kill", COMMAND, work)
        assert ended.code in (-signal.SIGKILL, 137), (point, ended)
        again = medtool.run(COMMAND, work)
        assert again.code == 4, (point, again.err)
        assert tree(work / "out") == expected, point


@needs_strace
@pytest.mark.parametrize("action", ["disk full", "disk broken"])
def test_a_disk_that_fails_ends_it_with_one_line_and_the_next_call_goes_on(
    medtool: Forks, work: Path, expected: dict[str, bytes], points: list[Point], action: str
) -> None:
    writes = [point for point in points if point.call in ("fsync", "rename", "mkdir")]
    for point in some(writes, 2):
        shutil.rmtree(work / "out", ignore_errors=True)
        ended = medtool.stop_at(point, action, COMMAND, work)
        assert ended.code in (1, 4), (point, ended)
        assert "Traceback" not in ended.err
        if ended.code == 1:
            assert len([line for line in ended.err.splitlines() if line.startswith("medtool:")]) == 1, ended.err
        again = medtool.run(COMMAND, work)
        assert again.code == 4, (point, again.err)
        assert tree(work / "out") == expected, point

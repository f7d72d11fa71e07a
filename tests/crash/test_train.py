"""``medtool train`` killed and failed wherever it writes, and at random moments, then run again."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medtool.storage import TEMPORARY_PREFIX
from tests.crash.forks import Forks, forks
from tests.crash.sweep import Point, tree
from tests.train.conftest import MODEL, write_pictures

# A few of the points here; all of them, and 20 moments, with MEDTOOL_CRASH_POINTS=0, which ``nox -s crash`` sets.
MOST_POINTS = int(os.environ.get("MEDTOOL_CRASH_POINTS", "2"))
MOMENTS = 20 if MOST_POINTS == 0 else 1

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

COMMAND = [
    *("train", "manifest.csv", "--model", MODEL, "--size", "32", "--batch-size", "8"),
    *("--epochs", "2", "--ema", "0.9", "--threads", "1", "--device", "cpu", "--out", "run"),
]
MODULES = ["medtool.cli.app", "medtool.manifest", "medtool.split.gate", "timm"]


@pytest.fixture(scope="module")
def medtool() -> Iterator[Forks]:
    with forks(*MODULES) as found:
        yield found


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small data set."""
    folder = tmp_path_factory.mktemp("crash") / "data"
    write_pictures(folder, n_patients=20)
    return folder


def clear(work: Path) -> None:
    shutil.rmtree(work / "run", ignore_errors=True)


def results(work: Path) -> dict[str, bytes]:
    """Return what the run holds; the seconds that its epochs took are its own."""
    found = {name: data for name, data in tree(work / "run").items() if TEMPORARY_PREFIX not in name}
    lines = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    for line in lines:
        del line["seconds"], line["images_per_s"]
    return {**found, "metrics.jsonl": json.dumps(lines).encode()}


def some(points: list[Point]) -> list[Point]:
    if MOST_POINTS == 0 or len(points) <= MOST_POINTS:
        return points
    return [points[index * (len(points) - 1) // (MOST_POINTS - 1)] for index in range(MOST_POINTS)]


@pytest.fixture(scope="module")
def uninterrupted(
    medtool: Forks, work: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], list[Point], float]:
    """Return what an uninterrupted training writes, its write calls, and how many seconds it takes."""
    clear(work)
    points = medtool.write_points(COMMAND, work, tmp_path_factory.mktemp("log") / "log")
    expected = results(work)
    clear(work)
    began = time.monotonic()
    assert medtool.run(COMMAND, work).code == 0
    seconds = time.monotonic() - began
    assert results(work) == expected
    assert any(name.endswith(".safetensors") for name in expected)
    assert len(points) > 40
    return expected, points, seconds


def test_killed_at_any_write_call_it_goes_on_to_the_same_weights(
    medtool: Forks, work: Path, uninterrupted: tuple[dict[str, bytes], list[Point], float]
) -> None:
    expected, points, _ = uninterrupted
    for point in some(points):
        clear(work)
        assert medtool.stop_at(point, "kill", COMMAND, work).code == -signal.SIGKILL, point
        again = medtool.run(COMMAND, work)
        assert again.code == 0, (point, again.err)
        assert results(work) == expected, point


def test_killed_at_random_moments_it_goes_on_to_the_same_weights(
    medtool: Forks, work: Path, uninterrupted: tuple[dict[str, bytes], list[Point], float]
) -> None:
    expected, _, seconds = uninterrupted
    chance = random.Random(905)
    for _ in range(MOMENTS):
        clear(work)
        moment = chance.uniform(0.3, 1.0) * seconds
        process = medtool.start(COMMAND, work)
        process.go()
        time.sleep(moment)
        process.kill(signal.SIGKILL)
        process.wait()
        again = medtool.run(COMMAND, work)
        assert again.code == 0, (moment, again.err)
        assert results(work) == expected, moment


@pytest.mark.parametrize("action", ["disk full", "disk broken"] if MOST_POINTS == 0 else ["disk full"])
def test_a_failing_disk_is_one_clear_line_and_loses_nothing(
    medtool: Forks, work: Path, uninterrupted: tuple[dict[str, bytes], list[Point], float], action: str
) -> None:
    expected, points, _ = uninterrupted
    for point in some(points)[1:]:
        clear(work)
        ended = medtool.stop_at(point, action, COMMAND, work)
        assert "Traceback" not in ended.err, (point, ended.err)
        assert ended.code in (0, 1), (point, ended.err)
        again = medtool.run(COMMAND, work)
        assert again.code == 0, (point, again.err)
        assert results(work) == expected, point

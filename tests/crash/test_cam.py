"""``medtool cam`` killed and failed wherever it writes and at any moment, also beside another, then run again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.crash.forks import Forks, Process, forks
from tests.crash.sweep import Point
from tests.train.conftest import MODEL, write_pictures

# A few of the points here; all of them with MEDTOOL_CRASH_POINTS=0, which ``nox -s crash`` sets.
MOST_POINTS = int(os.environ.get("MEDTOOL_CRASH_POINTS", "4"))
N_IMAGES = 32
COMMAND = ["cam", "run", "images", "--out", "out/cams.h5", "--device", "cpu", "--batch-size", "4", "-q"]
UPDATE = [each.replace("images", "more") for each in COMMAND]
MODULES = ["medtool.cli.app", "medtool.cli.asked", "medtool.inputs", "medtool.split.recognise", "timm"]
SMALL_PARTS = "medtool.cam.job._PART_ROWS=8"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork and POSIX signals")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@pytest.fixture(scope="module")
def medtool() -> Iterator[Forks]:
    with forks(*MODULES, SMALL_PARTS) as found:
        yield found


@pytest.fixture(scope="module")
def work(medtool: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, images that it has not seen, and the same with some changed and some more."""
    folder = tmp_path_factory.mktemp("crash")
    write_pictures(folder / "train")
    train = ["train", "train/manifest.csv", "--model", MODEL, "--size", "64", "--epochs", "1", "--out", "run"]
    ended = medtool.run([*train, "--device", "cpu"], folder)
    assert ended.code == 0, ended.err
    rng = np.random.default_rng(905)
    (folder / "images").mkdir()
    for index in range(N_IMAGES):
        write_noise(folder / f"images/{index:03}.png", rng)
    shutil.copytree(folder / "images", folder / "more")
    for index in (3, 17, 18):
        write_noise(folder / f"more/{index:03}.png", rng)
    for name in ("000a", "015a", "zzz"):
        write_noise(folder / f"more/{name}.png", rng)
    return folder


def write_noise(path: Path, rng: np.random.Generator) -> None:
    Image.fromarray(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def expected(medtool: Forks, work: Path) -> bytes:
    """Return the cache of an uninterrupted call."""
    ended = medtool.run(COMMAND, work)
    assert ended.code == 0, ended.err
    return only_file(work / "out")


@pytest.fixture(scope="module")
def updated(medtool: Forks, work: Path, expected: bytes) -> bytes:
    """Return that cache after an uninterrupted call with images of which some changed and some were added."""
    put(work / "out", expected)
    ended = medtool.run(UPDATE, work)
    assert ended.code == 0, ended.err
    found = only_file(work / "out")
    assert found != expected
    return found


@pytest.fixture(params=["new", "updated"])
def case(request: pytest.FixtureRequest) -> tuple[list[str], bytes | None, bytes]:
    """Return a command, the cache that it finds, and the one that it makes of it."""
    expected = request.getfixturevalue("expected")
    if request.param == "new":
        return COMMAND, None, expected
    return UPDATE, expected, request.getfixturevalue("updated")


def only_file(folder: Path) -> bytes:
    """Return the cache, beside which there must be nothing."""
    assert [path.name for path in folder.iterdir()] == ["cams.h5"]
    return (folder / "cams.h5").read_bytes()


def put(folder: Path, cache: bytes | None) -> None:
    """Leave nothing in a folder but a cache."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if cache is not None:
        (folder / "cams.h5").write_bytes(cache)


def some(points: list[Point]) -> list[Point]:
    if MOST_POINTS == 0 or len(points) <= MOST_POINTS:
        return points
    return [points[index * (len(points) - 1) // (MOST_POINTS - 1)] for index in range(MOST_POINTS)]


def points_of_case(medtool: Forks, work: Path, command: list[str], before: bytes | None, scratch: Path) -> list[Point]:
    put(work / "out", before)
    return medtool.write_points(command, work, scratch / "strace")


@needs_strace
def test_killed_at_any_write_call_it_goes_on_to_the_same_bytes(
    medtool: Forks, work: Path, case: tuple[list[str], bytes | None, bytes], tmp_path: Path
) -> None:
    command, before, after = case
    points = points_of_case(medtool, work, command, before, tmp_path)
    assert len(points) > 35, points
    for point in some(points):
        put(work / "out", before)
        ended = medtool.stop_at(point, "kill", command, work)
        assert ended.code == -signal.SIGKILL, (point, ended)
        if before is not None:
            assert (work / "out/cams.h5").read_bytes() in (before, after), point
        again = medtool.run(command, work)
        assert again.code == 0, (point, again.err)
        assert only_file(work / "out") == after, point


@needs_strace
@pytest.mark.parametrize("action", ["disk full", "disk broken", "interrupted call"])
def test_a_disk_that_fails_ends_it_with_one_line_and_the_next_call_goes_on(
    medtool: Forks, work: Path, case: tuple[list[str], bytes | None, bytes], tmp_path: Path, action: str
) -> None:
    command, before, after = case
    if MOST_POINTS and (before is None) == (action == "disk broken"):
        pytest.skip("all of them in nox -s crash")
    points = points_of_case(medtool, work, command, before, tmp_path)
    codes = []
    for point in some([point for point in points if point.call in ("write", "fsync", "rename", "mkdir", "ftruncate")]):
        put(work / "out", before)
        ended = medtool.stop_at(point, action, command, work)
        # Calls that only tidy up, or that the system makes again, may fail without harm.
        assert ended.code in (0, 1), (point, ended)
        codes.append(ended.code)
        if ended.code == 1:
            errors = [line for line in ended.err.splitlines() if line.startswith("medtool:")]
            assert len(errors) == 1, (point, ended.err)
            assert "Traceback" not in ended.err, (point, ended.err)
        if before is not None:
            assert (work / "out/cams.h5").read_bytes() in (before, after), point
        again = medtool.run(command, work)
        assert again.code == 0, (point, again.err)
        assert only_file(work / "out") == after, point
    assert action == "interrupted call" or codes.count(1) > len(codes) / 2, codes


def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(
    medtool: Forks, work: Path, case: tuple[list[str], bytes | None, bytes]
) -> None:
    command, before, after = case
    rng = random.Random(905)
    put(work / "out", before)
    started = time.monotonic()
    assert medtool.run(command, work).code == 0
    whole = time.monotonic() - started
    kills = 0
    for _ in range(25 if MOST_POINTS == 0 else 2):
        put(work / "out", before)
        process = medtool.start(command, work)
        process.go()
        time.sleep(rng.uniform(0.1, 1) * whole)
        process.kill(signal.SIGKILL)
        kills += process.wait().code == -signal.SIGKILL
        again = medtool.run(command, work)
        assert again.code == 0, again.err
        assert only_file(work / "out") == after
    assert kills


def until(is_so: Callable[[], bool], process: Process) -> None:
    deadline = time.monotonic() + 60
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert is_so(), process.wait()


def parts_of(work: Path) -> list[Path]:
    return sorted((work / "out").glob(".medtool-parts-*/*.h5"))


def test_an_interrupt_ends_it_soon_with_130_and_the_next_call_goes_on(
    medtool: Forks, work: Path, expected: bytes
) -> None:
    put(work / "out", None)
    process = medtool.start(COMMAND, work)
    process.go()
    until(lambda: bool(parts_of(work)), process)
    before = time.monotonic()
    process.kill(signal.SIGINT)
    ended = process.wait()
    assert time.monotonic() - before < 5
    assert ended.code in (0, 130)  # 0 where it was about to end
    assert "Traceback" not in ended.err
    assert not list((work / "out").rglob(".medtool-tmp-*"))
    assert medtool.run(COMMAND, work).code == 0
    assert only_file(work / "out") == expected


def test_a_second_process_is_told_who_works_on_the_cache_and_takes_over_when_that_one_is_dead(
    medtool: Forks, work: Path, expected: bytes
) -> None:
    put(work / "out", None)
    first = medtool.start(COMMAND, work)
    first.go()
    until(lambda: bool(parts_of(work)), first)
    first.kill(signal.SIGSTOP)

    second = medtool.run(COMMAND, work)

    assert second.code == 1
    assert f"out/cams.h5 is being written by another medtool process (process {first.pid} on " in second.err
    first.kill(signal.SIGKILL)
    first.wait()
    assert medtool.run(COMMAND, work).code == 0
    assert only_file(work / "out") == expected


def test_processes_that_begin_and_die_at_any_moment_beside_one_another_do_no_harm(
    medtool: Forks, work: Path, expected: bytes
) -> None:
    rng = random.Random(906)
    for _ in range(25 if MOST_POINTS == 0 else 2):
        put(work / "out", expected if rng.random() < 0.5 else None)
        processes = [medtool.start(COMMAND, work) for _ in range(3)]
        for process in processes:
            process.go()
            time.sleep(rng.uniform(0, 0.3))
        if rng.random() < 0.5:
            processes[0].kill(signal.SIGKILL)
        for process in processes:
            ended = process.wait()
            is_refused = ended.code == 1 and "is being written by another medtool process" in ended.err
            assert ended.code in (0, -signal.SIGKILL) or is_refused, ended
        assert medtool.run(COMMAND, work).code == 0
        assert only_file(work / "out") == expected


def test_a_place_that_cannot_be_written_to_is_refused_before_the_network_is_loaded(medtool: Forks, work: Path) -> None:
    (work / "a-file").write_text("no folder")
    checkpoint = next((work / "run/checkpoints").glob("*.safetensors"))
    weights = checkpoint.read_bytes()
    checkpoint.write_bytes(b"damaged")
    try:
        ended = medtool.run([each.replace("out/", "a-file/") for each in COMMAND], work)
    finally:
        checkpoint.write_bytes(weights)
    assert ended.code == 1
    (line,) = [line for line in ended.err.splitlines() if line.startswith("medtool:")]
    assert line.startswith("medtool: cannot write a-file")

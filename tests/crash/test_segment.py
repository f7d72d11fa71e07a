"""``medtool segment`` killed and failed wherever it writes, and at any moment, then run again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.crash.sweep import ENVIRONMENT, Point, kill_after, run, stop_at, tree, write_points

# A few of the points here; all of them with MEDTOOL_CRASH_POINTS=0, which ``nox -s crash`` sets.
MOST_POINTS = int(os.environ.get("MEDTOOL_CRASH_POINTS", "4"))
N_IMAGES = 20 if MOST_POINTS == 0 else 6

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def command(*more: str, workers: int = 1) -> list[str]:
    segment = [sys.executable, "-m", "medtool", "segment", "images", "--out", "out", "--workers", str(workers)]
    return [*segment, "--segmenter", "random-walker", "--overlays", "--no-progress", *more]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small images with one dark disc each, in two sub-folders."""
    folder = tmp_path_factory.mktemp("crash") / "images"
    rng = np.random.default_rng(905)
    ys, xs = np.mgrid[:64, :80]
    for index in range(N_IMAGES):
        x, y, radius = rng.uniform(30, 50), rng.uniform(25, 40), rng.uniform(8, 16)
        pixels = np.full((64, 80, 3), (215, 175, 160), np.float64) + rng.normal(0, 4, (64, 80, 3))
        pixels[np.hypot(xs - x, ys - y) < radius] -= 90
        target = folder / f"site{index % 2}" / f"image{index:02}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target)
    return folder


@pytest.fixture(scope="module")
def work(images: Path) -> Path:
    return images.parent


@pytest.fixture
def fresh(work: Path) -> Path:
    shutil.rmtree(work / "out", ignore_errors=True)
    return work


@pytest.fixture(scope="module")
def expected(work: Path, images: Path) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    shutil.rmtree(work / "out", ignore_errors=True)
    ended = run(command(), work)
    assert ended.code == 0, ended.err
    files = tree(work / "out")
    assert len([name for name in files if name.startswith("masks/")]) == N_IMAGES
    return files


def some(points: list[Point]) -> list[Point]:
    if MOST_POINTS == 0 or len(points) <= MOST_POINTS:
        return points
    return [points[index * (len(points) - 1) // (MOST_POINTS - 1)] for index in range(MOST_POINTS)]


@pytest.fixture(scope="module")
def points(work: Path, expected: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    shutil.rmtree(work / "out", ignore_errors=True)
    found = write_points(command(), work, tmp_path_factory.mktemp("log") / "strace")
    assert len(found) > 4 * N_IMAGES, found
    return found


def assert_goes_on_to(expected: dict[str, bytes], work: Path, where: object) -> None:
    again = run(command(), work)
    assert again.code == 0, (where, again.err)
    assert tree(work / "out") == expected, where


@needs_strace
def test_killed_at_any_write_call_it_goes_on_to_the_same_result(
    work: Path, expected: dict[str, bytes], points: list[Point]
) -> None:
    for point in some(points):
        shutil.rmtree(work / "out", ignore_errors=True)
        ended = stop_at(point, "kill", command(), work)
        assert ended.code in (-signal.SIGKILL, 137), (point, ended)
        assert_goes_on_to(expected, work, point)


@needs_strace
@pytest.mark.parametrize("action", ["disk full", "disk broken"])
def test_a_disk_that_fails_ends_it_with_one_line_and_code_1(
    work: Path, expected: dict[str, bytes], points: list[Point], action: str
) -> None:
    writes = [point for point in points if point.call in ("write", "fsync", "rename", "mkdir")]
    codes = []
    for point in some(writes)[:: 1 if MOST_POINTS == 0 else 2]:
        shutil.rmtree(work / "out", ignore_errors=True)
        ended = stop_at(point, action, command(), work)
        # Calls that only tidy up, or that write to a terminal, may fail without harm.
        assert ended.code in (0, 1), (point, ended)
        codes.append(ended.code)
        if ended.code == 1:
            errors = [line for line in ended.err.splitlines() if line.startswith("medtool:")]
            assert len(errors) == 1, (point, ended.err)
            assert "Traceback" not in ended.err, (point, ended.err)
        assert_goes_on_to(expected, work, point)
    assert codes.count(1) > len(codes) / 2


@posix_only
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_it_goes_on_to_the_same_result(
    work: Path, expected: dict[str, bytes], workers: int
) -> None:
    rng = random.Random(905)
    shutil.rmtree(work / "out", ignore_errors=True)
    before = time.monotonic()
    run(command(workers=workers), work)
    whole = time.monotonic() - before
    kills = 0
    for _ in range(25 if MOST_POINTS == 0 else 2):
        shutil.rmtree(work / "out", ignore_errors=True)
        moment = rng.uniform(0.2, 0.95) * whole
        kills += kill_after(moment, command(workers=workers), work) == -signal.SIGKILL
        assert_goes_on_to(expected, work, moment)
    assert kills


@posix_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_soon_with_its_workers_and_its_code(
    fresh: Path, expected: dict[str, bytes], number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        command(workers=2),
        cwd=fresh,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=obey_interrupts,  # noqa: PLW1509  # this process has no threads then
    )
    deadline = time.monotonic() + 60
    while not list((fresh / "out").rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children_of(process.pid)
    before = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - before < 5
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "run the same command again" in err
    assert workers
    assert not [worker for worker in workers if is_alive(worker)]
    assert not [name for name in tree(fresh / "out") if ".medtool-tmp" in name or "lock" in name]
    assert_goes_on_to(expected, fresh, number)


@posix_only
def test_workers_end_when_their_parent_is_killed(fresh: Path, expected: dict[str, bytes]) -> None:
    process = subprocess.Popen(
        command(workers=2), cwd=fresh, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list((fresh / "out").rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children_of(process.pid)
    process.kill()
    process.wait()
    assert workers
    deadline = time.monotonic() + 5
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [worker for worker in workers if is_alive(worker)]


@posix_only
def test_a_reader_that_leaves_early_and_a_closed_stdout_give_no_traceback(fresh: Path) -> None:
    binary = f"{sys.executable} -m medtool"
    for tail in ("| head -c 0", ">&-", "| head -1", "2>&-", "2>/dev/full"):
        shutil.rmtree(fresh / "out", ignore_errors=True)
        ended = run(["bash", "-o", "pipefail", "-c", f"{binary} segment images --out out -q {tail}"], fresh)
        assert (ended.code, ended.err) == (0, ""), tail
        assert "\x1b" not in ended.out
        assert (fresh / "out" / "masks.csv").exists()
    ended = run(["bash", "-c", f"{binary} segment images --out out >/dev/full"], fresh)
    assert ended.code == 1
    assert "cannot write to stdout: no space left on device" in ended.err


@posix_only
@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_an_interrupt_while_starting_gives_no_traceback(fresh: Path, seconds: float) -> None:
    process = subprocess.Popen(
        command(),
        cwd=fresh,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=obey_interrupts,  # noqa: PLW1509  # this process has no threads then
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert "medtool/" not in err, err  # no line of our code in a traceback; Python's own start may have one
    assert process.returncode in (130, -signal.SIGINT)


def obey_interrupts() -> None:
    """Undo what a shell does to its background jobs, of which this test run may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def children_of(process: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [int(text) for text in found.stdout.split()]


def is_alive(process: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")

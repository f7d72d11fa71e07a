"""What is checked, each as one session: ``nox -s tests``, ``nox -s lint``, ``nox -s plugins``, ``nox -s docs``."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "plugins", "docs"]
nox.options.reuse_existing_virtualenvs = True

PEERS = ("imagededup>=0.3.2", "faiss-cpu>=1.8")
LINTERS = ("ruff==0.17.6", "import-linter==2.16", "mypy==2.4.1")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the whole suite on an installed medtool."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, the layers and the types."""
    session.install(".[test]", *LINTERS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("mypy")


@nox.session
def plugins(session: nox.Session) -> None:
    """Install every plugin of plugins/ as the distribution that it is, and run its tests and contracts."""
    session.install(".[test]")
    for folder in sorted(path.parent for path in Path("plugins").glob("*/pyproject.toml")):
        session.install(f"./{folder.as_posix()}")
        session.run("pytest", "--rootdir", str(folder), "-c", str(folder / "pyproject.toml"), str(folder / "tests"))
    for name in ("example-segmenter", "example-net"):
        session.run("medtool", "plugins", "check", name)


@nox.session
def crash(session: nox.Session) -> None:
    """Kill and fail the commands at every one of their write calls and at random moments; needs strace."""
    session.install(".[test]")
    session.run("pytest", "tests/crash", env={"MEDTOOL_CRASH_POINTS": "0"})


@nox.session
def track(session: nox.Session) -> None:
    """Check every tracker that ``medtool train --track`` knows; the suite has TensorBoard alone."""
    session.install(".[test,track]")
    session.run("pytest", "tests/train/test_trackers.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Run the property tests on new random examples, many more than the suite's."""
    session.install(".[test]")
    session.run("pytest", "-m", "hypothesis", *session.posargs, env={"HYPOTHESIS_PROFILE": "fuzz"})


@nox.session
def docs(session: nox.Session) -> None:
    """Check that the pages link to pages that exist and that the commands in the first tutorial run."""
    session.install(".[test]")
    session.run("pytest", "tests/docs", *session.posargs)
    work = Path(session.create_tmp()) / "first-steps"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    with session.chdir(work):
        session.run("medtool", "demo", "demo/")
        session.run("medtool", "segment", "--points", "5", "demo/images", "--overlays")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, or the ones named: ``nox -s bench -- embedded_iou``."""
    session.install(".[test]", *PEERS)
    for name in session.posargs or sorted(path.stem for path in Path("benchmarks").glob("*.py")):
        session.run("python", f"benchmarks/{name}.py")

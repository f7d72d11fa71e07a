"""What all tests share: real images where they are, and medtool run in this process."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[2] / "shared"


# The suite asks the same questions every time, so that it fails only for what was changed; ``nox -s fuzz`` asks others.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("fuzz", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real images beside the checkout; skip where it is missing."""
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip("needs the real images in ../shared/data")
    return data


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def medtool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Return a function that runs one medtool command in this process, without a terminal."""
    from medtool.cli.app import run

    def call(*arguments: object, stdin: bytes = b"") -> Ended:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = run([str(argument) for argument in arguments])
            except SystemExit as end:
                code = int(end.code or 0)
        return Ended(code, out.getvalue(), err.getvalue())

    return call

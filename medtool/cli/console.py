"""The only place that prints: results to stdout, everything else to stderr.

Text that comes from outside (file names, labels, error messages of decoders) may hold terminal control sequences. All
text goes through :func:`inert` before it reaches a stream, and rich's markup is never applied to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from medtool.errors import ExitCode, MedtoolError, OutputError, reason_of
from medtool.inert import inert
from medtool.protocols import Steps

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(slots=True)
class Settings:
    """How talkative this process is; set once from the command line."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    progress: bool = True

    def reset(self) -> None:
        """Go back to the defaults, for another command in the same process."""
        self.__init__()  # type: ignore[misc]


settings = Settings()
_data: TextIO | None = None


@contextlib.contextmanager
def data_only() -> Iterator[None]:
    """Keep stdout for data while a command works: what plugins and libraries print goes to stderr."""
    global _data  # noqa: PLW0603 - stdout is the process's own
    before, _data = _data, _stdout()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _data = before


def _stdout() -> TextIO:
    return sys.stdout if _data is None else _data


def out(line: str) -> None:
    """Write one line of data to stdout."""
    _write(_stdout(), inert(line))


def copy(data: bytes) -> None:
    """Write the bytes of a text file to stdout unaltered; on a terminal, which might obey them, inert."""
    stream = _stdout()
    if stream is None or stream.closed:
        return
    if stream.isatty():
        for line in data.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n"):
            out(line)
        return
    try:
        if hasattr(stream, "buffer"):
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()
        else:
            stream.write(data.decode())
    except OSError as error:
        _lost(stream, error)


def show_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout; ``format`` and ``version`` are its first keys. Non-ASCII is escaped."""
    _write(_stdout(), json.dumps(document, indent=2, allow_nan=False))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write aligned columns to stdout; with ``-q`` only the first column, without its header."""
    cells = [[inert(str(cell)) for cell in row] for row in rows]
    if settings.quiet:
        for row in cells:
            _write(_stdout(), row[0])
        return
    lines = [list(header), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        _write(_stdout(), "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def say(line: str) -> None:
    """Tell the user something on stderr; silent with ``-q``."""
    if not settings.quiet:
        _write(sys.stderr, inert(line))


def detail(line: str) -> None:
    """Tell the user something on stderr that only ``-v`` asks for."""
    if settings.verbose or settings.debug:
        _write(sys.stderr, inert(line))


def warn(line: str) -> None:
    """Tell the user on stderr what they must not miss, with ``-q`` too."""
    _write(sys.stderr, f"medtool: {inert(line)}")


def hint(command: str) -> None:
    """Name the next thing to do on stderr."""
    _write(sys.stderr, f"  try: {inert(command)}")


def page(text: str) -> None:
    """Write text of our own making, line breaks and all, to stderr."""
    _write(sys.stderr, text.rstrip())


def fail(error: BaseException) -> int:
    """Show an error with its next step on stderr and return the exit code it asks for."""
    if settings.debug:
        import traceback

        _write(sys.stderr, "".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, MedtoolError):
        warn(error.message)
        if error.hint:
            hint(error.hint)
        return int(error.exit_code)
    warn(f"{reason_of(error)} (unexpected)")
    if not settings.debug:
        hint("the same command with --debug, and report what it prints")
    return int(ExitCode.FAILED)


def _write(stream: TextIO, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    except OSError as error:
        _lost(stream, error)


def flush() -> None:
    """Hand everything written so far to its reader."""
    for stream in (_stdout(), sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            _lost(stream, error)


def _lost(stream: TextIO, error: OSError) -> None:
    """Go on without a reader that has seen enough (``| head -1``); results that cannot be delivered are a failure."""
    if stream is _stdout() and not isinstance(error, BrokenPipeError):
        raise OutputError(f"cannot write to stdout: {(error.strerror or str(error)).lower()}") from error
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_streams() -> None:
    """Give a process that was started with closed streams (``>&-``) some that lead nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


class _Bar:
    def __init__(self, bar: Progress, total: int, label: str) -> None:
        self._bar = bar
        self._task = bar.add_task(inert(label), total=total)

    def advance(self, label: str = "") -> None:
        self._bar.advance(self._task)


class _Lines:
    """A line every few seconds, for logs of batch systems; only with ``-v``."""

    every_s = 10.0

    def __init__(self, total: int, label: str) -> None:
        self._total, self._label, self._done = total, label, 0
        self._next = time.monotonic() + self.every_s

    def advance(self, label: str = "") -> None:
        self._done += 1
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.every_s
            detail(f"{self._label}: {self._done} of {self._total}")


@contextlib.contextmanager
def steps(total: int, label: str) -> Iterator[Steps]:
    """Show a progress bar on stderr if it is a terminal, with the rate and the time left; else lines with ``-v``."""
    if not settings.progress or settings.quiet or sys.stderr is None or not sys.stderr.isatty():
        yield _Lines(total, label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")) or None)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar, total, label)


@contextlib.contextmanager
def transfer(total_bytes: int, label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of bytes like :func:`steps`; what is yielded takes the bytes that are there and that there will be."""
    if not settings.progress or settings.quiet or sys.stderr is None or not sys.stderr.isatty():
        yield _ByteLines(label).show
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")) or None)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(inert(label), total=total_bytes)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _ByteLines:
    def __init__(self, label: str) -> None:
        self._label, self._next = label, time.monotonic() + _Lines.every_s

    def show(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _Lines.every_s
            detail(f"{self._label}: {done:,} of {total:,} bytes")

"""What decoders say on the side: warnings and log lines, caught for the image at hand, never shown on stderr.

Several threads may decode at once, and others may warn meanwhile: each listener hears its own thread alone. Python's
warning filters and a few named loggers are hooked while at least one image is being decoded.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

_LOGGERS = (
    "PIL.Image",
    "PIL.PngImagePlugin",
    "PIL.TiffImagePlugin",
    "nibabel.global",
    "pydicom",
    "pydicom.pixels.decoders.base",
    "pydicom.pixels.utils",
    "tifffile",
)


class Message(NamedTuple):
    """One thing that a decoder said; ``level`` is of :mod:`logging`."""

    level: int
    text: str


class _Thread(threading.local):
    listeners: tuple[list[Message], ...] = ()


_thread = _Thread()
_lock = threading.Lock()
_open_listeners = 0
_catcher: warnings.catch_warnings[None] | None = None
_shown_before: Any = None


@contextlib.contextmanager
def heard() -> Iterator[list[Message]]:
    """Collect what decoders say in this thread within the ``with`` block."""
    said: list[Message] = []
    before = _thread.listeners
    _thread.listeners = (*before, said)
    _hook()
    try:
        yield said
    finally:
        _unhook()
        _thread.listeners = before


@functools.cache
def _loggers() -> tuple[logging.Logger, ...]:
    """Return the loggers themselves: to look them up for every image takes as long as to decode a small one."""
    return tuple(map(logging.getLogger, _LOGGERS))


def _hook() -> None:
    global _open_listeners, _catcher, _shown_before  # noqa: PLW0603 - the hooks are the process's own
    with _lock:
        _open_listeners += 1
        if _open_listeners > 1:
            return
        _catcher = warnings.catch_warnings()
        _catcher.__enter__()
        warnings.simplefilter("always")
        _shown_before = warnings.showwarning
        warnings.showwarning = _show_warning
        for logger in _loggers():
            logger.addFilter(_is_for_others)


def _unhook() -> None:
    global _open_listeners, _catcher  # noqa: PLW0603
    with _lock:
        _open_listeners -= 1
        if _open_listeners or _catcher is None:
            return
        for logger in _loggers():
            logger.removeFilter(_is_for_others)
        _catcher.__exit__(None, None, None)
        _catcher = None


def _show_warning(message: Warning | str, *rest: Any, **named: Any) -> None:
    if _thread.listeners:
        _thread.listeners[-1].append(Message(logging.WARNING, str(message)))
    else:
        _shown_before(message, *rest, **named)


def _is_for_others(record: logging.LogRecord) -> bool:
    if not _thread.listeners:
        return True
    if record.levelno >= logging.WARNING:
        _thread.listeners[-1].append(Message(record.levelno, record.getMessage()))
    return False

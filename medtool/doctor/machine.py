"""What this machine has: processors, memory, and folders that can be written to."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from medtool import weights
from medtool.doctor.check import Check, Status
from medtool.errors import reason_of
from medtool.parallel import cpu_count

LEAST_MEMORY_BYTES = 4 << 30
LEAST_FREE_BYTES = 1 << 30
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def look_at_processors() -> Iterator[Check]:
    """Say how many processors this process may use."""
    usable, there = cpu_count(), os.cpu_count() or 1
    limits = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if os.environ.get(name, "").isdecimal()]
    limited = f"; {', '.join(limits)}" if limits else ""
    yield Check("processors", Status.OK, f"{usable} usable of {there}, {platform.machine()}{limited}")


def look_at_memory() -> Iterator[Check]:
    """Say how much memory there is, by the machine or by the container's limit."""
    total = memory_bytes()
    if total is None:
        yield Check("memory", Status.OK, "this system does not say how much there is")
    elif total < LEAST_MEMORY_BYTES:
        seen = f"{_gib(total)} GiB; the networks of SAM want {_gib(LEAST_MEMORY_BYTES)} GiB or more"
        yield Check("memory", Status.WARNING, seen, "the embedded segmenter needs little: --segmenter random-walker")
    else:
        yield Check("memory", Status.OK, f"{_gib(total)} GiB")


def memory_bytes() -> int | None:
    """Return the memory that this process may use at most, None where the system does not tell."""
    found = [_physical_bytes(), *(_limit_bytes(path) for path in _CGROUP_LIMITS)]
    return min((value for value in found if value), default=None)


def look_at_folders() -> Iterator[Check]:
    """Write a small file into each folder that medtool uses by default, and look how much room is left."""
    elsewhere = "work in a folder of your own, or give --out"
    yield _look_at_folder("current-folder", Path.cwd, Status.WARNING, elsewhere)
    yield _look_at_folder(
        "temporary-folder", lambda: Path(tempfile.gettempdir()), Status.FAILED, "set TMPDIR to another"
    )
    yield _look_at_folder("weights-folder", weights.folder, Status.WARNING, "set MEDTOOL_WEIGHTS to another")


def _look_at_folder(name: str, find: Callable[[], Path], if_not: Status, fix: str) -> Check:
    try:
        folder = find()
        place = next(each for each in (folder, *folder.parents) if each.exists())
        with tempfile.TemporaryFile(dir=place, prefix=".medtool-tmp-") as stream:
            stream.write(bytes(4096))
            stream.flush()
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Check(name, if_not, f"cannot be written to: {reason_of(error)}", fix)
    seen = f"can be {'written to' if place == folder else 'made'}, {_gib(free)} GiB free"
    if free < LEAST_FREE_BYTES:
        return Check(name, Status.WARNING, seen, f"free some space, or {fix}")
    return Check(name, Status.OK, seen)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):,.1f}"


def _physical_bytes() -> int | None:
    if sys.platform == "win32":
        return _windows_bytes()
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _limit_bytes(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such limit, or "max"
        return None


def _windows_bytes() -> int | None:
    import ctypes

    class MemoryStatus(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "a", "b", "c", "d", "e")),
        )

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    return int(status.total) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None

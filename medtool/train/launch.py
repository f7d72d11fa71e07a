"""Which processes train together: those that a launcher started, or those that ``--devices`` starts on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtool.errors import ExitCode, MedtoolError, UsageError, reason_of
from medtool.parallel import cpu_count

FOLDER_VARIABLE = "MEDTOOL_TEAM_FOLDER"  # set for the processes that --devices starts: where they meet and report
_PROGRAM = (sys.executable, "-m", "medtool")
_POLL_S = 0.1
_LAST_WORDS_S = 3.0  # for the others to fail too once one has, and to say why
_TIDYING_S = 5.0
_SLURM_PORTS = range(20_000, 30_000)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of several processes this one is.

    Attributes
    ----------
    rank, size
        Among all.
    local_rank, local_size
        Among those on this machine.
    has_own_processors
        Whether the launcher has bound this process to processors of its own.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    has_own_processors: bool = False

    @property
    def n_threads(self) -> int:
        """How many threads should read images in each process of this machine."""
        return min(16, cpu_count() if self.has_own_processors else max(1, cpu_count() // self.local_size))


def place_of(environment: Mapping[str, str]) -> Place | None:
    """Return this process's place among those that a launcher started; None if it is alone.

    torchrun and ``accelerate launch`` set ``WORLD_SIZE`` and its kin. Where these are missing, those of a step that
    SLURM's srun started count; a batch script itself is alone, whatever the job's number of tasks.

    Raises
    ------
    UsageError
        If the variables are incomplete or contradict one another.
    """
    if "WORLD_SIZE" in environment:
        size = _number(environment, "WORLD_SIZE")
        if size <= 1:
            return None
        rank = _number(environment, "RANK")
        place = Place(
            rank,
            size,
            _number(environment, "LOCAL_RANK", rank),
            _number(environment, "LOCAL_WORLD_SIZE", size),
        )
    elif "SLURM_STEP_NUM_TASKS" in environment:
        size = _number(environment, "SLURM_STEP_NUM_TASKS")
        if size <= 1:
            return None
        place = Place(
            _number(environment, "SLURM_PROCID"),
            size,
            _number(environment, "SLURM_LOCALID"),
            _on_node(environment),
            has_own_processors="SLURM_CPUS_PER_TASK" in environment,
        )
    else:
        return None
    if not (0 <= place.rank < place.size and 0 <= place.local_rank < place.local_size <= place.size):
        raise UsageError(
            f"the launcher's variables contradict one another: rank {place.rank} of {place.size},"
            f" {place.local_rank} of {place.local_size} on this machine"
        )
    return place


def check_size(place: Place, *, devices: int, batch_size: int) -> None:
    """Refuse a number of processes that is not the one asked for, or too large for a batch.

    Raises
    ------
    UsageError
        With both numbers.
    """
    if devices > 1 and devices not in (place.size, place.local_size):
        raise UsageError(
            f"--devices {devices}, but the launcher started {place.size} processes",
            hint="leave --devices to the launcher",
        )
    if batch_size < 2 * place.size:
        raise UsageError(f"--batch-size {batch_size} for {place.size} processes: each needs two images or more")


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"the launcher's variable {name} is {text!r}; it must be a whole number")
    return int(text)


def _on_node(environment: Mapping[str, str]) -> int:
    """Return how many tasks of the step are on this node, by a list such as ``4(x2),3``."""
    tasks: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            return _number(environment, "SLURM_STEP_NUM_TASKS")
        tasks += [int(found[1])] * int(found[2] or 1)
    node = _number(environment, "SLURM_NODEID", 0)
    return tasks[min(node, len(tasks) - 1)]


def meeting_variables(place: Place, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which torch lets processes meet, as far as the launcher has not set them.

    Raises
    ------
    UsageError
        If it cannot be told where the first process is.
    """
    lacking = {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_size),
    }
    if "MASTER_ADDR" not in environment:
        lacking["MASTER_ADDR"] = _first_node(environment)
    if "MASTER_PORT" not in environment:
        step = _number(environment, "SLURM_STEP_ID", 0)
        job = _number(environment, "SLURM_JOB_ID", 0)
        lacking["MASTER_PORT"] = str(_SLURM_PORTS[(7 * job + step) % len(_SLURM_PORTS)])
    return {name: value for name, value in lacking.items() if name not in environment}


def _first_node(environment: Mapping[str, str]) -> str:
    """Return the first of a list such as ``gpu[03-05,9],login1``."""
    nodes = environment.get("SLURM_STEP_NODELIST", "")
    found = re.match(r"([\w.-]+)(?:\[(\d+)[^]]*\]([\w.-]*))?", nodes, re.ASCII)
    if found is None:
        raise UsageError(
            "the launcher does not say where the first process is",
            hint="export MASTER_ADDR=HOST; and MASTER_PORT=29500 where that is taken",
        )
    return f"{found[1]}{found[2] or ''}{found[3] or ''}"


def end_with_parent() -> None:
    """End this process when the one that started it for ``--devices`` is gone, however that ended."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):  # the parent writes nothing: what comes is the end of file at its death
            pass
    os._exit(ExitCode.TERMINATED)


@contextlib.contextmanager
def one_voice(place: Place, *, warn: Callable[[str], None], is_lost: Callable[[BaseException], bool]) -> Iterator[None]:
    """Let what fails in one of several processes be said once.

    Those that ``--devices`` started hand their error to the parent. With other launchers the first process speaks; the
    others only if it does not end for the same reason, in which case the launcher ends them while they wait.

    Parameters
    ----------
    warn
        Shows a line to the user.
    is_lost
        Tells whether an error is nothing but another process's end.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, MedtoolError) and hasattr(error, "exit_code"):
            raise  # a command that ends on purpose
        code = _code_of(error)
        is_echo = isinstance(error, Exception) and is_lost(error)
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is not None:
            _report(Path(folder), place, error, code=code, is_echo=is_echo)
            raise SystemExit(code) from error
        if place.rank == 0:
            if is_echo:
                raise MedtoolError(
                    f"another of the {place.size} processes ended", hint="the same command again goes on where it was"
                ) from error
            raise
        if isinstance(error, Exception) and not isinstance(error, UsageError) and not is_echo:
            time.sleep(_LAST_WORDS_S)
            warn(f"process {place.rank} of {place.size}: {reason_of(error)}")
        raise SystemExit(code) from error


def _code_of(error: BaseException) -> int:
    if isinstance(error, MedtoolError):
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.FAILED if isinstance(error, Exception) else ExitCode.TERMINATED)


def _report(folder: Path, place: Place, error: BaseException, *, code: int, is_echo: bool) -> None:
    report = {
        "message": reason_of(error) if isinstance(error, MedtoolError) else f"{reason_of(error)} (unexpected)",
        "hint": error.hint if isinstance(error, MedtoolError) else "the same command with --debug",
        "code": code,
        "is_echo": is_echo or not isinstance(error, Exception),
        "traceback": "".join(traceback.format_exception(error)),
    }
    with contextlib.suppress(OSError):  # the parent is gone, and nobody is there to be told
        (folder / f"{place.rank}.json").write_text(json.dumps(report), encoding="utf-8")


def check_devices(count: int, *, device: str, there: int) -> None:
    """Refuse more processes than there are devices for.

    Parameters
    ----------
    device
        Resolved: ``cuda``, ``cuda:0``, ``mps`` or ``cpu``.
    there
        How many GPUs this machine has.

    Raises
    ------
    UsageError
        Naming what there is.
    """
    if count < 2:
        return
    if device == "mps":
        raise UsageError(f"--devices {count}: on MPS there is one device")
    if device.startswith("cuda:"):
        raise UsageError(
            f"--devices {count} takes the first {count} GPUs, and --device {device} one", hint="--device cuda"
        )
    most, what = (cpu_count(), "processors") if device == "cpu" else (there, "GPUs")
    if count > most:
        raise UsageError(f"--devices {count}: there are {most} {what}")


def run_processes(count: int, arguments: Sequence[str], *, program: Sequence[str] = _PROGRAM) -> int:
    """Run a command in several processes on this machine, and return the exit code of the first of them.

    They share nothing with this process but stdout and stderr, and end with it. If one fails, all are ended.

    Parameters
    ----------
    arguments
        Of the command line, after ``medtool``.
    program
        What takes them.

    Raises
    ------
    MedtoolError
        With the message of the process that failed, or with how it was ended.
    """
    with tempfile.TemporaryDirectory(prefix="medtool-team-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(count):
                processes.append(_started(rank, count, [*program, *arguments], folder))
            failed = _wait(processes)
            if failed is None:
                return processes[0].returncode
            raise _failure(failed, processes, folder)
        finally:
            _stop(processes)


def _started(rank: int, count: int, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDTOOL_TRAIN_")}
    environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    environment |= {"LOCAL_WORLD_SIZE": str(count), FOLDER_VARIABLE: str(folder)}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // count)))
    options: dict[str, Any] = {}
    if os.name == "nt":
        options["creationflags"] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    else:
        options["start_new_session"] = True  # Ctrl-C is for the parent, which then ends them
    if rank == 0:
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **options)
    with (folder / f"{rank}.stderr").open("wb") as stderr:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr, env=environment, **options
        )


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Return which process failed first, once the others have ended too or had their time; None if none has."""
    while True:
        codes = [process.poll() for process in processes]
        failed = next((rank for rank, code in enumerate(codes) if _has_failed(code)), None)
        if failed is not None:
            until = time.monotonic() + _LAST_WORDS_S
            while time.monotonic() < until and any(process.poll() is None for process in processes):
                time.sleep(_POLL_S)
            return failed
        if None not in codes:
            return None
        time.sleep(_POLL_S)


def _has_failed(code: int | None) -> bool:
    return code not in (None, ExitCode.DONE, ExitCode.PARTIAL)


def _failure(failed: int, processes: Sequence[subprocess.Popen[bytes]], folder: Path) -> MedtoolError:
    """Return what to say: the first reason of its own that a process gives, else how the first to fail ended."""
    reports: dict[int, dict[str, Any]] = {}
    for rank in range(len(processes)):
        with contextlib.suppress(OSError, ValueError):
            reports[rank] = json.loads((folder / f"{rank}.json").read_text(encoding="utf-8"))
    own = [report for report in reports.values() if not report["is_echo"]]
    if own:
        kind = UsageError if own[0]["code"] == ExitCode.USAGE else MedtoolError
        error = kind(own[0]["message"], hint=own[0]["hint"])
        error.exit_code = ExitCode(own[0]["code"])
        error.add_note(f"In one of the processes:\n{own[0]['traceback']}")
        return error
    # Those that ended only because another did may be seen first; that other one could say nothing.
    silent = (rank for rank, process in enumerate(processes) if rank not in reports and _has_failed(process.poll()))
    failed = next(silent, failed)
    code = processes[failed].returncode
    who = f"process {failed} of {len(processes)}"
    again = "the same command again goes on where it was"
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        advice = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return MedtoolError(f"{who} was ended by {name}{advice}", hint=again)
    said = ""
    with contextlib.suppress(OSError):
        lines = (folder / f"{failed}.stderr").read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")
    return MedtoolError(f"{who} ended with code {code}{said}", hint=again)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            process.terminate()
    until = time.monotonic() + _TIDYING_S
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

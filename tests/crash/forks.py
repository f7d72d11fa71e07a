"""Run a command hundreds of times without importing torch as often: a process that has imported all forks for each.

It starts no thread before it forks, so that a fork is as good as a new process. strace takes hold of a command before
it begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.crash.sweep import ACTIONS, ENVIRONMENT, WRITES, Ended, Point, points_of

_ROOT = Path(__file__).resolve().parents[2]
_END_WITH_PARENT, _LET_ANY_PROCESS_TRACE = 1, 0x59616D61  # PR_SET_PDEATHSIG, PR_SET_PTRACER


class Process:
    """A command that was started by :class:`Forks`."""

    def __init__(self, forks: Forks, folder: Path, pid: int) -> None:
        self._forks, self._folder, self.pid = forks, folder, pid

    def go(self) -> None:
        """Let it begin."""
        (self._folder / "gate").write_text("go")

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Return how it ended."""
        code = self._forks.ask(wait=self.pid)["code"]
        out, err = ((self._folder / name).read_text(errors="replace") for name in ("out", "err"))
        return Ended(code, out, err)


class Forks:
    """The process that forks; see :func:`forks`."""

    def __init__(self, server: subprocess.Popen[str], scratch: Path) -> None:
        self._server = server
        self._scratch = scratch
        self._count = 0
        self._one_at_a_time = threading.Lock()

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with self._one_at_a_time:
            self._server.stdin.write(json.dumps(question) + "\n")
            self._server.stdin.flush()
            answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def start(self, arguments: Sequence[str], cwd: Path) -> Process:
        """Fork a command that waits for :meth:`Process.go`."""
        self._count += 1
        folder = self._scratch / f"{self._count:05}"
        folder.mkdir()
        os.mkfifo(folder / "gate")
        pid = self.ask(arguments=list(arguments), cwd=str(cwd), folder=str(folder))["pid"]
        return Process(self, folder, pid)

    def run(self, arguments: Sequence[str], cwd: Path) -> Ended:
        """Run a command to its end."""
        process = self.start(arguments, cwd)
        process.go()
        return process.wait()

    def _traced(self, arguments: Sequence[str], cwd: Path, *options: str) -> Ended:
        process = self.start(arguments, cwd)
        strace = subprocess.Popen(
            ["strace", "-p", str(process.pid), "-e", f"trace={WRITES}", *options], stderr=subprocess.PIPE, text=True
        )
        assert strace.stderr is not None
        line = strace.stderr.readline()
        assert "attached" in line, line
        process.go()
        ended = process.wait()
        strace.communicate(timeout=60)
        return ended

    def write_points(self, arguments: Sequence[str], cwd: Path, log: Path) -> list[Point]:
        """Run a command to its end and return every write call of its first thread that touched ``cwd``."""
        ended = self._traced(arguments, cwd, "-y", "-o", str(log))
        assert ended.code == 0, ended.err
        return points_of(log, cwd)

    def stop_at(self, point: Point, action: str, arguments: Sequence[str], cwd: Path) -> Ended:
        """Run a command with one call killed or failed; a full disk stays so, but for ``write``."""
        lasting = "+" if action == "disk full" and point.call != "write" else ""
        inject = f"inject={point.call}:{ACTIONS[action]}:when={point.nth}{lasting}"
        return self._traced(arguments, cwd, "-e", inject, "-o", os.devnull)


@contextlib.contextmanager
def forks(*modules: str) -> Iterator[Forks]:
    """Start a process that imports some modules and then forks commands, one numerical thread each.

    ``package.module.NAME=3`` instead of a module's name gives one of its constants a value that suits a small test.
    """
    with tempfile.TemporaryDirectory() as scratch:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forks", *modules],
            cwd=_ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with server:
            try:
                yield Forks(server, Path(scratch))
            finally:
                assert server.stdin is not None
                server.stdin.close()


def _serve(modules: Sequence[str]) -> None:
    for each in modules:
        name, _, value = each.partition("=")
        if value:
            module, _, constant = name.rpartition(".")
            assert hasattr(importlib.import_module(module), constant)
            setattr(sys.modules[module], constant, int(value))
        else:
            importlib.import_module(name)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                _command(question)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _command(question: dict[str, Any]) -> None:
    """Be the command, in a forked process; never return."""
    code: Any = 70
    try:
        folder = Path(question["folder"])
        os.chdir(question["cwd"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_END_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
            ctypes.CDLL(None).prctl(_LET_ANY_PROCESS_TRACE, -1, 0, 0, 0)  # some systems let only parents trace
        (folder / "gate").read_text()
        from medtool.cli.app import main

        sys.argv = ["medtool", *question["arguments"]]
        main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve(sys.argv[1:])

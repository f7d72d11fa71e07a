"""The questions whose answering may crash a process, answered in a process of its own.

The child is started with the names of steps. For each it writes a JSON line when it begins and one with the answer, so
that the parent knows at which step a child died; it then starts another child with the steps that are left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtool.errors import reason_of

TIMEOUT_S = 180.0

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from medtool.doctor.probe import main; main(sys.argv[2:])"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one step: a value, or one line that says what went wrong, with the error's hint."""

    value: Any = None
    problem: str | None = None
    hint: str | None = None


def ask(steps: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> dict[str, Answer]:
    """Answer every step in child processes: one, unless it dies.

    Parameters
    ----------
    steps
        ``torch``, ``torchvision``, ``devices``, or ``plugin:KIND/NAME``.
    timeout_s
        For one child.
    """
    answers: dict[str, Answer] = {}
    while left := [step for step in steps if step not in answers]:
        answers |= _ask_one_child(left, timeout_s)
    return answers


def _ask_one_child(steps: Sequence[str], timeout_s: float) -> dict[str, Answer]:
    """Return the answers of one child, at least one; the step at which it died is answered by how it died."""
    command = [sys.executable, "-P", "-c", _START, json.dumps(sys.path), *steps]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        out, _ = child.communicate(timeout=timeout_s)
        death = _death(child.returncode)
    except subprocess.TimeoutExpired:
        child.kill()
        out, _ = child.communicate()
        death = f"no answer after {timeout_s:g} seconds"
    except BaseException:
        child.kill()
        child.communicate()
        raise
    answers: dict[str, Answer] = {}
    begun = steps[0]
    for line in out.decode("utf-8", "replace").splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue  # cut off when the child died
        begun = message["step"]
        if "problem" in message:
            answers[begun] = Answer(message["value"], message["problem"], message["hint"])
    if begun not in answers:
        answers[begun] = Answer(problem=death)
    return answers


def _death(code: int) -> str:
    if code < 0:
        try:
            return f"the process was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"the process was ended by signal {-code}"
    return f"the process ended with code {code}"


def main(steps: Sequence[str]) -> None:
    """Answer the steps on stdout, one JSON line each; what imports print themselves goes nowhere."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        for step in steps:
            _send(channel, {"step": step})
            try:
                kind, _, rest = step.partition(":")
                answer = Answer(value=_STEPS[kind](rest))
            except (Exception, SystemExit) as error:
                answer = Answer(problem=reason_of(error), hint=getattr(error, "hint", None))
            _send(channel, {"step": step, "value": answer.value, "problem": answer.problem, "hint": answer.hint})


def _send(channel: Any, message: Mapping[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def _torch(_: str) -> dict[str, Any]:
    start = time.perf_counter()
    import torch

    seconds = time.perf_counter() - start
    return {
        "version": str(torch.__version__),
        "seconds": seconds,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }


def _torchvision(_: str) -> str:
    """Import torchvision and call one of its compiled operators: those are what a wrong pair lacks."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    return str(torchvision.__version__)


def _devices(_: str) -> list[dict[str, Any]]:
    """Describe every device, having multiplied two small matrices on it in the precision that it would use."""
    import torch

    from medtool.devices import DTYPES, describe_devices

    devices = describe_devices()
    for each in devices:
        each["problem"] = None
        try:
            ones = torch.ones(16, 16, device=each["device"], dtype=DTYPES[each["precision"]])
            total = float((ones @ ones).float().sum())
        except RuntimeError as error:
            each["problem"] = reason_of(error)
        else:
            each["problem"] = None if total == 16.0**3 else f"computes {total} where {16.0**3} is right"
    return devices


def _plugin(name: str) -> None:
    from medtool import registry

    kind, _, own_name = name.partition("/")
    registry.load(kind, own_name)


_STEPS: dict[str, Callable[[str], Any]] = {
    "torch": _torch,
    "torchvision": _torchvision,
    "devices": _devices,
    "plugin": _plugin,
}

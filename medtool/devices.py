"""Which device and precision torch work runs on. Nothing here changes torch's global settings, threads included."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from medtool.errors import MedtoolError, UsageError

Result = TypeVar("Result")

PRECISIONS = ("fp32", "bf16", "fp16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def available_devices() -> list[str]:
    """Return the names of the devices of this machine, best first; ``cpu`` is always the last."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def resolve_device(name: str) -> str:
    """Return the device to use.

    Parameters
    ----------
    name
        ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises
    ------
    UsageError
        If there is no such device on this machine; the message names those that there are. Another device is never
        taken instead.
    """
    there = available_devices()
    if name == "auto":
        return "cuda" if there[0].startswith("cuda") else there[0]
    if name in there or (name == "cuda" and there[0].startswith("cuda")):
        return name
    kinds = "auto, cpu, cuda, cuda:N or mps"
    is_known = name in {"cuda", "mps"} or (name.startswith("cuda:") and name[5:].isdecimal())
    problem = "is not on this machine" if is_known else f"is no device; wanted {kinds}"
    raise UsageError(f"device {name!r} {problem}; there is {', '.join(there)}", hint="medtool doctor")


def resolve_precision(name: str, device: str) -> str:
    """Return the precision to compute in: ``fp32``, ``bf16`` or ``fp16``.

    Parameters
    ----------
    name
        ``auto`` or one of the three. ``auto`` is ``bf16`` where the device multiplies bfloat16 in hardware (on a CPU:
        AMX or AVX512-BF16) and ``fp32`` elsewhere; never ``fp16``, whose range some networks leave.
    device
        A resolved device.

    Raises
    ------
    UsageError
        If the name is none of these, or the device cannot compute in it.
    """
    if name == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if name not in PRECISIONS:
        raise UsageError(f"precision {name!r} is not known; wanted auto, {', '.join(PRECISIONS)}")
    kind = torch.device(device).type
    if name == "fp16" and kind == "cpu":
        raise UsageError("precision fp16 is for GPUs; on the CPU use auto, fp32 or bf16")
    if name == "bf16" and kind == "mps" and not _mps_has_bf16():
        raise UsageError("this macOS has no bf16 on MPS; use auto, fp32 or fp16")
    return name


def has_fast_bf16(device: str) -> bool:
    """Say whether a device multiplies bfloat16 in hardware; False where torch cannot tell."""
    place = torch.device(device)
    if place.type == "cuda":
        return torch.cuda.get_device_capability(place)[0] >= 8
    if place.type == "cpu":
        # Private to torch, so a later version may lack them: then float32, which is right everywhere.
        probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
        return any(probe is not None and bool(probe()) for probe in probes)
    return False


def _mps_has_bf16() -> bool:
    try:
        torch.zeros(1, dtype=torch.bfloat16, device="mps").add_(1)
    except (TypeError, RuntimeError):
        return False
    return True


def describe_devices() -> list[dict[str, Any]]:
    """Return one dictionary a device, best first.

    Keys: ``device`` (the name that ``--device`` takes), ``name`` (the hardware's own), ``memory_bytes`` (int, or None
    where it cannot be told), ``bf16`` (whether bfloat16 is fast there) and ``precision`` (what ``auto`` chooses).
    """
    return [
        {
            "device": device,
            "name": _hardware_name(device),
            "memory_bytes": _memory_bytes(device),
            "bf16": has_fast_bf16(device),
            "precision": resolve_precision("auto", device),
        }
        for device in available_devices()
    ]


def _hardware_name(device: str) -> str:
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    if kind == "mps":
        return f"Apple GPU ({platform.machine()})"
    return platform.processor() or platform.machine()


def _memory_bytes(device: str) -> int | None:
    kind = torch.device(device).type
    if kind == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if kind == "mps":
        return int(torch.mps.recommended_max_memory())
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


@contextlib.contextmanager
def clear_memory_errors(device: str, *, task: str) -> Iterator[None]:
    """Turn torch's errors about memory into one line that says what was being done, where, and what to do.

    Nothing is tried again elsewhere: a result computed on another device or in another precision than asked for would
    not be the one that the lineage names.

    Raises
    ------
    MedtoolError
        If the device's memory does not suffice.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_memory_error(error):
            raise
        hint = "give it more memory, or close what else uses it" if device == "cpu" else "--device cpu"
        raise MedtoolError(f"{device} has too little memory for {task}", hint=hint) from error


class Portions:
    """Images that go to a device at once: fewer from then on, where memory does not suffice for them.

    Parameters
    ----------
    most
        Images at once.
    device
        Resolved, never ``auto``.
    say
        Takes a line for the user.
    """

    def __init__(self, most: int, device: str, *, say: Callable[[str], None]) -> None:
        self._most, self._device, self._say = most, device, say

    def of(self, n: int, compute: Callable[[slice], Result]) -> list[Result]:
        """Return what ``compute`` gives for each portion of ``n`` images, in order.

        Raises
        ------
        MedtoolError
            If the device's memory does not suffice for one image.
        """
        found: list[Result] = []
        start = 0
        while start < n:
            count = min(self._most, n - start)
            try:
                found.append(compute(slice(start, start + count)))
            except RuntimeError as error:
                if not is_memory_error(error) or count == 1:
                    with clear_memory_errors(self._device, task="one image"):
                        raise
                self._most = count // 2
                self._say(f"memory does not suffice for {count} images at once; going on with {self._most}")
                if self._device.startswith("cuda"):
                    torch.cuda.empty_cache()
                continue
            start += count
        return found


def is_memory_error(error: BaseException) -> bool:
    """Tell whether torch failed for lack of memory, on a device or on the CPU."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in _MEMORY_SIGNS)


_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")

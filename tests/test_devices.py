from __future__ import annotations

import os

import pytest
import torch

from medtool.devices import (
    available_devices,
    clear_memory_errors,
    describe_devices,
    has_fast_bf16,
    resolve_device,
    resolve_precision,
)
from medtool.errors import ExitCode, MedtoolError, UsageError


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes torch believe in other hardware."""

    def pretend(*, cuda: int = 0, mps: bool = False, capability: tuple[int, int] = (9, 0)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(2, True, "cuda"), (1, False, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_cuda_then_mps_then_cpu(machine, cuda, mps, chosen):
    machine(cuda=cuda, mps=mps)
    assert resolve_device("auto") == chosen


def test_a_device_that_is_there_is_taken_as_named(machine):
    machine(cuda=2, mps=True)
    assert [resolve_device(name) for name in ("cpu", "cuda", "cuda:1", "mps")] == ["cpu", "cuda", "cuda:1", "mps"]


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_missing_device_is_refused_with_those_that_are_there(machine, name):
    machine()
    with pytest.raises(UsageError, match=f"device '{name}' is not on this machine; there is cpu$"):
        resolve_device(name)


def test_a_gpu_number_beyond_the_last_is_refused(machine):
    machine(cuda=2)
    with pytest.raises(UsageError, match="'cuda:2' is not on this machine; there is cuda:0, cuda:1, cpu") as caught:
        resolve_device("cuda:2")
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("name", ["gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", ""])
def test_a_name_that_is_no_device_is_refused_with_the_names_that_are(name):
    with pytest.raises(UsageError, match="is no device; wanted auto, cpu, cuda, cuda:N or mps"):
        resolve_device(name)


def test_auto_precision_on_the_cpu_is_bf16_only_with_amx_or_avx512_bf16(monkeypatch):
    for amx, avx, chosen in [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx, raising=False)
        assert resolve_precision("auto", "cpu") == chosen


def test_auto_precision_is_fp32_when_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert resolve_precision("auto", "cpu") == "fp32"


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_precision_on_cuda_is_bf16_from_ampere_on(machine, capability, chosen):
    machine(cuda=1, capability=capability)
    assert resolve_precision("auto", "cuda") == chosen


def test_a_precision_that_is_asked_for_is_given_or_refused():
    assert resolve_precision("fp32", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("fp16", "cuda:0") == "fp16"
    with pytest.raises(UsageError, match="fp16 is for GPUs"):
        resolve_precision("fp16", "cpu")
    with pytest.raises(UsageError, match="'int8' is not known; wanted auto, fp32, bf16, fp16"):
        resolve_precision("int8", "cpu")


def test_bf16_is_refused_where_mps_lacks_it(monkeypatch):
    def lacks(*arguments, **options):
        raise TypeError("BFloat16 is not supported on MPS")

    monkeypatch.setattr(torch, "zeros", lacks)
    with pytest.raises(UsageError, match="no bf16 on MPS"):
        resolve_precision("bf16", "mps")


def test_each_device_is_described_and_the_cpu_is_the_last():
    described = describe_devices()
    assert [device["device"] for device in described] == available_devices()
    cpu = described[-1]
    assert cpu["device"] == "cpu"
    assert cpu["name"]
    assert cpu["bf16"] is has_fast_bf16("cpu")
    assert cpu["precision"] == ("bf16" if cpu["bf16"] else "fp32")
    if hasattr(os, "sysconf"):
        assert cpu["memory_bytes"] > 2**28


def test_resolving_leaves_torchs_threads_alone():
    before = torch.get_num_threads()
    resolve_precision("auto", resolve_device("auto"))
    describe_devices()
    assert torch.get_num_threads() == before


def test_an_allocation_that_fails_becomes_one_line_that_names_the_task():
    with (
        pytest.raises(MedtoolError, match=r"^cpu has too little memory for the moon$"),
        clear_memory_errors("cpu", task="the moon"),
    ):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_a_gpu_that_is_full_gets_the_hint_to_use_the_cpu():
    with pytest.raises(MedtoolError) as caught, clear_memory_errors("cuda:1", task="the moon"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    assert caught.value.hint == "--device cpu"


def test_other_errors_pass_through_unchanged():
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught, clear_memory_errors("cpu", task="the moon"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not isinstance(caught.value, MedtoolError)

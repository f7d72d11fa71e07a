"""Several processes train one network, as one would; and what ends one of them ends all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from timm.layers.norm_act import BatchNormAct2d

from medtool.errors import ExitCode, MedtoolError, UsageError
from medtool.train.batches import Batches
from medtool.train.launch import (
    FOLDER_VARIABLE,
    Place,
    check_devices,
    check_size,
    meeting_variables,
    one_voice,
    place_of,
    run_processes,
)
from medtool.train.launcher_settings import check_settings, check_sharding, is_fsdp_asked
from medtool.train.team import Processes, device_of, is_lost
from tests.conftest import Ended
from tests.train.conftest import write_pictures

Run = Callable[..., Ended]
LONG_S = 600  # on a machine that has much else to do, a process that loads torch takes minutes
SECOND = Place(rank=1, size=2, local_rank=1, local_size=2)
ONE = ("--model", "timm/test_convnext", "--size", 32, "--batch-size", 10, "--lr", 0.002, "--device", "cpu")
ALL = ("--ema", 0.9, "--class-weights", "inverse", "--unfreeze", "1:3,2:all", "--augment", "standard", "--threads", 1)
TWO = ("--devices", 2, "--micro-batch", 2, "--epochs", 3, "--no-progress")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest with one image that cannot be read, so that batches of 10 leave 5 for the last."""
    path = write_pictures(tmp_path_factory.mktemp("team"))
    (path.parent / "images/01.png").write_bytes(b"no image")
    return path


@pytest.fixture(scope="module")
def of_two(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Return the run of two processes, and how it ended."""
    out = tmp_path_factory.mktemp("two") / "run"
    arguments = [str(each) for each in ("train", manifest, *ONE, *ALL, *TWO, "--out", out)]
    done = subprocess.run(
        [sys.executable, "-m", "medtool", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return out, Ended(done.returncode, done.stdout, done.stderr)


def weights(out: Path, epoch: int = 3) -> dict[str, torch.Tensor]:
    (path,) = (out / "checkpoints").glob(f"*_epoch{epoch:03}_*.safetensors")
    return load_file(path)


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def of_one(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of one process."""
    from medtool.cli.app import run

    out = tmp_path_factory.mktemp("one") / "run"
    arguments = ("train", manifest, *ONE, *ALL, "--epochs", 3, "--out", out, "-q")
    assert run([str(each) for each in arguments]) == ExitCode.PARTIAL
    return out


def assert_same(out: Path, other: Path) -> None:
    mine, theirs = weights(out), weights(other)
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(theirs[name], mine[name], rtol=0, atol=1e-5)


def test_two_processes_give_the_weights_of_one(of_one: Path, of_two: tuple[Path, Ended]) -> None:
    out, ended = of_two
    assert ended.code == ExitCode.PARTIAL, ended.err
    assert_same(of_one, out)
    assert json.loads((out / "environment.json").read_text())["processes"] == 2
    for one, two in zip(history(of_one), history(out), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-5)
        assert two["val"]["loss"] == pytest.approx(one["val"]["loss"], abs=1e-5)
        assert one["trained_groups"] == two["trained_groups"]


def test_only_the_first_process_talks(of_two: tuple[Path, Ended]) -> None:
    out, ended = of_two
    assert ended.out == f"{out}\n"
    lines = ended.err.splitlines()
    assert len(lines) == len(set(lines))
    assert sum(line.startswith("epoch 2 of 3:") for line in lines) == 1
    assert sum("i01" in line for line in lines) == 1
    assert not any("Warning" in line for line in lines)


def kill_second(out: Path) -> None:
    """Kill one of the two processes once the first epoch is over."""
    until = time.monotonic() + LONG_S
    while not (out / "metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.02)
    for child in psutil.Process().children():
        if child.environ().get("RANK") == "1":
            child.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="names the signal")
def test_a_killed_process_ends_the_others_and_the_same_command_goes_on(
    medtool: Run, manifest: Path, of_two: tuple[Path, Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = psutil.Process().children()  # helpers of other tests, such as Python's tracker of resources
    killer = threading.Thread(target=kill_second, args=(tmp_path / "run",))
    killer.start()
    command = ("train", manifest, *ONE, *ALL, *TWO, "--out", tmp_path / "run")
    ended = medtool(*command)
    killer.join()
    assert ended.code == ExitCode.FAILED
    assert ended.err == (
        "medtool: process 1 of 2 was ended by SIGKILL, perhaps for lack of memory\n"
        "  try: the same command again goes on where it was\n"
    )
    assert psutil.Process().children() == before
    assert medtool(*command).code == ExitCode.PARTIAL
    through = weights(of_two[0])
    assert all(torch.equal(tensor, through[name]) for name, tensor in weights(tmp_path / "run").items())


@pytest.mark.skipif(sys.platform == "win32", reason="names the signal")
def test_a_network_split_among_two_processes_becomes_that_of_one_and_goes_on_with_either(
    medtool: Run, manifest: Path, of_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out, other = tmp_path / "run", tmp_path / "other"
    command = ("train", manifest, *ONE, *ALL, *TWO, "--shard", "--out", out)
    killer = threading.Thread(target=kill_second, args=(out,))
    killer.start()
    assert "SIGKILL" in medtool(*command).err
    killer.join()
    shutil.copytree(out, other)
    ended = medtool(*command)
    assert ended.code == ExitCode.PARTIAL, ended.err
    alone = medtool("train", manifest, *ONE, *ALL, "--epochs", 3, "--out", other)
    assert alone.code == ExitCode.PARTIAL, alone.err
    assert "goes on after epoch" in alone.err
    assert_same(of_one, out)
    assert_same(of_one, other)


def test_blocks_of_several_layers_are_split_on_their_own() -> None:
    from medtool.train.sharding import _units, _without_views

    block = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    blocks = [torch.nn.ModuleDict({"layers": block}), torch.nn.ModuleDict({"layers": torch.nn.Linear(4, 4)})]
    network = torch.nn.Module()
    network.stages = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.Sequential(*blocks))
    network.head = torch.nn.Linear(4, 2)
    assert list(_units(network)) == [blocks[0]]
    tensor = torch.zeros(4)
    assert _without_views(block, (), tensor) is tensor
    assert not _without_views(block, (), tensor.view(2, 2))._is_view()


def test_srun_starts_a_team_and_what_both_refuse_is_said_once(
    manifest: Path, of_two: tuple[Path, Ended], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(of_two[0], out)  # finished with other options: both processes come to it, and one refuses

    def started(rank: int) -> subprocess.Popen[str]:
        slurm = {
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_STEP_TASKS_PER_NODE": "2",
            "SLURM_STEP_NODELIST": "localhost",
        }
        arguments = [str(each) for each in ("train", manifest, *ONE, *ALL, "--epochs", 4, "--out", out)]
        return subprocess.Popen(
            [sys.executable, "-m", "medtool", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **slurm, "OMP_NUM_THREADS": "1"},
        )

    processes = [started(rank) for rank in (0, 1)]
    try:
        first, second = (process.communicate(timeout=LONG_S) for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1, 1]
    assert "options.epochs was 3, now 4" in first[1]
    assert second == ("", "")


def program(*lines: str) -> tuple[str, ...]:
    """Return a program for the processes that knows its place as medtool does, and is started faster."""
    head = ("import os, sys, time", "from pathlib import Path", "from medtool.train import launch")
    return (sys.executable, "-c", "\n".join((*head, "launch.end_with_parent()", "rank = os.environ['RANK']", *lines)))


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    child = program(f"Path({str(tmp_path)!r}, rank).touch()", f"time.sleep({LONG_S})")
    code = f"from medtool.train.launch import run_processes\nrun_processes(2, [], program={child!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        until = time.monotonic() + LONG_S
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        children = psutil.Process(parent.pid).children()
        assert len(children) == 2
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_the_parent_says_what_one_process_failed_of_and_ends_the_others() -> None:
    fails = program(
        "place, error = launch.place_of(os.environ), launch.UsageError('--lr is 0', hint='--lr 1')",
        "with launch.one_voice(place, warn=print, is_lost=lambda error: rank == '0'):",
        "    raise error if rank == '1' else RuntimeError('Connection closed by peer')",
    )
    before = psutil.Process().children()  # helpers of other tests, such as Python's tracker of resources
    with pytest.raises(UsageError) as refused:
        run_processes(2, [], program=fails)
    assert (refused.value.message, refused.value.hint) == ("--lr is 0", "--lr 1")
    began = time.monotonic()
    waits = program("if rank == '1': sys.exit('a library is not there')", f"time.sleep({LONG_S})")
    with pytest.raises(MedtoolError, match="process 1 of 2 ended with code 1: a library is not there"):
        run_processes(2, [], program=waits)
    assert time.monotonic() - began < LONG_S / 2  # the other would sleep on
    assert psutil.Process().children() == before


@pytest.mark.skipif(sys.platform == "win32", reason="names the signal")
def test_the_process_that_was_killed_is_named_even_if_both_are_found_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtool.train.launch._POLL_S", 5.0)
    killed = program(
        "import signal",
        "place = launch.place_of(os.environ)",
        "with launch.one_voice(place, warn=print, is_lost=lambda error: True):",
        "    os.kill(os.getpid(), signal.SIGKILL) if rank == '1' else None",
        "    raise RuntimeError('Connection closed by peer')",
    )
    with pytest.raises(MedtoolError, match="process 1 of 2 was ended by SIGKILL"):
        run_processes(2, [], program=killed)


def test_an_end_is_that_of_the_first_process() -> None:
    assert run_processes(2, ["4"], program=program("sys.exit(int(sys.argv[1]) * (rank == '0'))")) == ExitCode.PARTIAL


def test_more_devices_than_there_are_are_refused(medtool: Run, manifest: Path, tmp_path: Path) -> None:
    ended = medtool("train", manifest, *ONE, "--devices", 4000, "--out", tmp_path / "run")
    assert ended.code == ExitCode.USAGE
    assert "--devices 4000: there are" in ended.err
    assert "processors" in ended.err
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="--devices 3: there are 2 GPUs"):
        check_devices(3, device="cuda", there=2)
    with pytest.raises(UsageError, match="--device cuda:1 one"):
        check_devices(2, device="cuda:1", there=2)
    with pytest.raises(UsageError, match="on MPS there is one device"):
        check_devices(2, device="mps", there=0)


def test_launchers_tell_each_process_its_place() -> None:
    torchrun = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert place_of(torchrun) == Place(5, 8, 1, 4)
    assert place_of({**torchrun, "WORLD_SIZE": "1", "RANK": "0"}) is None
    assert place_of({}) is None
    srun = {
        "SLURM_STEP_NUM_TASKS": "11",
        "SLURM_PROCID": "9",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "2",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
        "SLURM_STEP_NODELIST": "gpu[003-004,9],login1",
        "SLURM_JOB_ID": "12345",
    }
    place = place_of(srun)
    assert place == Place(9, 11, 1, 3)
    meeting = meeting_variables(place, srun)
    assert meeting["MASTER_ADDR"] == "gpu003"
    assert 20_000 <= int(meeting["MASTER_PORT"]) < 30_000
    assert meeting_variables(Place(5, 8, 1, 4), {**torchrun, "MASTER_ADDR": "a", "MASTER_PORT": "1"}) == {}
    assert place_of({**srun, **torchrun}) == Place(5, 8, 1, 4)


def test_a_batch_script_of_slurm_is_alone_whatever_its_number_of_tasks() -> None:
    assert place_of({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}) is None
    assert place_of({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2"}, "RANK is ''"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"}, "rank 2 of 2"),
    ],
)
def test_what_a_launcher_says_wrongly_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        place_of(environment)


def test_settings_of_accelerate_are_obeyed_or_refused() -> None:
    assert is_fsdp_asked({"ACCELERATE_USE_FSDP": "true"})
    assert not is_fsdp_asked({"FSDP_OFFLOAD_PARAMS": "true"})
    with pytest.raises(UsageError, match="FSDP_OFFLOAD_PARAMS"):
        is_fsdp_asked({"ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"})
    with pytest.raises(UsageError, match="DeepSpeed is asked for"):
        is_fsdp_asked({"ACCELERATE_USE_DEEPSPEED": "true"})

    def check(name: str, value: str, *, precision: str = "fp32", device: str = "cuda:0") -> None:
        check_settings({name: value}, precision=precision, device=device, is_compiled=False)

    check("ACCELERATE_MIXED_PRECISION", "no", precision="bf16")
    check("ACCELERATE_MIXED_PRECISION", "bf16", precision="bf16")
    check("ACCELERATE_DYNAMO_BACKEND", "NO")
    check("ACCELERATE_USE_CPU", "true", device="cpu")
    check("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    for name, value, words in (
        ("ACCELERATE_MIXED_PRECISION", "bf16", "mixed precision bf16, and --precision is fp32"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "--compile is not given"),
        ("ACCELERATE_USE_CPU", "true", "asks for the CPU, and --device is cuda:0"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "over 4 steps"),
    ):
        with pytest.raises(UsageError, match=words):
            check(name, value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--shard",), "--devices 2"),
        (("--shard", "--devices", 2, "--compile"), "do not go together"),
    ],
)
def test_a_network_is_not_split_where_that_cannot_be(
    medtool: Run, manifest: Path, tmp_path: Path, more: tuple[object, ...], words: str
) -> None:
    ended = medtool("train", manifest, *ONE, *more, "--out", tmp_path / "run")
    assert ended.code == ExitCode.USAGE, ended.err
    assert words in ended.err
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="--precision fp32 or bf16"):
        check_sharding(n_processes=2, precision="fp16", is_compiled=False)


def test_a_team_that_does_not_fit_its_batches_is_refused() -> None:
    check_size(SECOND, devices=2, batch_size=4)
    with pytest.raises(UsageError, match="--batch-size 3 for 2 processes"):
        check_size(SECOND, devices=1, batch_size=3)
    with pytest.raises(UsageError, match="--devices 3, but the launcher started 2"):
        check_size(SECOND, devices=3, batch_size=32)
    batches = Batches.__new__(Batches)
    batches.batch_size = 8
    with pytest.raises(UsageError, match="4 processes are too many for a batch of 3 images"):
        batches.shares(3, rank=0, of=4)


def test_shares_of_all_processes_make_up_each_batch() -> None:
    batches = Batches.__new__(Batches)
    batches.batch_size = 10
    alone = batches.shares(35)
    shares = [batches.shares(35, rank=rank, of=3) for rank in range(3)]
    assert alone == [range(10), range(10, 20), range(20, 30), range(30, 35)][: len(alone)]
    for number, batch in enumerate(batches.shares(36)):
        each = [batches.shares(36, rank=rank, of=3)[number] for rank in range(3)]
        assert sorted(position for share in each for position in share) == list(batch)
    assert {len(share) for share in shares} == {3}  # the last five are fewer than two for each


def test_a_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of(SECOND, "cuda") == "cuda:1"
    assert device_of(SECOND, "cpu") == "cpu"
    with pytest.raises(UsageError, match="3 processes were started on this machine, which has 2 GPUs"):
        device_of(Place(0, 6, 0, 3), "cuda")
    with pytest.raises(UsageError, match="--device cuda:0 is one device"):
        device_of(SECOND, "cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of(SECOND, "cuda") == "cuda:0"  # SLURM shows each process its own as the first


def test_batch_norms_of_gpus_are_synchronised_and_keep_their_activations() -> None:
    team = Processes.__new__(Processes)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), BatchNormAct2d(4), torch.nn.BatchNorm2d(4))
    names = list(network.state_dict())
    parameters = list(network.parameters())
    team.device = torch.device("cpu")
    assert team.prepared(network)[1] is network[1]
    team.device = torch.device("cuda", 0)
    prepared = team.prepared(network)
    assert [isinstance(layer, torch.nn.SyncBatchNorm) for layer in prepared] == [False, True, True]
    assert list(prepared.state_dict()) == names
    assert all(one is other for one, other in zip(prepared.parameters(), parameters, strict=True))
    images = torch.randn(2, 3, 4, 4)
    assert (prepared.eval()[:2](images) >= 0).all()  # the ReLU is still there


def test_what_fails_in_another_process_than_the_first_is_said_only_if_the_first_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("medtool.train.launch._LAST_WORDS_S", 0.0)
    said: list[str] = []

    def end(place: Place, error: BaseException) -> int:
        with pytest.raises(SystemExit) as ended, one_voice(place, warn=said.append, is_lost=is_lost):
            raise error
        assert isinstance(ended.value.code, int)
        return ended.value.code

    lost = RuntimeError("[gloo/transport/tcp/pair.cc:544] Connection closed by peer")
    assert end(SECOND, UsageError("--lr is 0")) == ExitCode.USAGE
    assert end(SECOND, lost) == ExitCode.FAILED
    assert end(SECOND, KeyboardInterrupt()) == ExitCode.INTERRUPTED
    assert said == []
    assert end(SECOND, MedtoolError("cuda:1 has too little memory")) == ExitCode.FAILED
    assert said == ["process 1 of 2: cuda:1 has too little memory"]
    first = Place(0, 2, 0, 2)
    with (
        pytest.raises(MedtoolError, match="another of the 2 processes ended"),
        one_voice(first, warn=said.append, is_lost=is_lost),
    ):
        raise lost
    with pytest.raises(ZeroDivisionError), one_voice(first, warn=said.append, is_lost=is_lost):
        raise ZeroDivisionError
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert end(first, UsageError("--lr is 0", hint="--lr 1")) == ExitCode.USAGE
    report = json.loads((tmp_path / "0.json").read_text())
    assert (report["message"], report["hint"], report["is_echo"]) == ("--lr is 0", "--lr 1", False)
    assert len(said) == 1

"""What ``accelerate launch`` was told beside how many processes there are: obeyed or refused, never passed over."""

from __future__ import annotations

from collections.abc import Mapping

from medtool.errors import UsageError

_YES = ("1", "true", "yes")
_OTHER_WAYS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}


def is_fsdp_asked(environment: Mapping[str, str]) -> bool:
    """Tell whether the launcher asks for a network that is split among the processes.

    Raises
    ------
    UsageError
        If it asks for another way of doing so, or for one that keeps weights off the device.
    """
    for variable, name in _OTHER_WAYS.items():
        if _is_set(environment, variable):
            raise UsageError(
                f"{name} is asked for ({variable}); medtool splits a network by FSDP alone",
                hint="accelerate launch --use_fsdp, or --shard",
            )
    is_asked = _is_set(environment, "ACCELERATE_USE_FSDP")
    if is_asked and _is_set(environment, "FSDP_OFFLOAD_PARAMS"):
        raise UsageError(
            "FSDP_OFFLOAD_PARAMS keeps the weights in the processors' memory; medtool leaves them on the devices",
            hint="accelerate config without it; --micro-batch and --precision bf16 save memory",
        )
    return is_asked


def check_settings(environment: Mapping[str, str], *, precision: str, device: str, is_compiled: bool) -> None:
    """Refuse settings of the launcher that medtool's own options contradict.

    Parameters
    ----------
    precision, device
        Resolved.

    Raises
    ------
    UsageError
        Naming the option.
    """
    wanted = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if wanted not in ("no", precision):
        raise UsageError(
            f"accelerate asks for mixed precision {wanted}, and --precision is {precision}",
            hint=f"--precision {wanted}" if wanted in ("bf16", "fp16") else "accelerate config without it",
        )
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no" and not is_compiled:
        raise UsageError("accelerate asks for a compiled network, and --compile is not given", hint="--compile")
    if _is_set(environment, "ACCELERATE_USE_CPU") and device != "cpu":
        raise UsageError(f"accelerate asks for the CPU, and --device is {device}", hint="--device cpu")
    parts = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if parts not in ("1", "auto"):
        raise UsageError(
            f"accelerate asks for gradients accumulated over {parts} steps; medtool divides a batch by --micro-batch",
            hint="accelerate config without it; --batch-size is that of the whole step",
        )


def check_sharding(*, n_processes: int, precision: str, is_compiled: bool) -> None:
    """Refuse to split a network where that cannot be.

    Raises
    ------
    UsageError
        Naming the option.
    """
    if n_processes < 2:
        raise UsageError("--shard splits a network among several processes, and there is one", hint="--devices 2")
    if precision == "fp16":
        raise UsageError("--shard goes with --precision fp32 or bf16", hint="--precision bf16")
    if is_compiled:
        raise UsageError("--shard and --compile do not go together")


def _is_set(environment: Mapping[str, str], variable: str) -> bool:
    return environment.get(variable, "").lower() in _YES

"""Weights: from a file that may come from anywhere into a network, or one clear line why not."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medtool.errors import InputError

_NESTS = ("state_dict", "model_state_dict", "model")
_SHOWN = 3


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors, without running anything that is in it.

    Parameters
    ----------
    path
        A safetensors file (by its name's ending), or what ``torch.save`` writes: a dictionary of tensors, bare or under
        ``state_dict``, ``model_state_dict`` or ``model`` (whose neighbours, such as an optimizer, are left out).

    Returns
    -------
    dict
        Tensors by name, on the CPU, as they are in the file.

    Raises
    ------
    InputError
        If the file cannot be read, is truncated or of another kind, holds Python objects other than tensors and plain
        containers, or is no dictionary of named tensors.
    """
    document = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state = document
    while isinstance(state, Mapping):
        nest = next((name for name in _NESTS if isinstance(state.get(name), Mapping)), None)
        if nest is None:
            break
        state = state[nest]
    if not isinstance(state, Mapping) or not state:
        raise InputError(f"{path} holds no named tensors, but {_kind_of(state)}")
    for name, value in state.items():
        if not isinstance(name, str):
            raise InputError(f"{path} is no dictionary of named tensors: {name!r} is not the name of a tensor")
        if not (isinstance(value, Tensor) and value.layout == torch.strided):
            raise InputError(f"{path} is no dictionary of named tensors: {name!r} is {_kind_of(value)}")
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except SafetensorError as error:
        raise InputError(f"{path} is no whole safetensors file: {error}", hint=_AGAIN) from error


def _read_pickle(path: Path) -> Any:
    is_zip = is_pickle = False
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Torch's reader warns of old and odd formats; what matters of them is an error with one line below.
            warnings.simplefilter("ignore", UserWarning)
            is_zip = _is_zip(file)
            file.seek(0)
            is_pickle = file.read(1) == pickle.PROTO
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+) (?:was|whose)", str(error))
        if foreign is not None or (is_pickle and not is_zip):
            more = f" ({foreign[1]})" if foreign else ""
            raise InputError(
                f"{path} is refused: it is a pickle of more than tensors{more}, and loading one can run any code",
                hint="save the tensors alone, best as a safetensors file",
            ) from error
        raise InputError(f"{path} {_broken(is_zip)}", hint=_AGAIN) from error
    except Exception as error:  # torch's reader ends in many kinds of error on broken bytes
        raise InputError(f"{path} {_broken(is_zip)}", hint=_AGAIN) from error


_AGAIN = "fetch the file again, and compare its size and sha256 with the published ones"


def _is_zip(file: BinaryIO) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # the end of an archive is there, and damaged
        return True


def _broken(is_zip: bool) -> str:
    return "is damaged: its tensors cannot be read" if is_zip else "is truncated, or no file of tensors"


def _kind_of(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of layout {value.layout}"
    if isinstance(value, Mapping):
        return "an empty dictionary" if not value else f"a dictionary of {len(value)}"
    return f"a {type(value).__name__}"


def fill(network: nn.Module, state: Mapping[str, Tensor], *, path: Path, what: str) -> None:
    """Make a state dict a network's weights, in float32; the network may lie on the meta device.

    Parameters
    ----------
    network
        Takes over the tensors; every one of its own must be there, and nothing else.
    state
        By the network's own names.
    path, what
        The file and the network's name, for the message.

    Raises
    ------
    InputError
        If a tensor is missing, unexpected, of another shape, not of numbers with a fraction, or not finite. The message
        names the first few.
    """
    wanted = network.state_dict()
    complaints = [
        _listed("missing", [name for name in wanted if name not in state]),
        _listed("unexpected", [name for name in state if name not in wanted]),
    ]
    both = [name for name in wanted if name in state]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in both
        if state[name].shape != wanted[name].shape
    ]
    complaints.append(_listed("of another shape", shapes))
    if not any(complaints):
        kinds = [name for name in both if wanted[name].is_floating_point() != state[name].is_floating_point()]
        complaints.append(_listed("of another kind of number", kinds))
        broken = [name for name in both if name not in kinds and not bool(torch.isfinite(state[name]).all())]
        complaints.append(_listed("not finite", broken))
    if any(complaints):
        found = "; ".join(complaint for complaint in complaints if complaint)
        raise InputError(f"{path} does not hold the weights of {what}: {found}", hint=f"medtool weights get {what}")
    ready = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    network.load_state_dict(ready, strict=True, assign=True)
    network.requires_grad_(False)


def _listed(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{kind}: {', '.join(names[:_SHOWN])}{more}" if names else ""

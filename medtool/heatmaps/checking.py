"""Whether the structure of a file is that of a file of heatmaps; nothing of its data is read."""

from __future__ import annotations

import math

import h5py
import numpy as np

from medtool.hdf5 import MAX_TEXT_BYTES, VARIABLE_LENGTH, fault_of_claim, fault_of_storage
from medtool.heatmaps.format import MAX_LINEAGE_BYTES, fault_of_shape

_MAX_COLUMN_BYTES = 1 << 30
_NEEDED = ("heatmaps", "image_id", "image_sha256", "score")
_OPTIONAL = ("classes", "target", "seen", "flag", "spread", "key", "checksum", "lineage")
_TEXTS = ("image_id", "image_sha256", "target", "seen", "classes")
_KINDS = {"flag": "uint8", "checksum": "uint32", "key": "uint64", "spread": "float32"}


def fault_of_structure(file: h5py.File) -> str:
    """Return which rule of the format the data sets of a file break; empty if they break none."""
    present = [name for name in (*_NEEDED, *_OPTIONAL) if name in _NEEDED or name in file]
    for name in present:
        if fault := fault_of_storage(file, name):
            return fault
    maps = file["heatmaps"]
    if maps.ndim not in (3, 4) or maps.dtype.newbyteorder("=") != np.float32:
        return f"heatmaps must be (n, h, w) or (n, k, h, w) float32, not {maps.shape} {maps.dtype}"
    if fault := fault_of_shape(maps.shape):
        return fault
    if (maps.ndim == 4) != ("classes" in present):
        return f"heatmaps are {maps.shape}; the data set 'classes' goes with (n, k, h, w), and only with that"
    faults = [_fault_of(file[name], name, maps.shape) for name in present if name != "heatmaps"]
    faults += [fault_of_claim(file, name) for name in present]
    return next((fault for fault in faults if fault), "")


def _fault_of(found: h5py.Dataset, name: str, maps: tuple[int, ...]) -> str:
    rows, several = maps[:1], maps[1:-2]
    if name in _TEXTS:
        return _fault_of_texts(found, name, several if name == "classes" else rows)
    if name == "lineage":
        is_right = found.ndim == 1 and found.size <= MAX_LINEAGE_BYTES and found.dtype == np.uint8
        wanted = f"at most {MAX_LINEAGE_BYTES} uint8"
    elif name == "score":
        is_right = found.shape == rows + several and found.dtype.newbyteorder("=") in (np.float32, np.float64)
        wanted = f"{rows + several} float32 or float64"
    else:
        shape = {"flag": rows + several, "spread": maps}.get(name, rows)
        is_right = found.shape == shape and found.dtype.newbyteorder("=") == np.dtype(_KINDS[name])
        wanted = f"{shape} {_KINDS[name]}"
    return "" if is_right else f"{name} must be {wanted}, not {found.shape} {found.dtype}"


def _fault_of_texts(found: h5py.Dataset, name: str, shape: tuple[int, ...]) -> str:
    kind = h5py.check_string_dtype(found.dtype)
    if found.shape != shape or kind is None:
        return f"{name} must be {shape} strings, not {found.shape} {found.dtype}"
    if kind.length is None:
        return f"{name} {VARIABLE_LENGTH}"
    if kind.length > MAX_TEXT_BYTES:
        return f"{name} claims strings of {kind.length} bytes; at most {MAX_TEXT_BYTES}"
    claimed = kind.length * math.prod(shape)
    return f"{name} claims {claimed} bytes; at most {_MAX_COLUMN_BYTES}" if claimed > _MAX_COLUMN_BYTES else ""

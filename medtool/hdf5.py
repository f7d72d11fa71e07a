"""HDF5 files from elsewhere, refused where they could send us to other files or fill the memory.

An HDF5 file can name data in other files (links, virtual data sets, external storage), and a few bytes of it can claim
any amount of data, by chunks that are not there or that hold zeros alone. All is refused from the file's description
alone, before any data is read. So are strings of variable length: they lie in a heap of the file in which any number of
them can be one and the same, and a damaged heap sends the HDF5 library round and round for ever.
"""

from __future__ import annotations

import math
import stat
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from medtool.errors import InputError

MAX_CHUNK_BYTES = 64 << 20
MAX_TEXT_BYTES = 4096
#: Numbers of a few values compress a hundredfold, zeros alone a thousandfold; chunks that are not there take nothing.
MAX_COMPRESSION = 256
_FREE_CLAIM_BYTES = 16 << 20
VARIABLE_LENGTH = "holds strings of variable length, which are not read; in h5py, numpy.bytes_ and dtype 'S' are fixed"

_PLAIN = (h5py.h5t.TypeStringID, h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID)
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_LZF: "lzf",
}


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises
    ------
    InputError
        If it cannot be read, is no HDF5 file, or is cut short.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is not a file", hint="give the .h5 file in it, if it is a folder")
        with path.open("rb"):
            pass
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if isinstance(error.strerror, str) and error.errno:
            raise InputError(f"cannot read {path}: {error.strerror.lower()}") from error
        reason = "is cut short" if "truncated" in str(error) else "is not an HDF5 file, or a damaged one"
        raise InputError(f"{path} {reason}", hint="make the file again") from error


def fault_of_links(file: h5py.File) -> str:
    """Return which member of the root is a link to somewhere else; empty if none is."""
    names: list[bytes] = []
    file.id.links.iterate(names.append)
    for name in names:
        if file.id.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            return (
                f"{name.decode('utf-8', 'backslashreplace')!r} is a link to another place or file; it is not followed"
            )
    return ""


def fault_of_storage(file: h5py.File, name: str) -> str:
    """Return why a data set of the root must not be read; empty if it may.

    Asking a virtual data set for its shape may already open its sources, so this must come first.
    """
    raw = name.encode()
    if raw not in file.id:
        return f"it has no data set {name!r}"
    node = h5py.h5o.open(file.id, raw)
    if not isinstance(node, h5py.h5d.DatasetID):
        return f"{name!r} is not a data set"
    fault = _fault_of_layout(node)
    return f"{name} {fault}" if fault else ""


def _fault_of_layout(node: h5py.h5d.DatasetID) -> str:
    plan = node.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        return "is a virtual data set, put together from other files, which is not read"
    if node.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        return "has no shape"
    if plan.get_external_count():
        return "is stored in another file, which is not read"
    if any(plan.get_filter(index)[0] not in _FILTERS for index in range(plan.get_nfilters())):
        return f"uses a filter other than {', '.join(_FILTERS.values())}"
    if plan.get_layout() == h5py.h5d.CHUNKED:
        claimed = math.prod(plan.get_chunk()) * node.get_type().get_size()
        if claimed > MAX_CHUNK_BYTES:
            return f"has chunks of {claimed} bytes; at most {MAX_CHUNK_BYTES} are read"
    return ""


def fault_of_claim(file: h5py.File, name: str) -> str:
    """Return why a data set, in which :func:`fault_of_storage` finds no fault, is too large for what is there of it."""
    node = file[name].id
    claimed, stored = math.prod(node.shape) * node.get_type().get_size(), node.get_storage_size()
    if node.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS and stored not in (0, claimed):
        return f"{name} claims {claimed} bytes and stores {stored}"
    stored = min(stored, file.id.get_filesize())
    if claimed <= max(_FREE_CLAIM_BYTES, MAX_COMPRESSION * stored):
        return ""
    return f"{name} claims {claimed} bytes and stores {stored}; at most {MAX_COMPRESSION} times as many are read"


def read_attribute(file: h5py.File, name: str) -> str | int | float | None:
    """Return a scalar text or number of the root; None if it is missing.

    Raises
    ------
    ValueError
        If it is anything else, or a text of more than ``MAX_TEXT_BYTES``.
    """
    if name not in file.attrs:
        return None
    found = file.attrs.get_id(name)
    kind = found.get_type()
    if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
        raise ValueError(f"attribute {name!r} {VARIABLE_LENGTH}")
    if not isinstance(kind, _PLAIN):  # lists of any length and references lie in the file's heap too
        raise ValueError(f"attribute {name!r} must be one text or number")
    if found.shape != () or found.get_type().get_size() > MAX_TEXT_BYTES:
        raise ValueError(f"attribute {name!r} must be one text or number")
    value: Any = file.attrs[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, str | int | float):
        raise ValueError(f"attribute {name!r} must be one text or number, not {type(value).__name__}")
    return value


def string_type(longest_bytes: int) -> np.dtype[Any]:
    """Return the type of UTF-8 strings of a fixed length that holds so many bytes."""
    text: np.dtype[Any] = h5py.string_dtype("utf-8", max(1, longest_bytes))
    return text

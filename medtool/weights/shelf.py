"""The folder in which all weights lie, and what is in it.

A plugin's segmenter may need weights that medtool does not know. They are named by their file's name, such as
``acme.safetensors``, and put into the folder by hand.
"""

from __future__ import annotations

import enum
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePath

from medtool.errors import InputError, MissingWeightsError
from medtool.storage import sha256_of
from medtool.weights.published import WeightsInfo, info, known

FOLDER_VARIABLE = "MEDTOOL_WEIGHTS"
SUFFIXES = (".pth", ".pt", ".safetensors")


class State(enum.StrEnum):
    """What is known of one file of weights on this machine."""

    VERIFIED = "verified"
    HERE = "here"
    OWN = "own file"
    WRONG = "wrong file"
    UNFINISHED = "unfinished"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Found:
    """What is on this machine under one name.

    Attributes
    ----------
    info
        What is published, or None for a file of the user's own.
    path
        Where the file is or would be.
    state
        ``verified``: size and SHA-256 are the published ones. ``here``: the size is; the hash has not been looked at.
        ``own file``: nothing is published to compare with. ``wrong file``: not the published one. ``unfinished``: a
        download that the next ``get`` continues. ``missing``.
    size_bytes
        On this machine.
    sha256
        Of the file on this machine, where it has been computed.
    """

    name: str
    info: WeightsInfo | None
    path: Path
    state: State
    size_bytes: int
    sha256: str | None = None

    @property
    def is_usable(self) -> bool:
        """Whether a segmenter would take the file."""
        return self.state in (State.VERIFIED, State.HERE, State.OWN)


def folder() -> Path:
    """Return the folder of all weights: ``MEDTOOL_WEIGHTS``, or one in the user's data folder. It may not exist yet."""
    given = os.environ.get(FOLDER_VARIABLE, "")
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("medtool", appauthor=False) / "weights"


def find(name: str) -> Path | None:
    """Return the file with the weights called ``name``, or None if it is not on this machine with the right size.

    Raises
    ------
    UnknownNameError
        If ``name`` is neither published nor the name of a file such as ``acme.safetensors``.
    """
    found = look_at(name)
    return found.path if found.is_usable else None


def require(name: str) -> Path:
    """Return the file with the weights called ``name``.

    Raises
    ------
    MissingWeightsError
        If it is not on this machine; the hint says how to get it.
    UnknownNameError
        As for :func:`find`.
    """
    found = look_at(name)
    if found.is_usable:
        return found.path
    hint = f"medtool weights get {name}" if found.info else f"copy the file to {found.path}"
    if found.state is State.WRONG and found.info is not None:
        raise MissingWeightsError(
            f"{found.path} is not the published {name}: it has {found.size_bytes:,} bytes, not"
            f" {found.info.size_bytes:,}",
            hint=f"{hint} --overwrite",
        )
    raise MissingWeightsError(f"the weights {name} are not on this machine", hint=hint)


def look_at(name: str, *, verify: bool = False) -> Found:
    """Return what is on this machine under one name.

    Parameters
    ----------
    verify
        Read the whole file and compare its SHA-256 with the published one.

    Raises
    ------
    UnknownNameError
        As for :func:`find`.
    InputError
        If the file cannot be read.
    """
    wanted = _published_as(name)
    path = folder() / (name if wanted is None else wanted.file_name)
    size = _size_of(path)
    if size is not None:
        if wanted is not None and size != wanted.size_bytes:
            return Found(name, wanted, path, State.WRONG, size)
        if not verify:
            return Found(name, wanted, path, State.OWN if wanted is None else State.HERE, size)
        sha256 = digest_of(path)
        state = State.OWN if wanted is None else State.VERIFIED if sha256 == wanted.sha256 else State.WRONG
        return Found(name, wanted, path, state, size, sha256)
    begun = _size_of(part_of(path)) if wanted else None
    if begun is not None:
        return Found(name, wanted, path, State.UNFINISHED, begun)
    return Found(name, wanted, path, State.MISSING, 0)


def look_at_all(*, verify: bool = False) -> list[Found]:
    """Return what is on this machine of all published weights, then the user's own files in the folder."""
    published = {each.file_name for each in known()}
    files = [path.name for path in folder().glob("*") if path.suffix in SUFFIXES and path.is_file()]
    own = sorted(name for name in files if name not in published)
    return [look_at(name, verify=verify) for name in (*(each.name for each in known()), *own)]


def _published_as(name: str) -> WeightsInfo | None:
    """Return what is published under a name or a file's name, None for a file of the user's own."""
    for each in known():
        if each.file_name == name:
            return each
    is_file_name = PurePath(name).name == name and PurePath(name).suffix in SUFFIXES
    return None if is_file_name else info(name)


def _size_of(path: Path) -> int | None:
    """Return a file's size, None if there is no such file."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def part_of(path: Path) -> Path:
    """Return where the download of ``path`` grows."""
    return path.with_name(f"{path.name}.part")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> InputError:
    """Return the error to raise when ``path`` cannot be read."""
    return InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}")

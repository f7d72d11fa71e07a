"""What a result was made from, and whether it may be mixed with another.

``lineage.json`` lies beside every result. ``made_with`` holds everything that decides what the result looks like: the
options, the versions of the methods, the hashes of weights and heatmaps. Two results with a different ``made_with``
are never mixed. Times and machine names are left out, so that the same work gives the same file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medtool import __version__
from medtool.errors import InputError, LineageError
from medtool.storage import read_json, write_json

LINEAGE_NAME = "lineage.json"
FORMAT = "medtool-lineage"
FORMAT_VERSION = 1


def new_lineage(command: str, made_with: Mapping[str, Any], *, packages: Iterable[str]) -> dict[str, Any]:
    """Return the lineage document of a result that is being made.

    Parameters
    ----------
    command
        The command's name, such as ``segment``.
    made_with
        JSON-ready; see the module's text.
    packages
        Distributions whose versions are written down, for information; they are not compared.
    """
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "command": command,
        "medtool": __version__,
        "status": "unfinished",
        "made_with": dict(made_with),
        "packages": {name: importlib.metadata.version(name) for name in sorted(packages)},
    }


def finished(lineage: Mapping[str, Any], *, images: Mapping[str, str], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lineage of a finished result.

    Parameters
    ----------
    images
        Image id to SHA-256 of the image file's bytes.
    outputs
        JSON-ready facts on what was written, with a hash of it.
    """
    return {
        **lineage,
        "status": "finished",
        "images": {"n": len(images), "sha256": digest_of(f"{name}\0{sha}" for name, sha in sorted(images.items()))},
        "outputs": dict(outputs),
    }


def digest_of(lines: Iterable[str]) -> str:
    """Return one SHA-256 over many strings, each ended by a line feed."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def read_lineage(folder: Path) -> dict[str, Any] | None:
    """Return the lineage of the result in ``folder``, or None when there is none.

    Raises
    ------
    LineageError
        If it was written in a format that this version does not know.
    """
    path = folder / LINEAGE_NAME
    if not path.exists():
        return None
    try:
        document = read_json(path)
    except InputError as error:
        raise LineageError(error.message, hint="give another folder with --out, or remove this one") from error
    if document.get("format") != FORMAT or document.get("version") != FORMAT_VERSION:
        raise LineageError(
            f"{path} is not a medtool lineage of version {FORMAT_VERSION}"
            f" (format {document.get('format')!r}, version {document.get('version')!r})",
            hint="give another folder with --out",
        )
    if not isinstance(document.get("made_with"), dict) or document.get("status") not in ("unfinished", "finished"):
        raise LineageError(
            f"{path} is damaged: it does not say what the result was made with",
            hint="give another folder with --out, or remove this one",
        )
    return document


def write_lineage(folder: Path, lineage: Mapping[str, Any]) -> None:
    """Write ``lineage.json`` into ``folder``, whole."""
    write_json(folder / LINEAGE_NAME, lineage)


def made_with_digest(document: Mapping[str, Any]) -> str:
    """Return one SHA-256 of all that decides what a result looks like: of its ``made_with``."""
    return digest_of([json.dumps(document["made_with"], sort_keys=True)])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line for every value that differs between two ``made_with``, named by its dotted path."""
    flat_before, flat_now = dict(_flat(before)), dict(_flat(now))
    absent = "nothing"
    return [
        f"{name} was {flat_before.get(name, absent)}, now {flat_now.get(name, absent)}"
        for name in sorted(flat_before.keys() | flat_now.keys())
        if flat_before.get(name, absent) != flat_now.get(name, absent)
    ]


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def refuse_other(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on in ``folder`` when its result was made by another command or with other options.

    Raises
    ------
    LineageError
        Naming what differs, and ``--overwrite``.
    """
    if before.get("command") != now.get("command"):
        raise LineageError(
            f"{folder} holds the result of 'medtool {before.get('command')}'", hint="give another folder with --out"
        )
    changed = differences(before.get("made_with", {}), now["made_with"])
    if changed:
        more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
        raise LineageError(
            f"{folder} was made with other options: {'; '.join(changed[:3])}{more}",
            hint="the earlier options, another folder with --out, or --overwrite to replace what is there",
        )

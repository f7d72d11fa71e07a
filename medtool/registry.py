"""Which plugins there are, found by name and loaded on use; a broken plugin hurts nobody else.

A plugin is an entry point in one of the groups of :mod:`medtool.protocols`; the built-ins come through the same door.
Looking at what there is imports no plugin. The rules:

- A name that two distributions claim belongs to neither: using it is a :class:`~medtool.errors.PluginError` that names
  both. Listing shows both.
- One distribution that lies on ``sys.path`` twice (say an editable install before a wheel) is one distribution: the
  first one counts, as it does for ``import``.
- A plugin that cannot be imported, or lacks a part of its contract, is an error only for whoever asks for it.
- A distribution whose list of entry points cannot be read is skipped and named by :func:`problems`.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medtool.errors import PluginError, UnknownNameError, reason_of
from medtool.protocols import ARCHITECTURES, DATASETS, SEGMENTERS, Architecture, Dataset, PluginInfo, Segmenter

if TYPE_CHECKING:
    import importlib.metadata

GROUPS = {"dataset": DATASETS, "architecture": ARCHITECTURES, "segmenter": SEGMENTERS}
CONTRACTS: dict[str, type] = {"dataset": Dataset, "architecture": Architecture, "segmenter": Segmenter}


@dataclass(frozen=True, slots=True)
class _Entry:
    info: PluginInfo
    point: importlib.metadata.EntryPoint


@dataclass(frozen=True, slots=True)
class _Scan:
    entries: tuple[_Entry, ...]
    problems: tuple[str, ...]


def kind_of(text: str) -> str:
    """Return the kind that ``text`` names, in the singular or the plural: dataset, architecture or segmenter.

    Raises
    ------
    UnknownNameError
        If there is no such kind.
    """
    kind = text.strip().lower().removesuffix("s")
    if kind not in GROUPS:
        raise UnknownNameError("kind of plugin", text, known=GROUPS, hint=f"one of: {', '.join(GROUPS)}")
    return kind


def infos(kind: str | None = None) -> list[PluginInfo]:
    """Return every entry point of a kind (of all kinds if None) by kind and name, without importing any.

    Where a name is claimed more than once, ``details["conflict"]`` of each claimant names them all.
    """
    wanted = GROUPS if kind is None else {kind_of(kind)}
    return [entry.info for entry in _scan().entries if entry.info.kind in wanted]


def names(kind: str) -> list[str]:
    """Return the names of a kind, sorted, each one once, without importing any plugin."""
    return sorted({info.name for info in infos(kind)})


def problems() -> tuple[str, ...]:
    """Return one line for each distribution whose list of plugins cannot be read."""
    return _scan().problems


def load(kind: str, name: str) -> Any:
    """Import a plugin and return it: a segmenter's class, a data set's or an architecture's instance.

    Parameters
    ----------
    kind
        ``dataset``, ``architecture`` or ``segmenter``.
    name
        As on the command line.

    Raises
    ------
    UnknownNameError
        If nothing of that kind has the name; gives the nearest that does.
    PluginError
        If two distributions claim the name, the plugin cannot be imported, or it lacks a part of its contract.
    """
    return _load(kind_of(kind), name)


def forget() -> None:
    """Look anew at what is installed, for tests and for programs that install plugins while they run."""
    _scan.cache_clear()
    _load.cache_clear()


@functools.cache
def _load(kind: str, name: str) -> Any:
    claims = [entry for entry in _scan().entries if entry.info.kind == kind and entry.info.name == name]
    if not claims:
        raise UnknownNameError(kind, name, known=names(kind), hint=_hint_for_unknown(kind))
    if len(claims) > 1:
        claimants = ", ".join(_origin(entry.info) for entry in claims)
        others = [entry.info.distribution for entry in claims if entry.info.distribution != "medtool"]
        raise PluginError(
            f"{kind} {name!r} is claimed {len(claims)} times, so it belongs to none: {claimants}",
            hint=f"pip uninstall {others[-1]}" if others else None,
        )
    info = claims[0].info
    try:
        plugin = claims[0].point.load()
        if kind != "segmenter" and inspect.isclass(plugin):
            plugin = plugin()
        lacking = lacking_parts(kind, plugin)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{kind} {name!r} of {_origin(info)} cannot be loaded: {reason_of(error)}",
            hint=getattr(error, "hint", None),
        ) from error
    if lacking:
        raise PluginError(
            f"{kind} {name!r} of {_origin(info)} is not {_a(kind)}: {lacking}",
            hint="docs/reference/contracts.md says what it must supply",
        )
    return plugin


def lacking_parts(kind: str, plugin: Any) -> str:
    """Return what of the contract's shape is missing, empty if nothing."""
    if kind == "segmenter" and not inspect.isclass(plugin):
        return f"the entry point must name a class, not {type(plugin).__name__!r}"
    contract = CONTRACTS[kind]
    methods = [name for name, value in vars(contract).items() if inspect.isfunction(value) and not name.startswith("_")]
    absent = [name for name in (*inspect.get_annotations(contract), *methods) if not hasattr(plugin, name)]
    if absent:
        return f"it has no {', '.join(absent)}"
    uncallable = [name for name in methods if not callable(getattr(plugin, name))]
    return f"not a method: {', '.join(uncallable)}" if uncallable else ""


def _origin(info: PluginInfo) -> str:
    return f"{info.distribution} {info.version} ({info.target})"


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _hint_for_unknown(kind: str) -> str | None:
    """Say so where medtool's own plugins are missing because it runs from a folder, uninstalled."""
    is_installed = any(entry.info.distribution == "medtool" for entry in _scan().entries)
    return None if is_installed else f"pip install medtool; its own {kind}s are found only once it is installed"


@functools.cache
def _scan() -> _Scan:
    """Read the entry points of every distribution once.

    ``importlib.metadata.entry_points()`` would fail as a whole for one distribution's malformed file, so each is read
    by itself; most are passed over by a look at the file's text.
    """
    import importlib.metadata  # not for --help

    entries: list[_Entry] = []
    faults: list[str] = []
    seen: set[str] = set()
    for found in importlib.metadata.distributions():
        label = "a distribution without a name"
        try:
            text = found.read_text("entry_points.txt") or ""
            if not any(group in text for group in GROUPS.values()):
                continue
            if not found.metadata["Name"]:
                raise ValueError(f"{found.locate_file('')} holds metadata without a name")
            label = found.metadata["Name"]
            key = re.sub(r"[-_.]+", "-", label).lower()
            if key in seen:
                continue
            seen.add(key)
            entries.extend(_entries_of(importlib.metadata.distribution(label)))
        except Exception as error:
            faults.append(f"{label}: its list of entry points cannot be read: {reason_of(error)}")
    return _Scan(entries=tuple(_with_conflicts(entries)), problems=tuple(faults))


def _entries_of(distribution: importlib.metadata.Distribution) -> list[_Entry]:
    """Return the plugins of the distribution that ``import`` would find under this name."""
    kinds = {group: kind for kind, group in GROUPS.items()}
    return [
        _Entry(
            info=PluginInfo(
                kind=kinds[point.group],
                name=point.name,
                target=point.value,
                distribution=distribution.metadata["Name"],
                version=distribution.version,
            ),
            point=point,
        )
        for point in distribution.entry_points
        if point.group in kinds
    ]


def _with_conflicts(entries: list[_Entry]) -> Iterator[_Entry]:
    entries = sorted(entries, key=lambda entry: (entry.info.kind, entry.info.name, entry.info.distribution))
    claims: dict[tuple[str, str], list[PluginInfo]] = {}
    for entry in entries:
        claims.setdefault((entry.info.kind, entry.info.name), []).append(entry.info)
    for entry in entries:
        info = entry.info
        claimants = claims[info.kind, info.name]
        if len(claimants) > 1:
            details = {"conflict": ", ".join(_origin(claimant) for claimant in claimants)}
            info = PluginInfo(info.kind, info.name, info.target, info.distribution, info.version, details)
        yield _Entry(info=info, point=entry.point)

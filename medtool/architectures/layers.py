"""A network's parameters in the order of its depth: for learning rates by layer, and for unfreezing from the head."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from torch import nn
from torch.nn import Parameter

from medtool.architectures.fusion import FusionNetwork

STEM = "stem"
HEAD = "head"

LayerGroups = list[tuple[str, list[Parameter]]]


def layer_groups(network: nn.Module) -> LayerGroups:
    """Return the parameters of a network from its stem to its head, every one once, with a name for each group.

    Parameters
    ----------
    network
        Bare, not wrapped for several devices or compiled. For timm's networks the groups are timm's: stem, blocks one
        by one, head. For any other they are its children as they were registered, with sequences taken apart, which is
        the order of running in most. In a fused network the whole way from the metadata is part of the head.

    Returns
    -------
    list
        ``("stem", ...)`` first and ``("head", ...)`` last; between them, each block by its dotted name. A network of
        one group has the head alone; frozen parameters are among them.
    """
    if isinstance(network, FusionNetwork):
        *body, (_, image_head) = layer_groups(network.image)
        fused = [*image_head, *network.metadata.parameters(), *network.classifier.parameters()]
        return [*((_inside("image", name), group) for name, group in body), (HEAD, fused)]
    listed = _of_timm(network) if callable(getattr(network, "group_matcher", None)) else _of_any(network)
    parameters = dict(network.named_parameters())
    owners = Counter(prefix for name in parameters for prefix in _prefixes(name))
    groups = [(_name(names, owners), [parameters[name] for name in names]) for names in listed]
    if len(groups) > 1:
        groups[0] = (STEM, groups[0][1])
    if groups:
        groups[-1] = (HEAD, groups[-1][1])
    return groups


def _of_timm(network: nn.Module) -> list[list[str]]:
    from timm.models import group_parameters

    # Called as timm calls it; a matcher without the argument would be no timm network.
    matcher = network.group_matcher(coarse=False)  # type: ignore[operator]
    groups = group_parameters(network, matcher)
    return [groups[number] for number in sorted(groups)]


def _of_any(network: nn.Module) -> list[list[str]]:
    prefixes = list(_units(network, ""))
    groups: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        # What belongs to no child, such as a position embedding, is part of the stem.
        owner = next((prefix for prefix in prefixes if name.startswith(f"{prefix}.")), prefixes[0] if prefixes else "")
        groups.setdefault(owner, []).append(name)
    return [groups[prefix] for prefix in (prefixes or [""]) if prefix in groups]


def _units(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _units(child, f"{path}.")
        else:
            yield path


def _inside(outer: str, name: str) -> str:
    return name if name == STEM else f"{outer}.{name}"


def _name(names: list[str], owners: Counter[str]) -> str:
    """Return the dotted name of the largest module around a group's first parameter that is the group's alone.

    A module that a network calls ``stem`` or ``head`` by itself may be another than the first or the last group.
    """
    ours = Counter(prefix for name in names for prefix in _prefixes(name))
    alone = [prefix for prefix in _prefixes(names[0]) if ours[prefix] == owners[prefix]]
    return next((prefix for prefix in alone if prefix not in (STEM, HEAD)), names[0])


def _prefixes(name: str) -> list[str]:
    """Return ``a``, ``a.b`` and ``a.b.c`` of ``a.b.c``."""
    return list(itertools.accumulate(name.split("."), "{}.{}".format))

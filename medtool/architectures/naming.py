"""From a name on the command line to an architecture: ``resnet50``, ``timm/NAME``, ``fusion/NAME``."""

from __future__ import annotations

from typing import cast

from medtool import registry
from medtool.architectures.fusion import FusionArchitecture
from medtool.architectures.timm_backbone import timm_architecture
from medtool.errors import UnknownNameError, UsageError
from medtool.protocols import Architecture

TIMM = "timm/"
FUSION = "fusion/"


def architecture(name: str) -> Architecture:
    """Return the architecture of a name.

    Parameters
    ----------
    name
        That of a plugin, medtool's own among them; ``timm/NAME`` for any network that timm lists, with or without a
        tag; ``fusion/NAME``, with either of these, for the network that takes metadata beside the image. The last gives
        a :class:`~medtool.architectures.fusion.FusionArchitecture`.

    Raises
    ------
    UnknownNameError
        If there is none of the name; gives the nearest.
    PluginError
        If the plugin is broken.
    UsageError
        If timm's network gives no class-activation map, or cannot be fused.
    """
    if name.startswith(FUSION):
        inner = name.removeprefix(FUSION)
        if inner.startswith(FUSION):
            raise UsageError(f"{name!r} fuses twice", hint=inner)
        # Records are frozen, and the contract's attributes are not declared read-only; nobody sets them.
        return cast("Architecture", FusionArchitecture(architecture(inner)))
    if name.startswith(TIMM):
        return cast("Architecture", timm_architecture(_timm_name(name)))
    return cast("Architecture", registry.load("architecture", name))


def _timm_name(name: str) -> str:
    """Return timm's name of a network that timm has, whose tag it has too."""
    import timm  # seconds

    timm_name = name.removeprefix(TIMM)
    known = set(timm.list_models())
    plain, dot, _ = timm_name.partition(".")
    if plain in known and dot:
        known = {tagged for tagged in timm.list_pretrained(plain) if "." in tagged}
    if timm_name not in known:
        raise UnknownNameError(
            "architecture",
            name,
            known=[f"{TIMM}{each}" for each in known],
            hint="python -c 'import timm; print(*timm.list_models(), sep=\"\\n\")'",
        )
    return timm_name

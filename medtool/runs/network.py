"""From the name of an architecture, or a checkpoint, to a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from medtool import weights
from medtool.architectures.fusion import FusionArchitecture
from medtool.architectures.metadata import MetadataEncoder
from medtool.architectures.naming import architecture
from medtool.architectures.timm_backbone import TimmArchitecture
from medtool.errors import UnknownNameError, UsageError
from medtool.models import fill
from medtool.protocols import Architecture, InputSpec
from medtool.runs.checkpoints import Card, read_card, read_weights


def sized(name: str, size_px: int, *, metadata: tuple[str, ...] = ()) -> Architecture:
    """Return an architecture for images of a size.

    Parameters
    ----------
    size_px
        Height and width; 0 is the architecture's own size.
    metadata
        The manifest's columns that it takes beside the image.

    Raises
    ------
    UnknownNameError
        If there is none of the name.
    UsageError
        If it cannot take that size, or takes metadata and none is named, or the other way round.
    """
    plain = architecture(name)
    is_fusion = isinstance(cast("object", plain), FusionArchitecture)
    if is_fusion and not metadata:
        raise UsageError(f"{name} takes metadata beside the image, and no column is named", hint="--metadata age,sex")
    if metadata and not is_fusion:
        raise UsageError(
            f"{name} takes images alone, and metadata is named: {', '.join(metadata)}", hint=f"--model fusion/{name}"
        )
    if plain.input.views:
        raise UsageError(f"{name} takes several views of one case ({', '.join(plain.input.views)}); a manifest has one")
    return _at_size(plain, (size_px, size_px)) if size_px else plain


def _at_size(found: Any, size: tuple[int, int]) -> Architecture:
    if isinstance(found, FusionArchitecture):
        return cast("Architecture", replace(found, base=_at_size(found.base, size)))
    if isinstance(found, TimmArchitecture):
        return cast("Architecture", found.at_size(size))
    return _Resized(found, size)


class _Resized:
    """An architecture of a plugin, told to take images of another size; its networks show whether they can."""

    def __init__(self, inner: Architecture, size: tuple[int, int]) -> None:
        self._inner = inner
        self.licence, self.citation, self.cam_layer = inner.licence, inner.citation, inner.cam_layer
        self.input: InputSpec = replace(inner.input, size=size)

    def build(self, *, num_classes: int, in_channels: int = 3, pretrained: Path | None = None) -> nn.Module:
        """Return the plugin's network."""
        return self._inner.build(num_classes=num_classes, in_channels=in_channels, pretrained=pretrained)


def architecture_of(card: Card) -> Architecture:
    """Return the architecture that a checkpoint is of, for images as it takes them."""
    found = architecture(card.architecture)
    return _at_size(found, (card.preprocessing.height, card.preprocessing.width))


def build(card: Card, *, pretrained: Path | None = None) -> nn.Module:
    """Return a fresh network of a checkpoint's kind: from chance, or with published weights but for the classifier."""
    found: Any = architecture_of(card)
    if isinstance(found, FusionArchitecture):
        assert card.metadata is not None
        width = MetadataEncoder.of(card.metadata).width
        return found.build(num_classes=len(card.classes), pretrained=pretrained, n_metadata=width)
    network: nn.Module = found.build(num_classes=len(card.classes), pretrained=pretrained)
    return network


def load_network(checkpoint: Path, card: Card) -> nn.Module:
    """Return the network of a checkpoint with its weights, on the CPU, in evaluation mode.

    Raises
    ------
    InputError
        If the weights are not those that the card describes, or do not fit.
    """
    network = build(card)
    fill(network, read_weights(checkpoint, card), path=checkpoint, what=card.architecture)
    return network.eval()


def start_from(network: nn.Module, checkpoint: Path, card: Card) -> list[str]:
    """Give a network the weights of a checkpoint of the same architecture, and return the tensors that it lacks.

    Only the classifier may be missing: where the classes differ in number, it stays as it was.

    Raises
    ------
    UsageError
        If the checkpoint is of another architecture.
    InputError
        If anything else does not fit.
    """
    theirs = read_card(checkpoint)
    if theirs.architecture != card.architecture:
        raise UsageError(f"--init {checkpoint} is a {theirs.architecture}; the run is to be a {card.architecture}")
    state = read_weights(checkpoint, theirs)
    own = network.state_dict()
    changed: list[str] = []
    if theirs.classes != card.classes:
        n_own, n_theirs = len(card.classes), len(theirs.classes)
        # In the network's order: a file of safetensors is read in any.
        changed = [
            name
            for name in own
            if name in state and state[name].shape[:1] == (n_theirs,) and _is_last(name, own, n_own)
        ]
    is_trained = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    fill(network, {**state, **{name: own[name] for name in changed}}, path=checkpoint, what=card.architecture)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trained[name])
    return changed


def _is_last(name: str, own: dict[str, object], n_classes: int) -> bool:
    """Tell whether a tensor belongs to the last layer, which gives a logit for each class."""
    layers = [each.rpartition(".")[0] for each in own]
    shape = getattr(own[name], "shape", ())
    return name.rpartition(".")[0] == layers[-1] and tuple(shape[:1]) == (n_classes,)


def published_weights(name: str) -> tuple[Path | None, str]:
    """Return the file of an architecture's published weights, if it is on this machine, and the command that gets it.

    Both are of the network that timm would take; an architecture that is not timm's has none.
    """
    found: Any = architecture(name)
    if isinstance(found, FusionArchitecture):
        found = found.base
    if not isinstance(found, TimmArchitecture):
        return None, ""
    name_of_weights = f"timm/{found.published_name}"
    try:
        return weights.find(name_of_weights), f"medtool weights get {name_of_weights}"
    except UnknownNameError:
        return None, ""

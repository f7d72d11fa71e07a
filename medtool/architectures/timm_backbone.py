"""A network of timm as an architecture of medtool: built offline, its weights read from a file and checked."""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medtool.architectures.cam_layer import cam_layer_of, outputs_of
from medtool.errors import UsageError, reason_of
from medtool.models import fill, load_state_dict
from medtool.protocols import InputSpec

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

_CLASSIFIER_STD = 0.01  # as in torchvision's MobileNetV2 and DenseNet


@dataclass(frozen=True, slots=True)
class TimmArchitecture:
    """One network family of timm, as :class:`medtool.protocols.Architecture` wants it.

    Attributes
    ----------
    name
        As on the command line: ``resnet50``, ``timm/resnet50``.
    timm_name
        As in timm, with or without the tag that says how published weights were made: ``resnet50.a1_in1k``.
    licence, citation
        Of the published weights and the code.
    input
        What the published weights were trained on. Networks that are made for one size are built for this one.
    cam_layer
        Dotted name of the module that class-activation maps are taken from; see :mod:`medtool.architectures.cam_layer`.
    """

    name: str
    timm_name: str
    licence: str
    citation: str
    input: InputSpec
    cam_layer: str

    def build(self, *, num_classes: int, in_channels: int = 3, pretrained: Path | None = None) -> nn.Module:
        """Return a fresh network in training mode, giving logits ``(n, num_classes)`` for ``(n, in_channels, h, w)``.

        Parameters
        ----------
        num_classes
            1 or more; 0 gives the pooled features ``(n, width)`` in place of logits.
        in_channels
            1 or more. Where the file's first layer takes another number, timm's rule adapts it: one channel gets the
            sum of the three filters, more get them in turn, scaled to the same total.
        pretrained
            A file of tensors by timm's names (float16 is widened), or by the original authors' names where timm has a
            converter, which also resizes position embeddings. The classifier is taken only if it is of this number of
            classes; all else must fit.

        Raises
        ------
        InputError
            If the file cannot be read, or a tensor is missing, unexpected, of another shape or not finite.
        """
        import timm  # slow to import, and not needed to look at an architecture

        network: nn.Module = timm.create_model(
            self.timm_name,
            pretrained=False,
            num_classes=num_classes,
            in_chans=in_channels,
            **self._options(),
        )
        _start_even(network)
        if pretrained is not None:
            state = _fitted(load_state_dict(pretrained), network, _config(self.timm_name))
            is_trained = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
            fill(network, state, path=pretrained, what=f"timm/{self.timm_name}")
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(is_trained[name])
        return network

    def at_size(self, size: tuple[int, int]) -> TimmArchitecture:
        """Return the same architecture for images of another size, (height, width) in pixels.

        Raises
        ------
        UsageError
            If the network cannot take that size, as a vision transformer takes whole patches only.
        """
        resized = replace(self, input=replace(self.input, size=size))
        refusal = f"{self.name} cannot take images of {size[0]}×{size[1]} pixels"
        hint = f"its own size is {self.input.size[0]}×{self.input.size[1]}"
        try:
            network, _ = outputs_of(resized.build, size)
        except Exception as error:  # timm's networks refuse a size in many kinds of error
            raise UsageError(f"{refusal}: {reason_of(error)}", hint=hint) from error
        embedding = getattr(network, "patch_embed", None)
        patch = getattr(embedding, "patch_size", None)
        # timm would leave out the pixels at the right and at the bottom that make no whole patch.
        is_padded = getattr(embedding, "dynamic_img_pad", False)
        if isinstance(patch, tuple) and not is_padded and any(map(operator.mod, size, patch)):
            raise UsageError(f"{refusal}: they are not whole patches of {patch[0]}×{patch[1]}", hint=hint)
        return resized

    @property
    def published_name(self) -> str:
        """The name, with its tag, under which timm publishes weights of this network."""
        tag = _config(self.timm_name).tag
        plain = self.timm_name.partition(".")[0]
        return f"{plain}.{tag}" if tag else plain

    def _options(self) -> dict[str, Any]:
        return {"img_size": self.input.size} if _config(self.timm_name).fixed_input_size else {}


def timm_architecture(timm_name: str, *, name: str | None = None) -> TimmArchitecture:
    """Return any network of timm as an architecture; what it says of itself comes from timm.

    Parameters
    ----------
    timm_name
        As timm lists it, with or without a tag; :func:`medtool.architectures.naming.architecture` checks it.
    name
        As on the command line; ``timm/`` and the timm name if None.

    Raises
    ------
    UsageError
        If the network cannot be built for the classes asked for, or no layer of it gives a class-activation map.
    """
    config = _config(timm_name)
    _, height, width = config.input_size
    paper = config.paper_name or ", ".join(_names(config.paper_ids))
    plain = TimmArchitecture(
        name=name or f"timm/{timm_name}",
        timm_name=timm_name,
        licence=f"{config.license or 'not stated by timm'} (weights), Apache-2.0 (timm)",
        citation=f"{f'{paper}; ' if paper else ''}Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861",
        input=InputSpec(size=(height, width), mean=tuple(config.mean), std=tuple(config.std)),
        cam_layer="",
    )
    return replace(plain, cam_layer=cam_layer_of(plain.build, plain.input.size, what=plain.name))


def _start_even(network: nn.Module) -> None:
    """Let a classifier begin near zero, so that no class has the lead by chance.

    Some of timm's, made for a thousand classes, begin with weights that grow as the classes get fewer; with two, the
    first losses are many times that of a coin, and batches go by until they are undone.
    """
    classifier = network.get_classifier() if hasattr(network, "get_classifier") else None  # type: ignore[operator]
    if isinstance(classifier, nn.Linear):
        nn.init.normal_(classifier.weight, std=_CLASSIFIER_STD)
        if classifier.bias is not None:
            nn.init.zeros_(classifier.bias)


def _fitted(state: Mapping[str, Tensor], network: nn.Module, config: PretrainedCfg) -> dict[str, Tensor]:
    """Return a file's tensors as far as they can be made a network's own: names, input channels, number of classes."""
    own = network.state_dict()
    heads = tuple(f"{name}." for name in _names(config.classifier))
    fitted = dict(state)
    if not _fits(fitted, own, heads):
        fitted = _converted(fitted, network)
    _adapt_first_layers(fitted, own, config)
    if _has_other_classes({name: value for name, value in fitted.items() if name.startswith(heads)}, own):
        fitted = {name: value for name, value in fitted.items() if not name.startswith(heads)}
    if not any(name.startswith(heads) for name in fitted):
        fitted |= {name: value for name, value in own.items() if name.startswith(heads)}
    # A reader's tensors may share memory with the file; training writes into these.
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in fitted.items()}


def _has_other_classes(theirs: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Tell whether a classifier differs from the network's in the number of classes and nothing else."""
    if not any(name in own for name in theirs):
        return True
    return any(
        name in own and value.shape[:1] != own[name].shape[:1] and value.shape[1:] == own[name].shape[1:]
        for name, value in theirs.items()
    )


def _fits(state: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: tuple[str, ...]) -> bool:
    bodies = [
        {name: tuple(value.shape) for name, value in tensors.items() if not name.startswith(heads)}
        for tensors in (state, own)
    ]
    return bodies[0] == bodies[1]


def _converted(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return what timm's own converter of this network family makes of a file; the file's tensors if there is none.

    Files as their authors published them have other names, buffers that are computed today, and position embeddings of
    another size. A converter that cannot make sense of a file is no error by itself: what does not fit is named later,
    by the names in the file.
    """
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(dict(state), network))
    except Exception:
        return state


def _adapt_first_layers(state: dict[str, Tensor], own: Mapping[str, Tensor], config: PretrainedCfg) -> None:
    from timm.models import adapt_input_conv

    published = config.input_size[0]
    for layer in _names(config.first_conv):
        name = f"{layer}.weight"
        if name not in state or name not in own or state[name].ndim != 4 or own[name].ndim != 4:
            continue
        theirs, wanted = tuple(state[name].shape), tuple(own[name].shape)
        if theirs[1] == published != wanted[1] and (theirs[0], theirs[2:]) == (wanted[0], wanted[2:]):
            state[name] = adapt_input_conv(wanted[1], state[name].float())


def _config(timm_name: str) -> PretrainedCfg:
    """Return what timm says of a network, its own defaults where it says nothing."""
    import timm
    from timm.models import PretrainedCfg

    return timm.get_pretrained_cfg(timm_name) or PretrainedCfg()


def _names(value: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())

"""A network that takes metadata beside the image: late fusion, for any backbone and any metadata."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from medtool.errors import UsageError
from medtool.protocols import Architecture, InputSpec

IMAGE_WIDTH = 256
METADATA_WIDTHS = (128, 64)
DROPOUT = 0.3


class FusionNetwork(nn.Module):
    """An image's features beside those of its metadata, and one linear classifier of both.

    The backbone's own classifier becomes a linear embedding of :data:`IMAGE_WIDTH` values, so that every architecture
    can be fused that keeps the contract. Metadata go through layers of :data:`METADATA_WIDTHS`, each with batch
    normalisation, ReLU and dropout. Batch normalisation needs batches of two or more in training.

    Parameters
    ----------
    image
        Gives ``(n, IMAGE_WIDTH)`` for ``(n, channels, h, w)``.
    num_classes
        1 or more.
    n_metadata
        Width of the encoded metadata, 1 or more.

    References
    ----------
    Pacheco and Krohling, "The impact of patient clinical information on automated skin cancer detection", Computers in
    Biology and Medicine 116, 2020.
    """

    def __init__(self, image: nn.Module, *, num_classes: int, n_metadata: int) -> None:
        super().__init__()
        self.image = image
        layers: list[nn.Module] = []
        width = n_metadata
        for hidden in METADATA_WIDTHS:
            layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(DROPOUT)]
            width = hidden
        self.metadata = nn.Sequential(*layers)
        self.classifier = nn.Linear(IMAGE_WIDTH + width, num_classes)

    def forward(self, images: Tensor, metadata: Tensor) -> Tensor:
        """Return logits ``(n, num_classes)`` for images ``(n, channels, h, w)`` and metadata ``(n, n_metadata)``."""
        logits: Tensor = self.classifier(torch.cat([self.image(images), self.metadata(metadata)], dim=1))
        return logits


@dataclass(frozen=True, slots=True)
class FusionArchitecture:
    """An architecture of images, made to take metadata too.

    Attributes
    ----------
    base
        Of the images alone; takes one view and no metadata of its own.
    metadata
        The manifest's columns that the network takes, once they are known.
    """

    base: Architecture
    metadata: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what already takes more than an image."""
        if self.base.input.views or self.base.input.metadata:
            raise UsageError("fusion/ takes an architecture of one image; this one takes views or metadata by itself")

    @property
    def licence(self) -> str:
        """That of the base."""
        return self.base.licence

    @property
    def citation(self) -> str:
        """That of the base."""
        return self.base.citation

    @property
    def input(self) -> InputSpec:
        """That of the base, with the columns of metadata."""
        return replace(self.base.input, metadata=self.metadata)

    @property
    def cam_layer(self) -> str:
        """That of the base, inside the fused network."""
        return f"image.{self.base.cam_layer}"

    def build(
        self, *, num_classes: int, in_channels: int = 3, pretrained: Path | None = None, n_metadata: int = 0
    ) -> FusionNetwork:
        """Return a fresh network whose ``forward(images, metadata)`` gives logits ``(n, num_classes)``.

        Parameters
        ----------
        num_classes, in_channels
            As of the base.
        pretrained
            A file of the base's weights; its classifier is left out.
        n_metadata
            Width of the encoded metadata, as of
            :class:`medtool.architectures.metadata.MetadataEncoder`; must be given.

        Raises
        ------
        UsageError
            If ``n_metadata`` is not 1 or more.
        InputError
            If the weights do not fit the base.
        """
        if n_metadata < 1:
            raise UsageError(
                f"a fusion network needs metadata of width 1 or more, not {n_metadata}",
                hint="name the manifest's columns of metadata, or leave out fusion/",
            )
        image = self.base.build(num_classes=IMAGE_WIDTH, in_channels=in_channels, pretrained=pretrained)
        return FusionNetwork(image, num_classes=num_classes, n_metadata=n_metadata)

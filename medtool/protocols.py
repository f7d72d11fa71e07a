"""What a data set, an architecture and a segmenter must supply.

These are the contracts behind the entry-point groups ``medtool.datasets``, ``medtool.architectures`` and
``medtool.segmenters``. A plugin needs to inherit from nothing here: it needs these attributes and methods, and
``medtool plugins check NAME`` runs the contract tests of :mod:`medtool.testing` on it.

Coordinates are (x, y) in pixels of the original, upright image; arrays are (height, width[, channels]).
This module imports nothing at run time but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from medtool.manifest import Manifest

    RGB8: TypeAlias = npt.NDArray[np.uint8]
    Heatmap: TypeAlias = npt.NDArray[np.float32]
    BoolMask: TypeAlias = npt.NDArray[np.bool_]
    Points: TypeAlias = npt.NDArray[np.float64]

DATASETS = "medtool.datasets"
ARCHITECTURES = "medtool.architectures"
SEGMENTERS = "medtool.segmenters"


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What a promptable segmenter is told about one image.

    Attributes
    ----------
    points
        Shape ``(n, 2)``, float64, (x, y) in pixels of the upright image; pixel centres have whole coordinates.
    point_labels
        Shape ``(n,)``, int64: 1 lies on the object, 0 lies off it.
    heatmap
        Shape ``(height, width)`` of the image, float32, finite and ≥ 0: how likely each pixel belongs to the object,
        on no fixed scale. Segmenters that only take points ignore it.
    box
        ``(x0, y0, x1, y1)`` in pixels, or None.
    """

    points: Points
    point_labels: npt.NDArray[np.int64]
    heatmap: Heatmap
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a segmenter answers: one or more masks of one object, with its own belief in each.

    Attributes
    ----------
    masks
        Shape ``(k, height, width)``, bool, k ≥ 1, of the image's size.
    scores
        Shape ``(k,)``, float: the segmenter's *predicted* quality, higher is better; never computed from ground truth.
    """

    masks: BoolMask
    scores: npt.NDArray[np.floating[Any]]


@runtime_checkable
class Segmenter(Protocol):
    """A promptable segmenter. The entry point names the class; medtool builds one instance a process.

    Class attributes
    ----------------
    version
        Changes whenever the masks may change; part of the lineage.
    licence, citation
        Of the code or the weights; shown by ``medtool plugins check -v``.
    weights
        Name in ``medtool weights list``, or None when the segmenter needs no weights.
    needs_torch
        Whether a device and precision matter. A segmenter that needs no torch runs in parallel worker processes.
    """

    version: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    weights: ClassVar[str | None]
    needs_torch: ClassVar[bool]

    def __init__(self, *, weights: Path | None, device: str, precision: str) -> None:
        """Load everything costly. ``device`` is ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; ``precision`` ``fp32``,
        ``bf16`` or ``fp16``: both already resolved, never ``auto``. A segmenter without torch ignores both.
        """

    def embed(self, image: RGB8) -> Any:
        """Return whatever of the work does not depend on the prompt, for an image ``(height, width, 3)`` uint8."""

    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        """Return candidate masks of the one object that the prompt points at."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What an architecture wants to see.

    Attributes
    ----------
    size
        (height, width) in pixels.
    mean, std
        Per channel, of values scaled to 0–1.
    views
        Names of the views of one case that the network takes together, such as magnifications; empty for one image.
    metadata
        Metadata columns of the manifest that the network takes beside the image.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    views: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()


@runtime_checkable
class Architecture(Protocol):
    """A network family. The entry point names the class or an instance of it.

    ``cam_layer`` is the dotted name of the module whose output class-activation maps are taken from.
    """

    licence: str
    citation: str
    input: InputSpec
    cam_layer: str

    def build(self, *, num_classes: int, in_channels: int = 3, pretrained: Path | None = None) -> nn.Module:
        """Return a fresh network giving logits ``(batch, num_classes)`` for ``(batch, in_channels, height, width)``."""


@runtime_checkable
class Dataset(Protocol):
    """A known folder layout. The entry point names an instance, or a class that takes no arguments.

    ``options`` names the keyword options that ``manifest`` takes, with one line of help each; the command line offers
    them as ``--set NAME=VALUE``.
    """

    classes: Sequence[str]
    licence: str
    citation: str
    options: Mapping[str, str]

    def manifest(self, root: Path, **options: str) -> Manifest:
        """Return one row an image; ``image`` paths are relative to ``root``.

        What the layout promises and the disk lacks goes to the manifest's ``problems`` and ``notes``, never unsaid.
        """


@dataclass(frozen=True, slots=True)
class Problem:
    """One bad row: an image that was meant to be there and cannot be used, with the reason.

    Attributes
    ----------
    image_id
        Valid Unicode, also where the file's name is not.
    path
        Where the image was looked for.
    reason
        One line, without the path.
    """

    image_id: str
    path: Path
    reason: str


class Steps(Protocol):
    """How a long job tells its caller that it gets on."""

    def advance(self, label: str = "") -> None:
        """Count one finished item; ``label`` names it."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One entry point, described without importing it."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    details: Mapping[str, str] = field(default_factory=dict)

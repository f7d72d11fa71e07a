"""Which images are scored: the rows of a manifest, what is known of each, and its map in a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medtool.cam.score.options import PREDICTED, TRUE_LABEL
from medtool.errors import InputError, UnknownNameError, UsageError
from medtool.heatmaps.format import fault_of_map
from medtool.images.reader import read_bytes, read_labels, reduced
from medtool.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from medtool.heatmaps import HeatmapFile
    from medtool.protocols import Heatmap

NO_MASK = "the manifest names no mask"
EMPTY_MASK = "the mask is empty"
_HEADER_PX = 32  # enough of an image to know its size


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the manifest.

    Attributes
    ----------
    path
        The image's file; None where it cannot be used, and ``reason`` says why.
    mask
        As the manifest names it; empty for none.
    label, group
        The class that the image is of, and whom it is of; empty where they are not known.
    role
        Train, val, test or empty.
    seen
        Train or val where a network was trained or chosen on this image or its patient.
    columns
        All that the manifest says.
    """

    image_id: str
    path: Path | None
    mask: str
    label: str
    group: str
    role: str
    seen: str
    columns: Mapping[str, str]
    reason: str = ""


def cases_of(
    manifest: Manifest,
    roles: Sequence[str],
    *,
    group: str,
    files: Sequence[HeatmapFile],
    sight: Callable[[Mapping[str, str]], str],
) -> list[Case]:
    """Return a case for each row of a manifest.

    Parameters
    ----------
    roles
        Train, val, test or an empty text for each row.
    group
        The column that says which images belong together; may be missing.
    files
        Each says of its images whether its network has seen them.
    sight
        From a row to train, val or an empty text: what a run knows itself.
    """
    paths, problems = manifest.images()
    found = []
    for place, columns in enumerate(manifest.rows()):
        image_id = columns["image_id"]
        said = {file.seen_of(image_id) for file in files if image_id in file} | {sight(columns)}
        found.append(
            Case(
                image_id,
                paths[place],
                columns.get("mask", ""),
                columns.get("label", "").strip(),
                columns.get(group, ""),
                roles[place],
                next((role for role in ("train", "val") if role in said), ""),
                columns,
                problems.get(place, ""),
            )
        )
    return found


class Picture(NamedTuple):
    """An image file's bytes, and their SHA-256."""

    data: bytes
    sha256: str


def read_picture(case: Case) -> Picture:
    """Return a case's image file; raises ``InputError`` or ``OSError``."""
    if case.path is None:
        raise InputError(case.reason)
    data = read_bytes(case.path)
    return Picture(data, hashlib.sha256(data).hexdigest())


def size_of(picture: Picture) -> tuple[int, int]:
    """Return (height, width) of the upright image."""
    small = reduced(picture.data, least_px=_HEADER_PX)
    return small.size if small.orientation < 5 else (small.size[1], small.size[0])


def read_mask(case: Case, manifest: Manifest, size: tuple[int, int]) -> npt.NDArray[np.integer[Any]]:
    """Return a case's mask.

    Raises
    ------
    InputError
        If there is none, it cannot be read, is empty, or is not of the image's (height, width).
    """
    if not case.mask:
        raise InputError(NO_MASK)
    try:
        labels = read_labels(manifest.locate(case.mask))
    except InputError as error:
        raise InputError(f"the mask cannot be used: {error.message}") from error
    if labels.shape != size:
        raise InputError(
            f"the mask is {labels.shape[1]} × {labels.shape[0]} pixels and the image {size[1]} × {size[0]}"
        )
    if not labels.any():
        raise InputError(EMPTY_MASK)
    return labels


@dataclass(frozen=True)
class Source:
    """One file of heatmaps, and which of an image's maps is scored.

    Attributes
    ----------
    target
        ``predicted``, ``label`` or a class's name, where the file has a map for each class; else empty.
    refused
        Why an image of some content, by its SHA-256, is not scored.
    """

    file: HeatmapFile
    target: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, file: HeatmapFile, target: str, *, refused: Mapping[str, str] | None = None) -> Source:
        """Return a file with the target that was asked for.

        Raises
        ------
        UsageError
            If the file has one map an image, and that is not what is asked for.
        UnknownNameError
            If it has no maps for that class.
        """
        if not file.classes:
            if target not in (PREDICTED, file.attributes.target):
                raise UsageError(
                    f"{file.path} has one map an image (target {file.attributes.target or 'not known'}), so that"
                    f" --target {target} cannot be chosen",
                    hint="leave out --target, or make the file with --target all",
                )
            return cls(file, refused=refused or {})
        if target not in (PREDICTED, TRUE_LABEL, *file.classes):
            raise UnknownNameError(
                "class", target, known=file.classes, hint=f"{file.path} has maps for {', '.join(file.classes[:5])}"
            )
        return cls(file, target, refused or {})

    @property
    def is_oracle(self) -> bool:
        """Whether the true label decided which class's map is looked at."""
        said = self.file.lineage
        if said is not None and isinstance(said.get("made_with"), dict) and said["made_with"].get("oracle") is True:
            return True
        return self.target == TRUE_LABEL or (not self.file.classes and self.file.attributes.target == TRUE_LABEL)

    def class_of(self, case: Case, known: Callable[[str], str]) -> str:
        """Return the class whose map is scored, of a file with several; else an empty text.

        Parameters
        ----------
        known
            From the manifest's label to the network's name for it.

        Raises
        ------
        InputError
            If the label is no class of the file.
        """
        if not self.target:
            return ""
        if self.target == TRUE_LABEL:
            name = known(case.label)
            if name not in self.file.classes:
                raise InputError(f"its label {case.label!r} is none of the file's classes")
            return name
        if self.target == PREDICTED:
            scores = {name: self.file.score_of(case.image_id, name) for name in self.file.classes}
            if any(math.isnan(score) for score in scores.values()):
                raise InputError("the file has no scores of its classes, so that none is the predicted one")
            return max(scores, key=scores.__getitem__)
        return self.target

    def check(self, case: Case, picture: Picture, *, is_scored: bool = True) -> None:
        """Refuse an image that the file has no map of, or a map of other content; raises ``InputError``.

        Parameters
        ----------
        is_scored
            Whether content that is not scored is refused too.
        """
        if is_scored and picture.sha256 in self.refused:
            raise InputError(self.refused[picture.sha256])
        if case.image_id not in self.file:
            raise InputError("there is no map of it")
        expected = self.file.sha256_of(case.image_id)
        if expected and expected != picture.sha256:
            raise InputError("the image has changed since its map was made")

    def map_of(self, case: Case, known: Callable[[str], str]) -> Heatmap:
        """Return the map that is scored as it is stored.

        Raises
        ------
        InputError
            If it says nothing, or a bit of it has changed; or as :meth:`class_of`.
        """
        name = self.class_of(case, known)
        raw = self.file.raw(case.image_id, name)
        fault = fault_of_map(raw, self.file.flag_of(case.image_id, name))
        if fault:
            raise InputError(f"its map {fault}")
        return raw


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Return how many images each reason holds for, the most frequent first."""
    counts: dict[str, int] = {}
    for reason in reasons:
        if reason:
            counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

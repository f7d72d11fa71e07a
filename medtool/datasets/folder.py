"""A folder for each class, and perhaps one for each split above: ``train/melanoma/a.jpg`` or ``melanoma/a.jpg``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from medtool.datasets import patterns
from medtool.datasets.layout import SPLIT_NAMES, open_root
from medtool.errors import UsageError
from medtool.manifest import Manifest

_MASK_FOLDERS = {"mask", "masks", "label", "labels", "segmentations", "annotations", "ground_truth"}


class FolderDataset:
    """Images in one folder a class; the folder's name is the label."""

    classes: ClassVar[Sequence[str]] = ()
    licence = "that of the images"
    citation = ""
    options: ClassVar[dict[str, str]] = {
        "patient": patterns.HELP,
        "splits": "Whether the first folders are splits (train, val, test): yes, no or auto. Default: auto.",
    }

    def manifest(self, root: Path, *, patient: str = "", splits: str = "auto") -> Manifest:
        """Return a row an image below ``root``; images that lie in no class folder have no label.

        Raises
        ------
        UsageError
            If ``splits`` is auto and only some of the first folders are named like splits.
        InputError
            If there is no image.
        """
        draft = open_root(root)
        images = draft.images_in(root)
        firsts = sorted({image.partition("/")[0] for image in images if "/" in image})
        n_above = 1 if _has_splits(firsts, splits) else 0
        for image in images:
            *folders, _ = image.split("/")
            row = {"image": image, "label": folders[n_above] if len(folders) > n_above else ""}
            if n_above and folders:
                row["split"] = SPLIT_NAMES[folders[0].lower()]
            draft.rows.append(row)
        if len(_MASK_FOLDERS & {row["label"].lower() for row in draft.rows}) == 1:
            draft.notes.append(
                "a class is called like masks; for pairs of images and masks: medtool manifest masks ROOT"
            )
        note = patterns.add_columns(draft.rows, patient) if patient else None
        draft.notes.extend([note] if note else [])
        n_unlabelled = sum(not row["label"] for row in draft.rows)
        if n_unlabelled:
            draft.notes.append(
                f"{n_unlabelled:,} of {len(draft.rows):,} images lie in no class folder: without a label"
            )
        return draft.finish()


def _has_splits(firsts: Sequence[str], wanted: str) -> bool:
    named = [name for name in firsts if name.lower() in SPLIT_NAMES]
    others = [name for name in firsts if name.lower() not in SPLIT_NAMES]
    if wanted == "no":
        return False
    if wanted == "yes":
        if others or not named:
            unlike = others[0] if others else "none"
            raise UsageError(f"--set splits=yes: the first folders must be train, val or test; {unlike!r} is not")
        return True
    if wanted != "auto":
        raise UsageError(f"--set splits={wanted}: it must be yes, no or auto")
    if named and others:
        raise UsageError(
            f"the folder {named[0]!r} is named like a split and {others[0]!r} is not",
            hint="--set splits=no if they are all classes; else give the folder that holds the splits alone",
        )
    return bool(named)

"""ISIC 2017: dermoscopy with lesion masks and three diagnoses, as the challenge published it or in three short names.

The published layout, any of its three parts::

    ISIC-2017_Training_Data/ISIC_0000000.jpg            (files *_superpixels.png are not images)
    ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png
    ISIC-2017_Training_Part3_GroundTruth.csv            image_id, melanoma, seborrheic_keratosis
    ISIC-2017_Training_Data_metadata.csv                image_id, age_approximate, sex; beside or in the images' folder

and the short one: ``images/``, ``masks/``, ``labels.csv``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from medtool.datasets.layout import Draft, first_file, first_folder, is_one, keyed, known_value, need_columns, open_root
from medtool.errors import InputError, ManifestError
from medtool.manifest import Manifest
from medtool.tables import read_text_table

PARTS = {"train": "Training", "val": "Validation", "test": "Test_v2"}
_METADATA = {"age_approximate": "age", "sex": "sex"}


class Isic2017:
    """The ISIC 2017 challenge; it names no patients, so they are unknown."""

    classes: ClassVar[Sequence[str]] = ("melanoma", "seborrheic_keratosis", "nevus")
    licence = "CC0-1.0"
    citation = (
        "Codella et al., 'Skin lesion analysis toward melanoma detection: a challenge at the 2017 International"
        " Symposium on Biomedical Imaging (ISBI), hosted by the International Skin Imaging Collaboration (ISIC)',"
        " arXiv:1710.05006"
    )
    options: ClassVar[dict[str, str]] = {}

    def manifest(self, root: Path) -> Manifest:
        """Return a row an image, with ``split`` where the published parts tell it.

        ``label`` is nevus where the table says neither melanoma nor seborrheic keratosis, and empty where there is no
        table. ``age`` is in years; unknown values are empty.

        Raises
        ------
        InputError
            If neither layout is there.
        ManifestError
            If a table is wrong.
        """
        draft = open_root(root)
        for split, part in PARTS.items():
            _add_part(draft, split, part)
        if not draft.rows and not draft.problems:
            _add_short(draft)
        return draft.finish()


def _add_part(draft: Draft, split: str, part: str) -> None:
    prefix = f"ISIC-2017_{part}"
    images = first_folder(draft.root, [f"{prefix}_Data"])
    if images is None:
        return
    truth = first_file([draft.root, images], [f"{prefix}_Part3_GroundTruth.csv"])
    metadata = first_file([draft.root, images], [f"{prefix}_Data_metadata.csv"])
    masks = first_folder(draft.root, [f"{prefix}_Part1_GroundTruth"])
    before = len(draft.rows)
    _add(draft, images, masks, truth, metadata)
    for row in draft.rows[before:]:
        row["split"] = split


def _add_short(draft: Draft) -> None:
    images = first_folder(draft.root, ["images"])
    if images is None:
        raise InputError(
            f"{draft.root} holds neither ISIC-2017_Training_Data (or _Validation_, _Test_v2_) nor images",
            hint="medtool manifest folder ROOT, or medtool manifest csv ROOT, for other layouts",
        )
    table = first_file([draft.root], ["labels.csv"])
    _add(draft, images, first_folder(draft.root, ["masks"]), table, table)


def _add(draft: Draft, images: Path, masks: Path | None, truth: Path | None, metadata: Path | None) -> None:
    columns: dict[str, dict[str, str]] = {}
    if truth is None:
        draft.notes.append(f"no table of diagnoses for {images}: its images have no label")
    else:
        columns = _labels(truth)
    if metadata is not None:
        for image_id, values in _metadata(metadata).items():
            columns.setdefault(image_id, {}).update(values)
    names = " and ".join(dict.fromkeys(path.name for path in (truth, metadata) if path is not None))
    draft.join(
        draft.by_stem([images], without="_superpixels"),
        draft.by_stem([masks], ending="_segmentation") if masks else {},
        columns,
        name=names,
    )


def _labels(path: Path) -> dict[str, dict[str, str]]:
    table = read_text_table(path)
    need_columns(table, ["melanoma", "seborrheic_keratosis"])
    labels: dict[str, dict[str, str]] = {}
    for image_id, (index, row) in keyed(table, "image_id").items():
        positive = [name for name in ("melanoma", "seborrheic_keratosis") if is_one(table, index, name, row[name])]
        if len(positive) == 2:
            raise ManifestError(f"{table.where(index)}: {image_id} is both melanoma and seborrheic keratosis")
        labels[image_id] = {"label": positive[0] if positive else "nevus"}
    return labels


def _metadata(path: Path) -> Mapping[str, dict[str, str]]:
    rows = keyed(read_text_table(path), "image_id")
    return {
        image_id: {new: known_value(row[old]) for old, new in _METADATA.items() if old in row}
        for image_id, (_, row) in rows.items()
    }

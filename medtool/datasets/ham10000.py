"""HAM10000: dermoscopy of seven diagnoses, several images of many lesions.

The published layout: ``HAM10000_metadata`` (or ``.csv``), the images in ``HAM10000_images_part_1`` and ``_part_2`` or
in ``images``, the masks in ``HAM10000_segmentations_lesion_tschandl`` or in ``masks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from medtool.datasets.layout import counted, first_file, first_folder, keyed, known_value, need_columns, open_root
from medtool.errors import InputError, ManifestError
from medtool.manifest import Manifest
from medtool.tables import read_text_table

TABLE_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata")
IMAGE_FOLDERS = (
    "HAM10000_images_part_1",
    "HAM10000_images_part_2",
    "HAM10000_images_part1",
    "HAM10000_images_part2",
    "HAM10000_images",
    "images",
)
MASK_FOLDERS = ("HAM10000_segmentations_lesion_tschandl", "masks")


class Ham10000:
    """HAM10000. It names lesions, not patients: split by ``lesion``, and know that a patient may have several."""

    classes: ClassVar[Sequence[str]] = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    licence = "CC-BY-NC-4.0"
    citation = (
        "Tschandl, Rosendahl, Kittler, 'The HAM10000 dataset, a large collection of multi-source dermatoscopic images"
        " of common pigmented skin lesions', Scientific Data 5, 180161 (2018), doi:10.1038/sdata.2018.161; masks:"
        " Tschandl et al., Nature Medicine 26 (2020), doi:10.1038/s41591-020-0942-0"
    )
    options: ClassVar[dict[str, str]] = {}

    def manifest(self, root: Path) -> Manifest:
        """Return a row an image: ``label`` is ``dx``, ``lesion`` the group that a split must not cut.

        There is no ``patient`` column: nothing tells patients, and a lesion is not one. ``age`` is in years; unknown
        values are empty.

        Raises
        ------
        InputError
            If the table or the images' folder is not there.
        ManifestError
            If the table is wrong or has a diagnosis that is none of the seven.
        """
        draft = open_root(root)
        path = first_file([root], TABLE_NAMES)
        folders = [folder for name in IMAGE_FOLDERS if (folder := first_folder(root, [name])) is not None]
        if path is None or not folders:
            lacking = TABLE_NAMES[0] if path is None else f"{IMAGE_FOLDERS[0]} or images"
            raise InputError(f"{root} does not hold {lacking}", hint="medtool manifest csv ROOT, for other layouts")
        masks = first_folder(root, MASK_FOLDERS)
        draft.join(
            draft.by_stem(folders),
            draft.by_stem([masks], ending="_segmentation") if masks else {},
            self._columns(path),
            name=path.name,
        )
        made = draft.finish()
        facts = f"{counted(made, 'image')} of {counted(made.counts('lesion'), 'lesion')}"
        return replace(made, notes=(*made.notes, f"{facts}; patients are not known: split by the column 'lesion'"))

    def _columns(self, path: Path) -> dict[str, dict[str, str]]:
        table = read_text_table(path)
        need_columns(table, ["lesion_id", "dx"])
        columns: dict[str, dict[str, str]] = {}
        for image_id, (index, row) in keyed(table, "image_id").items():
            if row["dx"] not in self.classes:
                raise ManifestError(
                    f"{table.where(index)}: dx is {row['dx']!r}; it must be one of {', '.join(self.classes)}"
                )
            rest = {name: value for name, value in row.items() if name not in ("image_id", "lesion_id", "dx")}
            columns[image_id] = {
                "label": row["dx"],
                "lesion": row["lesion_id"],
                **{name: known_value(value) for name, value in rest.items()},
            }
        return columns

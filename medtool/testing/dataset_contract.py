"""What every data set must hold to."""

from __future__ import annotations

import inspect
import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from medtool.errors import InputError, MedtoolError, reason_of
from medtool.protocols import Dataset
from medtool.testing.checks import Contract, expect

if TYPE_CHECKING:
    from medtool.manifest import Manifest

LOOKED_AT = 5


class DatasetContract(Contract):
    """Tests for a data set; subclass it with ``name`` or ``plugin``, and a pytest fixture ``root``.

    ``root`` gives the folder of a small, whole copy of the data set, real or synthetic.

    Attributes
    ----------
    settings
        Keyword options to call ``manifest`` with.
    """

    kind: ClassVar[str] = "dataset"
    settings: ClassVar[Mapping[str, str]] = {}

    def _dataset(self) -> Dataset:
        plugin: Dataset = self._load()
        return plugin

    def _manifest(self, root: Path) -> Manifest:
        return self._dataset().manifest(root, **type(self).settings)

    def _texts_that_must_not_be_empty(self) -> tuple[str, ...]:
        """Ask no citation of a layout for anybody's images: it has no classes of its own, and nothing to cite."""
        return ("licence", "citation") if self._dataset().classes else ("licence",)

    def test_classes_and_options_have_the_right_types(self) -> None:
        dataset = self._dataset()
        classes = dataset.classes
        is_right = not isinstance(classes, str) and all(isinstance(name, str) and name for name in classes)
        expect(is_right, f"classes must be a sequence of texts, not {classes!r}")
        expect(len(set(classes)) == len(classes), f"classes must differ, not {classes!r}")
        options = dataset.options
        is_right = isinstance(options, Mapping) and all(
            isinstance(name, str) and isinstance(help_, str) and help_.strip() for name, help_ in options.items()
        )
        expect(is_right, f"options must map each name to a line of help, not {options!r}")

    def test_manifest_takes_the_options_that_it_declares(self) -> None:
        dataset = self._dataset()
        try:
            inspect.signature(dataset.manifest).bind(Path(), **dict.fromkeys(dataset.options, ""))
        except TypeError as error:
            expect(False, f"manifest(root, {', '.join(dataset.options)}): {error}")

    def test_there_is_a_manifest_of_text(self, root: Path) -> None:
        from medtool.manifest import Manifest

        manifest = self._manifest(root)
        expect(isinstance(manifest, Manifest), f"manifest() must return a Manifest, not {type(manifest).__name__}")
        expect(len(manifest) > 0, "the manifest has no image")
        expect(manifest.root.resolve() == root.resolve(), f"paths must be relative to root, not to {manifest.root}")
        for row in manifest.rows():
            odd = {name: value for name, value in row.items() if not isinstance(value, str)}
            expect(not odd, f"every value must be text, not {odd!r}")

    def test_image_ids_are_unique(self, root: Path) -> None:
        seen: set[str] = set()
        for row in self._manifest(root).rows():
            image_id = row["image_id"]
            expect(image_id and image_id not in seen, f"image_id {image_id!r} is empty or there twice")
            seen.add(image_id)

    def test_images_and_masks_exist_inside_the_root(self, root: Path) -> None:
        manifest = self._manifest(root)
        for row in manifest.rows():
            for column in ("image", "mask"):
                path = row.get(column, "")
                if not path and column == "mask":
                    continue
                try:
                    manifest.locate(path)
                except InputError as error:
                    expect(False, f"{column} {path!r} of {row['image_id']!r}: {error}")

    def test_the_first_images_can_be_read_and_fit_their_masks(self, root: Path) -> None:
        from medtool.images import read_image

        manifest = self._manifest(root)
        for row in itertools.islice(manifest.rows(), LOOKED_AT):
            sizes = {}
            for column in ("image", "mask"):
                if row.get(column):
                    try:
                        sizes[column] = read_image(manifest.locate(row[column])).size
                    except MedtoolError as error:
                        expect(False, f"{column} {row[column]!r}: {reason_of(error)}")
            is_fit = len(set(sizes.values())) == 1
            expect(is_fit, f"image and mask of {row['image_id']!r} have other sizes: {sizes}")

    def test_labels_are_among_the_classes(self, root: Path) -> None:
        classes = self._dataset().classes
        labels = {row.get("label", "") for row in self._manifest(root).rows()} - {""}
        unknown = sorted(labels - set(classes)) if classes else []
        expect(not unknown, f"labels {unknown[:5]} are not among the classes {list(classes)}")

    def test_the_same_folder_gives_the_same_manifest(self, root: Path) -> None:
        first, second = self._manifest(root), self._manifest(root)
        expect(first.table.equals(second.table), "a second look at the same folder gives another manifest")

    def test_the_folder_is_left_as_it_was(self, root: Path) -> None:
        before = _look(root)
        self._manifest(root)
        changed = sorted({path for path, _ in before ^ _look(root)})
        expect(not changed, f"manifest() changed {changed[:3]} in the folder")

    def test_a_folder_that_is_something_else_is_refused_in_one_line(self) -> None:
        with tempfile.TemporaryDirectory() as empty:
            for root, what in ((Path(empty), "an empty folder"), (Path(empty) / "none", "a folder that is not there")):
                try:
                    manifest = self._manifest(root)
                except MedtoolError as error:
                    expect("\n" not in error.message, f"the message for {what} has more than one line")
                except Exception as error:
                    expect(False, f"{what} must be an InputError, not {type(error).__name__}: {error}")
                else:
                    expect(False, f"{what} must be an InputError, not a manifest of {len(manifest)} images")


def _look(root: Path) -> set[tuple[str, int]]:
    return {(path.relative_to(root).as_posix(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}

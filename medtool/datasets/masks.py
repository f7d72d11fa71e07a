"""Images with a mask each, paired by name: ``images/a.jpg`` and ``masks/a_mask.png``, or both in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from medtool.datasets import patterns
from medtool.datasets.layout import Draft, first_folder, open_root
from medtool.errors import InputError, UsageError
from medtool.folders import is_folder, stem_of
from medtool.manifest import Manifest
from medtool.protocols import Problem

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "segmentations", "annotations", "ground_truth")
IMAGE_ENDINGS = ("_image", "_img")
MASK_ENDINGS = ("_segmentation", "_mask", "_masks", "_label", "_labels", "_seg", "_gt", "_annotation")


class MasksDataset:
    """Pairs of image and mask."""

    classes: ClassVar[Sequence[str]] = ()
    licence = "that of the images"
    citation = ""
    options: ClassVar[dict[str, str]] = {
        "images": f"Folder of the images. Default: the first there is of {', '.join(IMAGE_FOLDERS)}, else ROOT.",
        "masks": f"Folder of the masks. Default: the first there is of {', '.join(MASK_FOLDERS)}, else the images'.",
        "image_ending": f"End of images' names before the suffix. Default: nothing, or {', '.join(IMAGE_ENDINGS)}.",
        "mask_ending": f"End of masks' names before the suffix. Default: nothing, or {', '.join(MASK_ENDINGS)}.",
        "patient": patterns.HELP,
    }

    def manifest(
        self,
        root: Path,
        *,
        images: str = "",
        masks: str = "",
        image_ending: str = "",
        mask_ending: str = "",
        patient: str = "",
    ) -> Manifest:
        """Return a row an image. Pairs lie under the same path in both folders and have one name without endings.

        Raises
        ------
        UsageError
            If a folder that was named is not there.
        InputError
            If two images or two masks have one name, or no mask has an image.
        """
        draft = open_root(root)
        image_folder = _folder(root, "images", images) or first_folder(root, IMAGE_FOLDERS) or root
        mask_folder = _folder(root, "masks", masks) or first_folder(root, MASK_FOLDERS) or image_folder
        of_images = [image_ending] if image_ending else ["", *IMAGE_ENDINGS]
        of_masks = [mask_ending] if mask_ending else ["", *MASK_ENDINGS]
        is_shared = mask_folder == image_folder
        mask_names = _names(draft, mask_folder, [ending for ending in of_masks if ending or not is_shared])
        image_names = _names(draft, image_folder, of_images)
        apart = [] if is_shared else [f"{mask_folder.relative_to(root).as_posix()}/"]
        image_names = {
            path: names
            for path, names in image_names.items()
            if path not in mask_names and not any(path.startswith(folder) for folder in apart)
        }
        _pair(draft, image_names, mask_names)
        note = patterns.add_columns(draft.rows, patient) if patient else None
        draft.notes.extend([note] if note else [])
        return draft.finish()


def _folder(root: Path, option: str, name: str) -> Path | None:
    if not name:
        return None
    folder = root / name
    if not is_folder(folder):
        raise UsageError(f"--set {option}={name}: {folder} is not a folder")
    if not folder.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"--set {option}={name}: {folder} does not lie in {root}")
    return root / folder.resolve().relative_to(root.resolve())


def _names(draft: Draft, folder: Path, endings: Sequence[str]) -> dict[str, list[str]]:
    """Return for each image in a folder the names it may be paired by, the most literal one first."""
    found: dict[str, list[str]] = {}
    for path in draft.images_in(folder):
        inner = path[len(folder.relative_to(draft.root).as_posix()) + 1 :] if folder != draft.root else path
        parent, slash, name = inner.rpartition("/")
        stem = stem_of(name)
        names = [parent + slash + stem.removesuffix(ending) for ending in endings if stem.endswith(ending)]
        if names:
            found[path] = names
    return found


def _pair(draft: Draft, images: dict[str, list[str]], masks: dict[str, list[str]]) -> None:
    """Add a row for each image; masks without an image are problems, images without a mask are kept."""
    by_name: dict[str, str] = {}
    for path, names in images.items():
        for name in names:
            other = by_name.setdefault(name, path)
            if other != path:
                raise InputError(
                    f"{draft.root}: {other} and {path} would share a mask: both are {name!r}",
                    hint="--set image_ending=... or --set images=FOLDER says which ones are meant",
                )
    mask_of: dict[str, str] = {}
    for mask, names in masks.items():
        image = next((by_name[name] for name in names if name in by_name), None)
        if image is None:
            draft.problems.append(Problem(mask, draft.root / mask, "a mask, and no image has its name"))
        elif image in mask_of:
            raise InputError(
                f"{draft.root}: {mask_of[image]} and {mask} are both masks of {image}",
                hint="--set mask_ending=... or --set masks=FOLDER says which ones are meant",
            )
        else:
            mask_of[image] = mask
    if not mask_of:
        shown = next(iter(masks), "none there")
        raise InputError(
            f"{draft.root}: no mask has the name of an image ({len(images):,} images, {len(masks):,} masks;"
            f" the first mask: {shown})",
            hint="medtool manifest masks ROOT --set images=FOLDER --set masks=FOLDER --set mask_ending=_mask",
        )
    draft.rows.extend({"image": path, "mask": mask_of.get(path, "")} for path in images)

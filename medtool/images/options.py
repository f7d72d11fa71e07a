"""Which page, slice and size of image is read; the command line takes its defaults from here. Imports no numpy."""

from __future__ import annotations

from dataclasses import dataclass

from medtool.errors import UsageError

#: Endings of the files that a folder is searched for, in lower case. Reading itself goes by a file's first bytes.
IMAGE_SUFFIXES = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".webp"),
        *(".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm"),
        *(".tif", ".tiff", ".svs", ".dcm", ".dicom", ".ima", ".nii", ".nii.gz"),
    )
)


@dataclass(frozen=True)
class ReadOptions:
    """How a file becomes one image.

    Attributes
    ----------
    page
        Page, frame or (in a 4-D NIfTI file) volume to read, counted from 0. None refuses files with more than one.
    axis
        Axis of a NIfTI volume that is cut: 0 gives sagittal, 1 coronal, 2 axial slices.
    slice_index
        Slice along ``axis``, counted from 0 at the left, back and bottom of the body. None takes the middle one.
    max_pixels
        Most pixels (height × width) of an image; larger ones are refused before anything is decoded.
    max_bytes
        Most bytes of a file, and of what one page or volume decodes to.
    """

    page: int | None = None
    axis: int = 2
    slice_index: int | None = None
    max_pixels: int = 100_000_000
    max_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.page is not None and self.page < 0:
            raise UsageError(f"page is {self.page}; it must be 0 or more")
        if self.axis not in (0, 1, 2):
            raise UsageError(f"axis is {self.axis}; it must be 0 (sagittal), 1 (coronal) or 2 (axial)")
        if self.slice_index is not None and self.slice_index < 0:
            raise UsageError(f"slice_index is {self.slice_index}; it must be 0 or more")
        if self.max_pixels < 1:
            raise UsageError(f"max_pixels is {self.max_pixels}; it must be 1 or more")
        if self.max_bytes < 1:
            raise UsageError(f"max_bytes is {self.max_bytes}; it must be 1 or more")

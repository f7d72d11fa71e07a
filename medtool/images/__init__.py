"""Any image file → pixels that mean what they meant; one decoder a format. Rules: docs/reference/images.md.

Importing this package loads no numpy and no decoder; they load with the first image of their format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medtool.images.options import IMAGE_SUFFIXES, ReadOptions

if TYPE_CHECKING:
    from medtool.images.image import Image
    from medtool.images.reader import read_image, read_labels

__all__ = ["IMAGE_SUFFIXES", "Image", "ReadOptions", "read_image", "read_labels"]


def __getattr__(name: str) -> Any:
    if name == "Image":
        from medtool.images.image import Image

        return Image
    if name in ("read_image", "read_labels"):
        from medtool.images import reader

        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

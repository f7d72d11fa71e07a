"""Where a network looks: class-activation maps, raw and at the resolution of their layer.

>>> with open_cache("cams.h5") as cache:  # doctest: +SKIP
...     heatmap = cache.get("a/first", size=(480, 640), is_normalised=True)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medtool.heatmaps import HeatmapFile


def open_cache(path: str | Path) -> HeatmapFile:
    """Open a file of heatmaps, ``cams.h5``, for reading; use it as a context manager.

    Every map is checked against its checksum when it is read. ``ids`` are the images, ``get(image_id, size=...)`` gives
    a map at the size of its image, ``raw(image_id)`` as it is stored.

    Raises
    ------
    InputError
        If it is not such a file, is cut short, or breaks a rule of the format.
    """
    from medtool.heatmaps import open_heatmaps  # NumPy and h5py: the command line looks at this package for --help

    return open_heatmaps(Path(path))

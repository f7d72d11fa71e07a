"""Files of heatmaps, ``cams.h5``: read with suspicion, a map at a time, and written whole.

Format, version 1 (docs/reference/formats.md has every name): root attributes ``format`` (``medtool-heatmaps``),
``version``, and the texts of :class:`HeatmapAttributes`; data sets ``heatmaps`` (n, h, w) float32, ``image_id`` and
``image_sha256`` (n,) UTF-8 strings, ``score`` (n,) float; further data sets, which other programs may leave out. Every
map covers its whole upright image, edge to edge, at the resolution of the layer that it comes from, neither scaled nor
resized: both are done on reading.
"""

from __future__ import annotations

from medtool.heatmaps.format import FORMAT, FORMAT_VERSION, Flag, HeatmapAttributes
from medtool.heatmaps.reading import HeatmapFile, open_heatmaps
from medtool.heatmaps.resize import resize_heatmap
from medtool.heatmaps.writing import write_heatmaps_file

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "Flag",
    "HeatmapAttributes",
    "HeatmapFile",
    "open_heatmaps",
    "resize_heatmap",
    "write_heatmaps_file",
]

"""The medical pictures that scikit-image's wheel ships, copied byte for byte; nothing is downloaded."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RealPicture:
    """One picture of scikit-image's data folder.

    Attributes
    ----------
    file_name
        In scikit-image's data folder.
    name
        What it is called here; keeps the file's suffix.
    shows, licence, source
        As scikit-image's documentation states them.
    """

    file_name: str
    name: str
    shows: str
    licence: str
    source: str


PICTURES = (
    RealPicture(
        file_name="retina.jpg",
        name="retina.jpg",
        shows="fundus photograph of a healthy left eye",
        licence="CC0-1.0",
        source="Häggström, WikiJournal of Medicine 1 (2014), doi:10.15347/wjm/2014.008",
    ),
    RealPicture(
        file_name="ihc.png",
        name="immunohistochemistry.png",
        shows="colonic glands, FHL2 stained with DAB, haematoxylin counterstain",
        licence="no known copyright restrictions",
        source="Center for Microscopy and Molecular Imaging (CMMI)",
    ),
    RealPicture(
        file_name="cell.png",
        name="cell.png",
        shows="quantitative phase image of a cell in saline, 0.107 µm a pixel",
        licence="CC0-1.0",
        source="digital hologram, retrieved with qpformat",
    ),
    RealPicture(
        file_name="microaneurysms.png",
        name="microaneurysms.png",
        shows="detail of a diabetic retina, green channel",
        licence="CC0-1.0",
        source="High-Resolution Fundus Image Database, image 07_dr; doi:10.1155/2013/154860",
    ),
    RealPicture(
        file_name="phantom.png",
        name="shepp-logan.png",
        shows="the Shepp-Logan head phantom (computed, not a patient)",
        licence="BSD-3-Clause, as scikit-image",
        source="Shepp and Logan, IEEE Trans Nucl Sci 21 (1974), doi:10.1109/TNS.1974.6499235",
    ),
)


def find_pictures() -> dict[RealPicture, Path]:
    """Return where each picture lies in the installed scikit-image; one that it does not ship is left out."""
    spec = importlib.util.find_spec("skimage")
    folders = [] if spec is None else [Path(place) / "data" for place in spec.submodule_search_locations or ()]
    places = ((picture, folder / picture.file_name) for picture in PICTURES for folder in folders)
    return {picture: place for picture, place in places if place.is_file()}

"""The README.md of a demo's folder."""

from __future__ import annotations

from medtool.demo.options import DemoOptions, Kind
from medtool.demo.real import find_pictures

_ABOUT = {
    Kind.LESION: (
        "Skin lesions as a dermatoscope shows them, two to four photographs of each patient, two sites with cameras\n"
        "of their own. `lesion` tells which photographs show the same one. Masks are 255 on the lesion and 0 off it."
    ),
    Kind.TISSUE: (
        "Breast tissue stained with haematoxylin and eosin. Each field of view is drawn four times, at a\n"
        "`magnification` of 40, 100, 200 and 400, all centred on the same place. Masks hold classes: 0 background and\n"
        "lumen, 1 stroma, 2 epithelium, 3 nucleus of epithelium, 4 other nucleus."
    ),
    Kind.XRAY: (
        "Chest radiographs, 16-bit grey, two to four of each patient, two sites with detectors of their own. Masks\n"
        "are 255 on the opacity and 0 off it; those of normal chests are empty."
    ),
}


def readme_of(options: DemoOptions) -> str:
    """Return the text that tells a reader of the folder what it holds and what they may do with it."""
    pictures = "\n".join(
        f"| `images/real/{picture.name}` | {picture.shows} | {picture.licence} | {picture.source} |"
        for picture in find_pictures()
    )
    return f"""# A demo of medtool

Made by `medtool demo` ({options.kind}, {options.images} images, seed {options.seed}).
The same command makes the same pictures again.

## Phantoms

{_ABOUT[options.kind]}

They are computed, show nobody, and may be used for anything (CC0-1.0). Conclusions about people cannot be drawn from
them. `manifest.csv` has a row an image: patient, site, label, mask, age, sex, and localization, the place on the body.
The label lies in shape and texture; age, sex and localization go with it loosely, the site does not go with it at all.

## Real pictures

Copied from the installed scikit-image, unchanged; licences as its documentation states them. They have no labels and
no masks, and a table of their own, `real.csv`.

| picture | shows | licence | source |
|---|---|---|---|
{pictures}
"""

"""``medtool demo``: a small data set, ready for use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtool.cli import console
from medtool.demo.options import DemoOptions, Kind
from medtool.errors import UsageError

EXAMPLES = """Examples:

medtool demo demo/ && medtool segment --points 5 demo/images --overlays

medtool demo slides/ --kind tissue --images 80

medtool demo chests/ --kind xray --images 300 --seed 1
"""


def demo(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder to fill; made if it is not there.")],
    kind: Annotated[Kind, typer.Option(help="What the generated phantoms imitate.")] = DemoOptions.kind,
    images: Annotated[
        int, typer.Option(help="How many phantoms; five real pictures come on top.")
    ] = DemoOptions.images,
    seed: Annotated[int, typer.Option(help="Another seed gives other patients.")] = DemoOptions.seed,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another demo, or write into a folder with other files.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes. 0 is automatic.")] = 0,
) -> None:
    """Make a data set to try medtool on: real pictures, and phantoms with patients, labels and masks.

    Run the same command again to go on after an interruption; more --images enlarge the demo that is there.
    """
    if folder == "":
        raise UsageError("DIR is the empty text; is a variable of your shell not set?")
    options = DemoOptions(kind, images, seed)
    place = Path(folder)

    from medtool.demo.folder import write_demo

    with console.steps(options.images, "drawing") as steps:
        summary = write_demo(place, options, overwrite=overwrite, workers=workers, steps=steps)

    for name in summary.missing:
        console.warn(f"the installed scikit-image does not ship {name}; the demo goes without it")
    if console.settings.json:
        console.show_json(
            {
                "format": "medtool-demo",
                "version": 1,
                "folder": str(place),
                "manifest": str(summary.manifest),
                "kind": str(options.kind),
                "seed": options.seed,
                "images": len(summary.image_ids),
                "patients": summary.patients,
                "labels": dict(summary.labels),
                "drawn": summary.drawn,
                "real": list(summary.real),
                "missing": list(summary.missing),
            }
        )
        return
    if console.settings.quiet:
        for image_id in summary.image_ids:
            console.out(image_id)
        return
    console.out(str(summary.manifest))
    patients = f"{summary.patients} patient" + ("" if summary.patients == 1 else "s")
    counted = ", ".join(f"{count} {label}" for label, count in summary.labels.items())
    console.say(
        f"{len(summary.image_ids)} {options.kind} phantoms of {patients} ({counted}; "
        f"{summary.drawn} drawn now) and {len(summary.real)} real pictures in {place}"
    )
    pictures = str(place / "images")
    shown = f'"{pictures}"' if " " in pictures else pictures
    console.hint(f"medtool segment --points 5 {shown} --overlays")

"""A demo's folder: ``images/``, ``masks/``, ``manifest.csv``, and the real pictures with a table of their own.

``demo.json`` is written first and says what the folder is going to hold. Each file is then written whole and the
manifest comes last, so a stopped command leaves finished phantoms, and the same command goes on from there.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from medtool.demo import lesion, tissue, xray
from medtool.demo.options import DemoOptions, Kind
from medtool.demo.patients import patients
from medtool.demo.phantom import Case, Phantom
from medtool.demo.readme import readme_of
from medtool.demo.real import PICTURES, find_pictures
from medtool.errors import InputError, UsageError
from medtool.manifest import Manifest, write_manifest
from medtool.parallel import choose_workers, map_unordered
from medtool.storage import (
    locked,
    make_folder,
    output_error,
    read_json,
    strangers,
    sweep_temporaries,
    write_json,
    write_whole,
)

FORMAT = "medtool-demo-folder"
VERSION = 1
DRAWING = 1  # changes whenever any phantom of any kind and seed may look different

RECORD_NAME = "demo.json"
MANIFEST_NAME = "manifest.csv"
REAL_NAME = "real.csv"

_LEAST_IMAGES_FOR_WORKERS = 32


class Steps(Protocol):
    """Who is told about each finished phantom."""

    def advance(self, label: str = "") -> None:
        """Count one finished item."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a demo holds.

    Attributes
    ----------
    image_ids
        Of the phantoms, in the manifest's order.
    drawn
        How many phantoms this call drew; the others were there.
    real
        Paths of the real pictures, relative to the folder.
    missing
        Real pictures that the installed scikit-image does not ship.
    """

    folder: Path
    options: DemoOptions
    manifest: Path
    image_ids: tuple[str, ...]
    patients: int
    labels: Mapping[str, int]
    drawn: int
    real: tuple[str, ...] = ()
    missing: tuple[str, ...] = field(default=())


def cases_of(kind: Kind, seed: int) -> Iterator[Case]:
    """Yield the endless list of phantoms of this kind and seed, patient by patient."""
    module = _MODULES[kind]
    for patient in patients(kind, seed):
        yield from module.cases(patient)


def draw(case: Case) -> Phantom:
    """Draw one phantom; the result depends on the case alone."""
    phantom: Phantom = _MODULES[case.patient.kind].draw(case.patient, **case.keys)
    return phantom


_MODULES: Mapping[Kind, Any] = {Kind.LESION: lesion, Kind.TISSUE: tissue, Kind.XRAY: xray}


def write_demo(
    folder: Path, options: DemoOptions, *, overwrite: bool = False, workers: int = 0, steps: Steps | None = None
) -> Summary:
    """Make a demo in ``folder``, or finish, or enlarge, the one that is there.

    Parameters
    ----------
    overwrite
        Replace another demo, or write into a folder that holds other things; those are left alone.
    workers
        Processes to draw with; 0 is automatic.

    Raises
    ------
    UsageError
        If the folder holds something else, or another or larger demo, and ``overwrite`` is not set.
    OutputError
        If the folder cannot be written to.
    BusyError
        If another process works on it.
    """
    make_folder(folder)
    with locked(folder):
        cases = list(islice(cases_of(options.kind, options.seed), options.images))
        _prepare(folder, options, cases, overwrite=overwrite)
        sweep_temporaries(folder, below=("images", "masks"))
        for kind in ("images", "masks"):
            make_folder(folder / kind / options.kind)
        write_whole(folder / "README.md", readme_of(options).encode())
        real, missing = _copy_real(folder)
        drawn = _draw_missing(folder, cases, workers=workers, steps=steps)
        rows = [_row(case) for case in cases]
        write_manifest(Manifest.from_rows(rows, folder), folder / MANIFEST_NAME)
    labels: dict[str, int] = {}
    for case in cases:
        labels[case.patient.label] = labels.get(case.patient.label, 0) + 1
    return Summary(
        folder=folder,
        options=options,
        manifest=folder / MANIFEST_NAME,
        image_ids=tuple(case.name for case in cases),
        patients=len({case.patient.number for case in cases}),
        labels=dict(sorted(labels.items())),
        drawn=drawn,
        real=real,
        missing=missing,
    )


def _prepare(folder: Path, options: DemoOptions, cases: list[Case], *, overwrite: bool) -> None:
    """Leave ``folder`` with a record of these options and nothing of another demo, or refuse."""
    record = folder / RECORD_NAME
    there = _options_there(record)
    fitting = there is not None and (there.kind, there.seed) == (options.kind, options.seed)
    if not (fitting and there is not None and there.images <= options.images) or overwrite:
        _refuse_or_clear(folder, options, there, cases, overwrite=overwrite)
    if overwrite or there != options:
        write_json(
            record,
            {
                "format": FORMAT,
                "version": VERSION,
                "drawing": DRAWING,
                "kind": str(options.kind),
                "images": options.images,
                "seed": options.seed,
            },
        )


def _options_there(record: Path) -> DemoOptions | None:
    """Return what the demo in a folder was made with, or None if this medtool did not make one."""
    if not record.is_file():
        return None
    try:
        document = read_json(record)
        if [document.get(key) for key in ("format", "version", "drawing")] != [FORMAT, VERSION, DRAWING]:
            return None
        return DemoOptions(Kind(document["kind"]), images=document["images"], seed=document["seed"])
    except (InputError, UsageError, KeyError, TypeError, ValueError):
        return None


def _refuse_or_clear(
    folder: Path, options: DemoOptions, there: DemoOptions | None, cases: list[Case], *, overwrite: bool
) -> None:
    if not overwrite:
        if there is not None:
            raise UsageError(
                f"{folder} holds another demo: {there.images} {there.kind} phantoms of seed {there.seed}, "
                f"not {options.images} {options.kind} of seed {options.seed}",
                hint="another folder, or the same command with --overwrite",
            )
        if others := strangers(folder):
            raise UsageError(
                f"{folder} is not empty and no demo of this version (it holds {others[0]!r})",
                hint="another folder, or the same command with --overwrite",
            )
        return
    old = [] if there is None else islice(cases_of(there.kind, there.seed), there.images)
    try:
        for name in (MANIFEST_NAME, REAL_NAME):
            (folder / name).unlink(missing_ok=True)
        for case in (*old, *cases):
            for path in _paths(case):
                (folder / path).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def _paths(case: Case) -> tuple[str, str]:
    """Return the paths of a case's image and mask, relative to the folder."""
    return f"images/{case.patient.kind}/{case.name}.png", f"masks/{case.patient.kind}/{case.name}.png"


def _row(case: Case) -> dict[str, str]:
    image, mask = _paths(case)
    patient = case.patient
    return {
        "image": image,
        "image_id": case.name,
        "patient": patient.name,
        "site": patient.site,
        "label": patient.label,
        "mask": mask,
        "age": str(patient.age),
        "sex": patient.sex,
        "localization": patient.localization,
        **case.columns,
    }


def _copy_real(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy the real pictures and their table; return their paths, and the names of those that are not installed."""
    found = find_pictures()
    make_folder(folder / "images" / "real")
    rows = []
    for picture, place in found.items():
        path = f"images/real/{picture.name}"
        if not (folder / path).is_file():
            write_whole(folder / path, place.read_bytes())
        rows.append(
            {
                "image": path,
                "image_id": Path(picture.name).stem,
                "shows": picture.shows,
                "licence": picture.licence,
                "source": picture.source,
            }
        )
    if rows:
        write_manifest(Manifest.from_rows(rows, folder), folder / REAL_NAME)
    missing = tuple(picture.file_name for picture in PICTURES if picture not in found)
    return tuple(row["image"] for row in rows), missing


def _draw_missing(folder: Path, cases: list[Case], *, workers: int, steps: Steps | None) -> int:
    wanted = [case for case in cases if not all((folder / path).is_file() for path in _paths(case))]
    if steps is not None:
        for _ in range(len(cases) - len(wanted)):
            steps.advance()
    count = choose_workers(workers, items=len(wanted), least_items=_LEAST_IMAGES_FOR_WORKERS)
    for outcome in map_unordered(_write, wanted, setup=functools.partial(Path, folder), workers=count):
        name = outcome.get()
        if steps is not None:
            steps.advance(name)
    return len(wanted)


def _write(folder: Path, case: Case) -> str:
    """Draw one phantom and write it; the mask first, so that no image is there without one."""
    phantom = draw(case)
    image, mask = _paths(case)
    write_whole(folder / mask, _png(phantom.mask))
    write_whole(folder / image, _png(phantom.pixels))
    return case.name


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()

"""``medtool split export`` and ``import``: splits in the files of nnU-Net, CLAM and MONAI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cli import console
from medtool.errors import UsageError
from medtool.split.exchange.options import ExportOptions, FormatName, ImportOptions, LabelSource, Naming, Unnamed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medtool.split.exchange.format import FoldCounts

EXPORT_EXAMPLES = """Examples:

medtool split export split.csv --format nnunet nnUNet_preprocessed/Dataset007_Skin

medtool split export split.csv --format clam CLAM/splits/task_1

medtool split export split.csv --format monai datalist.json

medtool split export split.csv --format monai --fold 0 --label class fold_0.json
"""

IMPORT_EXAMPLES = """Examples:

medtool split import manifest.csv splits_final.json --format nnunet --out split.csv

medtool split import manifest.csv CLAM/splits/task_1 --format clam --fold 0 --out split.csv

medtool split import manifest.csv datalist.json --format monai --base images --out split.csv
"""

# What is on stderr for a person to read; --json has all of them.
MAX_FOLDS_SHOWN = 10

ManifestPath = Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest.", show_default=False)]
Format = Annotated[
    FormatName,
    typer.Option("--format", help="Whose files: splits_final.json, splits_0.csv and so on, or a datalist."),
]


def export_(
    manifest: ManifestPath,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Where to: of nnunet and monai a .json file or a folder that is there, of clam a folder.",
            show_default=False,
        ),
    ],
    format: Format,
    fold: Annotated[
        int | None,
        typer.Option("--fold", min=0, help="Write this fold alone, as a hold-out split.", show_default=False),
    ] = ExportOptions.fold,
    names: Annotated[
        Naming,
        typer.Option("--names", help="What images are called: their image_id, or their file name without ending."),
    ] = ExportOptions.naming,
    label: Annotated[
        LabelSource, typer.Option("--label", help="What goes under label in a datalist of monai.")
    ] = ExportOptions.label,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Write a manifest's split as the files of another program."""
    from medtool.manifest import read_manifest
    from medtool.split.exchange.exchange import export_split

    options = ExportOptions(fold=fold, naming=names, label=label)
    written, paths = export_split(read_manifest(manifest), format, out, options, overwrite=overwrite)
    document = {
        "format": "medtool-split-export",
        "version": 1,
        "manifest": str(manifest),
        "split_format": str(format),
        "files": [str(path) for path in paths],
        **_counts(written.folds, written.n_unused),
        "notes": list(written.notes),
    }
    _show(document, written.folds, [str(path) for path in paths])


def import_(
    manifest: ManifestPath,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="The file; of nnunet and clam also its folder, of clam several.", show_default=False
        ),
    ],
    format: Format,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="A .csv or .parquet in the manifest's folder or above, or - for stdout.",
            show_default=False,
        ),
    ],
    fold: Annotated[
        int | None, typer.Option("--fold", min=0, help="Take this fold alone, as a hold-out split.", show_default=False)
    ] = ImportOptions.fold,
    names: Annotated[
        Naming,
        typer.Option("--names", help="What the file calls images; auto: whichever fits the whole file."),
    ] = ImportOptions.naming,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base", metavar="FOLDER", help="What the paths of a datalist are relative to.", show_default=False
        ),
    ] = ImportOptions.base,
    unnamed: Annotated[
        Unnamed, typer.Option("--unnamed", help="What images are that the file does not name.")
    ] = ImportOptions.unnamed,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a manifest that is there.")] = False,
) -> None:
    """Give a manifest the split in the files of another program."""
    to_stdout = out == Path("-")
    if to_stdout and console.settings.json:
        raise UsageError("--json and --out - both write to stdout; give one")

    from medtool.manifest import csv_bytes, read_manifest
    from medtool.split.exchange.exchange import import_split
    from medtool.split.exchange.files import write_imported

    options = ImportOptions(fold=fold, naming=names, base=base, unnamed=unnamed)
    made = import_split(read_manifest(manifest), format, files, options)
    if to_stdout:
        console.copy(csv_bytes(made.manifest))
    else:
        write_imported(made.manifest, out, overwrite=overwrite)
    document = {
        "format": "medtool-split-import",
        "version": 1,
        "manifest": None if to_stdout else str(out),
        "split_format": str(format),
        "files": [str(path) for path in files],
        **_counts(made.folds, made.n_unused),
        "notes": list(made.notes),
    }
    _show(document, made.folds, [] if to_stdout else [str(out)])


def _counts(folds: Sequence[FoldCounts], n_unused: int) -> dict[str, Any]:
    return {
        "folds": [{"fold": each.fold, "train": each.train, "val": each.val, "test": each.test} for each in folds],
        "images_unused": n_unused,
    }


def _show(document: dict[str, Any], folds: Sequence[FoldCounts], paths: Sequence[str]) -> None:
    for note in document["notes"]:
        console.say(f"note: {note}")
    for each in folds[:MAX_FOLDS_SHOWN]:
        name = "images" if each.fold is None else f"fold {each.fold}"
        console.say(f"{name}: train {each.train:,}, val {each.val:,}, test {each.test:,}")
    if len(folds) > MAX_FOLDS_SHOWN:
        console.say(f"and {len(folds) - MAX_FOLDS_SHOWN:,} more folds; --json has all")
    if document["images_unused"]:
        console.say(f"in no part: {document['images_unused']:,}")
    if console.settings.json:
        console.show_json(document)
    else:
        for path in paths:
            console.out(path)

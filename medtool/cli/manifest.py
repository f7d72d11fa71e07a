"""``medtool manifest``: a known folder layout to the table that everything else starts from."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cli import console
from medtool.errors import ExitCode, OutputError, PluginError, UsageError

if TYPE_CHECKING:
    from medtool.manifest import Manifest

EXAMPLES = """Examples:

medtool manifest csv

medtool manifest folder photos/ --set 'patient=P[0-9]+'

medtool manifest isic2017 isic/

medtool manifest csv data/ --set table=labels.csv --set image_template='images/{id}.jpg' --set label=dx

medtool manifest masks cells/ --out - | head
"""

MAX_NAMED = 10


def _datasets(incomplete: str) -> list[str]:
    from medtool import registry

    return [name for name in registry.names("dataset") if name.startswith(incomplete)]


def manifest(
    dataset: Annotated[
        str,
        typer.Argument(
            help="What layout it is: a name from 'medtool plugins list datasets'.", autocompletion=_datasets
        ),
    ],
    root: Annotated[
        str | None,
        typer.Argument(help="The folder of that layout. Without it, the options of the data set are shown."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A .csv or .parquet in ROOT or above, or - for stdout. By default ROOT/manifest.csv."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            envvar="MEDTOOL_MANIFEST_SET",
            metavar="NAME=VALUE",
            help="An option of the data set; can be repeated.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a manifest that is there.")] = False,
) -> None:
    """Turn a known folder layout into a manifest: a row an image, with its label, patient and mask."""
    from medtool import registry

    plugin = registry.load("dataset", dataset)
    if root is None:
        _show_options(dataset, plugin)
        return
    if root == "":
        raise UsageError("ROOT is the empty text; is a variable of your shell not set?")
    folder = Path(root)
    options = _options(dataset, plugin.options, set_ or [])
    to_stdout = out == Path("-")
    path = out or folder / "manifest.csv"
    if to_stdout and console.settings.json:
        raise UsageError("--json and --out - both write to stdout; give one")
    if not to_stdout and os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} is there already", hint="--overwrite to replace it, or another file with --out")

    from medtool.manifest import Manifest, csv_bytes, write_manifest

    made = plugin.manifest(folder, **options)
    if not isinstance(made, Manifest):
        raise PluginError(f"the data set {dataset!r} gave a {type(made).__name__}, not a Manifest")
    if to_stdout:
        console.copy(csv_bytes(made))
    else:
        write_manifest(made, path)
    _show(made, _summary(made, dataset, None if to_stdout else path))
    if made.problems:
        raise typer.Exit(ExitCode.PARTIAL)


def _show_options(dataset: str, plugin: Any) -> None:
    if console.settings.json:
        console.show_json(
            {
                "format": "medtool-dataset",
                "version": 1,
                "dataset": dataset,
                "options": dict(plugin.options),
                "classes": list(plugin.classes),
                "licence": plugin.licence,
                "citation": plugin.citation,
            }
        )
        return
    if plugin.options:
        console.table(("--set NAME", "what it says"), plugin.options.items())
    else:
        console.say(f"{dataset} takes no options")
    console.say(f"licence: {plugin.licence}")
    if plugin.citation:
        console.say(f"citation: {plugin.citation}")
    console.hint(f"medtool manifest {dataset} ROOT")


def _options(dataset: str, known: Mapping[str, str], given: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: it must be NAME=VALUE")
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            offered = f"medtool manifest {dataset}, which shows its options"
            raise UsageError(f"--set {text}: the data set {dataset!r} has no option {name!r}{guess}", hint=offered)
        if name in options:
            raise UsageError(f"--set {name} is given twice: {options[name]!r} and {value!r}")
        options[name] = value
    return options


def _summary(made: Manifest, dataset: str, path: Path | None) -> dict[str, Any]:
    n_filled = {name: sum(made.counts(name).values()) for name in ("label", "patient", "mask")}
    return {
        "format": "medtool-manifest",
        "version": 1,
        "manifest": None if path is None else str(path),
        "dataset": dataset,
        "columns": made.columns,
        "images": len(made),
        "labels": made.counts("label"),
        "images_without_label": len(made) - n_filled["label"],
        "patients": len(made.counts("patient")),
        "images_without_patient": len(made) - n_filled["patient"],
        "masks": n_filled["mask"],
        "splits": made.counts("split"),
        "problems": [
            {"image_id": problem.image_id, "path": str(problem.path), "reason": problem.reason}
            for problem in made.problems
        ],
        "notes": list(made.notes),
    }


def _show(made: Manifest, summary: Mapping[str, Any]) -> None:
    for note in made.notes:
        console.say(f"note: {note}")
    for problem in made.problems[:MAX_NAMED]:
        console.warn(f"{problem.image_id}: {problem.reason}")
    if len(made.problems) > MAX_NAMED:
        console.warn(f"and {len(made.problems) - MAX_NAMED:,} more; --json names them all")
    if made.problems:
        console.warn(f"{len(made.problems):,} lost: they have no row")
    for line in _facts(summary):
        console.say(line)
    if console.settings.json:
        console.show_json(summary)
    elif summary["manifest"] is not None:
        console.out(summary["manifest"])


def _facts(summary: Mapping[str, Any]) -> list[str]:
    n = summary["images"]
    lines = [f"{n:,} image{'' if n == 1 else 's'}, {summary['masks']:,} with a mask"]
    if summary["labels"]:
        lines.append("labels: " + _counts(summary["labels"], summary["images_without_label"]))
    unknown = summary["images_without_patient"]
    patients = f"{summary['patients']:,}" + (f", unknown for {unknown:,} images" if unknown else "")
    lines.append(f"patients: {patients if summary['patients'] else 'unknown'}")
    if summary["splits"]:
        lines.append("splits: " + _counts(summary["splits"], n - sum(summary["splits"].values())))
    return lines


def _counts(counts: Mapping[str, int], n_without: int) -> str:
    shown = [f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1])[:20]]
    more = [f"{len(counts) - 20} more"] if len(counts) > 20 else []
    none = [f"none {n_without:,}"] if n_without else []
    return ", ".join(shown + more + none)

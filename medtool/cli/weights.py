"""``medtool weights``: which weights there are, and getting them onto this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool.cli import console
from medtool.cli.params import command
from medtool.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from medtool.weights import Found

app = typer.Typer(
    no_args_is_help=True,
    help="Published weights: what there is, what is on this machine, and getting it there.",
    epilog="Behind a firewall: medtool weights get sam-vit-b --from /media/usb",
)


def _complete(incomplete: str) -> list[str]:
    from medtool.weights import known

    return [each.name for each in known() if each.name.startswith(incomplete)]


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A name that medtool weights list shows.", autocompletion=_complete)
]
Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME", help="Names that medtool weights list shows.", autocompletion=_complete),
]


def show_list(
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte and compare the SHA-256; exit code 1 where one differs.")
    ] = False,
) -> None:
    """List the published weights, whether they are on this machine, and your own files beside them."""
    from medtool.weights import State, folder, look_at_all

    rows = look_at_all(verify=verify)
    if console.settings.json:
        console.show_json(_document(rows))
    else:
        console.table(("name", "size", "licence", "on this machine"), [_cells(found) for found in rows])
        console.say(f"folder: {folder()}")
        if not console.settings.quiet and not any(found.is_usable for found in rows):
            console.hint("medtool weights get mobile-sam")
    if verify and any(found.state is State.WRONG for found in rows):
        raise typer.Exit(ExitCode.FAILED)


def get(
    names: Names,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            envvar="MEDTOOL_WEIGHTS_GET_FROM",
            metavar="FILE",
            help="Copy this file instead of downloading: one that was carried here, or a folder that holds it.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file of that name that is not the published one.")
    ] = False,
) -> None:
    """Download weights, or go on with a stopped download, and verify them. The only command that uses the network."""
    from medtool import weights

    if source is not None and len(names) > 1 and not source.is_dir():
        raise UsageError(f"--from {source} is one file for {len(names)} names", hint="give one name, or a folder")
    infos = [weights.info(name) for name in dict.fromkeys(names)]
    rows = []
    for each in infos:
        with console.transfer(each.size_bytes, each.name) as progress:
            if source is None:
                found = weights.get(each.name, overwrite=overwrite, progress=progress, tell=console.say)
            else:
                found = weights.install(each.name, source, overwrite=overwrite, progress=progress, tell=console.say)
        rows.append(found)
        console.say(f"{each.name}: {each.size_bytes:,} bytes, SHA-256 {found.sha256} as published; {each.licence}")
        if not console.settings.json:
            console.out(str(found.path))
    if console.settings.json:
        console.show_json(_document(rows))


def path(name: Name) -> None:
    """Print where the weights are, for other programs; an error if they are not on this machine."""
    from medtool.weights import look_at, require

    where = require(name)
    if console.settings.json:
        console.show_json(_document([look_at(name)]))
    else:
        console.out(str(where))


def _document(rows: list[Found]) -> dict[str, Any]:
    from medtool.weights import folder

    return {
        "format": "medtool-weights",
        "version": 1,
        "folder": str(folder()),
        "weights": [
            {
                "name": found.name,
                "state": str(found.state),
                "path": str(found.path),
                "size_bytes": found.size_bytes,
                "sha256": found.sha256,
                "published": found.info
                and {
                    "title": found.info.title,
                    "url": found.info.url,
                    "file_name": found.info.file_name,
                    "size_bytes": found.info.size_bytes,
                    "sha256": found.info.sha256,
                    "licence": found.info.licence,
                    "citation": found.info.citation,
                },
            }
            for found in rows
        ],
    }


def _cells(found: Found) -> tuple[str, str, str, str]:
    from medtool.weights import State

    size_bytes = found.size_bytes if found.info is None else found.info.size_bytes
    state = str(found.state)
    if found.state is State.UNFINISHED:
        state += f" ({found.size_bytes / size_bytes:.0%})"
    if found.state is State.WRONG:
        state += f" ({found.size_bytes:,} bytes)" if found.sha256 is None else f" (SHA-256 {found.sha256})"
    return found.name, f"{size_bytes / 1e6:,.0f} MB", "" if found.info is None else found.info.licence, state


app.command("list", epilog="medtool weights list --verify")(command(show_list))
app.command("get", epilog="medtool weights get mobile-sam\n\nmedtool weights get sam-vit-b --from /media/usb")(
    command(get)
)
app.command("path", epilog="sha256sum $(medtool weights path sam-vit-b)")(command(path))

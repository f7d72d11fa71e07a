"""``medtool plugins``: which plugins there are, whether one keeps its contract, and a new one to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtool import registry
from medtool.cli import console
from medtool.cli.params import command
from medtool.errors import ExitCode, UnknownNameError, UsageError

if TYPE_CHECKING:
    from medtool.protocols import PluginInfo
    from medtool.testing.checks import Check

app = typer.Typer(
    no_args_is_help=True,
    help="Data sets, architectures and segmenters: which there are, whether one works, and a new one to start from.",
    epilog="Start: medtool plugins new my-segmenter --kind segmenter",
)

KINDS = tuple(registry.GROUPS)


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _complete_name(incomplete: str) -> list[str]:
    return sorted({info.name for info in registry.infos() if info.name.startswith(incomplete)})


KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="|".join(KINDS),
        help="What kind of plugin, where a name is one of several.",
        autocompletion=_complete_kind,
    ),
]


def show_list(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND]", help=f"{', '.join(KINDS)}; all if none.", autocompletion=_complete_kind),
    ] = None,
) -> None:
    """List the plugins on this machine, without loading any."""
    infos = registry.infos(kind)
    if console.settings.json:
        console.show_json(_list_document(infos))
    elif console.settings.quiet:
        for name in dict.fromkeys(info.name for info in infos):
            console.out(name)
    else:
        rows = [(info.name, info.kind, info.distribution, info.version, info.target) for info in infos]
        console.table(("name", "kind", "distribution", "version", "target"), rows)
    for kind_, name, claimants in dict.fromkeys(
        (info.kind, info.name, info.details["conflict"]) for info in infos if "conflict" in info.details
    ):
        console.warn(f"{kind_} {name!r} cannot be used: it is claimed by {claimants}")
    for problem in registry.problems():
        console.warn(problem)


def check(
    name: Annotated[str, typer.Argument(help="A name of medtool plugins list.", autocompletion=_complete_name)],
    kind: KindOption = None,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="FOLDER", help="A copy of the data set to check it on.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", envvar="MEDTOOL_PLUGINS_CHECK_SET", metavar="NAME=VALUE", help="An option of the data set."
        ),
    ] = None,
) -> None:
    """Run the contract tests on a plugin, and print a line for each.

    Exit code 0 if all pass, 1 if any fails, 4 if any had to be skipped: skipped is not passed.
    """
    kind = _kind_of(name, kind)
    if kind == "dataset" and root is None:
        raise UsageError(
            "a data set is checked on a folder of it; --root is missing",
            hint=f"medtool plugins check {name} --root FOLDER",
        )
    if kind != "dataset" and (root is not None or settings):
        raise UsageError(f"--root and --set are for data sets; {name!r} is a kind of {kind}")
    plugin = registry.load(kind, name)

    from medtool.testing.checks import Outcome, run_checks
    from medtool.testing.contracts import contract_of

    attributes = {"settings": _pairs(settings or (), plugin)} if kind == "dataset" else {}
    checks = []
    for done in run_checks(contract_of(kind, name, **attributes), given={"root": root}):
        checks.append(done)
        if not console.settings.json and not (console.settings.quiet and done.outcome is Outcome.PASSED):
            console.out(_line(done))
    counts = {outcome: sum(done.outcome is outcome for done in checks) for outcome in Outcome}
    if console.settings.json:
        console.show_json(_check_document(kind, name, plugin, checks))
    console.say(f"{kind} {name}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}")
    console.detail(f"licence: {plugin.licence}")
    console.detail(f"citation: {plugin.citation}")
    if counts[Outcome.FAILED]:
        raise typer.Exit(ExitCode.FAILED)
    if counts[Outcome.SKIPPED]:
        raise typer.Exit(ExitCode.PARTIAL)


def new(
    name: Annotated[str, typer.Argument(help="Its name on the command line: a-z, 0-9 and hyphens.")],
    kind: Annotated[
        str,
        typer.Option(
            "--kind", metavar="|".join(KINDS), help="What kind of plugin it is.", autocompletion=_complete_kind
        ),
    ],
    into: Annotated[Path, typer.Option("--into", metavar="FOLDER", help="Where to write it.")] = Path(),
) -> None:
    """Write a new plugin: a distribution of its own that works and passes its contract tests, to start from."""
    from medtool.testing.template import write_plugin

    folder = write_plugin(name, kind=kind, into=into)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if console.settings.json:
        console.show_json({"format": "medtool-plugins-new", "version": 1, "folder": str(folder), "files": files})
    else:
        console.out(str(folder))
    console.detail(f"files: {', '.join(files)}")
    root = " --root FOLDER" if registry.kind_of(kind) == "dataset" else ""
    plugin = folder.name.removeprefix("medtool-")
    console.say(f"install it: pip install -e {folder if folder.is_absolute() else f'./{folder.as_posix()}'}")
    console.say(f"check it: medtool plugins check {plugin} --kind {registry.kind_of(kind)}{root}")


def _kind_of(name: str, kind: str | None) -> str:
    if kind is not None:
        return registry.kind_of(kind)
    kinds = sorted({info.kind for info in registry.infos() if info.name == name})
    if not kinds:
        known = {info.name for info in registry.infos()}
        raise UnknownNameError("plugin", name, known=known, hint="medtool plugins list")
    if len(kinds) > 1:
        raise UsageError(
            f"{name!r} is the name of {' and '.join(kinds)}; say which",
            hint=f"medtool plugins check {name} --kind {kinds[0]}",
        )
    return kinds[0]


def _pairs(settings: Sequence[str], plugin: Any) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting!r} is not NAME=VALUE")
        if name not in plugin.options:
            raise UsageError(
                f"--set {setting!r}: there is no option {name!r}", hint=f"one of: {', '.join(plugin.options) or 'none'}"
            )
        pairs[name] = value
    return pairs


def _line(done: Check) -> str:
    reason = f": {done.reason}" if done.reason else ""
    return f"{done.outcome:<7}  {done.name}{reason}"


def _list_document(infos: Sequence[PluginInfo]) -> dict[str, Any]:
    return {
        "format": "medtool-plugins-list",
        "version": 1,
        "plugins": [
            {
                "name": info.name,
                "kind": info.kind,
                "distribution": info.distribution,
                "version": info.version,
                "target": info.target,
                "conflict": info.details.get("conflict"),
            }
            for info in infos
        ],
        "problems": list(registry.problems()),
    }


def _check_document(kind: str, name: str, plugin: Any, checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "format": "medtool-plugins-check",
        "version": 1,
        "name": name,
        "kind": kind,
        "licence": str(plugin.licence),
        "citation": str(plugin.citation),
        "checks": [{"name": done.name, "outcome": str(done.outcome), "reason": done.reason} for done in checks],
    }


app.command("list", epilog="medtool plugins list segmenters")(command(show_list))
app.command(
    "check",
    epilog="medtool plugins check random-walker\n\nmedtool plugins check ham10000 --root HAM10000/",
)(command(check))
app.command("new", epilog="medtool plugins new my-segmenter --kind segmenter")(command(new))

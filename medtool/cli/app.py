"""The medtool command: which commands there are, and how a process ends."""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType
from typing import Annotated, ClassVar, NoReturn

import typer

from medtool import __version__
from medtool.cli import console
from medtool.cli.family import family_name
from medtool.cli.lazy import Lazy, LazyRoot
from medtool.errors import ExitCode


class _Root(LazyRoot):
    table: ClassVar = {
        "demo": Lazy("medtool.cli.demo:demo", "Make a ready data set to try medtool on."),
        "manifest": Lazy("medtool.cli.manifest:manifest", "Turn a known folder layout into a manifest."),
        "split": Lazy("medtool.cli.split:app", "Splits: make, audit, import, export."),
        "train": Lazy("medtool.cli.train:train", "Train a classifier, calibrate and score it."),
        "predict": Lazy("medtool.cli.predict:predict", "Probabilities from trained networks."),
        "cam": Lazy("medtool.cli.cam:cam", "Heatmaps of trained networks; cam info, verify, export."),
        family_name("cam"): Lazy("medtool.cli.cam_files:app", "Heatmap files: info, verify, export.", hidden=True),
        "segment": Lazy("medtool.cli.segment:segment", "Segment the object in each image."),
        "doctor": Lazy("medtool.cli.doctor:doctor", "Say what works on this machine, and mend the rest."),
        "weights": Lazy("medtool.cli.weights:app", "Published weights: list, get, path."),
        "plugins": Lazy("medtool.cli.plugins:app", "Data sets, architectures, segmenters: list, check, new."),
    }


app = typer.Typer(
    name="medtool",
    cls=_Root,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich alone would take thrice the time that all the rest takes
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MEDTOOL"},
    epilog="Start: medtool demo demo/ && medtool segment --points 5 demo/images --overlays",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.out(f"medtool {__version__}")
        raise typer.Exit


@app.callback()
def medtool(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a folder of medical images to numbers that can be trusted."""


class _TerminatedError(BaseException):
    """SIGTERM arrived; unwinds like KeyboardInterrupt, so that workers and locks are given back."""


def _origin(error: typer.TyperException) -> str:
    """Return where a wrong value came from, if not from the command line."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None or parameter is None or parameter.name is None:
        return ""
    variable = getattr(parameter, "envvar", None) or f"{context.auto_envvar_prefix}_{parameter.name.upper()}"
    source = getattr(context.get_parameter_source(parameter.name), "name", "")
    return {"ENVIRONMENT": f" (from the variable {variable})", "DEFAULT_MAP": " (from the --config file)"}.get(
        source, ""
    )


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise _TerminatedError


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not break the tidying up
    raise KeyboardInterrupt


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; the whole of :func:`main` but the process's end."""
    console.settings.reset()
    root = typer.main.get_command(app)
    for parameter in root.params:  # MEDTOOL_VERSION in the environment must not turn every command into --version
        parameter.allow_from_autoenv = False  # type: ignore[attr-defined]
    try:
        code = root.main(args=arguments, prog_name="medtool", standalone_mode=False)
        console.flush()
    except typer.TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        console.warn("interrupted; run the same command again to go on")
        return int(ExitCode.INTERRUPTED)
    except _TerminatedError:
        console.warn("terminated; run the same command again to go on")
        return int(ExitCode.TERMINATED)
    except Exception as error:
        return console.fail(error)
    if code == ExitCode.INTERRUPTED:
        console.warn("interrupted; run the same command again to go on")
    return int(code or 0)


def _usage(error: typer.TyperException) -> int:
    context, message = getattr(error, "ctx", None), error.format_message()
    if context is not None and message in ("", context.get_help()):  # a group of commands without a command
        console.page(context.get_help())
        return int(ExitCode.USAGE)
    # The list of choices comes in lines of its own.
    console.warn(" ".join(message.replace("Value error, ", "").split()) + _origin(error))
    console.hint(f"{context.command_path if context is not None else 'medtool'} --help")
    return int(ExitCode.USAGE)


def main() -> NoReturn:
    """Run the command of this process and end it with its exit code."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, _terminate)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _interrupt)
    console.open_streams()
    sys.exit(run())

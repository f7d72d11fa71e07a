"""``medtool split``: splits that do not leak, and what is wrong with others."""

from __future__ import annotations

import typer

from medtool.cli import split_audit, split_exchange, split_make
from medtool.cli.params import command

app = typer.Typer(
    no_args_is_help=True,
    help="Splits: make one that does not leak, audit one, exchange with other programs.",
    epilog="Start: medtool split make data/manifest.csv && medtool split audit data/manifest-split.csv",
)
app.command("make", short_help="Make a split that cuts no patient.", epilog=split_make.EXAMPLES)(
    command(split_make.make)
)
app.command("audit", short_help="Find what leaks between the parts of a split.", epilog=split_audit.EXAMPLES)(
    command(split_audit.audit)
)
app.command("export", short_help="Write a split for nnU-Net, CLAM or MONAI.", epilog=split_exchange.EXPORT_EXAMPLES)(
    command(split_exchange.export_)
)
app.command("import", short_help="Take a split from nnU-Net, CLAM or MONAI.", epilog=split_exchange.IMPORT_EXAMPLES)(
    command(split_exchange.import_)
)

"""The command line: ``gpucnn train`` and what goes with it.

A file a command. What a command computes with is imported inside it, so that ``gpucnn --help``
answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .bench import bench
from .console import Commands, console
from .evaluate import evaluate
from .export import export
from .filters import filters
from .info import info
from .plan import plan
from .predict import predict
from .profile import profile
from .summary import summary
from .train import train
from .tune import tune

app = typer.Typer(
    cls=Commands,
    help="Train and use convolutional networks, on a GPU or without one.\n\n"
    "Start with [bold]gpucnn train[/bold]: it learns handwritten digits in a few seconds.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"gpucnn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


for command in (
    train,
    evaluate,
    predict,
    export,
    filters,
    summary,
    plan,
    profile,
    tune,
    bench,
    info,
):
    app.command()(command)

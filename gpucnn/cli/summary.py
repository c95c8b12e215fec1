"""``gpucnn summary``: the layers of a network."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .console import console


def summary(
    model: Annotated[
        str | None,
        typer.Option(
            help=f"{options.NETWORKS}, or a checkpoint; by default the newest run in runs/.",
            metavar="NAME|CHECKPOINT",
        ),
    ] = None,
    input_shape: options.Input = None,
    classes: options.Classes = 10,
) -> None:
    """Show the layers of a network: output shapes, parameters and multiply-adds."""
    from ..backends import use_backend
    from . import networks

    with use_backend("numpy"):  # nothing is computed
        shape = networks.as_shape(input_shape)
        network = networks.named(model, shape, classes) or networks.trained("--model", model).model
        console.print(network.summary_text(shape), markup=False, soft_wrap=True)

"""``gpucnn summary``: the layers of a network."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import console


def summary(
    model: Annotated[
        str | None,
        typer.Option(
            help="digits_cnn, lenet5, vgg_small, resnet20, or a checkpoint; by default the newest"
            " run in runs/.",
            metavar="NAME|CHECKPOINT",
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option("--input", help="Shape of one image of a named network, as 28,28,1."),
    ] = None,
    classes: Annotated[int, typer.Option(min=1, help="Outputs of a named network.")] = 10,
) -> None:
    """Show the layers of a network: output shapes, parameters and multiply-adds."""
    from pathlib import Path

    from .. import models
    from ..backends import use_backend
    from .runs import Trained

    with use_backend("numpy"):  # nothing is computed
        if model in models.MODELS:
            shape = models.USUAL[model] if input_shape is None else _shape(input_shape)
            network = models.make(model, classes, shape)
        elif model is not None and not Path(model).exists() and not Path(f"{model}.json").exists():
            names = ", ".join(models.MODELS)
            raise ValueError(f"--model must be one of {names}, or a checkpoint. Received: {model}")
        else:
            network = Trained.read(None if model is None else Path(model)).model
            shape = None if input_shape is None else _shape(input_shape)
        console.print(network.summary_text(shape), markup=False, soft_wrap=True)


def _shape(text: str) -> tuple[int, ...]:
    """
    >>> _shape("28,28,1")
    (28, 28, 1)
    """
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"--input must be height,width,channels, as 28,28,1. Received: {text}")
    return shape

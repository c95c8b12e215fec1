"""``gpucnn export``: a trained network as an ONNX file, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .console import console, details


def export(
    checkpoint: options.Checkpoint = None,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=options.file_to_write,
            metavar="PATH",
            help="The file to write.",
            show_default="model.onnx in the run",
        ),
    ] = None,
    channels_first: Annotated[
        bool,
        typer.Option(
            "--channels-first", help="Take pictures as (N, C, H, W), not as (N, H, W, C)."
        ),
    ] = False,
) -> None:
    """Write a trained network as an ONNX file, which other runtimes read.

    It takes pictures in the range of the training images, in batches of any
    size, and gives the network's outputs. The classes' names are in its metadata.
    """
    from .. import onnx
    from ..backends import use_backend
    from ..sizes import size_text
    from .runs import Trained

    with use_backend("numpy"):  # nothing is computed
        trained = Trained.read(checkpoint)
        file = onnx.save(
            trained.model,
            out or trained.folder / "model.onnx",
            channels_first=channels_first,
            normalize=trained.normalize,
            classes=trained.classes,
        )
    sizes = trained.model.input_shape
    sizes = (sizes[-1], *sizes[:-1]) if channels_first else sizes
    dtype = trained.model.dtype.name
    rows = {
        "network": str(trained.file),
        "input": f"(batch, {', '.join(map(str, sizes))}) {dtype}, 0 to {trained.peak:g}",
        "output": f"(batch, {len(trained.classes)}) {dtype}, a number for each class",
        "written": f"{file} ({size_text(file.stat().st_size)})",
    }
    console.print(details(rows))

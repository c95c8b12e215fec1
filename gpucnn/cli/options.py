"""Options that several commands take, so that they read alike everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def file_to_write(out: Path | None) -> Path | None:
    """Return the value of --out if a file can be written there, before the work and not after it.

    Raises:
        ValueError: there is a folder, or the way there ends at a file or may not be written to.
    """
    if out is not None and out.is_dir():
        raise ValueError(f"--out must be a file to write. Received: {out}, which is a folder")
    return _reached(out)


def folder_to_fill(out: Path | None) -> Path | None:
    """Return the value of --out if it is a folder or can be made one; see ``file_to_write``."""
    if out is not None and out.is_file():
        raise ValueError(f"--out must be a folder to fill. Received: {out}, which is a file")
    return _reached(out)


def _reached(out: Path | None) -> Path | None:
    if out is None:
        return None
    there = next(path for path in (out, *out.parents) if os.path.exists(path))
    problem = None
    if there != out and not there.is_dir():
        problem = "is no folder"
    elif not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
        problem = "may not be written to"
    if problem:
        raise ValueError(
            f"--out must be a place to write to. Received: {out}, but {there} {problem}"
        )
    return out


NETWORKS = (  # gpucnn.models.MODELS, which takes longer to import than help to read
    "digits_cnn, lenet5, vgg_small, resnet20, mobilenet_v2_small, airbench94, resnet18_cifar,"
    " resnet50_cifar, vgg11_cifar, vgg13_cifar, vgg16_cifar, mobilenet_v2_cifar, resnet18,"
    " resnet34, resnet50, vgg11, vgg11_bn, vgg16, vgg16_bn, mobilenet_v2"
)
Backend = Annotated[
    str | None,
    typer.Option(help="numpy or cuda; by default cuda where a GPU answers.", metavar="NAME"),
]
Checkpoint = Annotated[
    Path | None,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A run's folder or a checkpoint in it; by default the newest in runs/.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="digits, fashion-mnist, mnist, cifar10, a folder with a folder of pictures a class,"
        " or an .npz file.",
        metavar="NAME|PATH",
    ),
]
Flips = Annotated[
    bool | None,
    typer.Option(
        "--flips/--no-flips",
        help="Average the answers for an image and its mirror image.",
        show_default="as trained for",
    ),
]
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL", help=f"{NETWORKS}, or a checkpoint; by default the newest run in runs/."
    ),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input", help="Shape of one image of a named network, as 28,28,1.", metavar="H,W,C"
    ),
]
Classes = Annotated[int, typer.Option(min=1, help="Outputs of a named network.", metavar="N")]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Images in a batch.", show_default="as gpucnn train takes"
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, float64, float16 or bfloat16.",
        metavar="NAME",
        show_default="the network's, or float32",
    ),
]

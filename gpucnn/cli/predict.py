"""``gpucnn predict``: what a trained network sees in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .console import console, on_backend, percent, shape_text, table

if TYPE_CHECKING:
    import numpy as np

    from .runs import Trained

BEST = 3


def predict(
    pictures: Annotated[
        list[Path], typer.Argument(help="Picture files.", show_default=False, metavar="PICTURE")
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="A run's folder or a checkpoint in it; by default the newest in runs/.",
        ),
    ] = None,
    invert: Annotated[
        bool,
        typer.Option("--invert", help="Swap dark and light: for ink on paper, say."),
    ] = False,
    flips: options.Flips = None,
    backend: options.Backend = None,
) -> None:
    """Say what is in pictures: the three most probable classes of each.

    A picture is brought to the size, the channels and the range of the training images.
    """
    from .runs import Trained

    with on_backend(backend):
        trained = Trained.read(checkpoint)
        images = read_pictures(pictures, trained, invert)
        answers = trained.probabilities(images, trained.views(flips))
    best = min(BEST, len(trained.classes))
    made = table("picture", *("most probable", "second", "third")[:best])
    for path, answer in zip(pictures, answers, strict=True):
        top = (-answer).argsort(kind="stable")[:best]
        made.add_row(str(path), *(f"{trained.classes[i]}  {percent(answer[i])}" for i in top))
    console.print(made)
    shape = trained.model.input_shape
    console.print(
        f"{trained.file}: the pictures were brought to {shape_text(shape)}"
        f" ({'grey' if shape[-1] == 1 else 'colour'}), values 0 to {trained.peak:g} as in training,"
        f" {'inverted' if invert else 'not inverted'}.",
        style="dim",
    )
    _warn(images, trained, invert)


def read_pictures(pictures: list[Path], trained: Trained, invert: bool = False) -> np.ndarray:
    """Return the pictures (N, H, W, C) in float32, 0..peak.

    Raises:
        FileNotFoundError, ValueError: a picture is missing or damaged, or the network takes none.
    """
    import numpy as np

    from ..data import read_picture

    shape = trained.model.input_shape
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise ValueError(
            f"the network of {trained.file} takes no pictures. Received: input shape {shape}"
        )
    images = np.stack([read_picture(path, size=shape[:2], channels=shape[-1]) for path in pictures])
    images = 255 - images if invert else images
    return images.astype(np.float32) * np.float32(trained.peak / 255.0)


def _warn(images: np.ndarray, trained: Trained, invert: bool) -> None:
    """Say so where pictures are light at the border while the training images are dark."""
    import numpy as np

    border = np.concatenate([images[:, [0, -1]].ravel(), images[:, :, [0, -1]].ravel()])
    light = border.mean() > 0.6 * trained.peak
    if light and trained.normalize and np.mean(trained.normalize.mean) < 0.4 * trained.peak:
        advice = "leave out --invert" if invert else "try --invert"
        console.print(
            f"The pictures are light at the border and the training images were dark: {advice}.",
            style="yellow",
        )

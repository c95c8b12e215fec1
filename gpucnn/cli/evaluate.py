"""``gpucnn evaluate``: how good a trained network is, class by class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .console import console, describe, details, on_backend, percent, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


def evaluate(
    checkpoint: options.Checkpoint = None,
    data: options.Data = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Pixels a side, that pictures of a folder are resized to."
        ),
    ] = None,
    grey: Annotated[
        bool, typer.Option("--grey", help="Read pictures of a folder without colour.")
    ] = False,
    flips: options.Flips = None,
    backend: options.Backend = None,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=options.file_to_write,
            metavar="PICTURE",
            help="What to draw.",
            show_default="confusion_matrix.png in the run",
        ),
    ] = None,
) -> None:
    """Test a network: accuracy, a line for each class, and the confusion matrix.

    The test images are those of the data it was trained on, or of --data.
    """
    from ..metrics import confusion_matrix
    from .runs import Trained

    with on_backend(backend) as chosen:
        trained = Trained.read(checkpoint)
        dataset = trained.load_data(data, size, grey)
        labels, names = dataset.test.labels, trained.classes
        answers = trained.probabilities(dataset.test.images, trained.views(flips)).argmax(axis=-1)
        matrix = confusion_matrix(labels, answers, len(names))
        right = int(matrix.trace())
        wrong = len(labels) - right
        rows = {
            "checkpoint": str(trained.file),
            "data": f"{dataset.name}: {len(labels):,} test images",
            "backend": describe(chosen),
            "accuracy": f"{percent(right / len(labels))} ({wrong:,} of {len(labels):,} wrong)",
            "picture": _draw(out or trained.folder / "confusion_matrix.png", matrix, names),
        }
    console.print(_per_class(matrix, names))
    console.print(details(rows))


def _per_class(matrix: np.ndarray, names: Sequence[str]) -> object:
    """Return a table of each class: recall, precision, and what it is mistaken for most."""
    made = table("class", "most often taken for", "images", "recall", "precision", numbers=3)
    for label, name in enumerate(names):
        count, claimed, right = matrix[label].sum(), matrix[:, label].sum(), matrix[label, label]
        mistakes = matrix[label].copy()
        mistakes[label] = 0
        worst = int(mistakes.argmax())
        made.add_row(
            name,
            f"{names[worst]} ({mistakes[worst]:,})" if mistakes[worst] else "",
            f"{count:,}",
            percent(right / count) if count else "",
            percent(right / claimed) if claimed else "",
        )
    return made


def _draw(path: Path, matrix: np.ndarray, names: Sequence[str]) -> str:
    """Draw the confusion matrix and return its file, or why there is none."""
    try:
        from .. import plots
    except ModuleNotFoundError as error:
        return f"none drawn: {error}"
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.confusion_matrix(matrix, names).savefig(path)
    return str(path)

"""The confusion matrix: which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from . import style

MOST_NUMBERS = 25  # classes: beyond, the counts would not be read


def confusion_matrix(
    matrix: np.ndarray, classes: Sequence[str] | None = None, *, title: str | None = None,
    on: FigureBase | None = None,
) -> FigureBase:  # fmt: skip
    """Draw a matrix (classes, classes) of counts, rows the true class.

    The diagonal is blue and the mistakes are red, both by their share of the row, and mistakes ten
    times as strong; the share that was right stands at the end of each row.

    Raises:
        ValueError: the matrix is not square, is empty, or the classes are not as many.
    """
    matrix = np.asarray(matrix)
    count = len(matrix)
    names = range(count) if classes is None else classes
    names = [style.label(str(name)) for name in names]
    if matrix.shape != (count, count) or len(names) != count or not matrix.sum():
        raise ValueError(
            "confusion_matrix: the matrix must be square with a count above 0, and classes name its"
            f" rows. Received: a matrix of shape {matrix.shape} and {len(names)} classes"
        )
    side = 2.2 + 0.42 * min(count, MOST_NUMBERS)
    figure = style.canvas(on, side + 0.6, side)
    right, total = int(np.trace(matrix)), int(matrix.sum())
    style.title(figure, title or f"{right:,} of {total:,} right: {right / total:.1%}")
    axes = figure.subplots()
    _cells(axes, matrix)
    _names(axes, matrix, names)
    return figure


def _cells(axes: Axes, matrix: np.ndarray) -> None:
    count = len(matrix)
    diagonal = np.eye(count, dtype=bool)
    of_row = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # A single mistake is to be seen; a tenth of the row is full red.
    shade = np.where(matrix > 0, np.minimum(0.2 + 8 * of_row, 1), 0)
    # (classes, classes, 1), (classes, classes, 4), (classes, classes, 4) -> (classes, classes, 4)
    colours = np.where(diagonal[..., None], style.BLUES(of_row), style.REDS(shade))
    axes.imshow(colours)
    axes.tick_params(length=0)
    axes.spines[:].set_color(style.FAINT)
    if count > MOST_NUMBERS:
        return
    edges = np.arange(count + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color=style.FAINT, linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    dark = np.where(diagonal, of_row, shade) > 0.85
    for row, column in np.argwhere(matrix > 0):
        axes.text(
            column, row, f"{matrix[row, column]:,}", ha="center", va="center",
            fontsize=style.SMALL, color="white" if dark[row, column] else style.INK,
        )  # fmt: skip


def _names(axes: Axes, matrix: np.ndarray, names: Sequence[str]) -> None:
    count = len(names)
    every = -(-count // MOST_NUMBERS)
    places = np.arange(0, count, every)
    shown = [names[place] for place in places]
    long = max(map(len, shown)) > 3
    slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(places, shown, fontsize=style.SMALL, color=style.INK, **slant)
    axes.set_yticks(places, shown, fontsize=style.SMALL, color=style.INK)
    axes.set_xlabel("predicted", fontsize=style.TEXT, color=style.MUTED)
    axes.set_ylabel("true", fontsize=style.TEXT, color=style.MUTED)
    sizes = matrix.sum(axis=1)
    quiet = {"va": "center", "fontsize": style.SMALL, "color": style.MUTED}
    axes.text(count - 0.3, -0.9 * every, "right", **quiet)
    for row in places:
        share = f"{matrix[row, row] / sizes[row]:.0%}" if sizes[row] else "none"
        axes.text(count - 0.3, row, share, **quiet)

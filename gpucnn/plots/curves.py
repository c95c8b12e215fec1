"""The learning curve: loss and metrics, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator, PercentFormatter

from . import style

if TYPE_CHECKING:
    from ..history import History

APART = ("epoch", "learning_rate", "images_per_second", "seconds")


def learning_curve(
    history: History, *, title: str = "Learning curve", stacked: bool = False,
    on: FigureBase | None = None,
) -> FigureBase:  # fmt: skip
    """Draw a panel for the loss and for each metric, training and validation.

    stacked: the panels stand one above the other, in place of side by side.

    Raises:
        ValueError: no epoch was recorded.
    """
    names = [n for n in history.names if n not in APART and not n.startswith("val_")]
    if not names:
        raise ValueError("learning_curve: needs one epoch or more. Received: an empty history")
    rows, columns = (len(names), 1) if stacked else (1, len(names))
    figure = style.canvas(on, 4.2 * columns, 0.4 + 3.0 * rows)
    style.title(figure, title)
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, names, strict=True):
        _panel(axes, history, name)
    return figure


def _panel(axes: Axes, history: History, name: str) -> None:
    style.clean(axes)
    lines = ((f"val_{name}", "validation", style.RED), (name, "training", style.BLUE))
    ends = []
    for column, label, colour in lines:
        points = [(r["epoch"], r[column]) for r in history.records if column in r]
        if points:
            epochs, values = zip(*points, strict=True)
            marker = {"marker": "o", "markersize": 3.5} if len(points) <= 30 else {}
            axes.plot(epochs, values, color=colour, linewidth=1.8, label=label, **marker)
            ends.append((label, values[-1], colour))
    axes.set_title(name.replace("_", " "), loc="left", fontsize=style.TEXT, color=style.INK)
    axes.set_xlabel("epoch", fontsize=style.SMALL, color=style.MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, history.records[-1]["epoch"] + 0.5)
    of_one = "accuracy" in name
    if of_one:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    else:
        axes.set_ylim(bottom=0)
    # In place of a legend each line's last value stands in its colour, where no curve goes.
    for row, (label, value, colour) in enumerate(ends):
        text = f"{label} {value:.1%}" if of_one else f"{label} {value:.3f}"
        corner, offset = ((1, 0), 6 + 14 * row) if of_one else ((1, 1), -6 - 14 * row)
        axes.annotate(
            text, corner, (-4, offset), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="bottom" if of_one else "top", fontsize=style.TEXT, color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip

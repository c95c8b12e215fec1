"""One look for all pictures: colours that the colour-blind tell apart, and few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, FigureBase

INK = "#1b2530"
MUTED = "#66717d"
FAINT = "#e3e7eb"
# Of Okabe & Ito, "Color Universal Design", 2008; red is their vermilion.
BLUE = "#0072b2"
RED = "#d55e00"
GREEN = "#009e73"
AMBER = "#e69f00"
PINK = "#cc79a7"

BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#bcd9ea", BLUE])
REDS = LinearSegmentedColormap.from_list("reds", ["#ffffff", "#f6cfb4", RED])
DIVERGING = LinearSegmentedColormap.from_list("diverging", [BLUE, "#f7f7f7", RED])

TITLE, TEXT, SMALL = 12, 9.5, 8  # points
MARGIN = 0.12  # inches
LABEL = 13  # letters


def canvas(on: FigureBase | None, width: float, height: float) -> FigureBase:
    """Return what to draw on: the part of a figure that was given, or a new figure (inches)."""
    if on is not None:
        return on
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained", facecolor="white")
    x, y = MARGIN / width, MARGIN / height
    figure.get_layout_engine().set(rect=(x, y, 1 - 2 * x, 1 - 2 * y))
    return figure


def title(on: FigureBase, text: str) -> None:
    x = MARGIN / (on.bbox.width / on.dpi) if isinstance(on, Figure) else 0.01
    on.suptitle(text, x=x, ha="left", fontsize=TITLE, fontweight="bold", color=INK)


def label(name: str) -> str:
    """Return a class's name as a label: cut where it would crowd the drawing, and never a formula.

    >>> label("7"), label("class number 25"), label("class number 26"), label("$5")
    ('7', 'class …ber 25', 'class …ber 26', '\\\\$5')
    """
    if len(name) > LABEL:
        name = f"{name[: LABEL // 2]}\N{HORIZONTAL ELLIPSIS}{name[-(LABEL // 2) :]}"
    return name.replace("$", r"\$")


def clean(axes: Axes) -> None:
    """Leave the axes a base line, a faint horizontal grid and quiet numbers."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED)
    axes.grid(axis="y", color=FAINT)
    axes.set_axisbelow(True)


def show(axes: Axes, pixels: np.ndarray, **options: Any) -> None:
    """Show pixels (H, W) or (H, W, 3) as they are, with no frame and no numbers."""
    axes.imshow(pixels, interpolation="nearest", **options)
    axes.set_axis_off()


def mosaic(
    axes: Axes, pictures: Sequence[np.ndarray], columns: int, gap: float = 0.12, **options: Any
) -> None:
    """Show pictures of one size side by side in rows of ``columns``, on the given colour scale."""
    height, width = pictures[0].shape[:2]
    across, down = width * (1 + gap), height * (1 + gap)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        left, top = column * across, row * down
        show(axes, picture, extent=(left, left + width, top + height, top), **options)
    rows = -(-len(pictures) // columns)
    axes.set_xlim(0, columns * across - gap * width)
    axes.set_ylim(rows * down - gap * height, 0)
    axes.set_anchor("NW")


def as_picture(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, C) stretched to 0..1: (H, W) for one channel, (H, W, 3) for three.

    Of any other number of channels the first is shown.
    """
    image = np.asarray(image, np.float64)
    image = image if image.shape[-1] == 3 else image[..., 0]
    low, high = image.min(), image.max()
    return (image - low) / (high - low or 1.0)

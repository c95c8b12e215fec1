"""Filters: those a layer has learnt, and what a classical one makes of a picture."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import FigureBase

from ..layers import Conv2D
from ..network import Network
from . import style

MOST_FILTERS, MOST_CHANNELS = 64, 16


def first_kernel(model: Network) -> np.ndarray | None:
    """Return the filters of the first convolution, (filters, r, s, channels), or None."""
    for _, layer in model.walk():
        if isinstance(layer, Conv2D):
            return model.backend.to_numpy(layer.params["kernel"]).astype(np.float32)
    return None


def filter_grid(
    kernel: np.ndarray, *, columns: int = 8, title: str | None = None, on: FigureBase | None = None
) -> FigureBase:
    """Draw the filters of a convolution of pictures, (filters, r, s, channels).

    Filters of one channel are drawn blue where negative and red where positive, those of three in
    colour, so many columns of them; of others each row is a filter and each column a channel. All
    share one scale.

    Raises:
        ValueError: the kernel has not four axes.
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 4:
        raise ValueError(
            "filter_grid: the kernel must be (filters, r, s, channels)."
            f" Received: shape {kernel.shape}"
        )
    filters, height, width, channels = kernel.shape
    kind = {1: "blue below 0, red above", 3: "in colour"}.get(channels, "a row each, by channel")
    peak = float(np.abs(kernel).max()) or 1.0
    if channels in (1, 3):
        drawn = list(kernel[:MOST_FILTERS] if channels == 3 else kernel[:MOST_FILTERS, :, :, 0])
    else:
        columns = min(channels, MOST_CHANNELS)
        # (filters, r, s, channels) -> a row for each filter of (channels, r, s)
        part = kernel[: MOST_FILTERS // 4, :, :, :columns].transpose(0, 3, 1, 2)
        drawn = list(part.reshape(-1, height, width))
    columns = min(columns, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = style.canvas(on, max(0.5 + 0.72 * columns, 5.0), 0.6 + 0.72 * rows)
    style.title(figure, title or f"{filters} filters of {height}x{width}, {kind}")
    axes = figure.subplots()
    if channels == 3:
        style.mosaic(axes, [0.5 + one / (2 * peak) for one in drawn], columns)
    else:
        style.mosaic(axes, drawn, columns, cmap=style.DIVERGING, vmin=-peak, vmax=peak)
    return figure


def filter_comparison(
    image: np.ndarray, filtered: np.ndarray, name: str, *, on: FigureBase | None = None
) -> FigureBase:
    """Draw a picture (H, W, C) beside what the filter called ``name`` makes of it."""
    figure = style.canvas(on, 8.0, 0.5 + 3.8 * image.shape[0] / image.shape[1])
    parts = zip(figure.subplots(1, 2), (image, filtered), ("picture", name), strict=True)
    for axes, pixels, label in parts:
        style.show(axes, style.as_picture(pixels), cmap="gray", vmin=0, vmax=1)
        axes.set_title(label, loc="left", fontsize=style.TEXT, color=style.INK)
    return figure

"""Feature maps: one picture on its way through the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from ..layers.base import inference_mode
from ..models import probabilities
from ..network import Sequential
from . import style

MOST_CLASSES, COLUMNS = 10, 8


def feature_maps(
    model: Sequential, image: np.ndarray, *, classes: Sequence[str] | None = None,
    picture: np.ndarray | None = None, rows: int = 8, title: str | None = None,
    on: FigureBase | None = None,
) -> FigureBase:  # fmt: skip
    """Draw what the layers of a network make of an image, and its answer.

    Args:
        model: a chain of layers on (H, W, C); its outputs are logits or probabilities of classes.
        image: (H, W, C), ready for the network. picture: what to show of it, by default itself.
        classes: the name of each output.
        rows: at most; of more, some are left out evenly.

    A row is a layer with those behind it that keep the shape (a norm, an activation); it shows the
    maps that vary most, each on its own scale, dark where it is smallest.

    Raises:
        ValueError: the model is no Sequential, or has no layer that makes maps.
    """
    if not isinstance(model, Sequential):
        raise ValueError(
            f"feature_maps: the model must be a Sequential. Received: {type(model).__name__}"
        )
    stages, answer = _run(model, np.asarray(image))
    if not stages:
        raise ValueError(
            f"feature_maps: a layer of the model must give maps (height, width, channels)."
            f" Received: {model!r}"
        )
    if len(stages) > rows:
        stages = [stages[round(i)] for i in np.linspace(0, len(stages) - 1, rows)]
    picture = style.as_picture(image if picture is None else picture)
    figure = style.canvas(on, 9.0, 0.7 + 0.88 * len(stages))
    style.title(figure, title or "One picture on its way through the layers")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(2, COLUMNS, 2.6))
    shown = left.subplots()
    style.show(shown, picture, cmap="gray", vmin=0, vmax=1)
    size = "x".join(str(length) for length in np.shape(image))
    shown.set_title(f"input {size}", loc="left", pad=3, fontsize=style.SMALL, color=style.MUTED)
    panels = middle.subplots(len(stages), 1, squeeze=False).flat
    for axes, (kinds, maps) in zip(panels, stages, strict=True):
        _row(axes, kinds, maps)
    _answer(right.subplots(), answer, classes)
    return figure


def _run(
    model: Sequential, image: np.ndarray
) -> tuple[list[tuple[list[str], np.ndarray]], np.ndarray]:
    """Return (kinds of layers, their maps (H, W, C)) for each row, and the outputs (classes,)."""
    stages: list[tuple[list[str], np.ndarray]] = []
    with inference_mode():
        x = model.backend.asarray(image[None], model.dtype)  # (H, W, C) -> (1, H, W, C)
        for layer in model.layers:
            x = layer.forward(x)
            if x.ndim == 4:
                maps = model.backend.to_numpy(x)[0].astype(np.float32)
                mixes = any(a.ndim > 1 for _, part in layer.walk() for a in part.params.values())
                joins = stages and not mixes and stages[-1][1].shape == maps.shape
                kinds = stages.pop()[0] if joins else []
                stages.append(([*kinds, type(layer).__name__], maps))
        answer = probabilities(model.backend.to_numpy(x))[0]
    return stages, answer


def _row(axes: Axes, kinds: Sequence[str], maps: np.ndarray) -> None:
    height, width, channels = maps.shape
    lively = np.sort(np.argsort(-maps.var(axis=(0, 1)), kind="stable")[:COLUMNS])
    style.mosaic(axes, [maps[..., channel] for channel in lively], COLUMNS, cmap="magma")
    axes.set_title(
        f"{' + '.join(kinds)}: {channels} maps of {height}x{width}", loc="left", pad=3,
        fontsize=style.SMALL, color=style.MUTED,
    )  # fmt: skip


def _answer(axes: Axes, answer: np.ndarray, classes: Sequence[str] | None) -> None:
    """Draw the most probable classes as bars, in the order of the classes."""
    names = range(len(answer)) if classes is None else classes
    names = [style.label(str(name)) for name in names]
    best = np.sort(np.argsort(-answer, kind="stable")[:MOST_CLASSES])
    top = int(answer[best].argmax())
    places = np.arange(len(best))
    colours = [style.BLUE if place == top else style.FAINT for place in places]
    axes.barh(places, answer[best], color=colours, height=0.72)
    axes.set_yticks(places, [names[i] for i in best], fontsize=style.SMALL, color=style.INK)
    share = answer[best[top]]
    place, colour = (0.02, "white") if share > 0.4 else (share + 0.02, style.BLUE)
    axes.text(place, top, f"{share:.1%}", va="center", fontsize=style.SMALL, color=colour)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"answer: {names[best[top]]}", loc="left", fontsize=style.SMALL, color=style.MUTED
    )

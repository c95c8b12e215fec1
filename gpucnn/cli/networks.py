"""The network that a command is about: one with a name, or that of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from .. import models
from ..layers.base import Shape
from ..network import Network, Sequential
from ..recipes import recipe_for
from .runs import Trained, load_data


def named(
    name: str | None, shape: Shape | None = None, classes: int = 10, dtype: str | None = None
) -> Sequential | None:
    """Return the network of ``gpucnn.models`` of this name, or None where there is none.

    Args:
        shape: of one image; by default what the network was made for.
    """
    if name not in models.MODELS:
        return None
    return models.make(name, classes, shape or models.USUAL[name], dtype)


def trained(path: str | None) -> Trained:
    """Read a checkpoint, or the newest run where ``path`` is None.

    Raises:
        ValueError: there is none of this name.
        FileNotFoundError: there is no run yet.
    """
    if path is not None and not Path(path).exists() and not Path(f"{path}.json").exists():
        names = ", ".join(models.MODELS)
        raise ValueError(f"MODEL must be one of {names}, or a checkpoint. Received: {path}")
    return Trained.read(None if path is None else Path(path))


def with_batch(
    model: str | None, data: str | None, input_shape: str | None, classes: int,
    batch_size: int | None, dtype: str | None,
) -> tuple[Network, int]:  # fmt: skip
    """Return the network that MODEL and the other options name, and the size of its batches.

    Raises:
        ValueError, FileNotFoundError: there is none; the text says what to do.
    """
    shape, batch = as_shape(input_shape), recipe_for(model or "auto", data or "").batch_size
    if data is not None:
        dataset = load_data(data)
        shape, classes = dataset.image_shape, len(dataset.classes)
    network = named(model, shape, classes, dtype)
    if network is None:
        known = trained(model)
        if shape is not None:
            raise ValueError(
                "--data and --input are for a named network; a checkpoint knows its input."
                f" Received: {known.file}"
            )
        network = known.model if dtype is None else known.model.astype(dtype)
        batch = known.settings.batch_size if known.settings else batch
    return network, batch_size or batch


def as_shape(text: str | None) -> Shape | None:
    """Return the shape that --input gives, if it does.

    >>> as_shape("28,28,1")
    (28, 28, 1)
    """
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"--input must be height,width,channels, as 28,28,1. Received: {text}")
    return shape

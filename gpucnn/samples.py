"""The data that a trainer takes, brought to one form: something with images and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .backends.exchange import on_host
from .data import Dataset, Loader, Split
from .data.dataset import stratified


@dataclass(frozen=True, eq=False)
class Samples:
    """Arrays of any shape where a ``Split`` holds pictures: images (N, ...) and labels (N, ...)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def as_samples(owner: str, x: Any, y: Any = None) -> Split | Samples | Loader:
    """Return arrays x and y as samples; a Split or a Loader as it is; a pair (x, y) as both.

    Arrays on a GPU are copied to the host, from where a trainer brings its batches.

    Raises:
        ValueError: x and y are of different lengths, or empty, or y is missing.
        TypeError: x is a whole Dataset.
    """
    if isinstance(x, Dataset):
        raise TypeError(f"{owner}: give one of its splits, .train or .test. Received: {x!r}")
    if isinstance(x, (Split, Loader)):
        if y is not None:
            raise ValueError(f"{owner}: a {type(x).__name__} holds its labels. Received: y as well")
        return x
    if y is None and isinstance(x, tuple) and len(x) == 2:
        x, y = x
    if y is None:
        raise ValueError(f"{owner}: y, the targets of x, must be given. Received: y=None")
    x, y = on_host(owner, "x", x), on_host(owner, "y", y)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"{owner}: x and y must hold equally many samples, at least one."
            f" Received: x of shape {x.shape}, y of shape {y.shape}"
        )
    return Samples(x, y)


def divide(
    data: Split | Samples, fraction: float, seed: int
) -> tuple[Split | Samples, Samples | None]:
    """Divide into (rest, part) with ``fraction`` of the samples in the part, chosen by the seed.

    Integer labels are divided each by its share. The part is None where it would be empty.
    """
    count = min(round(fraction * len(data)), len(data) - 1)
    if count == 0:
        return data, None
    of_classes = data.labels.ndim == 1 and data.labels.dtype.kind in "iu"
    labels = data.labels if of_classes else np.zeros(len(data), np.int64)
    mask = stratified(labels, count, seed)
    return (
        Samples(data.images[~mask], data.labels[~mask]),
        Samples(data.images[mask], data.labels[mask]),
    )

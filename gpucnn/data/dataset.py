"""What every reader returns: a ``Dataset`` of two ``Split``s, images channels last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arguments import as_number


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and their labels.

    Args:
        images: (N, H, W, C), uint8 or floating.
        labels: (N,), integers >= 0, kept as int64.

    Raises:
        ValueError: a shape, a dtype or the two counts do not fit.

    Example:
        >>> Split(np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 1])
        Split(4 images 8x8x1 uint8)
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.ndim != 4 or 0 in images.shape[1:]:
            raise ValueError(f"Split: images must be (N, H, W, C). Received: shape {images.shape}")
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            raise ValueError(f"Split: images must be uint8 or floating. Received: {images.dtype}")
        labels = check_labels(labels, None, "Split")
        if len(images) != len(labels):
            raise ValueError(
                "Split: images and labels must be equally many. "
                f"Received: {len(images)} images, {len(labels)} labels"
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = "x".join(str(n) for n in self.images.shape[1:])
        return f"Split({len(self)} images {size} {self.images.dtype})"

    def take(self, indices: np.ndarray) -> Split:
        """Return the images and labels at ``indices`` (integers or a boolean mask), copied."""
        return Split(self.images[indices], self.labels[indices])

    def split(self, fraction: float, seed: int = 0) -> tuple[Split, Split]:
        """Divide into (rest, part), the part holding ``fraction`` of the images.

        Chosen by ``seed``, disjoint, and stratified: see ``stratified``. Both keep the images'
        order.

        Raises:
            ValueError: either would be empty.

        Example:
            >>> split = Split(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10) % 2)
            >>> split.split(0.2)
            (Split(8 images 8x8x1 uint8), Split(2 images 8x8x1 uint8))
        """
        count = round(as_number("Split", "fraction", fraction, above=0, below=1) * len(self))
        if not 0 < count < len(self):
            raise ValueError(
                f"Split: fraction must leave images on both sides of {len(self)}."
                f" Received: fraction={fraction}"
            )
        part = stratified(self.labels, count, seed)
        return self.take(~part), self.take(part)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training and a test split of the same kind of image.

    Args:
        train, test: the splits.
        classes: a name for each label, in label order.
        name: a short one, for titles and folders.
        source: a line that says where the images come from, and their licence.
        peak: the value of a full-bright pixel, 16 for the bundled digits; when it is not given, 255
            for uint8 and the greatest training value for floating images.

    Raises:
        ValueError: the splits or the classes do not fit each other.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    name: str
    source: str
    peak: float | None = None

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise ValueError(
                f"{self.name}: train and test images must have one shape. "
                f"Received: {self.train.images.shape[1:]} and {self.test.images.shape[1:]}"
            )
        for split in (self.train, self.test):
            check_labels(split.labels, len(self.classes), self.name)
        if self.peak is None:
            images = self.train.images
            peak = 255.0 if images.dtype == np.uint8 else float(images.max(initial=0))
            object.__setattr__(self, "peak", peak)

    def __repr__(self) -> str:
        size = "x".join(str(n) for n in self.image_shape)
        return (
            f"Dataset({self.name}: {len(self.train)} train, {len(self.test)} test, "
            f"{size} {self.train.images.dtype}, {len(self.classes)} classes)"
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.train.images.shape[1:]


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return a mask (N,) that picks ``count`` of N images at random, each class by its share.

    Each class gives its share of ``count`` rounded down or up, so that the picked classes are
    balanced as the whole is, and the total is exactly ``count``.
    """
    total = len(labels)
    shuffled = np.random.default_rng(seed).permutation(total)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Even steps through the images laid out class after class: systematic sampling.
    position = np.arange(total)
    picked = (position + 1) * count // total > position * count // total
    mask = np.zeros(total, dtype=bool)
    mask[by_class[picked]] = True
    return mask


def check_labels(labels: np.ndarray, classes: int | None, where: object) -> np.ndarray:
    """Return ``labels`` as int64 (N,).

    Args:
        classes: bounds the labels from above; None leaves that open.
        where: opens the error (a file, an argument).

    Raises:
        ValueError: they are not integers in one dimension, or out of bounds.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: labels must be integers in one dimension. "
            f"Received: {labels.dtype} {labels.shape}"
        )
    top = np.iinfo(np.int64).max if classes is None else classes - 1
    wrong = np.flatnonzero((labels < 0) | (labels > top))
    if wrong.size:
        bound = "0 or more" if classes is None else f"0 to {top}"
        raise ValueError(
            f"{where}: labels must be {bound}. Received: {labels[wrong[0]]} at index {wrong[0]}"
        )
    return labels.astype(np.int64)

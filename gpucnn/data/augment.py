"""Random changes to a batch of training images, and normalisation.

Each is a small frozen record that is called as ``step(images, rng)``: images (N, H, W, C) in, new
images of the same shape and dtype out (``Normalize`` gives float32); labels are not touched. The
random numbers come from ``rng`` alone, so that a seed settles the result.

>>> augment = Compose([Shift(2), Flip(), Cutout(4)])
>>> augment(np.zeros((8, 28, 28, 1), np.uint8), np.random.default_rng(0)).shape
(8, 28, 28, 1)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..arguments import as_choice, as_int, as_number
from ..backends.numpy.augment import in_turn
from ..configured import Configured


class Augmentation(Configured, ABC):
    """The base of the steps. ``config()`` gives a JSON-able dictionary, ``from_config`` the twin.

    Example:
        >>> Shift(2).config()
        {'type': 'shift', 'max_pixels': 2, 'fill': 0}
        >>> Augmentation.from_config({"type": "shift", "max_pixels": 2})
        Shift(max_pixels=2, fill=0)
    """

    @abstractmethod
    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return ``images`` (N, H, W, C), changed.

        Raises:
            ValueError: the images are of another shape.
        """

    def in_epoch(
        self, images: np.ndarray, rng: np.random.Generator, samples: np.ndarray, epoch: int,
        seed: int,
    ) -> np.ndarray:  # fmt: skip
        """Return ``images`` changed, for those who know which they are; a ``Loader`` calls this.

        Args:
            samples: (N,), the place of each image in its split.
            epoch: counts from 0.
            seed: the loader's.
        """
        return self(images, rng)


@dataclass(frozen=True)
class Shift(Augmentation):
    """Move each image by up to ``max_pixels`` either way in each direction; ``fill`` enters.

    Every whole shift from -max_pixels to max_pixels, in rows and in columns, is equally likely.

    Args:
        max_pixels: 0 or more.
        fill: a value of the images; for uint8 a whole number from 0 to 255.
    """

    alias: ClassVar[str] = "shift"
    max_pixels: int
    fill: float = 0

    def __post_init__(self) -> None:
        _check_int(self, "max_pixels", 0)
        as_number("Shift", "fill", self.fill, least=-math.inf)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_images(self, images)
        m = self.max_pixels
        fill = _pixel(self, self.fill, images)
        padded = np.pad(images, _border(m), constant_values=fill)
        return _windows(padded, images, rng.integers(0, 2 * m + 1, (2, len(images))))


@dataclass(frozen=True)
class Crop(Augmentation):
    """Pad each image by ``padding`` pixels on all sides, and cut a window of its own size anywhere.

    Args:
        padding: 0 or more.
        mode: "reflect" mirrors the image about its edge pixels; "zero" pads with 0, as ``Shift``
            does.
    """

    alias: ClassVar[str] = "crop"
    padding: int
    mode: str = "reflect"

    def __post_init__(self) -> None:
        _check_int(self, "padding", 0)
        as_choice("Crop", "mode", self.mode, ("reflect", "zero"))

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_images(self, images)
        mode = "reflect" if self.mode == "reflect" else "constant"
        padded = np.pad(images, _border(self.padding), mode=mode)
        offsets = rng.integers(0, 2 * self.padding + 1, (2, len(images)))
        return _windows(padded, images, offsets)


@dataclass(frozen=True)
class Flip(Augmentation):
    """Mirror each image left to right with probability ``p``."""

    alias: ClassVar[str] = "flip"
    p: float = 0.5

    def __post_init__(self) -> None:
        as_number("Flip", "p", self.p, least=0, most=1)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_images(self, images)
        flipped = rng.random(len(images)) < self.p
        return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)


@dataclass(frozen=True)
class AlternatingFlip(Augmentation):
    """Mirror half of the images left to right in the first epoch, the other half in the second,
    and so on in turns: each image is seen both ways in any two epochs.

    It draws nothing: the image's place in the split and the loader's seed settle its half. Only
    what knows them can use it, a ``Loader``, a ``DeviceLoader`` or a ``Trainer``.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3.6.

    Raises:
        ValueError: it is called without the places.
    """

    alias: ClassVar[str] = "alternating_flip"

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        raise ValueError(
            "AlternatingFlip: which images are mirrored depends on their places and the epoch; give"
            " it to a Loader or a Trainer, or call in_epoch"
        )

    def in_epoch(
        self, images: np.ndarray, rng: np.random.Generator, samples: np.ndarray, epoch: int,
        seed: int,
    ) -> np.ndarray:  # fmt: skip
        _check_images(self, images)
        flipped = in_turn(samples, epoch, seed)
        return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)


@dataclass(frozen=True)
class Cutout(Augmentation):
    """Cover a square of ``size`` pixels with ``fill``, centred on a random pixel of each image.

    Part of the square may fall outside.

    Source: DeVries & Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", 2017.
    """

    alias: ClassVar[str] = "cutout"
    size: int
    fill: float = 0

    def __post_init__(self) -> None:
        _check_int(self, "size", 1)
        as_number("Cutout", "fill", self.fill, least=-math.inf)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_images(self, images)
        count, height, width, _ = images.shape
        fill = _pixel(self, self.fill, images)
        rows = self._covered(rng.integers(0, height, count), height)
        columns = self._covered(rng.integers(0, width, count), width)
        # (N, H, 1, 1) & (N, 1, W, 1) -> (N, H, W, 1)
        square = rows[:, :, None, None] & columns[:, None, :, None]
        return np.where(square, fill, images)

    def _covered(self, centre: np.ndarray, length: int) -> np.ndarray:
        """Return (N, length): does a row (or column) lie in the square about its image's centre?"""
        place = np.arange(length) - (centre[:, None] - self.size // 2)
        return (place >= 0) & (place < self.size)


@dataclass(frozen=True)
class Normalize(Augmentation):
    """(images - mean) / std in float32.

    It draws no random numbers, so ``rng`` may be left out.

    Args:
        mean: one number, or one for each channel.
        std: likewise, above 0.

    Example:
        >>> Normalize(128, 64)(np.full((1, 1, 1, 1), 160, np.uint8)).item()
        0.5
    """

    alias: ClassVar[str] = "normalize"
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = np.ravel(getattr(self, name)).tolist()
            values = tuple(as_number("Normalize", name, value, least=-math.inf) for value in values)
            object.__setattr__(self, name, values)
        if not all(std > 0 for std in self.std):
            raise ValueError(f"Normalize: std must be above 0. Received: std={self.std}")

    @classmethod
    def of(cls, images: np.ndarray) -> Normalize:
        """Return the normalisation that gives ``images`` mean 0 and deviation 1 in each channel.

        A channel that holds one value alone gets std 1. The sums are float64.

        Raises:
            ValueError: the images are not (N, H, W, C), or there are none.
        """
        images = np.asarray(images)
        if images.ndim != 4 or not images.size:
            raise ValueError(
                "Normalize.of: images must be (N, H, W, C), at least one."
                f" Received: shape {images.shape}"
            )
        # A part at a time, that float64 copies of a whole data set need not fit in memory.
        parts = [images[i : i + 1024] for i in range(0, len(images), 1024)]
        count = images.size // images.shape[-1]
        mean = sum(part.sum(axis=(0, 1, 2), dtype=np.float64) for part in parts) / count
        square = sum(np.square(part - mean).sum(axis=(0, 1, 2)) for part in parts) / count
        return cls(mean, np.where(square > 0, np.sqrt(square), 1.0))

    def __call__(self, images: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, images.shape[-1]):
                raise ValueError(
                    f"Normalize: {name} must be one number, or one for each of the "
                    f"{images.shape[-1]} channels. Received: {name}={getattr(self, name)}"
                )
        result = images.astype(np.float32)
        result -= np.float32(self.mean)
        result /= np.float32(self.std)
        return result


@dataclass(frozen=True)
class Compose(Augmentation):
    """The steps one after another."""

    alias: ClassVar[str] = "compose"
    steps: tuple[Augmentation, ...]

    def __post_init__(self) -> None:
        steps = self.steps if isinstance(self.steps, Sequence) else [None]
        if all(isinstance(step, dict) for step in steps):  # from a checkpoint
            steps = [Augmentation.from_config(step) for step in steps]
        if not all(isinstance(step, Augmentation) for step in steps):
            raise TypeError(
                f"Compose: steps must be a list of augmentations. Received: steps={self.steps!r}"
            )
        object.__setattr__(self, "steps", tuple(steps))

    def config(self) -> dict[str, Any]:
        return {"type": self.alias, "steps": [step.config() for step in self.steps]}

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for step in self.steps:
            images = step(images, rng)
        return images

    def in_epoch(
        self, images: np.ndarray, rng: np.random.Generator, samples: np.ndarray, epoch: int,
        seed: int,
    ) -> np.ndarray:  # fmt: skip
        for step in self.steps:
            images = step.in_epoch(images, rng, samples, epoch, seed)
        return images


def _check_int(step: Augmentation, name: str, minimum: int) -> None:
    value = as_int(type(step).__name__, name, getattr(step, name), minimum=minimum)
    object.__setattr__(step, name, value)


def _check_images(step: Augmentation, images: np.ndarray) -> None:
    if images.ndim != 4:
        raise ValueError(
            f"{type(step).__name__}: images must be (N, H, W, C). Received: shape {images.shape}"
        )


def _pixel(step: Augmentation, fill: float, images: np.ndarray) -> np.generic:
    """Return ``fill`` as a value of the images' dtype."""
    if images.dtype == np.uint8 and (fill != int(fill) or not 0 <= fill <= 255):
        raise ValueError(
            f"{type(step).__name__}: fill must be a whole number from 0 to 255 for uint8 images. "
            f"Received: fill={fill}"
        )
    return images.dtype.type(fill)


def _border(width: int) -> tuple[tuple[int, int], ...]:
    """Return what np.pad takes to widen the rows and the columns of (N, H, W, C)."""
    return ((0, 0), (width, width), (width, width), (0, 0))


def _windows(padded: np.ndarray, images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Cut a window (H, W) out of each padded image; offsets (2, N) are its first row and column."""
    count, height, width, _ = images.shape
    rows = offsets[0][:, None] + np.arange(height)  # (N, H)
    columns = offsets[1][:, None] + np.arange(width)  # (N, W)
    # (N, 1, 1), (N, H, 1), (N, 1, W) -> (N, H, W, C)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]

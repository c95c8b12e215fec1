"""Batches of pictures that lie on the device, all of them, and are changed at random there."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from .. import functional as F
from ..backends import as_backend
from ..backends.base import FLOATS, Array, Backend
from ..changes import Changes
from ..layers.base import as_dtype
from ..varying import varying
from .augment import AlternatingFlip, Augmentation, Compose, Crop, Cutout, Flip, Normalize, Shift
from .dataset import Split
from .loader import Loader

SHARE = 4  # of the device's free memory, a set that is kept there may take one in so many


class DeviceLoader(Loader):
    """Cut pictures that are kept on the device into batches, epoch by epoch.

    A batch is one kernel: it gathers the pictures in the order of the epoch, shifts, flips and
    covers them, normalises them in the model's dtype, and gathers their labels. Its random numbers
    are functions of (seed, epoch, place in the epoch) alone: a batch is the same, bit for bit, on
    every backend, after a resume, and in a step that is recorded. The order is ``Loader``'s; the
    random numbers are others than an ``Augmentation`` draws from NumPy's generator.

    Args:
        split: what has ``images`` (N, H, W, C) uint8 and ``labels`` (N,) integers.
        batch_size, shuffle, seed, drop_last: as for ``Loader``.
        augment: a ``Shift`` or a ``Crop``, a ``Flip`` and a ``Cutout``, or some of them, in this
            order; a ``Normalize`` may end them.
        normalize: a ``Normalize``, where ``augment`` has none.
        dtype: of the images that come out.
        backend: where the pictures are kept; by default the chosen one, else CUDA where a GPU
            answers, else NumPy.

    Raises:
        ValueError: a number is out of its range, or the split fills no batch.
        TypeError: the data or an augmentation is of a kind that the kernel does not know.

    Example:
        >>> from gpucnn.data import Split
        >>> split = Split(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10))
        >>> data = DeviceLoader(split, 4, augment=Shift(1), normalize=Normalize(0, 255))
        >>> [images.shape for images, labels in data.epoch(0)]
        [(4, 8, 8, 1), (4, 8, 8, 1), (2, 8, 8, 1)]

        A step that is recorded asks for its batch itself; what comes before is the caller's.

        >>> data.begin(0)
        >>> while data.upcoming:
        ...     images, labels = data.batch()
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        augment: Augmentation | None = None,
        normalize: Normalize | None = None,
        drop_last: bool = False,
        dtype: Any = "float32",
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__(
            split, batch_size, shuffle=shuffle, seed=seed, augment=augment, normalize=normalize,
            drop_last=drop_last, prefetch=0,
        )  # fmt: skip
        dtype = as_dtype("DeviceLoader", dtype)
        obstacle = why_not(split, augment, normalize, dtype)
        if obstacle:
            raise TypeError(f"DeviceLoader: {obstacle}")
        self.backend = as_backend(backend)
        images = np.ascontiguousarray(split.images)
        self._changes, normalize = _divided(augment, normalize)
        self._images = self.backend.asarray(images)
        self._labels = self.backend.asarray(np.asarray(split.labels, np.int64))
        self._table = self.backend.asarray(pixel_table(normalize, images.shape[3], dtype))
        self._order = self.backend.asarray(np.arange(len(split), dtype=np.int32))
        self._transfers = self.backend.transfers()
        self._pinned = self._transfers.pinned(self._order.shape, np.int32)
        self._uploaded = self._transfers.mark()
        self._epoch, self._next = 0, self._end

    @property
    def _end(self) -> int:
        return min(len(self) * self.batch_size, len(self.split))

    @property
    def upcoming(self) -> int:
        """The number of images in the next batch; 0 before ``begin`` and after the last."""
        return max(0, min(self.batch_size, self._end - self._next))

    def begin(self, epoch: int, start: int = 0) -> None:
        """Begin an epoch, or go on with it from the ``start``-th batch; not within a step.

        The order goes into the same device memory each time, where a recorded step looks for it.

        Raises:
            ValueError: there is no such epoch or batch.
        """
        self._check_epoch(epoch, start)
        self._uploaded.synchronize()  # the order before has left the pinned memory
        self._pinned[:] = self.order(epoch)
        self._uploaded = self._transfers.upload(self._pinned, self._order, self._transfers.mark())
        self._transfers.wait(self._uploaded)
        self._epoch, self._next = epoch, start * self.batch_size

    def batch(self) -> tuple[Array, Array]:
        """Return the next batch, images (n, H, W, C) and labels (n,); may be part of a step.

        A recorded step serves batches of the size that it was recorded with: see ``upcoming``.

        Raises:
            RuntimeError: the epoch is at its end.
        """
        count = self.upcoming
        if count == 0:
            raise RuntimeError("DeviceLoader: there is no batch left; call begin(epoch) first")
        place = varying(self._take_place, np.int64)
        return F.gather_batch(
            self._images, self._labels, self._order, place, count, self._table, self._changes,
            seed=self.seed, owner="DeviceLoader",
        )  # fmt: skip

    def _take_place(self) -> int:
        first, self._next = self._next, self._next + self.batch_size
        return self._epoch * 2**32 + first

    def _batches(self, epoch: int, indices: range) -> Generator[tuple[Any, Any], None, None]:
        self.begin(epoch, indices.start)
        for index in indices:
            if (self._epoch, self._next) != (epoch, index * self.batch_size):
                raise RuntimeError(
                    "DeviceLoader: there is one epoch at a time; another was begun, or a batch was"
                    f" taken, before batch {index} of epoch {epoch}"
                )
            yield self.batch()


def why_not(data: Any, augment: Any, normalize: Any, dtype: np.dtype) -> str:
    """Return what keeps data from being batched on the device, or "" where nothing does."""
    images, labels = data.images, data.labels
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        return f"images must be (N, H, W, C) uint8. Received: {images.dtype} {images.shape}"
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return f"labels must be integers (N,). Received: {labels.dtype} {labels.shape}"
    if dtype.name not in FLOATS:
        return f"dtype must be one of {', '.join(FLOATS)}. Received: {dtype.name}"
    found = _divided(augment, normalize)
    if found is None:
        return (
            "augment must be of Shift or Crop, Flip or AlternatingFlip, Cutout and Normalize, in"
            " this order and each at most once, with whole numbers from 0 to 255 to fill, and"
            " normalize a Normalize;"
            f" gpucnn.data.Loader takes others. Received: augment={augment}, normalize={normalize}"
        )
    changes, _ = found
    if changes.fill is None and changes.shift >= min(images.shape[1:3]):
        return (
            "Crop must mirror less than the images' height and width."
            f" Received: padding={changes.shift} for {images.shape[1]}x{images.shape[2]}"
        )
    return ""


def fits(data: Any, backend: Backend) -> bool:
    """Return whether data takes a small enough share of the device's free memory to stay there."""
    needed = data.images.nbytes + len(data) * (np.dtype(np.int64).itemsize + 4)
    return needed <= backend.free_memory() // SHARE


def _divided(augment: Any, normalize: Any) -> tuple[Changes, Normalize | None] | None:
    """Return what the kernel draws and the normalisation after it; None where it knows none."""
    steps = [*_steps(augment), *_steps(normalize)]
    kinds = "".join(_KINDS.get(type(step), "?") for step in steps)
    # Flip may come first: a shift either way is as likely, so no picture is more or less so.
    if not re.fullmatch("(s?f?|fs)c?n?", kinds):
        return None
    options: dict[str, Any] = {}
    for step in steps:
        if isinstance(step, Shift):
            options |= {"shift": step.max_pixels, "fill": step.fill}
        elif isinstance(step, Crop):
            options |= {"shift": step.padding, "fill": None if step.mode == "reflect" else 0}
        elif isinstance(step, AlternatingFlip):
            options["alternating"] = True
        elif isinstance(step, Flip):
            options["flip"] = float(step.p)
        elif isinstance(step, Cutout):
            options |= {"cutout": step.size, "cover": step.fill}
    for name in ("fill", "cover"):
        pixel = options.get(name)
        if pixel is not None:
            if pixel != int(pixel) or not 0 <= pixel <= 255:
                return None
            options[name] = int(pixel)
    return Changes(**options), steps[-1] if kinds.endswith("n") else None


_KINDS = {Shift: "s", Crop: "s", Flip: "f", AlternatingFlip: "f", Cutout: "c", Normalize: "n"}


def _steps(augment: Any) -> Iterator[Any]:
    if isinstance(augment, Compose):
        for step in augment.steps:
            yield from _steps(step)
    elif augment is not None:
        yield augment


def pixel_table(normalize: Normalize | None, channels: int, dtype: np.dtype) -> np.ndarray:
    """Return (256, channels): what ``normalize`` makes of each pixel value, rounded to dtype."""
    values = np.arange(256, dtype=np.uint8)[:, None]
    table = np.repeat(values, channels, axis=1)
    return (table if normalize is None else normalize(table)).astype(dtype)

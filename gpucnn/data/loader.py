"""Batches for training: shuffled, augmented and prepared ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from ..arguments import as_int
from .augment import Augmentation
from .dataset import Split

T = TypeVar("T")
# What the random numbers are for, so that no two uses of one seed draw the same ones.
SHUFFLE, AUGMENT = 0, 1


class Loader:
    """Cut a split into batches, epoch by epoch.

    Every batch is a pure function of the arguments, the epoch and its index: the same with any
    ``prefetch``, and after a resume at any batch.

    Args:
        split: what has ``images`` and ``labels``, equally many.
        batch_size: images a batch; the last of an epoch holds the rest, unless ``drop_last``.
        shuffle: a new order each epoch, which (seed, epoch) settle; else the order of the split.
        augment: called as ``augment(images, rng)`` with a NumPy generator that (seed, epoch, batch)
            settle; see ``augment.py``.
        normalize: called as ``normalize(images)`` last, such as ``Normalize.of(split.images)``.
        prefetch: batches made ahead by one thread; 0 makes each when it is asked for, without one.
        transfer: called on the images and on the labels of each batch by the thread that takes it,
            such as ``cupy.asarray``.

    Raises:
        ValueError: a number is out of its range, or the split fills no batch.
        TypeError: the split is none, or a step is no function.

    Example:
        >>> split = Split(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10))
        >>> loader = Loader(split, 4)
        >>> [len(labels) for images, labels in loader.epoch(0)]
        [4, 4, 2]
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
        normalize: Callable[[np.ndarray], np.ndarray] | None = None,
        drop_last: bool = False,
        prefetch: int = 2,
        transfer: Callable[[np.ndarray], Any] | None = None,
    ) -> None:
        owner = type(self).__name__
        if not hasattr(split, "images") or not hasattr(split, "labels"):
            raise TypeError(
                f"{owner}: split must be a gpucnn.data.Split. Received: {type(split).__name__}"
            )
        for name, step in (("augment", augment), ("normalize", normalize), ("transfer", transfer)):
            if step is not None and not callable(step):
                raise TypeError(f"{owner}: {name} must be a function. Received: {name}={step!r}")
        self.split = split
        self.batch_size = as_int(owner, "batch_size", batch_size)
        self.shuffle = shuffle
        self.seed = as_int(owner, "seed", seed, minimum=0)
        self.augment = augment
        self.normalize = normalize
        self.drop_last = drop_last
        self.prefetch = as_int(owner, "prefetch", prefetch, minimum=0)
        self.transfer = transfer
        if len(self) == 0:
            raise ValueError(
                f"{owner}: the split must fill a batch. Received: {len(split)} images, "
                f"batch_size={batch_size}, drop_last={drop_last}"
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        rest = 0 if self.drop_last else self.batch_size - 1
        return (len(self.split) + rest) // self.batch_size

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices (N,) of the images in the order in which ``epoch`` takes them."""
        if not self.shuffle:
            return np.arange(len(self.split))
        return self._rng(SHUFFLE, epoch).permutation(len(self.split))

    def epoch(self, epoch: int, start: int = 0) -> Generator[tuple[Any, Any], None, None]:
        """Yield (images, labels) of each batch from the ``start``-th on: (n, H, W, C) and (n,).

        Leaving the loop early, or closing the iterator, ends the thread. What goes wrong in the
        thread is raised here, with the traceback of the thread.
        """
        self._check_epoch(epoch, start)
        return self._batches(epoch, range(start, len(self)))

    def _check_epoch(self, epoch: int, start: int) -> None:
        if epoch < 0 or not 0 <= start <= len(self):
            raise ValueError(
                f"{type(self).__name__}: epoch must be 0 or more and start from 0 to {len(self)}. "
                f"Received: epoch={epoch}, start={start}"
            )

    def maker(self, epoch: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        """Return the function that makes the batch of an index, in whatever thread."""
        order = self.order(epoch)

        def make(index: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            images, labels = self.split.images[chosen], self.split.labels[chosen]
            rng = self._rng(AUGMENT, epoch, index)
            if isinstance(self.augment, Augmentation):
                images = self.augment.in_epoch(images, rng, chosen, epoch, self.seed)
            elif self.augment is not None:
                images = self.augment(images, rng)
            if self.normalize is not None:
                images = self.normalize(images)
            return images, labels

        return make

    def _batches(self, epoch: int, indices: range) -> Generator[tuple[Any, Any], None, None]:
        with closing(ahead(self.maker(epoch), indices, self.prefetch)) as batches:
            for images, labels in batches:
                if self.transfer is None:
                    yield images, labels
                else:
                    yield self.transfer(images), self.transfer(labels)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


def ahead(make: Callable[[int], T], indices: Sequence[int], depth: int) -> Generator[T, None, None]:
    """Yield ``make(i)`` for each index, in order, made by one thread up to ``depth`` ahead.

    The thread ends with the iterator, however that ends. What ``make`` raises is raised here.
    A depth of 0 makes each when it is asked for, with no thread.
    """
    if depth == 0:
        yield from map(make, indices)
        return
    made: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    closed = threading.Event()

    def work() -> None:
        for index in indices:
            room.acquire()
            if closed.is_set():
                return
            try:
                made.put((make(index), None))
            except BaseException as error:  # it is the consumer's to judge
                made.put((None, error))
                return

    # A daemon, so that an iterator nobody closed does not keep the program from ending.
    thread = threading.Thread(target=work, name="gpucnn-loader", daemon=True)
    thread.start()
    try:
        for _ in indices:
            item, error = made.get()
            if error is not None:
                raise error
            room.release()
            yield item
    finally:
        closed.set()
        room.release()
        thread.join()

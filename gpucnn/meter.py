"""The means of a loss and of metrics over an epoch, read without waiting for the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from . import functional as F
from .backends.base import Array, Backend
from .backends.transfers import Mark
from .varying import varying

STEPS = 2048  # whose values the ring holds; half of it is read at once, however quick they are


class Meter:
    """Means of values that every step leaves on the device.

    A step writes its values into a row of a ring there. From time to time the ring is copied to
    page-locked memory, behind the steps so far, and read once it has come; ``read`` alone waits.

    Args:
        names: of the values, the loss first.
        backend: where the steps run.
        steps: rows of the ring.

    Example:
        >>> from gpucnn.backends import get_backend
        >>> meter = Meter(["loss"], get_backend("numpy"))
        >>> meter.begin("epoch 1")
        >>> meter.add(3, [np.array(1.0)])
        >>> meter.add(1, [np.array(5.0)])
        >>> meter.read()
        {'loss': 2.0}
    """

    def __init__(self, names: Iterable[str], backend: Backend, steps: int = STEPS) -> None:
        self.names = tuple(names)
        self._ring = backend.xp.zeros((steps, len(self.names)), np.float64)
        self._transfers = backend.transfers()
        self._pinned = self._transfers.pinned(self._ring.shape, np.float64)
        self._step = 0  # of the next values
        self.begin("")

    def begin(self, where: str) -> None:
        """Forget all values; ``where`` opens the error about a loss that is not finite."""
        self.where = where
        self.totals = dict.fromkeys(self.names, 0.0)
        self.samples = 0
        self.batches = 0
        self._first = self._step  # of those that are not read yet
        self._counts: deque[int] = deque()  # their samples
        self._asked = 0  # so many of them are on their way
        self._arrival: Mark | None = None

    def add(self, samples: int, values: Sequence[Array]) -> None:
        """Take the values of a batch, 0-d arrays that are means over so many samples."""
        self.write(values)
        self.count(samples)

    def write(self, values: Sequence[Array]) -> None:
        """Write a step's values into its row: the part of ``add`` that a recorded step repeats."""
        F.collect(values, self._ring, varying(self._next_row, np.int64))

    def count(self, samples: int) -> None:
        """Count a step whose values are written: the part of ``add`` that follows every step."""
        self._counts.append(samples)
        if len(self._counts) - self._asked >= len(self._pinned) // 2:
            self._ask()

    def glance(self) -> dict[str, float]:
        """Return the means up to where the ``glance`` before was, and ask for what is new since.

        Nothing waits: they are as of one glance earlier where the values are not there yet, and
        empty in the beginning.

        Raises:
            FloatingPointError: a loss is NaN or infinite; the text names its batch.
        """
        if self._arrival is None or self._arrival.done:
            self._ask()
        return self._means()

    def read(self) -> dict[str, float]:
        """Return the means of all values so far; waits for the device.

        Raises:
            FloatingPointError: a loss is NaN or infinite; the text names its batch.
        """
        self._ask()
        self._take()
        return self._means()

    def _next_row(self) -> int:
        row, self._step = self._step % len(self._pinned), self._step + 1
        return row

    def _ask(self) -> None:
        """Start a copy of the ring, once that before has been read: there is one at a time.

        It is done in the order of the steps, so that none overwrites a row before it has left.
        """
        self._take()
        if self._counts:
            self._asked = len(self._counts)
            self._arrival = self._transfers.download(self._ring, self._pinned)

    def _take(self) -> None:
        """Add up the values that were asked for."""
        if self._arrival is None:
            return
        self._arrival.synchronize()
        rows = np.arange(self._first, self._first + self._asked) % len(self._pinned)
        counts = [self._counts.popleft() for _ in rows]
        columns = self._pinned[rows].T.tolist()
        self._first, self._asked, self._arrival = self._first + self._asked, 0, None
        for name, numbers in zip(self.names, columns, strict=True):
            if name == "loss":
                self._check(numbers)
            for count, number in zip(counts, numbers, strict=True):
                self.totals[name] += count * number
        self.samples += sum(counts)
        self.batches += len(counts)

    def _means(self) -> dict[str, float]:
        if not self.samples:
            return {}
        return {name: total / self.samples for name, total in self.totals.items()}

    def _check(self, losses: list[float]) -> None:
        for batch, loss in enumerate(losses, self.batches + 1):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"{self.where}, batch {batch}: the loss is {loss}. Try a smaller learning rate,"
                    " clip_norm on the optimizer, or normalised inputs; checkpoints on disk are"
                    " as they were"
                )

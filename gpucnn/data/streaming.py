"""Batches that a loader makes on the host, on the device before the step asks for them.

The loader's thread fills page-locked buffers, one of several in turn, and a stream of copies
carries each to a device buffer of its own while the steps before it compute. A step finds every
batch in the same two arrays, so that it can be recorded: one copy within the device takes it there,
and with that the buffer is free for the next batch. (To let the step read the buffers in turn would
save that copy, and cost a recording, with its memory, for each of them.)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

import numpy as np

from ..backends.base import Array, Backend
from ..backends.transfers import Mark, Transfers
from .device_loader import DeviceLoader
from .loader import Loader, ahead

Pair = tuple[np.ndarray, np.ndarray]


def streamed(loader: Loader, backend: Backend) -> Loader | StreamedLoader:
    """Return what gives a loader's batches to a backend: on NumPy the loader does so itself."""
    there = backend.name == "numpy" or isinstance(loader, DeviceLoader)
    return loader if there or loader.transfer is not None else StreamedLoader(loader, backend)


class StreamedLoader:
    """The batches of a ``Loader``, copied to the device ahead of the computation.

    Args:
        loader: makes them; its ``prefetch`` is how many are on their way at once.
        backend: where they go. Its stream of copies belongs to the device that is current now.

    Example:
        >>> from gpucnn.backends import get_backend
        >>> from gpucnn.data import Split
        >>> loader = Loader(Split(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10)), 4)
        >>> data = StreamedLoader(loader, get_backend("numpy"))
        >>> [images.shape for images, labels in data.epoch(0)]
        [(4, 8, 8, 1), (4, 8, 8, 1), (2, 8, 8, 1)]
    """

    def __init__(self, loader: Loader, backend: Backend) -> None:
        self.loader, self.backend = loader, backend
        self._transfers = backend.transfers()
        self._arrays: tuple[Array, Array] | None = None
        self._slots: list[_Slot] = []

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Generator[tuple[Array, Array], None, None]:
        """Yield (images, labels) of each batch from the ``start``-th on, in the same memory.

        A batch must have been used, by work that is queued, when the next one is asked for. One
        whose images or labels have another shape or dtype than the first's comes in new arrays.
        """
        self.loader._check_epoch(epoch, start)
        return self._batches(epoch, range(start, len(self.loader)))

    def _batches(self, epoch: int, indices: range) -> Generator[tuple[Array, Array], None, None]:
        make, depth = self.loader.maker(epoch), self.loader.prefetch
        if self._arrays is None and indices:
            self._allocate(make(indices[0]), depth + 1)

        def send(index: int) -> _Slot | Pair:
            batch = make(index)
            # depth + 1 of them: the one that is received now, and those made ahead of it
            slot = self._slots[index % len(self._slots)]
            return slot.send(batch) if slot.holds(batch) else batch

        try:
            with closing(ahead(send, indices, depth)) as sent:
                for item in sent:
                    if isinstance(item, _Slot):
                        yield item.receive(self._arrays)
                    else:
                        yield tuple(map(self.backend.asarray, item))
        finally:
            for slot in self._slots:  # what nobody received is still on its way
                slot.sent.synchronize()

    def _allocate(self, batch: Pair, count: int) -> None:
        """Make all buffers at once, here where the computation's memory is shared out.

        A batch is made for its shape alone, and made again when its turn comes.
        """
        shapes = [(self.loader.batch_size, *array.shape[1:]) for array in batch]
        dtypes = [array.dtype for array in batch]

        def arrays() -> tuple[Array, Array]:
            return tuple(map(self.backend.xp.empty, shapes, dtypes))

        self._arrays = arrays()
        transfers = self._transfers
        for _ in range(count):
            pinned = tuple(map(transfers.pinned, shapes, dtypes))
            self._slots.append(_Slot(transfers, pinned, arrays()))


class _Slot:
    """Buffers for one batch on its way: on the host, and on the device."""

    def __init__(self, transfers: Transfers, pinned: Pair, device: tuple[Array, Array]) -> None:
        self.transfers, self.pinned, self.device = transfers, pinned, device
        # The memory may have been another array's until now: its work comes first.
        self.received: Mark = transfers.mark()
        self.sent: Mark = self.received
        self.count = 0

    def holds(self, batch: Sequence[np.ndarray]) -> bool:
        return all(
            array.dtype == buffer.dtype
            and array.shape[1:] == buffer.shape[1:]
            and len(array) <= len(buffer)
            for array, buffer in zip(batch, self.pinned, strict=True)
        )

    def send(self, batch: Pair) -> _Slot:
        """Start the copy of a batch to the device; in the loader's thread."""
        self.sent.synchronize()  # the batch before has left the pinned memory
        self.count = len(batch[0])
        for array, pinned, device in zip(batch, self.pinned, self.device, strict=True):
            pinned[: self.count] = array
            self.sent = self.transfers.upload(
                pinned[: self.count], device[: self.count], after=self.received
            )
        return self

    def receive(self, arrays: tuple[Array, Array]) -> tuple[Array, Array]:
        """Let the computation copy the batch into ``arrays`` once it is there; return its part."""
        self.transfers.wait(self.sent)
        batch = tuple(array[: self.count] for array in arrays)
        for target, device in zip(batch, self.device, strict=True):
            target[...] = device[: self.count]
        self.received = self.transfers.mark()
        return batch

"""Batches that a loader makes on the host, on the device before the step asks for them.

The loader's thread fills page-locked buffers, one of several in turn, and a stream of copies
carries each to a device buffer of its own while the steps before it compute. The step reads that
buffer. One that is recorded reads its input at one address, so that its first piece of work is to
copy the batch there (``gpucnn.step``): to record it for each of the buffers instead would save that
copy, and cost as many graphs, with their memory.
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
        self._slots: list[_Slot] = []

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Generator[tuple[Array, Array], None, None]:
        """Yield (images, labels) of each batch from the ``start``-th on.

        They hold until the next one is asked for: by then all work on them must be queued. One
        whose images or labels have another shape or dtype than the first's comes in new arrays.
        """
        self.loader._check_epoch(epoch, start)
        return self._batches(epoch, range(start, len(self.loader)))

    def _batches(self, epoch: int, indices: range) -> Generator[tuple[Array, Array], None, None]:
        make, depth = self.loader.maker(epoch), self.loader.prefetch
        if not self._slots and indices:
            # Here, where the computation's memory is shared out; what is made for its shape alone
            # is made again when its turn comes. One slot is read, the others are filled meanwhile.
            self._slots = [self._slot(make(indices[0])) for _ in range(depth + 1)]

        def send(index: int) -> _Slot | Pair:
            batch = make(index)
            slot = self._slots[index % len(self._slots)]
            return slot.send(batch) if slot.holds(batch) else batch

        try:
            with closing(ahead(send, indices, depth)) as sent:
                for item in sent:
                    if isinstance(item, _Slot):
                        yield item.receive()
                        item.leave()
                    else:
                        yield tuple(map(self.backend.asarray, item))
        finally:
            for slot in self._slots:
                slot.leave()
                slot.sent.synchronize()  # what nobody received is still on its way

    def _slot(self, batch: Pair) -> _Slot:
        shapes = [(self.loader.batch_size, *array.shape[1:]) for array in batch]
        dtypes = [array.dtype for array in batch]
        pinned = tuple(map(self._transfers.pinned, shapes, dtypes))
        return _Slot(self._transfers, pinned, tuple(map(self.backend.xp.empty, shapes, dtypes)))


class _Slot:
    """Buffers for one batch on its way: on the host, and on the device."""

    def __init__(self, transfers: Transfers, pinned: Pair, device: tuple[Array, Array]) -> None:
        self.transfers, self.pinned, self.device = transfers, pinned, device
        self.leave()  # the memory may have been another array's until now: its work comes first
        self.sent: Mark = self.left
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
                pinned[: self.count], device[: self.count], after=self.left
            )
        return self

    def receive(self) -> tuple[Array, Array]:
        """Let the computation wait for the batch, and return it."""
        self.transfers.wait(self.sent)
        return tuple(device[: self.count] for device in self.device)

    def leave(self) -> None:
        """Say that the computation so far is all that reads the batch."""
        self.left: Mark = self.transfers.mark()

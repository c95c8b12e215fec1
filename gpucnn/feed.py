"""Where a trainer's batches come from: made on the device, or on the host and sent there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np

from .backends.base import Array, Backend
from .data import DeviceLoader, Loader, Split
from .data.device_loader import fits, why_not
from .data.streaming import streamed
from .samples import Samples
from .tracing import traced


class Feed:
    """The batches of a loader, on a backend.

    Attributes:
        loader: makes them.
        source: the loader, or what sends its batches ahead to the device.
    """

    def __init__(self, loader: Loader, backend: Backend) -> None:
        self.loader, self.backend = loader, backend
        self.source = streamed(loader, backend)

    @classmethod
    def of(
        cls, data: Split | Samples | Loader, batch_size: int, dtype: np.dtype, backend: Backend,
        *, normalize: Any, augment: Any = None, prefetch: int = 2, **options: Any,
    ) -> Feed:  # fmt: skip
        """Return the feed of a loader, or of data by the loader that suits it and the backend.

        Args:
            dtype: the model's.
            normalize, augment, prefetch, options: as for ``Loader``.
        """
        if isinstance(data, Loader):
            return cls(data, backend)
        options |= {"normalize": normalize, "augment": augment}
        kept = backend.name == "cuda" and not why_not(data, augment, normalize, dtype)
        if kept and fits(data, backend):
            loader = DeviceLoader(data, batch_size, dtype=dtype, backend=backend, **options)
        else:
            loader = Loader(data, batch_size, prefetch=prefetch, **options)
        return cls(loader, backend)

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int) -> Generator[tuple[int, tuple[Array, ...]], None, None]:
        """Yield the size of each batch of an epoch (from 0), and its images and labels.

        Those of a DeviceLoader the step asks for itself.
        """
        if isinstance(self.loader, DeviceLoader) and self.loader.backend is self.backend:
            self.loader.begin(epoch)
            while self.loader.upcoming:
                yield self.loader.upcoming, ()
            return
        with closing(self.source.epoch(epoch)) as batches:
            while True:
                batch = traced(None, "data wait", next, batches, None)
                if batch is None:
                    return
                yield len(batch[0]), tuple(map(self.backend.asarray, batch))

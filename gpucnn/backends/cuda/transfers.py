"""Copies between host and GPU on a stream of their own, with CuPy's streams and events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from ..transfers import Mark, Transfers


class CupyTransfers(Transfers):
    """The transfers of the device that is current now.

    Args:
        cupy: the module, of which ``cuda`` alone is used.
    """

    def __init__(self, cupy: ModuleType) -> None:
        self.cuda = cupy.cuda
        self.device = cupy.cuda.Device()

    @cached_property
    def stream(self) -> Any:
        """The stream of copies."""
        # CuPy computes on the null stream, which others wait for unless they are non-blocking
        return self.cuda.Stream(non_blocking=True)

    def pinned(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        dtype, count = np.dtype(dtype), math.prod(shape)
        memory = self.cuda.alloc_pinned_memory(count * dtype.itemsize)
        # frombuffer knows NumPy's own dtypes alone, not bfloat16
        flat = np.frombuffer(memory, np.uint8, count * dtype.itemsize)
        return flat.view(dtype).reshape(shape)

    def mark(self) -> Mark:
        return self._mark(self.cuda.get_current_stream())

    def wait(self, mark: Mark) -> None:
        self.cuda.get_current_stream().wait_event(mark)

    def upload(self, host: np.ndarray, device: Any, after: Mark) -> Mark:
        with self.device:  # a thread begins on device 0
            self.stream.wait_event(after)
            device.data.copy_from_host_async(host.ctypes.data, host.nbytes, self.stream)
            return self._mark(self.stream)

    def download(self, device: Any, host: np.ndarray) -> Mark:
        stream = self.cuda.get_current_stream()
        device.data.copy_to_host_async(host.ctypes.data, host.nbytes, stream)
        return self._mark(stream)

    def _mark(self, stream: Any) -> Mark:
        # block: whoever waits sleeps, and leaves the core to those who make batches
        event = self.cuda.Event(block=True, disable_timing=True)
        event.record(stream)
        return event

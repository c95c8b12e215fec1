"""A device whose streams run as late, and in as unlucky an order, as CUDA allows.

The few parts of CuPy that ``CupyTransfers`` and ``StreamedLoader`` use, on host memory. Work is
queued and done when somebody waits for it, or now and then, by a seeded choice among the streams
whose next piece may run. A copy reads its source when it is done: an order that is not asked for by
an event shows as wrong numbers.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np


class Event:
    def __init__(self, gpu: SimulatedDevice) -> None:
        self.gpu, self.done = gpu, False

    def record(self, stream: Stream) -> None:
        stream.queue(lambda: setattr(self, "done", True))

    def synchronize(self) -> None:
        self.gpu.run_until(lambda: self.done)


class Stream:
    def __init__(self, gpu: SimulatedDevice) -> None:
        self.gpu, self.work = gpu, deque()
        with gpu.lock:
            gpu.streams.append(self)

    def queue(self, piece: Callable[[], Any], ready: Callable[[], bool] = lambda: True) -> None:
        with self.gpu.lock:
            self.work.append((ready, piece))
            if self.gpu.rng.random() < 0.3:
                self.gpu.run_one()

    def wait_event(self, event: Event) -> None:
        self.queue(lambda: None, lambda: event.done)


class Array:
    """Memory of the device; a copy into it is work of the stream that computes."""

    def __init__(self, gpu: SimulatedDevice, memory: np.ndarray) -> None:
        self.gpu, self.memory = gpu, memory
        self.shape, self.dtype, self.data = memory.shape, memory.dtype, self

    def __getitem__(self, part: slice) -> Array:
        return Array(self.gpu, self.memory[part])

    def __setitem__(self, everything: Any, other: Array) -> None:
        self.gpu.computing.queue(lambda: np.copyto(self.memory, other.memory))

    def copy_from_host_async(self, address: int, size: int, stream: Stream) -> None:
        assert size == self.memory.nbytes
        host = np.frombuffer((ctypes.c_char * size).from_address(address), self.dtype)
        stream.queue(lambda: np.copyto(self.memory, host.reshape(self.shape)))

    def copy_to_host_async(self, address: int, size: int, stream: Stream) -> None:
        assert size == self.memory.nbytes
        host = np.frombuffer((ctypes.c_char * size).from_address(address), self.dtype)
        stream.queue(lambda: np.copyto(host.reshape(self.shape), self.memory))


class SimulatedDevice:
    """Stands for the module ``cupy``, and for its ``cuda``."""

    def __init__(self, seed: int) -> None:
        self.rng, self.lock = np.random.default_rng(seed), threading.RLock()
        self.streams: list[Stream] = []
        self.computing = Stream(self)
        self.cuda = self

    def run_one(self) -> bool:
        ready = [s for s in self.streams if s.work and s.work[0][0]()]
        if ready:
            ready[self.rng.integers(len(ready))].work.popleft()[1]()
        return bool(ready)

    def run_until(self, reached: Callable[[], bool]) -> None:
        with self.lock:
            while not reached():
                assert self.run_one(), "everything waits for something"

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return Array(self, np.full(shape, 111, dtype))

    # ---- cupy.cuda -------------------------------------------------------------------------------

    def Device(self) -> Any:
        return threading.RLock()  # a context

    def Stream(self, non_blocking: bool) -> Stream:
        assert non_blocking
        return Stream(self)

    def Event(self, block: bool, disable_timing: bool) -> Event:
        return Event(self)

    def get_current_stream(self) -> Stream:
        return self.computing

    def alloc_pinned_memory(self, size: int) -> bytearray:
        return bytearray(size + 8)

"""Time a candidate: captured in a CUDA graph, over buffers that rotate past the cache.

A pass calls a candidate once on each of several copies of its inputs, together larger than the
cache, so that no call finds its inputs there. Captured in a graph it costs the host one launch.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol

from ...base import Array

Inputs = tuple[Array, ...]
Call = Callable[[], Any]

MOST_COPIES = 256
TIMES_CACHE = 2.5  # a pass's buffers over the L2 cache
SECONDS = 0.1  # of timing a candidate
SAMPLES = 30
FEWEST_SAMPLES = 5  # of passes so slow that SAMPLES of them do not fit into SECONDS


class Timer(Protocol):
    """Times candidates: on a GPU ``GraphTimer``, in tests by a fake clock."""

    def inputs(self, draw: Callable[[], Inputs], size: int) -> AbstractContextManager[list[Inputs]]:
        """Return so many drawn inputs of a problem of ``size`` bytes as time() is to rotate."""
        ...

    def time(self, calls: Sequence[Call]) -> float:
        """Return the microseconds of one of these calls, each on inputs of its own."""
        ...


def copies(bytes_of_one: int, cache: int, free: int) -> int:
    """Return how many copies of a problem to rotate through, within a quarter of free memory.

    >>> copies(2**20, 60 * 2**20, 2**37), copies(2**31, 60 * 2**20, 2**37), copies(2**36, 1, 2**37)
    (150, 2, 1)
    """
    wanted = max(2, min(MOST_COPIES, -(-int(TIMES_CACHE * cache) // max(1, bytes_of_one))))
    return max(1, min(wanted, free // 4 // max(1, bytes_of_one)))


def capture(stream: Any, calls: Sequence[Call]) -> tuple[Callable[[], None], Any]:
    """Capture calls on CuPy arrays as a graph, with ``stream`` as the current one.

    Returns:
        What launches the graph, and what it needs kept alive: itself and the calls' results.
    """
    kept = [call() for call in calls]  # kernels are loaded and the memory pool grows before
    stream.synchronize()
    del kept
    stream.begin_capture()
    try:
        kept = [call() for call in calls]
    finally:
        graph = stream.end_capture()
    return partial(graph.launch, stream), (graph, kept)


class GraphTimer:
    """Times on a stream of its own of the current device, by the median of many passes."""

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        self.stream = cupy.cuda.Stream(non_blocking=True)

    @contextmanager
    def inputs(self, draw: Callable[[], Inputs], size: int) -> Iterator[list[Inputs]]:
        """Draw them in memory of their own, which is given back at the end."""
        cuda = self.cupy.cuda
        device = cuda.Device()
        self.cupy.get_default_memory_pool().free_all_blocks()
        count = copies(size, device.attributes["L2CacheSize"], device.mem_info[0])
        with cuda.using_allocator(cuda.MemoryPool().malloc):
            yield [draw() for _ in range(count)]

    def time(self, calls: Sequence[Call]) -> float:
        self.cupy.cuda.Device().synchronize()  # the inputs were drawn on another stream
        with self.stream:
            launch, _kept = capture(self.stream, calls)
            slowest = max(self._milliseconds(launch, 3))
            rounds = round(1e3 * SECONDS / max(slowest, 1e-6))
            samples = self._milliseconds(launch, max(FEWEST_SAMPLES, min(SAMPLES, rounds)))
        return 1e3 * statistics.median(samples) / len(calls)

    def _milliseconds(self, launch: Callable[[], None], rounds: int) -> list[float]:
        cuda, events = self.cupy.cuda, []
        for _ in range(rounds):
            start = self.stream.record(cuda.Event())
            launch()
            events.append((start, self.stream.record(cuda.Event())))
        self.stream.synchronize()
        return [cuda.get_elapsed_time(*pair) for pair in events]

"""Time two sides against each other: in CUDA graphs, over rotating buffers, in turn.

A side is one pass over several copies of a problem, together larger than the cache, so that no call
finds its inputs there. Captured in a graph, a pass costs the host one launch. The sides are
replayed in turn, so that a drift of the clocks meets both, and timed by events on one stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gpucnn.backends.cuda.tuning.timing import capture

SAMPLES = 30
FEWEST_SAMPLES = 5  # of passes so slow that SAMPLES of them do not fit a row's time


@dataclass
class Side:
    """One pass over all copies, ready to be launched again and again.

    Attributes:
        launch: starts a pass.
        calls: operations in a pass.
        how: "graph", "loop" where the capture failed, or "host" for a host clock.
        wait: waits for the pass.
        why: what made the capture fail.
        kept: what the pass reads and writes, kept alive.
    """

    launch: Callable[[], Any]
    calls: int
    how: str
    wait: Callable[[], Any]
    why: str = ""
    kept: Any = None


@dataclass(frozen=True)
class Spread:
    """Median and interquartile range of the microseconds of one call, and how many samples."""

    median: float
    iqr: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """
        >>> Spread.of([1.0, 2.0, 3.0, 4.0, 100.0])
        Spread(median=3.0, iqr=2.0, samples=5)
        """
        low, median, high = (float(q) for q in np.quantile(samples, (0.25, 0.5, 0.75)))
        return cls(median, high - low, len(samples))


def rounds_within(seconds: float, of_one: float) -> int:
    """Return how many rounds to take, SAMPLES if they fit.

    >>> rounds_within(2.0, 0.01), rounds_within(2.0, 0.2), rounds_within(2.0, 3.0)
    (30, 10, 5)
    """
    return max(FEWEST_SAMPLES, min(SAMPLES, round(seconds / max(of_one, 1e-9))))


def loop(calls: Sequence[Callable[[], Any]], wait: Callable[[], Any], why: str = "") -> Side:
    """A side that launches call by call; it keeps no results."""

    def launch() -> None:
        for call in calls:
            call()

    return Side(launch, len(calls), "loop", wait, why)


def on_the_host(
    sides: Sequence[Side], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> list[Spread]:
    """Time sides by a host clock, in turn, each pass waited for."""

    def timed(side: Side) -> float:
        start = clock()
        side.launch()
        side.wait()
        return clock() - start

    for side in sides:
        timed(side)  # what is done once is done here
    rounds = rounds_within(seconds, sum(map(timed, sides)))
    table = [[timed(side) * 1e6 / side.calls for side in sides] for _ in range(rounds)]
    return [Spread.of(column) for column in zip(*table, strict=True)]


class HostTimer:
    """Times call by call with the host's clock: what a machine without a GPU can do."""

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()

    def ours(self, calls: Sequence[Callable[[], Any]]) -> Side:
        return loop(calls, lambda: None)

    peer = ours

    def compare(self, sides: Sequence[Side], seconds: float) -> list[Spread]:
        return on_the_host(sides, seconds)


class CudaTimer:
    """Captures and times on one non-blocking stream, which CuPy and PyTorch share."""

    def __init__(self) -> None:
        import cupy
        import torch

        self.cupy, self.torch = cupy, torch
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.shared = torch.cuda.ExternalStream(self.stream.ptr)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the stream the current one of both libraries."""
        with self.stream, self.torch.cuda.stream(self.shared):
            yield

    def ours(self, calls: Sequence[Callable[[], Any]]) -> Side:
        """Capture calls on CuPy arrays, as the tuner does."""
        try:
            launch, kept = capture(self.stream, calls)
        except Exception as error:
            return loop(calls, self.stream.synchronize, _why(error))
        return Side(launch, len(calls), "graph", self.stream.synchronize, kept=(calls, kept))

    def peer(self, calls: Sequence[Callable[[], Any]]) -> Side:
        """Capture calls on PyTorch's tensors, after a pass in which cuDNN chooses its kernels."""
        torch = self.torch
        for call in calls[:3]:
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="relaxed"):
                kept = [call() for call in calls]
        except Exception as error:
            torch.cuda.synchronize()
            return loop(calls, self.stream.synchronize, _why(error))
        kept = calls, graph, kept
        return Side(graph.replay, len(calls), "graph", self.stream.synchronize, kept=kept)

    def compare(self, sides: Sequence[Side], seconds: float) -> list[Spread]:
        """Replay the sides in turn, ``SAMPLES`` times or as often as fits ``seconds``."""
        warm = self._table(sides, 2)
        rounds = rounds_within(seconds, sum(warm[-1]) / 1e3)
        table = self._table(sides, rounds)
        return [
            Spread.of([1e3 * milliseconds / side.calls for milliseconds in column])
            for side, column in zip(sides, zip(*table, strict=True), strict=True)
        ]

    def _table(self, sides: Sequence[Side], rounds: int) -> list[list[float]]:
        """Return the milliseconds of each side's pass in each round."""
        events = []
        for _ in range(rounds):
            row = [self.stream.record(self.cupy.cuda.Event())]
            for side in sides:
                side.launch()
                row.append(self.stream.record(self.cupy.cuda.Event()))
            events.append(row)
        self.stream.synchronize()
        elapsed = self.cupy.cuda.get_elapsed_time
        return [[elapsed(a, b) for a, b in pairwise(row)] for row in events]


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]

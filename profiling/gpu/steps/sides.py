"""A side: a step that is made again and again, and how sides are timed in turn.

Every side gets the same stretch of time in a round, some tens of steps, between two events on the
stream that all sides work on; before and after the host waits. So a side whose host is late shows
that in its time, and none can begin while another still runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..timing import Spread, rounds_within

TURN_SECONDS = 0.05  # of one side in one round
MOST_STEPS = 2000


@dataclass
class Side:
    """One library's way to make a case's steps.

    Attributes:
        name: a peer's, or "recorded".
        step: makes the next step, on one batch after another, and returns what it found out.
        read: brings that to the host, as float64: the loss, or the answers.
        wait: waits for the steps that were started.
        way: what is of interest in how it does it.
        memory: returns the bytes that it holds on the device, or None.
        columns: returns what else a row is to say of it, when the times are taken.
    """

    name: str
    step: Callable[[], Any]
    read: Callable[[Any], np.ndarray]
    wait: Callable[[], Any]
    way: str = ""
    memory: Callable[[], int | None] = lambda: None
    columns: Callable[[], dict[str, Any]] = dict


Clock = Callable[[Side, int], float]  # seconds of so many steps


def host_clock(side: Side, steps: int) -> float:
    side.wait()
    start = time.perf_counter()
    for _ in range(steps):
        side.step()
    side.wait()
    return time.perf_counter() - start


class EventClock:
    """Times by events on one stream, which is CuPy's and PyTorch's current one in ``current``."""

    def __init__(self) -> None:
        import cupy
        import torch

        self.torch, self.stream = torch, torch.cuda.Stream()
        self.same = cupy.cuda.ExternalStream(self.stream.cuda_stream)

    @contextmanager
    def current(self) -> Iterator[None]:
        with self.torch.cuda.stream(self.stream), self.same:
            yield

    def __call__(self, side: Side, steps: int) -> float:
        first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        side.wait()
        first.record(self.stream)
        for _ in range(steps):
            side.step()
        last.record(self.stream)
        last.synchronize()
        side.wait()
        return first.elapsed_time(last) / 1e3


@dataclass(frozen=True)
class Machine:
    """Where sides run.

    Attributes:
        backend: gpucnn's.
        device: PyTorch's name of where tensors lie, "cuda" or "cpu".
        clock: times a side.
        current: returns a context for everything that is started.
        compiler: torch.compile's backend, in tests "eager".
    """

    backend: Any
    device: str
    clock: Clock = host_clock
    current: Callable[[], AbstractContextManager[Any]] = nullcontext
    compiler: str = "inductor"


def in_turn(sides: Sequence[Side], seconds: float, clock: Clock) -> list[Spread]:
    """Return the microseconds of a step of each side, over rounds in which all have a turn."""
    steps = []
    for side in sides:
        clock(side, 2)
        one = clock(side, 3) / 3
        steps.append(max(1, min(MOST_STEPS, round(TURN_SECONDS / max(one, 1e-9)))))
    first = [clock(side, count) for side, count in zip(sides, steps, strict=True)]
    rounds = rounds_within(seconds, sum(first))
    table = [
        [clock(side, count) * 1e6 / count for side, count in zip(sides, steps, strict=True)]
        for _ in range(rounds)
    ]
    return [Spread.of(column) for column in zip(*table, strict=True)]

"""Clocks that do not hold up what they time: marks are set now and read when all is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

from ..backends.base import Backend


class Clock(Protocol):
    """Sets marks, and says the time between two of them after ``finish``."""

    def mark(self) -> Any: ...

    def finish(self) -> None: ...

    def microseconds(self, start: Any, end: Any) -> float: ...


class HostClock:
    """Marks are times of day: right where a call has done its work when it returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def finish(self) -> None:
        pass

    def microseconds(self, start: float, end: float) -> float:
        return 1e6 * (end - start)


class EventClock:
    """Marks are CUDA events, recorded on the current stream; nothing waits for them until the end.

    Args:
        cuda: CuPy's module of that name.
    """

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda

    def mark(self) -> Any:
        event = self.cuda.Event()
        event.record()
        return event

    def finish(self) -> None:
        self.cuda.Device().synchronize()

    def microseconds(self, start: Any, end: Any) -> float:
        return 1e3 * self.cuda.get_elapsed_time(start, end)  # which are milliseconds


def clock_of(backend: Backend) -> Clock:
    """Return events where the arrays lie on a GPU; the CUDA backend of the tests has NumPy's."""
    return EventClock(backend.xp.cuda) if hasattr(backend.xp, "cuda") else HostClock()


def least_microseconds(clock: Clock, call: Callable[[], Any], times: int = 7) -> float:
    """Return the time of the quickest of some calls, after one to warm up."""
    call()
    marks = [clock.mark()]
    for _ in range(times):
        call()
        marks.append(clock.mark())
    clock.finish()
    return min(clock.microseconds(*pair) for pair in pairwise(marks))

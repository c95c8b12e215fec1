"""Observers of a step (see ``gpucnn.tracing``): what each range did, and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from ..network import Network
from .clocks import Clock
from .floors import Work
from .work import Extent, arrays_of, backward_work, forward_work

Key = tuple[Any, str]  # a layer or stage, or None; and what it did


class Survey:
    """Notes what each layer does: the work of its calls, and the shape of its output."""

    def __init__(self) -> None:
        self.work: dict[Key, Work] = defaultdict(Work)
        self.shapes: dict[Any, tuple[int, ...]] = {}
        self._extents: dict[Any, Extent] = {}

    def __call__(
        self, subject: Any, what: str, function: Callable[..., Any], arguments: tuple
    ) -> Any:
        given = list(arrays_of(arguments))  # a stage may let go of some
        result = function(*arguments)
        if what == "forward":
            first = result[0] if isinstance(result, list) else result
            self.shapes[subject] = tuple(first.shape)
        if subject is None or isinstance(subject, Network):
            return result
        if what == "forward":
            self._extents[subject] = extent = Extent.of(subject, arguments[0])
            self.work[subject, what] += forward_work(subject, extent, function, arguments, result)
        else:
            extent = self._extents[subject]
            self.work[subject, what] += backward_work(subject, extent, given, result)
        return result


class Span(NamedTuple):
    """A range of a step in microseconds; ``depth`` is the number of ranges around it."""

    subject: Any
    what: str
    depth: int
    start: float
    end: float


class Recorder:
    """Notes when each range begins and ends; nothing waits for it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._depth = 0
        self._steps: list[list[Any]] = []

    def step(self, run: Callable[[], Any]) -> None:
        """Run a step; the recorder must be observing."""
        self._steps.append([])
        self(None, "step", run, ())

    def __call__(
        self, subject: Any, what: str, function: Callable[..., Any], arguments: tuple
    ) -> Any:
        spans, mark = self._steps[-1], self.clock.mark
        place, depth = len(spans), self._depth
        spans.append(None)
        self._depth += 1
        start = mark()
        try:
            return function(*arguments)
        finally:
            spans[place] = Span(subject, what, depth, start, mark())
            self._depth = depth

    def steps(self) -> list[list[Span]]:
        """Wait for the device, and return the ranges of each step as they began, itself the first.

        Times are from the beginning of the step.
        """
        self.clock.finish()
        since = self.clock.microseconds
        return [
            [
                span._replace(
                    start=since(spans[0].start, span.start), end=since(spans[0].start, span.end)
                )
                for span in spans
            ]
            for spans in self._steps
        ]

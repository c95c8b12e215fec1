"""Time one case on several workers in turn, and throw away what other programs disturbed.

A window is one sample of each worker, of each of its ways to run the case that is worth one; who
begins changes from window to window. Ratios are taken within a window, so that a drift of the clock
meets both sides. A window in which other programs had more than ``FOREIGN`` of the cores' time is
discarded and repeated: a busy neighbour does not slow all libraries alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import numpy as np

from .cases import Case
from .load import Load
from .processes import Refused, Worker, WorkerDied

SECONDS = 0.045  # of a sample
WINDOWS = 3  # of a case in one run
FOREIGN = 0.04  # of all cores' time, above which a window is discarded
REPEATS = 8  # of one window at most
PATIENCE = 120.0  # seconds of a whole run that windows may be repeated for
WORTH = 1.5  # a way this much slower than a worker's best at the first look is not sampled

Window = dict[str, dict[str, float]]  # seconds of a call, by worker and way


@dataclass
class Outcome:
    """What one run found out about a case.

    Attributes:
        windows: the samples; every worker that answered to the end is in each of them.
        errors: of the results, by worker and way; see ``reference.relative_error``.
        failures: why a worker is in no window.
        discarded: windows that were repeated.
        contended: windows that were kept, though disturbed, for want of a quieter one.
    """

    windows: list[Window] = field(default_factory=list)
    errors: dict[str, dict[str, float | None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    discarded: int = 0
    contended: int = 0

    def measured(self, worker: str) -> bool:
        return bool(self.windows) and worker in self.windows[0]

    def best(self, worker: str) -> str:
        """Return a worker's fastest way."""
        ways = self.windows[0][worker]
        return min(ways, key=lambda way: median(window[worker][way] for window in self.windows))

    def times(self, worker: str) -> list[float]:
        """Return the seconds of a call in each window, by the worker's fastest way."""
        way = self.best(worker)
        return [window[worker][way] for window in self.windows]

    def spread(self, worker: str) -> tuple[float, float]:
        """Return the median and the interquartile range of ``times``."""
        low, middle, high = (float(q) for q in np.quantile(self.times(worker), (0.25, 0.5, 0.75)))
        return middle, high - low

    def ratio(self, worker: str, peer: str) -> float:
        """Return the median of the windows' ratios: below 1 the worker is faster.

        >>> Outcome([{"a": {"x": 1.0}, "b": {"y": 2.0, "z": 9.0}}]).ratio("a", "b")
        0.5
        """
        pairs = zip(self.times(worker), self.times(peer), strict=True)
        return median(mine / theirs for mine, theirs in pairs)

    def error(self, worker: str) -> float | None:
        return self.errors.get(worker, {}).get(self.best(worker))


class Protocol:
    """Measures cases on workers that stay.

    Args:
        workers: by name.
        load: says how busy others kept the cores.
        windows, seconds: how many samples, and how long each is.
        patience: seconds for repeating disturbed windows, over all cases.
    """

    def __init__(
        self, workers: Mapping[str, Worker], load: Load, *, windows: int = WINDOWS,
        seconds: float = SECONDS, patience: float = PATIENCE,
        sleep: Callable[[float], Any] = time.sleep, clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.workers, self.load = workers, load
        self.windows, self.seconds, self.patience = windows, seconds, patience
        self.sleep, self.clock = sleep, clock

    def measure(self, case: Case, names: Collection[str], check: bool = True) -> Outcome:
        """Measure a case on workers of these names.

        One that dies or refuses is left out, with the reason, and no other.
        """
        outcome = Outcome()
        ways = {}
        for name in names:
            try:
                ways[name] = self._ways(name, case, check, outcome)
            except (WorkerDied, Refused) as error:
                outcome.failures[name] = str(error)
        for turn in range(self.windows):
            if ways:
                outcome.windows.append(self._undisturbed(ways, turn, outcome))
        for window in outcome.windows:
            for name in set(window) - set(ways):  # a worker that was lost on the way
                del window[name]
        return outcome

    def _ways(self, name: str, case: Case, check: bool, outcome: Outcome) -> list[str]:
        """Prepare a case and return the ways of it that are worth sampling."""
        errors = self.workers[name].ask("prepare", case=asdict(case), check=check)["errors"]
        outcome.errors[name] = errors
        if len(errors) == 1:
            return list(errors)
        looks = {way: min(self._sample(name, way, 0.0) for _ in range(2)) for way in errors}
        return [way for way in looks if looks[way] <= WORTH * min(looks.values())]

    def _sample(self, name: str, way: str, seconds: float) -> float:
        self.load.rest()
        return self.workers[name].ask("sample", way=way, seconds=seconds)["seconds"]

    def _undisturbed(self, ways: dict[str, list[str]], turn: int, outcome: Outcome) -> Window:
        """Return the first window that nobody disturbed, or else the least disturbed one."""
        quietest: tuple[float, Window] | None = None
        for repeat in range(REPEATS + 1):
            start = self.clock()
            self.load.mark()
            window = self._window(ways, turn, outcome)
            foreign = self.load.foreign() or 0.0
            if foreign <= FOREIGN:
                return window
            if quietest is None or foreign < quietest[0]:
                quietest = foreign, window
            if repeat == REPEATS or self.patience <= 0:
                break
            outcome.discarded += 1
            self.sleep(0.1 * (repeat + 1))
            self.patience -= self.clock() - start
        outcome.contended += 1
        return quietest[1]

    def _window(self, ways: dict[str, list[str]], turn: int, outcome: Outcome) -> Window:
        """Sample every worker that is left, beginning with another one each turn."""
        names = list(ways)
        window: Window = {}
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            try:
                window[name] = {way: self._sample(name, way, self.seconds) for way in ways[name]}
            except (WorkerDied, Refused) as error:
                outcome.failures[name] = str(error)
                del ways[name]
        return window

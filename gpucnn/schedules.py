"""Learning rates as pure functions of the step, so that a checkpoint needs the step alone.

Steps count from 0, one for each batch; ``epochs * math.ceil(len(x) / batch_size)`` are a whole run.

    >>> schedule = WarmUp(Cosine(0.1, steps=900), steps=100)
    >>> [round(schedule(step), 4) for step in (0, 99, 100, 550, 1000)]
    [0.001, 0.1, 0.1, 0.05, 0.0]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .arguments import as_number, integers
from .configured import Configured, check_range


class Schedule(Configured):
    """A function of the step; subclasses are frozen dataclasses."""

    def __call__(self, step: int) -> float:
        """Return the learning rate of ``step``, which counts from 0."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        for name in ("learning_rate", "final"):
            if hasattr(self, name):
                check_range(self, name, least=0)
        for name in ("steps", "factor", "divisor", "final_divisor"):
            if hasattr(self, name):
                check_range(self, name, above=0)


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate at every step."""

    alias: ClassVar[str] = "constant"
    learning_rate: float

    def __call__(self, step: int) -> float:
        return float(self.learning_rate)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """Multiply the rate by ``factor`` once every ``steps`` steps."""

    alias: ClassVar[str] = "step_decay"
    learning_rate: float
    steps: int
    factor: float = 0.1

    def __call__(self, step: int) -> float:
        return self.learning_rate * self.factor ** (step // self.steps)


@dataclass(frozen=True)
class Exponential(Schedule):
    """Decay smoothly, by ``factor`` within every ``steps`` steps."""

    alias: ClassVar[str] = "exponential"
    learning_rate: float
    steps: int
    factor: float = 0.1

    def __call__(self, step: int) -> float:
        return self.learning_rate * self.factor ** (step / self.steps)


def _settle(schedule: Schedule, name: str, more: int, count: str) -> None:
    """Check the steps of a piecewise schedule and its rates, so many more; make tuples of them."""
    owner, given = type(schedule).__name__, getattr(schedule, name)
    steps = integers(given)
    rates = schedule.rates if isinstance(schedule.rates, Sequence) else ()
    rise = steps is not None and sorted(set(steps)) == list(steps)
    if not rise or not rates or len(rates) != len(steps) + more:
        raise ValueError(
            f"{owner}: {name} must be integers that rise, and {count}."
            f" Received: {name}={given}, rates={schedule.rates}"
        )
    rates = [as_number(owner, "each of rates", rate, least=0) for rate in rates]
    # lists from JSON compare equal to the tuples given
    object.__setattr__(schedule, name, steps)
    object.__setattr__(schedule, "rates", tuple(rates))


@dataclass(frozen=True)
class PiecewiseConstant(Schedule):
    """``rates[i]`` up to, not including, step ``boundaries[i]``; the last rate from there on.

    >>> schedule = PiecewiseConstant(boundaries=(100, 200), rates=(0.1, 0.01, 0.001))
    >>> schedule(99), schedule(100), schedule(5000)
    (0.1, 0.01, 0.001)
    """

    alias: ClassVar[str] = "piecewise_constant"
    boundaries: Sequence[int]
    rates: Sequence[float]

    def __post_init__(self) -> None:
        _settle(self, "boundaries", 1, "rates be one more than they are")

    def __call__(self, step: int) -> float:
        passed = sum(step >= boundary for boundary in self.boundaries)
        return self.rates[passed]


@dataclass(frozen=True)
class PiecewiseLinear(Schedule):
    """In straight lines through ``rates[i]`` at step ``steps[i]``; constant before and after.

    >>> schedule = PiecewiseLinear(steps=(0, 10, 40), rates=(0.5, 1.0, 0.25))
    >>> schedule(0), schedule(5), schedule(10), schedule(25), schedule(100)
    (0.5, 0.75, 1.0, 0.625, 0.25)
    """

    alias: ClassVar[str] = "piecewise_linear"
    steps: Sequence[int]
    rates: Sequence[float]

    def __post_init__(self) -> None:
        _settle(self, "steps", 0, "rates be as many, at least one")

    def __call__(self, step: int) -> float:
        return float(np.interp(step, self.steps, self.rates))


def _anneal(start: float, end: float, progress: float) -> float:
    """Half a cosine from ``start`` (progress 0) to ``end`` (progress 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine down to ``final`` over ``steps`` steps, then constant.

    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, without the
    restarts.
    """

    alias: ClassVar[str] = "cosine"
    learning_rate: float
    steps: int
    final: float = 0.0

    def __call__(self, step: int) -> float:
        return _anneal(self.learning_rate, self.final, min(step / self.steps, 1.0))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From ``learning_rate`` to ``final`` by (step / steps)^power, then constant.

    A power above 1 is slow at first. That is not the decay by (1 - step / steps)^power of Keras and
    PyTorch, which is quick at first, but for a power of 1.

    >>> schedule = Polynomial(1.0, steps=10, final=0.5, power=2)
    >>> schedule(0), schedule(5), schedule(10), schedule(20)
    (1.0, 0.875, 0.5, 0.5)
    """

    alias: ClassVar[str] = "polynomial"
    learning_rate: float
    steps: int
    final: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "power", above=0)

    def __call__(self, step: int) -> float:
        progress = min(step / self.steps, 1.0) ** self.power
        return self.learning_rate + (self.final - self.learning_rate) * progress


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up to the peak ``learning_rate`` during ``warm`` of the ``steps``, then far down.

    Starts at learning_rate / divisor and ends, with the last step, at the start divided by
    ``final_divisor``; both ways are half cosines. L. N. Smith & N. Topin, "Super-convergence: very
    fast training of neural networks using large learning rates", 2018.
    """

    alias: ClassVar[str] = "one_cycle"
    learning_rate: float
    steps: int
    warm: float = 0.3
    divisor: float = 25.0
    final_divisor: float = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "warm", least=0, below=1)

    def __call__(self, step: int) -> float:
        start = self.learning_rate / self.divisor
        peak, last = max(self.warm * self.steps - 1, 0), self.steps - 1
        if step < peak:
            return _anneal(start, self.learning_rate, step / peak)
        progress = 1.0 if step >= last else (step - peak) / (last - peak)
        return _anneal(self.learning_rate, start / self.final_divisor, progress)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """Rise in a line to the first rate of ``schedule`` within ``steps`` steps, then follow it.

    A number in place of the schedule is a constant rate.

    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.
    """

    alias: ClassVar[str] = "warm_up"
    schedule: Schedule | float
    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.schedule, Schedule):
            rate = as_number("WarmUp", "schedule", self.schedule, least=0)
            object.__setattr__(self, "schedule", Constant(rate))

    def __call__(self, step: int) -> float:
        if step < self.steps:
            return self.schedule(0) * (step + 1) / self.steps
        return self.schedule(step - self.steps)

"""Lookahead: slow weights that follow the optimizer's from afar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..arguments import as_int
from ..configured import Configured, check_range
from ..schedules import Schedule


@dataclass(frozen=True)
class Lookahead(Configured):
    """Every ``period`` steps, slow weights go a ``share`` of the way to the fast ones.

    slow += share * (p - slow); p = slow. In between the optimizer goes on as ever; its slots stay
    (Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", NeurIPS 2019). An argument
    of every optimizer; the slow weights are its slot "slow", float32, and begin at the weights of
    the first step. The share is a number or a ``Schedule`` of the steps made; where it is 0,
    nothing is changed.

    Example:
        >>> from gpucnn.optimizers import SGD
        >>> SGD(0.1, momentum=0.9, lookahead=Lookahead(period=5)).lookahead.share
        0.5
    """

    alias: ClassVar[str] = "lookahead"

    period: int = 6
    share: float | Schedule = 0.5

    def __post_init__(self) -> None:
        as_int("Lookahead", "period", self.period)
        if not isinstance(self.share, Schedule):
            check_range(self, "share", above=0, most=1)

    def at(self, steps: int) -> float:
        """Return the share once so many steps are made: 0 for most."""
        if steps % self.period:
            return 0.0
        return self.share(steps) if isinstance(self.share, Schedule) else self.share

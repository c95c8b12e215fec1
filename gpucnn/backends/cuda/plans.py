"""From a problem to the way it is computed: a pure function, tested without a GPU.

The cheapest plan by the algorithms' own estimates is taken, and the same problem always gets the
same one: a plan fixes the order of every sum, so the same shape gives the same bits on every call.
Where measurements have settled a problem, ``tuning.TunedPlans`` comes before these estimates.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

from .algorithms import ALGORITHMS, Plan, Problem


class Planner(Protocol):
    """Says how a problem is computed: this module, or ``tuning.TunedPlans``."""

    def choose(self, problem: Problem) -> Plan: ...


def candidates(problem: Problem) -> Iterator[Plan]:
    """Yield every legal plan of every algorithm that applies."""
    for algorithm in ALGORITHMS.values():
        yield from filter(Plan.is_legal, algorithm.plans(problem))


def ranked(problem: Problem) -> list[Plan]:
    """Return the legal plans by their estimated time, of equals the first one first.

    What is wanted wide cannot be made of what was rounded.
    """

    def fuses(plan: Plan) -> bool:
        return ALGORITHMS[plan.algorithm].fuses(problem, plan)

    def cost(plan: Plan) -> float:
        apart_us = 0 if fuses(plan) else problem.apart_us
        return ALGORITHMS[plan.algorithm].cost(problem, plan) + apart_us

    found = candidates(problem)
    return sorted(filter(fuses, found) if problem.wide else found, key=cost)


@lru_cache(maxsize=4096)
def choose(problem: Problem) -> Plan:
    """Return the plan with the least estimated time of those that are tried; of equals the first.

    Raises:
        ValueError: no algorithm has a legal plan: the tensor is too large for one launch.
    """
    plans = ranked(problem)
    if not plans:
        raise ValueError(
            f"convolution: the tensor is too large for one launch. Received: {problem.shape}"
        )
    return next(filter(_is_tried, plans), plans[0])


def _is_tried(plan: Plan) -> bool:
    return ALGORITHMS[plan.algorithm].is_tried(plan)


def shortlist(problem: Problem, most: int) -> list[Plan]:
    """Return the plans that are worth measuring, at most so many, the chosen one first.

    Estimates compare the plans of one algorithm better than they compare algorithms, so the best
    of each algorithm comes before a second one of any.
    """
    plans = ranked(problem)
    chosen = choose(problem)
    best = {chosen.algorithm: chosen}
    for plan in plans:
        best.setdefault(plan.algorithm, plan)
    others = [plan for plan in plans if plan != best[plan.algorithm]]
    return [*best.values(), *others][:most]

"""From a problem to the way it is computed: a pure function, tested without a GPU.

The cheapest plan by the algorithms' own estimates is taken, and the same problem always gets the
same one: a plan fixes the order of every sum, so the same shape gives the same bits on every call.
Where measurements have settled a problem, ``tuning.TunedPlans`` comes before these estimates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from ...shapes import ConvShape
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
    found = candidates(problem)
    if problem.wide:
        found = (plan for plan in found if ALGORITHMS[plan.algorithm].fuses(problem, plan))
    return sorted(found, key=lambda plan: estimate(problem, plan))


def estimate(problem: Problem, plan: Plan) -> float:
    """Return the microseconds of a plan, and of what is asked for and it does not take along."""
    algorithm = ALGORITHMS[plan.algorithm]
    total_us = algorithm.cost(problem, plan)
    if not algorithm.fuses(problem, plan):
        total_us += problem.apart_us
        unmasked = replace(problem, masked=False)
        if algorithm.fuses(unmasked, plan):  # the mask is all that is missing
            total_us -= unmasked.apart_us
    if problem.prologue and not algorithm.norms_on_load(problem, plan):
        total_us += problem.norm_us
    return total_us


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


@lru_cache(maxsize=4096)
def norms_on_load(shape: ConvShape, dtype: str, math: str, architecture: int) -> bool:
    """Return ``Backend.norms_on_load``, for a convolution with another norm behind it."""

    def both_us(prologue: bool) -> float:
        total_us = 0.0
        for direction in ("fprop", "wgrad"):
            problem = Problem(
                direction, shape, dtype, architecture=architecture, math=math,
                moments=direction == "fprop", prologue=prologue,
            )  # fmt: skip
            total_us += estimate(problem, choose(problem))
        return total_us if prologue else total_us + problem.norm_us

    return 0 not in shape.y_shape and both_us(True) < both_us(False)


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

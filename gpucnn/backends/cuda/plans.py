"""From a problem to the way it is computed: a pure function, tested without a GPU.

The cheapest plan by the algorithms' own estimates is taken, and the same problem always gets the
same one: a plan fixes the order of every sum, so the same shape gives the same bits on every call.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from .algorithms import ALGORITHMS, Plan, Problem


def candidates(problem: Problem) -> Iterator[Plan]:
    """Yield every legal plan of every algorithm that applies."""
    for algorithm in ALGORITHMS.values():
        yield from filter(Plan.is_legal, algorithm.plans(problem))


@lru_cache(maxsize=4096)
def choose(problem: Problem) -> Plan:
    """Return the plan with the least estimated time; of equals the first.

    Raises:
        ValueError: no algorithm has a legal plan: the tensor is too large for one launch.
    """
    plans = list(candidates(problem))
    if not plans:
        raise ValueError(
            f"convolution: the tensor is too large for one launch. Received: {problem.shape}"
        )
    return min(plans, key=lambda plan: ALGORITHMS[plan.algorithm].cost(problem, plan))

"""A convolution and the 2x2 max-pool behind it in one pass, and of few channels its gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ...shapes import ConvShape, PoolShape
from ..base import Array, Backend
from .algorithms import ALGORITHMS, Plan, Problem
from .algorithms.direct import Direct
from .algorithms.direct_tiles import pools_quads
from .plans import candidates

DIRECT = Direct()


@lru_cache(maxsize=4096)
def fused(problem: Problem, pool: PoolShape) -> Plan | None:
    """Return the plan for few channels with the pooling behind it; None if there are no kernels.

    A pure function, tested without a GPU. Both directions of a layer get a plan or neither: that of
    the gradients reads off the index alone what ReLU has cut.
    """
    return next(filter(Plan.is_legal, DIRECT.pooled_plans(problem, pool)), None)


@lru_cache(maxsize=4096)
def pooled(problem: Problem, pool: PoolShape) -> Problem | None:
    """Return the problem whose plans may store the maxima in place of fprop's outputs.

    Or None, where none does. Windows are whole: rows and columns that are in none are left out.
    """
    s = problem.shape
    if s.batch == 0 or not pools_quads(s, pool):
        return None
    if any(2 * quads > size for quads, size in zip(pool.output, s.output, strict=True)):
        return None
    padding = tuple(
        (before, (2 * quads - 1) * stride + (r - 1) * dilation + 1 - before - size)
        for quads, stride, r, dilation, (before, _), size in zip(
            pool.output, s.strides, s.kernel, s.dilation, s.padding, s.input, strict=True
        )
    )
    even = replace(problem, shape=replace(s, padding=padding), pooled=True)
    fuse = (ALGORITHMS[plan.algorithm].fuses(even, plan) for plan in candidates(even))
    return even if any(fuse) else None


class FusedPools(Backend):
    """``conv_pool_forward`` and ``conv_pool_backward``, by other operations where none is fused."""

    def conv_pool_forward(
        self, x: Array, w: Array, b: Array | None, conv: ConvShape, pool: PoolShape,
        activation: str = "linear", with_index: bool = True, math: str = "strict",
    ) -> tuple[Array, Array | None]:  # fmt: skip
        problem = self._problem("fprop", conv, x, math, activation)
        plan = fused(problem, pool)
        if plan is not None:
            return DIRECT.forward(self, problem, plan, pool, x, w, b, with_index)
        problem = pooled(problem, pool)
        if problem is None:
            return super().conv_pool_forward(x, w, b, conv, pool, activation, with_index, math)
        return self._run_pooled(problem, self.plans.choose(problem), x, w, b, with_index)

    def conv_pool_backward(
        self, dy: Array, y: Array, index: Array | None, x: Array, conv: ConvShape,
        pool: PoolShape, activation: str = "linear", math: str = "strict",
    ) -> tuple[Array, Array]:  # fmt: skip
        problem = self._problem("wgrad", conv, x, math, activation)
        plan = fused(problem, pool)
        if plan is None:
            return super().conv_pool_backward(dy, y, index, x, conv, pool, activation, math)
        return DIRECT.gradients(self, problem, plan, pool, x, dy, index)

"""A convolution of few channels and the pooling behind it in one pass, and its gradients in one."""

from __future__ import annotations

from functools import lru_cache

from ...shapes import ConvShape, PoolShape
from ..base import Array, Backend
from .algorithms import Plan, Problem
from .algorithms.direct import Direct

DIRECT = Direct()


@lru_cache(maxsize=4096)
def fused(problem: Problem, pool: PoolShape) -> Plan | None:
    """Return the plan of a convolution with the pooling behind it; None if there are no kernels.

    A pure function, tested without a GPU. Both directions of a layer get a plan or neither: that of
    the gradients reads off the index alone what ReLU has cut.
    """
    return next(filter(Plan.is_legal, DIRECT.pooled_plans(problem, pool)), None)


class FusedPools(Backend):
    """``conv_pool_forward`` and ``conv_pool_backward``, by other operations where none is fused."""

    def conv_pool_forward(
        self, x: Array, w: Array, b: Array | None, conv: ConvShape, pool: PoolShape,
        activation: str = "linear", with_index: bool = True, math: str = "strict",
    ) -> tuple[Array, Array | None]:  # fmt: skip
        problem = Problem("fprop", conv, x.dtype.name, activation, self.launcher.architecture, math)
        plan = fused(problem, pool)
        if plan is None:
            return super().conv_pool_forward(x, w, b, conv, pool, activation, with_index, math)
        return DIRECT.forward(self, problem, plan, pool, x, w, b, with_index)

    def conv_pool_backward(
        self, dy: Array, y: Array, index: Array | None, x: Array, conv: ConvShape,
        pool: PoolShape, activation: str = "linear", math: str = "strict",
    ) -> tuple[Array, Array]:  # fmt: skip
        problem = Problem("wgrad", conv, x.dtype.name, activation, self.launcher.architecture, math)
        plan = fused(problem, pool)
        if plan is None:
            return super().conv_pool_backward(dy, y, index, x, conv, pool, activation, math)
        return DIRECT.gradients(self, problem, plan, pool, x, dy, index)

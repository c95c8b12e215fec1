"""A batch norm and the max-pool behind it in one pass (kernels/norm_pool.cu)."""

from __future__ import annotations

from ...shapes import ConvShape, NormShape, PoolShape
from ..base import FUSED, Array, Backend, accumulator, pool_activates
from . import columns
from .channels import ChannelSums
from .kernel import DTYPE, KernelFamily
from .launch import MAX_COUNT, aligned, ceil_div
from .norm import THREADS_WANTED
from .pool import GATHERED_UNITS, largest_map, pool_record
from .pool_plans import UNIT_BYTES, PoolPlan, units_of_a_sample

FORWARD = KernelFamily(
    "norm_pool.cu", "norm_pool_forward", {"max": ("max", {"MODE": "MAX"})}, GATHERED_UNITS, DTYPE
)


class NormPools(ChannelSums, Backend):
    """``batch_norm_pool_train`` and, with a pool, ``conv_norm_infer``.

    By two operations for norm and pool where there is no kernel for both.
    """

    def batch_norm_pool_train(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape,
        pool: PoolShape, activation: str = "linear", with_index: bool = True,
        moving: tuple[Array, Array] | None = None, momentum: float = 0.0,
    ) -> tuple[Array, Array | None, Array, Array]:  # fmt: skip
        if not _is_one_pass(shape, pool) or columns.are_few(shape):
            return super().batch_norm_pool_train(
                x, gamma, beta, epsilon, shape, pool, activation, with_index, moving, momentum
            )
        (mean, var), _ = self._channel_sums("moments", x, shape, moving=moving, momentum=momentum)
        statistics = gamma, beta, mean, var, epsilon
        return *self._norm_pool(x, *statistics, pool, activation, with_index), mean, var

    def conv_norm_infer(
        self, x: Array, w: Array, b: Array | None, conv: ConvShape, gamma: Array, beta: Array,
        mean: Array, var: Array, epsilon: float, activation: str = "linear", math: str = "strict",
        pool: PoolShape | None = None,
    ) -> Array:  # fmt: skip
        norm = gamma, beta, mean, var, epsilon
        one_pass = pool is not None and _is_one_pass(conv.norm_shape, pool)
        if not one_pass or activation not in FUSED or not pool_activates(pool):
            return super().conv_norm_infer(x, w, b, conv, *norm, activation, math, pool)
        y = self.conv_fprop(x, w, b, conv, "linear", math)
        return self._norm_pool(y, *norm, pool, activation, with_index=False)[0]

    def _norm_pool(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, epsilon: float,
        pool: PoolShape, activation: str, with_index: bool,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Return the maxima of what is normalised with these statistics, and their places."""
        y = self.xp.empty(pool.y_shape, x.dtype)
        index = self.xp.empty(pool.y_shape, pool.index_dtype) if with_index else None
        width = UNIT_BYTES // x.dtype.itemsize
        in_units = aligned(x) and pool.channels % width == 0
        plan = PoolPlan("windows", *(("channels", width) if in_units else ("one", 1)))
        count, depth = len(x) * units_of_a_sample(pool, plan), pool.channels // plan.width
        stride = depth * max(1, min(THREADS_WANTED // depth, ceil_div(count, depth)))
        self.launch_elements(
            FORWARD("max", plan.unit, x.dtype), stride, x, gamma, beta, mean, var,
            accumulator(x.dtype).type(epsilon), y, index, count, stride,
            pool_record(pool, plan, activation == "relu"),
        )  # fmt: skip
        return y, index


def _is_one_pass(shape: NormShape, pool: PoolShape) -> bool:
    last = shape.channels_last and pool.channels_last
    return last and pool.mode == "max" and 0 < pool.batch * largest_map(pool) <= MAX_COUNT

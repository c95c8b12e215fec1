"""A batch norm and the max-pool behind it in one pass (kernels/norm_pool.cu)."""

from __future__ import annotations

from ...shapes import NormShape, PoolShape
from ..base import Array, Backend, accumulator
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
    """``batch_norm_pool_train``, by two operations where there is no kernel for both."""

    def batch_norm_pool_train(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape,
        pool: PoolShape, activation: str = "linear", with_index: bool = True,
        moving: tuple[Array, Array] | None = None, momentum: float = 0.0,
    ) -> tuple[Array, Array | None, Array, Array]:  # fmt: skip
        last = shape.channels_last and pool.channels_last
        in_one = 0 < len(x) * largest_map(pool) <= MAX_COUNT
        if not last or pool.mode != "max" or not in_one or columns.are_few(shape):
            return super().batch_norm_pool_train(
                x, gamma, beta, epsilon, shape, pool, activation, with_index, moving, momentum
            )
        (mean, var), _ = self._channel_sums("moments", x, shape, moving=moving, momentum=momentum)
        y = self.xp.empty(pool.y_shape, x.dtype)
        index = self.xp.empty(pool.y_shape, pool.index_dtype) if with_index else None
        width = UNIT_BYTES // x.dtype.itemsize
        in_units = aligned(x) and shape.channels % width == 0
        plan = PoolPlan("windows", *(("channels", width) if in_units else ("one", 1)))
        count, depth = len(x) * units_of_a_sample(pool, plan), shape.channels // plan.width
        stride = depth * max(1, min(THREADS_WANTED // depth, ceil_div(count, depth)))
        self.launch_elements(
            FORWARD("max", plan.unit, x.dtype), stride, x, gamma, beta, mean, var,
            accumulator(x.dtype).type(epsilon), y, index, count, stride,
            pool_record(pool, plan, activation == "relu"),
        )  # fmt: skip
        return y, index, mean, var

"""The floor of an operation: no version runs faster than its arithmetic and its memory allow.

floor = max(operations / peak rate, fewest bytes / bandwidth). A multiply-add is two operations, and
padding counts as work, as everyone counts. Each input is read once and each output written once,
but for a batch norm that does not fit the cache: its statistics need a pass of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from gpucnn.backends.base import accumulator
from gpucnn.profiler.floors import Peaks, Work, elements_read
from gpucnn.shapes import ConvShape, PoolShape

from .cases import Case

# Datasheet rates of dense arithmetic in TFLOP/s by number format, and GB/s. float64 is that of the
# tensor cores where they have it, 16 bits are summed in float32.
DATASHEET: dict[str, dict[str, float]] = {
    "H200": {
        "float32 strict": 67, "float32 tf32": 494, "bfloat16 mixed": 989, "float16 mixed": 989,
        "float64 strict": 67, "bandwidth": 4800,
    },
    "H100 80GB HBM3": {
        "float32 strict": 67, "float32 tf32": 494, "bfloat16 mixed": 989, "float16 mixed": 989,
        "float64 strict": 67, "bandwidth": 3350,
    },
    "A100": {
        "float32 strict": 19.5, "float32 tf32": 156, "bfloat16 mixed": 312, "float16 mixed": 312,
        "float64 strict": 19.5, "bandwidth": 2039,
    },
    "RTX 4090": {
        "float32 strict": 82.6, "float32 tf32": 82.6, "bfloat16 mixed": 165, "float16 mixed": 165,
        "float64 strict": 1.29, "bandwidth": 1008,
    },
    "T4": {"float32 strict": 8.1, "float16 mixed": 65, "float64 strict": 0.25, "bandwidth": 320},
}  # fmt: skip


@dataclass(frozen=True)
class Ceilings:
    """Rates in TFLOP/s by number format ("float32 strict"), and the bandwidth in GB/s."""

    tflops: dict[str, float]
    bandwidth: float | None

    @classmethod
    def of(cls, gpu: str, measured: dict[str, float] | None = None) -> Ceilings:
        """Return the ceilings of a GPU by its name, with what was measured in place.

        Strict float32 keeps the datasheet's rate, for a library's matrix product leaves more of it
        unused than our kernels may.
        """
        rates = next((rates for name, rates in DATASHEET.items() if name in gpu), {})
        rates = rates | {
            name: rate
            for name, rate in (measured or {}).items()
            if name != "float32 strict" or name not in rates
        }
        tflops = {name: rate for name, rate in rates.items() if name != "bandwidth"}
        if "float32 tf32" in tflops:
            tflops["float32 fp32x3"] = tflops["float32 tf32"] / 3
        return cls(tflops, rates.get("bandwidth"))

    def floor_us(self, case: Case) -> float | None:
        """Return the floor in microseconds, or None where a rate is not known."""
        work = Work(flops(case), fewest_bytes(case))
        rate = self.tflops.get(f"{case.dtype} {case.math}") if work.operations else 1.0
        if None in (self.bandwidth, rate):
            return None
        return Peaks(1e3 * rate, self.bandwidth).floor_us(work)


def flops(case: Case) -> int:
    """Return the operations of a convolution; what the others do is not what they wait for."""
    if not isinstance(case.shape, ConvShape):
        return 0
    if case.op == "conv_bias_relu_pool_backward":  # each dy meets one window
        return 2 * prod(case.pool.y_shape) * prod(case.shape.w_shape[1:])
    return 2 * case.shape.multiply_adds


def fewest_bytes(case: Case) -> int:
    """Return the bytes that must cross the memory bus."""
    size, sums = _itemsize(case.dtype), accumulator(_dtype(case.dtype)).itemsize
    shape = case.shape
    if isinstance(shape, ConvShape):
        x, w, y = elements_read(shape), prod(shape.w_shape), prod(shape.y_shape)
        if case.op.startswith("conv_dgrad"):
            x = prod(shape.x_shape)  # all of dx is written, zeros where no window was
        if case.op in ("conv_dgrad_relu", "conv_dgrad_add"):
            x *= 2  # and x, or another gradient of it, is read
        if case.op.startswith("conv_bias_relu"):
            w += shape.filters
        if case.pool:
            y = prod(case.pool.y_shape)
        index = y if case.op == "conv_bias_relu_pool_backward" else 0  # a byte each
        return (x + w + y) * size + index
    if isinstance(shape, PoolShape):
        index = np.dtype(shape.index_dtype).itemsize if shape.mode in ("max", "min") else 0
        return prod(shape.x_shape) * size + prod(shape.y_shape) * (size + index)
    if case.op == "change_layout":
        return 2 * prod(shape.axes) * size
    if case.op.startswith("batch_norm"):
        passes = 3 if case.op.endswith("train") else 5  # x twice, y; x and dy twice, dx
        if "add" in case.op:  # the residual; y, and its gradient, which then stands for dy
            passes += 1 if case.op.endswith("train") else 2
        return passes * prod(shape.axes) * size
    if case.op == "softmax_cross_entropy":
        return 2 * shape.rows * shape.classes * size + shape.rows * (8 + sums)
    if case.op == "activation_forward":
        return 2 * shape.size * size
    if case.op == "activation_backward":
        return 3 * shape.size * size
    states = 2 if case.op == "adam_update" else 1
    return shape.parameters * (3 * size + 2 * states * sums)  # p, states read and written, g read


def _dtype(name: str) -> np.dtype:
    return np.dtype(np.float16 if name == "bfloat16" else name)  # of the same size


def _itemsize(name: str) -> int:
    return _dtype(name).itemsize

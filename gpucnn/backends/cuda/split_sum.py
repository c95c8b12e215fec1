"""The end of what is computed in splits: their sum (kernels/split_sum.cu)."""

from __future__ import annotations

import math

import numpy as np

from ..base import Array
from .kernel import DTYPE, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, aligned, ceil_div

SPLIT_SUM = KernelFamily("split_sum.cu", "split_sum", DTYPE)
FEW = KernelFamily("split_sum.cu", "split_sum_few", DTYPE)

LANES, PARTS, QUAD = 32, 8, 4  # as in the kernels: numbers of a block, splits, numbers of a thread


def split_sum(
    caller: KernelCaller, partial: Array, dtype: np.dtype, b: Array | None = None,
    relu: bool = False, channels_last: bool = True,
) -> Array:  # fmt: skip
    """Return the sum over the first axis of (splits, ...), rounded to ``dtype``.

    ``b`` (C,) is added to each channel, and ReLU applied, as the convolution's kernels do. One
    split of that dtype, without either, is returned as it is.
    """
    if len(partial) == 1 and partial.dtype == dtype and b is None and not relu:
        return partial[0]
    total = caller.xp.empty(partial.shape[1:], dtype)
    channels = total.shape[-1 if channels_last else 1]
    inner = 1 if channels_last else math.prod(total.shape[2:])
    kernel, of_a_block = SPLIT_SUM, LANES
    if len(partial) <= PARTS and total.size % QUAD == 0 and aligned(partial):
        kernel, of_a_block = FEW, BLOCK_THREADS * QUAD
    caller.launch(
        kernel(dtype), ceil_div(total.size, of_a_block), BLOCK_THREADS, partial, b, channels,
        inner, relu, total, np.int64(total.size), len(partial),
    )  # fmt: skip
    return total

"""The end of every gradient of filters: the sum of its splits (kernels/split_sum.cu)."""

from __future__ import annotations

import numpy as np

from ..base import Array
from .kernel import DTYPE, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, ceil_div

SPLIT_SUM = KernelFamily("split_sum.cu", "split_sum", DTYPE)

LANES = 32  # numbers of a block, as in the kernel


def split_sum(caller: KernelCaller, partial: Array, dtype: np.dtype) -> Array:
    """Return the sum over the first axis of (splits, ...), rounded to ``dtype``.

    One split of that dtype is returned as it is.
    """
    if len(partial) == 1 and partial.dtype == dtype:
        return partial[0]
    total = caller.xp.empty(partial.shape[1:], dtype)
    caller.launch(
        SPLIT_SUM(dtype), ceil_div(total.size, LANES), BLOCK_THREADS, partial, total,
        np.int64(total.size), len(partial),
    )  # fmt: skip
    return total

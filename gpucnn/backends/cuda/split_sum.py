"""The end of what is computed in splits: their sum (kernels/split_sum.cu)."""

from __future__ import annotations

import math

import numpy as np

from ..base import Array
from .kernel import DTYPE, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, ceil_div

SPLIT_SUM = KernelFamily("split_sum.cu", "split_sum", DTYPE)

LANES = 32  # numbers of a block, as in the kernel


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
    caller.launch(
        SPLIT_SUM(dtype), ceil_div(total.size, LANES), BLOCK_THREADS, partial, b, channels, inner,
        relu, total, np.int64(total.size), len(partial),
    )  # fmt: skip
    return total

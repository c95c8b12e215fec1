"""The end of what is computed in splits: their sum (kernels/split_sum.cu)."""

from __future__ import annotations

import math

import numpy as np

from ..base import Array
from .epilogue import Epilogue
from .kernel import DTYPE, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, aligned_copy, ceil_div
from .spatial import DIVISOR, divisor

NOTHING = Epilogue()
SPLIT_SUM = KernelFamily("split_sum.cu", "split_sum", DTYPE)

BUSY_THREADS = 2**17  # that keep the memory of a large GPU busy
MOST_PARTS = 32


def split_sum(
    caller: KernelCaller, partial: Array, dtype: np.dtype, epilogue: Epilogue = NOTHING,
    channels_last: bool = True,
) -> Array:  # fmt: skip
    """Return the sum over the first axis of (splits, ...), rounded to ``dtype``.

    The epilogue is applied as the convolution's kernels do. One split of that dtype, with a plain
    one, is returned as it is.
    """
    if len(partial) == 1 and partial.dtype == dtype and epilogue.is_plain:
        return partial[0]
    total = caller.xp.empty(partial.shape[1:], dtype)
    channels = total.shape[-1 if channels_last else 1]
    inner = 1 if channels_last else math.prod(total.shape[2:])
    width, parts = shares(total.size, len(partial))
    by_inner, by_channels = (np.array([divisor(n)], DIVISOR) for n in (inner, channels))
    caller.launch(
        SPLIT_SUM(dtype), ceil_div(total.size, BLOCK_THREADS // parts * width), BLOCK_THREADS,
        partial, epilogue.b, aligned_copy(epilogue.residual), *epilogue.function(dtype), total,
        np.int64(total.size), len(partial), parts, by_inner, by_channels,
    )  # fmt: skip
    return total


def shares(count: int, splits: int) -> tuple[int, int]:
    """Return how many numbers a thread sums at once, and into how many parts splits fall.

    >>> shares(2**24, 30), shares(1728, 169), shares(1728, 3), shares(81, 2)
    ((4, 1), (4, 32), (4, 2), (1, 2))
    """
    width, parts = 4 if count % 4 == 0 else 1, 1
    while parts < MOST_PARTS and 2 * parts <= splits and count // width * parts < BUSY_THREADS:
        parts *= 2
    return width, parts

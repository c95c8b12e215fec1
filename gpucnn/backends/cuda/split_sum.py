"""The end of what is computed in splits: their sum (kernels/split_sum.cu)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..base import Array, accumulator
from .epilogue import Epilogue
from .kernel import DTYPE, Axis, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, aligned_copy, ceil_div
from .spatial import DIVISOR, divisor

NOTHING = Epilogue()
# The elements, and whether the total is wide, of float32 where they have 16 bits.
_ELEMENTS: Axis = {
    (name, wide): (tag + "_wide" * wide, {**macros, "WIDE": int(wide)})
    for wide in (False, True)
    for name, (tag, macros) in DTYPE.items()
    if not wide or name in ("float16", "bfloat16")
}
SPLIT_SUM = KernelFamily("split_sum.cu", "split_sum", _ELEMENTS)

# Computes with an epilogue into a result, or without one into the splits' sums: one is None.
Launch = Callable[[Epilogue, Array | None, Array | None], None]

BUSY_THREADS = 2**17  # that keep the memory of a large GPU busy
MOST_PARTS = 32


def in_splits(
    caller: KernelCaller, splits: int, shape: tuple[int, ...], dtype: np.dtype, launch: Launch,
    epilogue: Epilogue = NOTHING, channels_last: bool = True, wide: bool = False,
) -> Array:  # fmt: skip
    """Return what ``launch`` computes: a whole sum at once, several splits by way of their sum."""
    if splits == 1 and not wide:
        pooled = epilogue.pooled
        result = caller.xp.empty(shape, dtype) if pooled is None else pooled.y
        launch(epilogue, result, None)
        return result
    partial = caller.xp.empty((splits, *shape), accumulator(dtype))
    launch(NOTHING, None, partial)
    return split_sum(caller, partial, dtype, epilogue, channels_last, wide)


def split_sum(
    caller: KernelCaller, partial: Array, dtype: np.dtype, epilogue: Epilogue = NOTHING,
    channels_last: bool = True, wide: bool = False,
) -> Array:  # fmt: skip
    """Return the sum over the first axis of (splits, ...), rounded to ``dtype`` unless ``wide``.

    The epilogue, of arrays in ``dtype``, is applied as the convolution's kernels do. One split that
    needs no rounding, with a plain one, is returned as it is.
    """
    result = partial.dtype if wide else dtype
    if len(partial) == 1 and partial.dtype == result and epilogue.is_plain:
        return partial[0]
    total = caller.xp.empty(partial.shape[1:], result)
    channels = total.shape[-1 if channels_last else 1]
    inner = 1 if channels_last else math.prod(total.shape[2:])
    width, parts = shares(total.size, len(partial))
    by_inner, by_channels = (np.array([divisor(n)], DIVISOR) for n in (inner, channels))
    kernel = SPLIT_SUM((np.dtype(dtype).name, wide))
    caller.launch(
        kernel, ceil_div(total.size, BLOCK_THREADS // parts * width), BLOCK_THREADS, partial,
        epilogue.b, aligned_copy(epilogue.residual), *epilogue.function(dtype), total,
        epilogue.mask, np.int64(total.size), len(partial), parts, by_inner, by_channels,
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

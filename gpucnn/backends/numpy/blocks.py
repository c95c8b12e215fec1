"""What the operations share: wider dtypes for sums, and blocks of work that fit in the cache.

Arrays go through each operation in blocks whose temporaries stay in the L2 cache, so that an
expression of many NumPy calls costs one pass through memory and a bounded amount of it. Blocks are
runs of memory, in whatever order the axes lie there, and are shared among the threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..base import accumulator
from . import buffers, workers

BLOCK = 1 << 16  # elements: a handful of float32 temporaries fit in an L2 cache of 1 or 2 MB
LARGE = 1 << 18  # elements: of a block that needs one temporary and few calls, which cost as well
PARTS = 4  # of an array: no fewer for the sake of larger blocks
ALONE = 1 << 19  # elements: to wake threads takes as long as a quick call on a quarter of so many


def wide(array: np.ndarray) -> np.ndarray:
    """Return the array in the dtype of its sums; itself, if that is its own."""
    return array.astype(accumulator(array.dtype), copy=False)


def rounded(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round to ``dtype``, or return the array itself, if that is its own."""
    return array.astype(dtype, copy=False)


def pieces(length: int, size: int) -> list[slice]:
    """Cut ``range(length)`` into slices of at most ``size`` (and 1), all of nearly one length."""
    count = -(-length // max(1, size))
    return [slice(length * i // count, length * (i + 1) // count) for i in range(count)]


def block_size(size: int, most: int) -> int:
    """Return how many elements of an array a block has, if up to ``most`` suit the operation."""
    return max(BLOCK, min(most, size // PARTS))


def blocks(extents: Sequence[int], limit: int) -> Iterator[tuple[slice, ...]]:
    """Cut an index space into blocks of at most ``limit`` points that follow C order.

    Whole inner axes, a piece of one axis, single indices of the axes outside it: in a C-contiguous
    array each block is one run of memory.

    >>> [[(s.start, s.stop) for s in block] for block in blocks((2, 4), 3)][:2]
    [[(0, 1), (0, 2)], [(0, 1), (2, 4)]]
    """
    axes = []
    for extent in reversed(extents):
        axes.append(pieces(extent, limit))
        limit //= max(1, extent)
    return itertools.product(*reversed(axes))


def sample_blocks(shape: Sequence[int]) -> list[slice]:
    """Cut the first axis of an array into pieces of about ``BLOCK`` elements."""
    return pieces(shape[0], BLOCK // max(1, math.prod(shape[1:])))


def share(function: Callable[[Any], object], items: Sequence[Any], alone: bool = False) -> None:
    """Call ``function(item)`` for every item, a block of work, shared among the threads.

    ``alone``, where that is too little work to share, the caller does all of it.
    """
    if alone or len(items) == 1:
        for item in items:
            function(item)
    else:
        workers.run(lambda part: function(items[part]), len(items))


def flat(like: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    """Return arrays of one shape as vectors that follow the memory of ``like``.

    Those that lie as it does are views; ``like`` itself is without gaps, so that it is always one.
    """
    if like.flags.c_contiguous:
        return [array.reshape(-1) for array in arrays]
    axes = buffers.order(like.strides)
    return [array.transpose(axes).reshape(-1) for array in arrays]


def elementwise(
    function: Callable[..., np.ndarray], dtype: np.dtype, *arrays: np.ndarray, most: int = BLOCK
) -> np.ndarray:
    """Return ``function(*arrays, out)``, worked out block by block in the dtype of the sums.

    The result lies in memory as the last array does. ``out``, a block of it, or None where the
    result is narrower than the sums, is where the function may put what it returns. ``most`` is the
    size of the largest blocks that suit the function.
    """
    like = arrays[-1]
    result = buffers.empty_like(like, dtype)
    target, *sources = flat(like, result, *arrays)
    in_place = accumulator(dtype) == dtype

    def fill(piece: slice) -> None:
        out = target[piece] if in_place else None
        parts = [source[piece] for source in sources]
        value = function(*(parts if in_place else map(wide, parts)), out)
        if value is not out:
            target[piece] = value

    alone = most == LARGE and target.size <= ALONE
    share(fill, pieces(target.size, most if alone else block_size(target.size, most)), alone)
    return result


_BITS = {size: np.dtype(f"i{size}") for size in (2, 4, 8)}


def _all_bits(mask: np.ndarray) -> np.ndarray:
    """True -> -1, all bits set; False -> 0."""
    return np.negative(mask.view(np.int8))


def keep(values: np.ndarray, mask: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return ``values`` where the boolean ``mask`` is set, else 0, without a branch; in ``out``.

    The bits, as integers, are multiplied by 0 or 1: many times the speed of ``np.where`` with a
    random mask, and unlike a product of the numbers right for infinities and NaNs.
    """
    bits = _BITS[values.itemsize]
    out = np.empty_like(values) if out is None else out
    np.multiply(values.view(bits), mask.view(np.int8), out=out.view(bits))
    return out


def choose(mask: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    """``np.where(mask, yes, no)`` for arrays of one dtype, without a branch like ``keep``."""
    bits = _BITS[yes.itemsize]
    chosen = np.bitwise_xor(yes.view(bits), no.view(bits))
    chosen &= _all_bits(mask)
    chosen ^= no.view(bits)
    return chosen.view(yes.dtype)


def window_slices(
    size: int, stride: int, offset: int, start: int, stop: int
) -> tuple[slice, slice]:
    """Return which outputs of [start, stop) one tap serves, and the inputs that it reads.

    Output p reads input ``p * stride + offset``; those that read padding, beyond [0, size), are
    left out. The first slice counts from ``start``; both select the same number.
    """
    first = max(start, -(offset // stride))
    last = min(stop, (size - 1 - offset) // stride + 1)
    if first >= last:
        return slice(0), slice(0)
    begin = first * stride + offset
    end = (last - 1) * stride + offset + 1
    return slice(first - start, last - start), slice(begin, end, stride)

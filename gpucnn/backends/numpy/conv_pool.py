"""A convolution and the maxima of what it gives, taken block by block in the cache.

The convolution's output is in memory nowhere as a whole: what its algorithm has computed of it, a
block, is pooled where it lies, and only the maxima and their indices are written. An index may
depend on how numbers were rounded, which can make two of them equal. So bias and batch norm come
before the pool, as does the rounding to 16 bits; ReLU, which keeps the order, comes after it, where
there are fewer numbers.

The blocks are those of the convolution alone, and so is each bit of the results. Where windows
reach from one into another, as those that overlap do, the pool comes after the convolution.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...shapes import ConvShape, PoolShape
from ..base import Backend, accumulator
from . import buffers
from .blocks import rounded, wide
from .convolution import Finish, choose
from .convolution.workspace import workspace
from .memory import as_activation, pixel_major
from .pool import fold
from .pool_windows import Fold, folds_within

Folds = tuple[dict[tuple[int, int], Fold | None], ...]


@lru_cache(maxsize=512)
def fused(conv: ConvShape, pool: PoolShape, dtype: np.dtype, math: str) -> Folds | None:
    """Return how each block of a convolution's output is pooled; None if that cannot be done.

    A pure function; ``dtype`` is that of the sums.
    """
    if pool.mode not in ("max", "min"):
        return None
    places = choose("fprop", conv, dtype, math).places(conv, dtype, pool.strides[0])
    if places is None:
        return None
    rank = pool.rank  # of one dimension, an algorithm may have made two
    return folds_within(pool, [place[-1 - rank : -1] for place in places])


class Pooled(Finish):
    """A finish that pools each block into y and index, (*output, N, K), or y alone."""

    def __init__(
        self, pool: PoolShape, folds: Folds, y: np.ndarray, index: np.ndarray | None,
        bias: np.ndarray | None, activation: str,
    ) -> None:  # fmt: skip
        super().__init__(pool.batch, bias, activation)
        self.pool, self.folds, self.y, self.index = pool, folds, y, index
        self.multiple = pool.strides[0]

    def memory(self, y: np.ndarray, place: tuple[slice, ...]) -> np.ndarray:
        return workspace.take("to be pooled", y[place].shape, y.dtype)

    def __call__(self, block: np.ndarray, place: tuple[slice, ...]) -> None:
        *pixels, images = place[-1 - self.pool.rank :]
        folds = [of[piece.start, piece.stop] for of, piece in zip(self.folds, pixels, strict=True)]
        if None in folds:
            return  # no window reads it
        self.scale(block, images)
        block = wide(rounded(block, self.y.dtype))
        reads = tuple(
            slice(fold.inputs.start - piece.start, fold.inputs.stop - piece.start)
            for fold, piece in zip(folds, pixels, strict=True)
        )
        # (*pixels, n, K) -> (*inputs, n * K)
        block = block.reshape(*block.shape[-2 - len(pixels) : -2], -1)[reads]
        place = (*(fold.outputs for fold in folds), images)
        y, index = self.y[place], None if self.index is None else self.index[place]
        out = y if y.dtype == block.dtype else np.empty(y.shape, block.dtype)
        lanes = (*y.shape[:-2], -1)
        fold(
            block,
            folds,
            self.pool,
            out.reshape(lanes),
            None if index is None else index.reshape(lanes),
        )
        self.activate(out)
        if out is not y:
            y[...] = out


class ConvPools(Backend):
    """``conv_pool_forward``; its way back is composed of other operations."""

    def conv_pool_forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, conv: ConvShape, pool: PoolShape,
        activation: str = "linear", with_index: bool = True, math: str = "strict",
    ) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
        dtype = accumulator(x.dtype)
        folds = fused(conv, pool, dtype, math) if x.size else None
        if folds is None:
            return super().conv_pool_forward(x, w, b, conv, pool, activation, with_index, math)
        last, shape = conv.channels_last, (*pool.output, pool.batch, pool.channels)
        y = buffers.empty(shape, x.dtype)
        index = buffers.empty(shape, pool.index_dtype) if with_index else None
        bias = None if b is None else wide(b)
        finish = Pooled(pool, folds, y, index, bias, activation)
        # What the algorithm is to fill has a shape, but no memory
        nowhere = np.broadcast_to(dtype.type(0), (*conv.output, conv.batch, conv.filters))
        source = wide(pixel_major(x, last))
        choose("fprop", conv, dtype, math).fprop(source, wide(w), nowhere, conv, finish)
        return as_activation(y, last), None if index is None else as_activation(index, last)

"""A convolution with the batch norm and the pooling behind it, block by block in the cache.

What its algorithm has computed of y, a block, is normalised and pooled at once, and only maxima and
their indices are written: y is in memory nowhere as a whole. Rounding can make two numbers equal,
and so decide which is the first maximum. All that rounds is thus done before the pool; ReLU, which
cannot change the place of a maximum that it lets pass, is done behind it, to fewer numbers.

The blocks are those of the convolution alone, or cut where that tells in no sum, and so are the
numbers, but for the sign of a 0. Where windows reach from one into the next, as overlapping ones
do, the pool comes after the convolution. So it does where y is small, and stays in the cache, and
where an index is wanted of small blocks: that takes a dozen short calls of NumPy for each, in which
threads hinder each other.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ...shapes import ConvShape, PoolShape
from ..base import accumulator, pool_activates
from . import buffers
from .blocks import ALONE, LARGE, rounded, wide
from .conv import Convolutions
from .convolution import Finish, choose
from .convolution.workspace import workspace
from .memory import as_activation, pixel_major
from .norm import scale_and_shift
from .pool import fold
from .pool_windows import Fold, folds_within

SMALL = 2 * ALONE  # elements of y, which one thread pools in few long calls
INDEXED = LARGE  # elements of a block of which an index is wanted, at least

Folds = tuple[dict[tuple[int, int], Fold | None], ...]


@lru_cache(maxsize=512)
def folds_of(
    conv: ConvShape, pool: PoolShape, dtype: np.dtype, math: str, with_index: bool
) -> Folds | None:
    """Return how the blocks of y are pooled (``folds_within``), or None if it is pooled later.

    A pure function; ``dtype`` is that of the sums.
    """
    size = prod(conv.y_shape)
    if pool.mode not in ("max", "min") or size <= SMALL:
        return None
    places = choose("fprop", conv, dtype, math).places(conv, dtype, pool.strides[0])
    if places is None or (with_index and size < INDEXED * len(places)):
        return None
    # an algorithm may take one dimension for the second of two
    return folds_within(pool, [place[-1 - pool.rank : -1] for place in places])


class _Pooled(Finish):
    """A finish, made with ``steps``, that pools blocks into y and index, (*output, N, K).

    Without ``with_index``, into y alone.
    """

    def __init__(
        self, pool: PoolShape, folds: Folds, dtype: np.dtype, with_index: bool,
        steps: dict[str, Any],
    ) -> None:  # fmt: skip
        super().__init__(pool.batch, **steps)
        shape = *pool.output, pool.batch, pool.channels
        self.pool, self.folds = pool, folds
        self.multiple = pool.strides[0]
        self.y = buffers.empty(shape, dtype)
        self.index = buffers.empty(shape, pool.index_dtype) if with_index else None

    def memory(self, y: np.ndarray, place: tuple[slice, ...]) -> np.ndarray:
        return workspace.take("to be pooled", y[place].shape, y.dtype)

    def __call__(self, block: np.ndarray, place: tuple[slice, ...]) -> None:
        *pixels, images = place[-1 - self.pool.rank :]
        folds = [of[piece.start, piece.stop] for of, piece in zip(self.folds, pixels, strict=True)]
        if None in folds:
            return  # no window is in it
        self.scale(block, images)
        block = wide(rounded(block, self.y.dtype))
        # (*pixels, n, K) -> (*inputs, n * K)
        inputs = block.reshape(*block.shape[-2 - len(pixels) : -2], -1)[
            tuple(
                slice(axis.inputs.start - piece.start, axis.inputs.stop - piece.start)
                for axis, piece in zip(folds, pixels, strict=True)
            )
        ]
        outputs = *(axis.outputs for axis in folds), images
        y = self.y[outputs]
        out = y if y.dtype == block.dtype else np.empty(y.shape, block.dtype)
        best = None if self.index is None else _lanes(self.index[outputs])
        fold(inputs, folds, self.pool, _lanes(out), best)
        if best is not None and self.activation == "relu":
            np.copyto(best, self.pool.taps, where=~(_lanes(out) > 0))
        self.activate(out)
        if out is not y:
            y[...] = out


def _lanes(array: np.ndarray) -> np.ndarray:
    """View (*outputs, n, K) as (*outputs, n * K)."""
    return array.reshape(*array.shape[:-2], -1)


class FusedConvolutions(Convolutions):
    """``conv_pool_forward`` and ``conv_norm_infer``."""

    def conv_pool_forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, conv: ConvShape, pool: PoolShape,
        activation: str = "linear", with_index: bool = True, math: str = "strict",
    ) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
        steps = {"bias": None if b is None else wide(b), "activation": activation}
        return self._pooled(x, w, conv, pool, with_index, math, steps)

    def conv_norm_infer(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, conv: ConvShape,
        gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, epsilon: float,
        activation: str = "linear", math: str = "strict", pool: PoolShape | None = None,
    ) -> np.ndarray:  # fmt: skip
        scale, shift = scale_and_shift(gamma, beta, mean, var, epsilon)
        steps = {"bias": None if b is None else wide(b), "activation": activation}
        steps |= {"scale": scale, "shift": shift}
        if pool is None:
            return self._fprop(x, w, conv, Finish(conv.batch, **steps), math)
        return self._pooled(x, w, conv, pool, False, math, steps)[0]

    def _pooled(
        self, x: np.ndarray, w: np.ndarray, conv: ConvShape, pool: PoolShape, with_index: bool,
        math: str, steps: dict[str, Any],
    ) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
        dtype, last = accumulator(x.dtype), conv.channels_last
        folds = folds_of(conv, pool, dtype, math, with_index)
        if folds is None:
            behind = "linear"
            if with_index and pool_activates(pool):
                behind, steps["activation"] = steps["activation"], "linear"
            y = self._fprop(x, w, conv, Finish(conv.batch, **steps), math)
            return self.pool_forward(y, pool, with_index, behind)
        finish = _Pooled(pool, folds, x.dtype, with_index, steps)
        # of y the algorithm needs the shape alone: the memory of every place is the finish's
        y = np.broadcast_to(dtype.type(0), (*conv.output, conv.batch, conv.filters))
        source = wide(pixel_major(x, last))
        choose("fprop", conv, dtype, math).fprop(source, wide(w), y, conv, finish)
        index = None if finish.index is None else as_activation(finish.index, last)
        return as_activation(finish.y, last), index

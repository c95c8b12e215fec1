"""An activation as rows in which the channels recur, or as planes: blocks, sums, vectors along C.

Pixel-major memory, and C-contiguous memory with channels last, is a matrix of (pixels, C), which is
read as (rows, k * C) with the longest rows of about ``ROW`` elements that divide it. C-contiguous
memory with channels first is (N, C, L).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ...shapes import NormShape
from . import buffers
from .blocks import ALONE, blocks, pieces, share, wide
from .memory import is_pixel_major, pixel_axes

SIZE = 1 << 17  # elements of a block: with its scratch memory as many bytes as an L2 cache
ROW = 2048  # elements: an inner loop of as many steps hides what NumPy needs to start it
GROUPS = 16  # of blocks: so many sums are carried at most
FEW = 1 << 16  # elements that need no plan: a product with ones takes less time than to make one

Block = tuple[slice, ...]


@lru_cache
def _pixels_in_a_row(pixels: int, channels: int) -> int:
    """Return the largest divisor of ``pixels`` with which a row has at most ``ROW`` elements."""
    most = min(pixels, ROW // max(1, channels))
    return next((count for count in range(most, 1, -1) if pixels % count == 0), 1)


@lru_cache
def _ones(count: int, dtype: np.dtype) -> np.ndarray:
    return np.ones(count, dtype)


class Lanes:
    """How an operation along the channels walks through memory that is ordered as ``like``.

    ``view`` gives an array of like's shape as (rows, k * C) or (N, C, L); ``blocks`` cut that into
    pieces which fit in the cache.
    """

    def __init__(self, like: np.ndarray, shape: NormShape) -> None:
        last, self.channels, self.shape = shape.channels_last, shape.channels, like.shape
        pixel_major = is_pixel_major(like, last)
        self.alone = like.size <= ALONE  # too little to share
        self.axes = pixel_axes(like.ndim, last) if pixel_major else tuple(range(like.ndim))
        self.in_rows = last or pixel_major or shape.length == 1
        pixels = shape.batch * shape.length
        self.repeats = 1
        if self.in_rows:
            self.repeats = _pixels_in_a_row(pixels, shape.channels)
            width = self.repeats * shape.channels
            rows = pixels // self.repeats
            self.memory_shape = (rows, width)
            self.blocks = [(piece,) for piece in pieces(rows, SIZE // max(1, width))]
        else:
            self.memory_shape = shape.axes
            outer = blocks((shape.batch, shape.length), SIZE // max(1, shape.channels))
            self.blocks = [(samples, slice(None), positions) for samples, positions in outer]

    def empty(self, dtype: np.dtype) -> np.ndarray:
        """Return a new array of like's shape and order."""
        return buffers.empty_ordered(self.shape, self.axes, dtype)

    def view(self, array: np.ndarray) -> np.ndarray:
        """View an array of like's shape as rows or planes; a copy, if it lies in another way."""
        # (N, ..., C) or (N, C, ...) -> (*spatial, N, C) -> (rows, k * C); or -> (N, C, L)
        return np.ascontiguousarray(array.transpose(self.axes)).reshape(self.memory_shape)

    def along(self, vectors: np.ndarray) -> np.ndarray:
        """Repeat vectors (..., C) to broadcast over rows or planes."""
        if not self.in_rows:
            return vectors[..., None]
        repeated = np.empty((*vectors.shape[:-1], self.repeats, self.channels), vectors.dtype)
        repeated[...] = vectors[..., None, :]
        return repeated.reshape(*vectors.shape[:-1], -1)  # (..., k, C) -> (..., k * C)

    def sums(self, block: np.ndarray) -> np.ndarray:
        """Sum a block over its rows, as a product with ones, or planes: -> (k * C,) or (C,)."""
        if self.in_rows:
            return _ones(len(block), block.dtype) @ block
        return block.sum(2).sum(0)

    def totals(self, function: Callable[[Block], list[np.ndarray]], count: int) -> np.ndarray:
        """Add up what ``function`` returns of each block, ``count`` sums: -> (count, C), float64.

        A group of blocks has sums of its own, so that they are added in one order by any threads.
        """
        groups = pieces(len(self.blocks), -(-len(self.blocks) // GROUPS))
        parts = np.zeros((len(groups), count, self.repeats * self.channels))

        def fill(place: int) -> None:
            for block in self.blocks[groups[place]]:
                for total, terms in zip(parts[place], function(block), strict=True):
                    total += terms

        share(fill, range(len(groups)), self.alone)
        sums = parts.sum(0).reshape(count, self.repeats, self.channels)
        return _ones(self.repeats, sums.dtype) @ sums  # (k,) @ (count, k, C) -> (count, C)


def along_channels(vectors: np.ndarray, shape: NormShape) -> np.ndarray:
    """Shape vectors (..., C) to broadcast over ``shape.axes``."""
    return vectors[..., None, :] if shape.channels_last else vectors[..., None]


def sample_sums(part: np.ndarray, channels_last: bool) -> np.ndarray:
    """Sum a block over its positions: (n, l, C) or (n, C, l) -> (n, C)."""
    return part.sum(1 if channels_last else 2)


def bias_grad(dy: np.ndarray, shape: NormShape) -> np.ndarray:
    """Sum over all but the channels, in float64 at last."""
    if shape.channels_last and dy.size <= FEW and dy.flags.c_contiguous:  # of a dense layer
        rows = wide(dy.reshape(-1, shape.channels))
        return _ones(len(rows), rows.dtype) @ rows
    lanes = Lanes(dy, shape)
    view = lanes.view(dy)
    return lanes.totals(lambda block: [lanes.sums(wide(view[block]))], 1)[0]

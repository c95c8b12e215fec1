"""The tiles of the implicit GEMM, and how a matrix is cut into them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ....shapes import ConvShape
from ..kernel import Axis
from ..launch import ceil_div
from .base import Problem

TILE_K = 16  # as in kernels/tile_gemm.cuh
SKEW = 4

# Fewer blocks than this leave part of a large GPU idle (an H100 has 132 multiprocessors).
BLOCKS_WANTED = 264
# Pixels that one split of wgrad sums at least: less, and reducing the partials costs more.
PIXELS_PER_SPLIT = 512
# Partial sums of wgrad may take this much memory before splitting stops.
PARTIAL_ELEMENTS = 2**24


@dataclass(frozen=True)
class Tile:
    """A block's tile of the implicit GEMM, and the corner of it that one thread computes."""

    m: int
    n: int
    thread_m: int
    thread_n: int

    @property
    def threads(self) -> int:
        return (self.m // self.thread_m) * (self.n // self.thread_n)

    def shared_bytes(self, itemsize: int) -> int:
        """Return the bytes of both slabs, of accumulators of ``itemsize``."""
        return TILE_K * (self.m + self.n + 2 * SKEW) * itemsize


WIDE = Tile(128, 64, 8, 4)
NARROW = Tile(64, 16, 2, 2)  # few filters or channels in a group, or a small grid


def tile_axis(tiles: Iterable[Tile], tag: str = "", **macros: str) -> Axis:
    """Return the axis of kernels over these tiles, all with these macros."""
    return {
        tile: (
            f"{tag}{tile.m}x{tile.n}",
            {
                "TILE_M": tile.m,
                "TILE_N": tile.n,
                "THREAD_M": tile.thread_m,
                "THREAD_N": tile.thread_n,
                **macros,
            },
        )
        for tile in tiles
    }


TILES = tile_axis((WIDE, NARROW))


@dataclass(frozen=True)
class Matrix:
    """The sizes of the matrix products that a convolution is: as many as ``groups``, all alike."""

    m: int
    n: int
    k: int
    groups: int

    def grid(self, tile: Tile) -> tuple[int, int]:
        """Return the tiles of m times the products, and the tiles of n."""
        return ceil_div(self.m, tile.m) * self.groups, ceil_div(self.n, tile.n)


def matrix_of(problem: Problem) -> Matrix:
    """Return the product's sizes.

    fprop: output pixels x filters of a group, summed over the weights of a filter;
    dgrad: input pixels x channels of a group, summed over the weights of a channel, for each class
        of pixels that the same taps reach (see kernels/conv_dgrad.cu); the largest one is given;
    wgrad: weights of a filter x filters of a group, summed over the output pixels.
    """
    s: ConvShape = problem.shape
    channels, filters = s.channels // s.groups, s.filters // s.groups
    outputs = s.batch * math.prod(s.output)
    if problem.direction == "fprop":
        return Matrix(outputs, filters, s.taps * channels, s.groups)
    if problem.direction == "dgrad":
        inputs = s.batch * math.prod(map(ceil_div, s.input, s.strides))
        taps = math.prod(
            ceil_div(window, stride // math.gcd(stride, dilation))
            for window, stride, dilation in zip(s.kernel, s.strides, s.dilation, strict=True)
        )
        return Matrix(inputs, channels, taps * filters, s.groups * math.prod(s.strides))
    return Matrix(s.taps * channels, filters, outputs, s.groups)


def split_pixels(matrix: Matrix, tile: Tile) -> tuple[int, int]:
    """Return (splits, pixels of each) for wgrad, so that enough blocks run.

    Each split sums whole slabs of ``TILE_K``, so that only the last one has a ragged end.
    """
    x, y = matrix.grid(tile)
    splits = min(
        ceil_div(BLOCKS_WANTED, max(1, x * y)),
        ceil_div(matrix.k, PIXELS_PER_SPLIT),
        max(1, PARTIAL_ELEMENTS // max(1, matrix.m * matrix.n * matrix.groups)),
    )
    per_split = ceil_div(ceil_div(matrix.k, max(1, splits)), TILE_K) * TILE_K
    return ceil_div(matrix.k, per_split), per_split

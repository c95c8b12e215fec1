"""The tiles of the implicit GEMM, and how a matrix is cut into them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ....shapes import ConvShape
from ..kernel import Axis
from ..launch import ceil_div
from .base import MULTIPROCESSORS, PARTIAL_ELEMENTS, Problem

TILE_K = 16  # as in kernels/tile_gemm.cuh
# What tile_gemm_async.cuh knows of a row beforehand, or of four rows that lie together.
ROW_BYTES = {"fprop": (24, 8), "dgrad": (24, 4 / 4), "wgrad": (16 / 4, 4 / 4)}

# A split sums at least so many terms: with less, adding the splits up costs more.
TERMS_PER_SPLIT = 128


@dataclass(frozen=True)
class Tile:
    """A block's tile of the implicit GEMM, and how its threads share it.

    Attributes:
        m, n: rows and columns of a block.
        thread_m, thread_n: rows and columns of a thread.
        blocks: how many blocks a multiprocessor should hold.
        vector: neighbours in memory that are loaded together, which must all exist or none;
        vector_n: the same along n, where the operand or the result lies along it.
    """

    m: int
    n: int
    thread_m: int
    thread_n: int
    blocks: int
    vector: int = 1
    vector_n: int = 1

    @property
    def threads(self) -> int:
        return (self.m // self.thread_m) * (self.n // self.thread_n)

    def shared_bytes(self, itemsize: int, skew: int) -> int:
        """Return the bytes of two slabs of each operand, of accumulators of ``itemsize``.

        A column of both takes ``skew`` of them beside its rows.
        """
        return 2 * TILE_K * (self.m + self.n + skew) * itemsize

    def async_bytes(self, direction: str) -> int:
        """Return the bytes where float32 operands come by copies that need no registers."""
        row, column = ROW_BYTES[direction]
        rows = int(self.m * row + self.n * column)
        slabs = 2 if self.m + self.n > 192 else 3
        return slabs * TILE_K * (self.m + self.n) * 4 + rows


# Where the sizes are multiples of 8: loads of 16 bytes leave most of the loop to arithmetic.
TALL = Tile(128, 64, 8, 8, blocks=3, vector=8, vector_n=8)
SQUARE = Tile(64, 64, 8, 4, blocks=4, vector=8, vector_n=8)
SLIM = Tile(128, 32, 8, 4, blocks=4, vector=8, vector_n=8)
STRIP = Tile(128, 16, 8, 2, blocks=4, vector=8, vector_n=8)
THIN = Tile(256, 4, 4, 4, blocks=6, vector=8)  # a few filters or channels, as pictures have
# Many rows and columns: the fewest loads for a multiply-add, and four warps to a scheduler.
LARGE = Tile(128, 128, 8, 8, blocks=2, vector=8, vector_n=8)
WIDE = Tile(64, 128, 8, 8, blocks=3, vector=8, vector_n=8)  # few rows, as dense layers have
# The same with channels first, where pixels are loaded one by one, which takes more registers.
TALL_FIRST = replace(TALL, blocks=2)
SQUARE_FIRST = replace(SQUARE, blocks=3)
# Any sizes; the narrow one for few filters or channels in a group, or a small grid.
PLAIN = Tile(64, 64, 8, 4, blocks=3)
NARROW = Tile(64, 16, 4, 2, blocks=4)


def tile_axis(tiles: Iterable[Tile], tag: str = "", **macros: str) -> Axis:
    """Return the axis of kernels over these tiles, all with these macros."""
    return {
        tile: (
            f"{tag}{tile.m}x{tile.n}" + (f"_v{tile.vector}" if tile.vector > 1 else ""),
            {
                "TILE_M": tile.m,
                "TILE_N": tile.n,
                "THREAD_M": tile.thread_m,
                "THREAD_N": tile.thread_n,
                "BLOCKS": tile.blocks,
                "VECTOR": tile.vector,
                "VECTOR_N": tile.vector_n,
                **macros,
            },
        )
        for tile in tiles
    }


@dataclass(frozen=True)
class Matrix:
    """The sizes of the matrix products that a convolution is: as many as ``groups``, all alike."""

    m: int
    n: int
    k: int
    groups: int

    @property
    def multiply_adds(self) -> int:
        return self.m * self.n * self.k * self.groups

    def blocks(self, tile: Tile) -> int:
        """Return the tiles of all the products."""
        return ceil_div(self.m, tile.m) * ceil_div(self.n, tile.n) * self.groups

    def splits(self, tile: Tile) -> Iterator[tuple[int, int]]:
        """Yield (splits, terms of each): the whole sum at once, and what spreads evenly over a GPU.

        Its multiprocessors then have as many blocks each, one to twice what they hold at a time,
        and few stay behind. Each split sums whole slabs of ``TILE_K``, so that only the last one
        has a ragged end.
        """
        blocks = self.blocks(tile)
        most = min(
            ceil_div(self.k, TERMS_PER_SPLIT),
            max(1, PARTIAL_ELEMENTS // (self.m * self.n * self.groups)),
        )
        wanted = (MULTIPROCESSORS * each // blocks for each in range(1, 2 * tile.blocks + 1))
        seen = {}
        for splits in sorted({1, *(min(most, max(1, count)) for count in wanted)}):
            terms = ceil_div(ceil_div(self.k, splits), TILE_K) * TILE_K
            seen[ceil_div(self.k, terms)] = terms
        yield from seen.items()


def matrix_of(problem: Problem) -> Matrix:
    """Return the product's sizes, none of them 0.

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


def vectors_fit(problem: Problem, tile: Tile) -> bool:
    """Return whether a tile's vectors of neighbours all exist or none, wherever they begin."""
    s = problem.shape
    channels, filters = s.channels // s.groups, s.filters // s.groups
    if s.channels_last:
        deep, wide = (filters, channels) if problem.direction == "dgrad" else (channels, filters)
        return deep % tile.vector == 0 and wide % tile.vector_n == 0
    # what lies along pixels is loaded one by one, but for dy where it is read unshifted
    lengths = {"fprop": s.taps * channels, "dgrad": channels, "wgrad": math.prod(s.output)}
    return lengths[problem.direction] % tile.vector == 0

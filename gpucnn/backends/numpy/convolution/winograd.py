"""Winograd's algorithms F(2x2, 3x3) and F(4x4, 3x3), and F(2, 3) and F(4, 3) in one dimension.

The tiles of a map are transformed, multiplied by the transformed filters, component by component,
and folded into tiles of the result (see ``cook_toom``): 2.25 and 4 times fewer multiplications than
in the direct sum, 1.44 and 1.78 times fewer with strides of 2. The gradient of the input is the
same with the taps reversed and the two channel axes of the filters swapped.

Errors in float32, root mean square against float64, as a multiple of those of a matrix product over
columns (by OpenBLAS, which sums some 300 terms in one piece), for normal data and 64 filters:

    channels              16    64   128   256   512
    F(2x2, 3x3)  fprop  0.79  0.89  0.78  0.78  0.80
                 wgrad  0.82  0.83  0.76  0.83  0.83
    F(4x4, 3x3)  fprop  2.50  2.67  3.07  2.99  2.94
                 wgrad  2.40  2.40  1.89  1.64  2.41

With strides of 2 those of F(4x4, 3x3) are two thirds of that. Where half of the inputs are 0, as
after ReLU, all are 1.2 to 1.5 times that: a zero has no rounding error, but a tile with one has.
Beside a sum in one piece, F(4x4, 3x3) has 2.5 times the error for 16 channels, 1.9 times for 64 and
0.9 times for 512. The multiples are much the same in float64, and up to 1.3 times as large with
the BLAS of an Arm.

An infinity or a NaN reaches all of its tile. Work is shared in blocks of tiles, each from its
pixels to its finished results in the cache. Where the transformed filters would be larger than all
else, it is shared in rows of components instead, so that they are never in memory as a whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ....shapes import ConvShape
from .. import workers
from .base import Algorithm, Finish
from .winograd_filters import Filters, multiply, some_components
from .winograd_memory import components
from .winograd_tiles import Block, Plan, plan
from .winograd_transforms import fold_columns, fold_rows, transform
from .winograd_wgrad import wgrad
from .workspace import workspace

MIN_CHANNELS = 16
MIN_PIXELS = 64  # that wgrad sums: in a sum of fewer the rounding errors of a tile would show
FOLDED_BYTES = 1 << 24  # of all tiles' rows of components that wait to be folded


class Winograd(Algorithm):
    """fprop, dgrad and wgrad by F(m x m, 3 x 3)."""

    def __init__(self, m: int) -> None:
        self.name = f"winograd{m}"
        self.m = m

    def suits(self, direction: str, shape: ConvShape, dtype: np.dtype) -> bool:
        return self.computes(direction, shape) and self.pays(direction, shape)

    def computes(self, direction: str, shape: ConvShape) -> bool:
        """Return whether it can, with errors no larger than above."""
        axes = zip(
            shape.input, shape.output, shape.strides, shape.padding, shape.dilation, strict=True
        )
        return (
            shape.kernel in ((3,), (3, 3))
            and shape.groups == 1
            and shape.batch > 0
            and (direction != "wgrad" or shape.batch * math.prod(shape.output) >= MIN_PIXELS)
            and min(shape.channels, shape.filters) >= MIN_CHANNELS
            and all(
                (stride == 1 or (stride == 2 and dilation == 1))
                # No sum, of taps or of pixels, is empty: what should be 0 would have the rounding
                # errors of its tile.
                and max(pad) <= 2 * dilation < min(size, count)
                for size, count, stride, pad, dilation in axes
            )
        )

    def pays(self, direction: str, shape: ConvShape) -> bool:
        """Return whether it is quicker than products over columns, by measurements.

        There have to be tiles enough for the transforms of the filters, runs of memory long enough
        for those of the tiles, and work enough for all the calls. F(2x2, 3x3) is for gradients of
        many filters and so few tiles that the larger ones of F(4x4, 3x3) would not pay, and for
        strides of 2 where the nine components along an axis would be too many, or hardly fewer.
        """
        filters = shape.channels * shape.filters
        channels = min(shape.channels, shape.filters)
        run = shape.batch * channels
        if 2 in shape.strides:
            tiles = shape.batch * _products(shape.output, 2, 1)
            if self.m == 4 and (
                filters > (1 << 13 if direction == "wgrad" else 1 << 14)  # too many to transform
                or _products(shape.output, 4, 9) >= _products(shape.output, 2, 5)
            ):
                return False  # F(2x2, 3x3) is quicker
            enough = tiles >= 24 + filters // 4096 and (channels >= 64 or run >= 256)
            return enough and tiles * run >= 4096
        size = shape.input if direction == "dgrad" else shape.output
        tiles = shape.batch * _products(size, self.m, 1)
        if self.m == 2:
            return direction != "fprop" and filters >= 1 << 16 and tiles >= 16
        enough = tiles >= 8 + filters // (16384 if direction == "wgrad" else 32768)
        return enough and run >= 32 and tiles * run >= 1024

    def fprop(
        self, x: np.ndarray, w: np.ndarray, y: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        p = plan(shape, "fprop", self.m, x.dtype)
        _convolve(p, x, Filters(w, swapped=False), y, finish)

    def places(
        self, shape: ConvShape, dtype: np.dtype, multiple: int
    ) -> list[tuple[slice, slice, slice]]:
        p = plan(shape, "fprop", self.m, dtype)
        if p.by_components:
            return [block.pixels(row) for block in p.blocks for row in block.each_row()]
        return [block.pixels(block.rows) for block in p.blocks]

    def dgrad(
        self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        p = plan(shape, "dgrad", self.m, dy.dtype)
        _convolve(p, dy, Filters(w, swapped=True), dx, finish)

    def wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        return wgrad(plan(shape, "wgrad", self.m, x.dtype), _lifted(x), _lifted(dy), shape)


def _products(size: Sequence[int], m: int, components: int) -> int:
    """Return how many products a map of this size takes, with so many components along an axis."""
    return math.prod(math.ceil(pixels / m) * components for pixels in size)


def _lifted(pixels: np.ndarray) -> np.ndarray:
    """View (W, N, C) as (1, W, N, C)."""
    return pixels[None] if pixels.ndim == 3 else pixels


def _convolve(p: Plan, x: np.ndarray, filters: Filters, y: np.ndarray, finish: Finish) -> None:
    compute = _by_components if p.by_components else _by_blocks
    compute(p, _lifted(x), filters, _lifted(y), finish)


def _by_blocks(p: Plan, x: np.ndarray, filters: Filters, y: np.ndarray, finish: Finish) -> None:
    tall, wide = p.points
    u = filters.transformed(p.filters)

    def part(index: int) -> None:
        block, tiles = p.blocks[index], p.tiles[index]
        points = components("winograd points", (tall * wide, tiles, x.shape[-1]), x.dtype)
        products = _product_memory(tall * wide, len(p.depths), tiles, y)
        size = (tall * p.outputs[1], tiles, y.shape[-1])
        folded = components("winograd folded", size, x.dtype)
        folded = folded.reshape(tall, p.outputs[1], *size[1:])
        transform(x, block.reading, block, slice(0, tall), points)
        multiply(points, u, p.depths, products)
        fold_columns(products, p.fold, folded)
        fold_rows(folded, block.rows, y, block, finish)

    workers.run(part, len(p.blocks))


def _product_memory(count: int, pieces: int, tiles: int, y: np.ndarray) -> np.ndarray:
    """Return scratch memory for the products of components, (components, pieces, T, K)."""
    size = (count * pieces, tiles, y.shape[-1])
    return components("winograd products", size, y.dtype).reshape(count, pieces, *size[1:])


def _by_components(p: Plan, x: np.ndarray, filters: Filters, y: np.ndarray, finish: Finish) -> None:
    """Compute some blocks at a time: first their components, row by row, then their pixels."""
    taps = filters.arranged()
    a_tile = p.points[0] * p.outputs[1] * y.shape[-1] * y.itemsize
    at_a_time = max(1, FOLDED_BYTES // (a_tile * max(p.tiles)))
    for first in range(0, len(p.blocks), at_a_time):
        some = slice(first, first + at_a_time)
        blocks, tiles = p.blocks[some], p.tiles[some]
        shape = (p.points[0], p.outputs[1], sum(tiles), y.shape[-1])
        folded = workspace.take("winograd folded", shape, x.dtype)
        ends = itertools.accumulate(tiles)
        places = [slice(end - count, end) for count, end in zip(tiles, ends, strict=True)]
        _rows_of_components(p, blocks, places, x, y, filters.panels, taps, folded)
        _rows_of_pixels(blocks, places, folded, y, finish)


def _rows_of_components(
    p: Plan, blocks: Sequence[Block], places: list[slice], x: np.ndarray, y: np.ndarray,
    panels: list[slice], taps: np.ndarray, folded: np.ndarray,
) -> None:  # fmt: skip
    """Fill ``folded`` (a, m, T, K) with the components of blocks whose tiles have these places."""
    tall, wide = p.points

    def part(index: int) -> None:
        row, block = divmod(index, len(blocks))
        matrix = p.filters[row * wide : (row + 1) * wide]
        block, place = blocks[block], places[block]
        tiles = place.stop - place.start
        points = components("winograd points", (wide, tiles, x.shape[-1]), x.dtype)
        products = _product_memory(wide, len(p.depths), tiles, y)
        transform(x, block.reading, block, slice(row, row + 1), points)
        for panel, columns in zip(taps, panels, strict=True):
            u = some_components(panel, matrix)
            multiply(points, u, p.depths, products[..., columns])
        fold_columns(products, p.fold, folded[row : row + 1, :, place])

    workers.run(part, tall * len(blocks))


def _rows_of_pixels(
    blocks: Sequence[Block], places: list[slice], folded: np.ndarray, y: np.ndarray, finish: Finish
) -> None:
    """Fold the components of blocks into their pixels of y."""
    rows = [(i, row) for i, block in enumerate(blocks) for row in block.each_row()]

    def part(index: int) -> None:
        i, row = rows[index]
        fold_rows(folded[:, :, places[i]], row, y, blocks[i], finish)

    workers.run(part, len(rows))

"""Any convolution, as matrix products over cache-sized blocks of pixels.

The columns of a block have one row a pixel and image, one column a tap and channel (Chellapilla et
al., "High performance convolutional neural networks for document processing", 2006):

    y[block]  = columns(x) @ w^T           (rows, T*C) @ (T*C, K)
    dx[block] = columns(dy) @ w            (rows, T*K) @ (T*K, C)    for each residue of the strides
    dw       += dy[block]^T @ columns(x)   (K, rows) @ (rows, T*C)

The matrix of all pixels would be T times the input. Here a block's is, and where many channels
would leave it few rows, it takes a box of the taps at a time and adds up the products.

What a tap reads for a row of pixels with stride 1 is a matrix already, with nothing to copy. A
product a tap, added to the result, is then the quicker way to as few channels or fewer: to add T
results costs less than to copy T inputs. Groups are a leading axis of every product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ....shapes import ConvShape
from ..blas_probe import SMALL
from ..blocks import blocks, pieces
from ..workers import run
from .base import Algorithm, Finish
from .windows import Block, Gather, backward, columns, forward, windows
from .workspace import workspace

COLUMN_BYTES = 1 << 21
RESULT_BYTES = 1 << 19  # of a block of results to which products are added
ROWS = 256  # with fewer, a product would take longer to read the filters than to compute
SHORT = 64  # rows, below which a product of one row of pixels would be
MANY_ROWS = 1024  # from here on the products' gain pays for transposing the filters
PARTS = 16  # enough to keep every thread busy to the end
PART_WORK = 1 << 22  # multiply-adds: a part of less would not be worth its start
PRODUCT_WORK = 1 << 22  # multiply-adds: nor would a product of less
PARTIAL_BYTES = 1 << 21  # of all partial sums of dw


def _size(box: Block) -> int:
    return math.prod(piece.stop - piece.start for piece in box)


def _boxes(taps: Sequence[int], depth: int, itemsize: int) -> list[Block]:
    """Cut the taps into boxes that leave the columns at least ``ROWS`` rows."""
    return list(blocks(taps, max(1, COLUMN_BYTES // (ROWS * depth * itemsize))))


def _rows(width: int, itemsize: int) -> int:
    """Return how many rows of so many columns there are in a block."""
    return max(ROWS, COLUMN_BYTES // (width * itemsize))


class _Gather:
    """Fill target (*counts, N, K) from source (*size, N, C) and filters (G, *taps, C/G, K/G)."""

    def __init__(
        self,
        source: np.ndarray,
        filters: np.ndarray,
        target: np.ndarray,
        axes: tuple[Gather, ...],
        finish: Finish,
    ) -> None:
        self.source, self.target, self.axes, self.finish = source, target, axes, finish
        self.groups, *taps, depth, self.width = filters.shape
        *outer, inner, images = target.shape[:-1]
        in_place = (
            all(axis.stride == 1 for axis in axes)
            and self.width <= depth <= SMALL // (SHORT * self.width)
            and inner * images >= SHORT
        )
        work = depth * target.shape[-1]  # the multiply-adds of a row and tap
        limit = -(-math.prod(target.shape[:-1]) // PARTS)
        if in_place:
            self.boxes = list(blocks(taps, 1))
            limit = min(limit, RESULT_BYTES // (target.shape[-1] * target.itemsize))
            limit = max(limit, SHORT, PRODUCT_WORK // work)
            short = min(limit, SMALL // (depth * self.width))
            rows = list(blocks((inner, images), short))
            outers = blocks(outer, max(1, limit // _size(rows[0]))) if rows else ()
            self.parts = [(*planes, *row) for planes in outers for row in rows]
            self.multiply = self.multiply_rows
        else:
            self.boxes = _boxes(taps, source.shape[-1], target.itemsize)
            width = max(map(_size, self.boxes), default=1) * source.shape[-1]
            limit = min(limit, _rows(width, target.itemsize))
            limit = max(limit, SHORT, PART_WORK // (work * math.prod(taps) + 1))
            self.parts = list(blocks(target.shape[:-1], limit))
            self.multiply = self.multiply_columns
        # (G, *taps, C/G, K/G) -> a box's (G, T*C/G, K/G)
        every = (slice(None),)
        self.filters = [
            filters[every + box].reshape(self.groups, -1, self.width) for box in self.boxes
        ]

    def multiply_rows(self, view: np.ndarray, filters: np.ndarray, out: np.ndarray) -> None:
        """out = view @ filters, with a view of one tap: a product for each row of pixels."""
        *outer, inner, images = out.shape[:-1]
        rows = (*outer, inner * images, self.groups, -1)
        filters = filters.reshape(self.groups, *(1 for _ in outer), *filters.shape[1:])
        # (G, *outer, w*n, C/G) @ (G, 1, C/G, K/G) -> (G, *outer, w*n, K/G)
        np.matmul(
            np.moveaxis(view.reshape(rows), -2, 0), filters,
            out=np.moveaxis(out.reshape(rows), -2, 0),
        )  # fmt: skip

    def multiply_columns(self, view: np.ndarray, filters: np.ndarray, out: np.ndarray) -> None:
        # (G, rows, T*C/G) @ (G, T*C/G, K/G) -> (G, rows, K/G)
        rows = out.reshape(-1, self.groups, self.width).swapaxes(0, 1)
        np.matmul(columns(view), filters, out=rows)

    def __call__(self, part: int) -> None:
        block = self.parts[part]
        result = out = self.target[block]
        if not result.flags.c_contiguous:
            out = workspace.take("result", result.shape, result.dtype)
        if not self.boxes:
            out[...] = 0
        else:
            view = windows(self.source, self.axes, block, self.groups)
        for box, filters in zip(self.boxes, self.filters, strict=True):
            taps = view[(..., *box, slice(None), slice(None))]
            if box is self.boxes[0]:
                self.multiply(taps, filters, out)
            else:
                more = workspace.take("product", out.shape, out.dtype)
                self.multiply(taps, filters, more)
                np.add(out, more, out=out)
        self.finish(out, block)
        if out is not result:
            result[...] = out


def _gather(*arguments: object) -> None:
    gather = _Gather(*arguments)
    run(gather, len(gather.parts))


class Taps(Algorithm):
    """Columns of blocks; for every shape."""

    name = "taps"

    def suits(self, direction: str, shape: ConvShape, dtype: np.dtype) -> bool:
        return True

    def fprop(
        self, x: np.ndarray, w: np.ndarray, y: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        # (G, K/G, *kernel, C/G) -> (G, *kernel, C/G, K/G)
        filters = np.moveaxis(_by_group(w, shape.groups), 1, -1)
        if math.prod(y.shape[:-1]) >= MANY_ROWS:
            filters = np.ascontiguousarray(filters)
        _gather(x, filters, y, forward(shape), finish)

    def dgrad(
        self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        # (G, K/G, *kernel, C/G) -> (G, *kernel, K/G, C/G)
        filters = np.moveaxis(_by_group(w, shape.groups), 1, -2)
        for axes in backward(shape):
            target = dx[tuple(axis.target for axis in axes)]
            part = filters[(slice(None), *(axis.filter for axis in axes))]
            _gather(dy, part, target, axes, finish)

    def wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        groups, kernel = shape.groups, shape.kernel
        depth, width = shape.channels // groups, shape.filters // groups
        axes = forward(shape)
        size = math.prod(shape.w_shape) * x.itemsize
        boxes = _boxes(kernel, shape.channels, x.itemsize)
        limit = _rows(max(map(_size, boxes)) * shape.channels, x.itemsize)
        parts = list(blocks((*shape.output, shape.batch), limit))
        sums = max(1, min(PARTS, PARTIAL_BYTES // size, shape.multiply_adds // PART_WORK))
        shares = pieces(len(parts), -(-len(parts) // sums))
        partial = np.zeros((len(shares), groups, width, *kernel, depth), x.dtype)

        def compute(part: int) -> None:
            box, share = boxes[part % len(boxes)], part // len(boxes)
            dw = partial[(share, slice(None), slice(None), *box)]
            more = workspace.take("product", dw.shape, dw.dtype)
            for block in parts[shares[share]]:
                view = windows(x, axes, block, groups)
                matrix = columns(view[(..., *box, slice(None), slice(None))])
                # (*counts, n, K) -> (G, K/G, rows)
                rows = dy[block].reshape(-1, groups, width).transpose(1, 2, 0)
                # (G, K/G, rows) @ (G, rows, T*C/G) -> (G, K/G, T*C/G)
                np.matmul(rows, matrix, out=more.reshape(groups, width, -1))
                np.add(dw, more, out=dw)

        run(compute, len(boxes) * len(shares))
        return summed(partial).reshape(shape.w_shape)


def _by_group(w: np.ndarray, groups: int) -> np.ndarray:
    """View filters (K, *kernel, C/G) as (G, K/G, *kernel, C/G)."""
    return w.reshape(groups, -1, *w.shape[1:])


def summed(partial: np.ndarray) -> np.ndarray:
    """Add up the first axis, in order."""
    total = np.zeros(partial.shape[1:], partial.dtype)
    for more in partial:
        total += more
    return total

"""Convolution of few channels, like the first of a network, in one or two dimensions.

With three channels the window of a pixel is no run worth copying: here the pixels and images of a
row of outputs are the runs. For each row of the input the columns hold

    columns[h, c, s, (q, n)] = x[h, q * stride - pad + s, n, c]

and R rows of them, which lie together, are the transposed columns (R*C*S, Q*N) of one row of
outputs. Its neighbour has the same rows but one: they are copied once for all. So

    y[p]  = columns[p]^T @ w          (Q*N, R*C*S) @ (R*C*S, K)
    dw   += columns[p] @ dy[p]        (R*C*S, Q*N) @ (Q*N, K)
    w @ dy[p]^T                       (R*C*S, K) @ (K, Q*N), each of its runs added to the run of
                                      dx[h, c] that a column was copied from

A part of dgrad makes a region of dx, from all dy that reaches it: parts that meet both compute the
products between them. In one dimension there is one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ....shapes import ConvShape
from ..blas_probe import SMALL, small_products_pay
from ..blocks import blocks, pieces
from ..workers import run
from .base import Algorithm, Finish
from .workspace import workspace

CHANNELS = 16  # from so many on a pixel's channels are a run
PARTS = 8
PART_WORK = 8 << 20  # a part of less would not be worth its start
COPY_WORK = 16  # multiply-adds in the time that it takes to copy a column's element
COLUMN_BYTES = 1 << 20
PRODUCT_BYTES = 1 << 21
SHORT = 32  # rows, below which a small product wastes its kernel
PARTIAL_BYTES = 1 << 21  # of all partial sums of dw
GAP = 16  # elements between runs: a power of two would map them all to one set of the cache


@dataclass(frozen=True)
class _Axis:
    size: int
    count: int
    window: int
    stride: int
    pad: int

    def clipped(self, start: int, step: int, count: int) -> tuple[slice, slice]:
        """Of pixels start, start + step, ... return which are in the input, and their numbers."""
        first = min(count, max(0, -(start // step)))
        last = max(first, min(count, (self.size - 1 - start) // step + 1))
        begin = start + first * step
        return slice(begin, begin + (last - first) * step, step), slice(first, last)

    def reaching(self, piece: slice) -> slice:
        """Return the outputs whose windows have a pixel in a piece of the input."""
        first = max(0, -((self.window - 1 - self.pad - piece.start) // self.stride))
        last = min(self.count, (piece.stop - 1 + self.pad) // self.stride + 1)
        return slice(first, max(first, last))


def _plane(shape: ConvShape) -> tuple[_Axis, _Axis]:
    """Return the axes of height and width; in one dimension the height is 1."""
    axes = [
        _Axis(size, count, window, stride, pad)
        for size, count, window, stride, (pad, _) in zip(
            shape.input, shape.output, shape.kernel, shape.strides, shape.padding, strict=True
        )
    ]
    return (_Axis(1, 1, 1, 1, 0), *axes)[-2:]


def _planar(array: np.ndarray) -> np.ndarray:
    """View (W, N, C) as (1, W, N, C); (H, W, N, C) is itself."""
    return array if array.ndim == 4 else array[None]


def _extent(piece: slice) -> int:
    return piece.stop - piece.start


def _zeros(*shape: int, dtype: np.dtype) -> np.ndarray:
    """Return planes (rows, C, phases, pixels of a phase, n) in scratch memory.

    With a stride of two, phase 0 has the pixels 0, 2, 4, ... and phase 1 has 1, 3, 5, ...: so what
    a tap reads for a row of outputs is one run.
    """
    planes = workspace.take("planes", shape, dtype)
    planes[...] = 0
    return planes


def _run_of(tap: int, width: _Axis, planes: np.ndarray, pixels: slice, first: int) -> np.ndarray:
    """View what a tap reads for outputs of a row: (rows, C, q, n); the planes begin with one's."""
    begin = pixels.start - first + tap // width.stride
    return planes[:, :, tap % width.stride, begin : begin + _extent(pixels)]


def _work(shape: ConvShape) -> int:
    """Return the work at an output pixel of an image, in multiply-adds."""
    return shape.channels * shape.taps * (shape.filters + COPY_WORK)


def _parts(shape: ConvShape, itemsize: int) -> list[tuple[slice, slice, slice]]:
    """Cut the outputs (P, Q, N) into parts whose columns fit the cache."""
    height, width = _plane(shape)
    pixel = shape.channels * width.window * itemsize  # its columns in one row of the input
    total = height.count * width.count * shape.batch
    share = max(-(-total // PARTS), PART_WORK // _work(shape))
    most = max(1, min(share, COLUMN_BYTES // (pixel * height.window)))
    runs = list(blocks((width.count, shape.batch), most))
    longest = max((_extent(pixels) * _extent(images) for pixels, images in runs), default=1)
    tall = COLUMN_BYTES // (pixel * longest)
    rows = min(share // longest, (tall - height.window) // height.stride + 1)
    return [(rows, *rest) for rows in pieces(height.count, rows) for rest in runs]


def _columns(x: np.ndarray, part: tuple[slice, slice, slice], shape: ConvShape) -> np.ndarray:
    """Return the columns of some rows of outputs: (rows, R*C*S, q*n), which overlap."""
    height, width = _plane(shape)
    rows, pixels, images = part
    length = _extent(pixels) * _extent(images)
    tall = (_extent(rows) - 1) * height.stride + height.window
    wide = _extent(pixels) + (width.window - 1) // width.stride
    planes = _zeros(tall, shape.channels, width.stride, wide, _extent(images), dtype=x.dtype)
    seen, near = height.clipped(rows.start * height.stride - height.pad, 1, tall)
    for phase in range(width.stride):
        left = pixels.start * width.stride - width.pad + phase
        far, here = width.clipped(left, width.stride, wide)
        # (rows, pixels, n, C) -> (rows, C, pixels, n)
        planes[near, :, phase, here] = x[seen, far, images].transpose(0, 3, 1, 2)
    columns = workspace.take("columns", (tall, shape.channels, width.window, length + GAP), x.dtype)
    for tap in range(width.window):
        run_of_tap = _run_of(tap, width, planes, pixels, pixels.start)
        columns[:, :, tap, :length] = run_of_tap.reshape(tall, shape.channels, length)
    row, _, apart, one = columns.strides
    return as_strided(
        columns,
        (_extent(rows), shape.channels * shape.taps, length),
        (row * height.stride, apart, one),
    )


def _run_length(length: int, work: int) -> int:
    """Return the longest equal runs that small products can have; or the whole length."""
    if small_products_pay():
        for run_length in range(min(length, SMALL // work), SHORT - 1, -1):
            if length % run_length == 0:
                return run_length
    return length


def _filters(w: np.ndarray, shape: ConvShape) -> np.ndarray:
    """Reorder filters (K, R, S, C) to (R*C*S, K)."""
    filters = w.reshape(shape.filters, -1, shape.kernel[-1], shape.channels)
    return np.ascontiguousarray(filters.transpose(1, 3, 2, 0)).reshape(-1, shape.filters)


def _products(
    dy: np.ndarray, filters: np.ndarray, rows: slice, pixels: slice, shape: ConvShape
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield some of the rows of dy and w @ dy[rows, pixels]^T: (rows, R, C, S, q, n)."""
    depth, length = filters.shape[1], _extent(pixels) * shape.batch
    run_length = _run_length(length, depth * shape.filters)
    most = max(1, PRODUCT_BYTES // (depth * length * dy.itemsize))
    for start in range(rows.start, rows.stop, most):
        some = slice(start, min(start + most, rows.stop))
        memory = workspace.take("product", (_extent(some), depth, length + GAP), dy.dtype)
        out = memory[..., :length]
        # (R*C*S, K) @ (rows, runs, K, run) -> (rows, runs, R*C*S, run)
        runs = dy[some, pixels].reshape(_extent(some), -1, run_length, shape.filters)
        by_run = out.reshape(_extent(some), depth, -1, run_length).swapaxes(1, 2)
        np.matmul(filters.T, runs.swapaxes(2, 3), out=by_run)
        window = (-1, shape.channels, shape.kernel[-1])
        yield some, out.reshape(_extent(some), *window, _extent(pixels), shape.batch)


class FewChannels(Algorithm):
    """Columns of rows that neighbours share; for less than 16 channels."""

    name = "few_channels"

    def suits(self, direction: str, shape: ConvShape, dtype: np.dtype) -> bool:
        return (
            shape.rank <= 2
            and shape.channels < CHANNELS
            and shape.groups == 1
            and set(shape.dilation) == {1}
        )

    def fprop(
        self, x: np.ndarray, w: np.ndarray, y: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        parts, filters = _parts(shape, x.itemsize), _filters(w, shape)
        x, y = _planar(x), _planar(y)

        def compute(number: int) -> None:
            columns, out = _columns(x, parts[number], shape), y[parts[number]]
            count, depth, length = columns.shape
            run_length = _run_length(length, depth * shape.filters)
            # (rows, R*C*S, q*n) -> (rows, runs, run, R*C*S); @ (R*C*S, K)
            runs = columns.reshape(count, depth, -1, run_length).transpose(0, 2, 3, 1)
            np.matmul(runs, filters, out=out.reshape(count, -1, run_length, shape.filters))
            finish(out, parts[number][-1])

        run(compute, len(parts))

    def dgrad(
        self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        if not shape.batch:
            return
        height, width = _plane(shape)
        filters = np.ascontiguousarray(_filters(w, shape).T)  # (K, R*C*S)
        dy, dx = _planar(dy), _planar(dx)
        area = height.size * width.size
        work = shape.batch * math.prod(shape.output) * _work(shape)
        share = max(-(-area // PARTS), PART_WORK * area // work)
        most = COLUMN_BYTES // (shape.channels * shape.batch * dx.itemsize)
        parts = list(blocks((height.size, width.size), max(1, min(share, most))))

        def compute(number: int) -> None:
            piece, across = parts[number]
            rows, pixels = height.reaching(piece), width.reaching(across)
            # The planes hold the part and all that the windows of these outputs reach.
            top = min(piece.start, rows.start * height.stride - height.pad)
            first = min(pixels.start, (across.start + width.pad) // width.stride)
            left = first * width.stride - width.pad
            tall = max(piece.stop, rows.stop * height.stride - height.pad + height.window) - top
            wide = max(-(-(across.stop - left) // width.stride), pixels.stop - first + width.window)
            planes = _zeros(tall, shape.channels, width.stride, wide, shape.batch, dtype=dx.dtype)
            for some, products in _products(dy, filters, rows, pixels, shape):
                start = some.start * height.stride - height.pad - top
                stop = start + (_extent(some) - 1) * height.stride + 1
                for r, s in np.ndindex(height.window, width.window):
                    reached = _run_of(s, width, planes, pixels, first)
                    target = reached[start + r : stop + r : height.stride]
                    np.add(target, products[:, r, :, s], out=target)
            for phase in range(width.stride):
                skipped = max(0, -((left + phase - across.start) // width.stride))
                begin = left + phase + skipped * width.stride
                target = dx[piece, begin : across.stop : width.stride]
                # (rows, C, pixels, n) -> (rows, pixels, n, C)
                source = planes[piece.start - top : piece.stop - top, :, phase, skipped:]
                target[...] = source[:, :, : target.shape[1]].transpose(0, 2, 3, 1)
            finish(dx[piece, across])

        run(compute, len(parts))

    def wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        parts, depth = _parts(shape, x.itemsize), shape.channels * shape.taps
        x, dy = _planar(x), _planar(dy)
        sums = max(1, min(PARTS, PARTIAL_BYTES // (depth * shape.filters * x.itemsize)))
        shares = pieces(len(parts), -(-len(parts) // sums))
        partial = np.zeros((max(1, len(shares)), depth, shape.filters), x.dtype)

        def compute(share: int) -> None:
            for part in parts[shares[share]]:
                columns = _columns(x, part, shape)
                count, _, length = columns.shape
                run_length = _run_length(length, depth * shape.filters)
                runs = columns.reshape(count, depth, -1, run_length).swapaxes(1, 2)
                rows = dy[part].reshape(count, -1, run_length, shape.filters)
                more = workspace.take("product", (*rows.shape[:2], *partial.shape[1:]), x.dtype)
                # (rows, runs, R*C*S, run) @ (rows, runs, run, K)
                np.matmul(runs, rows, out=more)
                for product in more.reshape(-1, *partial.shape[1:]):
                    partial[share] += product

        run(compute, len(shares))
        for more in partial[1:]:
            partial[0] += more
        # (R, C, S, K) -> (K, R, S, C)
        dw = partial[0].reshape(-1, shape.channels, shape.kernel[-1], shape.filters)
        return dw.transpose(3, 0, 2, 1).reshape(shape.w_shape)

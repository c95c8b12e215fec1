"""dgrad of few channels: products of dy, whose runs are added to where a window had them from.

Of a row p of dy, w @ dy[p]^T has a run of (q, n) for each tap and channel,

    (R*C*S, K) @ (K, Q*N)

each of which is added to a run of the planes of dx. Where there are few filters it is quicker to
lay dy out like the planes, (p, K, (q, n)). The rows of dy that reach row h then lie together, and
their sum over r is the product's:

    e[h] = w @ dy[h - R + 1 : h + 1]      (C*S, R*K) @ (R*K, Q*N)

so that only the taps of a row are left to be added. With a stride the rows of dx go by residues, as
in ``windows``.

A region of dx is made from all of dy that reaches it: regions that meet both compute the products
between them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ....shapes import ConvShape
from ..workers import run
from .base import Finish
from .few_channels_plan import GAP, Region, extent, plane, regions_of, run_length
from .windows import Gather, residues, view
from .workspace import workspace

PRODUCT_BYTES = 1 << 21
COPY = 2  # additions in the time that it takes to copy an element to another order

# Rows of the planes of dx, and what to add to them: (rows, C, S, q, n).
Sums = Iterator[tuple[slice, np.ndarray]]


def _products(filters: np.ndarray, source: np.ndarray, pixels: int, shape: ConvShape) -> np.ndarray:
    """Return filters (D, E) @ source (rows, E, q*n), as (rows, ..., C, S, q, n)."""
    rows, depth, length = source.shape
    size = run_length(length, filters.size)
    out = workspace.take("product", (rows, len(filters), length + GAP), source.dtype)
    out = out[..., :length]
    # (D, E) @ (rows, runs, E, run) -> (rows, runs, D, run)
    runs = source.reshape(rows, depth, -1, size).swapaxes(1, 2)
    np.matmul(filters, runs, out=out.reshape(rows, len(filters), -1, size).swapaxes(1, 2))
    return out.reshape(rows, -1, shape.channels, shape.kernel[-1], pixels, shape.batch)


def _by_taps(dy: np.ndarray, filters: np.ndarray, region: Region, shape: ConvShape) -> Sums:
    """Yield what each row of windows adds, of filters (R*C*S, K)."""
    height, _ = plane(shape)
    length = extent(region.pixels) * shape.batch
    most = max(1, PRODUCT_BYTES // (len(filters) * length * dy.itemsize))
    for begin in range(region.rows.start, region.rows.stop, most):
        rows = slice(begin, min(begin + most, region.rows.stop))
        # (rows, q, n, K) -> (rows, K, q*n)
        source = dy[rows, region.pixels].reshape(extent(rows), length, -1).swapaxes(1, 2)
        products = _products(filters, source, extent(region.pixels), shape)
        start = begin * height.stride - height.pad - region.top
        stop = start + (extent(rows) - 1) * height.stride + 1
        for r in range(height.window):
            yield slice(start + r, stop + r, height.stride), products[:, r]


def _by_rows(
    dy: np.ndarray, filters: list[tuple[Gather, np.ndarray]], region: Region, shape: ConvShape
) -> Sums:
    """Yield sums over r for rows of dx, of filters (C*S, taps*K) for each residue."""
    height, width = plane(shape)
    length, stride = extent(region.pixels) * shape.batch, height.stride
    apart = length + GAP
    line = max(shape.filters, shape.channels * width.window) * length * dy.itemsize
    most = max(1, PRODUCT_BYTES // line - height.window // stride) * stride
    for begin in range(region.piece.start, region.piece.stop, most):
        piece = slice(begin, min(begin + most, region.piece.stop))
        first, last = height.windows(piece)
        seen = height.reaching(piece)
        lines = workspace.take("lines", (last - first, shape.filters, apart), dy.dtype)
        lines[: seen.start - first] = lines[seen.stop - first :] = 0
        # (rows, q, n, K) -> (rows, K, q*n)
        rows = dy[seen, region.pixels].reshape(extent(seen), length, -1)
        lines[seen.start - first : seen.stop - first, :, :length] = rows.swapaxes(1, 2)
        for axis, matrix in filters:
            # Row stride * j + residue of dx is the residue's j-th.
            residue = axis.target.start
            start = begin + (residue - begin) % stride
            rows = slice(start - region.top, piece.stop - region.top, stride)
            count = len(range(start, piece.stop, stride))
            if count:
                offset = (start - residue) // stride + axis.offset - first
                # (rows, taps*K, q*n), each of them a step on from the row before
                source = view(
                    lines,
                    (count, axis.taps * shape.filters, length),
                    (shape.filters * apart, apart, 1),
                    offset * shape.filters * apart,
                )
                yield rows, _products(matrix, source, extent(region.pixels), shape)[:, 0]


def _few_filters(shape: ConvShape) -> bool:
    """Return whether to lay dy out anew costs less than to add up the rows of windows."""
    height, width = plane(shape)
    return COPY * shape.filters < (height.window - height.stride) * width.window * shape.channels


def dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish) -> None:
    """Fill dx (H, W, N, C) from dy (P, Q, N, K)."""
    height, width = plane(shape)
    # (K, R, S, C) -> (C, S, R, K)
    w = w.reshape(shape.filters, -1, width.window, shape.channels).transpose(3, 2, 1, 0)
    if _few_filters(shape):
        of_height = height.size, height.count, height.window, height.stride, height.pad
        sums, filters = _by_rows, []
        for axis in residues(*of_height, dilation=1):
            if axis.taps:
                # (C, S, taps, K) -> (C*S, taps*K)
                some = np.ascontiguousarray(w[:, :, axis.filter])
                filters.append((axis, some.reshape(-1, axis.taps * shape.filters)))
    else:
        # (C, S, R, K) -> (K, R*C*S): OpenBLAS is quicker with both factors transposed than with one
        taps = np.ascontiguousarray(w.transpose(3, 2, 0, 1))
        sums, filters = _by_taps, taps.reshape(shape.filters, -1).T
    regions = regions_of(shape, dx.itemsize)

    def compute(number: int) -> None:
        region = regions[number]
        planes = workspace.take("planes", region.planes, dx.dtype)
        planes[...] = 0
        reached = extent(region.rows) and extent(region.pixels)
        for rows, terms in sums(dy, filters, region, shape) if reached else ():
            for s in range(width.window):
                begin = region.pixels.start - region.first + s // width.stride
                run_of_tap = slice(begin, begin + extent(region.pixels))
                target = planes[rows, :, s % width.stride, run_of_tap]
                np.add(target, terms[:, :, s], out=target)
        for source, place in region.stores:
            # (rows, C, pixels, n) -> (rows, pixels, n, C)
            dx[place] = planes[source].transpose(0, 2, 3, 1)
        finish(dx[region.piece, region.across])

    run(compute, len(regions))

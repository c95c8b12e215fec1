"""Convolution by a window of one pixel, of any strides: a matrix product. A dense layer is one.

    y  = x @ w^T      (rows, C) @ (C, K)
    dx = dy @ w       (rows, K) @ (K, C); between the strides zero
    dw = dy^T @ x     (K, rows) @ (rows, C)

Rows are the pixels and images. A large product copies ("packs") both factors to where its kernel
finds them in order (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication",
2008). With so few channels that costs a fifth of the time; where the BLAS has kernels for small
products, many of those with panels of some 64 columns do without.
"""

from __future__ import annotations

import math

import numpy as np

from ....shapes import ConvShape
from ..blas_probe import PANEL, SMALL, small_products_pay
from ..blocks import blocks, pieces
from ..workers import run
from .base import Algorithm, Finish
from .windows import backward
from .workspace import workspace

PARTS = 16  # enough to keep every thread busy to the end
FEW_PARTS = 8  # where more parts are more work: sums of dw, or the same rows once more
PART_WORK = 1 << 23  # multiply-adds: a part of less would not be worth its start
PART_BYTES = 1 << 21  # of the rows that a part reads and writes
MANY_ROWS = 512  # from here on the gain of panels pays for transposing the filters
FEW_ROWS = 16  # with fewer, a small product wastes its kernel
PARTIAL_BYTES = 1 << 21  # of all partial sums of dw


def _panel(columns: int) -> int:
    """Return the width of panels, all alike, of so many columns: near 64, or 0 for none."""
    if columns <= PANEL * 3 // 2:
        return columns
    widths = range(PANEL * 3 // 2, PANEL // 2 - 1, -1)
    return min((n for n in widths if columns % n == 0), key=lambda n: abs(n - PANEL), default=0)


def _rows(array: np.ndarray) -> np.ndarray:
    """Return (*counts, n, C) as (rows, C); a copy in scratch memory of what lies apart."""
    if not array.flags.c_contiguous:
        near = workspace.take("rows", array.shape, array.dtype)
        near[...] = array
        array = near
    return array.reshape(-1, array.shape[-1])


def _multiply(rows: np.ndarray, panels: np.ndarray, out: np.ndarray, most: int) -> None:
    """out = rows (m, C) @ panels (P, C, width), by products of a panel and at most so many rows."""
    count, depth, width = panels.shape
    height = -(-len(rows) // -(-len(rows) // most))
    height = min(len(rows), -(-height // FEW_ROWS) * FEW_ROWS)
    whole = len(rows) - len(rows) % height
    for part, tall in ((slice(whole), height), (slice(whole, None), len(rows) - whole)):
        if tall:
            # (q, 1, m, C) @ (P, C, width) -> (q, P, m, width)
            target = out[part].reshape(-1, tall, count, width).swapaxes(1, 2)
            np.matmul(rows[part].reshape(-1, 1, tall, depth), panels, out=target)


def _product(source: np.ndarray, matrix: np.ndarray, target: np.ndarray, finish: Finish) -> None:
    """Fill target (*counts, N, K) from source (*counts, N, C) and matrix (C, K)."""
    depth, columns = matrix.shape
    total = math.prod(target.shape[:-1])
    if total < MANY_ROWS or total * matrix.size < PART_WORK:
        _small_product(source, matrix, target, finish)
        return
    if source.flags.c_contiguous and target.flags.c_contiguous:
        # (*counts, N, C) -> (pixels, N, C), which can be cut into equal parts
        source, target = (each.reshape(-1, *each.shape[-2:]) for each in (source, target))
    limit = min(-(-total // PARTS), PART_BYTES // (target.itemsize * (depth + columns)))
    limit = max(limit, PART_WORK // (depth * columns), MANY_ROWS // PARTS)
    parts = list(blocks(target.shape[:-1], limit))
    width = _panel(columns)
    most = SMALL // (depth * width) // FEW_ROWS * FEW_ROWS if width else 0
    if most and small_products_pay():
        # (C, P, width) -> (P, C, width)
        panels = np.ascontiguousarray(matrix.reshape(depth, -1, width).swapaxes(0, 1))
    else:
        panels, most = np.ascontiguousarray(matrix)[None], total

    def compute(part: int) -> None:
        block = parts[part]
        result = out = target[block]
        if not result.flags.c_contiguous:
            out = workspace.take("result", result.shape, result.dtype)
        _multiply(_rows(source[block]), panels, out.reshape(-1, columns), most)
        finish(out, block)
        if out is not result:
            result[...] = out

    run(compute, len(parts))


def _small_product(
    source: np.ndarray, matrix: np.ndarray, target: np.ndarray, finish: Finish
) -> None:
    """The same of few rows or columns: each part makes some columns, and no factor is copied."""
    columns = matrix.shape[1]
    rows = _rows(source)
    out = target if target.flags.c_contiguous else np.empty(target.shape, target.dtype)
    flat = out.reshape(-1, columns)
    parts = pieces(columns, max(-(-columns // FEW_PARTS), PART_WORK // (1 + rows.size)))
    run(lambda i: np.matmul(rows, matrix[:, parts[i]], out=flat[:, parts[i]]), len(parts))
    finish(out)
    if out is not target:
        target[...] = out


def _clear(target: np.ndarray, finish: Finish) -> None:
    parts = pieces(len(target), -(-len(target) // PARTS))

    def compute(part: int) -> None:
        block = target[parts[part]]
        block[...] = 0
        finish(block)

    run(compute, len(parts))


def _read(x: np.ndarray, shape: ConvShape) -> np.ndarray:
    """View the pixels of x that y reads."""
    if set(shape.strides) == {1}:
        return x
    return x[tuple(slice(None, None, stride) for stride in shape.strides)]


class Pointwise(Algorithm):
    """Products of panels; for windows of one pixel."""

    name = "pointwise"

    def suits(self, direction: str, shape: ConvShape, dtype: np.dtype) -> bool:
        padded = any(before or after for before, after in shape.padding)
        return shape.taps == 1 and shape.groups == 1 and not padded

    def fprop(
        self, x: np.ndarray, w: np.ndarray, y: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        _product(_read(x, shape), w.reshape(len(w), -1).T, y, finish)

    def dgrad(
        self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        matrix = w.reshape(len(w), -1)
        if set(shape.strides) == {1}:
            _product(dy, matrix, dx, finish)
            return
        for axes in backward(shape):
            target = dx[tuple(axis.target for axis in axes)]
            if all(axis.taps for axis in axes):
                _product(dy, matrix, target, finish)
            else:
                _clear(target, finish)

    def wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        x = _read(x, shape)
        if x.flags.c_contiguous:
            x, dy = _rows(x), _rows(dy)  # (rows, C), (rows, K)
            if shape.multiply_adds < PART_WORK:
                # (K, rows) @ (rows, C) -> (K, C); NumPy hands the BLAS no product of one row
                product = np.multiply if len(x) == 1 else np.matmul
                return product(dy.T, x).reshape(shape.w_shape)
        filters, channels = shape.filters, shape.channels
        work = shape.multiply_adds // PART_WORK
        size = filters * channels * x.itemsize
        sums = max(1, min(FEW_PARTS, work, PARTIAL_BYTES // size))
        limit = -(-math.prod(x.shape[:-1]) // sums)
        if x.ndim > 2:  # its rows are gathered in scratch memory
            limit = min(limit, PART_BYTES // (channels * x.itemsize))
        parts = list(blocks(x.shape[:-1], max(MANY_ROWS, limit)))
        shares = pieces(len(parts), -(-len(parts) // sums))
        columns = pieces(filters, filters * len(shares) // max(1, min(FEW_PARTS, work)))
        partial = np.zeros((max(1, len(shares)), filters, channels), x.dtype)

        def compute(part: int) -> None:
            share, some = shares[part // len(columns)], columns[part % len(columns)]
            dw = partial[part // len(columns), some]
            for number in range(share.start, share.stop):
                # (K, rows) @ (rows, C) -> (K, C)
                block = parts[number]
                left, right = _rows(dy[block])[:, some].T, _rows(x[block])
                if number == share.start:
                    np.matmul(left, right, out=dw)
                else:
                    more = workspace.take("product", dw.shape, dw.dtype)
                    np.add(dw, np.matmul(left, right, out=more), out=dw)

        run(compute, len(shares) * len(columns))
        for more in partial[1:]:
            partial[0] += more
        return partial[0].reshape(shape.w_shape)

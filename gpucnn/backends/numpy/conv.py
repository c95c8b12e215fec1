"""Convolution as matrix products over blocks of columns (see ``columns``).

    y  = columns @ w^T      fprop    (rows, T*C) @ (T*C, K)
    dw = dy^T @ columns     wgrad    (K, rows) @ (rows, T*C), summed over the blocks in order

dgrad with stride 1 is an fprop of dy whose filters are turned around and whose C and K are
exchanged (Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, section
4). Otherwise, or where that would be more work, each tap's product dy @ w[tap] is added to the
inputs that the tap read, in the order of blocks and taps.

Channels first is a permuted view of the same, and groups are a leading axis of every product. With
a group a channel the products would be too small: see ``depthwise``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ...shapes import ConvShape, NormShape
from ..base import accumulator
from . import depthwise
from .blocks import pieces, rounded, store, wide, window_slices
from .channels import bias_grad
from .columns import (
    Block,
    channels_last,
    column_blocks,
    output_blocks,
    rows_at_a_time,
    spatial_axes,
)


def _is_depthwise(shape: ConvShape) -> bool:
    return shape.groups == shape.channels > 1


def _transposed(shape: ConvShape) -> ConvShape | None:
    """Return the fprop that is this dgrad, if there is one and it is no more work."""
    padding = tuple(
        (dilation * (window - 1) - before, dilation * (window - 1) - after)
        for window, dilation, (before, after) in zip(
            shape.kernel, shape.dilation, shape.padding, strict=True
        )
    )
    more_work = shape.taps > 1 and shape.filters > shape.channels
    if more_work or set(shape.strides) != {1} or min(map(min, padding)) < 0:
        return None
    return replace(
        shape, channels=shape.filters, filters=shape.channels, input=shape.output, padding=padding
    )


def _turned(w: np.ndarray, groups: int) -> np.ndarray:
    """Exchange filters and channels within each group and turn the window around."""
    filters, *kernel, depth = w.shape
    w = w.reshape(groups, filters // groups, math.prod(kernel), depth)[:, :, ::-1]
    # (G, K/G, T, C/G) -> (G, C/G, T, K/G) -> (C, *kernel, K/G)
    return w.swapaxes(1, 3).reshape(groups * depth, *kernel, filters // groups)


def _add_taps(taps: Iterable[np.ndarray], dx: np.ndarray, block: Block, shape: ConvShape) -> None:
    """Add each tap's (n, *outputs, C) of a block to the inputs that it read, in order."""
    images, *outputs = block
    places = []
    for output, axis in zip(outputs, spatial_axes(shape), strict=True):
        size, window, stride, (pad, _), dilation = axis
        offsets = [tap * dilation - pad for tap in range(window)]
        places.append(
            [window_slices(size, stride, offset, output.start, output.stop) for offset in offsets]
        )
    for tap, place in zip(taps, itertools.product(*places), strict=True):
        served, read = zip(*place, strict=True)
        dx[(images, *read)] += tap[(slice(None), *served)]


class Convolutions:
    """``conv_fprop``, ``conv_dgrad``, ``conv_wgrad`` and ``bias_grad``."""

    def conv_fprop(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, shape: ConvShape
    ) -> np.ndarray:
        y = np.empty(shape.y_shape, x.dtype)
        x, target = channels_last(x, shape), channels_last(y, shape)
        bias = None if b is None else wide(b)
        if _is_depthwise(shape):
            for block, product in depthwise.fprop_blocks(x, w, shape):
                if bias is not None:
                    product += bias
                store(target[block], product)
            return y
        dtype, groups = accumulator(x.dtype), shape.groups
        in_place = x.dtype == dtype and target.flags.c_contiguous
        # (K, *kernel, C/G) -> (G, T*C/G, K/G)
        filters = wide(w).reshape(groups, shape.filters // groups, -1).swapaxes(1, 2)
        for block, columns in column_blocks(x, shape):
            part = target[block]  # (n, *outputs, K)
            product = part if in_place else np.empty(part.shape, dtype)
            out = product.reshape(-1, groups, shape.filters // groups)
            np.matmul(columns, filters, out=out.swapaxes(0, 1))
            if bias is not None:
                product += bias
            if not in_place:
                store(part, product)
        return y

    def conv_dgrad(
        self, dy: np.ndarray, w: np.ndarray, b: np.ndarray | None, shape: ConvShape
    ) -> np.ndarray:
        transposed = None if _is_depthwise(shape) else _transposed(shape)
        if transposed is not None:
            return self.conv_fprop(dy, _turned(w, shape.groups), b, transposed)
        dx = np.zeros(shape.x_shape, dy.dtype)
        dy, target = channels_last(dy, shape), channels_last(dx, shape)
        dtype, groups = accumulator(dy.dtype), shape.groups
        in_place = dy.dtype == dtype and target.flags.c_contiguous
        # (K, *kernel, C/G) -> (T, G, K/G, C/G)
        filters = wide(w).reshape(groups, shape.filters // groups, shape.taps, -1)
        filters = np.ascontiguousarray(filters.transpose(2, 0, 1, 3))
        columns = shape.taps * shape.channels
        for images in pieces(
            shape.batch, rows_at_a_time(columns) // max(1, math.prod(shape.output))
        ):
            part = target[images]
            total = part if in_place else np.zeros(part.shape, dtype)
            inner = replace(shape, batch=len(part))
            for block in output_blocks(inner, columns):
                piece = wide(dy[images][block])
                if _is_depthwise(shape):
                    taps = depthwise.tap_products(piece, filters)
                else:
                    # (G, rows, K/G) @ (T, G, K/G, C/G) -> (T, G, rows, C/G)
                    taps = np.empty((shape.taps, *piece.shape[:-1], shape.channels), dtype)
                    rows = piece.reshape(-1, groups, shape.filters // groups).swapaxes(0, 1)
                    out = taps.reshape(shape.taps, -1, groups, shape.channels // groups)
                    np.matmul(rows, filters, out=out.swapaxes(1, 2))
                _add_taps(taps, total, block, inner)
            if b is not None:
                total += wide(b)
            if not in_place:
                store(part, total)
        return dx

    def conv_wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        x, dy = channels_last(x, shape), channels_last(dy, shape)
        if _is_depthwise(shape):
            dw = depthwise.wgrad(x, dy, shape)
            return rounded(dw, x.dtype).reshape(shape.w_shape)
        groups = shape.groups
        dw = None
        for block, columns in column_blocks(x, shape):
            rows = wide(dy[block]).reshape(-1, groups, shape.filters // groups)
            # (G, K/G, rows) @ (G, rows, T*C/G)
            product = np.matmul(rows.transpose(1, 2, 0), columns)
            dw = product if dw is None else np.add(dw, product, out=dw)
        if dw is None:  # an empty batch
            return np.zeros(shape.w_shape, x.dtype)
        return rounded(dw, x.dtype).reshape(shape.w_shape)

    def bias_grad(self, dy: np.ndarray, shape: NormShape) -> np.ndarray:
        return rounded(bias_grad(dy, shape), dy.dtype)

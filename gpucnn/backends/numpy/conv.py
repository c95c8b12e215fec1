"""Convolution as matrix products over blocks of columns (see ``columns``).

    y   = columns @ w^T     fprop    (rows, T*C) @ (T*C, K)
    dx += dy @ w[tap]       dgrad    (rows, K) @ (K, C), added to the inputs that the tap read, in
                                     the order of blocks and taps
    dw += dy^T @ columns    wgrad    (K, rows) @ (rows, T*C), in the order of blocks

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
from .blocks import pieces, rounded, wide, window_slices
from .channels import bias_grad, by_channel
from .columns import (
    Block,
    channels_last,
    column_blocks,
    is_pointwise,
    output_blocks,
    rows_at_a_time,
    scratch,
    spatial_axes,
)


def _is_depthwise(shape: ConvShape) -> bool:
    return shape.groups == shape.channels > 1


def _by_group(pixels: np.ndarray, groups: int) -> np.ndarray:
    """View pixels (..., channels) as (G, rows, channels / G)."""
    return pixels.reshape(-1, groups, pixels.shape[-1] // groups).swapaxes(0, 1)


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


def _scatter(dy: np.ndarray, filters: np.ndarray, dx: np.ndarray, shape: ConvShape) -> None:
    """Add the dx of some images to ``dx``, which is zero; filters are (T, G, K/G, C/G)."""
    for block in output_blocks(shape, shape.taps * shape.channels):
        part = wide(dy[block])
        if _is_depthwise(shape):
            taps = depthwise.tap_products(part, filters[..., 0])
        else:
            taps = scratch.take((shape.taps, *part.shape[:-1], shape.channels), dx.dtype)
            out = taps.reshape(shape.taps, -1, *filters.shape[1::2]).swapaxes(1, 2)
            # (G, rows, K/G) @ (T, G, K/G, C/G) -> (T, G, rows, C/G)
            np.matmul(_by_group(part, shape.groups), filters, out=out)
        _add_taps(taps, dx, block, shape)


class Convolutions:
    """``conv_fprop``, ``conv_dgrad``, ``conv_wgrad`` and ``bias_grad``."""

    def conv_fprop(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, shape: ConvShape,
        activation: str = "linear",
    ) -> np.ndarray:  # fmt: skip
        y = np.empty(shape.y_shape, x.dtype)
        x, target = channels_last(x, shape), channels_last(y, shape)
        dtype, groups = accumulator(x.dtype), shape.groups
        in_place = x.dtype == dtype and target.flags.c_contiguous
        bias = None if b is None else wide(b)
        if _is_depthwise(shape):
            blocks = depthwise.tap_blocks(x, shape)
            filters = depthwise.tap_filters(w, shape)
        else:
            blocks = column_blocks(x, shape)
            # (K, *kernel, C/G) -> (G, T*C/G, K/G)
            filters = wide(w).reshape(groups, shape.filters // groups, -1).swapaxes(1, 2)
        for block, source in blocks:
            part = target[block]  # (n, *outputs, K)
            product = part if in_place else np.empty(part.shape, dtype)
            if _is_depthwise(shape):
                depthwise.fprop(source, filters, product)
            else:  # (G, rows, T*C/G) @ (G, T*C/G, K/G)
                np.matmul(source, filters, out=_by_group(product, groups))
            if bias is not None:
                by_channel(np.add, product, bias, product)
            if activation == "relu":
                np.maximum(product, 0, out=product)
            if not in_place:
                part[...] = product
        return y

    def conv_dgrad(
        self, dy: np.ndarray, w: np.ndarray, b: np.ndarray | None, shape: ConvShape
    ) -> np.ndarray:
        dx = np.zeros(shape.x_shape, dy.dtype)
        dy, target = channels_last(dy, shape), channels_last(dx, shape)
        dtype, groups = accumulator(dy.dtype), shape.groups
        in_place = dy.dtype == dtype and target.flags.c_contiguous
        # (K, *kernel, C/G) -> (T, G, K/G, C/G)
        filters = wide(w).reshape(groups, shape.filters // groups, shape.taps, -1)
        filters = np.ascontiguousarray(filters.transpose(2, 0, 1, 3))
        bias = None if b is None else wide(b)
        one_product = is_pointwise(shape) and not _is_depthwise(shape)
        size = rows_at_a_time(shape.taps * shape.channels) // max(1, math.prod(shape.output))
        for images in pieces(shape.batch, shape.batch if one_product and in_place else size):
            part = target[images]
            total = part if in_place else np.zeros(part.shape, dtype)
            if one_product:
                rows = _by_group(wide(dy[images]), groups)
                np.matmul(rows, filters[0], out=_by_group(total, groups))
            else:
                _scatter(dy[images], filters, total, replace(shape, batch=len(part)))
            if bias is not None:
                by_channel(np.add, total, bias, total)
            if not in_place:
                part[...] = total
        return dx

    def conv_wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        x, dy = channels_last(x, shape), channels_last(dy, shape)
        if _is_depthwise(shape):
            return rounded(depthwise.wgrad(x, dy, shape), x.dtype)
        dw = None
        for block, columns in column_blocks(x, shape):
            rows = _by_group(wide(dy[block]), shape.groups)
            product = np.matmul(rows.swapaxes(1, 2), columns)  # (G, K/G, rows) @ (G, rows, T*C/G)
            dw = product if dw is None else np.add(dw, product, out=dw)
        if dw is None:  # an empty batch
            return np.zeros(shape.w_shape, x.dtype)
        return rounded(dw, x.dtype).reshape(shape.w_shape)

    def bias_grad(self, dy: np.ndarray, shape: NormShape) -> np.ndarray:
        return rounded(bias_grad(dy, shape), dy.dtype)

"""Depthwise convolution: a group for each channel, with m = K / C filters.

A product of matrices would have one column, so here each tap multiplies a shifted view of the
input by its C * m weights and adds it to the sum, over blocks that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...shapes import ConvShape
from ..base import accumulator
from .blocks import wide
from .columns import Block, input_patch, output_blocks, patch_windows, scratch

TEMPORARIES = 4  # arrays of the size of a block's output that are in use at once


def tap_blocks(x: np.ndarray, shape: ConvShape) -> Iterator[tuple[Block, list[np.ndarray]]]:
    """Yield each block of outputs with, for each tap, the inputs that it reads.

    These are views of shape (n, *outputs, C, 1) of ``x`` (channels last) or its padded copy.
    """
    outputs = (slice(None),) * (2 + shape.rank)
    for block in output_blocks(shape, TEMPORARIES * shape.filters):
        counts = tuple(axis.stop - axis.start for axis in block)
        windows = patch_windows(input_patch(x, block, shape), counts, shape)
        taps = np.ndindex(shape.kernel)
        yield block, [np.moveaxis(windows[(*outputs, *tap)], 0, -2) for tap in taps]


def tap_filters(w: np.ndarray, shape: ConvShape) -> np.ndarray:
    """Reorder filters (K, *kernel, 1) to (T, C, m)."""
    return wide(w).reshape(shape.channels, -1, shape.taps).transpose(2, 0, 1).copy()


def fprop(views: list[np.ndarray], filters: np.ndarray, y: np.ndarray) -> None:
    """Write a block of y (n, *outputs, K) from the views and filters (T, C, m)."""
    y = y.reshape(*views[0].shape[:-1], filters.shape[-1])
    product = scratch.take(y.shape, y.dtype)
    # The filters repeated along the last output axis make the inner loop that much longer.
    rows = np.broadcast_to(filters[:, None], (len(filters), *y.shape[-3:]))
    for tap, (view, row) in enumerate(zip(views, rows, strict=True)):
        if tap == 0:
            np.multiply(view, row.copy(), out=y)
        else:
            y += np.multiply(view, row.copy(), out=product)


def tap_products(dy: np.ndarray, filters: np.ndarray) -> Iterator[np.ndarray]:
    """Yield each tap's part of dx: dy (n, *outputs, C * m) * filters (T, C, m), summed over m."""
    dy = dy.reshape(*dy.shape[:-1], *filters.shape[1:])
    product = scratch.take(dy.shape, dy.dtype)
    for tap in filters:
        np.multiply(dy, np.broadcast_to(tap, dy.shape[-3:]).copy(), out=product)
        yield product[..., 0] if filters.shape[-1] == 1 else product.sum(-1)


def wgrad(x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
    """Return dw (``w_shape``) in the dtype of the sums."""
    dw = np.zeros((shape.taps, shape.filters), accumulator(x.dtype))
    for block, views in tap_blocks(x, shape):
        part = wide(dy[block])
        part = part.reshape(*part.shape[:-1], shape.channels, -1)
        product = scratch.take(part.shape, part.dtype)
        rows = product.reshape(-1, shape.filters)
        ones = np.ones(len(rows), rows.dtype)
        for tap, view in enumerate(views):
            np.multiply(view, part, out=product)
            dw[tap] += ones @ rows
    return np.ascontiguousarray(dw.T).reshape(shape.w_shape)

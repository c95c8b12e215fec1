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
from .columns import Block, input_patch, output_blocks, patch_windows

TEMPORARIES = 4  # arrays of the size of a block's output that are in use at once


def _tap_views(x: np.ndarray, block: Block, shape: ConvShape) -> Iterator[np.ndarray]:
    """Yield the inputs that each tap reads for a block of outputs, (n, *outputs, C, 1)."""
    counts = tuple(axis.stop - axis.start for axis in block)
    windows = patch_windows(input_patch(x, block, shape), counts, shape)
    outputs = (slice(None),) * (2 + shape.rank)
    for tap in np.ndindex(shape.kernel):
        yield np.moveaxis(windows[(*outputs, *tap)], 0, -2)


def fprop_blocks(
    x: np.ndarray, w: np.ndarray, shape: ConvShape
) -> Iterator[tuple[Block, np.ndarray]]:
    """Yield each block of outputs with its y (n, *outputs, K)."""
    # (K, *kernel, 1) -> (T, C, m)
    weights = wide(w).reshape(shape.channels, -1, shape.taps).transpose(2, 0, 1).copy()
    for block in output_blocks(shape, TEMPORARIES * shape.filters):
        total = None
        for view, weight in zip(_tap_views(x, block, shape), weights, strict=True):
            if total is None:
                total = np.multiply(view, weight, order="C")
                product = np.empty_like(total)
            else:
                total += np.multiply(view, weight, out=product)
        yield block, total.reshape(*total.shape[:-2], shape.filters)


def tap_products(dy: np.ndarray, filters: np.ndarray) -> Iterator[np.ndarray]:
    """Yield each tap's part of dx, the sum over m of dy (n, *outputs, C * m) * w (T, C, m, 1)."""
    weights = filters[..., 0]
    dy = dy.reshape(*dy.shape[:-1], *weights.shape[1:])
    for weight in weights:
        product = dy * weight
        yield product[..., 0] if weight.shape[-1] == 1 else product.sum(-1)


def wgrad(x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
    """Return dw (K, T) in the dtype of the sums."""
    dw = np.zeros((shape.taps, shape.filters), accumulator(x.dtype))
    for block in output_blocks(shape, TEMPORARIES * shape.filters):
        piece = wide(dy[block])
        piece = piece.reshape(*piece.shape[:-1], shape.channels, -1)
        product = np.empty(piece.shape, piece.dtype)
        ones = np.ones(piece[..., 0, 0].size, piece.dtype)
        for tap, view in enumerate(_tap_views(x, block, shape)):
            np.multiply(view, piece, out=product)
            dw[tap] += ones @ product.reshape(-1, shape.filters)
    return np.ascontiguousarray(dw.T)

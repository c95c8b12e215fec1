"""Winograd's algorithm for the gradient of the filters.

It is the transpose of that for the result with regard to the filters:

    dw = G^T [ sum over the tiles of (A dy A^T) * (B^T x B) ] G

and the sum, of outer products of channels, is a matrix product for each component.
"""

from __future__ import annotations

import numpy as np

from ....shapes import ConvShape
from .. import workers
from ..blas_probe import SMALL
from ..blocks import pieces
from .winograd_filters import panel_width
from .winograd_memory import components
from .winograd_tiles import Plan
from .winograd_transforms import transform
from .workspace import workspace

PARTIAL_SUMS = 4
CHUNK = 2048  # filters, of all taps, that are transformed at a time


def _multiply(gradients: np.ndarray, points: np.ndarray, out: np.ndarray) -> None:
    """Sum over the tiles: (G, T, K) transposed times (G, T, C) -> (G, K, C), in panels of C."""
    group, tiles, filters = gradients.shape
    width = panel_width(points.shape[-1])
    if tiles * filters * width > SMALL:
        width = points.shape[-1]
    # (K, T) @ (T, width) -> (K, width), for each component and panel
    np.matmul(
        gradients.swapaxes(1, 2)[:, None],
        points.reshape(group, tiles, -1, width).swapaxes(1, 2),
        out=out.reshape(group, filters, -1, width).swapaxes(1, 2),
    )


def wgrad(p: Plan, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
    """Return dw: summed by each row of components, or in a few sums of blocks in turn."""
    tall, wide = p.points
    channels, filters = shape.channels, shape.filters
    shares = 1 if p.by_components else min(PARTIAL_SUMS, len(p.blocks))
    groups = [slice(row, row + 1) for row in range(tall)] if p.by_components else [slice(0, tall)]
    size = (shares * tall * wide, filters, channels)
    sums = components("winograd filters", size, x.dtype)
    sums = sums.reshape(shares, tall * wide, filters, channels)

    def part(index: int) -> None:
        share, group = divmod(index, len(groups))
        group = groups[group]
        rows = slice(group.start * wide, group.stop * wide)
        count = rows.stop - rows.start
        total = sums[share, rows]
        added = False
        for first in range(share, len(p.blocks), shares):
            block, tiles = p.blocks[first], p.tiles[first]
            points = components("winograd points", (count, tiles, channels), x.dtype)
            gradients = components("winograd gradients", (count, tiles, filters), x.dtype)
            transform(x, block.reading, block, group, points)
            transform(dy, block.gradient, block, group, gradients)
            for terms in pieces(tiles, p.terms):
                product = total
                if added:
                    product = workspace.take("winograd products", total.shape, x.dtype)
                _multiply(gradients[:, terms], points[:, terms], product)
                if added:
                    np.add(total, product, out=total)
                added = True

    workers.run(part, shares * len(groups))

    dw = np.empty(shape.w_shape, x.dtype)
    taps = dw.reshape(filters, -1, channels)
    matrix = np.ascontiguousarray(p.filters.T)
    chunks = pieces(filters, CHUNK // channels if len(p.blocks) > 1 else filters)

    def last(index: int) -> None:
        chunk = chunks[index]
        total = sums[0, :, chunk]
        for more in sums[1:]:
            np.add(total, more[:, chunk], out=total)
        # (taps, a * a) @ (a * a, C) -> (taps, C), for each filter
        np.matmul(matrix, total.swapaxes(0, 1), out=taps[chunk])

    workers.run(last, len(chunks))
    return dw

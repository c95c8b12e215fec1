"""Winograd's filters, transformed, and the products with them.

Depth is what the products sum over, the channels in fprop and the filters in dgrad; columns are
what they give, the filters in fprop and the channels in dgrad. Components lie in panels of a few
columns, in order of the depth, for small products read them so (see ``blas_probe``).
"""

from __future__ import annotations

import numpy as np

from .. import workers
from ..blas_probe import PANEL, SMALL, small_products_pay
from ..blocks import pieces
from .winograd_memory import components, equal_parts
from .workspace import workspace

CHUNK = 2048  # filters, of all taps, that are copied and transformed at a time
ALONE = 1 << 14  # filters, of all taps: fewer are transformed by one thread
NARROW = 32  # columns that are transposed at a time: what is read stays in the L1 cache


def panel_width(columns: int) -> int:
    """Return the width of panels: as near to ``PANEL`` as divides the columns, or all of them."""
    if not small_products_pay():
        return columns
    widths = range(PANEL, PANEL // 2 - 1, -1)
    return next((width for width in widths if columns % width == 0), columns)


class Filters:
    """Filters w (K, *kernel, C), of which depth and columns are C and K, or K and C if swapped.

    They are copied in chunks, a few depths of a panel and all their taps.
    """

    def __init__(self, w: np.ndarray, swapped: bool) -> None:
        w = w.reshape(len(w), -1, w.shape[-1])
        self.source = w.transpose(1, 0, 2) if swapped else w.transpose(1, 2, 0)
        self.taps, self.depth, columns = self.source.shape
        self.width = panel_width(columns)
        self.panels = [slice(i, i + self.width) for i in range(0, columns, self.width)]
        self.chunk = max(1, CHUNK // self.width)
        self.narrow = pieces(self.width, self.width if swapped else NARROW)

    def _copy(self, panel: int, depth: slice, taps: np.ndarray) -> None:
        """Copy a chunk to (taps, depths, width)."""
        source = self.source[:, depth, self.panels[panel]]
        for columns in self.narrow:
            taps[..., columns] = source[..., columns]

    def transformed(self, matrix: np.ndarray) -> np.ndarray:
        """Return U (a * a, panels, depth, width), the components by the matrix G x G."""
        shape = (len(matrix), len(self.panels), self.depth, self.width)
        u = components("winograd filters", shape, self.source.dtype)
        depths = pieces(self.depth, self.chunk)
        chunks = [(panel, depth) for panel in range(len(self.panels)) for depth in depths]

        def transform(panel: int, depth: slice) -> None:
            size = (self.taps, depth.stop - depth.start, self.width)
            taps = workspace.take("winograd taps", size, u.dtype)
            self._copy(panel, depth, taps)
            out = u[:, panel, depth].reshape(len(matrix), -1)
            # (a * a, taps) @ (taps, depth * width) -> (a * a, depth * width)
            np.matmul(matrix, taps.reshape(self.taps, -1), out=out)

        parts = len(chunks) if self.source[0].size >= ALONE else 1
        workers.run(lambda part: [transform(*chunk) for chunk in chunks[part::parts]], parts)
        return u

    def arranged(self) -> np.ndarray:
        """Return a copy (panels, chunks, taps, depths, width), of which to make components."""
        chunks = equal_parts(self.depth, self.chunk)
        high = self.depth // chunks
        shape = (len(self.panels), chunks, self.taps, high, self.width)
        taps = workspace.take("winograd arranged taps", shape, self.source.dtype)

        def part(index: int) -> None:
            panel, chunk = divmod(index, chunks)
            self._copy(panel, slice(chunk * high, (chunk + 1) * high), taps[panel, chunk])

        workers.run(part, len(self.panels) * chunks)
        return taps


def some_components(taps: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return components of an arranged panel, some rows of G x G: (rows, 1, depth, width)."""
    chunks, count, depth, width = taps.shape
    u = components("winograd panel", (len(matrix), 1, chunks * depth, width), taps.dtype)
    # (rows, taps) @ (taps, depth * width) -> (rows, depth * width), for each chunk
    out = u.reshape(len(matrix), chunks, depth * width).swapaxes(0, 1)
    np.matmul(matrix, taps.reshape(chunks, count, depth * width), out=out)
    return u


def multiply(points: np.ndarray, u: np.ndarray, depths: list[slice], out: np.ndarray) -> None:
    """Sum over each piece of the depth.

    Points (G, T, depth) times U (G, panels, depth, width) -> (G, pieces, T, K).
    """
    group, tiles, _ = points.shape
    panels, _, width = u.shape[1:]
    for piece, depth in enumerate(depths):
        terms = depth.stop - depth.start
        rows = tiles
        if small_products_pay():
            at_a_time = max(1, SMALL // (terms * width))
            rows = -(-tiles // -(-tiles // at_a_time))
        whole = tiles - tiles % rows
        for begin, stop, high in ((0, whole, rows), (whole, tiles, tiles - whole)):
            if begin < stop:
                left = points[:, begin:stop, depth].reshape(group, -1, 1, high, terms)
                right = out[:, piece, begin:stop].reshape(group, -1, high, panels, width)
                # (high, depth) @ (depth, width) -> (high, width), for each component, rows, panel
                np.matmul(left, u[:, None, :, depth], out=right.swapaxes(2, 3))

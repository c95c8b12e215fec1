"""Convolution of few channels, like the first of a network, in one or two dimensions.

With three channels the window of a pixel is no run worth copying: here the pixels and images of a
row of outputs are the runs. For each row of the input the columns hold

    columns[h, c, s, (q, n)] = x[h, q * stride - pad + s, n, c]

and R rows of them, which lie together, are the transposed columns (R*C*S, Q*N) of one row of
outputs. Its neighbour has the same rows but one: they are copied once for all. So

    y[p]  = columns[p]^T @ w          (Q*N, R*C*S) @ (R*C*S, K)
    dw   += columns[p] @ dy[p]        (R*C*S, Q*N) @ (Q*N, K)

dgrad is in ``few_channels_dgrad``. In one dimension there is one row.
"""

from __future__ import annotations

import numpy as np

from ....shapes import ConvShape
from ..blas_probe import small_products_pay
from ..blocks import pieces
from ..workers import run
from .base import Algorithm, Finish
from .few_channels_dgrad import dgrad
from .few_channels_plan import PARTS, Part, parts_of
from .windows import Block, view
from .workspace import workspace

CHANNELS = 16  # from so many on a pixel's channels are a run
PARTIAL_BYTES = 1 << 21  # of all partial sums of dw


def _products(columns: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """(rows, runs, R*C*S, run) @ (rows, runs, run, K), or its transpose where that is quicker.

    A BLAS that packs its factors, as MKL, takes up to twice as long for the first way.
    """
    size = columns.shape[-2], dy.shape[-1]
    if small_products_pay():
        more = workspace.take("product", (*columns.shape[:2], *size), dy.dtype)
        return np.matmul(columns, dy, out=more)
    more = workspace.take("product", (*columns.shape[:2], *size[::-1]), dy.dtype)
    return np.matmul(dy.swapaxes(2, 3), columns.swapaxes(2, 3), out=more).swapaxes(2, 3)


def _columns(x: np.ndarray, part: Part) -> np.ndarray:
    """Return the columns of a part by runs: (rows, runs, R*C*S, run), whose rows overlap."""
    planes = workspace.take("planes", part.planes, x.dtype)
    if part.padded:
        planes[...] = 0
    for source, place in part.copies:
        # (rows, pixels, n, C) -> (rows, C, pixels, n)
        planes[place] = x[source].transpose(0, 3, 1, 2)
    columns = workspace.take("columns", part.columns, x.dtype)
    for place, reads in part.taps:
        columns[place] = view(planes, *reads)
    return view(columns, *part.matrices)


def _planar(array: np.ndarray) -> np.ndarray:
    """View (W, N, C) as (1, W, N, C); (H, W, N, C) is itself."""
    return array if array.ndim == 4 else array[None]


def _filters(w: np.ndarray, shape: ConvShape) -> np.ndarray:
    """Reorder filters (K, R, S, C) to (R*C*S, K)."""
    filters = w.reshape(shape.filters, -1, shape.kernel[-1], shape.channels)
    return np.ascontiguousarray(filters.transpose(1, 3, 2, 0)).reshape(-1, shape.filters)


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
        parts, filters = parts_of(shape, x.itemsize, finish.multiple), _filters(w, shape)
        x, y = _planar(x), _planar(y)

        def compute(number: int) -> None:
            part = parts[number]
            columns, out = _columns(x, part), finish.memory(y, part.outputs)
            # (rows, runs, run, R*C*S) @ (R*C*S, K)
            columns = columns.swapaxes(2, 3)
            np.matmul(columns, filters, out=out.reshape(*columns.shape[:3], shape.filters))
            finish(out, part.outputs)

        run(compute, len(parts))

    def places(self, shape: ConvShape, dtype: np.dtype, multiple: int) -> list[Block]:
        return [part.outputs for part in parts_of(shape, dtype.itemsize, multiple)]

    def dgrad(
        self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        if shape.batch:
            dgrad(_planar(dy), w, _planar(dx), shape, finish)

    def wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        parts, depth = parts_of(shape, x.itemsize), shape.channels * shape.taps
        x, dy = _planar(x), _planar(dy)
        sums = max(1, min(PARTS, PARTIAL_BYTES // (depth * shape.filters * x.itemsize)))
        shares = pieces(len(parts), -(-len(parts) // sums))
        partial = np.zeros((max(1, len(shares)), depth, shape.filters), x.dtype)

        def compute(share: int) -> None:
            for part in parts[shares[share]]:
                columns = _columns(x, part)
                rows, runs, _, length = columns.shape
                of_runs = dy[part.outputs].reshape(rows, runs, length, shape.filters)
                partial[share] += _products(columns, of_runs).sum((0, 1))

        run(compute, len(shares))
        total = partial[0] if len(partial) == 1 else partial.sum(0)
        # (R, C, S, K) -> (K, R, S, C)
        dw = total.reshape(-1, shape.channels, shape.kernel[-1], shape.filters)
        return dw.transpose(3, 0, 2, 1).reshape(shape.w_shape)

"""An activation as (N, L, C) or (N, C, L): blocks, sums and vectors along its channels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...shapes import NormShape
from ..base import accumulator
from .blocks import BLOCK, blocks, wide

ROW = 1024  # elements: an inner loop of as many steps hides what NumPy needs to start it


def channel_blocks(shape: NormShape) -> Iterator[tuple[slice, slice, slice]]:
    """Cut ``shape.axes`` into blocks of samples and positions that hold all the channels."""
    limit = BLOCK // max(1, shape.channels)
    for samples, positions in blocks((shape.batch, shape.length), limit):
        if shape.channels_last:
            yield samples, positions, slice(None)
        else:
            yield samples, slice(None), positions


def along_channels(vectors: np.ndarray, shape: NormShape) -> np.ndarray:
    """Shape vectors (..., C) to broadcast over ``shape.axes``."""
    return vectors[..., None, :] if shape.channels_last else vectors[..., None]


def by_channel(
    operation: np.ufunc,
    part: np.ndarray,
    vector: np.ndarray,
    out: np.ndarray,
    *,
    channels_last: bool = True,
) -> np.ndarray:
    """``operation(part, vector, out)`` with one number of ``vector`` (C,) for each channel.

    With channels last both arrays are contiguous, and the vector is repeated to rows of ``ROW``.
    """
    if not channels_last:
        return operation(part, vector[:, None], out=out)
    row = np.tile(vector, max(1, ROW // vector.size))
    whole = part.size - part.size % row.size
    source, target = part.reshape(-1), out.reshape(-1)
    rows = (-1, row.size)
    operation(source[:whole].reshape(rows), row, out=target[:whole].reshape(rows))
    operation(source[whole:], row[: part.size - whole], out=target[whole:])
    return out


def sample_sums(part: np.ndarray, channels_last: bool) -> np.ndarray:
    """Sum a block over its positions: (n, l, C) or (n, C, l) -> (n, C).

    With channels last a product with ones is quicker than ``sum``, whose inner loop has C steps.
    """
    if not channels_last:
        return part.sum(2)
    length = part.shape[1]
    return part[:, 0] if length == 1 else np.ones(length, part.dtype) @ part


def channel_sums(part: np.ndarray, channels_last: bool) -> np.ndarray:
    """Sum a block over samples and positions: -> (C,); each sample first, which is more exact."""
    return sample_sums(part, channels_last).sum(0)


def bias_grad(dy: np.ndarray, shape: NormShape) -> np.ndarray:
    """Sum over all but the channels, in the dtype of the sums."""
    dy = dy.reshape(shape.axes)
    total = np.zeros(shape.channels, accumulator(dy.dtype))
    for block in channel_blocks(shape):
        total += channel_sums(wide(dy[block]), shape.channels_last)
    return total

"""An activation as (N, L, C) or (N, C, L): blocks, sums and vectors along its channels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...shapes import NormShape
from ..base import accumulator
from .blocks import BLOCK, blocks, wide


def channel_blocks(shape: NormShape) -> Iterator[tuple[slice, slice, slice]]:
    """Cut ``shape.axes`` into blocks of samples and positions that hold all the channels."""
    for samples, positions in blocks((shape.batch, shape.length), BLOCK // max(1, shape.channels)):
        if shape.channels_last:
            yield samples, positions, slice(None)
        else:
            yield samples, slice(None), positions


def per_channel(vector: np.ndarray, shape: NormShape) -> np.ndarray:
    """Shape a vector (C,), in the dtype of its sums, to broadcast over ``shape.axes``."""
    vector = wide(vector)
    return vector if shape.channels_last else vector[:, None]


def channel_sums(part: np.ndarray, shape: NormShape) -> np.ndarray:
    """Sum a block over samples and positions: -> (C,).

    Each sample is summed on its own first, which also keeps the rounding error small. With
    channels last a product with ones is quicker than ``sum``, whose inner loop has C steps.
    """
    if not shape.channels_last:
        return part.sum(2).sum(0)
    length = part.shape[1]
    return part.sum((0, 1)) if length == 1 else (np.ones(length, part.dtype) @ part).sum(0)


def bias_grad(dy: np.ndarray, shape: NormShape) -> np.ndarray:
    """Sum over all but the channels, in the dtype of the sums."""
    dy = dy.reshape(shape.axes)
    total = np.zeros(shape.channels, accumulator(dy.dtype))
    for block in channel_blocks(shape):
        total += channel_sums(wide(dy[block]), shape)
    return total

"""Sums over all but the channels on the GPU (kernels/channel_sums.cu), and the record of a norm."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...shapes import NormShape
from ..base import Array, accumulator
from .kernel import CHANNELS_LAST, DTYPE, Axis, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, ceil_div
from .spatial import DIVISOR, check_sizes, divisor

_TERM: Axis = {
    name: (name, {"TERM": name.upper()})
    for name in ("sum", "squared_deviation", "batch_gradient", "group_gradient", "slope")
}
SUMS = KernelFamily("channel_sums.cu", "channel_sums", _TERM, CHANNELS_LAST, DTYPE)
SUMS_FINISH = KernelFamily("channel_sums.cu", "channel_sums_finish", _TERM, CHANNELS_LAST, DTYPE)

LANES_C = 32  # channels of a block with channels last, as in the kernel
POSITIONS_PER_SPLIT = 1024
MAX_SPLITS = 256

# struct NormGeometry of kernels/norm_geometry.cuh
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("batch", "channels", "length", "groups", "group_channels")]
    + [(f"by_{name}", DIVISOR) for name in ("channels", "length", "group_channels")]
)


@lru_cache(maxsize=1024)
def norm_record(shape: NormShape) -> np.ndarray:
    """Return a shape as the struct that the kernels take by value.

    Raises:
        ValueError: the positions of the batch, or one sample, pass the 2^31 that kernels count to.
    """
    check_sizes(
        "normalization",
        ("the positions of the batch", shape.batch * shape.length, 31),
        ("one sample", shape.channels * shape.length, 31),
    )
    sizes = (shape.channels, shape.length, shape.channels // shape.groups)
    row = (shape.batch, *sizes[:2], shape.groups, sizes[2], *map(divisor, sizes))
    return np.array([row], _GEOMETRY)


class ChannelSums(KernelCaller):
    """What a bias's gradient, the norms and PReLU share."""

    def _channel_sums(
        self, term: str, a: Array, shape: NormShape, *, x: Array | None = None,
        mean: Array | None = None, var: Array | None = None, epsilon: float = 0.0,
        scale: float = 1.0,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Return (terms, C) sums in Accum, one term or two for the gradients, and as ``a``."""
        sums = accumulator(a.dtype)
        terms = 2 if term.endswith("gradient") else 1
        positions = shape.batch * shape.length
        if positions == 0:
            return tuple(self.xp.zeros((terms, shape.channels), t) for t in (sums, a.dtype))
        splits = min(MAX_SPLITS, ceil_div(positions, POSITIONS_PER_SPLIT))
        per_split = ceil_div(positions, splits)
        splits = ceil_div(positions, per_split)
        tiles = ceil_div(shape.channels, LANES_C) if shape.channels_last else shape.channels
        choice = (term, shape.channels_last, a.dtype)
        partial = self.xp.empty((splits, terms, shape.channels), sums)
        self.launch(
            SUMS(*choice), (tiles, splits), BLOCK_THREADS, a, x, mean, var, sums.type(epsilon),
            partial, per_split, norm_record(shape),
        )  # fmt: skip
        result = self.xp.empty((terms, shape.channels), sums)
        rounded = result if a.dtype == sums else self.xp.empty(result.shape, a.dtype)
        self.launch_elements(
            SUMS_FINISH(*choice), result.size, partial, result,
            None if rounded is result else rounded, sums.type(scale), splits, result.size,
        )  # fmt: skip
        return result, rounded

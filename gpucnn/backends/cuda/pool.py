"""Pooling on the GPU (kernels/pool.cu)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ...shapes import PoolShape
from ..base import Array
from .kernel import CHANNELS_LAST, DTYPE, RANK, Axis, Kernel, KernelFamily
from .launch import KernelCaller, batch_parts
from .spatial import AXES, DIVISOR, check_sizes, divisor, padded_sizes, per_axis

# By mode and, for a maximum or minimum, the index's dtype.
_MODE: Axis = {
    **{
        (mode, dtype): (f"{mode}_{tag.lower()}", {"MODE": mode.upper(), "INDEX": tag})
        for mode in ("max", "min")
        for dtype, tag in (("uint8", "U8"), ("uint16", "U16"), ("uint32", "U32"))
    },
    ("average", None): ("average", {"MODE": "AVERAGE", "INDEX": "U8"}),
    ("sum", None): ("sum", {"MODE": "SUM", "INDEX": "U8"}),
}
_AXES = (_MODE, RANK, CHANNELS_LAST, DTYPE)
FORWARD = KernelFamily("pool.cu", "pool_forward", *_AXES)
BACKWARD = KernelFamily("pool.cu", "pool_backward", *_AXES)

_PER_AXIS = ("input", "window", "output", "stride", "dilation", "pad", "pad_after")
_DIVISORS = ("input", "output", "stride", "dilation")
# struct PoolGeometry of kernels/pool.cu
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("channels", "count_padding")]
    + [(name, "i4", AXES) for name in _PER_AXIS]
    + [(f"by_{name}", DIVISOR, AXES) for name in _DIVISORS]
    + [("by_channels", DIVISOR)]
)


def _largest_map(shape: PoolShape) -> int:
    """Elements of one input or output image, whichever has more."""
    return shape.channels * max(math.prod(shape.input), math.prod(shape.output))


@lru_cache(maxsize=1024)
def pool_record(shape: PoolShape) -> np.ndarray:
    """Return a shape as the struct that the kernels take by value, missing leading axes as 1.

    Raises:
        ValueError: one image, or an axis, passes what the kernels count to.
    """
    check_sizes(
        "pooling",
        ("one image", _largest_map(shape), 31),
        ("an axis of the padded input", max(padded_sizes(shape.input, shape.padding)), 30),
    )
    record = np.zeros(1, _GEOMETRY)
    record["channels"], record["count_padding"] = shape.channels, shape.count_padding
    record["by_channels"] = divisor(shape.channels)
    before, after = zip(*shape.padding, strict=True)
    axes = (
        shape.input, shape.window, shape.output, shape.strides, shape.dilation, before, after,
    )  # fmt: skip
    for name, values in zip(_PER_AXIS, axes, strict=True):
        padded = per_axis(values, neutral=0 if name.startswith("pad") else 1)
        record[name] = padded
        if name in _DIVISORS:
            record[f"by_{name}"] = list(map(divisor, padded))
    return record


class Pools(KernelCaller):
    """``pool_forward`` and ``pool_backward``."""

    def pool_forward(
        self, x: Array, shape: PoolShape, with_index: bool = True
    ) -> tuple[Array, Array | None]:
        y = self.xp.empty(shape.y_shape, x.dtype)
        selects = shape.mode in ("max", "min")
        index = self.xp.empty(shape.y_shape, shape.index_dtype) if selects and with_index else None
        kernel = self._kernel(FORWARD, shape, x)
        for x_part, part, index_part in batch_parts(_largest_map(shape), x, y, index):
            self.launch_elements(
                kernel, part.size, x_part, part, index_part, part.size, pool_record(shape)
            )
        return y, index

    def pool_backward(self, dy: Array, index: Array | None, shape: PoolShape) -> Array:
        dx = self.xp.empty(shape.x_shape, dy.dtype)
        kernel = self._kernel(BACKWARD, shape, dy)
        for dy_part, index_part, part in batch_parts(_largest_map(shape), dy, index, dx):
            self.launch_elements(
                kernel, part.size, dy_part, index_part, part, part.size, pool_record(shape)
            )
        return dx

    @staticmethod
    def _kernel(family: KernelFamily, shape: PoolShape, array: Array) -> Kernel:
        index = shape.index_dtype if shape.mode in ("max", "min") else None
        return family((shape.mode, index), shape.rank, shape.channels_last, array.dtype)

"""Convolution on the GPU: the three directions of an implicit GEMM (kernels/conv_*.cu)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ...shapes import ConvShape, NormShape
from ..base import Array, accumulator
from .channels import ChannelSums
from .kernel import CHANNELS_LAST, DTYPE, RANK, KernelFamily
from .plans import TILES, plan_dgrad, plan_fprop, plan_wgrad
from .spatial import AXES, DIVISOR, check_sizes, divisor, padded_sizes, per_axis

_AXES = (RANK, CHANNELS_LAST, DTYPE)
FPROP = KernelFamily("conv_fprop.cu", "conv_fprop_implicit_gemm", *_AXES, TILES)
DGRAD = KernelFamily("conv_dgrad.cu", "conv_dgrad_implicit_gemm", *_AXES, TILES)
WGRAD = KernelFamily("conv_wgrad.cu", "conv_wgrad_implicit_gemm", *_AXES, TILES)
WGRAD_SUM = KernelFamily("conv_wgrad.cu", "conv_wgrad_sum", *_AXES, TILES)

_PER_AXIS = ("input", "kernel", "output", "stride", "pad", "dilation")
_DIVISORS = ("input", "kernel", "output", "stride")
# struct ConvGeometry of kernels/conv_geometry.cuh
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("batch", "channels", "filters", "groups")]
    + [(name, "i4") for name in ("group_channels", "group_filters")]
    + [(name, "i4", AXES) for name in _PER_AXIS]
    + [(f"by_{name}", DIVISOR, AXES) for name in _DIVISORS]
    + [(f"by_{name}", DIVISOR) for name in ("group_channels", "group_filters")]
)


@lru_cache(maxsize=1024)
def geometry_record(shape: ConvShape) -> np.ndarray:
    """Return a shape as the struct that the kernels take by value, missing leading axes as 1.

    Raises:
        ValueError: one image, the pixels of the batch or the like pass what the kernels count to.
    """
    group_channels, group_filters = shape.channels // shape.groups, shape.filters // shape.groups
    pixels = max(math.prod(shape.input), math.prod(shape.output))
    check_sizes(
        "convolution",
        ("one input image", math.prod(shape.input) * shape.channels, 31),
        ("one output image", math.prod(shape.output) * shape.filters, 31),
        ("the pixels of the batch", shape.batch * pixels, 31),
        ("a filter or a channel's weights", shape.taps * max(group_channels, group_filters), 31),
        ("an axis of the padded input", max(padded_sizes(shape.input, shape.padding)), 29),
    )
    record = np.zeros(1, _GEOMETRY)
    for name, value in (
        ("batch", shape.batch), ("channels", shape.channels), ("filters", shape.filters),
        ("groups", shape.groups), ("group_channels", group_channels),
        ("group_filters", group_filters),
    ):  # fmt: skip
        record[name] = value
    axes = (
        shape.input, shape.kernel, shape.output, shape.strides,
        tuple(before for before, _ in shape.padding), shape.dilation,
    )  # fmt: skip
    for name, values in zip(_PER_AXIS, axes, strict=True):
        padded = per_axis(values, neutral=0 if name == "pad" else 1)
        record[name] = padded
        if name in _DIVISORS:
            record[f"by_{name}"] = list(map(divisor, padded))
    record["by_group_channels"] = divisor(group_channels)
    record["by_group_filters"] = divisor(group_filters)
    return record


class Convolutions(ChannelSums):
    """``conv_fprop``, ``conv_dgrad``, ``conv_wgrad`` and ``bias_grad``."""

    def conv_fprop(self, x: Array, w: Array, b: Array | None, shape: ConvShape) -> Array:
        plan = plan_fprop(shape)
        y = self.xp.empty(shape.y_shape, x.dtype)
        kernel = FPROP(shape.rank, shape.channels_last, x.dtype, plan.tile)
        self.launch(kernel, plan.grid, plan.tile.threads, x, w, b, y, geometry_record(shape))
        return y

    def conv_dgrad(self, dy: Array, w: Array, b: Array | None, shape: ConvShape) -> Array:
        plan = plan_dgrad(shape)
        dx = self.xp.empty(shape.x_shape, dy.dtype)
        kernel = DGRAD(shape.rank, shape.channels_last, dy.dtype, plan.tile)
        self.launch(kernel, plan.grid, plan.tile.threads, dy, w, b, dx, geometry_record(shape))
        return dx

    def conv_wgrad(self, x: Array, dy: Array, shape: ConvShape) -> Array:
        if shape.batch == 0:
            return self.xp.zeros(shape.w_shape, x.dtype)
        plan = plan_wgrad(shape)
        choice = (shape.rank, shape.channels_last, x.dtype, plan.tile)
        dw = self.xp.empty(shape.w_shape, x.dtype)
        sums = accumulator(x.dtype)
        # one split of a dtype that is its own accumulator needs no second pass
        direct = plan.splits == 1 and sums == x.dtype
        partial = dw if direct else self.xp.empty((plan.splits, *shape.w_shape), sums)
        self.launch(
            WGRAD(*choice), plan.grid, plan.tile.threads, x, dy, partial, plan.pixels_per_split,
            geometry_record(shape),
        )  # fmt: skip
        if not direct:
            self.launch_elements(
                WGRAD_SUM(*choice), dw.size, partial, dw, np.int64(dw.size), plan.splits
            )
        return dw

    def bias_grad(self, dy: Array, shape: NormShape) -> Array:
        _, (db,) = self._channel_sums("sum", dy, shape)
        return db

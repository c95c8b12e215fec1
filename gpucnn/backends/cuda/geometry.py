"""A convolution's geometry as its kernels take it: struct ConvGeometry of conv_geometry.cuh."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ...shapes import ConvShape
from .spatial import AXES, DIVISOR, check_sizes, divisor, padded_sizes, per_axis

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

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
    padded = padded_sizes(shape.input, shape.padding)
    # as far as windows reach, in the input and, for its gradient, in the output
    reached = math.prod(
        -(-size // stride) for size, stride in zip(padded, shape.strides, strict=True)
    )
    check_sizes(
        "convolution",
        ("one input image", math.prod(shape.input) * shape.channels, 31),
        ("one padded input image", math.prod(padded) * shape.channels, 31),
        ("one output image, with all that the padded input reaches", reached * shape.filters, 31),
        ("the pixels of the batch", shape.batch * pixels, 31),
        ("the filters", math.prod(shape.w_shape), 31),
        ("an axis of the padded input", max(padded), 29),
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


# struct Residue of kernels/residues.cuh
RESIDUE = np.dtype(
    [
        (name, "i4")
        for name in ("first_pixel", "first_tap", "first_output", "tap_step", "output_step")
    ]
    + [("pixels", "i4"), ("taps", "i4"), ("by_pixels", DIVISOR), ("by_taps", DIVISOR)]
)


def residue_table(shape: ConvShape, least_axes: int = 2) -> np.ndarray:
    """Return the classes of input pixels along each axis, ``stride`` of them, as 32-bit integers.

    Pixel h of the class of remainder q, (h + pad) mod stride = q, meets tap r where
    (h + pad - r * dilation) is a multiple of the stride: r * dilation = q (mod stride). With
    g = gcd(dilation, stride) that has no solution unless g divides q, and else one in every
    stride / g taps, the first being q / g times the inverse of dilation / g modulo stride / g.
    """
    axes = list(
        zip(shape.input, shape.kernel, shape.strides, shape.padding, shape.dilation, strict=True)
    )
    missing = max(0, least_axes - shape.rank)  # in front; no kernels are for one dimension
    axes = [(1, 1, 1, (0, 0), 1)] * missing + axes
    rows = []
    for axis in axes:
        size, window, stride, (pad, _), dilation = axis
        common = math.gcd(dilation, stride)
        tap_step, output_step = stride // common, dilation // common
        for remainder in range(stride):
            first_pixel = (remainder - pad) % stride
            first_tap = window  # none
            if remainder % common == 0:
                first_tap = remainder // common * pow(output_step, -1, tap_step) % tap_step
            pixels = max(0, -(-(size - first_pixel) // stride))
            taps = max(0, -(-(window - first_tap) // tap_step))
            first_output = (first_pixel + pad - first_tap * dilation) // stride
            rows.append(
                (first_pixel, first_tap, first_output, tap_step, output_step, pixels, taps,
                 divisor(max(1, pixels)), divisor(max(1, taps)))
            )  # fmt: skip
    return np.array(rows, RESIDUE).view("i4")

"""Plans are pure functions of the shape: legal for the kernels, and fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpucnn.backends.cuda.conv import divisor, geometry_record
from gpucnn.backends.cuda.plans import (
    NARROW,
    PARTIAL_ELEMENTS,
    TILE_K,
    TILES,
    WIDE,
    plan_dgrad,
    plan_fprop,
    plan_wgrad,
)
from gpucnn.shapes import ConvShape


def shape(batch: int, size: int, channels: int, filters: int, window: int, **options) -> ConvShape:
    groups = options.get("groups", 1)
    return ConvShape.of(
        (batch, size, size, channels), (filters, window, window, channels // groups), **options
    )


SHAPES = [
    shape(1, 5, 1, 1, 3),
    shape(64, 28, 1, 6, 5, padding="same"),
    shape(32, 56, 64, 64, 3, padding=1),
    shape(32, 56, 64, 256, 1),
    shape(256, 7, 512, 512, 3, padding=1),
    shape(8, 112, 32, 32, 3, padding=1, groups=32),
    shape(3, 33, 6, 10, 3, strides=2, groups=2),
]


@pytest.mark.parametrize("conv", SHAPES, ids=str)
def test_grid_covers_the_matrix(conv: ConvShape) -> None:
    group_filters, group_channels = conv.filters // conv.groups, conv.channels // conv.groups
    pixels = conv.batch * math.prod(conv.output)
    gemms = {
        plan_fprop: (pixels, group_filters),
        plan_dgrad: (conv.batch * math.prod(conv.input), group_channels),
        plan_wgrad: (conv.taps * group_channels, group_filters),
    }
    for planner, (gemm_m, gemm_n) in gemms.items():
        plan = planner(conv)
        assert plan.tile in TILES
        rows, cols = plan.grid[0] // conv.groups * plan.tile.m, plan.grid[1] * plan.tile.n
        assert plan.grid[0] % conv.groups == 0
        assert gemm_m <= rows < gemm_m + plan.tile.m
        assert gemm_n <= cols < gemm_n + plan.tile.n
        assert plan == planner(conv)


@pytest.mark.parametrize("conv", SHAPES, ids=str)
def test_wgrad_splits_cover_every_pixel_once(conv: ConvShape) -> None:
    plan = plan_wgrad(conv)
    pixels = conv.batch * math.prod(conv.output)
    assert plan.pixels_per_split % TILE_K == 0
    assert (plan.splits - 1) * plan.pixels_per_split < pixels
    assert plan.splits * plan.pixels_per_split >= pixels
    assert plan.splits == 1 or plan.splits * math.prod(conv.w_shape) <= PARTIAL_ELEMENTS


def test_tile_follows_the_matrix() -> None:
    assert plan_fprop(shape(64, 28, 1, 6, 5)).tile == NARROW
    assert plan_fprop(shape(32, 56, 64, 64, 3)).tile == WIDE
    assert plan_fprop(shape(1, 4, 64, 64, 3)).tile == NARROW


@pytest.mark.parametrize("tile", TILES)
def test_threads_make_whole_warps(tile) -> None:
    assert tile.threads % 32 == 0
    assert tile.threads <= 1024
    assert tile.threads % tile.m == 0 and tile.threads % tile.n == 0


def test_divisor_divides() -> None:
    rng = np.random.default_rng(0)
    values = [*range(1, 300), 2**30, 2**31 - 1, *rng.integers(1, 2**31, 300).tolist()]
    for value in values:
        _, multiplier, shift = divisor(value)
        assert multiplier < 2**32
        near = [k * value + d for k in (1, 2, 77) for d in (-1, 0, 1)]
        for n in [0, 1, 2**31 - 1, *near, *rng.integers(0, 2**31, 20).tolist()]:
            if 0 <= n < 2**31:
                high = (n * multiplier) >> 32
                assert high + n < 2**32, "the sum must not wrap"
                assert (high + n) >> shift == n // value


def test_geometry_puts_missing_axes_in_front() -> None:
    conv = ConvShape.of((2, 9, 4), (6, 3, 4), strides=2, padding=((1, 0),), dilation=2)
    record = geometry_record(conv)[0]
    assert record["input"].tolist() == [1, 1, 9]
    assert record["output"].tolist() == [1, 1, 3]
    assert record["pad"].tolist() == [0, 0, 1]
    assert record["stride"].tolist() == [1, 1, 2]
    assert record["dilation"].tolist() == [1, 1, 2]


def test_too_large_a_tensor_is_refused() -> None:
    conv = ConvShape.of((1, 2**16, 2**15, 1), (1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"one input image must be below 2\^31"):
        geometry_record(conv)

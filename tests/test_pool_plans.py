"""How poolings are laid over threads: pure functions, tested without a GPU."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from gpucnn.backends.cuda.change_layout import LEAST_SHIFT, TILE_BYTES, tile_shifts
from gpucnn.backends.cuda.launch import BLOCK_THREADS
from gpucnn.backends.cuda.pool_plans import (
    LARGEST_CELL,
    PoolPlan,
    backward_plan,
    forward_plan,
    whole_plan,
)
from gpucnn.shapes import PoolShape
from tests.cases import POOLS


def pool(x_shape: tuple[int, ...], size: int | tuple[int, ...], **arguments) -> PoolShape:
    return PoolShape.of(x_shape, size, mode="max", rank=len(x_shape) - 2, **arguments)


RESNET = pool((32, 112, 112, 64), 3, strides=2, padding=1)
VGG = pool((64, 224, 224, 64), 2)
PICTURE = pool((8, 28, 28, 3), 2)
DENSE = pool((8, 20, 20, 64), 3, strides=1)
VOLUME = pool((8, 9, 9, 9, 64), 3, strides=2)
GLOBAL = pool((32, 7, 7, 2048), 7)


def first(shape: PoolShape) -> PoolShape:
    return replace(shape, channels_last=False)


@pytest.mark.parametrize(
    "shape, itemsize, forward, backward",
    [
        (RESNET, 4, ("windows", "channels", 4), ("shared_cells", "channels", 4)),
        (VGG, 2, ("windows", "channels", 8), ("cells", "channels", 8)),
        (VGG, 8, ("windows", "channels", 2), ("cells", "channels", 2)),
        (first(RESNET), 4, ("strips", "one", 1), ("shared_cells", "one", 1)),
        (first(VGG), 4, ("windows", "pairs", 4), ("cells", "pairs", 4)),
        (first(PICTURE), 4, ("windows", "pairs", 4), ("cells", "pairs", 4)),
        (first(PICTURE), 2, ("windows", "one", 1), ("cells", "one", 1)),  # 28 is 3.5 units
        (PICTURE, 4, ("windows", "one", 1), ("cells", "one", 1)),
        (pool((8, 16, 16, 1), 2), 4, ("windows", "pairs", 4), ("cells", "pairs", 4)),
        (GLOBAL, 4, ("whole", "", 4), ("gather", "channels", 4)),
        (first(GLOBAL), 4, ("whole", "", 1), ("rows", "", 1)),  # 49 is no number of units
        (pool((8, 20, 20, 64), 10), 4, ("windows", "channels", 4), ("gather", "channels", 4)),
        (DENSE, 4, ("windows", "channels", 4), ("gather", "channels", 4)),
        (VOLUME, 4, ("windows", "channels", 4), ("gather", "channels", 4)),
        (pool((8, 900, 64), 300), 4, ("windows", "channels", 4), ("gather", "channels", 4)),
    ],
)
def test_units_and_kernels(shape, itemsize, forward, backward):
    assert forward_plan(shape, itemsize, True) == PoolPlan(*forward)
    assert backward_plan(shape, itemsize, True) == PoolPlan(*backward)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_units_fit_and_need_alignment(name, itemsize):
    for shape in (POOLS[name], first(POOLS[name])):
        for choose in (forward_plan, backward_plan):
            plan = choose(shape, itemsize, True)
            if plan.unit in ("channels", "pairs"):
                line = shape.channels if plan.unit == "channels" else shape.input[-1]
                assert plan.width * itemsize == 16 and line % plan.width == 0
            if plan.kernel.endswith("cells"):
                cell = [min(sizes) for sizes in zip(shape.input, shape.strides, strict=True)]
                assert prod(cell) <= LARGEST_CELL
            apart = choose(shape, itemsize, False)
            # the order of a sum must not follow from an address: that of strips is that of windows
            assert apart.kernel == plan.kernel.replace("strips", "windows")
            assert apart.unit in ("", "one")
            if plan.kernel == "whole":
                assert apart == plan, "the order of a sum must not follow from an address"


@pytest.mark.parametrize(
    "shape",
    [GLOBAL, pool((1, 1, 1, 1), 1), pool((1, 224, 224, 3), 224), pool((2, 16000, 128), 16000),
     pool((256, 7, 7, 512), 7), pool((3, 2051, 5), 2051), pool((0, 4, 4, 8), 4)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("itemsize", [2, 8])
def test_splits_cover_a_map_once(shape, channels_last, itemsize):
    shape = replace(shape, channels_last=channels_last)
    width = forward_plan(shape, itemsize, True).width
    plan = whole_plan(shape, width)
    assert plan.columns * plan.units * width == prod(shape.x_shape)
    assert (plan.splits - 1) * plan.per_split < plan.units <= plan.splits * plan.per_split
    assert plan.slots.bit_count() == 1 and plan.slots <= BLOCK_THREADS
    assert 1 <= plan.splits < 2**16


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8, 16])
def test_tiles_are_full_and_fit_narrow_matrices(itemsize):
    for rows, columns in ((1, 1), (3, 10**6), (10**6, 3), (50, 5000), (49, 2048), (1024, 1024)):
        row_shift, column_shift = tile_shifts(rows, columns, itemsize)
        assert itemsize << (row_shift + column_shift) == TILE_BYTES
        assert min(row_shift, column_shift) >= LEAST_SHIFT
        if min(rows, columns) < 8 < max(rows, columns):
            shift = row_shift if rows < columns else column_shift
            assert min(rows, columns) <= 1 << shift <= 4

"""Depthwise convolution: where it applies, which of its tiles, and arrays that lie askew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS, Problem
from gpucnn.backends.cuda.algorithms.depthwise import WINDOW_BYTES, as_gather
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests.cases import CONVS, DTYPES
from tests.conftest import make_backend
from tests.operations.conftest import inside_another
from tests.operations.test_algorithms import reduction
from tests.operations.test_conv import problem as solved
from tests.tolerance import assert_close

DEPTHWISE = ALGORITHMS["depthwise"]
MOBILE = ConvShape.of((32, 56, 56, 144), (144, 3, 3, 1), groups=144, padding=1)


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_chosen_with_a_tile_for_the_window(direction, dtype, strides, channels_last) -> None:
    shape = replace(MOBILE, strides=strides, channels_last=channels_last)
    plan = choose(Problem(direction, shape, dtype))
    assert plan.algorithm == "depthwise"
    tile = plan.settings.tile
    assert (tile.taps, tile.stride, tile.vector) == (3, strides[0], channels_last)


def test_only_where_every_channel_is_a_group() -> None:
    grouped = ConvShape.of((32, 56, 56, 144), (144, 3, 3, 2), groups=72, padding=1)
    doubled = ConvShape.of((32, 56, 56, 144), (288, 3, 3, 1), groups=144, padding=1)
    for direction in DIRECTIONS:
        assert not list(DEPTHWISE.plans(Problem(direction, grouped, "float32")))
        plans = list(DEPTHWISE.plans(Problem(direction, doubled, "float32")))
        assert bool(plans) == (direction != "dgrad")
        assert not any(plan.settings.tile.vector for plan in plans)


def test_a_window_that_shared_memory_cannot_hold_is_left_to_others() -> None:
    taps = WINDOW_BYTES // 4
    for window in (taps, taps + 1):
        shape = ConvShape.of((1, 2 * taps, 1), (1, window, 1))
        plans = list(DEPTHWISE.plans(Problem("fprop", shape, "float32")))
        assert bool(plans) == (window == taps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_last_plan_takes_arrays_that_are_not_aligned(direction: str, dtype: str) -> None:
    for window in (3, 7, 15):
        shape = ConvShape.of((2, 20, 20, 64), (64, window, window, 1), groups=64)
        *_, last = DEPTHWISE.plans(Problem(direction, shape, dtype))
        assert not last.settings.tile.vector


def test_the_gradient_of_stride_1_is_a_convolution_with_what_padding_leaves() -> None:
    shape = ConvShape.of(
        (2, 9, 12, 8), (8, 3, 5, 1), groups=8, padding=((0, 5), (3, 1)), dilation=(1, 2)
    )
    gathered, turned = as_gather(Problem("dgrad", shape, "float32"))
    assert turned
    assert gathered.padding == ((2, -3), (5, 7))
    assert (gathered.input, gathered.output) == (shape.output, shape.input)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_arrays_that_begin_inside_another_vector(direction: str) -> None:
    backend = make_backend("checked")
    s, p = CONVS["depthwise_vectors"], solved("depthwise_vectors", "float32")

    arrays, expected, terms = {
        "fprop": ((inside_another(backend, p.x), p.w, p.b), p.y, p.y_terms),
        "dgrad": ((inside_another(backend, p.dy), p.w, p.b_dx), p.dx, p.dx_terms),
        "wgrad": ((p.x, inside_another(backend, p.dy)), p.dw, p.dw_terms),
    }[direction]
    problem = Problem(direction, s, "float32")
    plan, *_ = DEPTHWISE.plans(problem)
    assert plan.settings.tile.vector
    assert_close(
        DEPTHWISE.run(backend, problem, plan, *arrays), expected, dtype=np.float32,
        reduction=reduction(direction, s), magnitude=terms,
    )  # fmt: skip

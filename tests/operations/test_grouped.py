"""Grouped convolution with few channels a group: where it applies, and arrays that lie askew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS, Problem
from gpucnn.backends.cuda.algorithms.grouped import MOST_IN_GROUP, as_gather
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests.cases import CONVS, DTYPES
from tests.conftest import make_backend
from tests.operations.conftest import inside_another
from tests.operations.test_algorithms import reduction
from tests.operations.test_conv import problem as solved
from tests.tolerance import assert_close

GROUPED = ALGORITHMS["grouped"]
RESNEXT = ConvShape.of((32, 56, 56, 128), (128, 3, 3, 4), groups=32, padding=1)


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_chosen_with_a_tile_for_the_window(direction, dtype, channels_last) -> None:
    shape = replace(RESNEXT, channels_last=channels_last)
    for strides in ((1, 1), (2, 2)) if channels_last else ((1, 1),):
        plan = choose(Problem(direction, replace(shape, strides=strides), dtype))
        if direction == "dgrad" and strides != (1, 1):
            assert plan.algorithm != "grouped"
            continue
        assert plan.algorithm == "grouped"
        assert (plan.settings.tile.taps, plan.settings.tile.stride) == (3, strides[0])


def test_only_where_groups_are_small() -> None:
    def shape(groups: int, channels: int, filters: int) -> ConvShape:
        x, w = (2, 8, 8, groups * channels), (groups * filters, 3, 3, channels)
        return ConvShape.of(x, w, groups=groups)

    for given, applies in (
        (shape(1, 4, 4), False), (shape(8, 1, 1), False), (shape(8, 1, 2), True),
        (shape(2, MOST_IN_GROUP, 3), True), (shape(2, 3, MOST_IN_GROUP + 1), False),
    ):  # fmt: skip
        for direction in DIRECTIONS:
            assert bool(list(GROUPED.plans(Problem(direction, given, "float32")))) == applies
        assert not list(GROUPED.plans(Problem("fprop", given, "float64")))


def test_a_window_that_shared_memory_cannot_hold_is_left_to_others() -> None:
    for window, held in ((11, True), (12, False)):
        shape = ConvShape.of((1, 20, 20, 6), (6, window, 10, 3), groups=2)
        assert bool(list(GROUPED.plans(Problem("fprop", shape, "float32")))) == held


def test_a_sequence_is_a_map_of_one_column() -> None:
    shape = CONVS["1d_grouped"]
    gathered = as_gather(Problem("fprop", shape, "float32"))
    assert gathered.x_shape == (3, 37, 1, 8) and gathered.y_shape == (3, 37, 1, 16)
    assert gathered.w_shape == (16, 3, 1, 4)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_arrays_that_begin_inside_another_vector(direction: str) -> None:
    backend = make_backend("checked")
    s, p = CONVS["grouped_few"], solved("grouped_few", "float32")

    arrays, expected, terms = {
        "fprop": ((inside_another(backend, p.x), p.w, p.b), p.y, p.y_terms),
        "dgrad": ((inside_another(backend, p.dy), p.w, p.b_dx), p.dx, p.dx_terms),
        "wgrad": ((p.x, inside_another(backend, p.dy)), p.dw, p.dw_terms),
    }[direction]
    problem = Problem(direction, s, "float32")
    plan, *_ = GROUPED.plans(problem)
    assert plan.settings.tile.channels == 4
    assert_close(
        GROUPED.run(backend, problem, plan, *arrays), expected, dtype=DTYPES["float32"],
        reduction=reduction(direction, s), magnitude=terms,
    )  # fmt: skip

"""Plans are pure functions of the shape: legal for the kernels, and fixed."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.backends.base import FLOATS, MATH
from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS, Plan, Problem
from gpucnn.backends.cuda.algorithms.base import MULTIPROCESSORS, PARTIAL_ELEMENTS
from gpucnn.backends.cuda.algorithms.tiles import (
    LARGE,
    NARROW,
    PLAIN,
    SLIM,
    SQUARE,
    STRIP,
    TALL,
    THIN,
    TILE_K,
    WIDE,
    Matrix,
    matrix_of,
)
from gpucnn.backends.cuda.geometry import RESIDUE, geometry_record, residue_table
from gpucnn.backends.cuda.plans import candidates, choose, ranked, shortlist
from gpucnn.backends.cuda.spatial import divisor
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


PROBLEMS = [
    Problem(direction, conv, dtype, architecture=architecture, math=math)
    for conv in SHAPES
    for direction in DIRECTIONS
    for dtype in FLOATS
    for architecture in (75, 90)
    for math in (MATH if dtype == "float32" else ("strict",))
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_every_problem_has_a_plan_and_keeps_it(problem: Problem) -> None:
    plans = list(candidates(problem))
    assert choose(problem) in plans
    choose.cache_clear()
    assert choose(problem) == min(
        plans, key=lambda plan: ALGORITHMS[plan.algorithm].cost(problem, plan)
    )
    for plan in plans:
        assert plan.is_legal()
        assert 0 < ALGORITHMS[plan.algorithm].cost(problem, plan) < float("inf")
        hash(plan)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_tiles_cover_the_matrix(problem: Problem) -> None:
    matrix = matrix_of(problem)
    for plan in ALGORITHMS["implicit_gemm"].plans(problem):
        tile = plan.settings.tile
        across = -(-matrix.n // tile.n)
        down, rest = divmod(plan.grid[0], across * matrix.groups)
        assert rest == 0
        assert matrix.m <= down * tile.m < matrix.m + tile.m


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_shortlist_begins_with_the_choice_and_knows_every_algorithm(problem: Problem) -> None:
    plans = ranked(problem)
    algorithms = list(dict.fromkeys(plan.algorithm for plan in plans))
    listed = shortlist(problem, 12)
    assert listed[0] == choose(problem)
    assert [plan.algorithm for plan in listed[: len(algorithms)]] == algorithms
    assert set(listed) <= set(plans) and len(set(listed)) == len(listed) == min(12, len(plans))
    assert shortlist(problem, 1) == [choose(problem)]


def test_what_no_gpu_has_run_is_measured_and_not_chosen() -> None:
    problem = Problem("fprop", shape(64, 7, 512, 512, 3), "bfloat16")
    first = ranked(problem)[0]
    assert first.settings.tile.cluster == 2
    assert choose(problem).settings.tile.cluster == 1
    assert first in shortlist(problem, 12)


def test_matrices_by_hand() -> None:
    conv = shape(3, 33, 6, 10, 3, strides=2, groups=2)
    assert matrix_of(Problem("fprop", conv, "float32")) == Matrix(3 * 16 * 16, 5, 27, 2)
    assert matrix_of(Problem("dgrad", conv, "float32")) == Matrix(3 * 17 * 17, 3, 20, 8)
    assert matrix_of(Problem("wgrad", conv, "float32")) == Matrix(27, 5, 3 * 16 * 16, 2)


TILES = (LARGE, WIDE, TALL, SQUARE, SLIM, STRIP, THIN, PLAIN, NARROW)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_splits_cover_every_term_once(problem: Problem) -> None:
    matrix = matrix_of(problem)
    for tile in TILES:
        for splits, terms in matrix.splits(tile):
            assert terms % TILE_K == 0
            assert (splits - 1) * terms < matrix.k <= splits * terms
            assert splits == 1 or splits * matrix.m * matrix.n * matrix.groups <= PARTIAL_ELEMENTS


def test_splits_spread_blocks_evenly_over_the_multiprocessors() -> None:
    """A layer of 64 rows: 9 splits would leave a second wave of 48 blocks."""
    problem = Problem("fprop", ConvShape.of((64, 1, 1, 25088), (4096, 1, 1, 25088)), "float32")
    matrix = matrix_of(problem)
    offered = {splits * matrix.blocks(SQUARE) for splits, _ in matrix.splits(SQUARE)}
    for held in range(1, 2 * SQUARE.blocks + 1):
        room = MULTIPROCESSORS * held
        assert any(room - matrix.blocks(SQUARE) < blocks <= room for blocks in offered), held


def test_the_tile_and_the_splits_follow_the_matrix() -> None:
    def settled(conv: ConvShape, dtype: str = "float32") -> tuple[object, int]:
        problem = Problem("fprop", conv, dtype)
        gemm = ALGORITHMS["implicit_gemm"]
        plan = min(gemm.plans(problem), key=lambda plan: gemm.cost(problem, plan))
        return plan.settings.tile, plan.grid[2]

    assert settled(shape(64, 28, 1, 6, 5)) == (NARROW, 1)
    assert settled(shape(32, 56, 64, 64, 3)) == (TALL, 1)
    assert settled(shape(32, 56, 64, 64, 3), "float16") == (PLAIN, 1)
    assert settled(shape(128, 32, 16, 32, 3)) == (SLIM, 1)
    assert settled(shape(128, 32, 16, 16, 3)) == (STRIP, 1)
    assert settled(shape(128, 32, 16, 3, 3)) == (THIN, 1)
    tile, splits = settled(shape(1, 7, 512, 512, 3, padding=1))
    assert tile == SQUARE and splits > 8


def test_vectors_are_for_whole_ones() -> None:
    def tiles(direction: str, *sizes: int, **options) -> set:
        problem = Problem(direction, shape(*sizes, **options), "float32")
        return {plan.settings.tile for plan in ALGORITHMS["implicit_gemm"].plans(problem)}

    for direction in DIRECTIONS:
        assert SQUARE in tiles(direction, 2, 9, 16, 24, 3)
        assert SQUARE not in tiles(direction, 2, 9, 12, 24, 3)
        assert SQUARE not in tiles(direction, 2, 9, 16, 20, 3)
        assert SQUARE not in tiles(direction, 2, 9, 16, 24, 3, groups=4)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_exact_problems_have_no_winograd(direction: str) -> None:
    def algorithms(math: str) -> set[str]:
        conv = shape(32, 14, 512, 512, 3, padding=1)
        problem = Problem(direction, conv, "float32", math=math)
        return {plan.algorithm for plan in candidates(problem)}

    assert algorithms("strict") - algorithms("exact") == {"winograd", "winograd4"}
    assert "implicit_gemm" in algorithms("exact")


@pytest.mark.parametrize("math", ["tf32", "fp32x3"])
def test_what_is_permitted_for_float32_is_strict_elsewhere(math: str) -> None:
    for dtype in FLOATS:
        asked, strict = (Problem("dgrad", SHAPES[2], dtype, math=each) for each in (math, "strict"))
        assert (asked == strict) == (dtype != "float32")
        # a permission, not an order
        assert {plan.algorithm for plan in candidates(strict)} <= {
            plan.algorithm for plan in candidates(asked)
        }


def test_what_no_launch_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="the tensor is too large for one launch"):
        choose(Problem("fprop", ConvShape.of((2**20, 2**10, 5), (2**17, 1, 5)), "float32"))


@pytest.mark.parametrize(
    ("plan", "legal"),
    [
        (Plan("x", None, (1, 1, 1), 256, 48 * 1024), True),
        (Plan("x", None, (1, 2**16, 1), 256), False),
        (Plan("x", None, (0, 1, 1), 256), False),
        (Plan("x", None, (1, 1, 1), 48), False),
        (Plan("x", None, (1, 1, 1), 2048), False),
        (Plan("x", None, (1, 1, 1), 256, 48 * 1024 + 1), False),
    ],
)
def test_what_a_device_can_launch(plan: Plan, legal: bool) -> None:
    assert plan.is_legal() is legal


@pytest.mark.parametrize("tile", TILES)
def test_threads_make_whole_warps(tile) -> None:
    assert tile.threads % 32 == 0
    assert tile.threads <= 1024
    assert tile.vector > 1 or (tile.threads % tile.m == 0 and tile.threads % tile.n == 0)


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


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize(("size", "window", "pad"), [(7, 3, 0), (5, 4, 3), (12, 1, 0), (3, 5, 6)])
def test_residues_pair_each_pixel_with_the_taps_that_reach_it(
    size: int, window: int, pad: int, stride: int, dilation: int
) -> None:
    conv = ConvShape.of(
        (1, size, 1), (1, window, 1), strides=stride, padding=((pad, 99),), dilation=dilation
    )
    pairs = set()
    for entry in residue_table(conv).view(RESIDUE)[1:]:  # behind that of the missing axis
        for i in range(entry["pixels"]):
            pixel = entry["first_pixel"] + stride * i
            assert 0 <= pixel < size
            for j in range(entry["taps"]):
                tap = entry["first_tap"] + entry["tap_step"] * j
                output = entry["first_output"] + i - entry["output_step"] * j
                pairs.add((int(pixel), int(tap), int(output)))
    assert pairs == {
        (pixel, tap, (pixel + pad - tap * dilation) // stride)
        for pixel in range(size)
        for tap in range(window)
        if (pixel + pad - tap * dilation) % stride == 0
    }

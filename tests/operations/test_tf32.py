"""float32 on tensor cores, where ``math`` permits it: where that is, and what is rounded how."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS, Plan, Problem, mma, mma_wgrad
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import CONVS, DTYPES, as_tf32
from tests.conftest import make_backend
from tests.emulator.build import CXX
from tests.operations.conftest import inside_another, same_bits
from tests.operations.test_conv import problem as solved

LARGE = ConvShape.of((32, 56, 56, 64), (64, 3, 3, 64), padding=1)
POINTWISE = ConvShape.of((32, 28, 28, 512), (128, 1, 1, 512))
RELAXED = ("tf32", "fp32x3")
BY_MMA = {"fprop": "mma", "dgrad": "mma", "wgrad": "mma_wgrad"}

needs_emulator = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
every_mode = pytest.mark.parametrize("math", RELAXED)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)


def plans(direction: str, shape: ConvShape, math: str, **given) -> list[Plan]:
    problem = Problem(direction, shape, given.pop("dtype", "float32"), math=math, **given)
    return list(ALGORITHMS[BY_MMA[direction]].plans(problem))


def run(direction: str, name: str, math: str, mode: str = "emulated", **replaced) -> np.ndarray:
    """Run a case's chosen plan of mma.sync, with other arrays in place of p.x, p.w or p.dy."""
    p = solved(name, "float32")
    x, w, dy = (replaced.get(array, getattr(p, array)) for array in ("x", "w", "dy"))
    arrays = {"fprop": (x, w, None), "dgrad": (dy, w, None), "wgrad": (x, dy)}[direction]
    problem = Problem(direction, CONVS[name], "float32", math=math)
    algorithm = ALGORITHMS[BY_MMA[direction]]
    plan = min(algorithm.plans(problem), key=lambda plan: algorithm.cost(problem, plan))
    return algorithm.run(make_backend(mode), problem, plan, *arrays)


@every_direction
def test_only_where_it_is_permitted_from_sm_80_on_and_channels_last(direction: str) -> None:
    for architecture in (75, 80, 86, 89, 90, 100, 120):
        for math in ("strict", "exact", *RELAXED):
            given = {"math": math, "architecture": architecture}
            assert bool(plans(direction, LARGE, **given)) == (
                architecture >= 80 and math in RELAXED
            )
    assert not plans(direction, replace(LARGE, channels_last=False), "tf32")
    assert not plans(direction, LARGE, "tf32", dtype="float64")


@every_mode
@every_direction
def test_whole_chunks_are_four_numbers_and_others_are_padded(direction: str, math: str) -> None:
    shape = ConvShape.of((3, 9, 10, 12), (20, 3, 3, 12))
    assert plans(direction, shape, math)
    for odd in (replace(shape, channels=10), replace(shape, filters=18)):
        whole = direction == "fprop" and odd.filters == 18
        assert bool(plans(direction, odd, math)) == whole
        padded = ALGORITHMS["mma_padded"].plans(Problem(direction, odd, "float32", math=math))
        assert len(list(padded)) == (not whole)


@every_direction
def test_chosen_where_tensor_cores_are_fast(direction: str) -> None:
    """A GPU for games multiplies TF32 no faster than float32."""
    for architecture in (80, 90, 100):
        problem = Problem(direction, LARGE, "float32", architecture=architecture, math="tf32")
        assert choose(problem).algorithm.startswith(("mma", "wgmma"))
    for math, shape in (("fp32x3", LARGE), ("fp32x3", POINTWISE), ("strict", POINTWISE)):
        problem = Problem(direction, shape, "float32", architecture=86, math=math)
        assert choose(problem) == choose(replace(problem, math="strict")), "three are too many"


@every_mode
@pytest.mark.parametrize("architecture", [80, 86, 90, 120])
def test_a_block_asks_for_what_it_may_have(architecture: int, math: str) -> None:
    for direction in mma.KERNELS:
        tiles, kernels = mma.WAYS[math]
        found = plans(direction, LARGE, math, architecture=architecture)
        for plan in found:
            kernel = kernels[direction](math, plan.settings.tile)
            assert kernel.dynamic_bytes + plan.shared_bytes <= 1024 * mma.MOST_SHARED[architecture]
        left_out = set(tiles) - {plan.settings.tile for plan in found}
        assert len(left_out) == (architecture in (86, 120) and math == "tf32"), "the largest"


@needs_emulator
@every_direction
def test_each_number_is_rounded_once_to_the_nearest(direction: str) -> None:
    """What is rounded already gives the same bits; what is cut, or rounded to even, others."""
    p = solved("split_sums", "float32")
    given = {name: getattr(p, name) for name in ("x", "w", "dy")}
    for name in given:
        ties = given[name].view(np.uint32)[..., :1] & np.uint32(0xFFFFE000) | np.uint32(0x1000)
        given[name] = given[name].copy()
        given[name][..., :1] = ties.view(np.float32)
    got = run(direction, "split_sums", "tf32", **given)
    rounded = {name: as_tf32(array) for name, array in given.items()}
    cut = {
        name: (array.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
        for name, array in given.items()
    }
    assert same_bits(got, run(direction, "split_sums", "tf32", **rounded))
    assert not same_bits(got, run(direction, "split_sums", "tf32", **cut))


@needs_emulator
@every_mode
@every_direction
def test_a_nan_reaches_all_that_it_should_and_nothing_else(direction: str, math: str) -> None:
    """An infinity stays one in TF32; its small part is no number, so that "fp32x3" gives NaN."""
    s = CONVS["vectors_dilated"]
    x, w, dy = (np.ones(size, np.float32) for size in (s.x_shape, s.w_shape, s.y_shape))
    for array in (x, dy):
        array[0, 0, 3, 1], array[0, -1, -1, 9] = np.nan, -np.inf
    x[0, 7, 5, 2] = np.finfo(np.float32).max  # rounded to infinity, as TF32 and as a large part
    taken = as_tf32(x), as_tf32(dy)
    expected = {
        "fprop": lambda: reference.conv_fprop(taken[0], w, None, s),
        "dgrad": lambda: reference.conv_dgrad(taken[1], w, None, s),
        "wgrad": lambda: reference.conv_wgrad(taken[0], np.ones_like(dy), s),
    }[direction]()
    assert np.isinf(expected).any() and np.isnan(expected).any() and np.isfinite(expected).any()
    got = run(
        direction, "vectors_dilated", math,
        x=x, w=w, dy=np.ones_like(dy) if direction == "wgrad" else dy,
    )  # fmt: skip
    if math == "fp32x3":
        expected = np.where(np.isinf(expected), np.nan, expected)
    np.testing.assert_array_equal(got, expected.astype(np.float32))  # sums of ones are exact


@needs_emulator
@every_direction
def test_three_products_have_the_error_of_float32(direction: str) -> None:
    """Root mean squares against float64, beside a strict plan's; one product has 1000 times it."""
    p = solved("whole_steps", "float32")
    exact = {"fprop": p.y - p.b, "dgrad": p.dx - p.b_dx, "wgrad": p.dw}[direction]

    def error(got: np.ndarray) -> float:
        return float(np.sqrt(np.mean((got - exact) ** 2)))

    arrays = {"fprop": (p.x, p.w, None), "dgrad": (p.dy, p.w, None), "wgrad": (p.x, p.dy)}
    problem = Problem(direction, CONVS["whole_steps"], "float32", math="exact")
    gemm = ALGORITHMS["implicit_gemm"]
    plan = next(gemm.plans(problem))
    strict = error(gemm.run(make_backend("emulated"), problem, plan, *arrays[direction]))
    one, three = (error(run(direction, "whole_steps", math)) for math in RELAXED)
    assert 0.1 * strict < three < 1.5 * strict
    assert 200 * strict < one < 5000 * strict


@needs_emulator
@every_direction
def test_arrays_that_begin_inside_another_give_the_same_bits(direction: str) -> None:
    backend, p = make_backend("checked"), solved("vectors_dilated", "float32")
    inside = {name: inside_another(backend, getattr(p, name)) for name in ("x", "w", "dy")}
    got, expected = (
        run(direction, "vectors_dilated", "tf32", "checked", **arrays) for arrays in (inside, {})
    )
    assert same_bits(got, expected)


def test_every_dtype_that_is_not_float32_keeps_its_own_plans() -> None:
    for dtype in DTYPES:
        if dtype != "float32":
            asked, strict = (Problem("wgrad", LARGE, dtype, math=m) for m in ("tf32", "strict"))
            assert choose(asked) == choose(strict)
    assert set(mma_wgrad.WAYS) == set(mma.WAYS)

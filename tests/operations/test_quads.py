"""Convolutions on tensor cores that store the maxima of 2x2 outputs in place of the outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem
from gpucnn.backends.cuda.conv_pool import pooled
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape, PoolShape
from tests import reference
from tests.cases import DTYPES, random
from tests.operations.conftest import poisoned
from tests.operations.test_epilogue import backend_or_skip

of = ConvShape.of
# Maps that lose a row, a column or neither; the ends of tiles inside a map; filters that end inside
# 16 bytes, or behind a warp's first ones.
SHAPES = {
    "mma": (
        of((2, 11, 14, 16), (20, 3, 3, 16), padding=((1, 0), (1, 2))),
        of((3, 13, 16, 16), (44, 3, 2, 8), strides=(1, 2), dilation=(2, 1), groups=2),
        of((1, 30, 19, 8), (136, 1, 1, 8)),
    ),
    "mma_padded": (of((2, 6, 9, 10), (12, 3, 3, 10)),),
    "wgmma": (
        of((2, 11, 21, 64), (72, 3, 3, 64), padding=((1, 0), (1, 2))),
        of((1, 58, 6, 64), (136, 2, 3, 64), padding=1),
    ),
}
# On the CPU the dtypes in which the epilogue's tests and those of TF32 build the kernels, too.
RUNS = [
    pytest.param(backend, name, dtype, id=f"{backend}-{name}-{dtype}", marks=marks)
    for backend, marks, dtypes in (
        ("emulated", (), ("bfloat16", "float32")),
        ("checked", (), ("float16",)),
        ("cuda", pytest.mark.gpu, ("float16", "bfloat16", "float32")),
    )
    for name in SHAPES
    for dtype in dtypes
    if backend != "checked" or name != "mma_padded"
]  # fmt: skip
each_run = pytest.mark.parametrize(("backend_name", "name", "dtype"), RUNS)


def pool_of(s: ConvShape, **options) -> PoolShape:
    options = {"mode": "max", "rank": s.rank, "channels_last": s.channels_last, **options}
    return PoolShape.of(s.y_shape, 2, **options)


def questions(
    backend: Backend, name: str, dtype: str, most: int | None = None
) -> Iterator[tuple[ConvShape, Problem, Plan]]:
    """Yield each shape with the plans for its maxima; persistent blocks take several tiles."""
    if name == "wgmma" and backend.launcher.architecture != 90:
        pytest.skip("wgmma is Hopper's")
    for s in SHAPES[name][:most]:
        problem = Problem("fprop", s, dtype, "linear", backend.launcher.architecture, "tf32")
        problem = pooled(problem, pool_of(s))
        algorithm = ALGORITHMS[name]
        found = [plan for plan in algorithm.plans(problem) if algorithm.fuses(problem, plan)]
        assert found
        for plan in found:
            if name == "wgmma":
                plan = replace(plan, grid=(min(2, plan.grid[0]), 1, 1))
            yield s, problem, plan


@each_run
def test_whole_numbers(backend_name: str, name: str, dtype: str) -> None:
    """-1, 0 and 1: all sums are exact, many outputs of a window equal, and some NaN."""
    backend, kind, ran = backend_or_skip(backend_name), DTYPES[dtype], 0
    solved = {}
    most = None if backend_name == "cuda" or dtype == "bfloat16" else 1
    for s, problem, plan in questions(backend, name, dtype, most):
        if s not in solved:
            x, w, b = (
                np.round(random(what, size, np.float64, -1.4, 1.4)).astype(kind)
                for what, size in (("x", s.x_shape), ("w", s.w_shape), ("b", (s.filters,)))
            )
            b[::3] -= kind.type(30 if s.taps > 1 else 9)  # ReLU cuts whole windows
            x[0, 5, 4, 3] = np.nan
            solved[s] = x, w, b, reference.conv_fprop(x, w, b, s)
        *arrays, z = solved[s]
        for activation in ("linear", "relu"):
            indexed, ran = ran % 3 < 2, ran + 1
            with poisoned(backend.xp):
                y, index = backend._run_pooled(
                    replace(problem, activation=activation), plan, *map(backend.asarray, arrays),
                    indexed,
                )  # fmt: skip
            cut = np.where(z <= 0, 0, z) if activation == "relu" else z
            want, place = reference.pool_forward(cut.astype(kind), pool_of(s))
            got = backend.to_numpy(y)
            assert got.dtype == kind and np.isnan(want).any() and not np.isnan(want).all()
            np.testing.assert_array_equal(got.astype(np.float64), want, err_msg=str(plan))
            assert (index is not None) == indexed
            if indexed:
                place = np.where((want > 0) | (activation == "linear"), place, 4)
                assert set(np.unique(place)) == set(range(5 if activation == "relu" else 4))
                np.testing.assert_array_equal(backend.to_numpy(index), place, err_msg=str(plan))


@pytest.mark.parametrize(
    ("backend_name", "name", "dtype"), [run for run in RUNS if run.values[2] == "bfloat16"]
)
def test_they_are_the_maxima_of_what_would_have_been_stored(
    backend_name: str, name: str, dtype: str
) -> None:
    """To the bit: rounding to 16 bits makes numbers equal, of which the first is chosen."""
    backend, kind, equals = backend_or_skip(backend_name), DTYPES[dtype], 0
    for s, problem, plan in questions(backend, name, dtype, 1):
        x, w, b = (
            backend.asarray(random(what, size, kind))
            for what, size in (("x", s.x_shape), ("w", s.w_shape), ("b", (s.filters,)))
        )
        for activation in ("linear", "silu"):
            problem = replace(problem, activation=activation)
            y, index = backend._run_pooled(problem, plan, x, w, b)
            stored = backend.run_plan(replace(problem, pooled=False), plan, x, w, b)
            want, place = backend.pool_forward(stored, pool_of(problem.shape))
            for ours, theirs in ((y, want), (index, place)):
                ours, theirs = map(backend.to_numpy, (ours, theirs))
                assert ours.tobytes() == theirs.tobytes(), plan
            stored, want = map(backend.to_numpy, (stored, want))
            spread = want.repeat(2, 1).repeat(2, 2)
            equals += np.sum(stored == spread) - want.size
    assert equals > 0


def test_a_plan_that_cannot_pool_is_followed_by_the_pool() -> None:
    """As the tuner may find it the fastest."""
    backend, s = backend_or_skip("emulated"), SHAPES["mma"][0]
    problem = pooled(Problem("fprop", s, "bfloat16", "relu"), pool_of(s))
    gemm = ALGORITHMS["implicit_gemm"]
    plan = next(gemm.plans(problem))
    assert not gemm.fuses(problem, plan) and choose(problem).algorithm != gemm.name
    x, w = random("x", s.x_shape, DTYPES["bfloat16"]), random("w", s.w_shape, DTYPES["bfloat16"])
    y, index = backend._run_pooled(problem, plan, x, w, None)
    z = backend.conv_fprop(x, w, None, s, "relu")
    want, place = reference.pool_forward(z, pool_of(s))
    np.testing.assert_allclose(y.astype(np.float64), want, rtol=0.01, atol=0.01)
    assert (backend.run_plan(problem, plan, x, w, None) == y).all()
    assert ((index == 4) == (y <= 0)).all() and (index == place)[want > 0].mean() > 0.95


# ---- plans: without a GPU ------------------------------------------------------------------------

VGG = [(224, 64), (112, 128), (56, 256), (28, 512)]


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [(80, "float16"), (80, "float32"), (90, "bfloat16"), (90, "float32"), (120, "bfloat16")],
)
@pytest.mark.parametrize(("size", "channels"), VGG)
def test_convolutions_of_vgg_take_their_pools_along(
    size: int, channels: int, dtype: str, architecture: int
) -> None:
    s = of((64, size, size, channels), (channels, 3, 3, channels), padding=1)
    problem = Problem("fprop", s, dtype, "relu", architecture, "tf32")
    even = pooled(problem, pool_of(s))
    assert even == replace(problem, pooled=True)
    plan = choose(even)
    assert ALGORITHMS[plan.algorithm].fuses(even, plan)
    assert problem.apart_us == 0 < even.apart_us


def test_a_faster_convolution_may_be_worth_more_than_its_pool() -> None:
    """The fastest one for 14x14 outputs has tiles of 192 in a row, not of whole windows."""
    s = of((64, 14, 14, 512), (512, 3, 3, 512), padding=1)
    even = pooled(Problem("fprop", s, "bfloat16", "relu"), pool_of(s))
    plan = choose(even)
    assert plan == choose(replace(even, pooled=False))
    assert not ALGORITHMS[plan.algorithm].fuses(even, plan)


def test_rows_and_columns_that_are_in_no_window_are_left_out() -> None:
    s = of((2, 12, 15, 16), (24, 3, 4, 16), strides=(1, 2), dilation=(2, 1), padding=((0, 1), 2))
    assert s.output == (9, 8)
    even = pooled(Problem("fprop", s, "float16"), pool_of(s)).shape
    assert even.output == (8, 8) and even.padding == ((0, 0), (2, 1))
    assert replace(even, padding=s.padding) == s


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float64"}, {"dtype": "float32"}, {"architecture": 75},
        {"shape": {"channels_last": False}}, {"shape": {"batch": 0}}, {"pool": {"ceil_mode": True}},
        {"pool": {"mode": "min"}}, {"pool": {"padding": 1}}, {"pool": {"strides": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_plan_for_both(change: dict) -> None:
    s = of((2, 12, 14, 16), (24, 3, 3, 16), padding=((1, 2), 1))
    assert s.output == (13, 14) and pooled(Problem("fprop", s, "float16"), pool_of(s))
    s = replace(s, **change.pop("shape", {}))
    pool = pool_of(s, **change.pop("pool", {}))
    assert pooled(Problem("fprop", s, **{"dtype": "float16", **change}), pool) is None


def test_split_sums_and_tiles_without_room_do_not_pool() -> None:
    s = of((1, 8, 8, 512), (512, 3, 3, 512), padding=1)
    for dtype, name in (("float16", "mma"), ("float32", "mma"), ("float16", "wgmma")):
        problem = pooled(Problem("fprop", s, dtype, math="tf32"), pool_of(s))
        algorithm = ALGORITHMS[name]
        pools = {plan: algorithm.fuses(problem, plan) for plan in algorithm.plans(problem)}
        assert any(pools.values()) and not all(pools.values())
        for plan, does in pools.items():
            if name == "mma":
                small = plan.settings.tile.m * plan.settings.tile.n < 2**15 or dtype == "float16"
                assert does == (plan.grid[2] == 1 and small)
            else:
                tile = plan.settings.tile
                assert does == (tile.patches > 0 and tile.images == 1)

"""Convolutions that read their input through a batch norm and its ReLU.

The bits are those of the norm's own pass and the same plan without it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.base import NORM_FUSED, Backend, NormOnLoad
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem, mma_tiles, mma_wgrad
from gpucnn.backends.cuda.plans import choose, estimate, norms_on_load
from gpucnn.backends.cuda.prologue import Normed
from gpucnn.shapes import ConvShape, NormShape
from tests.cases import DTYPES, random
from tests.conftest import make_backend
from tests.operations.conftest import poisoned, same_bits

EPSILON = 1e-3
# Pixels and channels that end inside a tile, a slab and a step; two splits; a stride; one axis.
CASES = {
    "pixels": ConvShape.of((3, 7, 9, 40), (16, 1, 1, 40)),
    "few": ConvShape.of((2, 5, 13, 8), (8, 1, 1, 8)),
    "strided": ConvShape.of((2, 13, 9, 24), (40, 1, 1, 24), strides=2),
    "steps": ConvShape.of((3, 70, 24), (8, 1, 24)),
    "splits": ConvShape.of((1, 7, 11, 520), (8, 1, 1, 520)),
}
TILES = {
    "fprop": dict(zip(("check", "fast"), mma_tiles.NORM_TILES, strict=True)),
    "wgrad": dict(zip(("fast", "check"), mma_wgrad.NORM_EFFICIENCY, strict=True)),
}
RUNS = [
    pytest.param("emulated", "bfloat16", "fast", id="emulated"),
    pytest.param("checked", "float16", "check", id="checked"),
    *(
        pytest.param("cuda", dtype, tile, id=f"cuda-{dtype}-{tile}", marks=pytest.mark.gpu)
        for dtype in ("float16", "bfloat16")
        for tile in ("fast", "check")
    ),
]


def given(s: ConvShape, dtype: str, backend: Backend, activation: str) -> tuple[Any, ...]:
    """x, w, b, dy, and the norm; x has infinities and a NaN.

    Channel 1 has large numbers that are nearly alike, and 0 there would become an infinity.
    """
    kind = DTYPES[dtype]
    x = random("x", s.x_shape, np.float32, -2, 2)
    mean = random("mean", (s.channels,), np.float32)
    var = random("var", (s.channels,), np.float32, 0.1, 2)
    x[..., 1] = 128 + np.round(x[..., 1])
    mean[1], var[1] = 128, 0
    flat = x.reshape(-1, s.channels)
    flat[3, 2], flat[-1, 3], flat[4, 4] = np.inf, -np.inf, np.nan
    w, b, dy = (
        random(name, shape, kind)
        for name, shape in (("w", s.w_shape), ("b", (s.filters,)), ("dy", s.y_shape))
    )
    gamma, beta = (random(name, (s.channels,), kind, 0.5, 2) for name in ("gamma", "beta"))
    gamma[1] = -5e35 if dtype == "bfloat16" else -100
    arrays = map(backend.asarray, (x.astype(kind), w, b, dy, gamma, beta, mean, var))
    x, w, b, dy, *parameters = arrays
    return x, w, b, dy, NormOnLoad(*parameters, EPSILON, activation)


def without_norm(problem: Problem, plan: Plan) -> tuple[Problem, Plan]:
    tile = replace(plan.settings.tile, norms=False)
    settings = replace(plan.settings, tile=tile)
    return replace(problem, prologue=False), replace(plan, settings=settings)


def assert_same(got: np.ndarray, want: np.ndarray) -> None:
    """Compare bits, but for those of a NaN."""
    numbers = ~np.isnan(want.astype(np.float64))
    assert (numbers == ~np.isnan(got.astype(np.float64))).all()
    assert same_bits(got[numbers], want[numbers])


def applied(backend: Backend, x: Any, norm: NormOnLoad, s: ConvShape) -> Any:
    return backend.batch_norm_infer(x, *norm[:5], NormShape.of(s.x_shape), norm.activation)


@pytest.mark.parametrize("direction", TILES)
@pytest.mark.parametrize(("backend_name", "dtype", "tile"), RUNS)
def test_the_bits_are_those_of_both_after_each_other(backend_name, dtype, tile, direction) -> None:
    try:
        backend = make_backend(backend_name)
    except RuntimeError as error:
        pytest.skip(str(error))
    splits = set()
    for number, s in enumerate(CASES.values()):
        activation = NORM_FUSED[number % 3]
        x, w, b, dy, norm = given(s, dtype, backend, activation)
        z = applied(backend, x, norm, s)
        problem = Problem(direction, s, dtype, prologue=True, moments=direction == "fprop")
        algorithm = ALGORITHMS["mma" if direction == "fprop" else "mma_wgrad"]
        plans = [p for p in algorithm.plans(problem) if p.settings.tile == TILES[direction][tile]]
        for plan in dict.fromkeys((plans[0], plans[-1])):
            assert algorithm.norms_on_load(problem, plan)
            plain = without_norm(problem, plan)
            with poisoned(backend.xp):
                if direction == "fprop":
                    got = backend._run_with_moments(problem, plan, Normed(x, norm), w, b)
                    want = backend._run_with_moments(*plain, z, w, b)
                else:
                    got = (backend.run_plan(problem, plan, x, dy, on_load=norm),)
                    want = (backend.run_plan(*plain, z, dy),)
            for each in zip(got, want, strict=True):
                assert_same(*map(backend.to_numpy, each))
            numbers = backend.to_numpy(want[0]).astype(np.float64)
            assert np.isfinite(numbers).mean() > 0.5
            assert direction == "fprop" or np.isfinite(numbers[..., 1]).all()
            splits.add(plan.grid[2])
    assert max(splits) > 1


@pytest.mark.parametrize("backend_name", ["numpy", "emulated"])
def test_whatever_the_plan(backend_name: str) -> None:
    """A norm that no kernel takes along is a pass of its own."""
    s, backend = ConvShape.of((5, 9, 23, 5), (4, 1, 1, 5)), make_backend(backend_name)
    dtype = "bfloat16"
    x, w, b, dy, norm = given(s, dtype, backend, "relu6")
    z = applied(backend, x, norm, s)
    gamma, beta = (backend.asarray(np.ones(4, w.dtype)) for _ in range(2))
    pairs = [
        (backend.conv_fprop(x, w, b, s, on_load=norm), backend.conv_fprop(z, w, b, s)),
        (backend.conv_wgrad(x, dy, s, on_load=norm), backend.conv_wgrad(z, dy, s)),
    ]
    y, nothing, *statistics = backend.conv_norm_train(
        x, w, b, s, gamma, beta, EPSILON, on_load=norm, applies=False
    )
    wanted, _, *moments = backend.conv_norm_train(z, w, b, s, gamma, beta, EPSILON)
    assert nothing is None
    pairs += [(y, wanted), *zip(statistics, moments, strict=True)]
    for shape in (s.norm_shape, NormShape(1, 4, 9)):  # of many numbers, and of few
        y = backend.asarray(random("y", (shape.batch, shape.length, 4), DTYPES[dtype]))
        nothing, *statistics = backend.batch_norm_train(
            y, gamma, beta, EPSILON, shape, applies=False
        )
        assert nothing is None
        _, *moments = backend.batch_norm_train(y, gamma, beta, EPSILON, shape)
        pairs += zip(statistics, moments, strict=True)
    for pair in pairs:
        assert_same(*map(backend.to_numpy, pair))


def test_a_backend_takes_the_norm_along() -> None:
    """By the plans that it chooses itself."""
    backend, s = make_backend("emulated"), ConvShape.of((9, 16, 16, 24), (16, 1, 1, 24))
    assert backend.norms_on_load(s, DTYPES["bfloat16"], "strict")
    assert not any(backend.norms_on_load(s, dtype, "strict") for dtype in ("float32", "complex64"))
    launched = []
    launch = backend.launcher.launch
    x, w, b, dy, norm = given(s, "bfloat16", backend, "relu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            backend.launcher, "launch",
            lambda kernel, *rest: (launched.append(kernel.symbol), launch(kernel, *rest)),
        )  # fmt: skip
        backend.conv_norm_train(
            x, w, b, s, norm.gamma[:16], norm.beta[:16], EPSILON, on_load=norm, applies=False
        )
        backend.conv_wgrad(x, dy, s, on_load=norm)
    kernels = [name for name in launched if name.startswith("conv")]
    assert len(kernels) == 2 and all(name.endswith("_norm") for name in kernels)
    assert not [name for name in launched if name.startswith("batch_norm")]


# MobileNetV2's projections and ResNet-50's expansions, at 128 pictures: (map, channels, filters).
PROJECTIONS = [(112, 32, 16), (56, 96, 24), (56, 144, 24), (28, 144, 32), (28, 192, 32)]
EXPANSIONS = [(56, 64, 256), (28, 128, 512), (14, 256, 1024), (7, 512, 2048)]


def pointwise(size: int, channels: int, filters: int, **given: Any) -> ConvShape:
    return ConvShape.of((128, size, size, channels), (filters, 1, 1, channels), **given)


@pytest.mark.parametrize("architecture", [80, 86, 90, 120])
def test_where_it_pays(architecture: int) -> None:
    """Where memory is what is waited for: few filters read many channels."""
    for dtype in ("float16", "bfloat16"):
        for sizes, pays in ((PROJECTIONS, True), (EXPANSIONS, False)):
            for size in sizes:
                assert norms_on_load(pointwise(*size), dtype, "strict", architecture) == pays
    shape = pointwise(*PROJECTIONS[2])
    for dtype, math_mode in (("float32", "strict"), ("float32", "tf32"), ("float64", "strict")):
        assert not norms_on_load(shape, dtype, math_mode, architecture)
    assert not norms_on_load(shape, "bfloat16", "strict", 75)
    assert not norms_on_load(replace(shape, batch=0), "bfloat16", "strict", architecture)
    assert not norms_on_load(
        replace(shape, channels_last=False), "bfloat16", "strict", architecture
    )


@pytest.mark.parametrize("direction", TILES)
def test_what_the_kernels_take_along(direction: str) -> None:
    """Windows of one tap without padding or groups, of 16-bit elements; the rest is two passes."""

    def takes(s: ConvShape, dtype: str = "bfloat16", **given: Any) -> bool:
        problem = Problem(direction, s, dtype, prologue=True, **given)
        found = {
            algorithm.norms_on_load(problem, plan)
            for algorithm in ALGORITHMS.values()
            for plan in algorithm.plans(problem)
        }
        assert False in found, "the pass may always be quicker"
        return True in found

    shape = pointwise(14, 96, 32)
    assert takes(shape) and takes(shape, "float16", architecture=80)
    assert takes(replace(shape, input=(13, 13), strides=(2, 2)))
    assert not takes(shape, architecture=75)
    assert not takes(shape, "float32") and not takes(shape, "float32", math="tf32")
    assert not takes(replace(shape, channels_last=False))
    assert not takes(replace(shape, groups=2))
    assert not takes(pointwise(14, 96, 32, padding=1)) and not takes(pointwise(14, 92, 32))
    assert not takes(ConvShape.of((8, 9, 9, 32), (32, 3, 3, 32)))
    plain = Problem(direction, shape, "bfloat16")
    normed = replace(plain, prologue=True)
    for plan in ALGORITHMS["mma" if direction == "fprop" else "mma_wgrad"].plans(normed):
        if plan.settings.tile.norms:
            assert estimate(normed, plan) > estimate(*without_norm(normed, plan))
        else:
            assert estimate(normed, plan) == estimate(plain, plan) + normed.norm_us
    assert choose(normed).settings.tile.norms


def test_channels_that_the_table_holds() -> None:
    for channels, fits in ((mma_tiles.NORM_CHANNELS, True), (mma_tiles.NORM_CHANNELS + 8, False)):
        problem = Problem("fprop", pointwise(7, channels, 64), "bfloat16", prologue=True)
        tiles = {plan.settings.tile for plan in ALGORITHMS["mma"].plans(problem)}
        assert (tiles >= set(mma_tiles.NORM_TILES)) == fits

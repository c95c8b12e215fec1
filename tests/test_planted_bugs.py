"""Bugs planted in copies of our kernels: the tests must catch every one.

A test suite for kernels is worth what it catches. Each entry damages one line of one file, as a
tired person would; the checked emulator has to report it, or the result has to miss the
reference. Undamaged copies pass by the same path.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gpucnn.backends.cuda import CudaBackend, columns, norm
from gpucnn.backends.cuda import norm_pool as norm_pool_module
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem, wgmma_tiles, wgmma_wgrad
from gpucnn.backends.cuda.algorithms.ladder import TILED
from gpucnn.backends.cuda.algorithms.mma import SMALL
from gpucnn.backends.cuda.algorithms.tiles import NARROW, PLAIN, THIN
from gpucnn.backends.cuda.compiler import kernel_folder
from gpucnn.backends.cuda.conv_pool import pooled as with_pool
from gpucnn.changes import Changes
from gpucnn.shapes import ConvShape, NormShape, PoolShape
from tests import reference
from tests.cases import as_tf32, in_layout
from tests.cases import random as draw
from tests.emulator import KernelError
from tests.emulator_launcher import EmulatorLauncher
from tests.operations.conftest import poisoned
from tests.operations.test_algorithms import ROUNDINGS
from tests.tolerance import assert_close as close

random = partial(draw, dtype=np.float32)
assert_close = partial(close, dtype=np.float32)

CONV = ConvShape.of(
    (2, 10, 9, 36), (34, 3, 2, 18), strides=(2, 1), padding=((1, 0), (1, 2)), dilation=(1, 2),
    groups=2,
)  # fmt: skip
VECTORS = ConvShape.of((2, 9, 7, 16), (24, 3, 3, 16), padding=((1, 0), (2, 1)))
NARROW_MAP = replace(CONV, channels_last=False)
WINOGRAD = ConvShape.of((1, 7, 9, 18), (20, 3, 3, 18), padding=((2, 0), (0, 2)))
DEPTHWISE = ConvShape.of((2, 9, 18, 44), (44, 3, 3, 1), groups=44, padding=((1, 2), (1, 0)))
GROUPED = ConvShape.of(
    (2, 9, 10, 24), (30, 3, 3, 8), groups=3, padding=((1, 2), (1, 0))
)  # fmt: skip
POOL = PoolShape.of((2, 7, 8, 5), (3, 2), mode="max", rank=2, strides=(2, 1), padding=(1, 0))
STEM = ConvShape.of((3, 9, 13, 2), (36, 3, 3, 2), padding=1)
STEM_POOL = PoolShape.of((3, 9, 13, 36), 2, mode="max", rank=2, ceil_mode=True)
NORM = NormShape(batch=3, channels=37, length=70, groups=1)


def implicit_gemm(
    backend: CudaBackend, direction: str, shape: ConvShape, *arrays, splits: bool = False
) -> np.ndarray:
    """Run the implicit GEMM for any sizes, with the narrow tile, whole sums or split ones."""
    problem, gemm = Problem(direction, shape, "float32"), ALGORITHMS["implicit_gemm"]
    (plan,) = (
        plan for plan in gemm.plans(problem)
        if plan.settings.tile == NARROW and (plan.grid[2] > 1) == splits
    )  # fmt: skip
    return gemm.run(backend, problem, plan, *arrays)


def fprop(backend: CudaBackend) -> None:
    x, w, b = (random(n, s) for n, s in (("x", CONV.x_shape), ("w", CONV.w_shape), ("b", (34,))))
    y = reference.conv_fprop(x, w, b, CONV)
    terms = reference.conv_fprop(*map(np.abs, (x, w, b)), CONV)
    got = implicit_gemm(backend, "fprop", CONV, x, w, b)
    assert_close(got, y, reduction=109, magnitude=terms)


def fprop_nchw(backend: CudaBackend) -> None:
    x, w = random("x", CONV.x_shape), random("w", CONV.w_shape)
    y, terms = (
        in_layout(reference.conv_fprop(*a, None, CONV), False)
        for a in ((x, w), (np.abs(x), np.abs(w)))
    )
    got = implicit_gemm(backend, "fprop", NARROW_MAP, in_layout(x, False), w, None)
    assert_close(got, y, reduction=108, magnitude=terms)


def dgrad(backend: CudaBackend) -> None:
    dy, w = random("dy", CONV.y_shape), random("w", CONV.w_shape)
    dx = reference.conv_dgrad(dy, w, None, CONV)
    terms = reference.conv_dgrad(np.abs(dy), np.abs(w), None, CONV)
    got = implicit_gemm(backend, "dgrad", CONV, dy, w, None)
    assert_close(got, dx, reduction=102, magnitude=terms)


def wgrad(backend: CudaBackend) -> None:
    shape = replace(CONV, batch=20)
    x, dy = random("x", shape.x_shape), random("dy", shape.y_shape)
    dw = reference.conv_wgrad(x, dy, shape)
    terms = reference.conv_wgrad(np.abs(x), np.abs(dy), shape)
    got = implicit_gemm(backend, "wgrad", shape, x, dy, splits=True)
    assert_close(got, dw, reduction=1000, magnitude=terms)


def tiled(backend: CudaBackend) -> None:
    """The ladder's second rung."""
    s = replace(CONV, groups=1)
    x, w = random("x", s.x_shape), random("w", s.w_shape)
    y, terms = (reference.conv_fprop(*a, None, s) for a in ((x, w), (np.abs(x), np.abs(w))))
    problem = Problem("fprop", s, "float32")
    got = TILED.run(backend, problem, *TILED.plans(problem), x, w, None)
    assert_close(got, y, reduction=216, magnitude=terms)


def on_tensor_cores(backend: CudaBackend, direction: str, expected: np.ndarray, *arrays) -> None:
    problem = Problem(direction, CONV, "float64")
    for plan in ALGORITHMS["dmma"].plans(problem):
        got = ALGORITHMS["dmma"].run(backend, problem, plan, *arrays)
        close(got, expected, dtype=np.float64, reduction=108, magnitude=108 * np.ones(got.shape))


def fprop_f64(backend: CudaBackend) -> None:
    x, w = draw("x", CONV.x_shape, np.float64), draw("w", CONV.w_shape, np.float64)
    on_tensor_cores(backend, "fprop", reference.conv_fprop(x, w, None, CONV), x, w, None)


def wgrad_f64(backend: CudaBackend) -> None:
    x, dy = draw("x", CONV.x_shape, np.float64), draw("dy", CONV.y_shape, np.float64)
    on_tensor_cores(backend, "wgrad", reference.conv_wgrad(x, dy, CONV), x, dy)


HALVES = ConvShape.of(
    (1, 9, 10, 176), (44, 3, 2, 88), strides=(2, 1), padding=((1, 0), (1, 2)), dilation=(1, 2),
    groups=2,
)  # fmt: skip


def by_mma(
    backend: CudaBackend, direction: str, s: ConvShape, dtype: str = "float16",
    math_mode: str = "strict",
) -> None:  # fmt: skip
    """Multiply on tensor cores, in whole sums and in split ones; forward with ReLU."""
    forward = direction == "fprop"
    source, b = (
        draw(name, shape, dtype)
        for name, shape in zip(
            ("source", "b"), ((s.x_shape, (s.filters,)) if forward else (s.y_shape, (s.channels,))),
            strict=True,
        )
    )  # fmt: skip
    w, solve = draw("w", s.w_shape, dtype), getattr(reference, f"conv_{direction}")
    taken = [as_tf32(a) if math_mode == "tf32" else a for a in (source, w)] + [b]
    expected, terms = (solve(*a, s) for a in (taken, map(np.abs, taken)))
    problem = Problem(direction, s, dtype, "relu" if forward else "linear", math=math_mode)
    roundings = 529 * ROUNDINGS.get(math_mode, 1)
    for plan in ALGORITHMS["mma"].plans(problem):
        if (plan.settings.tile.m, plan.settings.tile.n) == (64, 64):
            with poisoned(np):
                got = ALGORITHMS["mma"].run(backend, problem, plan, source, w, b)
            want = np.maximum(expected, 0) if forward else expected
            close(got, want, dtype=dtype, reduction=roundings, magnitude=terms, what=str(plan))


def fprop_f16(backend: CudaBackend) -> None:
    by_mma(backend, "fprop", HALVES)
    by_mma(backend, "fprop", replace(HALVES, channels=128))  # slabs of one tap each


def dgrad_f16(backend: CudaBackend) -> None:
    by_mma(backend, "dgrad", replace(HALVES, channels=48, filters=176))


def fprop_tf32(backend: CudaBackend) -> None:
    by_mma(backend, "fprop", HALVES, "float32", "tf32")


def dgrad_tf32(backend: CudaBackend) -> None:
    shape = replace(HALVES, channels=96, filters=40)
    by_mma(backend, "dgrad", shape, "float32", "tf32")


def fprop_fp32x3(backend: CudaBackend) -> None:
    by_mma(backend, "fprop", HALVES, "float32", "fp32x3")


def padded_f16(backend: CudaBackend) -> None:
    """Channels and filters of a group that are no multiple of 8."""
    s, algorithm = replace(HALVES, channels=38), ALGORITHMS["mma_padded"]
    dy, w, b = (
        draw(name, shape, np.float16)
        for name, shape in (("dy", s.y_shape), ("w", s.w_shape), ("b", (38,)))
    )
    expected, terms = (reference.conv_dgrad(*a, s) for a in ((dy, w, b), map(np.abs, (dy, w, b))))
    problem = Problem("dgrad", s, "float16")
    (plan,) = algorithm.plans(problem)
    with poisoned(np):
        got = algorithm.run(backend, problem, plan, dy, w, b)
    close(got, expected, dtype=np.float16, reduction=133, magnitude=terms)


def gathered(backend: CudaBackend, channels_last: bool, wanted: Callable[[Plan], bool]) -> None:
    """Run the plans of the implicit GEMM that are wanted, with a bias and ReLU."""
    shape, gemm = replace(VECTORS, channels_last=channels_last), ALGORITHMS["implicit_gemm"]
    x, w, b = random("x", VECTORS.x_shape), random("w", VECTORS.w_shape), random("b", (24,))
    y = np.maximum(reference.conv_fprop(x, w, b, VECTORS), 0)
    terms = reference.conv_fprop(*map(np.abs, (x, w, b)), VECTORS)
    x, y, terms = (in_layout(a, channels_last) for a in (x, y, terms))
    problem = Problem("fprop", shape, "float32", "relu")
    plans = [plan for plan in gemm.plans(problem) if wanted(plan)]
    assert plans
    for plan in plans:
        got = gemm.run(backend, problem, plan, x, w, b)
        assert_close(got, y, reduction=145, magnitude=terms)


def vectors(backend: CudaBackend) -> None:
    gathered(backend, True, lambda plan: plan.settings.tile.vector_n > 1 and plan.grid[2] == 1)


def thin(backend: CudaBackend) -> None:
    gathered(backend, True, lambda plan: plan.settings.tile == THIN and plan.grid[2] == 1)


def split_sums(backend: CudaBackend) -> None:
    gathered(backend, False, lambda plan: plan.settings.tile == PLAIN and plan.grid[2] > 1)


def winograd(backend: CudaBackend) -> None:
    problem = Problem("fprop", WINOGRAD, "float32", "relu")
    algorithm = ALGORITHMS["winograd"]
    plan, *_ = algorithm.plans(problem)  # the largest block
    x, w, b = random("x", WINOGRAD.x_shape), random("w", WINOGRAD.w_shape), random("b", (20,))
    y = np.maximum(reference.conv_fprop(x, w, b, WINOGRAD), 0)
    terms = reference.conv_fprop(*map(np.abs, (x, w, b)), WINOGRAD)
    got = algorithm.run(backend, problem, plan, x, w, b)
    assert_close(got, y, reduction=163, magnitude=terms)


def winograd_dgrad(backend: CudaBackend) -> None:
    problem = Problem("dgrad", replace(WINOGRAD, channels_last=False), "float32")
    algorithm = ALGORITHMS["winograd"]
    *_, plan = algorithm.plans(problem)  # the smallest
    dy, w = random("dy", WINOGRAD.y_shape), random("w", WINOGRAD.w_shape)
    dx, terms = (
        in_layout(reference.conv_dgrad(*a, None, WINOGRAD), False)
        for a in ((dy, w), (np.abs(dy), np.abs(w)))
    )
    got = algorithm.run(backend, problem, plan, in_layout(dy, False), w, None)
    assert_close(got, dx, reduction=180, magnitude=terms)


def winograd_wgrad(backend: CudaBackend) -> None:
    shape, algorithm = replace(WINOGRAD, batch=7), ALGORITHMS["winograd"]  # two splits
    problem = Problem("wgrad", shape, "float32")
    plan, *_ = algorithm.plans(problem)
    x, dy = random("x", shape.x_shape), random("dy", shape.y_shape)
    dw, terms = (reference.conv_wgrad(*a, shape) for a in ((x, dy), (np.abs(x), np.abs(dy))))
    assert_close(algorithm.run(backend, problem, plan, x, dy), dw, reduction=441, magnitude=terms)


def winograd4(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 7, 9, 257), (5, 3, 3, 257), padding=1)  # 6 tiles, and 2 empty ones
    problem, algorithm = Problem("fprop", shape, "float32"), ALGORITHMS["winograd4"]
    plan, *_ = algorithm.plans(problem)
    x, w = random("x", shape.x_shape), random("w", shape.w_shape)
    y, terms = (reference.conv_fprop(*a, None, shape) for a in ((x, w), (np.abs(x), np.abs(w))))
    got = algorithm.run(backend, problem, plan, x, w, None)
    assert_close(got, y, reduction=2313, magnitude=terms)


def depthwise(backend: CudaBackend) -> None:
    problem, algorithm = Problem("fprop", DEPTHWISE, "float32"), ALGORITHMS["depthwise"]
    plan, *_ = algorithm.plans(problem)
    x, w = random("x", DEPTHWISE.x_shape), random("w", DEPTHWISE.w_shape)
    y, terms = (reference.conv_fprop(*a, None, DEPTHWISE) for a in ((x, w), (np.abs(x), np.abs(w))))
    got = algorithm.run(backend, problem, plan, x, w, None)
    assert_close(got, y, reduction=9, magnitude=terms)


def depthwise_dgrad(backend: CudaBackend) -> None:
    algorithm = ALGORITHMS["depthwise"]
    for shape in (DEPTHWISE, replace(DEPTHWISE, strides=(2, 2))):
        problem = Problem("dgrad", shape, "float32")
        plan, *_ = algorithm.plans(problem)
        dy, w = random("dy", shape.y_shape), random("w", shape.w_shape)
        dx, terms = (
            reference.conv_dgrad(*a, None, shape) for a in ((dy, w), (np.abs(dy), np.abs(w)))
        )
        got = algorithm.run(backend, problem, plan, dy, w, None)
        assert_close(got, dx, reduction=9, magnitude=terms)


def depthwise_wgrad(backend: CudaBackend) -> None:
    shape, algorithm = replace(DEPTHWISE, batch=7), ALGORITHMS["depthwise"]  # several splits
    problem = Problem("wgrad", shape, "float32")
    plan, *_ = algorithm.plans(problem)
    x, dy = random("x", shape.x_shape), random("dy", shape.y_shape)
    dw, terms = (reference.conv_wgrad(*a, shape) for a in ((x, dy), (np.abs(x), np.abs(dy))))
    got = algorithm.run(backend, problem, plan, x, dy)
    assert_close(got, dw, reduction=1134, magnitude=terms)


def pooled(backend: CudaBackend, shape: PoolShape, x: np.ndarray) -> None:
    """Forward and backward; x and the shape's reference have channels last."""
    last, selects = replace(shape, channels_last=True), shape.mode in ("max", "min")
    dy = random("dy", last.y_shape)
    y, index = reference.pool_forward(x, last)
    dx, terms = (reference.pool_backward(g, index, last) for g in (dy, np.abs(dy)))
    x, dy, y, dx, terms = (in_layout(a, shape.channels_last) for a in (x, dy, y, dx, terms))
    with poisoned(np):
        got, place = backend.pool_forward(x, shape)
        assert_close(got, y, reduction=last.taps + 1, magnitude=last.taps * np.ones(y.shape))
        if selects:
            index = in_layout(index, shape.channels_last).astype(shape.index_dtype)
            assert (place == index).all()
            got, place = backend.pool_forward(x, shape, activation="relu")
            assert_close(got, np.maximum(y, 0), magnitude=0)
            assert (place == np.where(y > 0, index, shape.taps)).all()
        got = backend.pool_backward(dy, index if selects else None, shape)
    assert_close(got, dx, reduction=2 * last.taps, magnitude=terms)


def grouped(backend: CudaBackend) -> None:
    """The output and, in the other layout, the gradient of the input."""
    algorithm, x, w = (
        ALGORITHMS["grouped"],
        random("x", GROUPED.x_shape),
        random("w", GROUPED.w_shape),
    )
    problem = Problem("fprop", GROUPED, "float32")
    plan, *_ = algorithm.plans(problem)
    y, terms = (reference.conv_fprop(*a, None, GROUPED) for a in ((x, w), (np.abs(x), np.abs(w))))
    got = algorithm.run(backend, problem, plan, x, w, None)
    assert_close(got, y, reduction=72, magnitude=terms)

    problem = Problem("dgrad", replace(GROUPED, channels_last=False), "float32")
    plan, *_ = algorithm.plans(problem)
    dy = random("dy", GROUPED.y_shape)
    dx, terms = (
        in_layout(reference.conv_dgrad(*a, None, GROUPED), False)
        for a in ((dy, w), (np.abs(dy), np.abs(w)))
    )
    got = algorithm.run(backend, problem, plan, in_layout(dy, False), w, None)
    assert_close(got, dx, reduction=90, magnitude=terms)


def grouped_wgrad(backend: CudaBackend) -> None:
    algorithm, problem = ALGORITHMS["grouped"], Problem("wgrad", GROUPED, "float32")
    plan, *_ = algorithm.plans(problem)
    x, dy = random("x", GROUPED.x_shape), random("dy", GROUPED.y_shape)
    dw, terms = (reference.conv_wgrad(*a, GROUPED) for a in ((x, dy), (np.abs(x), np.abs(dy))))
    got = algorithm.run(backend, problem, plan, x, dy)
    assert_close(got, dw, reduction=180, magnitude=terms)


def on_hopper(
    backend: CudaBackend, direction: str, s: ConvShape, tile: wgmma_tiles.Tile, dtype=np.float16
) -> None:
    """Multiply by wgmma with this tile, one block or cluster, which has all; forward with ReLU."""
    forward = direction == "fprop"
    sizes = (s.x_shape, s.w_shape, (s.filters,)) if forward else (s.y_shape, s.w_shape, (72,))
    arrays = [draw(f"{i}", size, dtype) for i, size in enumerate(sizes)]
    if dtype == np.float32:  # whose products TF32 has whole
        arrays[:2] = [as_tf32(a) for a in arrays[:2]]
    solve = getattr(reference, f"conv_{direction}")
    algorithm = ALGORITHMS["wgmma" if forward or s.strides == (1, 1) else "wgmma_dgrad"]
    expected, terms = solve(*arrays, s), solve(*map(np.abs, arrays), s)
    activation = "relu" if forward else "linear"
    problem = Problem(direction, s, np.dtype(dtype).name, activation, math="tf32")
    plans = [plan for plan in algorithm.plans(problem) if plan.settings.tile == tile]
    assert plans
    for plan in plans:
        plan = replace(plan, grid=(tile.cluster, 1, 1))
        with poisoned(np):
            got = algorithm.run(backend, problem, plan, *arrays)
        want = np.maximum(expected, 0) if forward else expected
        close(got, want, dtype=dtype, reduction=649, magnitude=terms, what=str(plan))


def epilogues(
    backend: CudaBackend, name: str, s: ConvShape, dtype: type, wanted: Callable[[Plan], bool]
) -> None:
    """Add a residual before a ReLU6, and before a SiLU; and moments, far from 0."""
    algorithm, reduction = ALGORITHMS[name], s.taps * s.channels // s.groups + 2
    x, w, b, residual = (
        draw(name, size, dtype)
        for name, size in (("x", s.x_shape), ("w", s.w_shape), ("b", (s.filters,)),
                           ("residual", s.y_shape))
    )  # fmt: skip
    y = reference.conv_fprop(x, w, b, s) + residual
    terms = reference.conv_fprop(*map(np.abs, (x, w, b)), s) + np.abs(residual)
    problem = Problem("fprop", s, np.dtype(dtype).name, "relu6", residual=True)
    (plan,) = filter(wanted, algorithm.plans(problem))
    if name == "wgmma":  # one block or cluster
        plan = replace(plan, grid=(plan.settings.tile.cluster, 1, 1))
    for kind in ("relu6", "silu"):
        with poisoned(np):
            got = backend.run_plan(replace(problem, activation=kind), plan, x, w, b, residual)
        want = reference.activation_forward(y, kind, 0.0)
        close(got, want, dtype=dtype, reduction=reduction, magnitude=1.1 * terms + 1)
    far = Problem("fprop", s, np.dtype(dtype).name, moments=True)
    with poisoned(np):
        y, partial = backend._run_with_moments(far, plan, x, w, b + dtype(2000))
        (mean, var), _ = backend._finish("moments", partial, s.norm_shape, y.dtype)
    stored, axes = y.astype(np.float64), tuple(range(s.rank + 1))
    count = s.batch * math.prod(s.output) + 8
    close(mean, stored.mean(axes), dtype=np.float32, reduction=count)
    close(var, stored.var(axes), dtype=np.float32, reduction=count)


def epilogue(backend: CudaBackend) -> None:
    narrow = lambda plan: plan.settings.tile == NARROW and plan.grid[2] == 1  # noqa: E731
    epilogues(backend, "implicit_gemm", replace(CONV, batch=3), np.float32, narrow)


def epilogue_f16(backend: CudaBackend) -> None:
    small = lambda plan: plan.settings.tile == SMALL and plan.grid[2] == 1  # noqa: E731
    epilogues(backend, "mma", HALVES, np.float16, small)


def epilogue_by_tma(backend: CudaBackend) -> None:
    """Two tiles, each in two passes by turns in two buffers."""
    shape = ConvShape.of((1, 15, 14, 64), (72, 1, 1, 64))
    even = lambda plan: plan.settings.tile == wgmma_tiles.EVEN  # noqa: E731
    epilogues(backend, "wgmma", shape, np.float16, even)


def gathered_by_tma(backend: CudaBackend) -> None:
    """In whole sums and in splits."""
    shape = ConvShape.of(
        (1, 9, 10, 72), (72, 3, 2, 72), strides=(2, 1), padding=((2, 0), (1, 2)), dilation=(1, 2)
    )
    on_hopper(backend, "fprop", shape, wgmma_tiles.SMALL)


def gathered_in_turns(backend: CudaBackend) -> None:
    on_hopper(backend, "fprop", ConvShape.of((3, 13, 14, 264), (136, 1, 1, 264)), wgmma_tiles.TURNS)


def gathered_by_cluster(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 9, 11, 72), (72, 3, 2, 72), padding=((2, 0), (1, 2)))
    on_hopper(backend, "fprop", shape, wgmma_tiles.SOLO_CLUSTER)


def patches_by_cluster(backend: CudaBackend) -> None:
    """Three images, of which the second cluster has one; a residual, and moments."""
    shape = ConvShape.of((3, 7, 6, 64), (136, 3, 3, 64), padding=((1, 0), (1, 2)))
    low = lambda plan: plan.settings.tile == wgmma_tiles.LOW_CLUSTER  # noqa: E731
    epilogues(backend, "wgmma", shape, np.float16, low)


def dgrad_by_tma(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 7, 9, 72), (72, 2, 3, 72), padding=((1, 2), (0, 1)))
    on_hopper(backend, "dgrad", shape, wgmma_tiles.SMALL)


def dgrad_in_tf32(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 7, 9, 72), (72, 2, 3, 72), padding=((1, 2), (0, 1)))
    on_hopper(backend, "dgrad", shape, wgmma_tiles.SMALL, np.float32)


def strided_dgrad_by_tma(backend: CudaBackend) -> None:
    """In whole sums and in splits; classes of several sizes and numbers of taps."""
    shape = ConvShape.of(
        (1, 11, 13, 72), (72, 3, 4, 72), strides=(2, 3), padding=((2, 0), (1, 2)), dilation=(1, 2)
    )
    on_hopper(backend, "dgrad", shape, wgmma_tiles.SMALL)


def strided_dgrad_in_tf32(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 6, 7, 72), (72, 1, 1, 72), strides=2)
    on_hopper(backend, "dgrad", shape, wgmma_tiles.SMALL, np.float32)


def patches_by_tma(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 30, 10, 136), (64, 2, 2, 136), padding=((1, 1), (1, 0)))
    on_hopper(backend, "fprop", shape, wgmma_tiles.FLAT)


def patches_of_two_images(backend: CudaBackend) -> None:
    shape = ConvShape.of((5, 6, 6, 64), (64, 3, 3, 64), padding=((1, 1), (1, 0)))
    on_hopper(backend, "fprop", shape, wgmma_tiles.PAIR)


def quads(backend: CudaBackend, name: str, s: ConvShape, tile: object) -> None:
    """Store the maxima of 2x2 outputs, of which many are equal, some NaN, and some cut by ReLU."""
    x, w, b = (
        np.round(1.4 * draw(what, size, np.float64)).astype(np.float16)
        for what, size in (("x", s.x_shape), ("w", s.w_shape), ("b", (s.filters,)))
    )
    x[0, 5, 4, 0] = np.nan
    pool = PoolShape.of(s.y_shape, 2, mode="max", rank=2)
    y, index = reference.pool_forward(np.maximum(reference.conv_fprop(x, w, b, s), 0), pool)
    problem, algorithm = with_pool(Problem("fprop", s, "float16", "relu"), pool), ALGORITHMS[name]
    (plan,) = (
        plan for plan in algorithm.plans(problem)
        if plan.settings.tile == tile and algorithm.fuses(problem, plan)
    )  # fmt: skip
    plan = replace(plan, grid=(1, 1, 1)) if name == "wgmma" else plan
    with poisoned(np):
        got, place = backend._run_pooled(problem, plan, x, w, b)
    np.testing.assert_array_equal(got.astype(np.float64), y)
    assert (place == np.where(y > 0, index, 4)).all()


def quads_f16(backend: CudaBackend) -> None:
    quads(backend, "mma", ConvShape.of((2, 11, 10, 16), (44, 3, 2, 8), padding=1, groups=2), SMALL)


def quads_by_tma(backend: CudaBackend) -> None:
    s = ConvShape.of((1, 32, 10, 64), (72, 3, 3, 64), padding=((1, 0), (1, 1)))
    quads(backend, "wgmma", s, wgmma_tiles.TWIN)


def mma_wgrad(backend: CudaBackend, dtype: str = "float16", math_mode: str = "strict") -> None:
    """Two groups whose weights and filters end inside a tile, in splits of several slabs."""
    shape = ConvShape.of(
        (3, 10, 11, 32), (48, 3, 2, 16), strides=(1, 2), padding=((1, 0), (1, 2)), dilation=(2, 1),
        groups=2,
    )  # fmt: skip
    problem, algorithm = Problem("wgrad", shape, dtype, math=math_mode), ALGORITHMS["mma_wgrad"]
    *_, plan = algorithm.plans(problem)  # the smallest tile
    assert plan.grid[2] > 1
    x, dy = (draw(n, s, dtype) for n, s in (("x", shape.x_shape), ("dy", shape.y_shape)))
    taken = [as_tf32(a) if math_mode == "tf32" else a for a in (x, dy)]
    dw, terms = (reference.conv_wgrad(*a, shape) for a in (taken, map(np.abs, taken)))
    with poisoned(np):
        got = algorithm.run(backend, problem, plan, x, dy)
    close(got, dw, dtype=dtype, reduction=147, magnitude=terms)


def wgrad_tf32(backend: CudaBackend) -> None:
    mma_wgrad(backend, "float32", "tf32")


def wgrad_on_hopper(backend: CudaBackend, s: ConvShape, tile: wgmma_wgrad.Tile) -> None:
    """Multiply float16 by wgmma with this tile: one split, whose stages go round, and several."""
    problem, algorithm = Problem("wgrad", s, "float16"), ALGORITHMS["wgmma_wgrad"]
    plans = [plan for plan in algorithm.plans(problem) if plan.settings.tile == tile]
    assert {plan.grid[2] > 1 for plan in plans} == {True, False}
    x, dy = (draw(n, size, np.float16) for n, size in (("x", s.x_shape), ("dy", s.y_shape)))
    dw, terms = (reference.conv_wgrad(*a, s) for a in ((x, dy), (np.abs(x), np.abs(dy))))
    count = s.batch * math.prod(s.output)
    for plan in plans:
        with poisoned(np):
            got = algorithm.run(backend, problem, plan, x, dy)
        close(got, dw, dtype=np.float16, reduction=count, magnitude=terms, what=str(plan))


def wgrad_gathered_by_tma(backend: CudaBackend) -> None:
    shape = ConvShape.of(
        (2, 27, 19, 136), (72, 1, 3, 136), strides=(1, 2), padding=((1, 0), (1, 2)),
        dilation=(1, 2),
    )  # fmt: skip
    wgrad_on_hopper(backend, shape, wgmma_wgrad.SMALL)


def wgrad_of_patches(backend: CudaBackend) -> None:
    shape = ConvShape.of((2, 15, 40, 72), (72, 3, 3, 72), padding=((1, 2), (2, 0)))
    wgrad_on_hopper(backend, shape, wgmma_wgrad.PATCH)


def pool(backend: CudaBackend) -> None:
    pooled(backend, POOL, np.round(3 * random("x", POOL.x_shape)))  # many are equal


def pool_packed(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 10, 8, 8), 3, mode="max", rank=2, strides=2, padding=((1, 1), (0, 1)))
    x = np.round(3 * random("x", shape.x_shape))
    x[0, 4, 3, ::3] = np.nan
    pooled(backend, shape, x)


def norm_pool(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 10, 9, 6), 3, mode="max", rank=2, strides=2, padding=((1, 1), (0, 1)))
    norm = NormShape.of(shape.x_shape)
    x, gamma, beta = random("x", shape.x_shape), random("gamma", (6,)), random("beta", (6,))
    normal, *statistics = reference.batch_norm_train(x, gamma, beta, 1e-3, norm)
    y, _ = reference.pool_forward(normal, shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MOST_ROWS", 0)
        patch.setattr(norm_pool_module, "THREADS_WANTED", 20)
        got, _, *found = backend.batch_norm_pool_train(x, gamma, beta, 1e-3, norm, shape, "relu")
    expected = (np.maximum(y, 0), *statistics)
    for value, exact in zip((got, *found), expected, strict=True):
        assert_close(value, exact, reduction=180, magnitude=np.abs(exact) + 2)


def pool_strips(backend: CudaBackend) -> None:
    for padding in (1, ((1, 1), (0, 0))):
        shape = PoolShape.of((2, 7, 24, 3), 3, mode="max", rank=2, strides=2, padding=padding)
        x = np.round(3 * random("x", shape.x_shape))
        pooled(backend, replace(shape, channels_last=False), x)


def pool_gathered(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 5, 9, 8), 3, mode="max", rank=2, strides=(3, 1), dilation=(1, 2))
    pooled(backend, shape, np.round(3 * random("x", shape.x_shape)))


def pool_cells(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 9, 11, 8), 2, mode="average", rank=2, strides=(2, 3))
    pooled(backend, shape, random("x", shape.x_shape))


def pool_pairs(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 6, 8, 3), 2, mode="min", rank=2)
    pooled(backend, replace(shape, channels_last=False), np.round(3 * random("x", shape.x_shape)))


def global_pool(backend: CudaBackend) -> None:
    for channels_last in (True, False):
        shape = PoolShape.of((2, 19, 7, 8), (19, 7), mode="max", rank=2)
        shape = replace(shape, channels_last=channels_last)
        x = np.round(3 * random("x", (2, 19, 7, 8)))
        x[..., ::3] -= 4  # below zero
        pooled(backend, shape, x)
        pooled(backend, replace(shape, mode="average"), random("x", (2, 19, 7, 8)))


def change_layout(backend: CudaBackend) -> None:
    for size in ((1, 67, 40), (2, 40, 67)):
        x = random("x", size)
        assert_close(backend.change_layout(x), x.transpose(0, 2, 1))


def pictures(backend: CudaBackend) -> None:
    for size in ((2, 3, 524), (2, 524, 3)):
        x = random("x", size)
        assert_close(backend.change_layout(x), x.transpose(0, 2, 1))


def two_tiles_a_block(plan: Plan) -> Plan:
    settings = replace(plan.settings, tiles_per_block=2)
    assert plan.settings.tiles_per_block == 1 and plan.grid[0] > 2
    return replace(plan, settings=settings, grid=(-(-plan.grid[0] // 2), *plan.grid[1:]))


def conv_pool(backend: CudaBackend) -> None:
    direct = ALGORITHMS["direct"]
    x, w, b = (np.round(1.4 * random(n, s)) for n, s in (("x", STEM.x_shape), ("w", STEM.w_shape),
                                                         ("b", (36,))))  # fmt: skip
    y, index = reference.pool_forward(np.maximum(reference.conv_fprop(x, w, b, STEM), 0), STEM_POOL)
    problem = Problem("fprop", STEM, "float32", "relu")
    plan = two_tiles_a_block(next(direct.pooled_plans(problem, STEM_POOL)))
    got, place = direct.forward(backend, problem, plan, STEM_POOL, x, w, b, True)
    assert_close(got, y, magnitude=0)
    assert (place == np.where(y > 0, index, 4)).all()


def conv_pool_wgrad(backend: CudaBackend) -> None:
    direct = ALGORITHMS["direct"]
    x, dy = np.round(3 * random("x", STEM.x_shape)), np.round(3 * random("dy", STEM_POOL.y_shape))
    index = np.round(random("index", dy.shape, low=0, high=4)).astype(np.uint8)
    index[:, -1] = index[:, :, -1] = 0  # a window that sticks out
    dz = reference.pool_backward(dy, index, STEM_POOL)
    problem = Problem("wgrad", STEM, "float32")
    plan = two_tiles_a_block(next(direct.pooled_plans(problem, STEM_POOL)))
    dw, db = direct.gradients(backend, problem, plan, STEM_POOL, x, dy, index)
    assert_close(dw, reference.conv_wgrad(x, dz, STEM), magnitude=0)
    assert_close(db, dz.sum((0, 1, 2)), magnitude=0)


def batch_norm(backend: CudaBackend, most_rows: int = 0) -> None:
    x = random("x", NORM.axes) + np.float32(3)
    gamma, beta = random("gamma", (37,)), random("beta", (37,))
    y, mean, var = reference.batch_norm_train(x, gamma, beta, 1e-3, NORM)
    moving = np.zeros(37, np.float32), np.ones(37, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MOST_ROWS", most_rows)
        got = backend.batch_norm_train(x, gamma, beta, 1e-3, NORM, moving=moving, momentum=0.75)
    wanted = y, mean, var, mean / 4, 0.75 + var / 4
    for value, expected in zip((*got, *moving), wanted, strict=True):
        assert_close(value, expected, reduction=210, magnitude=np.abs(expected) + 3)


def column_norm(backend: CudaBackend) -> None:
    batch_norm(backend, most_rows=210)
    x, y, dy = (random(name, NORM.axes) for name in ("x", "y", "dy"))
    gamma, mean, var = random("gamma", (37,)), random("mean", (37,)), random("var", (37,), low=0.5)
    given = dy, x, gamma, mean, var, 1e-3, True, NORM, "relu", None, y
    expected = reference.batch_norm_backward(*given)
    for value, exact in zip(backend.batch_norm_backward(*given), expected, strict=True):
        assert_close(value, exact, reduction=210, magnitude=np.abs(exact) + 6)


def fused_norm(backend: CudaBackend) -> None:
    """With ReLU, and a residual for the forward pass, by threads that take many packs each."""
    shape = replace(NORM, batch=9, channels_last=False)
    x, residual, dy = (random(name, shape.axes) for name in ("x", "r", "dy"))
    gamma, beta = random("gamma", (37,)), random("beta", (37,))
    mean, var = random("mean", (37,)), random("var", (37,), low=0.5)
    given = x, gamma, beta, mean, var, 1e-3, shape, "relu", residual
    y = reference.batch_norm_infer(*given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norm, "THREADS_WANTED", 1)
        assert_close(backend.batch_norm_infer(*given), y, reduction=8, magnitude=np.abs(y) + 6)
        before = reference.batch_norm_infer(*given[:-2])
        dy[np.abs(before) < 1e-3] = 0
        for fused in ((beta,), (None, y.astype(np.float32, order="C"))):
            given = dy, x, gamma, mean, var, 1e-3, True, shape, "relu", *fused
            expected = reference.batch_norm_backward(*given)
            got = backend.batch_norm_backward(*given)
            for value, exact in zip(got[:3], expected, strict=False):
                assert_close(value, exact, reduction=630, magnitude=np.abs(exact) + 6)
    assert_close(got[3], expected[3])


def group_norm(backend: CudaBackend) -> None:
    x, gamma, beta = random("x", NORM.axes), random("gamma", (37,)), random("beta", (37,))
    y, _, _ = reference.group_norm_forward(x, gamma, beta, 1e-3, NORM)
    got, _, _ = backend.group_norm_forward(x, gamma, beta, 1e-3, NORM)
    assert_close(got, y, reduction=2590, magnitude=np.abs(y) + 1)


def cross_entropy(backend: CudaBackend) -> None:
    for classes in (37, 302, 1100):  # a warp's, held by one, and shared by a block
        logits, labels = random("logits", (5, classes)), np.array([0, 36, 17, 4, 25], np.int32)
        logits[1, [4, 36]] = logits[2, [17, 20]] = 2  # the first of two, which is the label once
        losses, dlogits = reference.softmax_cross_entropy(logits, labels, 0.1, 0.5)
        got = backend.softmax_cross_entropy(logits, labels, 0.1, 0.5)
        assert_close(got[0], losses, reduction=classes, magnitude=np.abs(losses) + 1)
        assert_close(got[1], dlogits, reduction=classes, magnitude=np.abs(dlogits) + 0.01)
        assert got[2].tolist() == (logits.argmax(1) == labels).tolist()


def means(backend: CudaBackend) -> None:
    losses, hits = random("losses", (20011,)), random("hits", (20011,)) > 0.3
    mean, share = backend.loss_means(losses, hits)
    assert_close(mean, losses.mean(dtype=np.float64), reduction=20011, magnitude=1)
    assert share == hits.mean()


def add(backend: CudaBackend) -> None:
    a, b = random("a", (1003,)), random("b", (1003,))
    assert_close(backend.add(a, b, "relu"), np.maximum(a + b, 0), magnitude=0)


def gelu(backend: CudaBackend) -> None:
    x, dy = (draw(name, (1003,), np.float16, -6, 6) for name in ("x", "dy"))
    y = reference.activation_forward(x, "gelu", 0.0)
    dx = reference.activation_backward(dy, x, "gelu", 0.0)
    f16 = partial(close, dtype=np.float16, reduction=20)
    f16(backend.activation_forward(x, "gelu", 0.0), y, magnitude=np.abs(y) + 0.1)
    f16(backend.activation_backward(dy, x, "gelu", 0.0), dx, magnitude=np.abs(dx) + 6)


def dropout(backend: CudaBackend) -> None:
    x = random("x", (1001,))
    assert_close(backend.dropout(x, 0.3, 77, 5), reference.dropout(x, 0.3, 77, 5))


def masks(backend: CudaBackend) -> None:
    """Of a ReLU6, and of a sum; the way back with a slope and with none."""
    x, residual, dy = (8 * random(name, (1001,)) for name in ("x", "residual", "dy"))
    x[:4], dy[5:8] = (np.nan, 6, 7, 0), np.inf
    y, mask = backend.activation_masked(x, "relu6", 0.0)
    alive = (y > 0) & (y < 6)
    np.testing.assert_array_equal(y, np.clip(x, 0, 6))
    for bits in (mask, backend.activation_mask(y, "relu6", 0.0)):
        np.testing.assert_array_equal(bits, np.packbits(alive, bitorder="little"))
    for slope, below in ((0.0, 0), (0.25, 0.25 * dy)):
        dx = backend.mask_backward(dy, mask, (0,), slope, 2.0)
        np.testing.assert_array_equal(dx, np.where(alive, 2 * dy, below))
    x[0] = 0
    y, mask = backend.activation_masked(x, "relu", 0.0, residual)
    np.testing.assert_array_equal(y, np.maximum(x + residual, 0))
    np.testing.assert_array_equal(mask, np.packbits(y > 0, bitorder="little"))


def dropout_masked(backend: CudaBackend) -> None:
    x = np.maximum(random("x", (1001,)), 0)
    y, mask = backend.dropout_masked(x, "relu", 0.0, 0.3, 77, 5)
    expected = reference.dropout(x, 0.3, 77, 5)
    assert_close(y, expected)
    np.testing.assert_array_equal(mask, np.packbits(expected > 0, bitorder="little"))


def adam(backend: CudaBackend) -> None:
    params = [random("p", (5, 7)), random("q", (4099,))]
    grads = [random("g", p.shape) for p in params]
    m, v = ([np.zeros(p.shape, np.float32) for p in params] for _ in range(2))
    settings = dict(
        learning_rate=0.1, beta_1=0.9, beta_2=0.99, epsilon=1e-6, correction_1=0.1,
        correction_2=0.01, decoupled=True, grad_scale=None,
    )  # fmt: skip
    expected = [p - 0.1 * np.sign(g) * (np.abs(g) / (np.abs(g) + 1e-6))
                for p, g in zip(params, map(np.float64, grads), strict=True)]  # fmt: skip
    backend.adam_update(params, grads, m, v, [0.0, 0.0], **settings)
    for got, want in zip(params, expected, strict=True):
        assert_close(got, want, reduction=12, magnitude=np.abs(want) + 0.1)


def global_norm(backend: CudaBackend) -> None:
    grads = [random("g", (9000,)), random("h", (3, 5))]
    exact = np.sqrt(sum((np.float64(g) ** 2).sum() for g in grads))
    close(backend.gradient_scale(grads)[0], exact, dtype=np.float64, reduction=9015)


def masters(backend: CudaBackend) -> None:
    """One that is up to date but for an element, and of a rate that float16 cannot follow."""
    p, master = np.ones(5000, np.float16), np.full(5000, 1.0001, np.float32)
    p[7] = 2.0
    backend.sgd_update(
        [p], [np.ones(5000, np.float16)], [np.zeros(5000, np.float32)], [0.0], grad_scale=None,
        learning_rate=1e-4, momentum=0.0, nesterov=False, masters=[master],
    )  # fmt: skip
    assert_close(master, np.where(np.arange(5000) == 7, 2.0, 1.0001) - 1e-4, reduction=3)
    np.testing.assert_array_equal(p, master.astype(np.float16))


def loss_scaling(backend: CudaBackend) -> None:
    """An overflow, and then Adam's first step, which is the learning rate."""
    p, m, v = (np.zeros(300, np.float32) for _ in range(3))
    scale, skipped = np.array([8.0, 0.0]), np.zeros(1)
    for step, value in enumerate((np.inf, 4.0), 1):
        grads = [np.full(300, value, np.float32)]
        _, factor, *corrections = backend.gradient_scale(
            grads, loss_scale=scale, growth_interval=9, skipped=skipped, step=step,
            betas=(0.9, 0.99),
        )  # fmt: skip
        backend.adam_update(
            [p], grads, [m], [v], [0.0], learning_rate=0.1, beta_1=0.9, beta_2=0.99, epsilon=1e-6,
            correction_1=corrections[0], correction_2=corrections[1], decoupled=False,
            grad_scale=factor,
        )  # fmt: skip
    assert_close(p, np.full(300, -0.1), reduction=12, magnitude=1.0)
    assert_close(m, np.full(300, 0.1), reduction=4)  # a gradient of 4 over a scale of 4
    assert scale.tolist() == [4, 1] and skipped == 1


def muon(backend: CudaBackend) -> None:
    grads = [random("g", (3, 5)), random("h", (9, 1000))]
    velocities = [random("v", g.shape) for g in grads]
    expected = [reference.muon_momentum(g, v, 0.9, True, 1.0)[0]
                for g, v in zip(grads, velocities, strict=True)]  # fmt: skip
    got = backend.muon_direction(grads, velocities, momentum=0.9, nesterov=True, grad_scale=None)
    for direction, u in zip(got, expected, strict=True):
        norm = reference.global_norm([u])
        assert_close(direction, u / norm, reduction=12, magnitude=4 / norm)
    a, b = random("a", (17, 17)), random("b", (17, 17))
    got = backend.newton_schulz(a, b, (3.0, -4.0, 2.0))
    assert_close(got, 3 * np.eye(17) - 4.0 * a + 2.0 * b, reduction=4, magnitude=9.0)


def augment(backend: CudaBackend) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 41, 37, 3), np.uint8)
    flat = np.ascontiguousarray(images[:1, :3])  # mirrored as far as it goes
    labels, table = np.arange(4), np.arange(768, dtype=np.float32).reshape(256, 3)
    whole, mirrored = {"flip": 0.5, "cutout": 5, "cover": 9}, {"shift": 2, "fill": None}
    for pictures, order, options in (
        (images, [2, 0, 3, 1], mirrored | whole),
        (images, [2, 0, 3, 1], {"shift": 2, "fill": 7, "flip": 0.5}),
        (images, [2, 0, 3, 1], {"alternating": True}),
        (flat, [0] * 24, mirrored),
    ):
        order, count = np.array(order, np.int32), len(order) - 1
        own = labels[: len(pictures)]
        at = 5 * 2**32 + 1
        got = backend.gather_batch(pictures, own, order, at, count, table, Changes(**options), 8)
        expected = reference.gather_batch(pictures, own, order, 5, 1, count, table, 8, **options)
        assert np.array_equal(got[0], expected[0]) and np.array_equal(got[1], expected[1])


@dataclass(frozen=True)
class Bug:
    """One line of a kernel file, as it is and as it is damaged."""

    what: str
    check: Callable[[CudaBackend], None]
    file: str
    right: str
    wrong: str


SLAB_SYNC = "__syncthreads();  // the slab is complete, and everyone has read the one before\n"
NEXT_SYNC = (
    " " * 16 + "__syncthreads();  // the next slab is there, and everyone has read this one\n"
)
BUGS = [
    Bug("no barrier after filling the slab", fprop, "tile_gemm.cuh", SLAB_SYNC, ""),
    Bug("the next slab takes the place of this one", fprop, "tile_gemm.cuh", "now ^= 1) {",
        "now ^= 0) {"),
    Bug("one step beyond the slab's half", fprop, "tile_fma.cuh", "k < END; ++k", "k <= END; ++k"),
    Bug("the last slab is not fetched", dgrad, "tile_gemm.cuh", "next = k0 + TILE_K",
        "next = k0 + 2 * TILE_K"),
    Bug("the second half of a vector between the columns", thin, "tile_gemm.cuh",
        "Slab<TILE>::column(e)", "e * (TILE + 4)"),
    Bug("a vector of one number", thin, "neighbours.cuh", "widen(loaded.at[e])",
        "widen(loaded.at[0])"),
    Bug("the runs of a thread's rows side by side", vectors, "tile_fma.cuh",
        "i / run * (TILE / SHARE * run)", "i / run * run"),
    Bug("a slab is read while it is on its way", vectors, "tile_gemm_async.cuh",
        "cp_async_wait<SLABS - 2>", "cp_async_wait<SLABS - 1>"),
    Bug("no barrier behind the copies", vectors, "tile_gemm_async.cuh",
        "__syncthreads();  // everyone's copies", "// everyone's copies"),
    Bug("the padding is copied", vectors, "tile_gemm_async.cuh", "source.exists ? 16 : 0",
        "16"),
    Bug("the places of a line not exchanged", vectors, "tile_gemm_async.cuh", "(first ^ quad)",
        "(first + quad)"),
    Bug("every tile copies the first rows", vectors, "tile_gemm_async.cuh", "row0 + i * STEP",
        "i * STEP"),
    Bug("the slab is filled while others read it", tiled, "ladder_tiled.cu",
        "                __syncthreads();  // everyone has read them\n", ""),
    Bug("every thread sums for the filter that it loaded", tiled, "ladder_tiled.cu",
        "w_slab[across][i]", "w_slab[down][i]"),
    Bug("every split sums from the start", split_sums, "conv_fprop.cu",
        "k_begin = blockIdx.z * k_per_split", "k_begin = 0"),
    Bug("the bias of the pixel, not of the channel", split_sums, "split_sum.cu",
        "divide(divide((unsigned)(i + e), by_inner), by_channels, channel)",
        "divide((unsigned)(i + e), by_channels, channel)"),
    Bug("ReLU forgotten behind the splits", split_sums, "split_sum.cu",
        "        epilogue.activate(sums);\n", ""),
    Bug("rows and columns of the corner swapped", wgrad, "tile_fma.cuh",
        "a_column[i] * b_column[j]", "a_column[j] * b_column[i % THREAD_N]"),
    Bug("columns of mma.sync apart, not in pairs", fprop_f64, "tile_mma_f64.cuh",
        "threadIdx.x % 4 * 2 + j % 2", "threadIdx.x % 4 + j % 2 * 4"),
    Bug("every warp takes the first rows", fprop_f64, "tile_mma_f64.cuh",
        "return warp_row() + i * 8", "return i * 8"),
    Bug("the steps along k of one operand only", wgrad_f64, "tile_mma_f64.cuh",
        "b.at(k + 4 * q + t,", "b.at(k + q + 4 * t,"),
    Bug("columns of the slab overlap", wgrad_f64, "tile_mma_f64.cuh", "k * (TILE + 4) + k / 4; }",
        "k * (TILE - 4) + k / 4; }"),
    Bug("no barrier before the next slab is read", fprop_f16, "tile_mma.cuh", NEXT_SYNC, ""),
    Bug("a slab too many on its way", fprop_f16, "tile_mma.cuh", f"<STAGES - 2>();\n{NEXT_SYNC}",
        f"<STAGES - 1>();\n{NEXT_SYNC}"),
    Bug("the slab that is read is overwritten", fprop_f16, "tile_mma.cuh",
        "slab < STAGES - 1; ++slab", "slab < STAGES; ++slab"),
    Bug("the result overwrites a slab that is read", fprop_f16, "tile_mma.cuh",
        "    __syncthreads();  // everyone has read the last slab\n", ""),
    Bug("the quarters of A in the order of B", fprop_f16, "tile_mma.cuh",
        "8 * (FIRST ? quarter % 2 : quarter / 2)", "8 * (quarter / 2)"),
    Bug("the first half of the columns twice", dgrad_f16, "tensor_cores.cuh", "b[2 * half]",
        "b[0]"),
    Bug("floats are cut, not rounded", fprop_tf32, "tensor_cores.cuh", "= cvt_tf32(x);",
        "= loaded[q];"),
    Bug("a part of three left out", fprop_fp32x3, "tensor_cores.cuh",
        "    mma(sums, a.large, b.small, half);\n", ""),
    Bug("the small part of what is small", fprop_fp32x3, "tensor_cores.cuh",
        "x - __uint_as_float(factor.large[q])", "x"),
    Bug("the sums before a step forgotten", fprop_fp32x3, "tensor_cores.cuh", "d[e] += sums[e]",
        "d[e] = sums[e]"),
    Bug("words of the wrong half of the terms", dgrad_tf32, "tile_mma.cuh",
        "CHUNK * (FIRST ? q / 2 : q % 2)", "CHUNK * (q / 2)"),
    Bug("words of the same eight rows", dgrad_tf32, "tile_mma.cuh", "2 * i + (FIRST", "(FIRST"),
    Bug("words of another warp's rows", dgrad_tf32, "tile_mma.cuh",
        "first_row + 8 * i + lane / 4", "8 * i + lane / 4"),
    Bug("floats of pixels beyond the last", fprop_tf32, "conv_mma.cuh",
        "                if (target < 0) break;\n", ""),
    Bug("pixels of the wrong half of a step", wgrad_tf32, "conv_wgrad_mma.cu",
        "(pixel + q / 2 * CHUNK) * DY_ROW", "(pixel + q % 2 * CHUNK) * DY_ROW"),
    Bug("words beside their chunk", wgrad_tf32, "conv_wgrad_mma.cu", "lane / 4 % CHUNK * 4",
        "lane / 4 % CHUNK * 2"),
    Bug("the padding is read", fprop_f16, "conv_mma.cuh", "bits & tap.places ? 0 : 16", "16"),
    Bug("one bit for the taps of all axes", fprop_f16, "conv_mma.cuh", "first += counts(a);", ""),
    Bug("the terms of the next split", fprop_f16, "conv_fprop_mma.cu",
        "k < terms.end ? 16 : 0", "16"),
    Bug("the next channels skipped", fprop_f16, "conv_mma.cuh", "length - TILE_K;", "length;"),
    Bug("filters of the next group", fprop_f16, "conv_mma.cuh",
        "if (column + e < at.columns) to[e] = values.at[e];", "to[e] = values.at[e];"),
    Bug("the bias of the first group", fprop_f16, "conv_mma.cuh", "bias[first + 8 * j + e]",
        "bias[first - at.first + 8 * j + e]"),
    Bug("pixels beyond the last are stored", dgrad_f16, "conv_mma.cuh",
        "        if (target < 0) break;\n", ""),
    Bug("taps and outputs go the same way", dgrad_f16, "conv_dgrad_mma.cu",
        "-pixel(back, g.output)", "pixel(back, g.output)"),
    Bug("the weights of the class's tap number", dgrad_f16, "conv_dgrad_mma.cu",
        "along.first_tap + along.tap_step * back.axis[a]", "back.axis[a]"),
    Bug("the stride of a class forgotten", dgrad_f16, "conv_dgrad_mma.cu",
        "along.first_pixel + g.stride[a] * to.axis[a]", "along.first_pixel + to.axis[a]"),
    Bug("the padding of the next row", padded_f16, "pad_rows.cu",
        "if (chunk * CHUNK + e < width) values", "values"),
    Bug("the padding is not cut off", padded_f16, "pad_rows.cu",
        "if (chunk * CHUNK + e < width) y[", "y["),
    Bug("bounds of the input off by one", fprop, "spatial.cuh",
        "(unsigned)at.axis[a] < (unsigned)size[a]", "(unsigned)at.axis[a] <= (unsigned)size[a]"),
    Bug("channels last taken for channels first", fprop_nchw, "conv_geometry.cuh",
        "channel * pixels + pixel", "pixel * depth + channel"),
    Bug("padding added, not subtracted", fprop, "conv_geometry.cuh", "* g.stride[a] - g.pad[a]",
        "* g.stride[a] + g.pad[a]"),
    Bug("the group's channels start at 0", fprop, "conv_geometry.cuh",
        "first_channel + channel", "channel"),
    Bug("pixels beyond the last are stored", fprop, "conv_fprop.cu",
        "if (m >= m_end) break;", ""),
    Bug("the bias of the wrong filter", fprop, "conv_fprop.cu", "widen(bias[k])",
        "widen(bias[local])"),
    Bug("the taps of a class begin at the window's first", dgrad, "conv_dgrad.cu",
        "residue.axis[a].first_tap + ", ""),
    Bug("the pixels of a class lie side by side", dgrad, "conv_dgrad.cu",
        "g.stride[a] * at.axis[a]", "at.axis[a]"),
    Bug("the smaller classes stored to their tile's end", dgrad, "conv_dgrad.cu",
        "if (m >= m_end) break;", ""),
    Bug("the residues of the wrong axis", dgrad, "residues.cuh", "first += g.stride[a];",
        "first += 1;"),
    Bug("the dilation forgotten", fprop, "conv_geometry.cuh",
        "tap.distance.axis[a] *= g.dilation[a];", ""),
    Bug("the tail of K read", fprop, "conv_fprop.cu", "k < k_end};", "true};"),
    Bug("splits overlap", wgrad, "conv_wgrad.cu", "min(k_begin + pixels_per_split, all_pixels)",
        "all_pixels"),
    Bug("a split left out of the sum", wgrad, "split_sum.cu", "z < splits", "z < splits - 1"),
    Bug("the tail of the sum unchecked", wgrad, "split_sum.cu", "    if (i >= count) return;\n",
        ""),
    Bug("the shift of the division dropped", fprop, "divisor.cuh", ") >> d.shift", ") >> 1"),
    Bug("no barrier between slabs", winograd, "conv_winograd.cu",
        "        __syncthreads();  // the next slab is complete, the present one read\n", ""),
    Bug("the slab being multiplied is overwritten", winograd, "conv_winograd.cu",
        "patch.put(shared.slabs[(slab + 1) % 2])", "patch.put(shared.slabs[slab % 2])"),
    Bug("accumulators read too early", winograd_dgrad, "winograd_gemm.cuh",
        "            __syncthreads();  // the lines of this pass are complete\n", ""),
    Bug("accumulators overwritten too early", winograd, "winograd_gemm.cuh",
        "            __syncthreads();  // everyone has read them\n", ""),
    Bug("rows read where they are not", winograd, "winograd_gemm.cuh", "lane ^ (by & lane_bits)",
        "lane"),
    Bug("channels beyond the last are read", winograd, "conv_winograd.cu",
        "if (channel >= g.group_channels) patch.inside = 0;", ""),
    Bug("the column beyond an odd row is stored", winograd, "conv_winograd.cu",
        "column + 1 < g.output[1]", "true"),
    Bug("the filters not turned", winograd_dgrad, "conv_winograd.cu", "turn ? 8 - tap : tap",
        "tap"),
    Bug("the last row of the transform negated", winograd_dgrad, "winograd.cuh",
        "w[3] = v[1] - v[3];", "w[3] = v[3] - v[1];"),
    Bug("no barrier between slabs", winograd_wgrad, "conv_winograd_wgrad.cu",
        "        __syncthreads();  // the next slab is complete, the present one read\n", ""),
    Bug("splits overlap", winograd_wgrad, "conv_winograd_wgrad.cu",
        "min(begin + tiles_per_split, g.tiles)", "g.tiles"),
    Bug("the column beyond an odd row is read", winograd_wgrad, "conv_winograd_wgrad.cu",
        "row_exists && two_columns", "row_exists"),
    Bug("columns read where they are not", winograd_wgrad, "conv_winograd_wgrad.cu",
        "Multiplier<true>", "Multiplier<false>"),
    Bug("a point taken for its opposite", winograd4, "winograd4.cuh", "fmaf(-point, odd, even)",
        "fmaf(point, odd, even)"),
    Bug("tiles of no image are read", winograd4, "conv_winograd4.cu", "!empty && ", ""),
    Bug("the patch begins where its tile does", winograd4, "conv_winograd4.cu",
        "TILE * column - g.pad[1]", "TILE * column"),
    Bug("the second split of the products is left out", winograd4, "conv_winograd4.cu",
        "part < parts; ++part, m +=", "part < 1; ++part, m +="),
    Bug("no barrier after copying the windows", depthwise, "conv_depthwise.cu",
        "    __syncthreads();  // the windows are complete\n", ""),
    Bug("the windows of channels beyond the last are read", depthwise, "conv_depthwise.cu",
        "min(width, depth - first_channel) * taps", "width * taps"),
    Bug("pixels outside the map are stored", depthwise, "conv_depthwise.cu",
        "if (!inside({{first.axis[0], first.axis[1] + j, first.axis[2] + q}}, to)) continue;", ""),
    Bug("rows above the map are read", depthwise, "depthwise.cuh",
        "(unsigned)input < (unsigned)g.input[a]", "input < g.input[a]"),
    Bug("the window not turned", depthwise_dgrad, "conv_depthwise.cu",
        "turned ? taps - 1 - tap : tap", "tap"),
    Bug("tiles begin at the wrong phase", depthwise_dgrad, "conv_depthwise.cu",
        "(TRANSPOSED && TAPS ? g.pad[2] % STRIDE : 0)", "0"),
    Bug("taps are summed too early", depthwise_wgrad, "conv_depthwise_wgrad.cu",
        "        __syncthreads();  // every slot is there\n", ""),
    Bug("taps are overwritten too early", depthwise_wgrad, "conv_depthwise_wgrad.cu",
        "        __syncthreads();  // the row before has been added up\n", ""),
    Bug("no barrier after copying the weights", grouped, "conv_grouped.cu",
        "        __syncthreads();  // the weights are complete\n", ""),
    Bug("no barrier before the next weights", grouped, "conv_grouped.cu",
        "        __syncthreads();  // everyone has read the weights before\n", ""),
    Bug("rows below the map are stored", grouped, "conv_grouped.cu",
        "if (tile.row + j >= g.output[0]) break;", ""),
    Bug("filters of the next group", grouped, "conv_grouped.cu",
        "if (slice.filter + k < g.group_filters) y[", "y["),
    Bug("the weights not turned", grouped, "conv_grouped.cu", "turned ? taps - 1 - tap : tap",
        "tap"),
    Bug("gradients below the map are counted", grouped_wgrad, "conv_grouped_wgrad.cu",
        "tile.row + j < g.output[0] && k < filters", "k < filters"),
    Bug("a channel is summed too early", grouped_wgrad, "conv_grouped_wgrad.cu",
        "            __syncthreads();  // the channel before has been added up\n", ""),
    Bug("the tree starts below its height", grouped_wgrad, "conv_grouped_wgrad.cu",
        "while (top < slots)", "while (2 * top < slots)"),
    Bug("the last of equal outputs is chosen", quads_f16, "quads.cuh", "other <= value[e]",
        "other < value[e]"),
    Bug("a number behind a NaN wins", quads_f16, "quads.cuh", "value[e] == value[e] && ", ""),
    Bug("a gradient passes what ReLU has cut", quads_f16, "quads.cuh",
        "relu && !(value[e] > 0) ? PLACES : place[e]", "place[e]"),
    Bug("maxima of the next group", quads_f16, "quads.cuh", "if (e >= exist) break;\n", "\n"),
    Bug("windows of one row", quads_f16, "conv_fprop_mma.cu", "(rows + pair % 2)", "rows"),
    Bug("places by columns", quads_by_tma, "conv_wgmma_patch.cu", "+ place / 2) * COLUMNS",
        "+ place % 2) * COLUMNS"),
    Bug("the pass is overwritten while it is pooled", quads_by_tma, "wgmma.cuh",
        "sync();  // TMA has read", "// TMA has read"),
    Bug("a slab is multiplied before it is there", mma_wgrad, "conv_wgrad_mma.cu",
        "cp_async_wait<STAGES - 2>", "cp_async_wait<STAGES - 1>"),
    Bug("no barrier between slabs", mma_wgrad, "conv_wgrad_mma.cu",
        "                __syncthreads();  // the next slab is complete, this one has been read\n",
        ""),
    Bug("no barrier before the first slab", mma_wgrad, "conv_wgrad_mma.cu",
        "    __syncthreads();  // the first slab is complete\n", ""),
    Bug("the slab that comes next is overwritten", mma_wgrad, "conv_wgrad_mma.cu",
        "copies.start(read)", "copies.start(stages + now)"),
    Bug("the part being multiplied is overwritten", mma_wgrad, "conv_wgrad_mma.cu",
        "parts[1 - i].load(", "parts[i].load("),
    Bug("splits overlap", mma_wgrad, "conv_wgrad_mma.cu",
        "min(k_begin + pixels_per_split, ", "max(k_begin + pixels_per_split, "),
    Bug("pixels beyond the split's last are summed", mma_wgrad, "conv_wgrad_mma.cu",
        "exists = k + j * STEP < k_end", "exists = true"),
    Bug("filters beyond the last are read", mma_wgrad, "conv_wgrad_mma.cu",
        "exists && filter_exists[i]", "exists"),
    Bug("filters beyond the last are stored", mma_wgrad, "conv_wgrad_mma.cu",
        "local < g.group_filters && m < m_end", "m < m_end"),
    Bug("weights beyond the last are stored", mma_wgrad, "conv_wgrad_mma.cu",
        "local < g.group_filters && m < m_end", "local < g.group_filters"),
    Bug("a neighbour's weights stored in the wrong place", mma_wgrad, "conv_wgrad_mma.cu",
        "(j + odd) * 8", "j * 8"),
    Bug("the padding is read", mma_wgrad, "conv_wgrad_mma.cu", "inside(at, g.input) ? 16 : 0",
        "16"),
    Bug("pixels and filters of the fragments swapped", mma_wgrad, "conv_wgrad_mma.cu",
        "lane / 16 * 8 + lane % 8, warp_filter() / 8 + 2 * i + lane / 8 % 2",
        "lane / 8 % 2 * 8 + lane % 8, warp_filter() / 8 + 2 * i + lane / 16"),
    Bug("every warp takes the first weights", mma_wgrad, "conv_wgrad_mma.cu",
        "return threadIdx.x / 32 % (TILE_M / WARP_M) * WARP_M;", "return 0;"),
    Bug("a stage is refilled before it has been read", gathered_by_tma, "wgmma_ring.cuh",
        "        mbarrier_wait(empty + stage, parity ^ 1);\n", ""),
    Bug("a stage is released while it is multiplied", gathered_by_tma, "wgmma.cuh",
        "before.release();\n        before.empty = ring.empty + ring.stage;",
        "before.empty = ring.empty + ring.stage;\n        before.release();"),
    Bug("a stage is multiplied before it is full", gathered_by_tma, "wgmma.cuh",
        "        ring.await();\n", ""),
    Bug("the first step adds to what registers held", gathered_by_tma, "wgmma.cuh",
        "int onto = 0;", "int onto = 1;"),
    Bug("the second quarter of the channels twice", gathered_by_tma, "wgmma.cuh",
        "further(pixels, k * 32)", "further(pixels, k / 2 * 64)"),
    Bug("TMA does not see what it stores", gathered_by_tma, "wgmma.cuh",
        "        fence_proxy_async();\n", ""),
    Bug("the residual replaces the sum", epilogue, "epilogue.cuh", "sums[e] += other.at[e]",
        "sums[e] = other.at[e]"),
    Bug("only half of the sums go through the curve", epilogue, "epilogue.cuh", "done += RUN",
        "done += 2 * RUN"),
    Bug("moments about zero", epilogue, "epilogue.cuh",
        "        if (count == 0) pivot = stored;\n", ""),
    Bug("moments of rows beyond the last", epilogue, "conv_fprop.cu",
        "if (tile.row0 + thread_row(i) < m_end) of_thread", "of_thread"),
    Bug("moments of what was not stored", epilogue_f16, "epilogue.cuh", "widen(narrow(value))",
        "value"),
    Bug("moments of some of a warp's rows", epilogue_f16, "conv_mma.cuh", "<4 + 8 + 16>",
        "<4 + 8>"),
    Bug("the residual of the first column", epilogue_f16, "conv_mma.cuh",
        "+ first + 8 * j, exist", "+ first, exist"),
    Bug("the residual of the pass before", epilogue_by_tma, "wgmma.cuh",
        "                parity ^= 1;\n", ""),
    Bug("the residual over what TMA stores", epilogue_by_tma, "wgmma.cuh",
        "        tma_store_wait<0>();\n        mbarrier", "        mbarrier"),
    Bug("what TMA stores is overwritten", gathered_by_tma, "wgmma.cuh",
        "if (pass == 0) tma_store_wait<0>();", ""),
    Bug("what TMA stores of the pass before the last is overwritten", patches_by_tma, "wgmma.cuh",
        "tma_store_wait<BUFFERS - 1>();", "tma_store_wait<BUFFERS>();"),
    Bug("an odd number of passes takes turns in two buffers", patches_by_tma, "wgmma.cuh",
        "pass == 0) tma_store_wait<0>();", "pass == 0) tma_store_wait<BUFFERS - 1>();"),
    Bug("others overwrite what TMA stores", gathered_by_tma, "wgmma.cuh",
        "            sync();  // TMA has read what was in the buffer,", "            // TMA has"),
    Bug("TMA stores before the pass is complete", gathered_by_tma, "wgmma.cuh",
        "            sync();  // the pass is complete\n", ""),
    Bug("the producer alone waits for the kernels before", gathered_by_tma, "conv_wgmma.cu",
        "    after_kernels_before();\n", "    if (is_producer()) after_kernels_before();\n"),
    Bug("the block ends before TMA has stored", gathered_by_tma, "conv_wgmma.cu",
        "        if (threadIdx.x % 128 == 0) tma_store_wait<0>();\n", ""),
    Bug("filters and pixels of the matrices swapped", gathered_by_tma, "wgmma.cuh",
        "lane % 8 + matrix / 2 * 8) * ROW_BYTES + ((2 * warp + matrix % 2)",
        "lane % 8 + matrix % 2 * 8) * ROW_BYTES + ((2 * warp + matrix / 2)"),
    Bug("the bias of filters beyond the last", gathered_by_tma, "wgmma.cuh",
        "bias && own < filters", "bias"),
    Bug("the dilations swapped", gathered_by_tma, "conv_wgmma.cu",
        "s * g.dilation[2], down = r * g.dilation[1]",
        "s * g.dilation[1], down = r * g.dilation[2]"),
    Bug("the taps of a column before those of a row", gathered_by_tma, "conv_wgmma.cu",
        "if (++s == g.kernel[2]) s = 0, ++r;", "if (++r == g.kernel[1]) r = 0, ++s;"),
    Bug("every split sums from the start", gathered_by_tma, "conv_wgmma.cu",
        "step = split * steps_per_split;", "step = 0;"),
    Bug("the sums of pixels beyond the last are stored", gathered_by_tma, "conv_wgmma.cu",
        "if (pixel < end && ", "if ("),
    Bug("the rows of a patch displaced as its columns", patches_by_tma, "conv_wgmma_patch.cu",
        "further(row, pitch)", "further(row, ROW_BYTES)"),
    Bug("the columns of a patch displaced as its rows", patches_by_tma, "conv_wgmma_patch.cu",
        "further(row, s * ROW_BYTES)", "further(row, s * pitch)"),
    Bug("rows of a patch as wide as the tile", patches_by_tma, "conv_wgmma_patch.cu",
        "COLUMNS * pitch, pitch)", "COLUMNS * pitch)"),
    Bug("a patch is never released", patches_by_tma, "conv_wgmma_patch.cu",
        "        patch_before.empty = patch_ring.empty + patch_ring.stage;\n", ""),
    Bug("a patch is released under its last tap", patches_by_tma, "conv_wgmma_patch.cu",
        "patch_before.empty = patch_ring.empty + patch_ring.stage;\n",
        "patch_before.empty = patch_ring.empty + patch_ring.stage, patch_before.release();\n"),
    Bug("the second warpgroup takes the first rows", patches_by_tma, "conv_wgmma_patch.cu",
        "patches + first_pixel() / COLUMNS * pitch", "patches"),
    Bug("the rows of the second image behind the first's", patches_of_two_images,
        "conv_wgmma_patch.cu", "i * PATCH_ROWS * COLUMNS", "i * ROWS * COLUMNS"),
    Bug("the next image alone", patches_of_two_images, "conv_wgmma_patch.cu",
        "place / across / down * IMAGES", "place / across / down"),
    Bug("an image that is not there is waited for", patches_of_two_images, "conv_wgmma_patch.cu",
        "(ROWS + g.kernel[1] - 1) * IMAGES * ROW_BYTES;", "(ROWS + g.kernel[1] - 1) * ROW_BYTES;"),
    Bug("both teams multiply at once", gathered_in_turns, "wgmma.cuh", "    turns.await();\n", ""),
    Bug("a team takes the stages of the other", gathered_in_turns, "wgmma.cuh",
        "if (is_others) ring.skip(stages);", ""),
    Bug("skipped stages are of this round", gathered_in_turns, "wgmma_ring.cuh",
        "        parity ^= stage / COUNT & 1;\n", ""),
    Bug("the first team waits for the second", gathered_in_turns, "wgmma.cuh",
        "parity(team() == 0)", "parity(0)"),
    Bug("the other block's readers are not waited for", gathered_by_cluster, "wgmma_ring.cuh",
        "mbarrier_arrive_cluster(cluster_map(empty, lane))", "mbarrier_arrive(empty)"),
    Bug("the other block's barriers may not be ready", gathered_by_cluster, "wgmma_ring.cuh",
        "    meet_cluster();   // everywhere\n", ""),
    Bug("a block ends before the other is done", gathered_by_cluster, "conv_wgmma.cu",
        "    meet_cluster();  // the others", "    // the others"),
    Bug("a block ends before the other is done", patches_by_cluster, "conv_wgmma_patch.cu",
        "    meet_cluster();  // the others", "    // the others"),
    Bug("a share comes to the first block alone", gathered_by_cluster, "wgmma_ring.cuh",
        "(1u << CLUSTER) - 1;", "1u;"),
    Bug("both blocks bring the first pixels", gathered_by_cluster, "conv_wgmma.cu",
        "split(tile.pixel + own,", "split(tile.pixel,"),
    Bug("one share of the filters over the other", patches_by_cluster, "wgmma.cuh",
        "to += own * ROW_BYTES, filter += own;", "filter += own;"),
    Bug("the blocks of a cluster have other filters", patches_by_cluster, "conv_wgmma_patch.cu",
        "number / CLUSTER % filters", "number % filters"),
    Bug("moments of images beyond the last", patches_by_cluster, "conv_wgmma_patch.cu",
        "(IMAGES * CLUSTER == 1 ||", "(IMAGES == 1 ||"),
    Bug("the taps of filters as they lie", dgrad_by_tma, "wgmma.cuh", "taps - 1 - tap", "tap"),
    Bug("filters as they lie are read along the sum", dgrad_by_tma, "wgmma.cuh",
        "const int NEXT_FILTERS = 2 * EIGHT_ROWS;", "const int NEXT_FILTERS = 32;"),
    Bug("the filters not turned", dgrad_in_tf32, "turn_filters.cu", "taps - 1 - tap", "tap"),
    Bug("no barrier before the filters are written", dgrad_in_tf32, "turn_filters.cu",
        "    __syncthreads();  // the tile is complete\n", ""),
    Bug("channels beyond the last are turned", dgrad_in_tf32, "turn_filters.cu",
        "c0 + i < channels && k0", "k0"),
    Bug("the second half of the filters over the first", dgrad_in_tf32, "wgmma.cuh",
        "filter / DEPTH * PASS + pixel", "pixel"),
    Bug("floats not swizzled", dgrad_in_tf32, "wgmma.cuh", "((filter % DEPTH / 4) ^ pixel) * 16",
        "filter % DEPTH / 4 * 16"),
    Bug("taps and places go opposite ways", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "own.last_tap[1] - j * classes.tap_step[1]", "j * classes.tap_step[1]"),
    Bug("every class begins in the corner", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "own.displacement[1] + j", "j"),
    Bug("places as far apart as taps", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "j * classes.place_step[1]", "j * classes.tap_step[1]"),
    Bug("pixels that a class has not", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        " || w >= tile.own.pixels[1]", ""),
    Bug("images beyond the last", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "n >= g.batch || ", ""),
    Bug("all splits sum the first's steps", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "step = min(split * each, steps);", "step = 0;"),
    Bug("all splits are the first", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "partial += (long long)tile.split * ", "partial += 0 * "),
    Bug("the pass is written before it is complete", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "        bar_sync(1 + warpgroup(), 128);  // the pass is complete\n", ""),
    Bug("the pass is overwritten before it has been read", strided_dgrad_by_tma,
        "conv_dgrad_wgmma.cu",
        "bar_sync(1 + warpgroup(), 128);  // what was in the", "// what was in the"),
    Bug("channels beyond the last are written", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "if (own < g.channels) *(Piece*)", "*(Piece*)"),
    Bug("a class without taps is left as it was", strided_dgrad_in_tf32, "conv_dgrad_wgmma.cu",
        "Sums sums = {};", "Sums sums;\n            if (tile.steps_end == tile.step) return;"),
    Bug("the first half of a pixel's floats twice", strided_dgrad_in_tf32, "conv_dgrad_wgmma.cu",
        "(part * PASS + i) * ROW_BYTES", "i * ROW_BYTES"),
    Bug("no barrier before the parts are added", depthwise_wgrad, "split_sum.cu",
        "        __syncthreads();  // every part is there\n", ""),
    Bug("a split's last part left out", depthwise_wgrad, "split_sum.cu", "other < parts;",
        "other < parts - 1;"),
    Bug("a stage is multiplied before it is full", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "        ring.await();\n", ""),
    Bug("a stage is released while it is multiplied", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "before.release();\n        before.empty = ring.empty + ring.stage;",
        "before.empty = ring.empty + ring.stage;\n        before.release();"),
    Bug("the first step adds to what registers held", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "int onto = 0;", "int onto = 1;"),
    Bug("the first 16 pixels of x again", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "further(of_x, i * 2 * next_eight)", "of_x"),
    Bug("both warpgroups take the first filters", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "smem + filter_block() * BLOCK_BYTES", "smem"),
    Bug("filters beyond the last are stored", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        " && filter + 8 * half < g.filters", ""),
    Bug("channels beyond the last are stored", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "weight < at.count && ", ""),
    Bug("all splits store the first", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "partial + blockIdx.z * count", "partial"),
    Bug("the steps of a split overlap", wgrad_gathered_by_tma, "conv_wgrad_wgmma.cu",
        "min(step + steps_per_split, steps)", "min(step + steps_per_split + 1, steps)"),
    Bug("taps beyond the last are stored", wgrad_gathered_by_tma, "conv_wgrad_wgmma.cu",
        "tap < pixels(g.kernel) ? g.channels - c : 0", "g.channels - c"),
    Bug("the dilations of the gradient swapped", wgrad_gathered_by_tma, "conv_wgrad_wgmma.cu",
        "tap % g.kernel[2] * g.dilation[2]", "tap % g.kernel[2] * g.dilation[1]"),
    Bug("the stride of the gradient left out", wgrad_gathered_by_tma, "conv_wgrad_wgmma.cu",
        "corner.axis[2] * g.stride[2] - g.pad[2]", "corner.axis[2] - g.pad[2]"),
    Bug("the rows of the window one pixel apart", wgrad_of_patches, "conv_wgrad_wgmma_patch.cu",
        "DY_BYTES + r * PATCH_ROW", "DY_BYTES + r * ROW_BYTES"),
    Bug("taps of a row as far apart as rows", wgrad_of_patches, "conv_wgrad_wgmma_patch.cu",
        "r * PATCH_ROW, ROW_BYTES, PATCH_ROW)", "r * PATCH_ROW, PATCH_ROW, PATCH_ROW)"),
    Bug("rows of the patch as wide as the tile", wgrad_of_patches, "conv_wgrad_wgmma_patch.cu",
        "ROW_BYTES, PATCH_ROW)", "ROW_BYTES, EIGHT_ROWS)"),
    Bug("the next image one row too early", wgrad_of_patches, "conv_wgrad_wgmma_patch.cu",
        "n = step / across / down", "n = (step + across) / across / down"),
    Bug("the patch is read too early", conv_pool, "conv_direct.cu",
        "        __syncthreads();  // the patch and the weights are complete\n", ""),
    Bug("the patch is overwritten too early", conv_pool, "conv_direct.cu",
        "        __syncthreads();  // everyone has read the patch; it may be overwritten\n", ""),
    Bug("columns left of the map are read", conv_pool, "direct.cuh",
        "(unsigned)along < (unsigned)of_row", "along < of_row"),
    Bug("the weights of filters beyond the last are read", conv_pool, "conv_direct.cu",
        "first_filter + filter < g.filters ? widen(w[i]) : 0", "widen(w[i])"),
    Bug("outputs below the map count", conv_pool, "conv_direct.cu", "(i < 2 || below) && ", ""),
    Bug("the last of equal outputs is chosen", conv_pool, "conv_direct.cu", "value <= largest",
        "value < largest"),
    Bug("a gradient passes what ReLU has cut", conv_pool, "conv_direct.cu",
        "relu && !(largest > 0) ? 4 : chosen", "chosen"),
    Bug("the patch of a gradient is overwritten too early", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "        __syncthreads();  // everyone has read the patch; it may be overwritten\n", ""),
    Bug("slots are summed too early", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "        __syncthreads();  // every slot is there\n", ""),
    Bug("every channel is the first", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "patch + unit * CHANNELS * g.plane", "patch"),
    Bug("dy goes to the row above", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "place == row % 2 * 2 + 1", "place == 1"),
    Bug("the bias gets what nobody chose", conv_pool_wgrad, "conv_direct_wgrad.cu",
        " && place < 4) bias_sums", ") bias_sums"),
    Bug("the rows below the map are summed", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "min(2 * g.quads[0], g.output[0] - 2 * tile.row)", "2 * g.quads[0] + 2"),
    Bug("a later equal maximum wins", pool, "pool_window.cuh", "value <= best", "value < best"),
    Bug("the last of the equal ones of 3x3", pool_packed, "pool_window.cuh",
        "int t = TAPS - 2; t >= 0; --t", "int t = 0; t < TAPS - 1; ++t"),
    Bug("a NaN among 3x3 lost", pool_packed, "pool_window.cuh", "if (sum != sum)", "if (false)"),
    Bug("the channels of the first thread", norm_pool, "norm_pool.cu",
        "normaliser(unit * WIDTH + j,", "normaliser(j,"),
    Bug("units of another pixel's channels", norm_pool, "norm_pool.cu", "i += stride",
        "i += stride + 1"),
    Bug("the column beside a strip left out", pool_strips, "pool_strips.cu",
        "rows[r].beside_exists ? widen(rows[r].beside) : worst", "worst"),
    Bug("what the ReLU has cut keeps its place", pool_packed, "pool_window.cuh",
        "if (SELECTS && g.relu && !(pooled.value[j] > 0)) pooled.tap[j]",
        "if (false) pooled.tap[j]"),
    Bug("what the ReLU has cut in a strip keeps its place", pool_strips, "pool_strips.cu",
        "if (SELECTS && g.relu && !(best[j] > 0)) chosen[j]", "if (false) chosen[j]"),
    Bug("the ReLU of a map forgotten", global_pool, "global_pool.cu",
        "narrow(g.relu && found.value <= 0 ? (Accum)0 : found.value)", "narrow(found.value)"),
    Bug("the column of padding is read", pool_strips, "pool_strips.cu",
        "row[rows[r].beside_exists ? beside : first]", "row[beside]"),
    Bug("rows of padding are counted", pool_strips, "pool_strips.cu",
        "if (!rows[r].exists) continue;", ""),
    Bug("outputs beyond the row are written", pool_strips, "pool_strips.cu",
        "if (out.axis[2] + j >= g.output[2]) break;", ""),
    Bug("the index ignored", pool_gathered, "pool_gather.cu", "(int)index.at[j] == tap ?",
        "true ?"),
    Bug("windows beyond the last are read", pool_gathered, "pool_gather.cu",
        "min(g.output[a], (int)divide(padded, g.by_stride[a]) + 1)",
        "(int)divide(padded, g.by_stride[a]) + 1"),
    Bug("the gap between windows gets a gradient", pool_cells, "pool_cells.cu",
        "if (!inside(tap, g.window)) continue;", ""),
    Bug("windows outside the map are read", pool_packed, "pool_cells.cu",
        "if (!inside(out, g.output)) continue;", ""),
    Bug("the windows before a cell's own forgotten", pool_packed, "pool_cells.cu",
        "fill_cell<2>(", "fill_cell<1>("),
    Bug("pairs of a row taken for one", pool_pairs, "pool_cells.cu", "number + j % ACROSS",
        "number"),
    Bug("the last of the equal ones of a map", global_pool, "global_pool.cu",
        "alike ? b.index < a.index", "alike ? b.index > a.index"),
    Bug("the splits of a map overlap", global_pool, "global_pool.cu",
        "min((blockIdx.y + 1) * g.per_split, g.units)", "g.units"),
    Bug("no barrier in the tree of a map", global_pool, "global_pool.cu",
        "        __syncthreads();  // the level below is complete\n", ""),
    Bug("a row's gradient runs into the next", global_pool, "global_pool_backward.cu",
        "if (l == by_length.value) l = 0, ++row;", ""),
    Bug("no barrier before the tile is written", change_layout, "change_layout.cu",
        "    __syncthreads();  // the tile is complete\n", ""),
    Bug("lines beyond the last are written", change_layout, "change_layout.cu",
        "if (row >= t.rows || column >= t.columns) continue;", ""),
    Bug("words of the warp are read too early", pictures, "picture_layout.cu",
        "    __syncwarp();  // the warp's words are there\n", ""),
    Bug("words beyond the last are read", pictures, "picture_layout.cu",
        "if (at.in_pictures(k) < CHANNELS * (long long)units) held", "held"),
    Bug("words beyond the last are written", pictures, "picture_layout.cu",
        "if (at.in_pictures(k) < CHANNELS * (long long)units) y[", "y["),
    Bug("a picture's planes behind those of the first", pictures, "picture_layout.cu",
        "(CHANNELS * n + c)", "(n + c)"),
    Bug("the tree starts below its height", batch_norm, "channel_sums.cu",
        "int half = BLOCK_THREADS / 2", "int half = BLOCK_THREADS / 64"),
    Bug("no barrier in the tree", batch_norm, "channel_sums.cu",
        "        __syncthreads();  // the level below is complete\n", ""),
    Bug("columns beyond the last are read", batch_norm, "channel_sums.cu",
        "column < s.columns && slot < slots", "slot < slots"),
    Bug("steps beyond the last are read", batch_norm, "channel_sums.cu",
        "exists(k) ? at(k) : step).first", "at(k)).first"),
    Bug("steps beyond the last are counted", batch_norm, "channel_sums.cu",
        "WHICH == ALL || at(k) < end", "true"),
    Bug("the steps after the whole ones start with another thread's", batch_norm,
        "channel_sums.cu", "slot < before ? slot + slots : slot", "slot"),
    Bug("numbers beyond the last are counted", batch_norm, "channel_sums.cu",
        "taken - (w >= last_end)", "taken"),
    Bug("means compared without what they are counted from", batch_norm, "moments.cuh",
        "(b.pivot - a.pivot) + ", ""),
    Bug("two sets as if their means were one", batch_norm, "moments.cuh",
        " + apart * apart * a.count * share", ""),
    Bug("moving statistics that stand still", batch_norm, "batch_norm.cuh",
        "math::fma(share, batch - moving, moving)", "moving"),
    Bug("rows beyond the last are counted", column_norm, "column_norm.cu",
        "(rows - at.slot + SLOTS - 1) / SLOTS", "(rows + SLOTS - 1) / SLOTS"),
    Bug("no barrier in a column's tree", column_norm, "column_norm.cu",
        "        __syncthreads();  // the level below is complete\n", ""),
    Bug("no barrier behind a column's tree", column_norm, "column_norm.cu",
        "    __syncthreads();  // the sum is there\n", ""),
    Bug("the gradient of what the ReLU has cut", column_norm, "column_norm.cu",
        "!(output > 0)", "!(output != 0)"),
    Bug("no barrier in the finish's tree", batch_norm, "channel_sums.cu",
        "        __syncthreads();  // the parts of this level are there\n", ""),
    Bug("the end of the row before is counted", fused_norm, "channel_sums.cu",
        "(int)max(0ll, row - first)", "0"),
    Bug("whole packs of the masked gradient where rows share them", fused_norm, "channel_sums.cu",
        "if (steps.in_packs) {", "if (true) {"),
    Bug("ReLU lets through what is above the mean", fused_norm, "batch_norm.cuh",
        "value > ROUNDS_TO_ZERO &&", "widen(x) > mean &&"),
    Bug("the residual of the pack before", fused_norm, "batch_norm.cu",
        "packs.load(residual, k)", "packs.load(residual, 0)"),
    Bug("a stride that the channels do not fit", fused_norm, "pack.cuh",
        "i += COUNT * stride", "i += COUNT * stride - PACK"),
    Bug("packs beyond the last are stored", fused_norm, "pack.cuh", "else if (at(k) < end)",
        "else"),
    Bug("the pack that is not whole is every thread's", fused_norm, "pack.cuh",
        "(whole && (whole - first) % stride)", "false"),
    Bug("the scratch reused too early", group_norm, "block_sum.cuh",
        "    __syncthreads();  // everyone has read it\n", ""),
    Bug("the group's last elements left out", group_norm, "group_norm.cu",
        "e < group.size; e += BLOCK_THREADS) sum",
        "e + BLOCK_THREADS < group.size; e += BLOCK_THREADS) sum"),
    Bug("the butterfly starts at 8", cross_entropy, "row_reduce.cuh", "int mask = 16",
        "int mask = 8"),
    Bug("what no class stands for is held as zero", cross_entropy, "softmax_cross_entropy.cu",
        "[k % PACK]) : -math::infinity()", "[k % PACK]) : 0"),
    Bug("a lane's packs side by side", cross_entropy, "softmax_cross_entropy.cu",
        "(k / PACK * ROW_THREADS + first_column()) * PACK",
        "(k / PACK + first_column()) * PACK"),
    Bug("the last of the largest logits", cross_entropy, "softmax_cross_entropy.cu",
        "v > value ||", "v >= value ||"),
    Bug("the place of the largest in the last thread", cross_entropy, "row_reduce.cuh",
        "return a < b ? a : b; }", "return a > b ? a : b; }"),
    Bug("a block's losses are all the others', too", means, "loss_means.cu",
        "min(count - first, (long long)per_block)", "count - first"),
    Bug("sums of what the kernel before has yet to write", add, "add.cu",
        "    after_kernels_before();\n", ""),
    Bug("negative sums pass", add, "add.cu", "relu && sum <= 0", "relu && sum > 9"),
    Bug("no barrier before the warps' values are read", cross_entropy, "row_reduce.cuh",
        "        __syncthreads();  // every warp's value is there\n", ""),
    Bug("a digit of a coefficient", gelu, "activations.cuh", "0.0157442", "0.0156442"),
    Bug("the left tail's slope on the right", gelu, "activations.cuh", "x > 0 ? 1 - left : x", "x"),
    Bug("the last pack stored as if it were whole", gelu, "pack.cuh", "i + PACK <= size", "true"),
    Bug("a mask's second half is its first", masks, "mask.cu", "<< (k * PACK + j)", "<< j"),
    Bug("a mask's first half is read twice", masks, "mask.cu", "bits >> (k * PACK + j)",
        "bits >> j"),
    Bug("an element's byte is its own", masks, "mask.cu", "mask[packs.i / OCTET] =",
        "mask[packs.i] ="),
    Bug("threads behind the last byte write", masks, "mask.cuh", "else if (i < size)", "else"),
    Bug("a NaN passes", masks, "mask.cuh", "widen(y) > 0", "!(widen(y) <= 0)"),
    Bug("what has reached the ceiling passes", masks, "mask.cuh", ">= ceiling", "> ceiling"),
    Bug("the ceiling is none", masks, "mask.cu", "v >= ceiling ? ceiling : v", "v"),
    Bug("infinity times a slope of zero", masks, "mask.cu", "slope > 0 ? slope * v : (Accum)0",
        "slope * v"),
    Bug("what passed is not scaled", masks, "mask.cu", "scale * d", "d"),
    Bug("the sum leaves its residual out", masks, "mask.cu", "if (residual) v +=", "if (0) v +="),
    Bug("the residual's second pack is its first", masks, "mask.cu",
        "packs.load(residual, k)", "packs.load(residual, 0)"),
    Bug("eight elements in packs where fewer are left", masks, "mask.cuh",
        "in_packs && i + OCTET <= size", "in_packs"),
    Bug("what fell passes", dropout_masked, "dropout.cu", " & lives >> j", ""),
    Bug("the words of the first pack again", dropout_masked, "dropout.cu",
        "packs.at(k), threshold", "packs.i, threshold"),
    Bug("what was cut passes", dropout_masked, "dropout.cu",
        "(unsigned)passes(in.at[j], ceiling) & lives >> j", "lives >> j & 1"),
    Bug("nine rounds of Philox", dropout, "philox.cuh", "round < 10", "round < 9"),
    Bug("the draws are read before they are there", augment, "augment.cu",
        "    __syncthreads();  // the table and the draws are there\n", ""),
    Bug("mirrored about the edge, not the pixel there", augment, "augment.cu",
        "size - 1 - abs(size - 1", "size - abs(size - 1"),
    Bug("a column too far when flipped", augment, "augment.cu", "b.width - 1 - column",
        "b.width - column"),
    Bug("every epoch's turn is the first's", augment, "augment.cu", "epoch % 2 == 0", "true"),
    Bug("the place in the batch, not in the epoch", augment, "augment.cu",
        "(unsigned)at + blockIdx.x", "blockIdx.x"),
    Bug("the rows and columns that enter are read", augment, "augment.cu",
        "(unsigned)from_row >= (unsigned)b.height", "from_row >= b.height"),
    Bug("both parts of a picture begin at the first", augment, "augment.cu",
        "blockIdx.y * BLOCK_THREADS + threadIdx.x", "threadIdx.x"),
    Bug("elements beyond the picture are read", augment, "augment.cu", "if (first + j < size)", ""),
    Bug("who has nothing to do does not wait", dropout, "dropout.cu",
        "    after_kernels_before();\n",
        "    if (first_of_pack() >= count) return;\n    after_kernels_before();\n"),
    Bug("chunks overlap", adam, "multi_tensor.cuh", "min(chunk.begin + CHUNK, tensor.size)",
        "tensor.size"),
    Bug("the end of a tensor unchecked", adam, "multi_tensor.cuh",
        "min(chunk.begin + CHUNK, tensor.size)", "chunk.begin + CHUNK"),
    Bug("squares are not squared", global_norm, "global_norm.cu", "sum += value * value",
        "sum += value"),
    Bug("a parameter that was changed is not", masters, "multi_tensor.cuh",
        "widen(narrow(master)) == p ? master : p", "master"),
    Bug("the master is left behind", masters, "multi_tensor.cuh",
        "    if (tensor.master) tensor.master[i] = p;\n", ""),
    Bug("the rounding is added to, not the master", masters, "multi_tensor.cuh",
        "if (!tensor.master) return p;", "return p;"),
    Bug("gradients that overflowed are taken", loss_scaling, "optimizer.cu",
        "    if (grad_scale && *grad_scale == 0) return;\n", ""),
    Bug("skipped steps count as made", loss_scaling, "gradient_scale.cu",
        " - (skipped ? *skipped : 0)", ""),
    Bug("the scale stays after an overflow", loss_scaling, "gradient_scale.cu",
        "growth_interval > 0 ? scale / 2 : scale", "scale"),
    Bug("gradients keep the scale", loss_scaling, "gradient_scale.cu",
        "clip_norm / norm : 1) / scale", "clip_norm / norm : 1)"),
    Bug("another tensor's norm", muon, "muon.cu", "blockIdx.x - chunk.begin / CHUNK", "0"),
    Bug("the look ahead twice", muon, "muon.cu",
        "momentum * velocities[k] : velocities[k]", "velocities[k] : velocities[k]"),
    Bug("ones in a column", muon, "muon.cu", "i / n == i % n", "i % n == 0"),
]  # fmt: skip
CHECKS = sorted({bug.check for bug in BUGS}, key=lambda check: check.__name__)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(kernel_folder(), tmp_path / "kernels"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_undamaged_copy_passes(check: Callable[[CudaBackend], None], copy: Path) -> None:
    check(CudaBackend(np, EmulatorLauncher("check", copy)))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.file}: {bug.what}")
def test_bug_is_caught(bug: Bug, copy: Path) -> None:
    text = (copy / bug.file).read_text()
    assert text.count(bug.right) >= 1, "the line to damage is gone"
    (copy / bug.file).write_text(text.replace(bug.right, bug.wrong))
    with pytest.raises((KernelError, AssertionError)) as caught:
        bug.check(CudaBackend(np, EmulatorLauncher("check", copy)))
    print(caught.value)

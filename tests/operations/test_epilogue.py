"""What convolutions do to their sums on the way to memory: residual, activation, moments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem
from gpucnn.backends.cuda.algorithms.base import FusingAlgorithm
from gpucnn.backends.cuda.epilogue import ACTIVATIONS
from gpucnn.shapes import ConvShape, NormShape
from tests import reference
from tests.cases import CONVS, DTYPES, in_layout, random
from tests.conftest import make_backend
from tests.operations.conftest import poisoned
from tests.tolerance import assert_close

FUSING = [name for name, each in ALGORITHMS.items() if isinstance(each, FusingAlgorithm)]
# Of each algorithm what its kernels differ in: odd sizes, groups, several tiles, split sums.
SHAPES = {
    "implicit_gemm": ("plain", "vectors_strided", "vectors_thin", "split_sums", "1d_grouped"),
    "dmma": ("square_window_grouped",),
    "mma": ("vectors_strided", "vectors_dilated", "split_sums"),
    "mma_padded": ("plain", "grouped_few"),
    "wgmma": ("wgmma", "wgmma_strided", "wgmma_wide"),
}
OWN = {
    "wgmma": ConvShape.of((2, 9, 10, 72), (136, 3, 3, 72), padding=1),
    "wgmma_strided": ConvShape.of((2, 9, 8, 64), (72, 2, 1, 64), strides=(2, 1)),
    "wgmma_wide": ConvShape.of((3, 13, 9, 64), (64, 1, 1, 64)),
}
CASES = {**CONVS, **OWN}
WITH_DTYPE = {
    "implicit_gemm": ("float32", "bfloat16"), "dmma": ("float64",), "mma": ("float16", "bfloat16"),
    "mma_padded": ("bfloat16",), "wgmma": ("float16", "bfloat16"),
}  # fmt: skip
LAYOUTS = {True: "nhwc", False: "nchw"}
RUNS = [
    pytest.param(
        backend, name, dtype, last, id=f"{backend}-{name}-{dtype}-{LAYOUTS[last]}", marks=marks
    )
    for backend, marks in (("emulated", ()), ("checked", ()), ("cuda", pytest.mark.gpu))
    for name in FUSING
    for dtype in WITH_DTYPE[name][: 1 if backend == "checked" else None]
    for last in LAYOUTS
    if last or name in ("implicit_gemm", "dmma")
]


@cache
def solved(name: str, dtype: str) -> tuple[np.ndarray, ...]:
    """x, w, b, residual in a dtype; x * w + b in float64, and the size of its terms."""
    s, kind = CASES[name], DTYPES[dtype]
    x, w = random("x", s.x_shape, kind), random("w", s.w_shape, kind)
    b, residual = random("b", (s.filters,), kind), random("residual", s.y_shape, kind)
    y = reference.conv_fprop(x, w, b, s)
    terms = reference.conv_fprop(*map(np.abs, (x, w, b)), s) + np.abs(residual)
    return x, w, b, residual, y, terms


def plans(algorithm: str, problem: Problem) -> Iterator[Plan]:
    """Yield a plan for each tile: of those of the most splits in turn with those of one."""
    by_tile: dict[object, list[Plan]] = {}
    for plan in ALGORITHMS[algorithm].plans(problem):
        if ALGORITHMS[algorithm].fuses(problem, plan):
            by_tile.setdefault(plan.settings.tile, []).append(plan)
    for place, group in enumerate(by_tile.values()):
        yield group[-(place % 2)]


def given(backend: Backend, arrays: tuple, channels_last: bool) -> list:
    return [backend.asarray(in_layout(a, channels_last) if a.ndim > 1 else a) for a in arrays]


each_run = pytest.mark.parametrize(("backend_name", "name", "dtype", "channels_last"), RUNS)


@each_run
def test_residual_and_activation(backend_name, name, dtype, channels_last) -> None:
    backend, ran, kinds = make_backend(backend_name), 0, [*ACTIVATIONS]
    for case in SHAPES[name]:
        s = replace(CASES[case], channels_last=channels_last)
        x, w, b, residual, y, terms = solved(case, dtype)
        question = Problem("fprop", s, dtype, "silu", residual=True)
        for plan in plans(name, question):
            # each plan with another activation, and every other one without a residual
            kind, with_residual = kinds[ran % len(kinds)], ran % 2 == 0
            problem = replace(question, activation=kind, residual=with_residual)
            arrays = x, residual
            on_device = given(backend, arrays, channels_last)
            weights = map(backend.asarray, (w, b))
            alpha = {"leaky_relu": 0.25, "elu": 1.5, "clipped_relu": 0.75}.get(kind, 0.0)
            with poisoned(backend.xp):
                got = backend.run_plan(
                    problem, plan, on_device[0], *weights, on_device[1] if with_residual else None,
                    alpha=alpha,
                )  # fmt: skip
            want = y + residual.astype(np.float64) if with_residual else y
            if kind != "linear":
                want = reference.activation_forward(want, kind, alpha)
            # no activation's slope passes 1.1, or elu's and selu's 1.76 by much
            assert_close(
                backend.to_numpy(got), in_layout(want, channels_last), dtype=DTYPES[dtype],
                reduction=s.taps * s.channels // s.groups + 2,
                magnitude=1.76 * in_layout(terms, channels_last) + 1, what=f"{case} {kind}: {plan}",
            )  # fmt: skip
            ran += 1
    assert ran


@each_run
def test_moments(backend_name, name, dtype, channels_last) -> None:
    """Of what is stored, to the digits that batch_norm_train gives, with a mean far from 0, too."""
    if dtype == "float64":
        problem = Problem("fprop", CASES["plain"], dtype, moments=True)
        assert not list(plans(name, problem))  # a pass of their own
        return
    backend, ran = make_backend(backend_name), 0
    for case in SHAPES[name]:
        s = replace(CASES[case], channels_last=channels_last)
        x, w, b, *_ = solved(case, dtype)
        problem = Problem("fprop", s, dtype, moments=True)
        pixels = s.batch * math.prod(s.output)
        shape = NormShape(s.batch, s.filters, math.prod(s.output), 1, channels_last)
        for plan in plans(name, problem):
            offset = 0 if ran % 2 else 2000
            given_x, given_w, given_b = given(
                backend, (x, w, b + DTYPES[dtype].type(offset)), channels_last
            )
            with poisoned(backend.xp):
                y, partial = backend._run_with_moments(problem, plan, given_x, given_w, given_b)
                (mean, var), _ = backend._finish("moments", partial, shape, x.dtype)
            stored = backend.to_numpy(y).astype(np.float64)
            axes = tuple(
                i for i in range(stored.ndim) if i != (stored.ndim - 1 if channels_last else 1)
            )
            options = {"dtype": np.float32, "reduction": pixels + 8, "what": f"{case}: {plan}"}
            size = np.abs(stored).mean(axes)
            assert_close(backend.to_numpy(mean), stored.mean(axes), magnitude=size, **options)
            assert_close(backend.to_numpy(var), stored.var(axes), **options)
            ran += 1
    assert ran

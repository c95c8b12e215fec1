"""What the bugs of several families are checked by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem
from gpucnn.backends.cuda.conv_pool import pooled as with_pool
from gpucnn.shapes import ConvShape, PoolShape
from tests import reference
from tests.cases import random as draw
from tests.operations.conftest import poisoned
from tests.tolerance import assert_close as close
from tests.tolerance import assert_sum

random = partial(draw, dtype=np.float32)
assert_close = partial(close, dtype=np.float32)


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


def through(
    backend: CudaBackend, name: str, s: ConvShape, dtype: type, wanted: Callable[[Plan], bool]
) -> None:
    """Multiply gradients of inputs by the derivative of a ReLU with a ceiling, and of a leaky one.

    What the sums are rounded to is the derivative's to multiply, by powers of two. And add other
    gradients to them.
    """
    dy, w, x = (
        draw(what, size, dtype)
        for what, size in (("dy", s.y_shape), ("w", s.w_shape), ("x", s.x_shape))
    )
    problem = Problem("dgrad", s, np.dtype(dtype).name, through=True)
    (plan,) = filter(wanted, ALGORITHMS[name].plans(problem))
    dx = backend.run_plan(problem.plain, plan, dy, w, None)
    for kind, alpha in (("clipped_relu", 0.75), ("leaky_relu", 0.25)):
        y = reference.activation_forward(x, kind, alpha).astype(dtype)
        with poisoned(np):
            got = backend._run_through(problem, plan, dy, w, y, kind, alpha)
        passes = (y > 0) & (y < alpha) if kind == "clipped_relu" else y > 0
        slope = dtype(0 if kind == "clipped_relu" else alpha)
        np.testing.assert_array_equal(got, np.where(passes, dx, slope * dx))
    problem = replace(problem, through=False, residual=True)
    with poisoned(np):
        got = backend.run_plan(problem, plan, dy, w, None, x)
    assert_sum(got, dx, x)


def quads(backend: CudaBackend, name: str, s: ConvShape, tile: Any) -> None:
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
    plan = replace(plan, grid=(tile.cluster, 1, 1)) if name == "wgmma" else plan
    with poisoned(np):
        got, place = backend._run_pooled(problem, plan, x, w, b)
    np.testing.assert_array_equal(got.astype(np.float64), y)
    assert (place == np.where(y > 0, index, 4)).all()


def masks(backend: CudaBackend, name: str, s: ConvShape, tile: Any) -> None:
    """Store the mask of a ReLU behind a residual's sum, in whole sums and in splits."""
    x, w, b, residual = (
        draw(what, size, np.float16)
        for what, size in (("x", s.x_shape), ("w", s.w_shape), ("b", (s.filters,)),
                           ("residual", s.y_shape))
    )  # fmt: skip
    problem, algorithm = Problem("fprop", s, "float16", "relu"), ALGORITHMS[name]
    problem = replace(problem, residual=True, masked=True)
    for plan in algorithm.plans(problem):
        if plan.settings.tile == tile and algorithm.fuses(problem, plan):
            plan = replace(plan, grid=(tile.cluster, 1, 1)) if name == "wgmma" else plan
            with poisoned(np):
                y, mask = backend._run_masked(problem, plan, x, w, b, residual)
            np.testing.assert_array_equal(mask, reference.activation_mask(y, "relu", 0.0))
            plain = backend.run_plan(replace(problem, masked=False), plan, x, w, b, residual)
            np.testing.assert_array_equal(y, plain)


@dataclass(frozen=True)
class Bug:
    """One line of a kernel file, as it is and as it is damaged."""

    what: str
    check: Callable[[CudaBackend], None]
    file: str
    right: str
    wrong: str

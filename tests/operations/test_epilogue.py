"""What convolutions do to their sums on the way to memory: residual, activation, moments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gpucnn.backends.base import ACTIVATIONS as KINDS
from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem
from gpucnn.backends.cuda.algorithms.base import FusingAlgorithm
from gpucnn.backends.cuda.epilogue import ACTIVATIONS
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import CONVS, DTYPES, in_layout, random
from tests.conftest import make_backend
from tests.operations.conftest import Runner, inside_another, poisoned, same_bits
from tests.tolerance import assert_close

FUSING = [
    name
    for name, each in ALGORITHMS.items()
    if isinstance(each, FusingAlgorithm) and name != "wgmma_dgrad"  # which has no fprop
]
# Of each algorithm what its kernels differ in: odd sizes, groups, several tiles, split sums.
SHAPES = {
    "implicit_gemm": ("plain", "vectors_strided", "vectors_thin", "split_sums", "1d_grouped"),
    "dmma": ("square_window_grouped",),
    "mma": ("vectors_strided", "vectors_dilated", "split_sums"),
    "mma_padded": ("plain", "grouped_few"),
    "wgmma": ("wgmma", "wgmma_strided", "wgmma_wide"),
    "winograd": ("square_window_grouped",),
    "winograd4": ("wide_filters",),
}
OWN = {
    "wgmma": ConvShape.of((2, 9, 10, 72), (136, 3, 3, 72), padding=1),
    "wgmma_strided": ConvShape.of((2, 9, 8, 64), (72, 2, 1, 64), strides=(2, 1)),
    "wgmma_wide": ConvShape.of((3, 13, 9, 64), (64, 1, 1, 64)),
}
CASES = {**CONVS, **OWN}
# On the CPU the dtypes in which test_algorithms.py builds the kernels, too.
WITH_DTYPE = {
    "emulated": {
        "implicit_gemm": ("float32", "bfloat16"),
        "dmma": ("float64",),
        "mma": ("bfloat16",),
        "mma_padded": ("bfloat16",),
        "wgmma": ("bfloat16",),
        "winograd": ("float32",),
        "winograd4": ("float32",),
    },
    "checked": {"implicit_gemm": ("float32",), "mma": ("float16",), "wgmma": ("float16",)},
}
WITH_DTYPE["cuda"] = {
    name: tuple({*of_name, *WITH_DTYPE["checked"].get(name, ())})
    for name, of_name in WITH_DTYPE["emulated"].items()
}
LAYOUTS = {True: "nhwc", False: "nchw"}
RUNS = [
    pytest.param(
        backend, name, dtype, last, id=f"{backend}-{name}-{dtype}-{LAYOUTS[last]}", marks=marks
    )
    for backend, marks in (("emulated", ()), ("checked", ()), ("cuda", pytest.mark.gpu))
    for name in FUSING
    for dtype in sorted(WITH_DTYPE[backend].get(name, ()))
    for last in LAYOUTS
    if last or (backend != "checked" and ("mma" not in name or name == "dmma"))
]


def backend_or_skip(name: str) -> Backend:
    try:
        return make_backend(name)
    except RuntimeError as error:
        pytest.skip(str(error))


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
            tile = getattr(plan.settings, "tile", plan.settings)
            by_tile.setdefault(tile, []).append(plan)
    for place, group in enumerate(by_tile.values()):
        yield group[-(place % 2)]


def given(backend: Backend, arrays: tuple, channels_last: bool) -> list:
    return [backend.asarray(in_layout(a, channels_last) if a.ndim > 1 else a) for a in arrays]


ALPHAS = {"leaky_relu": 0.25, "elu": 1.5, "clipped_relu": 0.75}
STEEPEST = 1.76  # of the activations' slopes, selu's
each_run = pytest.mark.parametrize(("backend_name", "name", "dtype", "channels_last"), RUNS)


@each_run
def test_residual_and_activation(backend_name, name, dtype, channels_last) -> None:
    backend, ran = backend_or_skip(backend_name), 0
    for case in SHAPES[name][: 1 if backend_name == "checked" else None]:
        s = replace(CASES[case], channels_last=channels_last)
        x, w, b, residual, y, terms = solved(case, dtype)
        question = Problem("fprop", s, dtype, "silu", residual=True)
        arrays = [*given(backend, (x, residual), channels_last), *map(backend.asarray, (w, b))]
        found = list(plans(name, question))
        for place, plan in enumerate(found):
            kinds = ACTIVATIONS[place :: len(found)] or ACTIVATIONS[place % len(ACTIVATIONS) :]
            for nth, kind in enumerate(kinds[:1] if backend_name == "checked" else kinds):
                adds = nth == 0 or ran % 3 < 2
                problem = replace(question, activation=kind, residual=adds)
                alpha = ALPHAS.get(kind, 0.0)
                with poisoned(backend.xp):
                    got = backend.run_plan(
                        problem, plan, arrays[0], *arrays[2:], arrays[1] if adds else None,
                        alpha=alpha,
                    )  # fmt: skip
                want = y + residual.astype(np.float64) if adds else y
                if kind != "linear":
                    want = reference.activation_forward(want, kind, alpha)
                size = STEEPEST * in_layout(terms, channels_last) + 1
                assert_close(
                    backend.to_numpy(got), in_layout(want, channels_last), dtype=DTYPES[dtype],
                    reduction=s.taps * s.channels // s.groups + 2, magnitude=size,
                    what=f"{case} {kind}: {plan}",
                )  # fmt: skip
                ran += 1
    assert ran


WITHOUT_MOMENTS = ("dmma", "winograd", "winograd4")  # a pass of their own


def test_which_algorithms_store_moments() -> None:
    for name in FUSING:
        dtype, case = WITH_DTYPE["emulated"][name][0], SHAPES[name][0]
        problem = Problem("fprop", CASES[case], dtype, moments=True)
        assert bool(list(plans(name, problem))) == (name not in WITHOUT_MOMENTS)


@pytest.mark.parametrize(
    ("backend_name", "name", "dtype", "channels_last"),
    [each for each in RUNS if each.values[1] not in WITHOUT_MOMENTS],
)
def test_moments(backend_name, name, dtype, channels_last) -> None:
    """Of what is stored, to the digits that batch_norm_train gives, with a mean far from 0, too."""
    backend, ran, kind = backend_or_skip(backend_name), 0, DTYPES[dtype]
    for case in SHAPES[name][: 1 if backend_name == "checked" else None]:
        s = replace(CASES[case], channels_last=channels_last)
        x, w, b, *_ = solved(case, dtype)
        problem = Problem("fprop", s, dtype, moments=True)
        shape = s.norm_shape
        for plan in plans(name, problem):
            shifted = b + kind.type(0 if ran % 2 else 2000)
            arrays = given(backend, (x, w, shifted), channels_last)
            arrays[1] = backend.asarray(w)
            with poisoned(backend.xp):
                y, partial = backend._run_with_moments(problem, plan, *arrays)
                (mean, var), _ = backend._finish("moments", partial, shape, x.dtype)
            stored = backend.to_numpy(y).astype(np.float64)
            axes = tuple({*range(stored.ndim)} - {stored.ndim - 1 if channels_last else 1})
            count = s.batch * math.prod(s.output)
            options = {"dtype": np.float32, "reduction": count + 8, "what": f"{case}: {plan}"}
            size = np.abs(stored).mean(axes)
            assert_close(backend.to_numpy(mean), stored.mean(axes), magnitude=size, **options)
            assert_close(backend.to_numpy(var), stored.var(axes), **options)
            ran += 1
    assert ran


@pytest.mark.parametrize("name", ["plain", "vectors", "stem", "depthwise", "grouped_few", "dense"])
@pytest.mark.parametrize("kind", ["linear", "relu", "relu6", "softplus", "silu"])
def test_whatever_the_algorithm(run: Runner, name: str, kind: str) -> None:
    """A residual and an activation behind any convolution, in its kernel or in others."""
    s = CONVS[name]
    x, w, b, residual, y, terms = solved(name, "float32")
    for other in (None, residual):
        got = run("conv_fprop", x, w, b, s, kind, "strict", 0.0, other)
        want = y if other is None else y + other
        want = want if kind == "linear" else reference.activation_forward(want, kind, 0.0)
        reduction = s.taps * s.channels // s.groups + 2
        assert_close(got, want, dtype=np.float32, reduction=reduction, magnitude=1.1 * terms + 1)


@pytest.mark.parametrize("name", ["vectors", "stem", "many_pixels", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_conv_norm_train_is_both_after_each_other(every_backend: Backend, name, dtype) -> None:
    s, kind, backend = CONVS[name], DTYPES[dtype], every_backend
    x, w, b, residual, *_ = map(backend.asarray, solved(name, dtype)[:4])
    gamma, beta = (backend.asarray(random(n, (s.filters,), kind, 0.5, 2)) for n in ("g", "beta"))
    moving = [[backend.asarray(np.ones(s.filters, np.float32)) for _ in "mv"] for _ in range(2)]
    shape = s.norm_shape
    ours = backend.conv_norm_train(
        x, w, b, s, gamma, beta, 1e-3, "relu", residual, tuple(moving[0]), 0.9
    )
    y = ours[0]
    expected = backend.batch_norm_train(
        y, gamma, beta, 1e-3, shape, "relu", residual, tuple(moving[1]), 0.9
    )
    plain = backend.conv_fprop(x, w, b, s)
    count = s.batch * math.prod(s.output) + 16
    for got, want, accum in [
        (y, plain, kind), *zip(ours[1:], expected, (kind, np.float32, np.float32), strict=True),
        *zip(*moving, (np.float32,) * 2, strict=True),
    ]:  # fmt: skip
        want = backend.to_numpy(want).astype(np.float64)
        assert_close(
            backend.to_numpy(got), want, dtype=accum, reduction=count, magnitude=np.abs(want) + 2
        )
    again = backend.conv_norm_train(x, w, b, s, gamma, beta, 1e-3, "relu", residual)
    assert all(same_bits(*map(backend.to_numpy, pair)) for pair in zip(ours, again, strict=True))


def test_the_estimate_counts_launches_that_are_not_fused() -> None:
    """A residual tips the scales towards an algorithm that takes it along."""
    shape = ConvShape.of((64, 32, 32, 64), (64, 3, 3, 64), padding=1)
    plain = Problem("fprop", shape, "float32")
    wanted = replace(plain, moments=True)
    assert not ALGORITHMS[choose(plain).algorithm].fuses(wanted, choose(plain))
    assert plain.apart_us == 0 < wanted.apart_us < replace(wanted, residual=True).apart_us
    relu = replace(plain, activation="relu")
    assert relu.is_plain and relu.apart_us == 0


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_vectors_of_a_residual_that_begins_inside_another(kind: str) -> None:
    """It is copied to where vectors can be loaded."""
    backend, s = make_backend("emulated"), CONVS["vectors"]
    x, w, b, residual, *_ = solved("vectors", "float32")
    x, w, b = map(backend.asarray, (x, w, b))
    inside, whole = inside_another(backend, residual), backend.asarray(residual)
    ours, expected = (
        backend.conv_fprop(x, w, b, s, kind, "strict", 0.5, other) for other in (inside, whole)
    )
    assert same_bits(*map(backend.to_numpy, (ours, expected)))

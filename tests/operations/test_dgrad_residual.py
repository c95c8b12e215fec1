"""Gradients of an input that several read: dgrad adds to the others' what it stores itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gpucnn.functional as F
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Problem
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import CONVS, DTYPES, random
from tests.operations.conftest import Runner, poisoned
from tests.operations.test_epilogue import backend_or_skip, given, plans
from tests.operations.test_through import CASES, RUNS, SHAPES
from tests.tolerance import allowed_error, assert_sum


@pytest.mark.parametrize(("backend_name", "name", "dtype", "channels_last"), RUNS)
def test_as_of_two_passes(backend_name, name, dtype, channels_last) -> None:
    backend, ran, checked = backend_or_skip(backend_name), 0, backend_name == "checked"
    for case in SHAPES[name][: 1 if checked else None]:
        s, kind = replace(CASES[case], channels_last=channels_last), DTYPES[dtype]
        dy, residual = (
            random(*of, kind) for of in (("dy", CASES[case].y_shape), ("x", CASES[case].x_shape))
        )
        dy, residual = given(backend, (dy, residual), channels_last)
        w, b = (
            backend.asarray(random(*of, kind)) for of in (("w", s.w_shape), ("b", (s.channels,)))
        )
        question = Problem("dgrad", s, dtype, residual=True)
        for plan in [*plans(name, question)][: 2 if checked else None]:
            bias = None if ran % 3 else b
            plain = backend.run_plan(question.plain, plan, dy, w, bias)
            with poisoned(backend.xp):
                got = backend.run_plan(question, plan, dy, w, bias, residual)
            assert_sum(*map(backend.to_numpy, (got, plain, residual)))
            ran += 1
    assert ran


@pytest.mark.parametrize("name", ["plain", "vectors", "stem", "depthwise", "grouped_few", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_whatever_the_algorithm(run: Runner, name: str, dtype: str) -> None:
    """In its kernel or in another one; ``mma_padded`` would have to pad the others, too."""
    s, kind = CONVS[name], DTYPES[dtype]
    dy, w, residual = (
        random(*of, kind) for of in (("dy", s.y_shape), ("w", s.w_shape), ("x", s.x_shape))
    )
    got = run("conv_dgrad", dy, w, None, s, "strict", residual)
    dx, terms = (reference.conv_dgrad(*each, None, s) for each in ((dy, w), map(np.abs, (dy, w))))
    want = dx + residual.astype(np.float64)
    # dx is rounded before the sum as well, where that is a pass of its own
    allowed = allowed_error(dx, kind, s.taps * s.filters // s.groups, terms)
    allowed += allowed_error(want, kind, 1, np.abs(dx) + np.abs(residual))
    assert got.dtype == kind
    assert (np.abs(got.astype(np.float64) - want) <= allowed).all()


def test_a_pass_of_its_own_is_counted() -> None:
    shape = ConvShape.of((32, 28, 28, 64), (64, 3, 3, 64), padding=1)
    joined = Problem("dgrad", shape, "bfloat16", residual=True)
    assert not joined.is_plain and joined.apart_us > 3 * 2 * 32 * 28 * 28 * 64 / 5e6
    assert ALGORITHMS[choose(joined).algorithm].fuses(joined, choose(joined))
    odd = replace(joined, shape=ConvShape.of((4, 9, 9, 33), (17, 3, 3, 33)))
    (plan,) = ALGORITHMS["mma_padded"].plans(odd)
    assert not ALGORITHMS["mma_padded"].fuses(odd, plan)


FUNCTIONS = {
    "conv": (F.conv_forward, F.conv_backward, (2, 6, 6, 3), (4, 3, 3, 3)),
    "transpose": (
        *(F.conv_transpose_forward, F.conv_transpose_backward), *((2, 5, 5, 4), (4, 3, 3, 3)),
    ),
    "dense": (F.dense_forward, F.dense_backward, (2, 3, 5), (4, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kinds", ["real", "complex", "complex filters"])
def test_functions(name: str, kinds: str) -> None:
    forward, backward, x_shape, w_shape = FUNCTIONS[name]
    rng = np.random.default_rng(0)

    def drawn(shape: tuple[int, ...], is_complex: bool) -> np.ndarray:
        real, imaginary = rng.standard_normal((2, *shape))
        return real + 1j * imaginary if is_complex else real

    x, w = drawn(x_shape, kinds == "complex"), drawn(w_shape, kinds != "real")
    others = drawn(x_shape, kinds == "complex")
    y = forward(x, w)
    dy = drawn(y.shape, y.dtype.kind == "c")
    plain, joined = backward(dy, x, w), backward(dy, x, w, residual=others)
    for got, want in zip(joined, (plain[0] + others, *plain[1:]), strict=True):
        np.testing.assert_array_equal(got, want)
    assert joined[0].dtype == x.dtype
    assert backward(dy, x, w, residual=others, needs_dx=False)[0] is None
    with pytest.raises(ValueError, match=r"residual must have the shape"):
        backward(dy, x, w, residual=others[1:])
    with pytest.raises(TypeError, match=r"residual: float32"):
        backward(dy, x, w, residual=others.real.astype(np.float32))


def test_an_activation_that_others_read_as_well() -> None:
    """The sum of all gradients goes through it."""
    rng = np.random.default_rng(0)
    x = F.activation_forward(rng.standard_normal((2, 6, 6, 3)), "relu")
    w, others = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(x.shape)
    y, index = F.conv_pool_forward(x, w)
    dy = rng.standard_normal(y.shape)
    plain = F.conv_pool_backward(dy, y, index, x, w)[0]
    got = F.conv_pool_backward(dy, y, index, F.FromActivation(x), w, residual=others)[0]
    np.testing.assert_array_equal(got, np.where(x > 0, plain + others, 0))

"""Gradients of inputs that an activation gave, times its derivative, as dgrad stores them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gpucnn.functional as F
from gpucnn.backends.base import MASKABLE
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Problem
from gpucnn.backends.cuda.compiler import kernel_folder
from gpucnn.backends.cuda.epilogue import DERIVATIVES, NUMBERS
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests.cases import CONVS, DTYPES, random
from tests.operations.conftest import poisoned, same_bits
from tests.operations.test_epilogue import WITH_DTYPE, backend_or_skip, given, plans

CASES = {
    **CONVS,
    "deep": ConvShape.of((1, 5, 6, 65), (257, 3, 3, 65), padding=1),
    "wgmma": ConvShape.of((2, 9, 10, 72), (136, 3, 3, 72), padding=1),
    "wgmma_wide": ConvShape.of((3, 13, 9, 64), (64, 1, 1, 64)),
    "wgmma_strided": ConvShape.of((2, 9, 8, 72), (64, 3, 2, 72), strides=(2, 2), padding=1),
}
# Of each algorithm what its kernels differ in: odd sizes, groups, classes of pixels, split sums.
SHAPES = {
    "implicit_gemm": ("plain", "vectors_strided", "split_sums", "1d_grouped"),
    "dmma": ("square_window_grouped",),
    "mma": ("vectors_strided", "split_sums"),
    "wgmma": ("wgmma", "wgmma_wide"),
    "wgmma_dgrad": ("wgmma_strided",),
    "winograd": ("square_window_grouped",),
    "winograd4": ("deep",),
}
ALPHAS = {"clipped_relu": 0.75, "leaky_relu": 0.25}  # a power of two, which rounds nothing
WITH = {
    backend: {**of_backend, "wgmma_dgrad": of_backend.get("wgmma", ())}
    for backend, of_backend in WITH_DTYPE.items()
}
RUNS = [
    pytest.param(backend, name, dtype, last, id=f"{backend}-{name}-{dtype}-{layout}", marks=marks)
    for backend, marks in (("emulated", ()), ("checked", ()), ("cuda", pytest.mark.gpu))
    for name in SHAPES
    for dtype in sorted(WITH[backend].get(name, ()))
    for last, layout in ((True, "nhwc"), (False, "nchw"))
    if last or (backend != "checked" and name not in ("mma", "wgmma", "wgmma_dgrad"))
]


@pytest.mark.parametrize(("backend_name", "name", "dtype", "channels_last"), RUNS)
def test_as_of_two_passes(backend_name, name, dtype, channels_last) -> None:
    """The same plan, and then the activation's own way back, leave the same bits."""
    backend, ran, kinds = backend_or_skip(backend_name), 0, sorted(MASKABLE)
    checked = backend_name == "checked"  # a residual is checked with every tile: test_epilogue.py
    for case in SHAPES[name][: 1 if checked else None]:
        s, kind = replace(CASES[case], channels_last=channels_last), DTYPES[dtype]
        dy, w = random("dy", CASES[case].y_shape, kind), random("w", s.w_shape, kind)
        x = random("x", CASES[case].x_shape, kind)
        x.reshape(-1)[::41] = np.nan
        dy.reshape(-1)[1] = np.inf
        dy, x = given(backend, (dy, x), channels_last)
        w = backend.asarray(w)
        question = Problem("dgrad", s, dtype, through=True)
        for plan in [*plans(name, question)][: 2 if checked else None]:
            of = kinds[ran % len(kinds)]
            alpha = ALPHAS.get(of, 0.0)
            y = backend.activation_forward(x, of, alpha)
            plain = backend.run_plan(replace(question, through=False), plan, dy, w, None)
            want = backend.activation_backward(plain, y, of, alpha)
            with poisoned(backend.xp):
                got = backend._run_through(question, plan, dy, w, y, of, alpha)
            got, want = map(backend.to_numpy, (got, want))
            assert same_bits(*map(canonical, (got, want))), f"{case} {of}: {plan}"
            ran += 1
    assert ran


def canonical(array: np.ndarray) -> np.ndarray:
    """Return an array whose NaNs are one NaN, and whose zeros one zero."""
    return np.where(array != array, array.dtype.type(np.nan), array + array.dtype.type(0))


def test_every_algorithm_that_could() -> None:
    fusing = [name for name, each in ALGORITHMS.items() if hasattr(each, "run_fused")]
    assert set(SHAPES) == {*fusing} - {"mma_padded"}  # which would have to pad x, too


def test_channels_that_are_padded_leave_it_to_a_pass() -> None:
    """Tensor cores have other places for x than memory; padded channels are cut off before."""
    backend, s = backend_or_skip("emulated"), ConvShape.of((2, 5, 6, 12), (24, 3, 3, 12))
    dy, w, x = (
        random(name, size, DTYPES["bfloat16"])
        for name, size in (("dy", s.y_shape), ("w", s.w_shape), ("x", s.x_shape))
    )
    problem, padded = Problem("dgrad", s, "bfloat16", through=True), ALGORITHMS["mma_padded"]
    (plan,) = padded.plans(problem)
    want = backend.activation_backward(backend.run_plan(problem.plain, plan, dy, w, None), x,
                                       "relu", 0.0)  # fmt: skip
    assert same_bits(backend.run_plan(problem, plan, dy, w, x), want)


def test_the_numbers_of_the_kernel() -> None:
    text = (kernel_folder() / "epilogue.cuh").read_text()
    listed = text.split("enum ActivationNumber {")[1].split("}")[0]
    names = [line.split("//")[0] for line in listed.splitlines()]
    names = [name.strip().lower() for name in "".join(names).split(",") if name.strip()]
    assert names == list(NUMBERS) and set(DERIVATIVES) < set(names)


def test_a_pass_of_its_own_is_counted() -> None:
    """Of plans that take as long, the one that takes the derivative along comes first."""
    shape = ConvShape.of((32, 28, 28, 64), (64, 3, 3, 64), padding=1)
    plain = Problem("dgrad", shape, "bfloat16")
    through = replace(plain, through=True)
    assert not through.is_plain and through.plain == plain
    assert through.apart_us > 3 * 2 * 32 * 28 * 28 * 64 / 5e6
    assert ALGORITHMS[choose(through).algorithm].fuses(through, choose(through))
    depthwise = ConvShape.of((8, 28, 28, 24), (24, 3, 3, 1), groups=24, padding=1)
    best = choose(alone := replace(through, shape=depthwise))
    assert best.algorithm == "depthwise" and not ALGORITHMS["depthwise"].fuses(alone, best)


@pytest.mark.parametrize("backend_name", ["numpy", "emulated"])
def test_through_functions(backend_name) -> None:
    """conv, conv_pool and dense: of each kind that the output tells, complex filters too."""
    backend, rng = backend_or_skip(backend_name), np.random.default_rng(0)
    before = rng.standard_normal((2, 6, 6, 3))
    w, dy = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal((2, 4, 4, 4))
    kinds = ("relu", "elu", "tanh", "linear") if backend_name == "numpy" else ("relu", "tanh")
    for kind in kinds:
        x = F.activation_forward(backend.asarray(before), kind)
        given_dy, given_w = map(backend.asarray, (dy, w))
        plain = F.conv_backward(given_dy, x, given_w)
        ours = F.conv_backward(given_dy, F.FromActivation(x, kind), given_w)
        want = F.activation_backward(plain[0], x, kind)
        for got, expected in zip(ours, (want, *plain[1:]), strict=True):
            np.testing.assert_array_equal(*map(backend.to_numpy, (got, expected)))
        rows, of_rows = x.reshape(-1, 3), given_w[:, 0, 0]
        d_rows = backend.asarray(rng.standard_normal((len(rows), 4)))
        want = F.activation_backward(F.dense_backward(d_rows, rows, of_rows)[0], rows, kind)
        got = F.dense_backward(d_rows, F.FromActivation(rows, kind), of_rows)[0]
        np.testing.assert_array_equal(*map(backend.to_numpy, (got, want)))
        y, index = F.conv_pool_forward(x, given_w, activation="relu")
        d_pooled = given_dy[:, :2, :2].copy()
        plain = F.conv_pool_backward(d_pooled, y, index, x, given_w, activation="relu")
        source = F.FromActivation(x, kind)
        got = F.conv_pool_backward(d_pooled, y, index, source, given_w, activation="relu")
        want = F.activation_backward(plain[0], x, kind)
        np.testing.assert_array_equal(*map(backend.to_numpy, (got[0], want)))


def test_complex_filters() -> None:
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((2, 5)), 0)
    w, dy = (rng.standard_normal(n) + 1j * rng.standard_normal(n) for n in ((3, 5), (2, 3)))
    dx, dw, _ = F.dense_backward(dy, F.FromActivation(x), w)
    plain, same, _ = F.dense_backward(dy, x, w)
    np.testing.assert_array_equal(dx, np.where(x > 0, plain, 0))
    np.testing.assert_array_equal(dw, same)


def test_errors() -> None:
    x, w, dy = np.ones((2, 3)), np.ones((4, 3)), np.ones((2, 4))
    with pytest.raises(ValueError, match=r"whose output tells.* 'gelu'"):
        F.dense_backward(dy, F.FromActivation(x, "gelu"), w)
    with pytest.raises(ValueError, match="activation must be"):
        F.dense_backward(dy, F.FromActivation(x, "softmax"), w)
    with pytest.raises(ValueError, match=r"whose output tells.* 'gelu'"):
        F.dense_backward(dy, F.FromActivation(np.asfortranarray(x), "gelu"), w)
    with pytest.raises(TypeError, match=r"real numbers.*complex128"):
        F.dense_backward(dy, F.FromActivation(x + 0j), w)

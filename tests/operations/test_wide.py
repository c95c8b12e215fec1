"""Convolutions of 16-bit numbers that give float32: what their sums are, not rounded."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Problem
from gpucnn.backends.cuda.plans import choose, ranked
from gpucnn.layers.base import inference_mode
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import CONVS, DTYPES, in_layout, random
from tests.conftest import make_backend
from tests.operations.conftest import poisoned
from tests.operations.test_epilogue import OWN
from tests.tolerance import assert_close

BFLOAT16 = DTYPES["bfloat16"]


def solved(s: ConvShape) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """x, w, b and a residual in bfloat16; the sums in float64, and the size of their terms."""
    sizes = {"x": s.x_shape, "w": s.w_shape, "b": (s.filters,), "residual": s.y_shape}
    arrays = tuple(random(name, size, BFLOAT16) for name, size in sizes.items())
    y = reference.conv_fprop(*arrays[:3], s) + arrays[3]
    return arrays, y, reference.conv_fprop(*map(np.abs, arrays[:3]), s) + np.abs(arrays[3])


def assert_wide(y: np.ndarray, want: np.ndarray, terms: np.ndarray, s: ConvShape) -> None:
    """As exact as float32: no number of 16 bits is."""
    reduction = s.taps * s.channels // s.groups + 2
    assert y.dtype == np.float32
    assert_close(y, want, dtype=np.float32, reduction=reduction, magnitude=1.8 * terms + 1)


@pytest.mark.parametrize(
    ("name", "channels_last"), [("plain", True), ("plain", False), ("depthwise", True)]
)
def test_whatever_the_algorithm(every_backend: Backend, name: str, channels_last: bool) -> None:
    s, run = replace(CONVS[name], channels_last=channels_last), every_backend
    (x, w, b, residual), y, terms = solved(CONVS[name])
    x, residual, y, terms = (in_layout(a, channels_last) for a in (x, residual, y, terms))
    given = [run.asarray(a) for a in (x, w, b, residual)]
    for kind in ("linear", "relu", "softplus"):
        with poisoned(run.xp):
            got = run.conv_fprop(*given[:3], s, kind, "strict", 0.0, given[3], "float32")
        want = y if kind == "linear" else reference.activation_forward(y, kind, 0.0)
        assert_wide(run.to_numpy(got), want, terms, s)
    empty = run.conv_fprop(
        given[0][:0], *given[1:3], replace(s, batch=0), "linear", "strict", 0.0, None, "float32"
    )
    assert empty.dtype == np.float32 and empty.shape == (0, *s.y_shape[1:])


@pytest.mark.parametrize(
    ("algorithm", "case"),
    [("implicit_gemm", "vectors_strided"), ("mma", "split_sums"), ("mma", "vectors_dilated"),
     ("mma_padded", "plain"), ("wgmma", "wgmma")],
)  # fmt: skip
def test_each_algorithm(algorithm: str, case: str) -> None:
    """Of whole sums and of split ones."""
    backend, s = make_backend("emulated"), (CONVS | OWN)[case]
    (x, w, b, residual), y, terms = solved(s)
    problem = Problem("fprop", s, "bfloat16", "silu", residual=True, wide=True)
    plans = [plan for plan in ALGORITHMS[algorithm].plans(problem)
             if ALGORITHMS[algorithm].fuses(problem, plan)]  # fmt: skip
    for plan in (plans[0], plans[-1]):
        with poisoned(np):
            got = backend.run_plan(problem, plan, x, w, b, residual)
        assert_wide(got, reference.activation_forward(y, "silu", 0.0), terms, s)


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_there_is_always_a_plan_that_does_not_round(name: str, dtype: str) -> None:
    problem = Problem("fprop", CONVS[name], dtype, wide=True)
    if 0 not in CONVS[name].y_shape:
        assert all(ALGORITHMS[plan.algorithm].fuses(problem, plan) for plan in ranked(problem))
        assert choose(problem).algorithm not in ("direct", "depthwise", "grouped")


def test_its_gradients_are_those_of_what_is_rounded(every_backend: Backend) -> None:
    """dy of float32 is rounded to nearest, ties to even, and no more."""
    run = every_backend
    x, w = (run.asarray(random(n, size, BFLOAT16)) for n, size in (("x", (5, 9)), ("w", (7, 9))))
    dy = random("dy", (5, 7), np.float32)
    dy.view(np.uint32)[0] = dy.view(np.uint32)[0] & 0xFFFF0000 | 0x8000  # half way
    wide = F.dense_backward(run.asarray(dy), x, w)
    narrow = F.dense_backward(run.asarray(dy.astype(BFLOAT16)), x, w)
    for ours, theirs in zip(wide, narrow, strict=True):
        assert ours.dtype == BFLOAT16
        assert run.to_numpy(ours).tobytes() == run.to_numpy(theirs).tobytes()


def test_dense_gives_logits_in_float32(every_backend: Backend) -> None:
    layers = [gpucnn.Dense(8, "relu"), gpucnn.Dense(5, out_dtype="float32", name="logits")]
    with gpucnn.use_backend(every_backend):
        model = gpucnn.Sequential(layers, input_shape=(12,), dtype="bfloat16")
        x = every_backend.asarray(random("x", (6, 12), BFLOAT16))
        logits = model.forward(x, training=True)
        hidden, last = (layer.params for layer in layers)
        assert logits.dtype == np.float32 and last["kernel"].dtype == BFLOAT16
        with inference_mode():
            h = F.dense_forward(x, hidden["kernel"], hidden["bias"], activation="relu")
        as_float = [every_backend.to_numpy(a).astype(np.float64) for a in (h, *last.values())]
        want = as_float[0] @ as_float[1].T + as_float[2]
        assert_close(every_backend.to_numpy(logits), want, dtype=np.float32, reduction=9)
        loss, dlogits, _ = gpucnn.losses.CrossEntropy().measure(
            logits, every_backend.asarray(np.arange(6) % 5)
        )
        dx = model.backward(dlogits)
        assert (loss.dtype, dlogits.dtype, dx.dtype) == (np.float32, np.float32, BFLOAT16)
        frozen = model.freeze()(x)
        assert frozen.dtype == np.float32
        ours, theirs = map(every_backend.to_numpy, (frozen, logits))
        np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.02)
        assert model.astype("float32").forward(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "behind",
    [
        [gpucnn.Softmax()],
        [gpucnn.LogSoftmax()],
        [gpucnn.Reshape((2, 2)), gpucnn.Tanh()],
        [gpucnn.Sequential([gpucnn.Softmax()])],
        [gpucnn.Residual([gpucnn.Tanh()])],
    ],
    ids=lambda layers: layers[-1].name,
)
def test_what_is_behind_logits_has_their_dtype(behind, dtype: str) -> None:
    """Sums beyond the largest float16 among them."""
    layers = [gpucnn.Dense(4), gpucnn.Dense(4, out_dtype="float32"), *copy.deepcopy(behind)]
    model = gpucnn.Sequential(layers, input_shape=(6,), dtype=dtype)
    model.layers[0].params["kernel"][:] = 1
    model.layers[1].params["kernel"][:2] = 3e4
    x = random("x", (3, 6), DTYPES[dtype])
    want, got = model.predict(x), model.freeze()(x)
    assert got.dtype == want.dtype == np.float32 and np.isfinite(got).all()
    np.testing.assert_allclose(got, want, rtol=0.02, atol=0.02)


def test_no_norm_and_no_sum_behind_it_goes_along() -> None:
    wide, norm = gpucnn.Dense(5, out_dtype="float32"), gpucnn.BatchNorm()
    with pytest.raises(TypeError, match=r"BatchNorm 'batch_norm.*: the parameters are bfloat16"):
        gpucnn.Sequential([wide, norm], input_shape=(4,), dtype="bfloat16").forward(
            np.ones((2, 4), BFLOAT16)
        )
    model = gpucnn.Sequential(
        [gpucnn.Dense(5), gpucnn.BatchNorm()], input_shape=(4,), dtype="bfloat16"
    )
    model.forward(np.ones((2, 4), BFLOAT16), training=True)
    model.layers[0].out_dtype = "float32"  # the plan is made anew
    with pytest.raises(TypeError, match=r"BatchNorm 'batch_norm.*: the parameters are bfloat16"):
        model.forward(np.ones((2, 4), BFLOAT16), training=True)


def test_errors() -> None:
    x, w = np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)
    assert F.dense_forward(x, w, out_dtype="float32").dtype == np.float32
    assert F.dense_forward(x.astype("f2"), w.astype("f2"), out_dtype=np.float32).dtype == np.float32
    with pytest.raises(
        ValueError, match=r"dense: out_dtype must be None.*Received: .*'float64' for"
    ):
        F.dense_forward(x, w, out_dtype="float64")
    with pytest.raises(ValueError, match="Received: out_dtype='float16' for bfloat16"):
        F.dense_forward(x.astype(BFLOAT16), w.astype(BFLOAT16), out_dtype="float16")
    with pytest.raises(ValueError, match="Dense 'dense': out_dtype must be one of None, 'float32'"):
        gpucnn.Dense(3, out_dtype="bfloat16")

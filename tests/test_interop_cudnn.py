"""The drop-in for cupy.cudnn: convolution, pooling, activation and softmax, against the reference.

Some cases run on the CUDA backend in the emulator, too: what is special to the drop-in is what it
does with arrays, not how they are computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpucnn.backends import use_backend
from gpucnn.backends.base import Backend
from gpucnn.interop import cudnn
from gpucnn.shapes import ConvShape, PoolShape

from . import reference
from .cases import random
from .tolerance import assert_close

DTYPES = ["float16", "float32", "float64"]


@pytest.fixture
def on_numpy() -> Iterator[Backend]:
    with use_backend("numpy") as backend:
        yield backend


every_dtype = pytest.mark.parametrize("dtype", DTYPES)
MODES = {"auto_tune": True, "tensor_core": "auto"}
GRADIENT = {"auto_tune": False, "tensor_core": "never", "deterministic": True}

# ---- convolution -------------------------------------------------------------------------------

# x (N, C, *size), W (K, C / groups, *window), pad, stride, dilation, groups
CONVS: dict[str, tuple[Any, ...]] = {
    "plain": ((2, 3, 6, 7), (4, 3, 3, 2), (0, 0), (1, 1), (1, 1), 1),
    "full": ((1, 2, 4, 5), (3, 2, 3, 4), (2, 3), (1, 1), (1, 1), 1),
    "everything": ((2, 4, 9, 11), (6, 2, 3, 2), (1, 2), (2, 3), (2, 1), 2),
    "depthwise": ((1, 5, 8, 7), (5, 1, 3, 3), (1, 1), (2, 1), (1, 1), 5),
    "inputs left over": ((1, 2, 8, 9), (3, 2, 2, 3), (0, 0), (3, 4), (1, 1), 1),
    "1d": ((2, 4, 13), (6, 2, 3), (2,), (2,), (1,), 2),
    "3d": ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), (0, 1, 1), (1, 2, 1), (1, 1, 1), 1),
    "3d everything": ((2, 4, 5, 6, 7), (4, 2, 2, 3, 2), (1, 0, 1), (2, 1, 3), (1, 2, 2), 2),
}


def convolution(name: str, dtype: str, nhwc: bool = False) -> SimpleNamespace:
    """Arrays in CuPy's layouts, exact results, sums of the terms' magnitudes, and the arguments."""
    x_shape, w_shape, pad, stride, dilation, groups = CONVS[name]
    s = ConvShape.of(
        x_shape, (w_shape[0], *w_shape[2:], w_shape[1]), strides=stride,
        padding=pad, dilation=dilation, groups=groups, channels_last=False,
    )  # fmt: skip
    s = replace(s, channels_last=nhwc)
    x, dy = (random(f"{name} x", shape, dtype) for shape in (s.x_shape, s.y_shape))
    w, b = random(f"{name} w", s.w_shape, dtype), random(f"{name} b", (s.filters,), dtype)
    b_dx = random(f"{name} b_dx", (s.channels,), dtype)
    ax, aw, ab, ab_dx, ady = map(np.abs, (x, w, b, b_dx, dy))
    kcrs = w if nhwc else np.ascontiguousarray(np.moveaxis(w, -1, 1))
    y, y_terms = reference.conv_fprop(x, w, b, s), reference.conv_fprop(ax, aw, ab, s)
    dx, dx_terms = reference.conv_dgrad(dy, w, b_dx, s), reference.conv_dgrad(ady, aw, ab_dx, s)
    dw, dw_terms = (
        a if nhwc else np.moveaxis(a, -1, 1)
        for a in (reference.conv_wgrad(x, dy, s), reference.conv_wgrad(ax, ady, s))
    )
    layout = {"d_layout": cudnn.CUDNN_TENSOR_NHWC, "w_layout": cudnn.CUDNN_TENSOR_NHWC}
    return SimpleNamespace(
        x=x, W=kcrs, b=b, b_dx=b_dx, gy=dy, y=y, dx=dx, dw=dw, dtype=np.dtype(dtype),
        close_y={"reduction": s.taps * s.channels // groups + 1, "magnitude": y_terms},
        close_dx={"reduction": s.taps * s.filters // groups + 1, "magnitude": dx_terms},
        close_dw={"reduction": s.batch * math.prod(s.output), "magnitude": dw_terms},
        arguments=(pad, stride, dilation, groups), layout=layout if nhwc else {},
    )  # fmt: skip


def forgotten(backend: Any, exact: np.ndarray, dtype: Any) -> Any:
    """Return an output of which every element that is not written will show."""
    return backend.asarray(np.full(exact.shape, np.nan, dtype))


def check_convolution(backend: Any, p: SimpleNamespace) -> None:
    x, W, b, b_dx, gy = map(backend.asarray, (p.x, p.W, p.b, p.b_dx, p.gy))
    y, gx, gW = (forgotten(backend, exact, p.dtype) for exact in (p.y, p.dx, p.dw))
    for result in (
        cudnn.convolution_forward(x, W, b, y, *p.arguments, **MODES, **p.layout),
        cudnn.convolution_backward_data(W, gy, b_dx, gx, *p.arguments, **GRADIENT, **p.layout),
        cudnn.convolution_backward_filter(x, gy, gW, *p.arguments, **GRADIENT, **p.layout),
    ):
        assert result is None
    assert_close(backend.to_numpy(y), p.y, dtype=p.dtype, **p.close_y)
    assert_close(backend.to_numpy(gx), p.dx, dtype=p.dtype, **p.close_dx)
    assert_close(backend.to_numpy(gW), p.dw, dtype=p.dtype, **p.close_dw)


@every_dtype
@pytest.mark.parametrize("name", CONVS)
def test_convolution(on_numpy, name, dtype):
    check_convolution(on_numpy, convolution(name, dtype))


@every_dtype
@pytest.mark.parametrize("name", [name for name in CONVS if name[1] != "d"])
def test_convolution_with_channels_last(on_numpy, name, dtype):
    check_convolution(on_numpy, convolution(name, dtype, nhwc=True))


@pytest.mark.parametrize("nhwc", [False, True])
def test_convolution_on_every_backend(backend, nhwc):
    check_convolution(backend, convolution("everything", "float32", nhwc))


def test_no_bias_and_no_dilation():
    p = convolution("plain", "float64")
    pad, stride, _, groups = p.arguments
    with_bias, without, gx, gx_biased = (np.empty(a.shape) for a in (p.y, p.y, p.dx, p.dx))
    cudnn.convolution_forward(p.x, p.W, p.b, with_bias, *p.arguments, **MODES)
    cudnn.convolution_forward(p.x, p.W, None, without, pad, stride, None, groups, **MODES)
    np.testing.assert_allclose(with_bias - without, np.zeros_like(p.y) + p.b.reshape(-1, 1, 1))
    cudnn.convolution_backward_data(p.W, p.gy, None, gx, *p.arguments, **GRADIENT)
    b_dx = p.b_dx.reshape(1, -1, 1, 1)  # any shape of C numbers
    cudnn.convolution_backward_data(p.W, p.gy, b_dx, gx_biased, *p.arguments, **GRADIENT)
    np.testing.assert_allclose(gx_biased - gx, np.zeros_like(p.dx) + b_dx)


@pytest.mark.parametrize("name", ["everything", "3d everything"])
def test_inputs_of_any_strides(backend, name):
    p = convolution(name, "float32")

    def view(array: np.ndarray) -> Any:
        """The same numbers, from behind, every second place of memory."""
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::-2] = array
        return backend.asarray(wide)[..., ::-2]

    p.x, p.W, p.b, p.b_dx, p.gy = map(view, (p.x, p.W, p.b, p.b_dx, p.gy))
    assert p.W.strides[-1] < 0
    y, gx, gW = (forgotten(backend, exact, p.dtype) for exact in (p.y, p.dx, p.dw))
    cudnn.convolution_forward(p.x, p.W, p.b, y, *p.arguments, **MODES)
    cudnn.convolution_backward_data(p.W, p.gy, p.b_dx, gx, *p.arguments, **GRADIENT)
    cudnn.convolution_backward_filter(p.x, p.gy, gW, *p.arguments, **GRADIENT)
    assert_close(backend.to_numpy(y), p.y, dtype=p.dtype, **p.close_y)
    assert_close(backend.to_numpy(gx), p.dx, dtype=p.dtype, **p.close_dx)
    assert_close(backend.to_numpy(gW), p.dw, dtype=p.dtype, **p.close_dw)


# ---- pooling -----------------------------------------------------------------------------------

POOLING = {
    "max": cudnn.CUDNN_POOLING_MAX,
    "max deterministic": cudnn.CUDNN_POOLING_MAX_DETERMINISTIC,
    "include": cudnn.CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING,
    "exclude": cudnn.CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING,
}
every_mode = pytest.mark.parametrize("mode", POOLING)

# x, ksize, stride, pad, and the outputs' size
POOLS: dict[str, tuple[Any, ...]] = {
    "plain": ((2, 3, 6, 7), (2, 3), (2, 2), (0, 0), (3, 3)),
    "padded": ((1, 4, 7, 8), (3, 4), (2, 1), (1, 2), (4, 9)),
    "padding of all but one": ((1, 2, 5, 6), (3, 4), (2, 3), (2, 3), (4, 3)),
    "cover all": ((2, 3, 8, 9), (3, 2), (2, 4), (0, 1), (4, 3)),
    "cover all padded": ((1, 2, 6, 7), (3, 3), (2, 3), (1, 1), (4, 3)),
    "1d": ((2, 3, 11), (3,), (2,), (1,), (6,)),
    "3d": ((1, 2, 4, 5, 6), (2, 3, 2), (2, 1, 3), (1, 1, 0), (3, 5, 2)),
}


def windows(x: np.ndarray, name: str) -> np.ndarray:
    """The windows of a pool, (N, C, *output, taps), with NaN for what is no input."""
    _, ksize, stride, pad, out = POOLS[name]
    ends = [(before, r * s) for before, r, s in zip(pad, ksize, out, strict=True)]
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *ends], constant_values=np.nan)
    view = np.lib.stride_tricks.sliding_window_view(x, ksize, tuple(range(2, x.ndim)))
    places = (slice(None, count * step, step) for count, step in zip(out, stride, strict=True))
    return view[(..., *places, *(slice(None),) * len(ksize))].reshape(*x.shape[:2], *out, -1)


def pooled(x: np.ndarray, name: str, mode: str) -> np.ndarray:
    under = windows(x, name)
    if mode.startswith("max"):
        return np.fmax.reduce(under, axis=-1)
    return np.nanmean(under, -1) if mode == "exclude" else np.nansum(under, -1) / under.shape[-1]


def pool_geometry(name: str, mode: str) -> PoolShape:
    x_shape, ksize, stride, pad, out = POOLS[name]
    axes = zip(x_shape[2:], out, ksize, stride, pad, strict=True)
    pairs = tuple((p, max(p, (o - 1) * s + r - p - size)) for size, o, r, s, p in axes)
    return PoolShape.of(
        x_shape, ksize, strides=stride, padding=pairs, rank=len(ksize), channels_last=False,
        mode="max" if mode.startswith("max") else "average", count_padding=mode == "include",
    )  # fmt: skip


def check_pooling(backend: Any, name: str, mode: str, dtype: str) -> None:
    x_shape, ksize, stride, pad, out = POOLS[name]
    arguments = (ksize, stride, pad, POOLING[mode])
    host, taps = random(f"{name} x", x_shape, dtype), math.prod(ksize)
    exact, terms = pooled(host, name, mode), pooled(np.abs(host), name, mode)
    x, y = backend.asarray(host), forgotten(backend, exact, dtype)
    assert cudnn.pooling_forward(x, y, *arguments) is y
    close = {"dtype": np.dtype(dtype), "reduction": taps + 1}
    assert_close(backend.to_numpy(y), exact, magnitude=terms, **close)

    s = pool_geometry(name, mode)
    assert s.output == out
    gy = random(f"{name} gy", exact.shape, dtype)
    index = reference.pool_forward(host, s)[1] if s.mode == "max" else None
    gx = cudnn.pooling_backward(x, y, backend.asarray(gy), *arguments)
    exact, terms = (reference.pool_backward(g, index, s) for g in (gy, np.abs(gy)))
    assert gx.flags.c_contiguous
    assert_close(backend.to_numpy(gx), exact, magnitude=terms, **close)


@every_dtype
@every_mode
@pytest.mark.parametrize("name", POOLS)
def test_pooling(on_numpy, name, mode, dtype):
    check_pooling(on_numpy, name, mode, dtype)


@every_mode
def test_pooling_on_every_backend(backend, mode):
    check_pooling(backend, "cover all padded", mode, "float32")


def test_a_maximum_passes_by_nan_and_an_average_does_not(backend):
    x = backend.asarray(np.array([[[[np.nan, 2, np.nan, np.nan], [1, 0, np.nan, np.nan]]]]))
    gy = backend.asarray(np.array([[[[5.0, 7.0]]]]))
    arguments = ((2, 2), (2, 2), (0, 0))
    y = backend.asarray(np.zeros((1, 1, 1, 2)))
    cudnn.pooling_forward(x, y, *arguments, cudnn.CUDNN_POOLING_MAX)
    assert backend.to_numpy(y).tolist() == [[[[2, -np.inf]]]]
    gx = cudnn.pooling_backward(x, y, gy, *arguments, cudnn.CUDNN_POOLING_MAX)
    assert backend.to_numpy(gx).tolist() == [[[[0, 5, 7, 0], [0, 0, 0, 0]]]]
    cudnn.pooling_forward(x, y, *arguments, POOLING["include"])
    assert np.isnan(backend.to_numpy(y)).all()


@every_mode
def test_pooling_inputs_of_any_strides(mode):
    x = random("x", (3, 7, 6, 2), "float32").T  # (2, 6, 7, 3)
    gy = random("gy", (2, 6, 3, 1), "float32")[:, :, ::-1]
    y, same = np.empty_like(gy, order="C"), np.empty_like(gy, order="C")
    arguments = ((3, 3), (2, 2), (0, 0), POOLING[mode])
    cudnn.pooling_forward(x, y, *arguments)
    cudnn.pooling_forward(x.copy(), same, *arguments)
    assert (y == same).all()
    gx = cudnn.pooling_backward(x, y, gy, *arguments)
    assert (gx == cudnn.pooling_backward(x.copy(), y, gy.copy(), *arguments)).all()


# ---- activations and softmax -------------------------------------------------------------------

COEF = 0.1  # which float16 and float32 have to round
ACTIVATIONS = {
    "sigmoid": cudnn.CUDNN_ACTIVATION_SIGMOID,
    "relu": cudnn.CUDNN_ACTIVATION_RELU,
    "tanh": cudnn.CUDNN_ACTIVATION_TANH,
    "clipped_relu": cudnn.CUDNN_ACTIVATION_CLIPPED_RELU,
    "elu": cudnn.CUDNN_ACTIVATION_ELU,
}
ROUNDINGS = 20  # as in tests/operations/test_activation.py


@every_dtype
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activation(backend, kind, dtype):
    mode, coef = ACTIVATIONS[kind], COEF
    if kind == "clipped_relu":  # which is what y is above it
        coef = float(np.dtype(dtype).type(COEF))
    x, gy = random("x", (3, 5, 7), dtype, -2, 2), random("gy", (3, 5, 7), dtype)
    view = backend.asarray(x.T.copy()).T
    y = cudnn.activation_forward(view, mode, COEF)
    gx = cudnn.activation_backward(view, y, backend.asarray(gy), mode, COEF)
    assert y.flags.c_contiguous and gx.flags.c_contiguous
    y, gx = backend.to_numpy(y), backend.to_numpy(gx)
    close = {"dtype": np.dtype(dtype), "reduction": ROUNDINGS}
    exact = reference.activation_forward(x, kind, coef)
    assert_close(y, exact, magnitude=np.maximum(1, np.abs(exact)), **close)
    exact = reference.activation_backward(gy, y, kind, coef)
    assert_close(gx, exact, magnitude=2 * np.abs(gy.astype(np.float64)), **close)
    if kind == "clipped_relu":
        assert (x > COEF).any() and (gx[x > COEF] == 0).all()


def test_an_activation_of_no_axes():
    y = cudnn.activation_forward(np.array(2.0), ACTIVATIONS["relu"])
    assert (y.shape, float(y)) == ((), 2.0)


def test_the_coefficient_is_not_read_where_there_is_none():
    x = random("x", (3, 5), "float32", -2, 2)
    for kind in ("sigmoid", "relu", "tanh"):
        y = cudnn.activation_forward(x, ACTIVATIONS[kind])
        assert (y == cudnn.activation_forward(x, ACTIVATIONS[kind], coef=-3.0)).all()


SOFTMAX = {
    cudnn.CUDNN_SOFTMAX_FAST: False,
    cudnn.CUDNN_SOFTMAX_ACCURATE: False,
    cudnn.CUDNN_SOFTMAX_LOG: True,
}


@every_dtype
@pytest.mark.parametrize("algorithm", SOFTMAX)
@pytest.mark.parametrize(
    ("shape", "axis"), [((7,), 0), ((4, 9), 1), ((4, 9), -1), ((5, 3), 0), ((2, 5, 3, 4), 1)]
)
def test_softmax(on_numpy, shape, axis, algorithm, dtype):
    x, gy = random("x", shape, dtype, -5, 5), random("gy", shape, dtype)
    log = SOFTMAX[algorithm]
    y = cudnn.softmax_forward(x.T.copy().T, axis=axis, algorithm=algorithm)
    gx = cudnn.softmax_backward(y, gy, axis=axis, algorithm=algorithm)
    assert y.flags.c_contiguous and gx.flags.c_contiguous
    x, y, gy, gx = (np.moveaxis(a, axis, -1).reshape(-1, shape[axis]) for a in (x, y, gy, gx))
    close = {"dtype": np.dtype(dtype), "reduction": ROUNDINGS + shape[axis]}
    assert_close(y, reference.softmax_forward(x, log), magnitude=10 if log else 1, **close)
    terms = np.abs(gy.astype(np.float64)).sum(-1, keepdims=True) + np.zeros(y.shape)
    assert_close(gx, reference.softmax_backward(gy, y, log), magnitude=terms, **close)

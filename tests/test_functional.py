"""Functions on arrays: what they accept and refuse, and what layers do not reach."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as T

from gpucnn import functional as F
from gpucnn.shapes import ConvShape


def numbers(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("complex"):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


# ---- complex convolution -----------------------------------------------------------------------


def naive_complex_conv(x, w, b, strides, pads, dilation, groups):
    """y[n, p, q, k] by its definition, in loops: x (N, H, W, C), w (K, R, S, C / groups)."""
    (n, _, _, c), (k, r, s, _) = x.shape, w.shape
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    p = (x.shape[1] - dilation[0] * (r - 1) - 1) // strides[0] + 1
    q = (x.shape[2] - dilation[1] * (s - 1) - 1) // strides[1] + 1
    y = np.zeros((n, p, q, k), np.complex128)
    for i, j, f in itertools.product(range(p), range(q), range(k)):
        group = slice(f // (k // groups) * (c // groups), (f // (k // groups) + 1) * (c // groups))
        for u, v in itertools.product(range(r), range(s)):
            row, column = i * strides[0] + u * dilation[0], j * strides[1] + v * dilation[1]
            y[:, i, j, f] += (x[:, row, column, group] * w[f, u, v]).sum(-1)
    return y + b


GEOMETRY = {"strides": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2), "groups": 2}
KINDS = [("complex128", "complex128"), ("complex128", "float64"), ("float64", "complex128")]


@pytest.mark.parametrize(("x_dtype", "w_dtype"), KINDS)
def test_complex_convolution_is_its_definition(backend, x_dtype, w_dtype):
    x, w = numbers(2, 7, 6, 4, dtype=x_dtype), numbers(6, 3, 2, 2, seed=1, dtype=w_dtype)
    b = numbers(6, seed=2, dtype="complex128")
    y = F.conv_forward(*map(backend.asarray, (x, w, b)), **GEOMETRY)
    expected = naive_complex_conv(x, w, b, *GEOMETRY.values())
    assert y.dtype == np.complex128
    np.testing.assert_allclose(backend.to_numpy(y), expected, rtol=1e-12, atol=1e-12)


def torch_gradients(function, dy, *arrays):
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    y = function(*leaves)
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("x_dtype", "w_dtype"), KINDS)
def test_complex_gradients_agree_with_torch(backend, x_dtype, w_dtype, data_format):
    x, w = numbers(2, 7, 6, 4, dtype=x_dtype), numbers(6, 3, 2, 2, seed=1, dtype=w_dtype)
    b, dy = numbers(6, seed=2, dtype="complex128"), numbers(2, 3, 6, 6, seed=3, dtype="complex128")

    def same(x, w, b):  # torch convolves complex with complex alone
        x = T.pad(x.to(torch.complex128).movedim(-1, 1), (0, 2, 1, 0))
        w = w.to(torch.complex128).movedim(-1, 1)
        return T.conv2d(x, w, b, (2, 1), dilation=(1, 2), groups=2).movedim(1, -1)

    expected = torch_gradients(same, dy, x, w, b)
    channels = -1 if data_format == "channels_last" else 1
    x, dy = (backend.asarray(np.moveaxis(a, -1, channels)) for a in (x, dy))
    w, b = backend.asarray(w), backend.asarray(b)
    y = F.conv_forward(x, w, b, **GEOMETRY, data_format=data_format)
    dx, dw, db = F.conv_backward(dy, x, w, **GEOMETRY, data_format=data_format)
    assert dx.dtype == x_dtype and dw.dtype == w_dtype
    y, dx = (np.moveaxis(backend.to_numpy(a), channels, -1) for a in (y, dx))
    ours = y, dx, backend.to_numpy(dw), backend.to_numpy(db)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_complex_transposed_convolution_agrees_with_torch(backend):
    x, w = numbers(2, 4, 3, 4, dtype="complex128"), numbers(4, 3, 2, 2, seed=1, dtype="complex128")
    b, dy = numbers(4, seed=2, dtype="complex128"), numbers(2, 9, 6, 4, seed=3, dtype="complex128")

    def same(x, w, b):
        y = T.conv_transpose2d(x.movedim(-1, 1), w.movedim(-1, 1), b, 2, groups=2)
        return y.movedim(1, -1)

    expected = torch_gradients(same, dy, x, w, b)
    x, w, b, dy = map(backend.asarray, (x, w, b, dy))
    y = F.conv_transpose_forward(x, w, b, strides=2, groups=2)
    gradients = F.conv_transpose_backward(dy, x, w, strides=2, groups=2)
    for ours, theirs in zip((y, *gradients), expected, strict=True):
        np.testing.assert_allclose(backend.to_numpy(ours), theirs, rtol=1e-12, atol=1e-12)


def test_complex64_stays_complex64_and_dense_layers_take_it():
    x, w = numbers(3, 5, dtype="complex64"), numbers(4, 5, seed=1, dtype="complex64")
    y = F.dense_forward(x, w)
    assert y.dtype == np.complex64
    np.testing.assert_allclose(y, x @ w.T, rtol=1e-5)
    dx, dw, db = F.dense_backward(y, x, w)
    assert dx.dtype == dw.dtype == db.dtype == np.complex64
    np.testing.assert_allclose(dx, y @ w.conj(), rtol=1e-5)
    np.testing.assert_allclose(dw, y.T @ x.conj(), rtol=1e-5)


def test_an_infinite_real_part_leaves_the_imaginary_part_alone():
    x = np.array([[[complex(np.inf, 2.0)]]])
    assert F.conv_forward(x, np.ones((1, 1, 1)))[0, 0, 0] == complex(np.inf, 2.0)


# ---- a convolution and its mask ------------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kind", ["relu", "clipped_relu"])
def test_a_mask_of_a_convolution_stands_for_its_output(kind, data_format):
    x, w, b = numbers(4, 40, 40, 40), numbers(24, 3, 3, 40, seed=1), numbers(24, seed=2)
    options = {"padding": "same", "data_format": data_format, "activation": kind, "alpha": 2.5}
    y, mask = F.conv_forward_masked(x, w, b, **options)
    np.testing.assert_array_equal(y, F.conv_forward(x, w, b, **options))
    dy = numbers(*y.shape, seed=3)
    dx = F.activation_backward(dy, y, kind, alpha=2.5)
    np.testing.assert_array_equal(F.activation_backward(dy, mask), dx)


def test_a_mask_of_a_dense_layer_stands_for_its_output():
    x, w, residual = numbers(30, 40, 7), numbers(24, 7, seed=1), numbers(30, 40, 24, seed=2)
    y, mask = F.dense_forward_masked(x, w, residual=residual, activation="leaky_relu")
    dense = F.dense_forward(x, w, residual=residual, activation="leaky_relu")
    np.testing.assert_array_equal(y, dense)
    dy = numbers(*y.shape, seed=3)
    dx = F.activation_backward(dy, y, "leaky_relu")
    np.testing.assert_array_equal(F.activation_backward(dy, mask), dx)
    assert F.dense_forward_masked(x[:2], w)[1] is None  # which is worth no pass


# ---- a convolution and the pooling behind it ----------------------------------------------------


def whole(*shape: int, seed: int) -> np.ndarray:
    """-1, 0 and 1: every sum is exact, and many are equal."""
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


@pytest.mark.parametrize("needs_dx", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_convolution_with_its_pooling_agrees_with_torch(
    backend, data_format, ceil_mode, needs_dx
):
    x, w, b = whole(2, 8, 10, 3, seed=0), whole(6, 3, 3, 3, seed=1), whole(6, seed=2)
    dy = whole(2, 3 + ceil_mode, 4, 6, seed=3)

    def same(x, w, b):
        x = T.pad(x.movedim(-1, 1), (0, 0, 1, 0))  # 7 x 8 outputs
        y = T.conv2d(x, w.movedim(-1, 1), b).relu()
        return T.max_pool2d(y, 2, ceil_mode=ceil_mode).movedim(1, -1)

    w_given, b_given = backend.asarray(w), backend.asarray(b)
    channels = -1 if data_format == "channels_last" else 1
    geometry = {
        "padding": ((1, 0), (0, 0)), "activation": "relu", "data_format": data_format,
        "ceil_mode": ceil_mode,
    }  # fmt: skip
    x_given, dy_given = (backend.asarray(np.moveaxis(a, -1, channels)) for a in (x, dy))
    expected = torch_gradients(same, dy, x, w, b)
    y, index = F.conv_pool_forward(x_given, w_given, b_given, **geometry)
    dx, dw, db = F.conv_pool_backward(
        dy_given, y, index, x_given, w_given, needs_dx=needs_dx, **geometry
    )
    assert (dx is None) == (not needs_dx)
    ours = [np.moveaxis(backend.to_numpy(y), channels, -1)]
    ours += [np.moveaxis(backend.to_numpy(dx), channels, -1) if needs_dx else expected[1]]
    for one, other in zip([*ours, *map(backend.to_numpy, (dw, db))], expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_a_convolution_with_its_batch_norm_is_both(backend, data_format, activation):
    last = data_format == "channels_last"
    x, w = numbers(2, 7, 6, 4) if last else numbers(2, 4, 7, 6), numbers(6, 3, 2, 4, seed=1)
    x, w, b, gamma, beta, mean = map(
        backend.asarray, (x, w, *(numbers(6, seed=seed) for seed in range(2, 6)))
    )
    norm, options = (gamma, beta, mean, mean * mean), {"epsilon": 0.1, "activation": activation}
    geometry = {"strides": (2, 1), "padding": 1, "data_format": data_format}
    z = F.conv_forward(x, w, b, **geometry)
    expected = F.batch_norm_infer(z, *norm, axis=-1 if last else 1, **options)
    y = F.conv_norm_infer(x, w, b, *norm, **options, **geometry)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(expected))
    if last:
        matrix = backend.arranged(w[:, 0, 0])
        expected = F.batch_norm_infer(F.dense_forward(x, matrix, b), *norm, **options)
        y = F.dense_norm_infer(x, matrix, b, *norm, **options)
        np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(expected))


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_a_convolution_with_its_batch_norm_and_a_pool_is_all_three(backend, activation):
    x, w, b = (backend.asarray(numbers(*a)) for a in ((2, 7, 6, 4), (6, 3, 2, 4), (6,)))
    gamma, beta, mean = (backend.asarray(numbers(6, seed=seed)) for seed in range(3, 6))
    norm, options = (gamma, beta, mean, mean * mean + 1), {"activation": activation, "padding": 1}
    z = F.conv_norm_infer(x, w, b, *norm, **options)
    pool = F.pool_shape(z.shape, 2, mode="max")
    expected, _ = F.pool_forward(z, shape=pool)
    y = F.conv_norm_infer(x, w, b, *norm, pool=pool, **options)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(expected))
    other = F.pool_shape((2, 8, 8, 6), 2, mode="max")
    with pytest.raises(ValueError, match=r"conv_norm: pool must be .*\(2, 7, 7, 6\)\. Received: "):
        F.conv_norm_infer(x, w, b, *norm, pool=other, **options)


def test_shapes_at_hand_spare_the_keywords():
    x, w = whole(2, 9, 9, 1, seed=0), whole(4, 5, 5, 1, seed=1)
    shapes = F.conv_pool_shapes(x.shape, w.shape, 3, strides=2, pool_strides=1, mode="average")
    y, index = F.conv_pool_forward(x, w, shapes=shapes)
    assert index is None and y.shape == shapes[1].y_shape == (2, 1, 1, 4)
    z, _ = F.pool_forward(F.conv_forward(x, w, strides=2), 3, strides=1, mode="average")
    np.testing.assert_array_equal(y, z)
    dx, dw, db = F.conv_pool_backward(y, y, None, x, w, with_bias=False, shapes=shapes)
    assert dx.shape == x.shape and dw.shape == w.shape and db is None


# ---- geometry ----------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["valid", "same", ((1, 2),), 2])
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_transposed_convolution_undoes_the_size_of_a_convolution(
    padding, size, window, stride, dilation
):
    geometry = {"strides": stride, "padding": padding, "dilation": dilation}
    try:
        shape = F.conv_transpose_shape((2, size, 3), (3, window, 5), **geometry)
    except ValueError:  # all of it is cut away
        reach = dilation * (window - 1) + 1
        cut = {2: 4, ((1, 2),): 3}[padding]
        assert (size - 1) * stride + reach - cut < 1
        return
    assert shape.y_shape == (2, size, 3)
    assert F.conv_shape(shape.x_shape, (3, window, 5), **geometry).y_shape == (2, size, 3)
    if padding == "same":
        assert shape.x_shape == (2, size * stride, 5)


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_output_padding_adds_rows_behind(extra):
    x, w = numbers(1, 4, 2), numbers(2, 3, 3, seed=1)
    options = {"strides": 3, "padding": 1}
    y = F.conv_transpose_forward(x, w, output_padding=extra, **options)
    expected = T.conv_transpose1d(
        torch.tensor(x).movedim(-1, 1), torch.tensor(w).movedim(-1, 1), None, 3, 1, extra
    )
    np.testing.assert_allclose(y, expected.movedim(1, -1).numpy(), rtol=1e-12)


def test_a_ready_shape_stands_for_the_keywords():
    x, w = numbers(1, 7, 6, 3), numbers(4, 3, 3, 3, seed=1)
    shape = F.conv_shape(x.shape, w.shape, strides=2, padding=1)
    assert isinstance(shape, ConvShape)
    y = F.conv_forward(x, w, shape=shape)
    np.testing.assert_array_equal(y, F.conv_forward(x, w, strides=2, padding=1))
    for ours, again in zip(
        F.conv_backward(y, x, w, shape=shape),
        F.conv_backward(y, x, w, strides=2, padding=1),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, again)
    with pytest.raises(ValueError, match=r"conv: x must have the shape \(1, 7, 6, 3\)"):
        F.conv_forward(x[:, 1:], w, shape=shape)


def test_pool_backward_by_keywords_or_shape(backend):
    x = backend.asarray(numbers(2, 7, 6, 3))
    geometry = {"strides": 2, "padding": 1, "mode": "max"}
    y, index = F.pool_forward(x, 3, **geometry)
    one = F.pool_backward(y, index, x.shape, 3, **geometry)
    two = F.pool_backward(y, index, shape=F.pool_shape(x.shape, 3, **geometry))
    np.testing.assert_array_equal(backend.to_numpy(one), backend.to_numpy(two))
    assert F.pool_forward(x, 3, with_index=False, **geometry)[1] is None


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_filters_gradient_can_be_had_without_the_filters(dtype):
    x, w, dy = (numbers(*s, dtype=dtype) for s in ((1, 5, 5, 4), (6, 3, 3, 2), (1, 3, 3, 6)))
    shape = F.conv_shape(x.shape, w.shape, groups=2)
    _, expected, _ = F.conv_backward(dy, x, w, shape=shape)
    dx, dw, _ = F.conv_backward(dy, x, None, needs_dx=False, shape=shape)
    assert dx is None and (dw == expected).all()


def test_gradients_that_nobody_asks_for_are_none():
    x, w = numbers(1, 5, 3), numbers(2, 3, 3, seed=1)
    dx, _, db = F.conv_backward(numbers(1, 3, 2), x, w, with_bias=False, needs_dx=False)
    assert dx is None and db is None
    dx, _, db = F.dense_backward(numbers(1, 5, 2), x, w[:, 0], with_bias=False, needs_dx=False)
    assert dx is None and db is None


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_math_reaches_every_direction(dtype):
    """On small whole numbers "exact" has no rounding errors; F(4x4, 3x3) of "strict" has."""
    x, w = numbers(8, 8, 8, 16, dtype=dtype), numbers(16, 3, 3, 16, dtype=dtype, seed=1)
    x, w = np.round(2 * x), np.round(2 * w)
    wide = "complex128" if x.dtype.kind == "c" else "float64"
    sums = every_convolution(x.astype(wide), w.astype(wide), "exact")
    for expected, *got in zip(
        sums, every_convolution(x, w, "exact"), every_convolution(x, w, "strict"), strict=True
    ):
        assert [np.array_equal(part, expected) for part in got] == [True, False]


def every_convolution(x, w, math_mode):
    """Yield what has products in each direction of each kind of convolution."""
    options = {"padding": 1, "math": math_mode}
    yield F.conv_forward(x, w, **options)
    yield from F.conv_backward(x, x, w, with_bias=False, **options)[:2]
    yield F.conv_transpose_forward(x, w, **options)
    yield from F.conv_transpose_backward(x, x, w, with_bias=False, **options)[:2]
    if x.dtype.kind != "c":
        zeros, ones = np.zeros(16, x.dtype), np.ones(16, x.dtype)
        norm = ones, zeros, zeros, ones
        yield F.conv_norm_infer(x, w, None, *norm, epsilon=0.0, **options)
        y, index = F.conv_pool_forward(x, w, **options)
        yield y
        for needs_dx in (True, False):
            dx, dw, _ = F.conv_pool_backward(
                x[:, ::2, ::2], y, index, x, w, needs_dx=needs_dx, **options
            )
            yield from (dw,) if dx is None else (dx, dw)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 6.0])  # float16 has less, more, and as much
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_reaches_a_ceiling_has_no_slope(backend, dtype, alpha):
    x = backend.asarray(np.array([-1, 0.05, 7], dtype))
    y = F.activation_forward(x, "clipped_relu", alpha=alpha)
    slopes = F.activation_backward(
        backend.asarray(np.ones(3, dtype)), y, "clipped_relu", alpha=alpha
    )
    assert backend.to_numpy(y)[2] == np.dtype(dtype).type(alpha)
    assert backend.to_numpy(slopes).tolist() == [0, 1, 0]


def test_softmax_over_any_axis_of_a_view(backend):
    x = backend.asarray(numbers(3, 4, 5))[::-1, :, ::2]
    for axis in range(-3, 3):
        expected = torch.softmax(torch.tensor(backend.to_numpy(x).copy()), axis)
        y = F.softmax_forward(x, axis)
        assert y.flags.c_contiguous
        np.testing.assert_allclose(backend.to_numpy(y), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 5), (2, 7, 3), (2, 6, 5, 3), (1, 2, 6, 5, 3), (0, 6, 5, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex128"])
def test_channels_move_first_and_back(backend, shape, dtype):
    x = backend.asarray(np.arange(math.prod(shape)).astype(dtype).reshape(shape))
    first = F.channels_first(x)
    assert first.flags.c_contiguous and first.dtype == x.dtype
    expected = np.moveaxis(backend.to_numpy(x), -1, 1)
    np.testing.assert_array_equal(backend.to_numpy(first), expected)
    np.testing.assert_array_equal(backend.to_numpy(F.channels_last(first)), backend.to_numpy(x))
    backwards = backend.to_numpy(F.channels_first(x[::-1]))
    np.testing.assert_array_equal(backwards, expected[::-1])


def test_views_of_any_strides_are_what_they_show(backend):
    x, w = backend.asarray(numbers(2, 6, 5, 4)), backend.asarray(numbers(4, 3, 2, 6, seed=1))
    row = backend.asarray(numbers(8, seed=2))
    views = x[:, ::-1].transpose(0, 2, 1, 3), w.transpose(3, 1, 2, 0)[::-1], row[::2], row[::-2]
    copies = [backend.asarray(backend.to_numpy(view).copy(order="C")) for view in views]
    assert not any(view.flags.c_contiguous for view in views)

    def results(x, w, gamma, beta):
        y = F.conv_forward(x, w, gamma.repeat(2)[:6], padding=1)
        yield y
        yield from F.conv_backward(y, x, w, padding=1)
        yield from F.pool_forward(x, 2)
        yield from F.batch_norm_train(x, gamma, beta)
        yield F.batch_norm_infer(x, gamma, beta, beta, beta * beta)
        yield from F.group_norm_forward(x, gamma, beta, groups=2)
        yield F.activation_forward(x, "gelu")
        yield from F.prelu_backward(x, x, gamma)
        yield F.dropout_forward(x, 0.5, seed=1)

    for ours, expected in zip(results(*views), results(*copies), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(ours), backend.to_numpy(expected))


# ---- refusals ----------------------------------------------------------------------------------


def refusals() -> dict:
    x, w, b = numbers(1, 5, 5, 3), numbers(4, 3, 3, 3), numbers(4)
    y, small = numbers(1, 3, 3, 4), np.float32
    gamma = numbers(3)
    return {
        "dtypes": (
            lambda: F.conv_forward(x, w.astype(small)),
            TypeError,
            r"conv: all arrays of a call must be of one dtype; convert with astype\."
            r" Received: x: float64, w: float32",
        ),
        "precision": (
            lambda: F.conv_forward(x.astype("complex64"), w),
            TypeError,
            "Received: x: complex64, w: float64",
        ),
        "integers": (
            lambda: F.conv_forward(x.astype(int), w.astype(int)),
            TypeError,
            "conv: the arrays must be one of float16, .*complex128. Received: x: int64, w: int64",
        ),
        "complex pool": (
            lambda: F.pool_forward(x.astype("complex64")),
            TypeError,
            "pool: the arrays must be one of float16, bfloat16, float32, float64. Received",
        ),
        "a list": (lambda: F.conv_forward(x.tolist(), w), TypeError, "conv: all arrays of a call"),
        "no pooled index": (
            lambda: F.conv_pool_backward(
                y[:, ::2, ::2], y[:, ::2, ::2], None, x, w, pool_size=1, strides=2
            ),
            ValueError,
            "conv_pool: the index of the forward must be given for mode 'max'",
        ),
        "a pooled activation": (
            lambda: F.conv_pool_forward(x, w, activation="tanh"),
            ValueError,
            "conv_pool: activation must be",
        ),
        "a pooled gradient": (
            lambda: F.conv_pool_backward(y, y, None, x, w),
            ValueError,
            r"conv_pool: dy must have the shape \(1, 1, 1, 4\)",
        ),
        "owner": (lambda: F.conv_forward(x, w, owner="mine", strides=0), ValueError, "mine: strid"),
        "channels": (
            lambda: F.conv_forward(x, numbers(4, 3, 3, 2)),
            ValueError,
            r"conv: the input must have 2 channels, axis -1, for a kernel of shape",
        ),
        "kernel rank": (
            lambda: F.conv_forward(x, numbers(4, 3)),
            ValueError,
            "conv: the kernel must have 3, 4 or 5 axes",
        ),
        "empty kernel": (
            lambda: F.conv_forward(x, numbers(0, 2, 2, 3)),
            ValueError,
            r"conv: the kernel must not be empty\. Received: kernel of shape \(0, 2, 2, 3\)",
        ),
        "empty maps": (
            lambda: F.conv_forward(numbers(1, 0, 5, 3), w, padding=3),
            ValueError,
            r"conv: no axis of the input but the batch may be empty\. Received: .*\(1, 0, 5, 3\)",
        ),
        "nothing to pool": (
            lambda: F.pool_forward(numbers(1, 0, 5, 3), padding=1),
            ValueError,
            "pool: no axis of the input but the batch may be empty",
        ),
        "alpha": (
            lambda: F.activation_forward(x, "leaky_relu", alpha=-0.1),
            ValueError,
            r"activation: alpha must be a number in \[0, inf\)\. Received: alpha=-0\.1",
        ),
        "no filters": (
            lambda: F.conv_backward(y, x, None),
            ValueError,
            r"conv: w must be given, but for dw alone of a shape\. Received: w=None",
        ),
        "no channels": (
            lambda: F.prelu_forward(numbers(2, 0), numbers(0)),
            ValueError,
            "prelu: no axis of the input but the batch may be empty",
        ),
        "empty rows": (
            lambda: F.layer_norm_forward(numbers(2, 0), numbers(0), numbers(0)),
            ValueError,
            "layer_norm: no axis of the input but the batch may be empty",
        ),
        "bias": (
            lambda: F.conv_forward(x, w, numbers(3)),
            ValueError,
            r"conv: b must have the shape \(4,\)\. Received: \(3,\)",
        ),
        "data format": (
            lambda: F.conv_forward(x, w, data_format="NCHW"),
            ValueError,
            "data_format must be one of 'channels_last', 'channels_first'",
        ),
        "dy": (
            lambda: F.conv_backward(y[:, 1:], x, w),
            ValueError,
            r"conv: dy must have the shape \(1, 3, 3, 4\)\. Received: \(1, 2, 3, 4\)",
        ),
        "unknown keyword": (
            lambda: F.conv_backward(y, x, w, stride=2),
            TypeError,
            "unexpected keyword argument 'stride'",
        ),
        "transposed bias": (
            lambda: F.conv_transpose_forward(y, w, b),
            ValueError,
            r"conv_transpose: b must have the shape \(3,\)",
        ),
        "dense": (
            lambda: F.dense_forward(x, numbers(4, 2)),
            ValueError,
            r"dense: expects an input \(batch, \.\.\., 2\).*Received: .* shape \(1, 5, 5, 3\)",
        ),
        "pool rank": (lambda: F.pool_forward(gamma), ValueError, "input of 3, 4 or 5 axes"),
        "no index": (
            lambda: F.pool_backward(numbers(1, 2, 2, 3), None, x.shape),
            ValueError,
            "the index of the forward must be given for mode 'max'",
        ),
        "index dtype": (
            lambda: F.pool_backward(numbers(1, 2, 2, 3), np.zeros((1, 2, 2, 3), int), x.shape),
            TypeError,
            "index must be uint8. Received: int64",
        ),
        "layout of one axis": (
            lambda: F.channels_last(gamma),
            ValueError,
            r"channels_last: x needs a batch axis and a channel axis\. Received: shape \(3,\)",
        ),
        "layout of texts": (
            lambda: F.channels_first(np.zeros((2, 2), "S3")),
            TypeError,
            r"channels_first: x must hold numbers\. Received: \|S3",
        ),
        "pool without shape": (
            lambda: F.pool_backward(y, None),
            ValueError,
            "x_shape or shape must be given",
        ),
        "activation": (
            lambda: F.activation_forward(x, "rlu"),
            ValueError,
            "activation: activation must be one of 'linear', .*'mish'.*Received: activation='rlu'",
        ),
        "statistics of a norm": (
            lambda: F.conv_norm_infer(x, w, b, b, b, b, b[:2]),
            ValueError,
            r"conv_norm: var must have the shape \(4,\)\. Received: \(2,\)",
        ),
        "math": (
            lambda: F.conv_backward(y, x, w, math="fast"),
            ValueError,
            "conv: math must be one of 'strict', .*, 'fp32x3'. Received: math='fast'",
        ),
        "axis": (lambda: F.softmax_forward(x, 4), ValueError, "axis must be an axis of the input"),
        "gamma": (
            lambda: F.batch_norm_train(x, gamma[:2], gamma),
            ValueError,
            r"batch_norm: gamma must have the shape \(3,\)\. Received: \(2,\)",
        ),
        "norm axis": (
            lambda: F.batch_norm_train(x, gamma, gamma, axis=2),
            ValueError,
            "axis, where the channels lie, must be -1 or 1. Received: axis=2",
        ),
        "residual": (
            lambda: F.batch_norm_train(x, gamma, gamma, residual=y),
            ValueError,
            r"batch_norm: residual must have the shape \(1, 5, 5, 3\)",
        ),
        "gradient of relu": (
            lambda: F.batch_norm_backward(x, x, gamma, gamma, gamma, activation="relu"),
            ValueError,
            "the gradient of relu needs beta or, .*Received: activation='relu', neither",
        ),
        "gradient of linear": (
            lambda: F.batch_norm_backward(x, x, gamma, gamma, gamma, beta=gamma, y=x),
            ValueError,
            "that of linear neither. Received: activation='linear', beta and y",
        ),
        "statistics": (
            lambda: F.batch_norm_infer(x, gamma, gamma, gamma.astype(small), gamma),
            TypeError,
            "batch_norm: mean must be float64 for an input of float64. Received: float32",
        ),
        "groups": (
            lambda: F.group_norm_forward(x, gamma, gamma, groups=2),
            ValueError,
            "group_norm: groups must divide the 3 channels. Received: groups=2",
        ),
        "layer norm": (
            lambda: F.layer_norm_forward(x, gamma[:2], gamma[:2]),
            ValueError,
            "layer_norm: gamma must have the shape of the last axes of the input",
        ),
        "rate": (
            lambda: F.dropout_forward(x, 1.0, seed=0),
            ValueError,
            r"dropout: rate must be a number in \[0, 1\)",
        ),
        "seed": (lambda: F.dropout_forward(x, 0.1, seed=-1), ValueError, "seed must be an integer"),
        "mask of a third slope": (
            lambda: F.activation_forward_masked(x, "elu"),
            ValueError,
            "activation: an activation with a mask is one of two slopes.* Received: 'elu'",
        ),
        "mask of no activation": (
            lambda: F.dense_forward_masked(x, gamma[None], activation="linear"),
            ValueError,
            "dense: an activation with a mask is one of two slopes.* Received: 'linear'",
        ),
        "residual of a masked convolution": (
            lambda: F.dense_forward_masked(x, gamma[None], residual=x[1:]),
            ValueError,
            "dense: residual must have the shape",
        ),
        "mask of a slope of zero": (
            lambda: F.activation_mask(x, "leaky_relu", alpha=0),
            ValueError,
            "with an alpha above 0. Received: 'leaky_relu', alpha=0",
        ),
        "mask with a dropout": (
            lambda: F.dropout_forward_masked(x, "leaky_relu", 0.5, seed=0),
            ValueError,
            "dropout: what has one mask with a dropout is relu.* Received: 'leaky_relu'",
        ),
        "gradient beside a mask": (
            lambda: F.activation_backward(x[:, 1:], F.activation_mask(x)),
            ValueError,
            "activation: dy must have the shape",
        ),
        "dtype of a gradient beside a mask": (
            lambda: F.activation_backward(x.astype(np.float16), F.activation_mask(x)),
            TypeError,
            "activation: dy must be of the output's dtype, float.* Received: float16",
        ),
    }


@pytest.mark.parametrize("name", refusals())
def test_refuses(name):
    call, kind, message = refusals()[name]
    with pytest.raises(kind, match=message):
        call()


def test_arrays_of_two_devices_are_refused():
    cupy = pytest.importorskip("cupy")
    try:
        x = cupy.ones((1, 5, 5, 3))
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"needs a GPU: {error}")
    with pytest.raises(TypeError, match=r"conv: all arrays of a call must lie on one device"):
        F.conv_forward(x, np.ones((4, 3, 3, 3)))


def test_the_residual_of_a_normed_dense_layer_has_its_outputs_shape() -> None:
    """Not one of as many numbers."""
    x, w, ones = np.ones((2, 3, 4)), np.ones((5, 4)), np.ones(5)
    with pytest.raises(ValueError, match=r"residual must have the shape \(2, 3, 5\)"):
        F.dense_norm_train(x, w, None, ones, ones, residual=np.ones((3, 2, 5)))

"""Layers: shapes and their errors, dtypes, layouts, modes, and the way to JSON and back."""

import inspect
import json

import numpy as np
import pytest

import gpucnn
from gpucnn import layers as L
from gpucnn.backends import use_backend
from gpucnn.backends.base import MATH
from gpucnn.layers import from_config, inference_mode, to_config
from gpucnn.layers.base import as_dtype
from tests.gradients import prepared
from tests.layer_cases import CASES
from tests.tolerance import unit_roundoff

every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def seeded():
    gpucnn.set_seed(7)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# ---- the way to JSON and back ----------------------------------------------------------------


@every_case
def test_config_survives_json_and_makes_a_twin(name):
    case, layer = CASES[name], CASES[name].layer()
    description = to_config(layer)
    assert json.loads(json.dumps(description)) == description
    twin = from_config(json.loads(json.dumps(description)))
    assert type(twin) is type(layer)
    assert twin.config() == layer.config()
    with use_backend("numpy") as backend:
        _, x = prepared(layer, case.x_shape, backend)
        prepared(twin, case.x_shape, backend)
        np.testing.assert_array_equal(
            layer.forward(x, case.training), twin.forward(x, case.training)
        )


def noting_math(function, asked):
    def noted(*given, **named):
        asked.append(inspect.signature(function).bind(*given, **named).arguments["math"])
        return function(*given, **named)

    return noted


def dense_as_conv(math):
    dense = L.Dense(3, math=math)
    dense.build((4,))
    return dense.as_conv((1, 1, 4))


@pytest.mark.parametrize(
    ("layer", "x_shape"),
    [
        (lambda math: L.Conv2D(3, 2, math=math), (2, 5, 4, 2)),
        (lambda math: L.Conv2DTranspose(3, 2, math=math), (2, 5, 4, 2)),
        (lambda math: L.DepthwiseConv2D(2, math=math), (2, 5, 4, 2)),
        (lambda math: L.SeparableConv2D(3, 2, math=math), (2, 5, 4, 2)),
        (lambda math: L.Dense(3, math=math), (2, 4)),
        (dense_as_conv, (2, 1, 1, 4)),
    ],
)
@pytest.mark.parametrize("math", MATH)
def test_math_reaches_the_backend(monkeypatch, layer, x_shape, math):
    layer = layer(math)
    assert from_config(to_config(layer)).math == math
    asked = []
    with use_backend("numpy") as backend:
        for name in ("conv_fprop", "conv_dgrad", "conv_wgrad"):
            monkeypatch.setattr(backend, name, noting_math(getattr(backend, name), asked))
        layer.backward(layer.forward(numbers(*x_shape).astype(np.float32)))
    assert len(asked) >= 3 and set(asked) == {math}


@pytest.fixture
def strict_afterwards():
    yield
    gpucnn.set_math("strict")


@pytest.mark.parametrize("make", [lambda **m: L.Conv1D(2, 3, **m), lambda **m: L.Dense(2, **m)])
def test_a_layer_keeps_the_math_that_was_set_when_it_was_made(strict_afterwards, make):
    gpucnn.set_math("tf32")
    made, given = make(), make(math="exact")
    gpucnn.set_math("fp32x3")
    assert [layer.math for layer in (made, from_config(to_config(made)), given)] == [
        "tf32", "tf32", "exact",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"set_math: math must be one of .* Received: math='high'"):
        gpucnn.set_math("high")
    assert make().math == "fp32x3"


def test_a_function_as_initializer_works_and_is_not_saved():
    layer = L.Dense(3, kernel_initializer=lambda shape, generator: np.full(shape, 2.0), name="d")
    np.testing.assert_array_equal(layer.forward(np.ones((1, 4))), [[8.0] * 3])
    assert "function" in repr(layer)
    with pytest.raises(ValueError, match="Dense 'd': a function as kernel_initializer cannot be"):
        layer.config()


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match=r"the class must be one of .*Conv2D.* Received: 'Conv9D'"):
        from_config({"class": "Conv9D", "config": {}})


def test_keras_names_are_the_same_layers():
    assert L.MaxPooling2D is L.MaxPool2D and L.BatchNormalization is L.BatchNorm
    assert gpucnn.GlobalAveragePooling2D is L.GlobalAveragePool2D


# ---- parameters ------------------------------------------------------------------------------


def shapes(layer: L.Layer) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in layer.params.items()}


def test_parameters_have_the_documented_shapes():
    def built(layer, *input_shape):
        layer.build(input_shape, backend="numpy")
        return shapes(layer)

    assert built(L.Conv2D(6, (3, 2), groups=2), 8, 9, 4) == {"kernel": (6, 3, 2, 2), "bias": (6,)}
    assert built(L.Conv2DTranspose(6, (3, 2), groups=2), 8, 9, 4) == {
        "kernel": (4, 3, 2, 3),
        "bias": (6,),
    }
    assert built(L.DepthwiseConv2D(3, depth_multiplier=2), 8, 9, 4) == {
        "kernel": (8, 3, 3, 1),
        "bias": (8,),
    }
    assert built(L.SeparableConv1D(5, 3, depth_multiplier=2), 8, 4) == {
        "depthwise_kernel": (8, 3, 1),
        "pointwise_kernel": (5, 1, 8),
        "bias": (5,),
    }
    assert built(L.Dense(5, use_bias=False), 2, 7) == {"kernel": (5, 7)}
    assert built(L.BatchNorm(axis=1), 3, 8, 9) == {"gamma": (3,), "beta": (3,)}
    assert built(L.LayerNorm(axis=(2, 3)), 3, 8, 9) == {"gamma": (8, 9), "beta": (8, 9)}
    assert built(L.PReLU(), 8, 9, 4) == {"alpha": (4,)}


@pytest.mark.parametrize(
    ("layer", "input_shape", "fan"),
    [
        (L.Conv2D(256, 5, groups=2), (9, 9, 32), 5 * 5 * 16),
        (L.Conv2DTranspose(32, 5, groups=2), (9, 9, 256), 5 * 5 * 128),
        (L.DepthwiseConv2D(9, depth_multiplier=8), (9, 9, 64), 9 * 9),
        (L.Dense(256), (128,), 128),
    ],
)
def test_kernels_start_he_normal_by_what_one_output_sums(layer, input_shape, fan):
    layer.build(input_shape, backend="numpy")
    kernel = layer.params["kernel"]
    # n draws of variance 2 / fan: the sample's deviates by sqrt(2 / n), here under 1 %
    assert kernel.var() == pytest.approx(2 / fan, rel=5 * np.sqrt(2 / kernel.size))
    assert not layer.params["bias"].any()


@pytest.mark.parametrize(
    ("layer", "name", "input_shape", "fans"),
    [
        (L.Conv2D, "kernel", (9, 9, 32), (9 * 32, 9 * 64)),
        (L.Conv2DTranspose, "kernel", (9, 9, 32), (9 * 32, 9 * 64)),
        (L.SeparableConv2D, "depthwise_kernel", (9, 9, 256), (9, 9 * 8)),
        (L.SeparableConv2D, "pointwise_kernel", (9, 9, 32), (32 * 8, 64)),
    ],
)
def test_kernels_know_what_one_input_reaches(layer, name, input_shape, fans):
    options = {"depth_multiplier": 8} if layer is L.SeparableConv2D else {}
    layer = layer(64, 3, kernel_initializer="glorot_normal", **options)
    layer.build(input_shape, backend="numpy")
    kernel = layer.params[name]
    assert kernel.var() == pytest.approx(2 / sum(fans), rel=5 * np.sqrt(2 / kernel.size))


def test_a_complex_kernel_starts_with_both_parts():
    layer = L.Conv2D(128, 3)
    layer.build((9, 9, 64), "complex64", "numpy")
    kernel = layer.params["kernel"]
    assert kernel.dtype == np.complex64
    for part in (kernel.real, kernel.imag):
        assert part.var() == pytest.approx(1 / (9 * 64), rel=5 * np.sqrt(2 / part.size))


def test_multiply_adds_of_one_sample():
    assert L.Conv2D(15, 3).multiply_adds((5, 5, 2)) == 3 * 3 * 15 * 9 * 2
    assert L.Conv2D(4, 3, groups=2, strides=2).multiply_adds((7, 5, 6)) == 3 * 2 * 4 * 9 * 3
    assert L.Conv1DTranspose(5, 3, strides=2).multiply_adds((7, 4)) == 7 * 4 * 3 * 5
    assert L.DepthwiseConv2D(3, padding=1).multiply_adds((4, 5, 6)) == 4 * 5 * 6 * 9
    assert L.SeparableConv2D(8, 3).multiply_adds((4, 5, 6)) == 2 * 3 * 6 * 9 + 2 * 3 * 6 * 8
    assert L.Dense(10).multiply_adds((3, 7)) == 3 * 7 * 10
    assert L.MaxPool2D().multiply_adds((4, 4, 1)) == 0


def test_a_dense_layer_is_a_convolution_of_the_whole_map():
    for input_shape, data_format in [
        ((4, 3, 5), "channels_last"),
        ((5, 4, 3), "channels_first"),
        ((6, 2), "channels_last"),
        ((2, 3, 2, 2), "channels_first"),
    ]:
        dense = L.Dense(7, activation="tanh", name="head")
        x = numbers(2, *input_shape)
        y = dense.forward(x.reshape(2, -1))
        conv = dense.as_conv(input_shape, data_format)
        assert conv.forward(x).size == y.size
        np.testing.assert_allclose(conv.forward(x).reshape(2, 7), y, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="Dense 'head': as_conv needs a map of 24 numbers"):
        dense.as_conv((2, 5, 3))
    with pytest.raises(ValueError, match="as_conv needs a built layer"):
        L.Dense(3).as_conv((2, 2, 1))
    wide = L.Dense(3, out_dtype="float32")
    wide.build((4,), np.dtype("float16"))
    with pytest.raises(ValueError, match="a convolution gives the network's dtype"):
        wide.as_conv((2, 2, 1))


# ---- layouts, dtypes and views -----------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        lambda **o: L.Conv2D(6, (3, 2), padding="same", groups=3, activation="softmax", **o),
        lambda **o: L.Conv2DTranspose(3, 3, strides=(2, 1), **o),
        lambda **o: L.DepthwiseConv2D(3, depth_multiplier=2, **o),
        lambda **o: L.SeparableConv2D(4, 3, dilation_rate=(1, 2), **o),
        lambda **o: L.MaxPool2D((2, 3), strides=1, **o),
        lambda **o: L.AveragePool2D(3, padding=1, count_padding=True, **o),
        lambda **o: L.GlobalMinPool2D(keepdims=True, **o),
    ],
)
def test_both_data_formats_agree(layer, backend):
    last, first = layer(), layer(data_format="channels_first")
    rng, x = prepared(last, (2, 5, 7, 6), backend)
    x = backend.to_numpy(x)
    first.build((6, 5, 7), "float64", backend)
    first.params = last.params
    y = backend.to_numpy(last.forward(backend.asarray(x)))
    dy = rng.standard_normal(y.shape)
    dx = backend.to_numpy(last.backward(backend.asarray(dy)))

    other = first.forward(backend.asarray(np.moveaxis(x, -1, 1)))
    np.testing.assert_allclose(np.moveaxis(backend.to_numpy(other), 1, -1), y, rtol=1e-12)
    other = first.backward(backend.asarray(np.moveaxis(dy, -1, 1)))
    other = np.moveaxis(backend.to_numpy(other), 1, -1)
    np.testing.assert_allclose(other, dx, rtol=1e-12, atol=1e-12)
    for key, gradient in last.grads.items():
        np.testing.assert_allclose(
            backend.to_numpy(first.grads[key]), backend.to_numpy(gradient), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@every_case
def test_small_dtypes_follow_float64(name, dtype):
    case, exact, layer = CASES[name], CASES[name].layer(), CASES[name].layer()
    with use_backend("numpy") as backend:
        _, x = prepared(exact, case.x_shape, backend)
        many = exact.takes_many
        dtype = as_dtype("", dtype)
        # The rounded numbers are the problem, for both: what differs is the arithmetic alone.
        small = [a.astype(dtype) for a in x] if many else x.astype(dtype)
        layer.build(exact.input_shape, dtype, backend)
        layer.counters.update(exact.counters)
        for key, array in exact.params.items():
            layer.params[key] = array.astype(dtype)
            exact.params[key] = layer.params[key].astype(np.float64)
        wide = [a.astype(np.float64) for a in small] if many else small.astype(np.float64)

        y, expected = layer.forward(small, case.training), exact.forward(wide, case.training)
        dy = numbers(*y.shape).astype(dtype)
        dx, exact_dx = layer.backward(dy), exact.backward(dy.astype(np.float64))
    pairs = [(y, expected), *((layer.grads[key], exact.grads[key]) for key in layer.grads)]
    pairs += zip(dx if many else [dx], exact_dx if many else [exact_dx], strict=True)
    for ours, reference in pairs:
        assert ours.dtype == dtype
        # Four roundings to the dtype on the longest way (a separable convolution's backward), each
        # carried on by sums of up to 100 terms in float32, whose size is the largest number's.
        error = np.abs(ours.astype(np.float64) - reference).max()
        assert error <= 40 * unit_roundoff(dtype) * max(np.abs(reference).max(), 1)


def test_integer_images_become_float32():
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    layer = L.Conv2D(4, 3)
    y = layer.forward(images)
    assert y.dtype == layer.params["kernel"].dtype == np.float32
    np.testing.assert_array_equal(y, layer.forward(images.astype(np.float32)))
    layer.astype("float64")
    assert layer.forward(images).dtype == np.float64


@pytest.mark.parametrize("make", [lambda: L.Conv2D(3, 2), L.BatchNorm, lambda: L.MaxPool2D(2)])
def test_numbers_of_the_other_byte_order_are_what_they_say(make):
    """Built or not: files of another machine have them."""
    images = np.random.default_rng(0).standard_normal((2, 6, 5, 3)).astype(np.float32)
    foreign = images.astype(images.dtype.newbyteorder())
    layer = make()
    y = layer.forward(foreign)
    assert y.dtype.isnative and all(array.dtype.isnative for array in layer.params.values())
    np.testing.assert_array_equal(y, layer.forward(images))
    np.testing.assert_array_equal(layer.forward(foreign), y)


def test_views_of_any_strides_are_what_they_show(backend):
    layer = L.Conv2D(4, (3, 2))
    x = backend.asarray(numbers(2, 7, 6, 3))
    for view in (x[:, ::-1, ::-2], x.transpose(0, 2, 1, 3), x[::-1, 1:, :, ::1]):
        y = layer.forward(view)
        dy = backend.asarray(numbers(*y.shape))[..., ::-1]
        dx, dw = layer.backward(dy), layer.grads["kernel"]
        copy = backend.asarray(np.ascontiguousarray(backend.to_numpy(view)))
        dense_dy = backend.asarray(np.ascontiguousarray(backend.to_numpy(dy)))
        np.testing.assert_array_equal(backend.to_numpy(layer.forward(copy)), backend.to_numpy(y))
        np.testing.assert_array_equal(
            backend.to_numpy(layer.backward(dense_dy)), backend.to_numpy(dx)
        )
        np.testing.assert_array_equal(backend.to_numpy(layer.grads["kernel"]), backend.to_numpy(dw))


def test_astype_converts_the_statistics_too():
    layer = L.BatchNorm()
    layer.forward(numbers(4, 3).astype(np.float32), training=True)
    layer.astype("float64")
    assert layer.state["moving_mean"].dtype == np.float64
    assert layer.forward(numbers(4, 3)).dtype == np.float64
    layer.astype("float16")
    assert layer.state["moving_mean"].dtype == np.float32
    assert layer.forward(numbers(4, 3).astype(np.float16)).dtype == np.float16


# ---- modes -----------------------------------------------------------------------------------


def test_moving_statistics_follow_the_biased_ones(backend):
    layer = L.BatchNorm(momentum=0.75)
    x = numbers(4, 5, 3) + np.array([1.0, 2.0, 3.0])
    layer.forward(backend.asarray(x), training=True)
    moving = {key: backend.to_numpy(array) for key, array in layer.state.items()}
    np.testing.assert_allclose(moving["moving_mean"], 0.25 * x.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(moving["moving_variance"], 0.75 + 0.25 * x.var((0, 1)), rtol=1e-12)
    layer.forward(backend.asarray(x))
    layer.trainable = False
    layer.forward(backend.asarray(x), training=True)
    for key, array in layer.state.items():
        np.testing.assert_array_equal(backend.to_numpy(array), moving[key])


def test_dropout_counts_its_calls(backend):
    layer = L.Dropout(0.3, seed=5)
    x = backend.asarray(np.ones((50, 41)))
    first, second = (backend.to_numpy(layer.forward(x, training=True)) for _ in range(2))
    assert layer.counters == {"seed": 5, "calls": 2}
    assert set(np.unique(first)) == {0.0, 1 / 0.7}
    # 2050 draws of probability 0.3: five standard deviations are 0.05
    assert abs((first == 0).mean() - 0.3) < 0.05
    assert (first != second).any()
    dx = backend.to_numpy(layer.backward(x))
    np.testing.assert_array_equal(dx, second)  # the mask of the last forward
    layer.counters["calls"] = 0
    np.testing.assert_array_equal(backend.to_numpy(layer.forward(x, training=True)), first)
    assert layer.forward(x) is x


def test_inference_mode_keeps_nothing():
    layer = L.Conv2D(2, 3, name="c")
    x = numbers(1, 4, 4, 1)
    with inference_mode():
        y = layer.forward(x)
    with pytest.raises(RuntimeError, match="Conv2D 'c': call forward before each backward"):
        layer.backward(y)
    layer.forward(x)
    layer.backward(y)
    with pytest.raises(RuntimeError, match="call forward before"):
        layer.backward(y)


@pytest.mark.parametrize(
    "layer", [L.Conv2D(2, 3), L.Conv2DTranspose(2, 3), L.SeparableConv2D(2, 3), L.Dense(2)]
)
def test_a_layer_whose_input_needs_no_gradient(layer):
    x = numbers(2, 4, 5, 3)
    y = layer.forward(x)
    layer.backward(y)
    expected = dict(layer.grads)
    layer.needs_input_gradient = False
    layer.forward(x)
    assert layer.backward(y) is None
    for key, gradient in expected.items():
        np.testing.assert_array_equal(layer.grads[key], gradient)


def test_a_layer_that_is_built_anew_looks_at_its_input_again():
    layer, x = L.BatchNorm(name="again"), np.ones((2, 3), np.float32)
    layer.build((3,))
    layer.forward(x)
    layer.build((5,))
    with pytest.raises(ValueError, match=r"BatchNorm 'again': expects an input of size 5"):
        layer.forward(x)

"""Networks run: they are their layers, forward, backward and in batches."""

from copy import deepcopy

import numpy as np
import pytest

from gpucnn.backends import get_backend, use_backend
from gpucnn.backends.base import Backend
from gpucnn.layers import (
    Add,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    ReLU,
)
from gpucnn.layers.base import inference_mode
from gpucnn.network import Graph, Input, Residual, Sequential

from .networks import block, images, lenet, two_headed
from .networks import numpy_backend as numpy_backend

# ---- arrays: a network is its layers -------------------------------------------------------------


def test_sequential_runs_its_layers_in_order() -> None:
    model, x = Sequential([Conv2D(3, 3), ReLU(), Flatten(), Dense(2)]), images(0, 2, 5, 6, 1)
    y = model.forward(x)
    by_hand = x
    for layer in model.layers:
        by_hand = layer.forward(by_hand)
    np.testing.assert_array_equal(y, by_hand)
    assert y.shape == (2, 2) and y.dtype == np.float64
    np.testing.assert_array_equal(model(x), y)


def test_residual_adds_its_two_ways() -> None:
    x = images(1, 2, 7, 6, 3)
    model = block()
    y = model.forward(x)
    first, second, side, _ = model.layers
    z = second.forward(first.forward(x)) + side.forward(x)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-z)), rtol=1e-14)


def test_residual_without_shortcut_adds_the_input() -> None:
    conv = Conv2D(3, 3, padding="same")
    x = images(2, 2, 4, 5, 3)
    np.testing.assert_array_equal(Residual([conv]).forward(x), conv.forward(x) + x)


def test_graph_of_two_inputs_and_outputs() -> None:
    model = two_headed(dtype="float64")
    left, right = images(3, 2, 6, 5, 2), images(4, 2, 6, 5, 3)
    logits, stem = model.forward([left, right])
    parts = {layer.name: layer for layer in model.layers}
    side = parts["conv2d_1"].forward(right)
    expected_stem = parts["conv2d"].forward(left)
    joined = np.concatenate([expected_stem, expected_stem + side, side], axis=-1)
    np.testing.assert_array_equal(stem, expected_stem)
    np.testing.assert_allclose(
        logits, parts["dense"].forward(joined.mean((1, 2))), rtol=1e-12, atol=1e-14
    )


def test_networks_nest() -> None:
    x = images(5, 2, 8, 8, 1)
    model = Sequential([Conv2D(3, 3), Sequential([block(), block()]), Flatten(), Dense(2)])
    assert model.forward(x).shape == (2, 2)
    assert [path for path, _ in model.walk()] == [
        "conv2d",
        "sequential/residual/conv2d",
        "sequential/residual/conv2d_1",
        "sequential/residual/conv2d_2",
        "sequential/residual/activation",
        "sequential/residual_1/conv2d",
        "sequential/residual_1/conv2d_1",
        "sequential/residual_1/conv2d_2",
        "sequential/residual_1/activation",
        "flatten",
        "dense",
    ]
    assert model.parameter_count() == sum(p.value.size for p in model.parameters())


# ---- gradients -----------------------------------------------------------------------------------


def loss(outputs: list, weights: list) -> float:
    return sum(float((y * w).sum()) for y, w in zip(outputs, weights, strict=True))


def check_gradients(model, *inputs: np.ndarray, step: float = 1e-6) -> None:
    """Compare every gradient of a network with central differences of a random linear loss."""

    def run() -> list:
        y = model.forward(list(inputs) if len(inputs) > 1 else inputs[0], training=True)
        return y if isinstance(y, list) else [y]

    outputs = run()
    weights = [images(100 + i, *y.shape) for i, y in enumerate(outputs)]
    dx = model.backward(weights if len(weights) > 1 else weights[0])
    gradients = list(zip(inputs, dx if len(inputs) > 1 else [dx], strict=True))
    gradients += [(p.value, p.gradient.copy()) for p in model.parameters()]
    for array, gradient in gradients:
        assert gradient.shape == array.shape and np.abs(gradient).max() > 1e-4
        for place in np.random.default_rng(0).choice(array.size, min(array.size, 12), False):
            index = np.unravel_index(place, array.shape)
            kept = array[index]
            array[index] = kept + step
            above = loss(run(), weights)
            array[index] = kept - step
            below = loss(run(), weights)
            array[index] = kept
            difference = (above - below) / (2 * step)
            assert abs(gradient[index] - difference) < 1e-7 * max(1.0, abs(difference)) + 1e-7


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sequential([Conv2D(3, 3, activation="tanh"), Flatten(), Dense(4)]),
        block,
        lambda: Residual([Conv2D(2, (3, 1), padding="same", activation="gelu")]),
        lambda: Sequential([Conv2D(2, 3), Residual([block()], Conv2D(6, 1, strides=2)), Flatten()]),
    ],
    ids=["sequential", "shortcut", "identity", "nested"],
)
def test_gradients_against_central_differences(make) -> None:
    check_gradients(make(), images(6, 2, 7, 6, 2))


def test_graph_gradients_of_values_that_several_layers_read() -> None:
    check_gradients(two_headed(dtype="float64"), images(7, 2, 6, 5, 2), images(8, 2, 6, 5, 3))


def test_a_graph_can_be_copied() -> None:
    model, x = two_headed(), [images(3, 2, 6, 5, 2), images(4, 2, 6, 5, 3)]
    for y, copied in zip(model.forward(x), deepcopy(model).forward(x), strict=True):
        np.testing.assert_array_equal(y, copied)


def test_graph_inside_a_sequential() -> None:
    x = Input((6, 5, 2))
    h = Conv2D(3, 3, activation="tanh")(x)
    inner = Graph(x, Add()([h, Conv2D(3, 1)(h), h]), dtype="float64")
    check_gradients(Sequential([inner, Flatten(), Dense(2)]), images(9, 2, 6, 5, 2))


def test_first_dx_is_left_out_when_nobody_needs_it() -> None:
    x, dy = images(10, 2, 9, 8, 1), images(11, 2, 5)
    model = lenet()
    model.forward(x)
    model.backward(dy)
    expected = {p.path: p.gradient.copy() for p in model.parameters()}
    model.needs_input_gradient = False
    model.forward(x)
    assert model.backward(dy) is None
    for parameter in model.parameters():
        np.testing.assert_array_equal(parameter.gradient, expected[parameter.path])
    later = Sequential([ReLU(), model.layers[0]])  # the layer is not the first one any more
    later.forward(x)
    assert later.backward(images(12, 2, 7, 6, 4)).shape == x.shape


def test_graph_leaves_out_dx_too() -> None:
    model = two_headed(dtype="float64")
    xs = [images(7, 2, 6, 5, 2), images(8, 2, 6, 5, 3)]
    dys = [images(1, 2, 3), images(2, 2, 6, 5, 4)]
    model.forward(xs)
    model.backward(dys)
    expected = {p.path: p.gradient.copy() for p in model.parameters()}
    model.needs_input_gradient = False
    model.forward(xs)
    assert model.backward(dys) == [None, None]
    for parameter in model.parameters():
        np.testing.assert_array_equal(parameter.gradient, expected[parameter.path])


def test_backward_needs_a_forward_that_keeps() -> None:
    model, x = lenet(), images(12, 2, 9, 8, 1)
    with inference_mode():
        model.forward(x)
    with pytest.raises(RuntimeError, match="Sequential 'sequential': call forward before"):
        model.backward(images(13, 2, 5))


def test_gradients_of_a_graph_come_as_a_list() -> None:
    model = two_headed()
    model.forward([np.ones((1, 6, 5, 2), np.float32), np.ones((1, 6, 5, 3), np.float32)])
    with pytest.raises(ValueError, match=r"a list of 2 gradients.*Received: ndarray"):
        model.backward(np.ones((1, 3), np.float32))


def test_every_backend_gives_the_same(backend: Backend) -> None:
    x, dy = images(20, 3, 9, 8, 2), images(21, 3, 4)
    model = Sequential([block(), MaxPool2D(2), Flatten(), BatchNorm(), Dense(4)], dtype="float64")
    model.build((9, 8, 2), backend="numpy")

    def run(place: Backend) -> list[np.ndarray]:
        with use_backend(place):
            model.to(place)
            y = model.forward(place.asarray(x), training=True)
            dx = model.backward(place.asarray(dy))
            gradients = [parameter.gradient for parameter in model.parameters()]
            return [place.to_numpy(array) for array in (y, dx, *gradients)]

    for expected, actual in zip(run(get_backend("numpy")), run(backend), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)
    with use_backend(backend):
        assert type(model.predict(x)) is np.ndarray


# ---- predict -------------------------------------------------------------------------------------


def test_predict_runs_in_batches_and_keeps_nothing() -> None:
    model, x = lenet(), images(17, 7, 9, 8, 1, dtype="float32")
    y = model.predict(x, batch_size=3)
    np.testing.assert_allclose(y, model.forward(x), rtol=1e-5, atol=1e-6)
    assert y.shape == (7, 5) and isinstance(y, np.ndarray)
    model.predict(x)
    with pytest.raises(RuntimeError, match="call forward before"):
        model.layers[0].backward(np.zeros((7, 7, 6, 4), np.float32))


def test_predict_takes_lists() -> None:
    model = Sequential([Dense(2)], dtype="float32")
    np.testing.assert_array_equal(
        model.predict([[1.0, 2.0]]), model.forward(np.array([[1, 2]], np.float32))
    )
    two = two_headed()
    left, right = images(18, 5, 6, 5, 2), images(19, 5, 6, 5, 3)
    logits, stem = two.predict([left, right], batch_size=2)
    assert logits.shape == (5, 3) and stem.shape == (5, 6, 5, 4)
    with pytest.raises(ValueError, match=r"as many in each. Received: \(5, 6, 5, 2\), \(4, 6"):
        two.predict([left, right[:4]])
    with pytest.raises(ValueError, match=r"at least one sample.* Received: \(0, 2\)"):
        model.predict(np.zeros((0, 2)))

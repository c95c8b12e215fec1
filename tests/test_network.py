"""Networks: composition, names, shapes and their errors, weights by path, prediction."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from gpucnn.backends import get_backend, use_backend
from gpucnn.backends.base import Backend
from gpucnn.initializers import set_seed
from gpucnn.layers import (
    Add,
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    MaxPool2D,
    ReLU,
    from_config,
    to_config,
)
from gpucnn.layers.base import Layer, inference_mode
from gpucnn.network import Graph, Input, Residual, Sequential
from gpucnn.optimizers import SGD


@pytest.fixture(autouse=True)
def numpy_backend() -> Iterator[None]:
    set_seed(7)
    with use_backend("numpy"):
        yield


def lenet(**options) -> Sequential:
    return Sequential(
        [
            Conv2D(4, 3, activation="relu"),
            MaxPool2D(2),
            Conv2D(6, (3, 2)),
            BatchNorm(),
            ReLU(),
            Flatten(),
            Dropout(0.25),
            Dense(5),
        ],
        **options,
    )


def block(**options) -> Residual:
    return Residual(
        [Conv2D(6, 3, strides=2, padding="same", activation="tanh"), Conv2D(6, 3, padding="same")],
        shortcut=Conv2D(6, 1, strides=2),
        activation="sigmoid",
        **options,
    )


def two_headed(**options) -> Graph:
    left, right = Input((6, 5, 2), name="left"), Input((6, 5, 3))
    stem = Conv2D(4, 3, padding="same", activation="tanh")(left)
    side = Conv2D(4, 1)(right)
    joined = Concatenate()([stem, Add()([stem, side]), side])
    pooled = GlobalAveragePool2D()(joined)
    return Graph([left, right], [Dense(3)(pooled), stem], **options)


def images(seed: int, *shape: int, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---- arrays: a network is its layers -----------------------------------------------------------


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


# ---- gradients ---------------------------------------------------------------------------------


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


# ---- names -------------------------------------------------------------------------------------


def test_names_follow_keras_and_no_other_network() -> None:
    for _ in range(2):
        model = Sequential([Conv2D(1, 1), ReLU(), Conv2D(1, 1), Conv2D(1, 1, name="conv2d_1")])
        names = [layer.name for layer in model.layers]
        assert names == ["conv2d", "re_lu", "conv2d_2", "conv2d_1"]


def test_a_layer_keeps_its_name_in_a_second_network() -> None:
    model = lenet(input_shape=(9, 8, 1))
    paths = list(model.state_dict())
    tail = Sequential(model.layers[2:])
    assert tail.layers[0].name == "conv2d_1"
    assert list(model.state_dict()) == paths


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Sequential([Conv2D(1, 1, name="a"), ReLU(name="a")], name="net"),
            "Sequential 'net': names must be unique. Received: two of 'a'",
        ),
        (
            lambda: Sequential([Conv2D(1, 1, name="a/b")]),
            "holds no \"/\", which .* Received: name='a/b'",
        ),
        (lambda: Sequential([]), r"layers must hold at least one layer. Received: layers=\[\]"),
        (
            lambda: Sequential([relu := ReLU(), Dense(2), Residual([relu])]),
            "a layer may be used once.* Received: ReLU 're_lu' twice",
        ),
        (
            lambda: Sequential([Add()]),
            "each layer must take one input and give one output; use Graph.* Received: Add 'add'",
        ),
    ],
    ids=["name", "slash", "empty", "twice", "merge"],
)
def test_what_a_network_refuses(make, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_a_class_is_no_layer() -> None:
    with pytest.raises(TypeError, match=r"must be a gpucnn layer. Received: <class.*Flatten'>"):
        Sequential([Flatten])


@pytest.mark.parametrize("kind", [Sequential, Residual])
def test_a_layer_is_no_list_of_layers(kind: type) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}: layers must be a list.*Flatten"):
        kind(Flatten())


def test_an_input_shape_stands_over_an_input() -> None:
    model = Sequential([Input((4,)), Dense(3)], input_shape=(5,))
    assert model.input_shape == (5,)


def test_a_gradient_before_any_backward() -> None:
    model = Sequential([Dense(3, input_shape=(4,))])
    with pytest.raises(KeyError, match="dense/kernel has no gradient yet; run forward and backwa"):
        SGD(0.1).step(model.parameters())


def test_shapes_and_arrays_that_are_none() -> None:
    model = Sequential([Dense(3)])
    with pytest.raises(ValueError, match=r"Sequential 'sequential': input_shape must be the sizes"):
        model.build((None, 4))
    with pytest.raises(TypeError, match=r"Sequential 'sequential': expects an array. Received"):
        model.forward(None)
    assert not model.built and model.dtype is None


# ---- shapes, and what errors say ---------------------------------------------------------------


def test_the_first_layers_input_shape_builds_at_once() -> None:
    first = Sequential([Conv2D(2, 3, input_shape=(6, 6, 1)), Flatten(), Dense(3)])
    second = Sequential([Input((6, 6, 1)), Conv2D(2, 3), Flatten(), Dense(3)])
    for model in (first, second):
        assert model.built and model.dtype == np.float32
        assert model.output_shape((6, 6, 1)) == (3,)
        assert model.parameter_count() == 2 * 9 + 2 + 32 * 3 + 3
    assert not Sequential([Conv2D(2, 3)]).built


def test_a_misfit_shows_the_way_to_it() -> None:
    with pytest.raises(ValueError) as caught:
        Sequential([Conv2D(8, 3, input_shape=(28, 28, 1)), Flatten(), MaxPool2D(2)], name="net")
    assert str(caught.value).startswith(
        "Sequential 'net': (28, 28, 1) -> conv2d (26, 26, 8) -> flatten (5408,) -> max_pool2d"
        " fails. MaxPool2D 'max_pool2d': "
    )
    assert "4 axes" in str(caught.value) and "Received: " in str(caught.value)


def test_a_long_way_is_shortened() -> None:
    layers = [Conv2D(1, 3) for _ in range(5)]
    with pytest.raises(ValueError, match=r"\(9, 9, 1\) -> \.\.\. -> conv2d_2 .* -> conv2d_4 fails"):
        Sequential(layers, input_shape=(9, 9, 1))


def test_graph_names_the_layer_that_no_longer_fits() -> None:
    x = Input((8, 8, 1))
    model = Graph(x, Dense(2)(Flatten()(Conv2D(2, 3)(x))), name="net")
    with pytest.raises(ValueError, match=r"Graph 'net': flatten \(8,\) -> dense fails. Dense"):
        model.forward(np.zeros((1, 4, 4, 1), np.float32))


def test_one_image_without_the_batch_axis() -> None:
    text = (
        r"Sequential 'sequential': the input is one sample; add a batch axis: x\[None\]."
        r" Received: input of shape \(9, 8, 1\)"
    )
    image = images(14, 9, 8, 1, dtype="float32")
    for model in (lenet(), lenet(input_shape=(9, 8, 1))):
        with pytest.raises(ValueError, match=text):
            model.forward(image)
    dense = Sequential([Flatten(), Dense(2)], input_shape=(9, 8, 1))
    with pytest.raises(ValueError, match="add a batch axis"):
        dense.predict(image)


def test_a_residual_whose_shapes_differ_says_what_to_do() -> None:
    with pytest.raises(ValueError) as caught:
        Residual([Conv2D(4, 3, padding="same")], input_shape=(6, 6, 3))
    assert str(caught.value) == (
        "Residual 'residual': f(x) and shortcut(x) must be of one shape to be added; give a 1x1"
        " convolution: shortcut=Conv2D(filters, 1, strides=...)."
        " Received: f(x) of shape (6, 6, 4), shortcut(x) of shape (6, 6, 3)"
    )


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda x, z: Graph([x, z], ReLU()(x)),
            ValueError,
            r"each input must be used.* Received: the unused <Input 'z': \(None, 4\)>",
        ),
        (
            lambda x, z: Graph(x, Add()([x, z])),
            ValueError,
            r"an input that inputs does not list. Received: <Input 'z': \(None, 4\)>",
        ),
        (lambda x, z: Graph([x, x], ReLU()(x)), ValueError, "inputs must be different"),
        (
            lambda x, z: Graph(ReLU()(x), ReLU()(x)),
            ValueError,
            "inputs must be made by gpucnn.Input. Received: <ReLU 're_lu'",
        ),
        (
            lambda x, z: Graph(x, (relu := ReLU())(relu(x))),
            ValueError,
            "a layer may be used once.* Received: ReLU 're_lu' twice",
        ),
        (lambda x, z: Graph(x, ReLU()), TypeError, "outputs must be a gpucnn.Input"),
        (lambda x, z: Graph(x, x), ValueError, "layers must hold at least one layer"),
        (lambda x, z: Add()(x), ValueError, "Add 'add': the layer takes a list of inputs"),
        (lambda x, z: ReLU()([x, z]), ValueError, "ReLU 're_lu': the layer takes one input"),
        (lambda x, z: Add()([x, 3]), TypeError, "Add 'add': an input must be.* Received: int"),
        (lambda x, z: Conv2D(1, 3)(x), ValueError, "Conv2D 'conv2d': .* 4 axes"),
        (lambda x, z: Input((3, 0)), ValueError, "Input: shape must be the sizes of one sample"),
    ],
    ids=["unused", "unlisted", "same", "no input", "twice", "layer", "nothing", "merge one",
         "list", "number", "shape", "size"],
)  # fmt: skip
def test_what_a_graph_refuses(make, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        make(Input((4,), name="x"), Input((4,), name="z"))


def test_a_graph_counts_its_inputs() -> None:
    with pytest.raises(ValueError, match=r"takes 2 inputs, left, input, in a list. Received: 1"):
        two_headed().forward(np.zeros((1, 6, 5, 2), np.float32))


# ---- dtypes ------------------------------------------------------------------------------------


def test_a_network_converts_its_inputs() -> None:
    model = lenet(dtype="float16")
    assert model.forward(images(15, 2, 9, 8, 1, dtype="float32")).dtype == np.float16
    assert model.layers[0].params["kernel"].dtype == np.float16
    model.astype("float32")
    assert model.forward(np.ones((1, 9, 8, 1), np.uint8)).dtype == np.float32
    assert lenet().forward(np.ones((1, 9, 8, 1), np.uint8)).dtype == np.float32
    with pytest.raises(TypeError, match=r"takes no complex numbers.* Received: .*complex64"):
        model.forward(np.ones((1, 9, 8, 1), np.complex64))


def test_layers_of_two_dtypes_are_refused() -> None:
    half = Sequential([Dense(2)], dtype="float16")
    with pytest.raises(ValueError, match="the dtype is float16; convert it with astype"):
        Sequential([half, Dense(2)], input_shape=(3,))
    built = Sequential([Dense(2)], dtype="float64", input_shape=(3,))
    with pytest.raises(ValueError, match=r"all layers must be float32.*'dense' of dtype float64"):
        Sequential([built.layers[0]], dtype="float32")


def test_built_layers_settle_the_dtype() -> None:
    layers = lenet(input_shape=(9, 8, 1), dtype="float64").layers[:2]
    model = Sequential([*layers, Flatten(name="flat"), Dense(2, name="head")])
    assert model.dtype == model.layers[-1].params["kernel"].dtype == np.float64
    later = Sequential([ReLU(), *layers])
    assert later.forward(images(1, 1, 9, 8, 1, dtype="float32")).dtype == np.float64


def test_built_layers_keep_their_weights() -> None:
    trained = lenet(input_shape=(9, 8, 1))
    kernel = trained.layers[0].params["kernel"].copy()
    model = Sequential([*trained.layers[:2], Flatten(name="flat"), Dense(2, name="head")])
    assert model.built
    np.testing.assert_array_equal(model.layers[0].params["kernel"], kernel)


# ---- weights by path ---------------------------------------------------------------------------


def test_state_dict_round_trip() -> None:
    x = images(16, 4, 9, 8, 1)
    model = lenet()
    twin = from_config(to_config(model))
    model.forward(x, training=True)  # moves the statistics and the dropout's counter
    twin.forward(x)
    state = model.state_dict()
    assert {"conv2d/kernel", "batch_norm/moving_mean", "dense/bias"} <= set(state)
    assert not np.array_equal(twin.forward(x), model.forward(x))
    kernel = twin.layers[0].params["kernel"]
    twin.load_state_dict(state)
    np.testing.assert_array_equal(twin.forward(x), model.forward(x))
    np.testing.assert_array_equal(twin.forward(x, training=True), model.forward(x, training=True))
    assert twin.layers[0].params["kernel"] is kernel  # filled in place
    state["conv2d/kernel"][:] = 0  # a copy: the network does not change
    np.testing.assert_array_equal(twin.forward(x), model.forward(x))


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    model = lenet(input_shape=(9, 8, 1))
    state = {path: array + 1 for path, array in model.state_dict().items()}
    before = model.state_dict()
    del state["dense/bias"]
    state["extra/kernel"] = np.zeros(3)
    state["conv2d/kernel"] = state["conv2d/kernel"][:2]
    with pytest.raises(ValueError) as caught:
        model.load_state_dict(state)
    assert str(caught.value).startswith(
        "Sequential 'sequential': the state does not fit, and nothing was changed; missing:"
        " dense/bias; unexpected: extra/kernel; conv2d/kernel must be of shape (4, 3, 3, 1), not"
        " (2, 3, 3, 1). Received: "
    )
    with pytest.raises(ValueError, match="conv2d/kernel must be of shape"):
        model.load_state_dict(state, strict=False)
    for path, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[path])
    del state["conv2d/kernel"]
    model.load_state_dict(state, strict=False)
    after = model.state_dict()
    np.testing.assert_array_equal(after["dense/kernel"], before["dense/kernel"] + 1)
    np.testing.assert_array_equal(after["dense/bias"], before["dense/bias"])


def test_no_weights_before_the_network_is_built() -> None:
    with pytest.raises(RuntimeError, match="there are no parameters yet; give the first layer its"):
        lenet().state_dict()


def test_parameters_leaves_out_what_is_frozen() -> None:
    model = Sequential([Conv2D(1, 1), Sequential([Conv2D(1, 1)]), Dense(2)], input_shape=(3, 3, 1))
    paths = ["conv2d/kernel", "conv2d/bias", "sequential/conv2d/kernel", "sequential/conv2d/bias",
             "dense/kernel", "dense/bias"]  # fmt: skip
    assert [p.path for p in model.parameters()] == paths
    model.layers[1].trainable = False
    model.layers[2].trainable = False
    assert [p.path for p in model.parameters()] == paths[:2]
    model.trainable = False
    assert list(model.parameters()) == []


# ---- configuration -----------------------------------------------------------------------------


def assert_twins(model: Layer, *inputs: np.ndarray) -> None:
    text = json.dumps(to_config(model))
    twin = from_config(json.loads(text))
    assert type(twin) is type(model)
    assert json.dumps(to_config(twin)) == text
    twin.load_state_dict(model.state_dict())
    given = list(inputs) if len(inputs) > 1 else inputs[0]
    y, z = model.forward(given), twin.forward(given)
    pairs = zip(y, z, strict=True) if isinstance(y, list) else [(y, z)]
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


def test_networks_come_back_from_json() -> None:
    assert_twins(two_headed(), images(7, 2, 6, 5, 2), images(8, 2, 6, 5, 3))
    nested = Sequential(
        [Conv2D(2, 3, name="stem"), Residual([block()], Conv2D(6, 1, strides=2)), Flatten()],
        dtype="float64",
        name="net",
    )
    x = Input((7, 6, 1))
    graph = Graph(x, Dense(2)(nested(x)), dtype="float64")
    assert_twins(graph, images(9, 2, 7, 6, 1))
    assert_twins(Residual([Conv2D(2, 1)], activation=ReLU(), input_shape=(3, 3, 2)),
                 images(10, 1, 3, 3, 2))  # fmt: skip


def test_an_unbuilt_network_comes_back_unbuilt() -> None:
    twin = from_config(json.loads(json.dumps(to_config(lenet()))))
    assert not twin.built
    assert twin.forward(images(16, 1, 9, 8, 1)).dtype == np.float64


# ---- predict -----------------------------------------------------------------------------------


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


# ---- summary -----------------------------------------------------------------------------------

TABLE = """\
Sequential 'net', float32, input (None, 8, 8, 1)
---------------------------------------------------------------------
Layer (class)              Output shape     Parameters  Multiply-adds
---------------------------------------------------------------------
conv2d (Conv2D)            (None, 6, 6, 4)          40          1,296
batch_norm (BatchNorm)     (None, 6, 6, 4)          16              0
residual (Residual)        (None, 6, 6, 4)
  conv2d (Conv2D)          (None, 6, 6, 4)         148          5,184
  activation (Activation)  (None, 6, 6, 4)           0              0
flatten (Flatten)          (None, 144)               0              0
dense (Dense)              (None, 10)            1,450          1,440
---------------------------------------------------------------------
Parameters: 1,654 (6.5 KiB): 1,498 trainable, 156 non-trainable
Multiply-adds for one sample: 7,920"""


def summarised() -> Sequential:
    residual = Residual([Conv2D(4, 3, padding="same")], activation="relu")
    residual.layers[0].trainable = False
    return Sequential([Conv2D(4, 3), BatchNorm(), residual, Flatten(), Dense(10)], name="net")


def test_summary_text() -> None:
    assert summarised().summary_text((8, 8, 1)) == TABLE


def test_summary_prints(capsys: pytest.CaptureFixture[str]) -> None:
    model = summarised()
    assert model.summary(input_shape=(8, 8, 1)) is None
    assert capsys.readouterr().out == model.summary_text() + "\n"


def test_summary_shows_where_a_graphs_values_come_from() -> None:
    text = two_headed().summary_text()
    assert "add (Add) <- conv2d, conv2d_1" in text
    assert "conv2d_1 (Conv2D) <- input" in text
    assert "conv2d (Conv2D) <- left" in text
    assert "dense (Dense)  " in text


def test_summary_needs_a_shape() -> None:
    with pytest.raises(ValueError, match=r"model.summary\(input_shape=\(28, 28, 1\)\). Received"):
        lenet().summary()

"""Names of layers and shapes of data in networks, and what errors say of them."""

import numpy as np
import pytest

from gpucnn.layers import (
    Add,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    ReLU,
)
from gpucnn.network import Graph, Input, Residual, Sequential
from gpucnn.optimizers import SGD

from .networks import images, lenet, two_headed
from .networks import numpy_backend as numpy_backend

# ---- names ---------------------------------------------------------------------------------------


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
    with pytest.raises(TypeError, match="Sequential 'sequential': input must be an array"):
        model.forward(None)
    assert not model.built and model.dtype is None


# ---- shapes, and what errors say -----------------------------------------------------------------


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

"""What a network holds: a dtype, weights by path, its configuration, and its summary."""

import json

import numpy as np
import pytest

from gpucnn.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    ReLU,
    from_config,
    to_config,
)
from gpucnn.layers.base import Layer
from gpucnn.network import Graph, Input, Residual, Sequential

from .networks import block, images, lenet, two_headed
from .networks import numpy_backend as numpy_backend

# ---- dtypes --------------------------------------------------------------------------------------


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


# ---- weights by path -----------------------------------------------------------------------------


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


# ---- configuration -------------------------------------------------------------------------------


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


# ---- summary -------------------------------------------------------------------------------------

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

"""Networks exported to ONNX: names, layouts, files, and what cannot be expressed."""

from __future__ import annotations

import json
import sys
from functools import partial

import numpy as np
import onnx
import pytest

import gpucnn
import gpucnn.onnx
from gpucnn import layers as L
from gpucnn import models
from gpucnn.models.imagenet import vgg

from .networks import block, lenet, two_headed
from .networks import numpy_backend as numpy_backend
from .onnx_export import assert_same, checked, exact, in_runtime, ops, randomised, samples
from .tolerance import assert_close

# VGG's dense layers would take most of the time: one stands for the four, with fewer filters.
ZOO = {name: partial(models.make, name) for name in models.MODELS if not name.startswith("vgg1")}
ZOO["vgg"] = partial(vgg, "vgg", (8, "M", 8, "M", 16, 16, "M"), True, width=32)


@pytest.mark.parametrize("name", ZOO)
def test_the_networks_with_names(name):
    shape = min(models.USUAL.get(name, (32, 40, 3)), (32, 40, 3))
    network = randomised(ZOO[name](5, shape))
    model = checked(network)
    for batch in (1, 3):
        assert_same(network, model, samples([shape], batch))
    # Its input is transposed once, and nothing after it.
    assert ops(model)[0] == "Transpose" and ops(model).count("Transpose") == 1


@pytest.mark.parametrize("name", ZOO)
def test_what_was_exported_can_be_imported(name):
    shape = min(models.USUAL.get(name, (32, 40, 3)), (32, 40, 3))
    network = randomised(ZOO[name](5, shape))
    (x,) = samples([shape], 2)
    made = gpucnn.onnx.export(network, channels_first=True)
    again = gpucnn.onnx.load(made)
    expected = exact(network, [x])
    y = again.forward(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    assert_close(y, expected, dtype="float32", reduction=2000, magnitude=np.abs(expected).max())
    assert ops(gpucnn.onnx.export(again)) == ops(made)


def test_inputs_and_outputs_in_onnxs_own_layout():
    network = randomised(gpucnn.Sequential([L.Conv2D(4, 3, padding="same"), block()]))
    network.build((6, 8, 2))
    model = checked(network, channels_first=True)
    assert "Transpose" not in ops(model)
    (x,) = samples([(6, 8, 2)], 2)
    (y,) = in_runtime(model, [np.moveaxis(x, -1, 1)])
    np.testing.assert_array_equal(np.moveaxis(y, 1, -1), in_runtime(checked(network), [x])[0])


def test_a_graph_of_two_inputs_and_outputs():
    network = randomised(two_headed())
    model = checked(network)
    assert [value.name for value in model.graph.input] == ["left", "input"]
    assert [value.name for value in model.graph.output] == ["dense", "conv2d"]
    for batch in (1, 3):
        assert_same(network, model, samples([(6, 5, 2), (6, 5, 3)], batch))
    first = checked(network, channels_first=True)
    assert "Transpose" not in ops(first)


def test_what_lies_in_two_orders_is_brought_to_one():
    x = gpucnn.Input((5, 4, 3))
    y = L.Conv2D(3, 3, padding="same")(x)
    network = gpucnn.Graph(x, [L.Add()([x, y, x]), L.Concatenate(axis=2)([x, y])])
    assert_same(randomised(network), checked(network), samples([(5, 4, 3)], 2))
    network = gpucnn.Sequential([gpucnn.Residual([L.Conv2D(3, 3, padding="same")])])
    network.build((5, 4, 3))
    assert_same(randomised(network), checked(network), samples([(5, 4, 3)], 2))


def nested() -> gpucnn.Graph:
    x = gpucnn.Input((8, 8, 2), name="image")
    inner = gpucnn.Sequential([L.Conv2D(3, 3, padding="same"), block(), L.Permute((3, 1, 2))])(x)
    first = L.Conv2D(2, 3, data_format="channels_first", name="first")(inner)
    gate = L.Dense(2, "sigmoid")(L.Permute((2, 3, 1))(L.GlobalMaxPool2D(
        keepdims=True, data_format="channels_first")(first)))  # fmt: skip
    scaled = L.Multiply()([L.Permute((2, 3, 1))(first), gate])
    rows = [L.Flatten()(L.Dropout(0.5)(scaled)), L.Flatten()(L.LayerNorm()(first))]
    joined = L.BatchNorm()(L.Concatenate()([L.PReLU()(rows[0]), rows[1]]))
    return gpucnn.Graph(x, L.Dense(4, "softmax")(joined))


def test_networks_in_networks_and_both_layouts():
    network = randomised(nested())
    model = checked(network)
    for batch in (1, 3):
        assert_same(network, model, samples([(8, 8, 2)], batch))
    # Permute calls the axes otherwise, and moves none. What was flattened is gathered for PReLU,
    # which has a number for each column.
    assert ops(model).count("Transpose") == 1
    assert ops(model).count("Gather") == 1


def test_a_dense_layer_behind_a_map_takes_its_columns_as_they_lie():
    network = randomised(lenet(input_shape=(8, 7, 1)))
    model = checked(network)
    assert ops(model)[-2:] == ["Flatten", "Gemm"] and "Gather" not in ops(model)
    assert_same(network, model, samples([(8, 7, 1)], 3))


def test_an_output_may_be_an_input_or_another_output():
    x = gpucnn.Input((4, 3), name="output")
    y = L.ReLU(name="re")(x)
    network = gpucnn.Graph(x, [y, x, L.Dropout(0.1)(y)])
    model = checked(network)
    names = [value.name for value in model.graph.output]
    assert len({*names, "output"}) == 4
    assert_same(network, model, samples([(4, 3)], 2))


def test_names_are_those_of_state_dict():
    network = lenet(input_shape=(8, 7, 1))
    inside = gpucnn.Sequential([block(), L.BatchNorm()], input_shape=(8, 8, 2))
    for model in (network, inside):
        names = {tensor.name for tensor in checked(model).graph.initializer}
        arrays = {path for path in model.state_dict() if path.split("/")[0] != "dropout"}
        assert names >= arrays
        assert all("/" in name for name in names)
    (batch, *sizes) = checked(network).graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "batch" and [size.dim_value for size in sizes] == [8, 7, 1]


def test_another_size_of_image():
    network = randomised(gpucnn.Sequential([L.Conv2D(3, 3, strides=2, padding="same")]))
    model = checked(network, input_shape=(7, 6, 2))  # builds it
    assert_same(network, model, samples([(7, 6, 2)], 2))
    assert_same(network, checked(network, input_shape=(4, 9, 2)), samples([(4, 9, 2)], 2))


@pytest.mark.parametrize("first", [False, True])
def test_normalisation_and_classes(first):
    normalize = gpucnn.data.Normalize((100.0, 120.0), (50.0, 60.0))
    network = randomised(lenet(input_shape=(8, 7, 2)))
    model = checked(network, normalize=normalize, classes=["a", "b"], channels_first=first)
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 7, 2)).astype("float32")
    expected = exact(network, [normalize(x)])
    (y,) = in_runtime(model, [np.moveaxis(x, -1, 1) if first else x])
    assert_close(y, expected, dtype="float32", reduction=2000, magnitude=np.abs(expected).max())
    assert {item.key: json.loads(item.value) for item in model.metadata_props} == {
        "classes": ["a", "b"]
    }


def test_a_file(tmp_path):
    network = randomised(lenet(input_shape=(8, 7, 1)))
    path = gpucnn.onnx.save(network, tmp_path / "made" / "model.onnx")
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    assert onnx.load(path) == gpucnn.onnx.export(network)
    assert onnx.load(path).producer_name == "gpucnn"


# ---- errors --------------------------------------------------------------------------------------


class Doubled(L.ReLU):
    """What a person wrote beside our layers."""

    def _forward(self, x, training):
        return 2 * super()._forward(x, training)


def test_all_layers_that_cannot_be_expressed_are_listed():
    inner = gpucnn.Residual([L.ReLU(), Doubled(name="mine")])
    network = gpucnn.Sequential([Doubled(), inner, L.Flatten()], input_shape=(3, 4))
    pattern = r"cannot express: doubled \(Doubled\).*residual/mine"
    with pytest.raises(gpucnn.onnx.UnsupportedError, match=pattern) as e:
        gpucnn.onnx.export(network)
    assert str(e.value).endswith("Received: 2 such layers of 4")


def test_uses_of_layers_that_cannot_be_expressed():
    x, y = gpucnn.Input((7, 2)), gpucnn.Input((3, 2))
    unpool = L.MaxUnpool1D(2, strides=2, padding=((0, 1),), dilation_rate=2)
    network = gpucnn.Graph([y, x], unpool([y, x]))
    with pytest.raises(ValueError, match=r"max_unpool1d \(MaxUnpool1D\): a MaxUnpool of dilated"):
        gpucnn.onnx.export(network)
    resize = L.Resize(6, scale=1.5, axes=(1,))
    with pytest.raises(ValueError, match="another size than its scale gives"):
        gpucnn.onnx.export(resize, input_shape=(5, 2))


def test_complex_networks_are_refused():
    network = gpucnn.Sequential([L.Conv1D(2, 3), L.Flatten()], dtype="complex64")
    with pytest.raises(ValueError, match=r"conv1d \(Conv1D\): ONNX has no complex64 arithmetic"):
        gpucnn.onnx.export(network, input_shape=(5, 1))


def test_other_errors(tmp_path):
    with pytest.raises(ValueError, match=r"not built yet; give input_shape.*Received: input_sh"):
        gpucnn.onnx.export(lenet())
    with pytest.raises(TypeError, match=r"model must be a network or a layer\. Received: 'model'"):
        gpucnn.onnx.export("model")
    with pytest.raises(ValueError, match=r"must have 1 channels.*Received: input of shape"):
        gpucnn.onnx.save(lenet(input_shape=(8, 7, 1)), tmp_path / "x.onnx", input_shape=(8, 7, 3))
    assert not list(tmp_path.iterdir())
    first = L.Conv2D(2, 3, data_format="channels_first", input_shape=(2, 5, 5))
    with pytest.raises(ValueError, match=r"take their channels last. Received:.* in conv2d"):
        gpucnn.onnx.export(gpucnn.Sequential([first]), channels_first=True)


def test_onnx_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "gpucnn\[onnx\]"'):
        gpucnn.onnx.export(lenet(input_shape=(8, 7, 1)))

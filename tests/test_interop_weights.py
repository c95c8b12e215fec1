"""Weights of PyTorch's networks: the same numbers, or all that does not fit in one error."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

import gpucnn
from gpucnn import layers as L
from gpucnn import models
from gpucnn.interop import load_state_dict
from gpucnn.interop.tables import TABLES
from gpucnn.interop.weights import _expected, place
from gpucnn.layers import base
from gpucnn.models.imagenet import vgg

from . import torchvision_models as theirs
from .networks import block, images, lenet
from .networks import numpy_backend as numpy_backend
from .tolerance import assert_close

IMAGENET = [name for name in models.MODELS if hasattr(theirs.models, name)]


def chain(**modules: nn.Module) -> nn.Module:
    """Return modules one after another, by these names."""
    return theirs.randomised(nn.Sequential(OrderedDict(modules)))


def arrays_of(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def assert_same(model: gpucnn.Sequential, network: nn.Module, x: np.ndarray) -> None:
    """Compare the outputs for x, whose channels lie last, in float64."""
    with torch.no_grad():
        y = network.double()(torch.from_numpy(np.moveaxis(x, -1, 1))).numpy()
    first = any(getattr(layer, "data_format", "") == "channels_first" for _, layer in model.walk())
    got = model.astype("float64").predict(np.moveaxis(x, -1, 1) if first else x)
    y = y if first or y.ndim == 2 else np.moveaxis(y, 1, -1)
    assert_close(got, y, reduction=2000, magnitude=np.abs(y).max())


# ---- torchvision's networks ----------------------------------------------------------------------


def test_the_networks_are_all_there():
    assert len(IMAGENET) == 8


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_a_state_dict_in_a_file_gives_torchvisions_outputs(name, tmp_path):
    torch.manual_seed(1)
    network = theirs.randomised(getattr(theirs.models, name)(weights=None, num_classes=11))
    save_file(arrays_of(network), tmp_path / "weights.safetensors")
    model = models.make(name, 11, (64, 40, 3))
    load_state_dict(model, tmp_path / "weights.safetensors")
    assert_same(model, network, images(0, 2, 64, 40, 3))


@pytest.mark.parametrize("with_norm", [False, True])
def test_vggs_dense_layers_read_the_map_in_our_order(with_norm):
    plan = (4, "M", 6, 6, "M", 5, "M")  # narrow, with a map of 2x3x5 behind it
    features = theirs.models.vgg.make_layers(list(plan), with_norm)
    classifier = nn.Sequential(
        nn.Linear(30, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 16), nn.ReLU(), nn.Dropout(),
        nn.Linear(16, 7),
    )  # fmt: skip
    network = chain(features=features, flatten=nn.Flatten(), classifier=classifier)
    model = vgg("narrow", plan, with_norm, 7, (16, 24, 3), width=16)
    load_state_dict(model, arrays_of(network))
    assert_same(model, network, images(0, 2, 16, 24, 3))


@pytest.mark.parametrize("name", IMAGENET)
def test_every_array_has_its_place(name, monkeypatch):
    """At full size, where neither side takes the memory for its numbers."""
    monkeypatch.setattr(base, "initialize", lambda _, __, shape, ___, dtype: np.zeros(shape, dtype))
    model = models.make(name, 1000, (224, 224, 3))
    with torch.device("meta"):
        state = getattr(theirs.models, name)(weights=None).state_dict()
    layers = dict(model.walk())
    places = {
        f"{path}/{key}": _expected(layer, key, array.shape)
        for path, layer in layers.items()
        for key, array in (layer.params | layer.state).items()
    }
    assert places == {
        place(name, TABLES["torchvision"], layers): tuple(tensor.shape)
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


# ---- other networks ------------------------------------------------------------------------------


def many_kinds(data_format: str) -> gpucnn.Sequential:
    """One of each kind of layer that has weights; all but the last named as PyTorch's."""
    axis = -1 if data_format == "channels_last" else 1
    of = {"data_format": data_format}
    return gpucnn.Sequential(
        [
            L.Conv2D(6, (3, 2), groups=3, name="a", **of),
            L.GroupNorm(2, epsilon=1e-5, axis=axis, name="b"),
            L.PReLU(axis=axis, name="c"),
            L.Conv2DTranspose(4, (2, 3), strides=2, padding=1, groups=2, name="d", **of),
            L.SeparableConv2D(5, 3, depth_multiplier=2, name="e", **of),
            L.MaxPool2D(2, **of),
            gpucnn.Sequential([L.Flatten(), L.Dropout(0.1), L.BatchNorm(epsilon=1e-5, name="n")]),
            L.ReLU(),
            L.Dense(7, name="dense"),
            L.LayerNorm(epsilon=1e-5, name="f"),
        ],
        input_shape=(8, 7, 3) if axis == -1 else (3, 8, 7),
    )  # fmt: skip


def many_modules() -> nn.Sequential:
    return chain(
        a=nn.Conv2d(3, 6, (3, 2), groups=3),
        b=nn.GroupNorm(2, 6),
        c=nn.PReLU(6),
        d=nn.ConvTranspose2d(6, 4, (2, 3), 2, 1, groups=2),
        e=nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.Conv2d(8, 5, 1)),
        pool=nn.MaxPool2d(2),
        flat=nn.Flatten(),
        norm=nn.BatchNorm1d(5 * 4 * 4),
        relu=nn.ReLU(),
        last=nn.Sequential(nn.Linear(5 * 4 * 4, 7)),
        f=nn.LayerNorm(7),
    )


OWN_TABLE = (
    (r"e\.0\.weight", "e/depthwise_kernel"),
    (r"e\.1\.weight", "e/pointwise_kernel"),
    (r"e\.1\.bias", "e/bias"),
    (r"last\.\d+", "dense"),
    (r"norm", "sequential/n"),
)  # and the others by their own names


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_patterns_of_ones_own(data_format):
    model, network = many_kinds(data_format), many_modules()
    load_state_dict(model, arrays_of(network), OWN_TABLE)
    assert_same(model, network, images(0, 3, 8, 7, 3))


def test_tensors_and_a_graph():
    x = gpucnn.Input((5, 4, 2))
    y = L.Dense(3, name="fc")(L.Reshape((-1,))(L.Conv2D(3, 2, name="conv")(x)))
    network = chain(conv=nn.Conv2d(2, 3, 2), flatten=nn.Flatten(), fc=nn.Linear(36, 3))
    model = gpucnn.Graph(x, y)
    load_state_dict(model, network.state_dict(), table=())
    assert_same(model, network, images(0, 2, 5, 4, 2))


def test_a_permute_gives_pytorchs_order_itself():
    model = gpucnn.Sequential(
        [
            L.Conv2D(3, 2, name="conv"),
            L.Permute((3, 1, 2)),
            L.Reshape((36,)),
            L.Dense(3, name="fc"),
        ],
        input_shape=(5, 4, 2),
    )
    network = chain(conv=nn.Conv2d(2, 3, 2), flatten=nn.Flatten(), fc=nn.Linear(36, 3))
    load_state_dict(model, network.state_dict(), table=())
    assert_same(model, network, images(0, 2, 5, 4, 2))


def test_initializers_of_an_onnx_file(tmp_path):
    network = nn.Sequential(nn.Conv2d(2, 3, 2))
    graph = onnx.helper.make_graph(
        [], "weights", [], [],
        [onnx.numpy_helper.from_array(a, name) for name, a in arrays_of(network).items()],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph), tmp_path / "weights.onnx")
    model = gpucnn.Sequential([L.Conv2D(3, 2, name="0", input_shape=(4, 4, 2))])
    load_state_dict(model, str(tmp_path / "weights.onnx"), table=())
    assert_same(model, network, images(0, 1, 4, 4, 2))


def test_other_dtypes(tmp_path):
    model = gpucnn.Sequential([L.Dense(3, name="fc", input_shape=(4,))], dtype="bfloat16")
    weight = images(0, 3, 4).astype(model.dtype)
    arrays = {"fc.weight": weight, "fc.bias": np.zeros(3, model.dtype)}
    save_file(arrays, tmp_path / "x.safetensors")
    load_state_dict(model, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(model.layers[0].params["kernel"], weight)


# ---- what does not fit ---------------------------------------------------------------------------


def resnet() -> tuple[gpucnn.Sequential, dict[str, np.ndarray]]:
    model = gpucnn.Sequential(
        [L.Conv2D(4, 3, name="conv1", use_bias=False), L.BatchNorm(name="bn1"),
         L.GlobalAveragePool2D(), L.Dense(5, name="fc")], input_shape=(6, 6, 2),
    )  # fmt: skip
    modules = {
        "conv1": nn.Conv2d(2, 4, 3, bias=False),
        "bn1": nn.BatchNorm2d(4),
        "fc": nn.Linear(4, 5),
    }
    return model, arrays_of(nn.ModuleDict(modules))


def test_all_that_does_not_fit_is_listed_and_nothing_is_changed():
    model, arrays = resnet()
    before = model.state_dict()
    arrays["conv1.weight"] = arrays["conv1.weight"][:, :, :2]
    arrays["extra.weight"] = arrays.pop("fc.weight")
    with pytest.raises(ValueError) as error:
        load_state_dict(model, arrays)
    assert str(error.value) == (
        "load_state_dict: the weights do not fit Sequential 'sequential', and nothing was changed;"
        " conv1.weight must be of shape (4, 2, 3, 3), not (4, 2, 2, 3);"
        " unused: extra.weight (no extra/weight); missing: fc/kernel."
        " Received: 8 arrays for 7 places"
    )
    for path, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[path])


def test_only_what_is_there_where_it_is_not_strict():
    model, arrays = resnet()
    kernel = model.layers[-1].params["kernel"].copy()
    del arrays["fc.weight"]
    arrays["extra.weight"] = np.ones(3)
    load_state_dict(model, arrays, strict=False)
    np.testing.assert_array_equal(model.layers[-1].params["kernel"], kernel)
    np.testing.assert_array_equal(model.layers[-1].params["bias"], arrays["fc.bias"])
    arrays["fc.weight"] = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"fc.weight must be of shape \(5, 4\), not \(3, 4\)"):
        load_state_dict(model, arrays, strict=False)


def test_two_arrays_for_one_place():
    model, arrays = resnet()
    arrays["other.weight"] = arrays["fc.weight"]
    with pytest.raises(ValueError, match=r"other\.weight and fc\.weight are both fc/kernel"):
        load_state_dict(model, arrays, [("other", "fc")])


def test_columns_that_meet_others_are_refused():
    x = gpucnn.Input((4, 4, 2))
    flat = L.Flatten()(x)
    model = gpucnn.Graph(x, L.Dense(2)(L.Concatenate()([flat, flat])))
    with pytest.raises(ValueError, match=r"in Concatenate.*put Permute.*map of shape \(4, 4, 2\)"):
        load_state_dict(model, {}, strict=False)
    inside = gpucnn.Residual([L.Dense(32)])
    model = gpucnn.Sequential([L.Flatten(), inside], input_shape=(4, 4, 2))
    with pytest.raises(ValueError, match=r"Residual.*in Dense.*Received: a map of shape"):
        load_state_dict(model, {}, strict=False)


def test_sources_that_are_none(tmp_path):
    model = lenet(input_shape=(8, 7, 1))
    (tmp_path / "a.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"a\.safetensors: not a safetensors file, or damaged"):
        load_state_dict(model, tmp_path / "a.safetensors")
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"not an ONNX model, or damaged.*a\.onnx"):
        load_state_dict(model, tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError):
        load_state_dict(model, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"safetensors.torch.save_file.*Received: 'model.pth'"):
        load_state_dict(model, "model.pth")
    with pytest.raises(ValueError, match=r"one of 'torchvision', or pairs.*Received: table='timm'"):
        load_state_dict(model, {}, "timm")
    with pytest.raises(ValueError, match=r"regular expressions: .*Received: '\("):
        load_state_dict(model, {}, [("(", "fc")])
    with pytest.raises(RuntimeError, match="no parameters yet"):
        load_state_dict(block(), {})

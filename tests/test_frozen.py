"""Frozen networks: what is left of the layers, and that the answers are theirs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from gpucnn import layers as L
from gpucnn import models
from gpucnn.backends import use_backend
from gpucnn.backends.base import Backend
from gpucnn.backends.numpy.tape import Tape
from gpucnn.backends.numpy.tape import tape as tape_module
from gpucnn.backends.numpy.tape.activation import FORMULAS
from gpucnn.backends.numpy.tape.conv import MOST_COLUMNS, Algorithmic, Columns, Depthwise
from gpucnn.backends.numpy.threads import one_blas_thread
from gpucnn.initializers import set_seed
from gpucnn.layers.base import inference_mode
from gpucnn.network import Graph, Input, Network, Residual, Sequential
from gpucnn.network.joining import joined
from gpucnn.network.program import record

from .conftest import make_backend
from .layer_cases import CASES
from .networks import block, lenet, numpy_backend, two_headed  # noqa: F401
from .test_network_plan import NETWORKS
from .tolerance import assert_close

TERMS = 4096  # roundings on the longest way through any of these networks


def settle(network: L.Layer, seed: int = 1) -> None:
    """Give a built network weights and statistics that leave no term out."""
    rng = np.random.default_rng(seed)
    for _, layer in network.walk():
        for name, array in (*layer.params.items(), *layer.state.items()):
            if name != "kernel":
                array[...] = rng.uniform(0.5, 1.5, array.shape)


def drawn(*shape: int, dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(y: np.ndarray, right: np.ndarray) -> None:
    assert_close(y, right, dtype=y.dtype, reduction=TERMS, magnitude=np.abs(right).max())


def check(network: Network, *xs: np.ndarray, dtype: Any = "float64") -> None:
    """Compare the frozen network with ``forward`` in float64, and call it twice."""
    with inference_mode():
        network.forward(list(xs) if len(xs) > 1 else xs[0])
    settle(network)
    with inference_mode():
        expected = network.forward(list(xs) if len(xs) > 1 else xs[0])
    frozen = network.astype(dtype).freeze()
    given = [x.astype(dtype) for x in xs]
    for _ in range(2):
        ours = frozen(given if len(given) > 1 else given[0])
        several = isinstance(expected, list)
        pairs = zip(*((ours, expected) if several else ([ours], [expected])), strict=True)
        for y, right in pairs:
            assert y.dtype == np.dtype(dtype) and y.flags.c_contiguous
            close(y, right)


# ---- what is left --------------------------------------------------------------------------------


def text(*layers: L.Layer, shape: tuple[int, ...] = (8, 8, 2)) -> list[str]:
    return str(record(Sequential(layers, input_shape=shape))).splitlines()


def test_norms_and_activations_go_into_the_weights_before_them() -> None:
    layers = [
        L.Conv2D(3, 3), L.BatchNorm(activation="relu"), L.MaxPool2D(2), L.Dropout(0.5), L.Flatten(),
        L.Dense(4, use_bias=False), L.BatchNorm(), L.ReLU(max_value=6), L.Dense(2, "softmax"),
    ]  # fmt: skip
    assert text(*layers) == [
        "v2 = conv(v0)  # conv2d+batch_norm",
        "v3 = pool relu(v2)  # max_pool2d",
        "v4 = reshape(v3)  # flatten",
        "v7 = dense relu6(v4)  # dense+batch_norm_1+re_lu",
        "v8 = dense(v7)  # dense_1",
        "v9 = layer(v8)  # softmax",
    ]


def test_what_others_read_is_left_as_it_is() -> None:
    x = Input((8, 8, 2))
    h = L.Conv2D(2, 3, padding="same", name="stem")(x)
    y = L.BatchNorm(name="norm")(h)
    total = L.ReLU(name="last")(L.Add(name="add")([h, L.ReLU(name="first")(y)]))
    assert str(record(Graph(x, [total, y]))).splitlines() == [
        "v1 = conv(v0)  # stem",
        "v2 = scale(v1)  # norm",
        "v3 = activation(v2)  # first",
        "v5 = sum relu(v1, v3)  # add+last",
    ]


def test_a_norm_over_another_axis_is_no_part_of_a_convolution() -> None:
    assert text(L.Conv2D(8, 3, padding="same"), L.BatchNorm(axis=1), shape=(8, 8, 2)) == [
        "v1 = conv(v0)  # conv2d",
        "v2 = scale(v1)  # batch_norm",
    ]


def test_a_layer_that_goes_its_own_way_is_asked() -> None:
    class Twice(L.ReLU):
        def _forward(self, x: np.ndarray, training: bool) -> np.ndarray:
            return 2 * super()._forward(x, training)

    network = Sequential([L.Conv2D(3, 3), Twice()])
    check(network, drawn(2, 6, 5, 2))
    assert [operation.kind for operation in record(network).operations] == ["conv", "layer"]


# ---- the answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CASES if "complex" not in name])
def test_every_layer(name: str) -> None:
    case = CASES[name]
    shapes = case.x_shape if isinstance(case.x_shape, list) else [case.x_shape]
    inputs = [Input(shape[1:]) for shape in shapes]
    layer = case.layer()
    network = Graph(inputs, layer(inputs if layer.takes_many else inputs[0]), dtype="float64")
    check(network, *(drawn(*shape, seed=place) for place, shape in enumerate(shapes)))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_fuse(name: str, backend: Backend) -> None:
    """On every backend: those that bind no tape run operation after operation."""
    set_seed(3)
    network = NETWORKS[name]()
    x = drawn(3, 8, 9, 2) if name != "first" else drawn(3, 2, 8, 9)
    x = backend.asarray(x.astype(np.float32))
    network.forward(x, training=True)
    with inference_mode():
        expected = network.forward(x)
    ours = network.freeze()(x)
    for y, right in zip(
        *((v if isinstance(v, list) else [v]) for v in (ours, expected)), strict=True
    ):
        y, right = backend.to_numpy(y), backend.to_numpy(right)
        close(y, right)


@pytest.mark.parametrize("make", [lenet, block, two_headed])
def test_networks(make: Callable[[], Network]) -> None:
    network = make(dtype="float64")
    if make is two_headed:
        check(network, drawn(2, 6, 5, 2), drawn(2, 6, 5, 3, seed=1))
    else:
        check(network, drawn(3, 11, 12, 3))


def picture(name: str) -> tuple[int, int, int]:
    return (28, 28, 1) if name in ("lenet5", "digits_cnn") else (32, 32, 3)


@pytest.mark.parametrize("name", models.MODELS)
def test_the_zoo(name: str) -> None:
    shape = picture(name)
    network = models.make(name, classes=10, input_shape=shape, dtype="float64")
    check(network, drawn(1, *shape).astype(np.float32).astype(np.float64), dtype="float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", models.MODELS)
def test_half_the_bits_are_no_worse_than_layer_by_layer(name: str, dtype: str) -> None:
    """The tape computes in float32; only the answers are rounded."""
    network = models.make(name, classes=10, input_shape=picture(name))
    settle(network)
    x = L.base.as_dtype("x", dtype).type(drawn(4, *picture(name)))
    network.astype(dtype)
    frozen, forward = network.freeze()(x), network.predict(x)
    right = network.astype("float64").predict(x.astype(np.float64))
    errors = [np.square(y - right).mean() for y in (frozen, forward)]
    assert frozen.dtype == x.dtype and errors[0] <= errors[1]


CONVOLUTIONS = {
    "asymmetric": (L.Conv2D(5, 3, padding=((2, 0), (1, 2))), (2, 7, 8, 3)),
    "strided and dilated": (
        L.Conv2D(4, (3, 2), strides=(2, 3), dilation_rate=(2, 3)), (2, 9, 13, 8),
    ),
    "channels first": (
        L.Conv2D(4, 3, strides=2, padding="same", data_format="channels_first"), (3, 5, 8, 9),
    ),
    "wide 1x1": (L.Conv2D(6, 1), (3, 5, 4, 20)),
    "strided 1x1": (L.Conv2D(6, 1, strides=2), (3, 5, 4, 20)),
    "1-D": (L.Conv1D(6, 3, padding="causal", dilation_rate=2), (1, 9, 16)),
    "3-D": (L.Conv3D(3, (2, 3, 1), strides=(1, 2, 1), padding="same"), (2, 4, 5, 3, 6)),
    "groups": (L.Conv2D(8, 3, groups=2, padding=1), (2, 6, 5, 4)),
    "depthwise": (L.DepthwiseConv2D((3, 2), padding="same"), (2, 6, 5, 4)),
    "strided depthwise": (L.DepthwiseConv2D(3, strides=(1, 2), padding="same"), (2, 6, 7, 4)),
    "dilated depthwise": (L.DepthwiseConv2D(3, dilation_rate=(1, 2), padding=2), (2, 6, 7, 4)),
    "depthwise in 1-D": (L.DepthwiseConv1D(3, padding="same"), (2, 6, 4)),
    "depthwise in 3-D": (L.DepthwiseConv3D(3, strides=2, padding="same"), (2, 5, 6, 5, 4)),
    "two filters a channel": (L.DepthwiseConv2D(3, depth_multiplier=2), (2, 6, 7, 4)),
    "of one image": (L.Conv2D(5, 3, padding="same", dilation_rate=(1, 2)), (1, 7, 8, 6)),
    "with much work": (L.Conv2D(96, 3, padding="same"), (1, 40, 36, 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_in_a_row(name: str) -> None:
    """The second reads what the first wrote within a border, or a gapless map, or a copy."""
    layer, shape = CONVOLUTIONS[name]
    twin = type(layer).from_config({**layer.config(), "name": "before"})
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    rank, channels = len(shape) - 2, shape[1 if first else -1]
    conv = (L.Conv1D, L.Conv2D, L.Conv3D)[rank - 1]
    form = {"data_format": layer.data_format}
    check(
        Sequential(
            [conv(channels, 3, padding="same", **form), layer, conv(7, 2, padding="same", **form)],
            dtype="float64",
        ),
        drawn(*shape),
    )
    x = Input(shape[1:])  # a map whose readers ask for other borders, or for none
    stem = conv(channels, 3, padding="same", **form)(x)
    outputs = [layer(stem), conv(3, 5, padding="same", **form)(stem), L.Flatten()(stem), twin(stem)]
    check(Graph(x, outputs, dtype="float64"), drawn(*shape))


POOLS = {
    "2x2": (L.MaxPool2D(2), (2, 6, 8, 3)),
    "overlapping": (L.MinPool2D(3, strides=(1, 2)), (2, 6, 9, 3)),
    "a rest": (L.AveragePool2D((2, 3)), (2, 7, 8, 3)),
    "sums in 3-D": (L.SumPool3D((1, 3, 2)), (2, 3, 6, 5, 4)),
    "1-D": (L.AveragePool1D(3, strides=1), (3, 7, 2)),
    "channels first": (L.MaxPool2D(2, data_format="channels_first"), (2, 3, 5, 6)),
    "padded": (L.MaxPool2D(3, strides=2, padding="same"), (2, 7, 8, 3)),
    "ceil mode": (L.AveragePool2D(2, ceil_mode=True), (2, 7, 5, 3)),
    "dilated": (L.MaxPool2D(2, dilation_rate=2), (2, 7, 5, 3)),
    "whole maps": (L.GlobalAveragePool2D(), (2, 7, 5, 3)),
    "whole maps, kept": (L.GlobalMaxPool1D(keepdims=True), (2, 7, 5)),
    "whole maps, channels first": (L.GlobalSumPool2D(data_format="channels_first"), (2, 3, 5, 6)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str) -> None:
    layer, shape = POOLS[name]
    form = {"data_format": layer.data_format}
    rank, channels = layer.rank, shape[1 if layer.data_format == "channels_first" else -1]
    conv = (L.Conv1D, L.Conv2D, L.Conv3D)[rank - 1]
    layers = [conv(channels, 3, padding="same", **form), L.ReLU(), layer, L.ReLU()]
    last = layer.output_shape(shape[1:])
    more = [conv(3, 2, padding="same", **form)] if len(last) > 1 else [L.Dense(3)]
    check(Sequential([*layers, *more], dtype="float64"), drawn(*shape))


@pytest.mark.parametrize("before", [L.Activation("tanh"), L.Concatenate(), L.ArgMax()])
def test_a_relu_of_its_own(before: L.Layer) -> None:
    """Behind what ends in no activation."""
    x = Input((3, 4))
    y = before([x, x] if before.takes_many else x)
    check(Graph(x, L.ReLU()(y), dtype="float64"), drawn(2, 3, 4))


def test_one_number_a_sample() -> None:
    x = Input((6, 5, 3))
    places = L.ArgMax()(L.Dense(4)(L.Flatten()(x)))
    network = Graph(x, [places, L.Reduce("sum", (1, 2, 3))(x), L.ArgMax(axis=2)(x)])
    for batch in (1, 4):
        given = drawn(batch, 6, 5, 3, dtype=np.float32)
        for y, right in zip(network.freeze()(given), network.forward(given), strict=True):
            assert y.dtype == right.dtype
            assert_close(y, right, reduction=TERMS, magnitude=10)


def test_layers_that_disagree_about_where_the_channels_are() -> None:
    layers = [
        L.Conv2D(6, 3, padding="same"), L.MaxPool2D(2, data_format="channels_first"),
        L.BatchNorm(axis=1), L.Conv2D(4, 2, padding="same", data_format="channels_first"),
        L.ReLU(), L.Conv2D(5, 2, padding="same"), L.Reshape((5, -1)), L.Flatten(), L.Dense(3),
    ]  # fmt: skip
    check(Sequential(layers, dtype="float64"), drawn(2, 8, 6, 4))


def test_nan_and_infinity_go_where_they_go() -> None:
    network = Sequential([L.Conv2D(4, 3), L.ReLU(max_value=6), L.MaxPool2D(2), L.Flatten()])
    x = drawn(2, 8, 8, 2, dtype=np.float32)
    x[0, 2, 2, 0], x[1, 5, 5, 1] = np.nan, np.inf
    with inference_mode():
        expected = network.forward(x)
    ours = network.freeze()(x)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(expected))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_at_their_limits(kind: str, dtype: str) -> None:
    x = np.array([[-np.inf, -1e30, -100, -3, -1.5, -0.0, 0.0, 1, 3, 7, 100, 1e30, np.inf, np.nan]])
    x = x.astype(dtype)
    network = Sequential([L.Activation(kind)], input_shape=x.shape[1:], dtype=dtype)
    with inference_mode():
        expected = network.forward(x)
    np.testing.assert_allclose(network.freeze()(x), expected, rtol=1e-6, atol=1e-37)
    (call, *_) = Tape(record(network), [x.shape], dtype).calls
    assert isinstance(call.func, np.ufunc) or call.func in (np.clip, np.copyto)  # not the layer


def test_complex_networks_run_layer_by_layer() -> None:
    network = Sequential([L.Conv2D(3, 3), L.Flatten(), L.Dense(2)], dtype="complex64")
    x = (drawn(2, 5, 4, 2) + 1j * drawn(2, 5, 4, 2, seed=1)).astype(np.complex64)
    with inference_mode():
        expected = network.forward(x)
    np.testing.assert_allclose(network.freeze()(x), expected, rtol=1e-5)


# ---- what a person relies on ---------------------------------------------------------------------


def test_later_training_changes_nothing() -> None:
    network, x = lenet(), drawn(2, 11, 12, 3, dtype=np.float32)
    network.forward(x)
    frozen = network.freeze()
    before = frozen(x)
    for parameter in network.parameters():
        parameter.value[...] += 1
    for _, layer in network.walk():
        for array in layer.state.values():
            array += 1
    np.testing.assert_array_equal(frozen(x), before)
    kept = before.copy()
    frozen(2 * x)
    np.testing.assert_array_equal(before, kept)  # it is no view of the tape's memory


def test_the_network_may_be_trained_and_converted_beside_it() -> None:
    layers = [L.Conv2D(4, 3), L.Activation("gelu"), L.MaxPool2D(3, padding="same"), L.Flatten()]
    network, x = Sequential(layers), drawn(2, 7, 6, 3, dtype=np.float32)
    expected = network.forward(x, training=True)
    frozen = network.freeze()
    close(frozen(x), expected)
    network.backward(np.ones_like(expected))
    network.astype("float16")
    assert frozen(x).dtype == np.float32
    close(frozen(x), expected)


def test_any_batch_and_any_size_of_map() -> None:
    network = Sequential([L.Conv2D(4, 3, padding="same"), L.GlobalAveragePool2D(), L.Dense(2)])
    network.build((8, 8, 3))
    frozen = network.freeze()
    for batch in (1, 5, 2, 1, 0, 3, 7, 9, 11, 13):
        x = drawn(batch, 8, 8, 3, dtype=np.float32)
        assert_close(frozen(x), network.forward(x), reduction=TERMS, magnitude=1)
    assert frozen(drawn(2, 16, 9, 3, dtype=np.float32)).shape == (2, 2)
    assert frozen(np.ones((1, 8, 8, 3), np.uint8)).dtype == np.float32


def test_threads_have_a_tape_each() -> None:
    network = models.make("lenet5", classes=10, input_shape=(28, 28, 1))
    frozen = network.freeze()
    xs = [drawn(1, 28, 28, 1, dtype=np.float32, seed=seed) for seed in range(40)]
    alone = [frozen(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(frozen, xs))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", models.MODELS)
def test_the_threads_of_the_blas_change_no_bit(name: str) -> None:
    network, x = models.make(name, 10, picture(name)), drawn(1, *picture(name), dtype=np.float32)
    with threadpool_limits(4, user_api="blas"):
        answers = [network.freeze(blas_threads=count)(x) for count in (1, 2, 4)]
    np.testing.assert_array_equal(answers[1:], answers[:-1])


def test_a_product_is_shared_only_where_its_bits_stay(monkeypatch: Any) -> None:
    program = record(Sequential([L.Dense(3)], input_shape=(8,)))
    calls = {}
    for same in (True, False):
        monkeypatch.setattr(tape_module, "_has_the_same_bits", lambda *_, s=same: s)
        tape = Tape(program, [(1, 8)], np.float32, 2)
        calls[same] = [call.func.__name__ for call in tape.calls]
    assert calls == {True: ["matmul", "add"], False: ["_multiply_alone", "add"]}
    a, b = drawn(64, 96, dtype=np.float32), drawn(96, 32, dtype=np.float32)
    monkeypatch.undo()
    with threadpool_limits(2, user_api="blas"):
        monkeypatch.setattr(tape_module, "_multiply_alone", lambda a, b, out: out.fill(1))
        assert not tape_module._has_the_same_bits(a, b, a @ b, 2)
    monkeypatch.undo()
    with one_blas_thread():  # where they cannot be tried
        assert not tape_module._has_the_same_bits(a, b, a @ b, 2)


@pytest.mark.parametrize("batch", [1, 16])
def test_the_number_of_threads_changes_no_bit(monkeypatch: Any, batch: int) -> None:
    answers = []
    for count in (1, 2, 4):
        monkeypatch.setattr("gpucnn.backends.numpy.workers.thread_count", lambda n=count: n)
        monkeypatch.setattr("gpucnn.backends.numpy.workers._workers", None)
        set_seed(0)
        network = models.make("vgg_small", classes=10, input_shape=(32, 32, 3))
        with threadpool_limits(count, user_api="blas"):
            answers.append(network.freeze()(drawn(batch, 32, 32, 3, dtype=np.float32)))
    np.testing.assert_array_equal(answers[1:], answers[:-1])


def test_a_frozen_network_can_be_sent_elsewhere() -> None:
    frozen = models.make("digits_cnn", classes=10, input_shape=(8, 8, 1)).freeze()
    x = drawn(2, 8, 8, 1, dtype=np.float32)
    expected = frozen(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frozen))(x), expected)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"no weights to freeze.*not built"):
        Sequential([L.Dense(2)]).freeze()
    frozen = Sequential([L.Dense(2)], input_shape=(3,)).freeze()
    with pytest.raises(ValueError, match="Dense 'dense': expects an input"):
        frozen(np.ones((1, 4), np.float32))
    with pytest.raises(TypeError, match=r"input must be an array\. Received: builtins\.list"):
        frozen([[1.0, 2.0, 3.0]])
    with pytest.raises(TypeError, match="takes no complex numbers"):
        frozen(np.ones((1, 3), np.complex64))
    frozen(np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match=r"one sample; add a batch axis"):
        frozen.calls((3,))
    a, b = Input((3,)), Input((3,))
    with pytest.raises(ValueError, match="takes 2 inputs"):
        Graph([a, b], L.Add()([a, b])).freeze().calls((1, 3))
    for join in (L.Multiply(), L.Concatenate()):
        with pytest.raises(ValueError, match=r"as many samples\. Received: shapes .*\(1, 3\)"):
            Graph([a, b], join([a, b])).freeze()([np.ones((n, 3), np.float32) for n in (2, 1)])


# ---- what a tape is ------------------------------------------------------------------------------


def tape_of(*layers: L.Layer, shape: tuple[int, ...], batch: int = 1) -> Tape:
    program = record(Sequential(layers, input_shape=shape))
    return Tape(program, [(batch, *shape)], np.float32)


def test_a_padded_map_is_never_copied() -> None:
    """What a convolution reads beyond it is a border in the memory that the one before fills."""
    convs = [L.Conv2D(16, 3, padding="same", activation="relu") for _ in range(3)]
    calls = tape_of(*convs, shape=(8, 8, 16)).calls
    names = [call.func.__name__ for call in calls]
    assert names == ["copyto", "matmul", "add", "maximum"] * 3


def test_columns_are_few() -> None:
    """A batch or a map that would make many columns runs by the backend's algorithms."""
    layer = L.Conv2D(8, 5, padding="same")
    for batch, ours in ((1, Columns), (64, Algorithmic)):
        program = record(Sequential([layer], input_shape=(28, 28, 16)))
        tape = Tape(program, [(batch, 28, 28, 16)], np.float32)
        assert isinstance(tape.ways[0], ours)
        assert sum(array.size for array in tape.scratches.values()) <= MOST_COLUMNS
    program = record(Sequential([L.DepthwiseConv2D(3)], input_shape=(28, 28, 16)))
    assert isinstance(Tape(program, [(1, 28, 28, 16)], np.float32).ways[0], Depthwise)


def test_where_our_own_threads_compute_the_blas_has_one() -> None:
    for groups, threads in ((1, 3), (2, 1)):
        program = record(Sequential([L.Conv2D(4, 3, groups=groups)], input_shape=(8, 8, 2)))
        assert Tape(program, [(1, 8, 8, 2)], np.float32, 3).blas_threads == threads


# ---- what a backend joins ------------------------------------------------------------------------


def tails() -> Graph:
    """Convolutions before sums and activations; and some before what is not to be joined."""
    x = Input((6, 7, 4))
    h = L.LeakyReLU(0.1)(L.Conv2D(4, 3, padding="same", name="first")(x))
    total = L.Add(name="sum")([L.BatchNorm()(L.Conv2D(4, 1, name="second")(h)), h])
    block = Residual([L.Conv2D(4, 1)], activation="relu", name="block")(L.GELU()(total))
    stretched = L.Add()([L.Conv2D(4, (6, 7), name="small")(block), block])
    read_twice = L.Conv2D(4, 1, name="twice")(stretched)
    twice = L.Add()([read_twice, L.SiLU()(read_twice)])
    return Graph(x, L.Dense(3, "hard_silu")(L.Flatten()(twice)))


def test_convolutions_take_sums_and_activations_along() -> None:
    network = tails()
    kinds = [str(operation).split(" = ")[1].split("(")[0] for operation in
             joined(record(network)).operations]  # fmt: skip
    assert kinds == [
        "conv leaky_relu", "conv gelu", "conv relu", "conv", "sum", "conv", "activation", "sum",
        "reshape", "dense hard_silu",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["numpy", "emulated"])
def test_what_is_joined_gives_the_same_answers(name: str, dtype: str) -> None:
    backend = make_backend(name)
    with use_backend(backend):
        network = tails().astype(dtype)
        x = backend.asarray(drawn(3, 6, 7, 4).astype(dtype))
        expected = network.predict(x)
        (answer,) = joined(record(network))([x])
    close(backend.to_numpy(answer), backend.to_numpy(expected))

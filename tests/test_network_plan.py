"""Layers that run as one operation: which they are, and that nobody can tell from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from gpucnn import layers as L
from gpucnn import models
from gpucnn.backends.base import Backend
from gpucnn.backends.numpy import conv_fused
from gpucnn.initializers import set_seed
from gpucnn.layers.base import inference_mode
from gpucnn.network import Graph, Input, Network, Residual, Sequential
from gpucnn.network.masks import Alone
from gpucnn.network.plan import plan
from gpucnn.network.stages import ConvNormSum, ConvPool, Stage, WithActivation, WithSum

Chain = Callable[[], list[L.Layer]]


def described(layers: list[L.Layer]) -> list[str]:
    return [
        f"{type(stage).__name__ if isinstance(stage, Stage) else 'Layer'}: {stage.name}"
        for stage in plan(layers)
    ]


PLANS: dict[str, tuple[Chain, list[str]]] = {
    "conv, relu, pool": (
        lambda: [L.Conv2D(3, 3), L.ReLU(), L.MaxPool2D(2), L.Flatten()],
        ["ConvPool: conv2d+re_lu+max_pool2d", "Layer: flatten"],
    ),
    "conv, pool, relu": (
        lambda: [L.Conv2D(3, 3), L.MaxPool2D(2), L.Activation("relu")],
        ["ConvPool: conv2d+max_pool2d+activation"],
    ),
    "conv with relu, pool": (
        lambda: [L.Conv1D(3, 3, activation="relu"), L.MaxPool1D(2), L.ReLU()],
        ["ConvPool: conv1d+max_pool1d", "Layer: re_lu"],
    ),
    "conv, pool": (lambda: [L.Conv2D(3, 3), L.MaxPool2D(2)], ["ConvPool: conv2d+max_pool2d"]),
    "depthwise, relu": (
        lambda: [L.DepthwiseConv2D(3), L.ReLU(), L.AveragePool2D(2)],
        ["WithActivation: depthwise_conv2d+re_lu", "Layer: average_pool2d"],
    ),
    "norm, relu, pool": (
        lambda: [L.BatchNorm(), L.ReLU(), L.MaxPool2D(2), L.ReLU()],
        ["NormPool: batch_norm+re_lu+max_pool2d", "Layer: re_lu"],
    ),
    "norm, pool, relu": (
        lambda: [L.BatchNorm(), L.MaxPool2D(2), L.ReLU(), L.AveragePool2D(2), L.ReLU()],
        [
            "NormPool: batch_norm+max_pool2d+re_lu", "Layer: average_pool2d", "Layer: re_lu",
        ],
    ),
    "norm, relu": (lambda: [L.BatchNorm(), L.ReLU()], ["WithActivation: batch_norm+re_lu"]),
    "norm, pool": (
        lambda: [L.BatchNorm(), L.MaxPool2D(2), L.MaxPool2D(2), L.ReLU()],
        ["NormPool: batch_norm+max_pool2d", "WithActivation: max_pool2d+re_lu"],
    ),
    "norm, relu6": (
        lambda: [L.BatchNorm(), L.ReLU(max_value=6), L.MaxPool2D(2)],
        ["WithActivation: batch_norm+re_lu", "Layer: max_pool2d"],
    ),
    "conv, norm, relu": (
        lambda: [L.Conv2D(3, 3), L.BatchNorm(), L.ReLU(), L.Dense(3), L.BatchNorm()],
        ["ConvNorm: conv2d+batch_norm+re_lu", "ConvNorm: dense+batch_norm"],
    ),
    "conv, norm, relu, pool": (
        lambda: [L.Conv2D(3, 3), L.BatchNorm(), L.ReLU(), L.MaxPool2D(2)],
        ["ConvNorm: conv2d+batch_norm+re_lu+max_pool2d"],
    ),
    "conv, norm, pool, relu6": (
        lambda: [L.Conv2D(3, 3), L.BatchNorm(), L.MaxPool2D(2), L.ReLU(max_value=6), L.ReLU()],
        ["ConvNorm: conv2d+batch_norm+max_pool2d+re_lu", "Layer: re_lu"],
    ),
    "conv, norm, pools": (
        lambda: [L.Conv2D(3, 3), L.BatchNorm(), L.MaxPool2D(2), L.MaxPool2D(2)],
        ["ConvNorm: conv2d+batch_norm+max_pool2d", "Layer: max_pool2d"],
    ),
    "conv, norm, another format's pool": (
        lambda: [L.Conv2D(3, 3), L.BatchNorm(), L.MaxPool2D(2, data_format="channels_first")],
        ["ConvNorm: conv2d+batch_norm", "Layer: max_pool2d"],
    ),
    "dense, relu": (
        lambda: [L.Dense(3), L.ReLU(), L.Dense(2)],
        ["WithActivation: dense+re_lu", "Layer: dense"],
    ),
    "conv, another activation": (
        lambda: [L.Conv2D(3, 3), L.ReLU(max_value=6), L.Dense(3), L.SiLU(), L.Softmax()],
        ["WithActivation: conv2d+re_lu", "WithActivation: dense+si_lu", "Layer: softmax"],
    ),
    "nothing to join": (
        lambda: [
            L.Conv2D(3, 3, activation="tanh"), L.MaxPool2D(2), L.Conv2D(3, 1), L.LeakyReLU(0.1),
            L.Conv2D(3, 1), L.MinPool2D(2), L.BatchNorm(activation="relu"), L.ReLU(),
            L.Conv2DTranspose(3, 1), L.ReLU(), L.SeparableConv2D(3, 1), L.ReLU(),
            L.Conv2D(3, 1, data_format="channels_first"), L.MaxPool2D(2),
            L.Conv2D(3, 1, data_format="channels_first"), L.BatchNorm(),
        ],
        [
            "Layer: conv2d", "Layer: max_pool2d", "Layer: conv2d", "Layer: leaky_re_lu",
            "Layer: conv2d", "Layer: min_pool2d", "Layer: batch_norm", "Layer: re_lu",
            "Layer: conv2d_transpose", "Layer: re_lu", "Layer: separable_conv2d", "Layer: re_lu",
            "Layer: conv2d", "Layer: max_pool2d", "Layer: conv2d", "Layer: batch_norm",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_which_layers_run_as_one(name: str) -> None:
    layers, stages = PLANS[name]
    assert described(layers()) == stages


def test_layers_that_go_their_own_way_are_left_alone() -> None:
    class Doubled(L.Conv2D):
        def _forward(self, x: np.ndarray, training: bool) -> np.ndarray:
            return 2 * super()._forward(x, training)

    class Counting(L.ReLU):
        def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(x, training)

    class Named(L.Conv2D):
        """Differs in nothing that the plan replaces."""

    layers = [Doubled(3, 3), L.ReLU(), Named(3, 1), counting := Counting(), L.MaxPool2D(2)]
    network = Sequential(layers, input_shape=(8, 8, 1))
    assert [getattr(stage, "layers", (stage,)) for stage in network._plan()] == [
        (layer,) for layer in layers
    ]
    network.forward(numbers(1, 8, 8, 1))
    assert counting.calls == 1
    assert isinstance(plan([Named(3, 1), L.ReLU()])[0], WithActivation)


def test_complex_numbers_have_no_order() -> None:
    layers = [L.Conv2D(3, 3), L.ReLU(), L.Dense(3)]
    assert plan(layers, complex_numbers=True) == layers


def test_the_zoo_is_planned() -> None:
    def kinds(network: Network) -> list[str]:
        found = []
        for stage in network._plan() if isinstance(network, Sequential) else network._plan()[0]:
            found += kinds(stage) if isinstance(stage, Network) else [type(stage).__name__]
        if isinstance(network, Residual):
            found += [type(network._plan()[2]).__name__]
        return found

    lenet = kinds(models.make("lenet5", 10, (28, 28, 1)))
    assert lenet == ["ConvNorm"] * 2 + ["Flatten"] + ["ConvNorm"] * 2 + ["Dense"]
    resnet = kinds(models.make("resnet20", 10, (32, 32, 3)))
    assert resnet.count("ConvNormSum") == 9 and resnet.count("ConvNorm") == 10
    assert "ReLU" not in resnet and "BatchNorm" not in resnet


def test_a_graphs_sums_take_their_batch_norms_along() -> None:
    stages = [stage for run in sums()._plan() for stage in run.stages]
    taken = [stage for stage in stages if isinstance(stage, (WithSum, ConvNormSum))]
    assert [(type(stage), len(stage.layers)) for stage in taken] == [
        (WithSum, 2), (ConvNormSum, 2), (ConvNormSum, 2),
    ]  # fmt: skip
    # Left: one of the two that meet, one that is read twice, and one that is stretched.
    assert [type(stage).__name__ for stage in stages].count("BatchNorm") == 3


# ---- the numbers ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def small_maps_as_large_ones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The NumPy backend pools large outputs of a convolution in the cache; here all of them."""
    for least in ("SMALL", "INDEXED"):
        monkeypatch.setattr(conv_fused, least, 0)
    conv_fused.folds_of.cache_clear()
    yield
    conv_fused.folds_of.cache_clear()


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Coarse ones, so that maxima are often equal and many of them 0."""
    return np.random.default_rng(seed).integers(-3, 3, shape).astype(np.float32) / 4


def chain(*layers: L.Layer) -> Sequential:
    return Sequential(layers)


def forked() -> Graph:
    """Two chains from one stem, whose gradients meet there, and an output in a chain's middle."""
    x = Input((8, 9, 2))
    stem = L.ReLU()(L.Conv2D(4, 3, padding="same")(x))
    left = L.MaxPool2D(2)(L.ReLU()(L.Conv2D(3, 3)(stem)))
    middle = L.BatchNorm()(L.Conv2D(4, 3, padding="same")(stem))
    right = L.MaxPool2D(2)(L.ReLU()(middle))
    both = L.Add()([stem, middle])
    return Graph(x, [left, L.ReLU()(both), right, middle])


def sums() -> Graph:
    """Sums that take a batch norm along: one at a fork, one in a chain behind a sum; and others."""
    x = Input((8, 9, 2))
    stem = L.Conv2D(4, 3, padding="same")(x)
    first = L.ReLU()(L.Add()([stem, L.BatchNorm()(stem)]))
    inner = L.BatchNorm()(L.Conv2D(4, 3, padding="same")(L.ReLU()(L.Conv2D(4, 1)(first))))
    second = L.Add()([inner, first])
    both = L.Add()([L.BatchNorm()(L.Conv2D(4, 1)(second)), L.BatchNorm()(second)])
    read_twice = L.BatchNorm()(both)
    third = L.Add()([read_twice, L.Activation("tanh")(read_twice)])
    stretched = L.Add()([third, L.BatchNorm()(L.GlobalAveragePool2D(keepdims=True)(third))])
    return Graph(x, [L.ReLU()(stretched), L.MaxPool2D(2)(L.ReLU()(both))])


def sum_and_relu() -> Graph:
    """Two sums of two; the second one is read by the first's ReLU's reader, too."""
    x = Input((8, 9, 2))
    h = L.ReLU()(L.Add()([L.Conv2D(3, 1)(x), L.Conv2D(3, 1)(x)]))
    g = L.Add()([h, L.Conv2D(3, 1)(h)])
    return Graph(x, L.Add()([L.ReLU()(g), L.Activation("tanh")(g)]))


NETWORKS: dict[str, Callable[[], Network]] = {
    "conv, relu, pool": lambda: chain(L.Conv2D(4, 3), L.ReLU(), L.MaxPool2D(2)),
    "conv, pool, relu": lambda: chain(L.Conv2D(4, 3), L.MaxPool2D(3, strides=2), L.ReLU()),
    "conv with relu, pool": lambda: chain(
        L.Conv2D(4, 3, activation="relu", use_bias=False), L.MaxPool2D(2, padding="same")
    ),
    "conv, pool": lambda: chain(L.Conv2D(4, 3), L.MaxPool2D(2)),
    "first": lambda: chain(
        L.Conv2D(4, 3, data_format="channels_first"), L.ReLU(),
        L.MaxPool2D(2, data_format="channels_first"),
    ),
    "conv, norm, relu": lambda: chain(
        L.Conv2D(4, 3), L.BatchNorm(), L.ReLU(), L.Conv2D(3, 1, use_bias=False), L.BatchNorm()
    ),
    "conv, norm, pool, relu": lambda: chain(
        L.Conv2D(4, 3), L.BatchNorm(gamma_initializer=lambda shape, _: np.linspace(-2, 2, *shape)),
        L.MaxPool2D(2), L.ReLU(),
    ),
    "conv, norm, relu6": lambda: chain(
        L.DepthwiseConv2D(3), L.BatchNorm(beta_initializer=lambda shape, _: np.full(shape, 5.0)),
        L.ReLU(max_value=6), L.Conv2D(3, 1), L.BatchNorm(), L.ReLU(max_value=6), L.MaxPool2D(2),
    ),
    "dense, norm, relu": lambda: chain(L.Dense(4), L.BatchNorm(), L.ReLU()),
    "norm, relu, pool": lambda: chain(L.Conv2D(4, 3), L.BatchNorm(), L.ReLU(), L.MaxPool2D(2)),
    "norm, relu": lambda: chain(L.BatchNorm(), L.ReLU(), L.DepthwiseConv2D(3), L.ReLU()),
    "dense, relu": lambda: chain(L.Flatten(), L.Dense(6), L.ReLU(), L.Dense(3)),
    "sum, relu": lambda: Residual([L.Conv2D(2, 3, padding="same"), L.BatchNorm()], None, "relu"),
    "sum": lambda: chain(
        L.Conv2D(3, 1),
        Residual([L.Conv2D(4, 1), L.ReLU(), L.BatchNorm()], [L.Conv2D(4, 1), L.BatchNorm()]),
    ),
    "sum without a norm, relu": lambda: chain(
        L.Conv2D(3, 1), Residual([L.Conv2D(3, 3, padding="same")], None, L.ReLU())
    ),
    "norm, relu6": lambda: chain(
        L.BatchNorm(beta_initializer=lambda shape, _: np.full(shape, 5.0)), L.ReLU(max_value=6)
    ),
    "pool, relu": lambda: chain(
        L.Conv2D(4, 3, activation="tanh"), L.MaxPool2D((3, 2), strides=2), L.ReLU(),
        L.Conv2D(4, 1, activation="tanh"), L.ReLU(), L.MaxPool2D(2),
    ),
    "graph of a sum and a relu": sum_and_relu,
    "sum, tanh": lambda: Residual([L.BatchNorm()], None, "tanh"),
    "graph": forked,
    "graph of sums": sums,
}  # fmt: skip


def everything(
    make: Callable[[], Network], backend: Backend, fuses: bool, training: bool, x: np.ndarray
) -> list[np.ndarray]:
    """Outputs, all gradients and moving statistics of one step of training or of none."""
    set_seed(3)
    network = make()
    for part in (network, *network.layers):
        part.fuses = fuses
    x = backend.asarray(x)
    ys = network.forward(x, training=training)
    ys = ys if isinstance(ys, list) else [ys]
    dys = [backend.asarray(numbers(*y.shape, seed=place)) for place, y in enumerate(ys, 5)]
    dx = network.backward(dys if len(dys) > 1 else dys[0])
    results = [*ys, dx, *(parameter.gradient for parameter in network.parameters())]
    results += [array for _, layer in network.walk() for array in layer.state.values()]
    return [backend.to_numpy(array) for array in results]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_nobody_can_tell_from_the_numbers(name: str, training: bool, backend: Backend) -> None:
    x = numbers(3, 8, 9, 2) if name != "first" else numbers(3, 2, 8, 9)
    x[0, 1, 3] = np.nan if not training else 0  # in training all of a batch norm would be
    ours, expected = (
        everything(NETWORKS[name], backend, fuses, training, x) for fuses in (True, False)
    )
    # A GPU's kernel for a convolution with its pool sums in an order of its own.
    error = 0 if backend.name == "numpy" else 1e-5
    for ours_one, expected_one in zip(ours, expected, strict=True):
        np.testing.assert_allclose(ours_one, expected_one, rtol=error, atol=error)


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_gives_the_same_numbers(name: str, backend: Backend) -> None:
    set_seed(3)
    network = NETWORKS[name]()
    x = backend.asarray(numbers(3, 8, 9, 2) if name != "first" else numbers(3, 2, 8, 9))
    network.forward(x, training=True)  # so that no statistics are 0 or 1
    results = []
    for fuses in (True, False):
        for part in (network, *network.layers):
            part.fuses = fuses
        with inference_mode():
            ys = network.forward(x)
        results.append([backend.to_numpy(y) for y in (ys if isinstance(ys, list) else [ys])])
    error = 0 if backend.name == "numpy" else 1e-5
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=error, atol=error)


def test_a_plan_follows_its_network() -> None:
    network = Sequential([L.Conv2D(4, 3), L.ReLU(), L.Dense(3)], input_shape=(5, 5, 1))
    assert [type(stage) for stage in network._plan()] == [WithActivation, Alone]
    assert network._plan() is network._plan()
    network.layers[1] = L.Softmax()
    assert [type(stage) for stage in network._plan()] == [L.Conv2D, L.Softmax, L.Dense]
    network.layers[1] = L.ReLU()
    network.fuses = False
    assert network._plan() == network.layers
    network.fuses = True
    network.astype("complex64")
    assert network._plan() == network.layers


def test_what_is_not_saved_can_be_freed() -> None:
    """Behind a convolution with its pool neither ReLU's input nor its output is left."""
    network = Sequential([L.Conv2D(8, 3), L.ReLU(), L.MaxPool2D(2)], input_shape=(34, 34, 1))
    x = numbers(2, 34, 34, 1)
    y = network.forward(x, training=True)
    (stage,) = network._plan()
    assert isinstance(stage, ConvPool)
    arrays = [array for array in stage.lead._saved if isinstance(array, np.ndarray)]
    assert [array.shape for array in arrays] == [x.shape, y.shape, y.shape]
    assert arrays[2].dtype == np.uint8
    assert all(layer._saved is None for layer in network.layers[1:])


def test_nothing_is_saved_in_inference_mode() -> None:
    network = Sequential([L.Conv2D(8, 3), L.ReLU(), L.MaxPool2D(2)], input_shape=(6, 6, 1))
    with inference_mode():
        y = network.forward(numbers(1, 6, 6, 1))
    assert network._plan()[0].lead._saved is None
    with pytest.raises(RuntimeError, match="call forward before each backward"):
        network.backward(y)


def test_errors_name_the_layer_that_leads() -> None:
    network = Sequential([L.Conv2D(8, 3, name="stem"), L.ReLU(), L.MaxPool2D(2)])
    y = network.forward(numbers(1, 6, 6, 1))
    with pytest.raises(ValueError, match=r"Conv2D 'stem': dy must have the shape \(1, 2, 2, 8\)"):
        network.backward(np.concatenate([y, y]))
    network.backward(y)  # a right one may follow
    assert network.layers[0].grads["kernel"].shape == (8, 3, 3, 1)


def test_the_sum_of_a_residual_returns_both_gradients() -> None:
    stage = WithSum(norm := L.BatchNorm(), L.ReLU())
    x, residual = numbers(4, 3), numbers(4, 3, seed=1)
    norm.build((3,))
    y = stage.forward([x, residual], training=True)
    dx, dresidual = stage.backward(np.ones_like(y))
    np.testing.assert_array_equal(dresidual, (y > 0).astype(np.float32))
    assert dx.shape == x.shape


@pytest.mark.parametrize("relu_first", [True, False])
def test_a_relu_stays_on_its_side_of_a_dilated_pool(relu_first):
    """Of a window without any input the maximum is an infinity, which ReLU would cut."""
    pool = L.MaxPool2D(2, strides=1, padding=((2, 2), (2, 2)), dilation_rate=3)
    layers = [L.Conv2D(2, 1), *([L.ReLU(), pool] if relu_first else [pool, L.ReLU()])]
    model = Sequential(layers, input_shape=(2, 2, 1))
    x = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    together = model.predict(x)
    model.fuses = False
    want = model.predict(x)
    np.testing.assert_array_equal(together, want)
    np.testing.assert_array_equal(model.freeze()(x), want)
    assert np.isinf(want).any() == relu_first

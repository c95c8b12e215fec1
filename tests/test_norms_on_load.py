"""Batch norms left to the convolution behind them: which, that nobody can tell, what it saves.

No backend here finds that it pays: the tests let them say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import layers as L
from gpucnn.backends import use_backend
from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.numpy import NumpyBackend
from gpucnn.layers.base import inference_mode
from gpucnn.network import Graph, Input, Network, Residual, Sequential
from gpucnn.profiler import profile
from gpucnn.step.report import StepMemory, step_memory
from gpucnn.trainer import Trainer
from tests.emulated_graphs import Device
from tests.training import assert_same_training

IMAGES = np.random.default_rng(0).standard_normal((12, 6, 7, 3), np.float32)
LABELS = np.arange(12) % 5


@pytest.fixture
def pays(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Let all backends say that it pays; call it with False for the opposite."""

    def say(answer: bool) -> None:
        for kind in (NumpyBackend, CudaBackend):
            monkeypatch.setattr(kind, "norms_on_load", lambda *_: answer)

    say(True)
    return say


def arrays_of(saved: Any) -> Iterator[Any]:
    if isinstance(saved, (F.Unapplied, np.ndarray)):
        yield saved
    elif isinstance(saved, (tuple, list)):
        for item in saved:
            yield from arrays_of(item)


def readers(network: Network) -> set[str]:
    """The layers that have applied a norm to what they loaded, after a forward pass."""
    return {
        name
        for name, layer in network.walk()
        if any(isinstance(array, F.Unapplied) for array in arrays_of(layer._saved))
    }


def norm(**options: Any) -> L.BatchNorm:
    """One whose channels differ, and pass 0 and 6."""
    return L.BatchNorm(
        gamma_initializer=lambda shape, _: np.linspace(-3, 4, *shape),
        beta_initializer=lambda shape, _: np.linspace(3, 1, *shape),
        **options,
    )


def pointwise(filters: int, **options: Any) -> L.Conv2D:
    return L.Conv2D(filters, 1, **options)


def same(filters: int) -> L.Conv2D:
    return L.Conv2D(filters, 3, padding="same")


# ---- networks ------------------------------------------------------------------------------------


def inverted() -> Sequential:
    """MobileNetV2: to the project convolution's norm a sum is added, or nothing."""

    def block(filters: int) -> list[L.Layer]:
        return [
            pointwise(8), norm(), L.ReLU(6), L.DepthwiseConv2D(3, padding="same"), norm(),
            L.ReLU(6), pointwise(filters, use_bias=False), norm(),
        ]  # fmt: skip

    ending = [pointwise(8), norm(), L.ReLU(6), L.GlobalAveragePool2D(), L.Dense(5)]
    return Sequential([Sequential(block(4)), Residual(block(4)), *ending], input_shape=(6, 7, 3))


def bottlenecks() -> Sequential:
    """ResNet-50: two blocks, the first one's shortcut with weights of its own."""

    def block(shortcut: list[L.Layer] | None) -> Residual:
        body = [
            pointwise(4), norm(), L.ReLU(), same(4), norm(), L.ReLU(), pointwise(6), norm(),
        ]  # fmt: skip
        return Residual(body, shortcut, "relu")

    return Sequential(
        [
            same(4), norm(), L.ReLU(),
            block([pointwise(6), norm()]), block(None), L.GlobalAveragePool2D(), L.Dense(5),
        ],
        input_shape=(6, 7, 3),
    )  # fmt: skip


def activated_first() -> Sequential:
    """He et al. 2016, "Identity mappings": norms come first, and a sum's convolution reads one."""
    body = [norm(), L.ReLU(), same(4), norm(), L.ReLU(), pointwise(6)]
    block = Residual(body, [norm(activation="relu6"), pointwise(6)])
    return Sequential(
        [same(6), block, norm(activation="relu"), L.Flatten(), L.Dense(5)], input_shape=(6, 7, 3)
    )


def dense_net() -> Graph:
    """DenseNet: each norm's input is read by others, its output by one; and a transition."""
    x = Input((6, 7, 3))
    features = same(4)(x)
    for _ in range(2):
        h = pointwise(6)(L.ReLU()(norm()(features)))
        h = same(3)(L.ReLU()(norm()(h)))
        features = L.Concatenate()([features, h])
    h = L.AveragePool2D(2)(pointwise(5)(L.ReLU()(norm()(features))))
    return Graph(x, L.Dense(5)(L.GlobalAveragePool2D()(h)))


def bottleneck_graph() -> Graph:
    """Sums in a graph: of a norm behind a convolution, and of a convolution alone."""
    x = Input((6, 7, 3))
    stem = same(4)(x)
    h = L.ReLU()(norm()(L.DepthwiseConv2D(3, padding="same")(stem)))
    h = L.ReLU()(L.Add()([norm()(pointwise(4)(h)), stem]))
    both = L.Add()([h, pointwise(4)(norm(activation="relu")(h))])
    return Graph(x, [L.Dense(5)(L.GlobalAveragePool2D()(both)), h])


def in_a_row() -> Sequential:
    """What a norm is applied to has applied one itself; dense layers, one- and 2-dimensional."""
    return Sequential(
        [
            L.Reshape((42, 3)), L.Conv1D(4, 1), norm(), L.ReLU(), L.Conv1D(6, 1), norm(),
            L.Dense(4), norm(), L.ReLU(6), L.Dense(3, "tanh"), norm(), L.Conv1D(2, 1), L.ReLU(),
            L.Flatten(), L.Dense(8), norm(), L.ReLU(), L.Dense(5),
        ],
        input_shape=(6, 7, 3),
    )  # fmt: skip


READERS: dict[Callable[[], Network], set[str]] = {
    inverted: {"sequential/conv2d_1", "residual/conv2d_1"},
    bottlenecks: {"residual/conv2d_2", "residual_1/conv2d_2"},
    activated_first: {"residual/conv2d_1", "residual/conv2d_2"},
    dense_net: {"conv2d_1", "conv2d_3", "conv2d_5"},
    bottleneck_graph: {"conv2d_1", "conv2d_2"},
    in_a_row: {"conv1d_1", "dense", "dense_1", "conv1d_2", "dense_3"},
}
every_network = pytest.mark.parametrize("make", READERS, ids=lambda make: make.__name__)


# ---- which norms ---------------------------------------------------------------------------------


@every_network
def test_a_convolution_of_one_tap_applies_the_norm_before_it(make, pays) -> None:
    network = make()
    network.forward(IMAGES, training=True)
    assert readers(network) == READERS[make]
    pays(False)
    network.forward(IMAGES, training=True)
    assert readers(network) == set()


def test_the_zoo(pays) -> None:
    """The numbers of docs/steps.md."""
    network = gpucnn.models.make("mobilenet_v2_small", 10, (32, 32, 3))
    network.forward(np.ones((1, 32, 32, 3), np.float32), training=True)
    norms = [layer for _, layer in network.walk() if isinstance(layer, L.BatchNorm)]
    assert (len(readers(network)), len(norms)) == (9, 25)


def left_alone() -> list[L.Layer]:
    """Norms whose output is written: what comes behind them is no reader, or is not alone."""
    first = {"data_format": "channels_first"}
    return [
        norm(), same(4), norm(), L.ReLU(), pointwise(4, strides=2), norm(), pointwise(4, padding=1),
        norm(), pointwise(4, groups=2), norm(), L.DepthwiseConv2D(1), norm(activation="tanh"),
        pointwise(4), norm(), L.LeakyReLU(), pointwise(4), norm(), L.Dropout(0.5), pointwise(4),
        norm(), L.ReLU(), L.Dropout(0.5), pointwise(4), norm(), L.SeparableConv2D(4, 1), norm(),
        L.Conv2DTranspose(4, 1), norm(), L.MaxPool2D(1), same(4), norm(), L.ReLU(), L.MaxPool2D(1),
        pointwise(4), norm(), pointwise(4), L.ReLU(), L.MaxPool2D(1), norm(axis=1),
        L.Conv2D(6, 1, **first), norm(axis=1), L.ReLU(), L.Conv2D(6, 1, **first), norm(),
        L.Conv2D(6, 1, **first), norm(axis=1), pointwise(4), L.AveragePool2D(1), norm(axis=1),
        pointwise(4),
        Sequential([same(4), norm(), L.ReLU()]), pointwise(4), norm(), L.Flatten(), L.Dense(2),
        L.GroupNorm(2), L.Dense(5),
    ]  # fmt: skip


def forked() -> Graph:
    x = Input((6, 7, 3))
    twice, shown = norm()(same(4)(x)), norm()(same(4)(x))
    h = L.Add()([pointwise(4)(twice), twice])
    ends = norm()(pointwise(4)(L.Add()([pointwise(4)(shown), h])))
    return Graph(x, [shown, ends])


@pytest.mark.parametrize("make", [lambda: Sequential(left_alone()), forked])
def test_others_write_their_output(make, pays) -> None:
    network = make()
    network.forward(IMAGES, training=True)
    assert readers(network) == set()


def test_a_layer_that_goes_its_own_way_is_no_reader(pays) -> None:
    class Doubled(L.Conv2D):
        def _forward(self, x: np.ndarray, training: bool) -> np.ndarray:
            return super()._forward(2 * x, training)

    network = Sequential([norm(), Doubled(4, 1)], input_shape=(6, 7, 3))
    network.forward(IMAGES, training=True)
    assert readers(network) == set()


def test_the_backend_is_asked_for_each_shape(monkeypatch) -> None:
    asked = []

    def norms_on_load(backend: Backend, shape: Any, dtype: Any, math: str) -> bool:
        asked.append((shape.x_shape, shape.w_shape, dtype.name, math))
        return shape.batch > 4

    monkeypatch.setattr(NumpyBackend, "norms_on_load", norms_on_load)
    layers = [norm(), pointwise(4, math="tf32"), L.Flatten(), L.Dense(8), norm(), L.Dense(5)]
    network = Sequential(layers, input_shape=(6, 7, 3))
    network.forward(IMAGES, training=True)
    assert asked == [
        ((12, 6, 7, 3), (4, 1, 1, 3), "float32", "tf32"),
        ((12, 1, 8), (5, 1, 8), "float32", "strict"),
    ]
    assert readers(network) == {"conv2d", "dense_1"}
    network.forward(IMAGES[:4], training=True)
    assert readers(network) == set()
    asked.clear()
    network.forward(IMAGES)
    with inference_mode():
        network.forward(IMAGES, training=True)
    assert readers(network) == set()
    assert asked == []  # nothing is kept there, or nothing is to be found


def test_frozen_norms_and_networks_as_before(pays) -> None:
    network = bottlenecks()
    norms = [layer for _, layer in network.walk() if isinstance(layer, L.BatchNorm)]
    for layer in norms:
        layer.trainable = False
    network.forward(IMAGES, training=True)
    assert readers(network) == set()
    for layer in norms:
        layer.trainable = True
    network.fuses = network.layers[3].fuses = network.layers[4].fuses = False
    network.forward(IMAGES, training=True)
    assert readers(network) == set()
    network.fuses = True
    before = network.predict(IMAGES)
    pays(False)
    np.testing.assert_array_equal(before, network.predict(IMAGES))


# ---- the numbers ---------------------------------------------------------------------------------


def everything(make: Callable[[], Network], backend: Backend) -> list[np.ndarray]:
    """Outputs, gradients and moving statistics of three steps, one with norms that are frozen."""
    gpucnn.set_seed(3)
    network, results = make(), []
    norms = [layer for _, layer in network.walk() if isinstance(layer, L.BatchNorm)]
    for seed in range(3):
        for layer in norms[1::2]:
            layer.trainable = seed != 2
        if seed == 1:
            network.needs_input_gradient = False
        ys = network.forward(backend.asarray(IMAGES), training=True)
        results.append(network.predict(backend.asarray(IMAGES[:2])) if seed == 0 else ys)
        if seed == 0:  # which forgets what was kept
            ys = network.forward(backend.asarray(IMAGES), training=True)
        many = ys if isinstance(ys, list) else [ys]
        rng = np.random.default_rng(seed)
        dys = [backend.asarray(rng.standard_normal(y.shape, np.float32)) for y in many]
        dx = network.backward(dys if len(dys) > 1 else dys[0])
        results += [*many, *([dx] if network.needs_input_gradient else [])]
        results += [parameter.gradient.copy() for parameter in network.parameters()]
    results += [array for _, layer in network.walk() for array in layer.state.values()]
    return [backend.to_numpy(array) for array in arrays_of(results)]


@every_network
def test_nobody_can_tell_from_the_numbers(make, pays) -> None:
    backend = gpucnn.backends.get_backend("numpy")
    ours = everything(make, backend)
    pays(False)
    for ours_one, expected in zip(ours, everything(make, backend), strict=True):
        np.testing.assert_array_equal(ours_one, expected)


@pytest.mark.parametrize("backend", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)],
                         indirect=True)  # fmt: skip
@pytest.mark.parametrize("make", [inverted, activated_first], ids=lambda make: make.__name__)
def test_nobody_can_tell_from_cudas_numbers(make, pays, backend) -> None:
    ours = everything(make, backend)
    pays(False)
    for ours_one, expected in zip(ours, everything(make, backend), strict=True):
        np.testing.assert_array_equal(ours_one, expected)


def random_network(seed: int) -> Sequential:
    """A chain of blocks of what comes before and behind norms."""
    rng = np.random.default_rng(seed)

    def layers(count: int) -> list[L.Layer]:
        made: list[L.Layer] = []
        for _ in range(count):
            filters = int(rng.integers(1, 4)) * 2
            convs = [
                pointwise(filters), pointwise(filters, activation="relu"), same(filters),
                L.Dense(filters), L.DepthwiseConv2D(1), pointwise(filters, use_bias=False),
            ]  # fmt: skip
            behind = [[], [L.ReLU()], [L.ReLU(6)], [L.SiLU()], [L.Dropout(0.3, seed=seed)]]
            made += [convs[rng.integers(6)], norm(), L.ReLU()][: int(rng.integers(1, 4))]
            made += behind[rng.integers(5)]
            if rng.integers(4) == 0:
                made.append(norm(activation=("relu", "relu6", None)[rng.integers(3)]))
        return made

    def block() -> Residual:
        body = [*layers(2), pointwise(6), *([norm()] if rng.integers(2) else [])]
        return Residual(body, pointwise(6), ("relu", None)[rng.integers(2)])

    blocks = [block() if rng.integers(2) else Sequential(layers(2)) for _ in range(2)]
    return Sequential([*layers(2), *blocks, *layers(1), L.GlobalAveragePool2D(), L.Dense(5)])


def test_random_networks_layer_by_layer(pays) -> None:
    met = 0
    for seed in range(12):
        results = []
        for fuses in (True, False):
            gpucnn.set_seed(seed)
            network = random_network(seed)
            for part in (network, *network.layers):
                part.fuses = fuses
            y = network.forward(IMAGES, training=True)
            found = readers(network)
            assert fuses or not found
            met += len(found)
            dx = network.backward(np.random.default_rng(seed).standard_normal(y.shape, np.float32))
            gradients = [parameter.gradient for parameter in network.parameters()]
            states = [array for _, layer in network.walk() for array in layer.state.values()]
            results.append([y, dx, *gradients, *states])
        for ours, expected in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, expected, err_msg=f"network {seed}")
    assert met > 12


# ---- steps ---------------------------------------------------------------------------------------


def trained(make: Callable[[], Network], backend: Backend, **options: Any) -> Trainer:
    gpucnn.set_seed(3)
    trainer = Trainer(make(), "cross_entropy", backend=backend, progress=False, **options)
    trainer.fit(IMAGES, LABELS, epochs=3, batch_size=6, validation_split=0)
    for path, layer in trainer.model.walk():
        layer.trainable = path != "sequential/batch_norm_1"  # recorded anew
    trainer.fit(IMAGES, LABELS, epochs=3, batch_size=6, validation_split=0)
    return trainer


def test_a_recorded_training_is_the_same(pays) -> None:
    device = Device()
    with use_backend(device.backend):
        one = trained(inverted, device.backend)
        pays(False)
        other = trained(inverted, device.backend, record=False)
    assert one.recording_failure is None
    assert [step.recorded for step in one.training_step.steps.recordings.values()] == [True]
    assert_same_training(one, other)


def test_a_training_in_16_bits_is_the_same(pays) -> None:
    def make() -> Network:
        network = inverted().astype("bfloat16")
        network.layers[-1].out_dtype = "float32"
        return network

    backend = gpucnn.backends.get_backend("numpy")
    one = trained(make, backend)
    pays(False)
    assert_same_training(one, trained(make, backend))
    pays(True)
    one.model.forward(IMAGES, training=True)
    assert readers(one.model) == {"residual/conv2d_1"}


def memory_of(layers: list[L.Layer]) -> StepMemory:
    return step_memory(Sequential(layers, input_shape=(6, 7, 3)), IMAGES, LABELS)


def test_the_output_is_not_kept(pays) -> None:
    def layers() -> list[L.Layer]:
        made: list[L.Layer] = []
        for multiplier in (16, 6):
            conv = L.DepthwiseConv2D(3, depth_multiplier=multiplier, padding="same")
            made += [conv, norm(), L.ReLU(6), pointwise(8), norm(), L.ReLU()]
        return [*made, L.GlobalAveragePool2D(), L.Dense(5)]

    ours = memory_of(layers())
    row = next(row for row in ours.kept if row.name == "conv2d+batch_norm_1+re_lu_1")
    normed = "float32 12x6x7x48", "float32 48", "float32 48"
    assert row.arrays == (*normed, "float32 12x6x7x8", "float32 8", "float32 8")
    assert row.shared == 3  # the norm keeps its input and its statistics itself
    pays(False)
    written = memory_of(layers())
    size = 4 * 12 * 6 * 7 * 48  # of each: 3 channels by 16, 8 by 6
    assert written.kept_bytes - ours.kept_bytes == 2 * size
    assert written.arena.size - ours.arena.size >= size  # one at a time is made again


def test_a_profile_names_the_same_stages(pays) -> None:
    network = inverted()
    names = [row.name for row in profile(network, IMAGES, LABELS, steps=2).rows]
    network.forward(IMAGES, training=True)
    assert readers(network)
    pays(False)
    assert names == [row.name for row in profile(inverted(), IMAGES, LABELS, steps=2).rows]


# ---- the functions -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (3, 1, 1, 4)])
def test_an_unapplied_norm_stands_for_its_output(shape, backend) -> None:
    """In front of any convolution: what is padded, too, is the norm's output."""
    rng = np.random.default_rng(1)

    def array(*shape: int) -> Any:
        return backend.asarray(rng.standard_normal(shape, np.float32))

    # of more pixels than a block of the GPU takes by itself
    x, w, gamma, beta = array(6, 28, 30, shape[-1]), array(*shape), *array(2, shape[-1])
    moving = [backend.asarray(np.zeros(shape[-1], np.float32)) for _ in range(2)]
    norms, results = {"activation": "relu6", "moving": tuple(moving)}, []
    for applies in (True, False):
        y, mean, var = F.batch_norm_train(x, gamma, beta, applies=applies, **norms)
        assert isinstance(y, F.Unapplied) != applies
        geometry = {"padding": 1, "strides": 2}
        z = F.conv_forward(y, w, activation="relu", **geometry)
        both = F.conv_norm_train(y, w, None, *array(2, 3) ** 0, **geometry)
        dx, dw, db = F.conv_backward(z, y, w, **geometry)
        results.append([z, *both, dx, dw, db, mean, var])
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(*map(backend.to_numpy, (ours, expected)))


def test_errors_of_the_functions() -> None:
    x, w, one = np.ones((2, 3)), np.ones((4, 3)), np.ones(3)
    with pytest.raises(ValueError, match=r"batch_norm: a residual is added .* Received: applies=F"):
        F.batch_norm_train(x, one, one, residual=x, applies=False)
    y, mean, _ = F.batch_norm_train(x, one, one, applies=False)
    np.testing.assert_array_equal(F.dense_forward(y, w), np.ones((2, 4)) * 3)
    with pytest.raises(ValueError, match=r"expects an input \(batch, ..., 4\)"):
        F.dense_forward(y, np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"dense: mean must have the shape \(3,\)"):
        F.dense_forward(y._replace(norm=y.norm._replace(mean=mean[:2])), w)
    with pytest.raises(TypeError, match=r"dense: var must be float64"):
        F.dense_backward(x[:, :1] * np.ones(4), y._replace(norm=y.norm._replace(
            var=mean.astype(np.float32))), w)  # fmt: skip
    with pytest.raises(ValueError, match="dense: activation must be one of 'linear', 'relu'"):
        F.dense_forward(y._replace(norm=y.norm._replace(activation="tanh")), w)
    with pytest.raises(TypeError, match="one dtype"):
        F.dense_forward(y._replace(x=x.astype(np.float32)), w.astype(np.float32))
    with pytest.raises(TypeError, match="must be one of float16"):
        F.dense_forward(y._replace(x=x.astype(np.complex128)), w.astype(np.complex128))

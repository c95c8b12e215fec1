"""ReLUs that keep one bit a number: where they do, that nobody can tell, and what it saves."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import layers as L
from gpucnn.backends import use_backend
from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.functional import FromActivation, Mask
from gpucnn.layers.base import inference_mode
from gpucnn.network import Graph, Input, Network, Residual, Sequential, graph, sequential
from gpucnn.step.report import step_memory
from gpucnn.trainer import Trainer
from tests.emulated_graphs import Device
from tests.layer_cases import CASES

from .step_launches import Listing, listed_module

IMAGES = np.random.default_rng(0).standard_normal((12, 8, 9, 2), np.float32)
LABELS = np.arange(12) % 5


def arrays_of(saved: Any) -> Iterator[Any]:
    """Arrays and masks among what a layer has saved."""
    if isinstance(saved, (Mask, np.ndarray)):
        yield saved
    elif isinstance(saved, (tuple, list)):
        for item in saved:
            yield from arrays_of(item)


# ---- what layers keep ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_every_layer_says_what_it_does_with_its_input(name: str) -> None:
    """There is a case for every layer: see test_layer_gradients."""
    case, rng = CASES[name], np.random.default_rng(0)
    layer, many = case.layer(), isinstance(case.x_shape, list)
    xs = [0.5 + rng.random(shape) for shape in (case.x_shape if many else [case.x_shape])]
    y = layer.forward(xs if many else xs[0], training=True)
    kept = [np.shares_memory(x, array) for x in xs for array in arrays_of(layer._saved)]
    assert any(kept) == layer.keeps_input
    if any(np.shares_memory(x, y) for x in xs):
        assert layer.passes_input or layer.keeps_input


def test_a_layer_of_ones_own_is_taken_to_keep_its_input() -> None:
    class Own(L.Layer):
        def _forward(self, x: np.ndarray, training: bool) -> np.ndarray:
            self._save(x)
            return 2 * x

    network = Sequential([L.ReLU(), Own(), L.Dense(2)], input_shape=(3,))
    assert [type(stage) for stage in network._plan()] == [L.ReLU, Own, L.Dense]


def test_a_network_knows_what_it_keeps_of_its_input() -> None:
    mean, conv, drop = L.GlobalAveragePool2D, lambda: L.Conv2D(2, 1), lambda: L.Dropout(0.5)
    for layers, keeps in [
        ([mean(), L.Dense(2)], False), ([L.Flatten(), L.Dense(2)], True), ([conv()], True),
        ([Residual([L.AveragePool2D(1)], drop())], False), ([L.Permute((3, 1, 2))], True),
        ([Residual([L.ReLU()])], False), ([Residual([drop()], conv())], True),
        ([Residual([conv()], None, "relu")], True),
        ([Residual([L.AveragePool2D(1), L.BatchNorm()], L.ReLU(), "relu")], False),
    ]:  # fmt: skip
        assert Sequential(layers, input_shape=(4, 4, 2)).keeps_input == keeps


# ---- where there are masks -----------------------------------------------------------------------


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks for small maps, too, and on CUDA behind norms."""
    for kind in (gpucnn.backends.numpy.NumpyBackend, CudaBackend):
        monkeypatch.setattr(kind, "least_masked", 0)
        monkeypatch.setattr(kind, "masks_norms", True)


def dropouts() -> Sequential:
    """Both ways to write an activation; a rate of zero; and a ReLU that a dropout cannot join."""
    return Sequential(
        [
            L.Conv2D(4, 3, activation="relu"), L.Dropout(0.4, seed=2),
            L.Conv2D(4, 1), L.ReLU(max_value=6), L.Dropout(0.2, seed=1),
            L.AveragePool2D(2), L.Activation("clipped_relu"), L.Dropout(0.3, seed=4),
            L.Conv2D(4, 1, activation="relu"), L.Dropout(0.0, seed=3), L.Flatten(),
            L.Dense(8, "leaky_relu"), L.Dropout(0.5, seed=5), L.Dense(5),
        ],
        input_shape=(8, 9, 2),
    )  # fmt: skip


def means() -> Sequential:
    """In front of pools, directly and behind a view; in channels-first maps; transposed ones."""
    return Sequential(
        [
            L.Conv2D(4, 3), L.ReLU(), L.AveragePool2D(2), L.LeakyReLU(0.1),
            L.Conv2DTranspose(3, 2, activation="relu6"), L.Permute((3, 1, 2)),
            L.AveragePool2D(2, data_format="channels_first"), L.ReLU(),
            L.SeparableConv2D(4, 1, data_format="channels_first", activation="relu"),
            L.GlobalAveragePool2D(data_format="channels_first"), L.Dense(5),
        ],
        input_shape=(8, 9, 2),
    )  # fmt: skip


def blocks() -> Sequential:
    """The end of a network is in another one; sums of norms, of convolutions, of neither."""
    return Sequential(
        [
            L.Conv2D(4, 3, padding="same"),
            Residual([L.Conv2D(4, 3, padding="same"), L.BatchNorm()], None, "relu"),
            L.AveragePool2D(2),
            Residual([L.BatchNorm()], None, "relu"), L.Dropout(0.25, seed=6),
            Residual([L.Conv2D(4, 3, padding="same")], None, "relu"), L.SumPool2D(2),
            Residual([L.AveragePool2D(1)], None, "relu"), L.AveragePool2D(1),
            Sequential([L.Conv2D(4, 1), L.ReLU()]), L.GlobalAveragePool2D(), L.Dense(5),
        ],
        input_shape=(8, 9, 2),
    )  # fmt: skip


def joins() -> Graph:
    """Values that are read twice: kept by one reader, by none, and as an output."""
    x = Input((8, 9, 2))
    stem = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    left = L.ReLU()(L.AveragePool2D(1)(stem))
    right = L.Dropout(0.3, seed=3)(L.Activation("leaky_relu")(L.Conv2D(4, 1)(stem)))
    summed = L.ReLU()(L.Add()([L.AveragePool2D(1)(left), right]))
    normed = L.ReLU()(L.Add()([L.BatchNorm()(L.Conv2D(4, 1)(summed)), left]))
    both = L.ReLU()(L.Add()([left, L.AveragePool2D(1)(summed)]))
    joined = L.Concatenate()([normed, L.Conv2D(3, 1, activation="relu6")(summed), both])
    end = L.Dense(5)(L.Flatten()(L.GlobalAveragePool2D(keepdims=True)(joined)))
    return Graph(x, [end, L.ReLU()(L.AveragePool2D(2)(joined))])


def readers() -> Sequential:
    """What takes an activation's derivative upon itself, in each of the ways that it runs."""
    return Sequential(
        [
            L.Conv2D(4, 3, padding="same"), L.ReLU(),
            L.Conv2D(4, 1, activation="relu6"),
            L.Conv2D(6, 3, padding="same"), L.ReLU(), L.MaxPool2D(2),
            Residual(
                [L.Conv2D(6, 3, padding="same", activation="leaky_relu"), L.Conv2D(6, 1)],
                L.Conv2D(6, 1, activation="relu"),
            ),
            L.Activation("clipped_relu"),
            L.Conv2D(4, 1), L.BatchNorm(), L.ReLU(),
            L.Conv2D(4, 2, groups=2, activation="relu"), L.Flatten(),
            L.Dense(8, "relu"), L.Dense(6, "relu"), L.BatchNorm(), L.Dense(6, "tanh"), L.Dense(5),
        ],
        input_shape=(8, 9, 2),
    )  # fmt: skip


def halves() -> Sequential:
    """On tensor cores of a GPU, whose kernels bring the masks: a sum's and a dense layer's, too."""
    return Sequential(
        [
            L.Conv2D(16, 3), L.ReLU(max_value=6), L.AveragePool2D(2),
            Residual([L.Conv2D(16, 3, padding="same")], None, "relu"), L.SumPool2D(2),
            L.Dense(24, "leaky_relu"), L.GlobalAveragePool2D(), L.Dense(5),
        ],
        input_shape=(8, 9, 2), dtype="bfloat16",
    )  # fmt: skip


def masks_of(network: Network) -> dict[str, tuple[int, ...]]:
    """The shape of each mask that a forward pass has left, by the layer that keeps it."""
    return {
        name: array.shape
        for name, layer in network.walk()
        for array in arrays_of(layer._saved)
        if isinstance(array, Mask)
    }


# By network, the layers that keep a mask.
MASKS: dict[Callable[[], Network], set[str]] = {
    dropouts: {"conv2d", "conv2d_1", "activation", "dense"},
    means: {"conv2d", "conv2d_transpose", "separable_conv2d"},
    blocks: {
        "residual/conv2d", "residual_1/batch_norm", "residual_2/conv2d", "sequential/conv2d",
    },
    joins: {"re_lu", "conv2d_1", "conv2d_2", "conv2d_3", "add_2"},
    readers: {"residual/conv2d_2"},
    halves: {"conv2d", "residual/conv2d", "dense"},
}  # fmt: skip
every_network = pytest.mark.parametrize("make", MASKS, ids=lambda make: make.__name__)


@every_network
def test_where_nobody_else_keeps_the_output(make, always) -> None:
    network = make()
    network.forward(IMAGES, training=True)
    assert set(masks_of(network)) == MASKS[make]


def test_what_a_reader_knows_of_its_input() -> None:
    """And nobody else keeps anything for the activation, however the network trains."""
    network = readers()
    for training, frozen in ((True, False), (False, False), (True, True)):
        for _, layer in network.walk():
            if isinstance(layer, L.BatchNorm):
                layer.trainable = not frozen
        network.forward(IMAGES, training=training)
        of = {name: of_saved(layer._saved) for name, layer in network.walk()}
        assert {name: source.kind for name, source in of.items() if source} == {
            "conv2d_1": "relu", "conv2d_2": "relu6", "residual/conv2d_1": "leaky_relu",
            "conv2d_3": "clipped_relu", "dense_1": "relu",
        }  # fmt: skip
        for layer in (network.layers[0], network.layers[2], network.layers[-5]):
            assert len([*arrays_of(layer._saved)]) == 1  # its input


def test_a_graphs_sum_is_a_reader_as_a_residuals_is() -> None:
    x = Input((4, 4, 2))
    h = L.Conv2D(2, 1, activation="relu", name="first")(x)
    network = Graph(x, L.Add()([L.Conv2D(2, 1, name="second")(h), x]))
    network.forward(np.ones((1, 4, 4, 2), np.float32), training=True)
    saved = {layer.name: of_saved(layer._saved) for layer in network.layers[:2]}
    assert saved["first"] is None and saved["second"].kind == "relu"


def of_saved(saved: Any) -> FromActivation | None:
    """What gave a layer's input, where it has remembered that."""
    if isinstance(saved, FromActivation) or not isinstance(saved, (tuple, list)):
        return saved if isinstance(saved, FromActivation) else None
    return next(filter(None, map(of_saved, saved)), None)


def test_what_backends_find_worth_it() -> None:
    def kept(backend: Backend, *layers: L.Layer, batch: int = 16) -> set[str]:
        network = Sequential(layers, input_shape=(16, 16, 4))
        network.forward(backend.xp.zeros((batch, 16, 16, 4), np.float32), training=True)
        return set(masks_of(network))

    numpy = gpucnn.backends.get_backend("numpy")
    with use_backend(CudaBackend(listed_module(listing := Listing()), listing)) as cuda:
        conv = [L.Conv2D(4, 1, activation="relu"), L.AveragePool2D(2)]
        assert kept(cuda, *conv) == set()  # of 64 KB, read in less time than a launch takes
        assert kept(cuda, *conv, batch=2048) == {"conv2d"}
        assert kept(cuda, L.Conv2D(4, 1, activation="relu"), L.Dropout(0.5)) == {"conv2d"}
        assert kept(cuda, L.ReLU(), L.AveragePool2D(2)) == {"re_lu"}  # costs no launch
    with use_backend(numpy):
        assert kept(numpy, L.Conv2D(4, 1, activation="relu"), L.AveragePool2D(2)) == {"conv2d"}
        small = [L.AveragePool2D(2), L.Conv2D(4, 1, activation="relu"), L.AveragePool2D(2)]
        assert kept(numpy, *small) == set()


def test_a_layer_by_itself_keeps_its_output() -> None:
    network = dropouts()
    layer = network.layers[0]
    network.forward(IMAGES, training=True)
    y = layer.forward(IMAGES, training=True)
    assert any(array is y for array in layer._saved)


def test_nothing_is_kept_without_a_way_back() -> None:
    """And a dropout still drops, as a Bayesian would have it."""
    network = dropouts()
    with inference_mode():
        ys = [network.forward(IMAGES, training=True) for _ in range(2)]
    assert not np.array_equal(*ys)
    assert all(layer._saved is None for _, layer in network.walk())


# ---- the numbers ---------------------------------------------------------------------------------


def everything(make: Callable[[], Network], backend: Backend, training: bool) -> list[np.ndarray]:
    """Outputs, all gradients and moving statistics of two steps."""
    gpucnn.set_seed(3)
    network, results = make(), []
    for seed in range(2):
        ys = network.forward(backend.asarray(IMAGES), training=training)
        ys = ys if isinstance(ys, list) else [ys]
        rng = np.random.default_rng(seed)
        dys = [backend.asarray(rng.standard_normal(y.shape, np.float32), y.dtype) for y in ys]
        dx = network.backward(dys if len(dys) > 1 else dys[0])
        results += [*ys, dx, *(parameter.gradient for parameter in network.parameters())]
    results += [array for _, layer in network.walk() for array in layer.state.values()]
    return [backend.to_numpy(array) for array in results]


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def switch() -> None:
        for module in (sequential, graph):
            monkeypatch.setattr(module, "with_masks", lambda stages, *others: list(stages))

    return switch


@every_network
@pytest.mark.parametrize("training", [True, False])
def test_nobody_can_tell_from_the_numbers(make, training, backend, always, never) -> None:
    ours = everything(make, backend, training)
    never()
    expected = everything(make, backend, training)
    for ours_one, expected_one in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(ours_one, expected_one)


def test_nor_where_a_map_lies_in_an_order_of_its_own(never) -> None:
    """A bias's gradient is a sum in the order of memory, which NumPy's convolutions choose."""

    def mapped() -> Sequential:
        layers = [L.Conv2D(8, 3, padding="same", activation="relu"), L.Dense(6)]
        return Sequential(layers, input_shape=IMAGES.shape[1:])

    network, backend = mapped(), gpucnn.backends.get_backend("numpy")
    assert not network.layers[0].forward(IMAGES).flags.c_contiguous
    ours = everything(mapped, backend, True)
    never()
    for ours_one, expected in zip(ours, everything(mapped, backend, True), strict=True):
        np.testing.assert_array_equal(ours_one, expected)


@pytest.mark.parametrize("make", [dropouts, blocks], ids=lambda make: make.__name__)
def test_a_recorded_training_is_the_same(make, always) -> None:
    device = Device()
    trainers = []
    with use_backend(device.backend):
        for record in (True, False):
            gpucnn.set_seed(3)
            trainer = Trainer(make(), "cross_entropy", backend=device.backend, record=record,
                              progress=False)  # fmt: skip
            trainer.fit(IMAGES, LABELS, epochs=3, batch_size=6, validation_split=0)
            for _, layer in trainer.model.walk():
                if isinstance(layer, L.Dropout):
                    layer.rate = 0.75 - layer.rate  # in the kernels' arguments: recorded anew
            trainer.fit(IMAGES, LABELS, epochs=3, batch_size=6, validation_split=0)
            trainers.append(trainer)
    assert trainers[0].recording_failure is None
    recordings = trainers[0].training_step.steps.recordings.values()
    assert [step.recorded for step in recordings] == [True]
    losses = [[record["loss"] for record in t.history.records] for t in trainers]
    assert losses[0] == losses[1]
    states = [trainer.model.state_dict() for trainer in trainers]
    assert all(np.array_equal(states[0][path], states[1][path]) for path in states[0])


# ---- what it saves -------------------------------------------------------------------------------


def test_the_report_shows_bits(never) -> None:
    layers = [
        L.Conv2D(64, 3, activation="relu"), L.GlobalAveragePool2D(),
        L.Dense(64, "relu"), L.Dropout(0.5), L.Dense(5),
    ]  # fmt: skip
    network = Sequential(layers, input_shape=(8, 9, 2))
    memory = step_memory(network, IMAGES, LABELS)
    rows = {row.name: row for row in memory.kept}
    assert rows["conv2d"].arrays == ("float32 12x8x9x2", "bits 12x6x7x64")
    assert rows["conv2d"].bytes == IMAGES.nbytes + 12 * 6 * 7 * 64 // 8
    assert rows["dense+dropout"].arrays == ("float32 12x64", "bits 12x64")
    assert rows["dense+dropout"].bytes == 4 * 12 * 64 + 12 * 64 // 8
    never()
    network = Sequential(layers, input_shape=(8, 9, 2))
    without = step_memory(network, IMAGES, LABELS)
    sizes = 12 * 6 * 7 * 64, 12 * 64
    assert without.kept_bytes - memory.kept_bytes == sum(4 * size - size // 8 for size in sizes)


def test_the_output_can_be_freed() -> None:
    layers = [L.Conv2D(64, 3), L.ReLU(), L.AveragePool2D(2), L.Dense(5)]
    network, seen = Sequential(layers, input_shape=(8, 9, 2)), []
    pool = network.layers[2]
    forward = pool._pass_forward
    pool._pass_forward = lambda *given: seen.append(weakref.ref(given[2])) or forward(*given)
    network.forward(IMAGES, training=True)
    assert seen[0]() is None


def test_a_convolution_on_tensor_cores_brings_its_mask(never) -> None:
    """Of small maps, too; but not of a picture's few channels, nor with bytes of two pixels."""

    def step(make: Callable[[], Network]) -> tuple[set[str], list[str]]:
        listing = Listing()
        with use_backend(CudaBackend(listed_module(listing), listing)) as backend:
            network = make()
            network.build(network.input_shape, "bfloat16", backend)
            listing.clear()
            x = backend.xp.empty((2, *network.input_shape), network.dtype)
            y = network.forward(x, training=True)
            found = set(masks_of(network))
            network.backward(y)
        assert listing.arithmetic == []
        return found, [name for name in listing.kernels if "mask" in name or "activation" in name]

    def odd() -> Sequential:
        layers = [L.Conv2D(12, 3, activation="relu"), L.AveragePool2D(2)]
        return Sequential(layers, input_shape=(8, 9, 16), dtype="bfloat16")

    masks = ["mask_backward_bf16"] * 2
    assert step(halves) == (
        MASKS[halves] - {"conv2d"},
        [*masks, "activation_backward_relu6_bf16"],
    )
    assert step(odd) == (set(), ["activation_backward_relu_bf16"])
    never()
    found, kernels = step(halves)
    assert not found and [name.split("_")[1] for name in kernels] == ["backward"] * 3


def test_logits_of_another_dtype_keep_their_mask_by_a_pass(always) -> None:
    layers = [L.Dense(8, "relu", out_dtype="float32"), L.GlobalAveragePool1D()]
    network = Sequential(layers, input_shape=(3, 4), dtype="bfloat16")
    y = network.forward(np.ones((2, 3, 4), np.float32), training=True)
    assert y.dtype == np.float32 and set(masks_of(network)) == {"dense"}


def test_launches(never) -> None:
    """A dropout takes its ReLU along, and the reader of a ReLU its derivative."""

    def kernels(*layers: L.Layer) -> list[str]:
        listing = Listing()
        with use_backend(CudaBackend(listed_module(listing), listing)) as backend:
            network = Sequential(layers, input_shape=(8,))
            y = network.forward(backend.xp.empty((4, 8), np.float32), training=True)
            network.backward(y)
        assert listing.arithmetic == []
        return [name for name in listing.kernels if "drop" in name or "backward" in name]

    drops = [L.Dense(8, "relu"), L.Dropout(0.5)]
    assert kernels(*drops) == ["dropout_masked_f32", "mask_backward_f32"]
    assert kernels(L.Dense(8, "relu"), L.Dense(8)) == []
    never()
    assert kernels(*drops) == ["dropout_f32", "dropout_f32", "activation_backward_relu_f32"]
    assert kernels(L.Dense(8, "relu"), L.Dense(8)) == ["activation_backward_relu_f32"]

"""Steps that are planned, recorded and replayed: the same numbers, bit for bit, in less memory."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from dataclasses import dataclass

import numpy as np
import pytest

import gpucnn
from gpucnn import models
from gpucnn.backends import get_backend, use_backend
from gpucnn.callbacks import LambdaCallback
from gpucnn.layers import BatchNorm, Concatenate, Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU
from gpucnn.losses import CrossEntropy, Loss
from gpucnn.network import Input, Residual, Sequential
from gpucnn.network.joining import joined
from gpucnn.optimizers import SGD, Adam, Lookahead, LossScale, Muon
from gpucnn.schedules import OneCycle
from gpucnn.step import Arena, Lifetime, Recorded, recorded
from gpucnn.step.arena import ALIGNMENT, aligned
from gpucnn.step.report import step_memory
from gpucnn.trainer import Trainer
from tests.emulated_graphs import Device, Graph

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((40, 8, 8, 3), np.float32)
LABELS = RNG.integers(0, 5, 40)


# ---- the arena -----------------------------------------------------------------------------------


def random_lifetimes(rng: random.Random, count: int) -> list[Lifetime]:
    begins = sorted(rng.sample(range(4 * count), count))
    return [
        Lifetime(rng.randint(1, 10 ** rng.randint(1, 6)), b, b + rng.randint(1, count))
        for b in begins
    ]


def overlaps(arena: Arena) -> list[tuple[int, int]]:
    found = []
    places = list(zip(arena.offsets, arena.lifetimes, strict=True))
    for i, (a, one) in enumerate(places):
        for j, (b, other) in enumerate(places[:i]):
            if one.meets(other) and a < b + other.size and b < a + one.size:
                found.append((i, j))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_arrays_that_live_at_one_moment_lie_apart(seed):
    rng = random.Random(seed)
    arena = Arena.of(random_lifetimes(rng, 60))
    assert not overlaps(arena)
    assert all(offset % ALIGNMENT == 0 for offset in arena.offsets)
    ends = (o + life.size for o, life in zip(arena.offsets, arena.lifetimes, strict=True))
    assert max(ends) <= arena.size
    assert arena.least <= arena.size <= min(1.3 * arena.least, arena.naive)


def test_the_check_of_overlaps_can_fail():
    assert overlaps(Arena((Lifetime(8, 0, 2), Lifetime(8, 1, 3)), (0, 4))) == [(1, 0)]


def test_an_array_that_follows_another_takes_over_its_bytes():
    arena = Arena.of([Lifetime(100, 0, 1), Lifetime(700, 1, 2), Lifetime(50, 1, 3)])
    assert arena.taken_over == ((), (0,), ())
    assert (arena.size, arena.least, arena.naive) == (1536, 1536, 2048)
    assert arena.size == aligned(700) + aligned(50)


def test_no_arrays_no_bytes():
    arena = Arena.of([])
    assert (arena.size, arena.least, arena.naive) == (0, 0, 0)


# ---- any function --------------------------------------------------------------------------------


def large(backend):
    """A function of two large arrays that makes four, of which three at a time are in use."""

    def function(x, y):
        first = backend.activation_forward(x, "relu", 0.0)
        second = backend.activation_forward(y, "tanh", 0.0)
        third = backend.activation_backward(first, second, "tanh", 0.0)
        del first, second
        return [backend.activation_forward(third, "sigmoid", 0.0)]

    return function


@pytest.fixture
def device():
    device = Device()
    with use_backend(device.backend):
        yield device


def batches(backend, count, size=20_000):
    rng = np.random.default_rng(1)
    return [
        [backend.asarray(rng.standard_normal(size, np.float32)) for _ in range(2)]
        for _ in range(count)
    ]


def test_on_numpy_arrays_lie_in_the_arena_and_numbers_stay():
    backend = get_backend("numpy")
    function = large(backend)
    step = Recorded(function, backend)
    for inputs in batches(backend, 6):
        np.testing.assert_array_equal(step(*inputs)[0], function(*inputs)[0])
    assert (step.reason, step.recorded) == (None, False)  # NumPy has nothing to capture
    assert len(step.arena.lifetimes) == 4
    address, size = step._memory[0], step.arena.size
    (result,) = step(*inputs)
    assert address <= result.ctypes.data < address + size


def test_a_graph_does_the_work_of_the_function(device):
    function = large(device.backend)
    step = Recorded(function, device.backend)
    called = []

    def counted(*inputs):
        called.append(inputs)
        return function(*inputs)

    step.function = counted
    for inputs in batches(device.backend, 8):
        got = device.backend.to_numpy(step(*inputs)[0])
        np.testing.assert_array_equal(got, device.backend.to_numpy(function(*inputs)[0]))
    assert step.recorded
    assert len(called) == 4  # as it stands, watched, from the arena, captured
    assert step.arena.size == step.arena.least == 0.75 * step.arena.naive


def test_memory_that_is_taken_over_too_early_shows(device):
    """The graph's poison reaches the numbers, so that the tests above would see a wrong plan."""
    function = large(device.backend)
    step = Recorded(function, device.backend)
    inputs = batches(device.backend, 1)[0]
    for _ in range(3):
        step(*inputs)

    step(*inputs)
    assert np.isfinite(device.backend.to_numpy(step(*inputs)[0])).all()
    captured = step.replay.replay
    lost = next(work for name, work in captured.work if name == "leave")
    place = next(i for i, (name, _) in enumerate(captured.work) if name.startswith("activation_b"))
    captured.work.insert(place, ("leave", lost))
    assert np.isnan(device.backend.to_numpy(step(*inputs)[0])).any()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("sizes", "array 0 is of 60,000 bytes, and was of 80,000"),
        ("more", "it makes more arrays than before, 1"),
        ("fewer", "it makes fewer arrays than before, 0 of 1"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "graphs"])
def test_a_function_that_does_not_repeat_itself_runs_as_it_stands(kind, change, reason, device):
    backend = device.backend if kind == "graphs" else get_backend("numpy")
    counts = {"sizes": 1, "more": 2, "fewer": 0}
    calls = []

    def function(x):
        calls.append(x)
        odd = len(calls) == 3
        part = x[: 15_000 if odd and change == "sizes" else 20_000]
        made = [
            backend.activation_forward(part, "relu", 0.0)
            for _ in range(counts[change] if odd else 1)
        ]
        return made or [part]

    step = Recorded(function, backend)
    for x, _ in batches(backend, 6):
        y = backend.to_numpy(step(x)[0])
        np.testing.assert_array_equal(
            np.maximum(backend.to_numpy(x)[: y.size], 0), np.maximum(y, 0)
        )
    assert step.reason == reason
    assert not step.recorded


def test_an_array_that_is_kept_for_longer_is_not_taken_over():
    backend = get_backend("numpy")
    kept, calls = [], []

    def function(x):
        calls.append(x)
        first = backend.activation_forward(x, "relu", 0.0)
        if len(calls) == 3:
            kept.append(first)
        del first
        return [backend.activation_forward(x, "tanh", 0.0)]

    step = Recorded(function, backend)
    inputs = batches(backend, 5)
    for x, _ in inputs:
        step(x)
    assert step.reason == "array 0 is in use for longer than before"
    np.testing.assert_array_equal(kept[0], np.maximum(inputs[2][0], 0))


def test_what_waits_for_the_device_is_not_recorded(device):
    waits = []

    def function(x):
        y = device.backend.activation_forward(x, "relu", 0.0)
        waits.append(float(y.sum()))
        return [y]

    step = Recorded(function, device.backend)
    for x, _ in batches(device.backend, 6):
        np.testing.assert_array_equal(device.backend.to_numpy(step(x)[0]), np.maximum(x.get(), 0))
    assert "cannot wait" in step.reason
    assert len(waits) == 6  # each call's work was done, and once


def test_an_error_of_the_function_is_its_own(device):
    calls = []

    def function(x):
        calls.append(x)
        if len(calls) >= 4:
            raise ZeroDivisionError("mine")
        return [x]

    step = Recorded(function, device.backend)
    (x, _), *_ = batches(device.backend, 1)
    for _ in range(3):
        step(x)
    with pytest.raises(ZeroDivisionError, match="mine"):
        step(x)


def test_a_table_from_the_host_is_not_captured(device):
    """CuPy would capture the copy, and its source be another table's by the next replay."""

    def function(x):
        return [x + device.backend.asarray(np.ones(x.shape, x.dtype))]

    step = Recorded(function, device.backend)
    for x, _ in batches(device.backend, 6):
        np.testing.assert_array_equal(step(x)[0].get(), x.get() + 1)
    assert step.reason == "RuntimeError: a capture cannot copy from the host's memory"


def test_other_threads_copy_while_one_captures(device):
    backend, copied = device.backend, []

    def function(x):
        thread = threading.Thread(target=lambda: copied.append(backend.asarray(np.ones(3))))
        thread.start()
        thread.join()
        return [x + x]

    step = Recorded(function, backend)
    for x, _ in batches(backend, 6):
        step(x)
    assert step.recorded
    assert [array.tolist() for array in copied] == [[1.0, 1.0, 1.0]] * 4


def test_numbers_vary_from_replay_to_replay(device):
    """In both widths, each asked for once a call, in order."""
    asked = []

    def function(x):
        call = gpucnn.varying.varying(lambda: asked.append("call") or len(asked), np.int64)
        return [device.backend.dropout(x, 0.5, 7, call)]

    step = Recorded(function, device.backend)
    (x, _), *_ = batches(device.backend, 1)
    for number in range(1, 9):
        got = device.backend.to_numpy(step(x)[0])
        expected = get_backend("numpy").dropout(x.get(), 0.5, 7, number)
        np.testing.assert_array_equal(got, expected)
    assert step.recorded
    assert len(asked) == 8


def test_varying_numbers_have_64_bits(device):
    numbers = recorded.Numbers(device.backend)
    numbers.begin()
    with pytest.raises(TypeError, match=r"64 bits\. Received: float32"):
        numbers.keep(lambda: 1.0, np.dtype("float32"))
    for _ in range(numbers.MOST):
        numbers.keep(lambda: 1.0, np.dtype("float64"))
    with pytest.raises(ValueError, match="can have 512 numbers"):
        numbers.keep(lambda: 1.0, np.dtype("float64"))


# ---- training ------------------------------------------------------------------------------------


def network(dtype=None) -> Sequential:
    gpucnn.set_seed(3)
    return Sequential(
        [
            Conv2D(8, 3, padding="same", use_bias=False),
            BatchNorm(),
            ReLU(),
            MaxPool2D(2),
            Residual([Conv2D(8, 3, padding="same"), BatchNorm()], activation="relu"),
            Residual([Conv2D(8, 3, padding="same", activation="tanh")]),
            Dropout(0.25, seed=5),
            Flatten(),
            Dense(5),
        ],
        input_shape=(8, 8, 3),
        dtype=dtype,
    )


def training(backend, *, record=True, epochs=2, **options):
    trainer = Trainer(
        network(),
        optimizer=options.pop("optimizer", SGD(0.05, momentum=0.9)),
        backend=backend,
        record=record,
        progress=False,
        **options,
    )
    trainer.fit(IMAGES, LABELS, epochs=epochs, batch_size=4, validation_split=0.25)
    return trainer


def same(one: Trainer, other: Trainer) -> bool:
    times = ("seconds", "images_per_second")
    records = [
        [{k: v for k, v in record.items() if k not in times} for record in t.history.records]
        for t in (one, other)
    ]
    weights = one.model.state_dict(), other.model.state_dict()
    return records[0] == records[1] and all(
        np.array_equal(weights[0][path], weights[1][path]) for path in weights[0]
    )


OPTIMIZERS = {
    "sgd": lambda: SGD(OneCycle(0.1, 16), momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda: Adam(OneCycle(0.01, 16)),
    "clipped": lambda: SGD(0.1, clip_norm=0.5),
    "factors": lambda: SGD(OneCycle(0.1, 16), momentum=0.9, rate_factors={"*/beta": 8.0}),
    "muon": lambda: Muon(OneCycle(0.1, 16), lookahead=Lookahead(3)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_recorded_training_is_the_same_bit_for_bit(optimizer, device):
    made = OPTIMIZERS[optimizer]
    recorded = training(device.backend, optimizer=made())
    plain = training(device.backend, record=False, optimizer=made())
    assert recorded.recording_failure is None
    assert [step.recorded for step in recorded.training_step.steps.recordings.values()] == [
        True,
        False,
    ]
    assert same(recorded, plain)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_recorded_training_in_sixteen_bits_is_the_same(dtype, device):
    """With scales that grow and shrink, steps that are skipped, and Adam's count of the others."""
    trainers = []
    for record in (True, False):
        trainer = Trainer(
            network(dtype), optimizer=Adam(OneCycle(0.01, 16)), backend=device.backend,
            loss_scale=LossScale(2.0**20, growth_interval=3) if dtype == "float16" else "auto",
            record=record, progress=False,
        )  # fmt: skip
        trainer.fit(IMAGES, LABELS, epochs=2, batch_size=4, validation_split=0.25)
        trainers.append(trainer)
    assert trainers[0].recording_failure is None
    assert same(*trainers)
    states = [trainer.loss_scale and trainer.loss_scale.state_dict() for trainer in trainers]
    assert states[0] == states[1]
    assert trainers[0].optimizer.skipped == trainers[1].optimizer.skipped
    if dtype == "float16":
        assert 1 < trainers[0].optimizer.skipped < 14  # of 16


def test_a_smaller_arena_is_given_back_with_its_recordings(device):
    trainer = Trainer(network(), optimizer=SGD(0.05), backend=device.backend, progress=False)
    memory = []
    for batch_size in (5, 8, 20):
        trainer.fit(IMAGES, LABELS, epochs=4, batch_size=batch_size, validation_split=0)
        shared = trainer.training_step.steps._memory
        _, owner = shared._memory
        memory.append((shared._size, weakref.ref(owner)))
    sizes, owners = zip(*memory, strict=True)
    assert sizes == tuple(sorted(set(sizes)))
    gc.collect()
    del owner
    assert [alive() is not None for alive in owners] == [False, False, True]


def test_on_numpy_too():
    assert same(training("numpy"), training("numpy", record=False))


def test_twenty_recorded_steps_give_numpys_losses(device):
    """Whatever is dead in the arena is poisoned; the losses would show it."""
    losses = {}
    for name, backend in (("graphs", device.backend), ("numpy", get_backend("numpy"))):
        seen = losses[name] = []
        with use_backend(backend):
            trainer = Trainer(network(), optimizer=SGD(0.05), backend=backend, progress=False)
            trainer._prepare(gpucnn.samples.as_samples("test", IMAGES, LABELS))
            meter = trainer._meter()
            trainer.training_step.begin(None, meter)
            for step in range(20):
                rows = slice(step % 5 * 8, step % 5 * 8 + 8)
                batch = backend.asarray(IMAGES[rows]), backend.asarray(LABELS[rows])
                meter.begin(f"step {step}")
                trainer.training_step(8, batch)
                seen.append(meter.read()["loss"])
    assert trainer.training_step.steps.recordings
    # rounding errors grow from step to step
    np.testing.assert_allclose(losses["graphs"], losses["numpy"], rtol=2e-4)
    assert losses["numpy"][-1] < losses["numpy"][0]


def test_a_change_from_outside_is_heeded(device):
    """A layer is frozen, a rate lowered, weights are loaded, in mid-training."""

    def change(trainer):
        def on_batch_end(batch):
            if batch == 6:
                trainer.model.layers[0].trainable = False
                trainer.optimizer.momentum = 0.5
            if batch == 7:
                state = trainer.model.state_dict()
                trainer.model.load_state_dict({path: 0.5 * state[path] for path in state})

        return on_batch_end

    results = []
    for record in (True, False):
        trainer = Trainer(
            network(), optimizer=SGD(0.05, momentum=0.9), backend=device.backend, record=record,
            progress=False,
        )  # fmt: skip
        trainer.callbacks = [LambdaCallback(on_batch_end=change(trainer))]
        trainer.fit(IMAGES, LABELS, epochs=2, batch_size=2, validation_split=0)
        results.append(trainer)
    assert same(*results)
    assert any(step.recorded for step in results[0].training_step.steps.recordings.values())


CHANGES = {
    "rate of a dropout": lambda trainer: setattr(trainer.model.layers[6], "rate", 0.0),
    "momentum of a batch norm": lambda trainer: setattr(trainer.model.layers[1], "momentum", 0.5),
    "epsilon within a block": lambda trainer: setattr(
        trainer.model.layers[4].layers[1], "epsilon", 0.5
    ),
    "loss's own argument": lambda trainer: setattr(trainer.loss, "share", 0.1),
}


@dataclass
class Share(Loss):
    """A share of the cross-entropy's gradient; not frozen, as one's own may be."""

    alias = "share"
    share: float = 1.0

    def __call__(self, prediction, target, loss_scale=None):
        value, dprediction = CrossEntropy()(prediction, target, loss_scale)
        return value, dprediction * np.float32(self.share)


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_argument_is_heeded(what, device):
    """Kernels of a recorded step keep the arguments that they were given by value."""
    results = []
    for record, change in ((True, True), (False, True), (False, False)):
        trainer = Trainer(
            network(), Share(), SGD(0.05), backend=device.backend, record=record, progress=False
        )

        def on_epoch_begin(epoch, trainer=trainer, change=change):
            if epoch == 2 and change:
                CHANGES[what](trainer)

        trainer.callbacks = [LambdaCallback(on_epoch_begin=on_epoch_begin)]
        trainer.fit(IMAGES, LABELS, epochs=2, batch_size=5, validation_split=0)
        results.append(trainer)
    recorded, plain, unchanged = results
    assert same(recorded, plain)
    assert not same(recorded, unchanged)
    (step,) = recorded.training_step.steps.recordings.values()
    assert step.recorded


def test_what_a_step_depends_on_is_told_apart_after_it_has_gone():
    """A new dictionary of slots may lie where the old one lay: its address says nothing."""
    trainer = training("numpy", epochs=1)
    before = trainer.training_step._circumstances()
    assert trainer.training_step._circumstances() == before
    for _ in range(3):
        trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())
        assert trainer.training_step._circumstances() != before


def test_a_metric_that_waits_leaves_the_training_as_it_is(device):
    def share(prediction, target):
        return np.float32(float(prediction.max()))

    trainer = training(device.backend, metrics=["accuracy", share])
    assert "cannot" in trainer.recording_failure
    assert same(trainer, training(device.backend, record=False, metrics=["accuracy", share]))


def test_a_metric_from_the_host_is_asked_every_time(device):
    asked = []

    def count(prediction, target):
        return float(len(asked.append(target) or asked))

    trainer = training(device.backend, metrics=[count])
    assert "cannot copy" in trainer.recording_failure
    assert trainer.history["count"][-1] > trainer.history["count"][0]


def test_joined_maps_are_recorded(device):
    """More than eight of them, too, which CuPy's concatenate would look up in a table."""

    def joined():
        gpucnn.set_seed(2)
        x = Input((8, 8, 3))
        y = Concatenate()([Conv2D(2, 1, activation="relu")(x) for _ in range(10)])
        return gpucnn.Graph(inputs=x, outputs=Dense(5)(Flatten()(y)))

    results = []
    for record in (True, False):
        trainer = Trainer(
            joined(), optimizer=SGD(0.01), backend=device.backend, record=record, progress=False
        )
        trainer.fit(IMAGES, LABELS, epochs=1, batch_size=5, validation_split=0)
        results.append(trainer)
    assert results[0].recording_failure is None
    assert same(*results)


def test_a_profiler_sees_every_layer(device):
    trainer = training(device.backend)
    seen = []

    def observer(subject, what, function, arguments):
        seen.append(what)
        return function(*arguments)

    with gpucnn.tracing.observing(observer):
        trainer.fit(IMAGES, LABELS, epochs=1, batch_size=4, validation_split=0)
    assert seen.count("optimizer") == 10


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_what_the_arena_saves(name):
    """The arrays of a step share bytes: all of a step's would be nearly twice as many."""
    shape = models.USUAL[name]
    rng = np.random.default_rng(0)
    trainer = Trainer(models.make(name, 10, shape), backend="numpy", progress=False)
    trainer.fit(
        rng.standard_normal((48, *shape), np.float32), rng.integers(0, 10, 48), epochs=1,
        batch_size=16, validation_split=0,
    )  # fmt: skip
    (step,) = trainer.training_step.steps.recordings.values()
    assert step.arena.size <= 1.1 * step.arena.least
    assert step.arena.size < 0.6 * step.arena.naive


def test_names_of_a_captured_step(device):
    trainer = training(device.backend)
    step = next(iter(trainer.training_step.steps.recordings.values()))
    graph = step.replay.replay
    assert isinstance(graph, Graph)
    names = graph.names()
    assert names.count("sgd_update_f32") == 1


# ---- what is kept, and the batch around an image -------------------------------------------------


def test_what_a_step_keeps():
    x, y = IMAGES[:16], LABELS[:16]
    memory = step_memory(network(), x, y)
    rows = {row.name: row for row in reversed(memory.kept)}  # the first of a name
    size = {"map": 4 * 16 * 8 * 8 * 8, "pooled": 4 * 16 * 4 * 4 * 8, "image": x.nbytes}
    assert rows["conv2d"].bytes == size["image"]
    # the norm's x, mean and variance, and of a window the place of its maximum, in a byte
    pooled = rows["batch_norm+re_lu+max_pool2d"]
    assert pooled.arrays == ("uint8 16x4x4x8", "float32 16x8x8x8", "float32 8", "float32 8")
    assert pooled.bytes == size["pooled"] / 4 + size["map"] + 2 * 4 * 8
    assert memory.kept_bytes == sum(row.bytes for row in memory.kept)
    # forward's end: all that is kept is in use at once
    assert memory.kept_bytes < memory.arena.least + x.nbytes + 16 * 2**10
    assert memory.arena.size < memory.arena.naive


def test_the_report_leaves_the_model_alone():
    model = network()
    before = model.state_dict()
    step_memory(model, IMAGES[:4], LABELS[:4])
    after = model.state_dict()
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_the_report_refuses_labels_of_other_classes():
    with pytest.raises(ValueError, match="labels must be 0 to 4"):
        step_memory(network(), IMAGES[:2], np.array([0, 9]))


@pytest.mark.parametrize("kind", ["numpy", "graphs"])
def test_the_batch_around_an_image_does_not_change_its_answer(kind, device):
    backend = device.backend if kind == "graphs" else get_backend("numpy")
    with use_backend(backend):
        model = network()
        others = IMAGES.copy()
        others[::2] = np.random.default_rng(5).standard_normal(others[::2].shape)
        answers, theirs = (model.predict(x, batch_size=16) for x in (IMAGES, others))
        np.testing.assert_array_equal(answers[1::2], theirs[1::2])
        assert (answers[::2] != theirs[::2]).any(axis=1).all()


@pytest.mark.parametrize("batch_size", [7, 16, 64])
def test_nor_does_its_place_on_a_gpu(batch_size, device):
    model = network()
    order = np.random.default_rng(6).permutation(len(IMAGES))
    answers = model.predict(IMAGES, batch_size=batch_size)
    np.testing.assert_array_equal(
        model.predict(IMAGES[order], batch_size=batch_size), answers[order]
    )
    assert answers.shape == (40, 5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_frozen_network_is_a_graph(dtype, device):
    model = network() if dtype == "float32" else network().astype(dtype)
    model.to(device.backend)
    answer = model.freeze()
    for start in range(8):
        x = device.backend.asarray(IMAGES[start : start + 2]).astype(model.dtype)
        y = answer(x)
        np.testing.assert_array_equal(y.get(), joined(answer.program)([x])[0].get())
        kept = y.get()
        answer(x + x)
        np.testing.assert_array_equal(y.get(), kept)  # the caller's, for good
    ((bound,),) = answer._idle.values()
    assert bound._recorded.recorded
    assert "astype" not in bound._recorded.replay.replay.names()

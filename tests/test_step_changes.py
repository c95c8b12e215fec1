"""Recorded steps and what goes on around them: changes, copies, errors, too little memory."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from gpucnn.backends import get_backend, use_backend
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.batch_steps import TrainingStep
from gpucnn.callbacks import LambdaCallback
from gpucnn.layers import BatchNorm, Dropout
from gpucnn.metrics import accuracy
from gpucnn.optimizers import SGD
from gpucnn.step import Recorded, SharedMemory
from gpucnn.trainer import Trainer
from tests.emulated_graphs import Device
from tests.training import X, Y, assert_same_training, fit, make_trainer, network

COUNT = 42  # of pictures: with batches of 8 the last one of an epoch is of another size


@pytest.fixture
def device():
    device = Device()
    with use_backend(device.backend):
        yield device


def trained(backend, record, callback=None, epochs=4, **options) -> Trainer:
    trainer = make_trainer(
        optimizer=SGD(0.05, momentum=0.9), backend=backend, record=record, **options
    )
    if callback is not None:
        trainer.callbacks = [LambdaCallback(on_batch_end=lambda batch: callback(trainer, batch))]
    fit(trainer, epochs, batch_size=8, data=(X[:COUNT], Y[:COUNT]), validation_split=0)
    return trainer


def recorded(trainer: Trainer) -> list[bool]:
    return [step.recorded for step in trainer.training_step.steps.recordings.values()]


def test_a_layers_setting_is_heeded(device):
    """A dropout that grows, a norm that forgets sooner: numbers that kernels are given by value."""

    def change(trainer, batch):
        for layer in trainer.model.layers:
            if isinstance(layer, Dropout):
                layer.rate = 0.1 * trainer.epoch
            if isinstance(layer, BatchNorm) and trainer.epoch == 2:
                layer.momentum = 0.5

    one, other = (trained(device.backend, record, change) for record in (True, False))
    assert any(recorded(one))
    assert_same_training(one, other)


@pytest.mark.parametrize("looks", [False, True])
def test_a_step_is_looked_at_for_changes_where_a_callback_sees_it(looks, monkeypatch):
    looked = []
    begin = TrainingStep.begin
    monkeypatch.setattr(TrainingStep, "begin", lambda *a: looked.append(1) or begin(*a))
    trainer = make_trainer(backend="numpy")
    trainer.callbacks = [
        LambdaCallback(**{"on_batch_end" if looks else "on_epoch_end": lambda *_: None})
    ]
    fit(trainer, 2, batch_size=8, data=(X[:COUNT], Y[:COUNT]), validation_split=0)
    assert len(looked) == (2 + 12 if looks else 2)


def test_gradients_are_those_of_the_latest_batch(device):
    """Each shape of batch is a recording, with gradients at addresses of its own."""

    def gradients_of(record):
        seen = []

        def note(trainer, batch):
            seen.append([p.gradient.get() for p in trainer.model.parameters()])

        return seen, trained(device.backend, record, note, epochs=6)

    (one, trainer), (other, _) = gradients_of(True), gradients_of(False)
    assert recorded(trainer) == [True, True]
    assert len(one) == 6 * 6
    for batch, (gradients, expected) in enumerate(zip(one, other, strict=True)):
        for gradient, right in zip(gradients, expected, strict=True):
            np.testing.assert_array_equal(gradient, right, err_msg=f"batch {batch}")


def test_a_frozen_network_within_a_training(device):
    """Without a parameter to train there is no gradient to look after."""

    def freeze(trainer, batch):
        for layer in trainer.model.layers:
            layer.trainable = False

    one, other = (trained(device.backend, record, freeze) for record in (True, False))
    assert any(recorded(one))
    assert_same_training(one, other)


def test_an_array_that_a_recording_knows_keeps_its_id(device):
    """What is compared is alive: no other array can come to have its id."""
    trainer = trained(device.backend, True)
    layer = trainer.model.layers[0]
    known = weakref.ref(layer.params["kernel"])
    layer.params["kernel"] = layer.params["kernel"].copy()
    assert known() is not None
    steps = trainer.training_step.steps
    assert steps.recordings
    trainer.training_step.begin(*steps._circumstances[1:])
    assert not steps.recordings
    assert known() is None


def test_a_metric_of_the_host_is_not_recorded(device):
    """An array made of a number is a kernel that is given it: a graph would repeat the number."""

    def metrics():
        calls = []

        def count(prediction, target):
            calls.append(1)
            return np.float32(len(calls))

        return [accuracy, count]

    one, other = (trained(device.backend, record, metrics=metrics()) for record in (True, False))
    assert "cannot copy from the host" in one.recording_failure
    last = [trainer.history.records[-1]["accuracy"] for trainer in (one, other)]
    assert last[0] == last[1]
    assert one.history.records[-1]["count"] > one.history.records[0]["count"]


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"]
)
def test_a_copy_has_memory_of_its_own(twin):
    backend = get_backend("numpy")
    trainer = trained(backend, True)
    other = twin(trainer)
    assert other.training_step.steps.recordings == {}
    for one in (trainer, other):
        fit(one, 4, batch_size=8, data=(X[:COUNT], Y[:COUNT]), validation_split=0)
        for step in one.training_step.steps.recordings.values():
            address, owner = step._memory
            assert owner.ctypes.data <= address < owner.ctypes.data + owner.nbytes
    assert_same_training(other, trainer)
    memories = [t.training_step.steps._memory for t in (trainer, other)]
    assert memories[0] is not memories[1]
    assert other.evaluation_step.steps._memory is memories[1]  # the twin's steps share


def test_memory_that_is_too_small_is_given_back():
    shared, backend = SharedMemory(), get_backend("numpy")
    _, owner = shared.of(1000, backend)
    assert shared.of(600, backend)[1] is owner
    small = weakref.ref(owner)
    _, owner = shared.of(5000, backend)
    assert small() is None
    assert shared.of(1000, backend)[1] is owner


@pytest.mark.parametrize("kind", ["numpy", "graphs"])
def test_a_trained_model_does_not_keep_the_memory_of_its_steps(kind, device):
    backend = device.backend if kind == "graphs" else get_backend("numpy")
    with use_backend(backend):
        trainer = trained(backend, True)
    step = next(iter(trainer.training_step.steps.recordings.values()))
    memory, model = weakref.ref(step._memory[1]), trainer.model
    del trainer, step
    gc.collect()
    assert model.built
    assert memory() is None


@pytest.mark.parametrize("kind", ["numpy", "graphs"])
def test_without_room_for_an_arena_steps_run_as_they_stand(kind, device, monkeypatch):
    backend = device.backend if kind == "graphs" else get_backend("numpy")

    def full(self, size, backend):
        raise MemoryError(f"out of memory allocating {size} bytes")

    with use_backend(backend):
        other = trained(backend, False)
        monkeypatch.setattr(SharedMemory, "of", full)
        one = trained(backend, True)
    assert "there is no arena: out of memory allocating" in one.recording_failure
    assert recorded(one) == [False, False]
    assert_same_training(one, other)


def test_after_an_error_a_function_is_planned_again(device):
    """What was left undone is done: no capture before a call from the arena made its tables."""
    calls = []

    def function(x):
        calls.append(x)
        y = device.backend.activation_forward(x, "relu", 0.0)
        if len(calls) in (1, 3, 5):
            raise KeyboardInterrupt
        return [y]

    step = Recorded(function, device.backend)
    x = device.backend.asarray(np.linspace(-1, 1, 5000, dtype=np.float32))
    right = []
    for _ in range(9):
        try:
            right.append(np.array_equal(step(x)[0].get(), np.maximum(x.get(), 0)))
        except KeyboardInterrupt:
            right.append(None)
    assert right == [None, True, None, True, None, True, True, True, True]
    assert step.reason is None
    assert step.recorded
    assert len(calls) == 7  # two as it stands, two watched, two from the arena, one captured


def test_a_captured_network_waits_for_its_call_before(device, monkeypatch):
    """Calls come from several threads, each with a stream; they work in one piece of memory."""
    marks = []

    class Transfers:
        def mark(self):
            marks.append(f"mark {len(marks)}")
            return marks[-1]

        def wait(self, mark):
            assert mark == marks[-1]
            waited.append(mark)

    waited = []
    monkeypatch.setattr(device.backend, "transfers", Transfers)
    model = network(0.0)
    model.to(device.backend)
    answer = model.freeze()
    x = device.backend.asarray(X[:4].astype(np.float32))
    for _ in range(6):
        answer(x)
    assert waited == [f"mark {i}" for i in range(6)]


def test_nobody_waits_for_a_device_while_another_thread_captures():
    """CUDA refuses that and spoils the capture; in the same thread the error is the function's."""
    seen, capturing = [], threading.Event()

    class Graphs:
        def capture(self, function):
            capturing.set()
            result = function()
            capturing.clear()
            return result, None

    def synchronize():
        seen.append(capturing.is_set())

    cuda = SimpleNamespace(Device=lambda: SimpleNamespace(synchronize=synchronize))
    backend = CudaBackend(SimpleNamespace(cuda=cuda), None, graphs=Graphs())
    other = threading.Thread(target=backend.synchronize)

    def function():
        other.start()
        other.join(0.05)
        assert not seen
        backend.synchronize()

    backend.capture(function)
    other.join()
    assert seen == [True, False]

"""On a GPU: recorded training steps and frozen networks, by CuPy and CUDA graphs themselves."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import models
from gpucnn.backends import get_backend, use_backend
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.dependent_launch import FIRST_ARCHITECTURE
from gpucnn.data import Compose, DeviceLoader, Flip, Normalize, Shift
from gpucnn.data.streaming import StreamedLoader
from gpucnn.optimizers import SGD, Adam, Lookahead, LossScale, Muon
from gpucnn.schedules import OneCycle
from gpucnn.step import Recorded
from gpucnn.trainer import Trainer

pytestmark = pytest.mark.gpu

COUNT, BATCH, EPOCHS = (
    40,
    16,
    5,
)  # batches of 16, 16 and 8: each size comes often enough for a graph
SPIN = """
extern "C" __global__ void spin(long long cycles) {
    const long long begin = clock64();
    while (clock64() - begin < cycles) {}
}"""
CYCLES = 500_000_000  # a quarter of a second or more
KERNEL_NODE = 0  # enum CUgraphNodeType: 1 is a copy, 2 a fill
PROGRAMMATIC = 1  # enum CUgraphDependencyType


@pytest.fixture
def backend() -> Iterator[CudaBackend]:
    try:
        found = get_backend("cuda")
    except RuntimeError as error:
        pytest.skip(str(error))
    with use_backend(found):
        yield found


@pytest.fixture(params=["ordinary", "dependent"])
def launches(request, backend, monkeypatch) -> str:
    """How the kernels of a graph follow each other; the launcher is told."""
    dependent = request.param == "dependent"
    if dependent and backend.launcher.architecture < FIRST_ARCHITECTURE:
        pytest.skip("dependent launches need sm_90")
    monkeypatch.setattr(backend.launcher, "dependent", dependent)
    return request.param


@pytest.fixture
def cupy(backend: CudaBackend) -> ModuleType:
    return backend.xp


def pictures(shape: tuple[int, ...], dtype: str = "uint8") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (COUNT, *shape)).astype(dtype)
    return x, np.arange(COUNT) % 10


def trainer_of(name: str, dtype: str = "float32", **options: Any) -> Trainer:
    gpucnn.set_seed(3)
    options.setdefault("optimizer", SGD(OneCycle(0.05, 15), momentum=0.9))
    if dtype == "float16":  # scales that grow, and that are too large
        options.setdefault("loss_scale", LossScale(2.0**20, growth_interval=3))
    model = models.make(name, 10, models.USUAL[name], dtype)
    return Trainer(model, backend="cuda", progress=False, **options)


def fitted(trainer: Trainer, x: np.ndarray, y: np.ndarray, **options: Any) -> Trainer:
    options = {
        "epochs": EPOCHS, "batch_size": BATCH, "validation": (x[:24], y[:24]),
        "normalize": Normalize(127.0, 64.0),
    } | options  # fmt: skip
    trainer.fit(x, y, **options)
    return trainer


def assert_recorded(trainer: Trainer) -> None:
    assert trainer.recording_failure is None, (
        f"steps are not recorded but run one by one: {trainer.recording_failure}"
    )
    for kind in (trainer.training_step, trainer.evaluation_step):
        steps = kind.steps.recordings
        late = {key: step.reason for key, step in steps.items() if not step.recorded}
        assert not late, f"{type(kind).__name__}: no graph of these (why, if it failed): {late}"
    assert trainer.training_step.steps.recordings


def assert_same(actual: Trainer, plain: Trainer) -> None:
    """Require the same losses, then the same weights and optimizer state, bit for bit."""
    for a, b in zip(actual.history.records, plain.history.records, strict=True):
        for name in set(a) - {"seconds", "images_per_second"}:
            assert a[name] == b[name], f"{name} of epoch {a['epoch']}: {a[name]}, not {b[name]}"
    states = [trainer.model.state_dict() for trainer in (actual, plain)]
    for one in (actual, plain):
        slots = one.optimizer.state_dict()["slots"]
        states.append({f"{k} of {p}": a.get() for k, v in slots.items() for p, a in v.items()})
    for found, right in (states[:2], states[2:]):
        for path, array in right.items():
            other = found[path] != array
            assert not np.any(other), f"{path}: {np.sum(other)} of {array.size} numbers differ"


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_a_recorded_training_is_the_same_bit_for_bit(name, dtype, launches, backend):
    data = pictures(models.USUAL[name])
    recorded, plain = (fitted(trainer_of(name, dtype, record=r), *data) for r in (True, False))
    assert_recorded(recorded)
    assert_same(recorded, plain)
    if dtype == "float16":
        assert recorded.optimizer.skipped == plain.optimizer.skipped > 0


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: Adam(OneCycle(0.01, 15), clip_norm=1.0),
        lambda: Muon(OneCycle(0.05, 15), lookahead=Lookahead(3)),
    ],
    ids=["adam", "muon"],
)
def test_with_numbers_that_differ_from_step_to_step(optimizer, launches, backend):
    data = pictures((28, 28, 1))
    metrics = ["accuracy", "top_5_accuracy"]  # the second is CuPy's arithmetic, to be captured
    recorded, plain = (
        fitted(trainer_of("lenet5", optimizer=optimizer(), metrics=metrics, record=r), *data)
        for r in (True, False)
    )
    assert_recorded(recorded)
    assert_same(recorded, plain)


@pytest.mark.parametrize(
    ("augment", "kind"),
    [
        (None, DeviceLoader),
        (Compose([Shift(2), Flip()]), DeviceLoader),
        (lambda images, rng: images[:, ::-1], StreamedLoader),
    ],
    ids=["on_the_device", "augmented_there", "streamed"],
)
def test_batches_of_each_loader(augment, kind, backend):
    """Streamed ones come in several buffers in turn, and from a thread."""
    data = pictures((28, 28, 1))
    recorded, plain = (
        fitted(trainer_of("lenet5", record=r), *data, augment=augment) for r in (True, False)
    )
    assert type(recorded.training_step._loader) is kind
    assert_recorded(recorded)
    assert_same(recorded, plain)


def test_while_another_thread_uses_the_gpu(backend, cupy):
    """A capture is of its own thread's work: others may launch, copy and allocate meanwhile."""
    stop, errors = threading.Event(), []

    def work() -> None:
        try:
            while not stop.is_set():
                x = cupy.asarray(np.arange(100_000, dtype=np.float32))
                assert float((x + 1).sum()) > 0
                cupy.cuda.alloc(1 << 21)
                backend.synchronize()
        except Exception as error:
            errors.append(error)

    data = pictures((28, 28, 1))
    plain = fitted(trainer_of("lenet5", record=False), *data)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        recorded = fitted(trainer_of("lenet5"), *data)
    finally:
        stop.set()
        thread.join()
    assert not errors, f"the other thread's work failed: {errors[0]!r}"
    assert_recorded(recorded)
    assert_same(recorded, plain)


def test_gradients_and_settings_between_batches(backend):
    """A callback sees the gradients of its batch; a rate that it changes is heeded."""

    def training(record: bool) -> tuple[list, Trainer]:
        seen: list[list[np.ndarray]] = []
        trainer = trainer_of("resnet20", record=record)

        def on_batch_end(batch: int) -> None:
            seen.append([p.gradient.get() for p in trainer.model.parameters()][:3])
            if trainer.epoch == 3:
                trainer.optimizer.momentum = 0.5

        trainer.callbacks = [gpucnn.callbacks.LambdaCallback(on_batch_end=on_batch_end)]
        return seen, fitted(trainer, *pictures((32, 32, 3)), epochs=6)

    (found, recorded), (right, plain) = training(True), training(False)
    for batch, (one, other) in enumerate(zip(found, right, strict=True)):
        same = all(map(np.array_equal, one, other))
        assert same, f"gradients after batch {batch} are another batch's"
    assert_same(recorded, plain)


# ---- what cannot be recorded, and what goes wrong ------------------------------------------------


def test_a_metric_that_waits_says_so(backend):
    def largest(prediction, target):
        return np.float32(float(prediction.max()))

    data = pictures((28, 28, 1))
    recorded, plain = (
        fitted(trainer_of("lenet5", metrics=["accuracy", largest], record=r), *data)
        for r in (True, False)
    )
    failure = recorded.recording_failure
    assert failure, "a metric that reads the device was captured: its number would never change"
    assert "capturing" in failure, f"the reason should be CuPy's, and is {failure}"
    assert_same(recorded, plain)
    # the capture that failed left nothing behind
    again, plain = (fitted(trainer_of("lenet5", record=r), *data) for r in (True, False))
    assert_recorded(again)
    assert_same(again, plain)


def test_a_metric_of_the_host_is_not_recorded(backend):
    calls: list[int] = []

    def count(prediction, target):
        calls.append(1)
        return np.float32(len(calls))

    trainer = fitted(trainer_of("lenet5", metrics=[count]), *pictures((28, 28, 1)))
    assert "metric 'count' gives a number of the host" in (trainer.recording_failure or "")


def test_an_interrupted_capture_leaves_a_trainer_that_works(backend):
    calls: list[int] = []

    def interrupts(prediction, target):
        calls.append(1)
        if len(calls) == 5:  # of batches of 16, 16, 8, 16, 16: the fourth of 16 is captured
            raise KeyboardInterrupt
        return (prediction.argmax(axis=-1) == target).mean()

    data = pictures((28, 28, 1))
    trainer = trainer_of("lenet5", metrics=[interrupts])
    with pytest.raises(KeyboardInterrupt):
        fitted(trainer, *data, validation=None, validation_split=0)
    for step in trainer.training_step.steps.recordings.values():
        assert not step.recorded
    trainer.metrics.clear()
    fitted(trainer, *data)
    assert_recorded(trainer)


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"]
)
def test_a_copy_and_a_model_that_moved_go_on_alike(twin, backend):
    data = pictures((28, 28, 1))
    trainer = fitted(trainer_of("lenet5"), *data)
    other = twin(trainer)
    trainer.model.to("numpy")
    for one in (trainer, other):
        fitted(one, *data)
        assert_recorded(one)
    assert_same(other, trainer)


# ---- what a replay is ----------------------------------------------------------------------------


def nodes(recorded: Recorded) -> list[int]:
    """Return the types of the nodes of a graph, as the driver lists them."""
    driver, graph = ctypes.CDLL("libcuda.so.1"), recorded.replay.replay.__self__
    handle, count = ctypes.c_void_p(graph.graph), ctypes.c_size_t()
    assert driver.cuGraphGetNodes(handle, None, ctypes.byref(count)) == 0
    listed = (ctypes.c_void_p * count.value)()
    assert driver.cuGraphGetNodes(handle, listed, ctypes.byref(count)) == 0
    kinds = []
    for node in listed:
        kind = ctypes.c_int()
        assert driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)) == 0
        kinds.append(kind.value)
    return kinds


class EdgeData(ctypes.Structure):
    """CUgraphEdgeData."""

    _fields_ = (
        ("from_port", ctypes.c_ubyte),
        ("to_port", ctypes.c_ubyte),
        ("type", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte * 5),
    )


def edges(recorded: Recorded) -> list[int]:
    """Return the types of the edges of a graph."""
    driver = ctypes.CDLL("libcuda.so.1")
    handle, count = ctypes.c_void_p(recorded.replay.replay.__self__.graph), ctypes.c_size_t(4096)
    nodes, others = ((ctypes.c_void_p * count.value)() for _ in range(2))
    data = (EdgeData * count.value)()
    assert driver.cuGraphGetEdges_v2(handle, nodes, others, data, ctypes.byref(count)) == 0
    return [edge.type for edge in data[: count.value]]


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_a_graph_is_our_kernels_alone(name, launches, backend, monkeypatch):
    """Every kernel of the graph came by our launcher; a replay starts none besides."""
    launched: list[str] = []
    launch = backend.launcher.launch

    def counted(kernel, *arguments, **options):
        launched.append(kernel.symbol)
        return launch(kernel, *arguments, **options)

    monkeypatch.setattr(backend.launcher, "launch", counted)
    x, y = pictures(models.USUAL[name])
    trainer, counts = trainer_of(name), []

    def on_batch_end(batch: int) -> None:
        counts.append(len(launched))
        launched.clear()

    # looked at within the epoch, for a callback's presence must not change what is recorded
    trainer.callbacks = [gpucnn.callbacks.LambdaCallback(on_batch_end=on_batch_end)]
    trainer.fit(x[:32], y[:32], epochs=5, batch_size=16, validation_split=0)
    assert_recorded(trainer)
    (step,) = trainer.training_step.steps.recordings.values()
    captured = [count for count in counts if count][-1]
    assert counts[-4:] == [0] * 4, f"replays launch kernels one by one: {counts}"
    kinds = nodes(step)
    assert kinds.count(KERNEL_NODE) == captured, (
        f"the graph has {kinds.count(KERNEL_NODE)} kernels, of which {captured} are ours"
    )
    assert {*kinds} == {KERNEL_NODE}, f"there are copies (1), fills (2) or others: {kinds}"
    if launches == "dependent":
        found = edges(step)
        assert len(found) == captured - 1
        assert {*found} == {PROGRAMMATIC}, (
            f"kernels that begin late: {found.count(0)} of {captured}"
        )


def test_the_numbers_of_a_step_do_not_wait_for_the_step_before(backend, cupy):
    """A copy from pageable memory may wait for the stream; one of so few bytes must not."""
    table = cupy.zeros(512, np.int64)
    spin = cupy.RawKernel(SPIN, "spin")
    transfers = backend.transfers()
    spin((1,), (1,), (np.int64(1),))
    backend.write(np.arange(512), table)
    backend.synchronize()
    spin((1,), (1,), (np.int64(CYCLES),))
    mark = transfers.mark()
    for first in range(20):
        backend.write(np.arange(first, first + 512), table)
    assert not mark.done, "the host waits for the device in every step: use page-locked memory"
    backend.synchronize()
    np.testing.assert_array_equal(table.get(), np.arange(19, 19 + 512))


def test_a_replay_takes_no_memory_and_a_trainer_gives_its_own_back(backend, cupy):
    data = pictures((28, 28, 1))
    fitted(trainer_of("lenet5"), *data)  # tables and constants come to be
    gc.collect()
    pool = cupy.get_default_memory_pool()
    before, used = pool.used_bytes(), []
    trainer = trainer_of("lenet5")

    def on_batch_end(batch: int) -> None:
        used.append(pool.used_bytes())

    trainer.callbacks = [gpucnn.callbacks.LambdaCallback(on_batch_end=on_batch_end)]
    fitted(trainer, *data, epochs=6, validation=None, validation_split=0)
    assert len({*used[-3:]}) == 1, f"memory in use after each batch: {used}"
    model = trainer.model
    del trainer
    gc.collect()
    kept = pool.used_bytes() - before
    assert kept < 2**20, f"a trainer that is gone keeps {kept:,} bytes; its model, {model!r}, may"


def test_a_program_that_ends_with_a_graph_says_nothing(backend):
    """Graphs, streams and page-locked memory go when the interpreter does."""
    program = """
import numpy as np, gpucnn
model = gpucnn.models.make("lenet5", 10, (28, 28, 1))
trainer = gpucnn.Trainer(model, optimizer="sgd", backend="cuda", progress=False)
x = np.zeros((64, 28, 28, 1), np.uint8)
trainer.fit(x, np.arange(64) % 10, epochs=1, batch_size=8, validation_split=0)
assert trainer.recording_failure is None, trainer.recording_failure
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


# ---- frozen networks -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_frozen_network_is_a_graph(dtype, launches, backend):
    model = models.make("lenet5", 10, (28, 28, 1), dtype)
    model.build((28, 28, 1))
    answer = model.freeze()
    rng = np.random.default_rng(1)
    for _ in range(8):
        x = backend.asarray(rng.standard_normal((4, 28, 28, 1)).astype(model.dtype))
        y = answer(x)
        np.testing.assert_array_equal(y.get(), answer.program([x])[0].get())
    ((bound,),) = answer._idle.values()
    assert bound._recorded.recorded, f"it is not recorded: {bound._recorded.reason}"


def test_frozen_networks_on_streams_of_several_threads(backend, cupy):
    """One recording serves stream after stream: each must wait for the one before."""
    model = models.make("resnet20", 10, (32, 32, 3))
    model.build((32, 32, 3))
    answer = model.freeze()
    rng = np.random.default_rng(2)
    inputs = [backend.asarray(rng.standard_normal((64, 32, 32, 3), np.float32)) for _ in range(6)]
    right = [answer.program([x])[0].get() for x in inputs]
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in inputs]
    backend.synchronize()
    for _ in range(10):  # from one thread, without a wait
        answers = []
        for stream, x in zip(streams, inputs, strict=True):
            with stream:
                answers.append(answer(x))
        backend.synchronize()
        for number, (y, expected) in enumerate(zip(answers, right, strict=True)):
            same = np.array_equal(y.get(), expected)
            assert same, f"stream {number} read the memory of another one's call"

    wrong: list[Any] = []

    def ask(number: int) -> None:
        try:
            with use_backend(backend), streams[number] as stream:
                for _ in range(20):
                    y = answer(inputs[number])
                    stream.synchronize()
                    if not np.array_equal(y.get(), right[number]):
                        wrong.append(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, f"threads whose answers were wrong, or their errors: {wrong}"

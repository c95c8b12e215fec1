"""Batches on their way to the device: the right ones, in the same memory, whatever runs first."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpucnn.backends.cuda.transfers import CupyTransfers
from gpucnn.backends.transfers import Transfers
from gpucnn.data import DeviceLoader, Flip, Loader, Normalize, Split
from gpucnn.data.streaming import StreamedLoader, streamed

from .conftest import CUDA
from .simulated_device import Array, SimulatedDevice

RNG = np.random.default_rng(0)
SPLIT = Split(RNG.integers(0, 256, (23, 3, 4, 2), np.uint8), np.arange(23))


@pytest.fixture(autouse=True)
def no_thread_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def loader(prefetch: int = 2, **options: Any) -> Loader:
    options = {"augment": Flip(), "normalize": Normalize(100, 50)} | options
    return Loader(SPLIT, 4, seed=1, prefetch=prefetch, **options)


def same(first, second) -> bool:
    pairs = zip(first, second, strict=True)
    return all(
        np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)
    )


def simulated(gpu: SimulatedDevice, transfers: type[CupyTransfers] = CupyTransfers) -> Any:
    return SimpleNamespace(
        name="cuda", xp=gpu, transfers=lambda: transfers(gpu), asarray=lambda array: array
    )


def train(data: StreamedLoader, gpu: SimulatedDevice, epochs: int) -> list:
    """Run steps that keep what they saw, and return that in the end."""
    seen = []
    for epoch in range(epochs):
        for batch in data.epoch(epoch):
            gpu.computing.queue(lambda b=batch: seen.append([array.memory.copy() for array in b]))
    gpu.run_until(lambda: not any(stream.work for stream in gpu.streams))
    return seen


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_step_sees_its_batch_whatever_runs_first(prefetch):
    made = loader(prefetch)
    expected = [batch for epoch in range(2) for batch in made.epoch(epoch)]
    for seed in range(5):
        gpu = SimulatedDevice(seed)
        assert same(train(StreamedLoader(made, simulated(gpu)), gpu, 2), expected)


class Forgetful(CupyTransfers):
    """Lets one thing go that the order of the work needs."""

    forgotten = ""

    def wait(self, mark):
        if self.forgotten != "wait":
            super().wait(mark)

    def upload(self, host, device, after):
        if self.forgotten == "after":
            after = SimpleNamespace(done=True)
        mark = super().upload(host, device, after)
        if self.forgotten == "synchronize":
            mark.synchronize = lambda: None
        return mark


@pytest.mark.parametrize("forgotten", ["wait", "after", "synchronize"])
def test_the_simulated_device_shows_what_is_forgotten(monkeypatch, forgotten):
    monkeypatch.setattr(Forgetful, "forgotten", forgotten)
    made = loader(1)
    expected = [batch for epoch in range(3) for batch in made.epoch(epoch)]
    wrong = 0
    for seed in range(10):
        gpu = SimulatedDevice(seed)
        wrong += not same(train(StreamedLoader(made, simulated(gpu, Forgetful)), gpu, 3), expected)
    assert wrong


def test_batches_lie_in_a_few_places_in_turn(backend):
    data = StreamedLoader(loader(prefetch=2), backend)
    places = [[_address(x) for x, _ in data.epoch(epoch)] for epoch in (0, 1)]
    assert places[0] == places[1] and len({*places[0]}) == 3


def _address(array: Any) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


@pytest.mark.parametrize("prefetch", [0, 2])
def test_every_backend_gets_the_loaders_batches(backend, prefetch):
    made = loader(prefetch)
    data = StreamedLoader(made, backend)
    got = [[backend.to_numpy(array) for array in batch] for batch in data.epoch(1, start=2)]
    expected = list(made.epoch(1))[2:]
    assert same(got, expected) and len(got) == len(data) - 2 == 4
    assert got[0][0].dtype == np.float32 and len(got[-1][1]) == 3


def test_a_batch_of_another_shape_comes_too(backend):
    def crop(images, rng):
        return images[:, : 2 + rng.integers(2)]

    made = loader(augment=crop)
    got = [
        [backend.to_numpy(array) for array in batch]
        for batch in StreamedLoader(made, backend).epoch(0)
    ]
    assert same(got, made.epoch(0)) and len({x.shape[1] for x, _ in got}) == 2


def test_leaving_early_leaves_nothing_on_its_way():
    gpu = SimulatedDevice(0)
    data = StreamedLoader(loader(3), simulated(gpu))
    batches = data.epoch(0)
    next(batches)
    batches.close()
    assert all(slot.sent.done for slot in data._slots)
    assert same(train(data, gpu, 1), loader().epoch(0))


def test_an_error_of_the_loaders_thread_is_raised_here(backend):
    def broken(images, rng):
        raise ArithmeticError("a bad augmentation")

    with pytest.raises(ArithmeticError, match="a bad augmentation"):
        list(StreamedLoader(loader(augment=broken), backend).epoch(0))
    with pytest.raises(ValueError, match="Received: epoch=-1, start=0"):
        StreamedLoader(loader(), backend).epoch(-1)


def test_what_needs_no_stream_gets_none(backend):
    made, moved = loader(), loader(transfer=np.negative)
    kept = DeviceLoader(SPLIT, 4, backend=backend)
    assert streamed(kept, backend) is kept and streamed(moved, backend) is moved
    on_numpy = streamed(made, backend) is made
    assert on_numpy == (backend.name == "numpy")


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, ml_dtypes.bfloat16])
def test_pinned_memory_of_any_dtype(dtype):
    for transfers in (Transfers(), CupyTransfers(SimulatedDevice(0))):
        array = transfers.pinned((3, 5), dtype)
        assert array.shape == (3, 5) and array.dtype == dtype
        assert array.flags.c_contiguous and array.flags.writeable


def test_a_download_keeps_the_order_of_the_computation():
    for seed in range(5):
        gpu = SimulatedDevice(seed)
        transfers = CupyTransfers(gpu)
        ring, host = gpu.empty((4,), np.float64), transfers.pinned((4,), np.float64)
        ring[...] = Array(gpu, np.arange(4.0))
        mark = transfers.download(ring, host)
        ring[...] = Array(gpu, np.zeros(4))
        mark.synchronize()
        assert host.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("backend", [CUDA], indirect=True)
def test_copies_run_beside_the_computation(backend):
    """While a long computation runs, a batch arrives; and one that it still reads does not."""
    xp, transfers = backend.xp, backend.transfers()
    host = transfers.pinned((1 << 20,), np.float32)
    host[:] = 1
    device, matrix = xp.zeros(1 << 20, np.float32), xp.ones((4096, 4096), np.float32)
    matrix @ matrix  # the library is loaded
    before = transfers.mark()
    before.synchronize()
    for _ in range(20):
        matrix @ matrix
    busy = transfers.mark()
    sent = transfers.upload(host, device, before)
    sent.synchronize()
    assert not busy.done, "the copy waited for the computation"
    late = transfers.upload(host, device, busy)
    late.synchronize()
    assert busy.done
    transfers.wait(late)
    assert float(device.sum()) == 1 << 20

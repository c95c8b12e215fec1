"""Memory that is used again: never while an array is left that shows it."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from gpucnn.backends.numpy import buffers
from tests.forking import fork_allowed

SHAPE = (40, 1000)  # floats, 160 KB


@pytest.fixture(autouse=True)
def nothing_kept():
    buffers.clear()
    yield
    buffers.clear()


def idle_bytes() -> int:
    kept = (buffer for alike in buffers._buffers.values() for buffer in alike)
    return sum(buffer.memory.nbytes for buffer in kept if buffer.is_idle())


def test_memory_is_used_again_once_its_arrays_are_gone():
    array = buffers.empty(SHAPE, np.float32)
    address = array.ctypes.data
    assert address % buffers.ALIGNMENT == 0
    assert array.flags.c_contiguous and array.flags.writeable
    del array
    assert buffers.empty((1000, 40), np.int32).ctypes.data == address
    assert buffers.empty((1, 78_000), np.float16).ctypes.data == address  # about as large
    assert buffers.empty((1000, 20), np.float32).ctypes.data != address


VIEWS = {
    "itself": lambda a: a,
    "a row": lambda a: a[3],
    "a view of views": lambda a: a[::2, 1:].view(np.int32).transpose()[5:],
    "an element": lambda a: a[1:2, 1:2],
    "a buffer": memoryview,
    "what speaks DLPack": np.from_dlpack,
    "an iterator": np.nditer,
    "a closure": lambda a: lambda: a,
}


@pytest.mark.parametrize("name", VIEWS)
def test_memory_that_is_in_sight_is_left_alone(name):
    view = VIEWS[name](buffers.empty(SHAPE, np.float32))
    other = buffers.empty(SHAPE, np.float32)
    shown = view() if callable(view) else view.operands[0] if name == "an iterator" else view
    assert not np.shares_memory(np.asarray(shown), other)
    assert idle_bytes() == 0
    del view, shown
    assert idle_bytes() >= other.nbytes


def test_small_arrays_are_numpys():
    assert buffers.empty((4, 4), np.float32).base is None
    assert idle_bytes() == 0


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (1, 2, 0, 3), (3, 0, 2, 1)])
def test_an_array_like_another_lies_as_it_does(axes):
    like = np.empty((8, 16, 32, 64), np.float32).transpose(axes)
    got = buffers.empty_like(like, np.float64)
    assert (got.shape, got.dtype) == (like.shape, np.float64)
    assert got.strides == tuple(2 * step for step in like.strides)


def test_few_bytes_wait(monkeypatch):
    monkeypatch.setattr(buffers, "IDLE_BYTES", 400_000)
    sizes = [50_000, 60_000, 70_000, 80_000]
    alive = [buffers.empty((size,), np.float32) for size in sizes]
    assert idle_bytes() == 0
    del alive
    assert idle_bytes() > 1_000_000
    largest = buffers.empty((100_000,), np.float32)
    # those that were taken last still wait
    assert 300_000 < idle_bytes() <= 400_000
    assert largest.size == 100_000


def test_threads_never_share_memory():
    wrong = []

    def work(number: int) -> None:
        for _ in range(300):
            array = buffers.empty((10_000,), np.int32)
            array[...] = number
            if (array != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_not_wait_for_a_lock_that_nobody_holds():
    with buffers._lock:
        with fork_allowed():
            child = os.fork()
        if child == 0:
            os._exit(buffers.empty(SHAPE, np.float32).shape != SHAPE)
    assert os.waitpid(child, 0)[1] == 0

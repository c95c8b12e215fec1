"""Large arrays in memory that was used before.

Memory fresh from the system costs a page fault for every 4 KB that is first written, and what a
step of a training gives back is often fetched anew by the next one: 10 to 25% of the time of a
small network. So buffers of large arrays are kept, and one that no array uses any more is taken for
the next array of about its size.

An array made here is a view of its buffer, and so is every view of it, for NumPy lets each refer
to the object that owns the memory. Whether any is left is thus what the buffer's reference count
says, and nothing has to be given back.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np

SMALL = 1 << 15  # bytes: the allocator's own lists serve what is smaller as quickly
ALIGNMENT = 64  # bytes of a cache line, and of the widest vector registers
IDLE_BYTES = 1 << 29  # of buffers that wait; beyond, those that have waited longest are freed

_IDLE = 2  # references to a buffer's memory: the buffer's and getrefcount's own
# Counts are exact where one lock guards the interpreter.
_COUNTED = hasattr(sys, "getrefcount") and getattr(sys, "_is_gil_enabled", lambda: True)()


class _Buffer:
    """Some bytes, and the number of the request that they were last taken for."""

    __slots__ = ("memory", "taken")

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + ALIGNMENT, np.uint8)
        self.taken = 0

    def is_idle(self) -> bool:
        return sys.getrefcount(self.memory) == _IDLE


_allocate: ContextVar[Callable[[int], Any] | None] = ContextVar("gpucnn_allocate", default=None)
_buffers: dict[int, list[_Buffer]] = {}  # by size; of each the one taken last comes last
_requests = itertools.count(1)
_lock = threading.Lock()


def _forget_lock() -> None:
    """A forked process has the buffers, but the thread that held the lock is not in it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Return a C-contiguous array of any contents, like ``np.empty``.

    >>> address = empty((256, 256), np.float32).ctypes.data
    >>> address % ALIGNMENT, empty((256, 250), np.float32).ctypes.data == address
    (0, True)
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL or not _COUNTED:
        return np.empty(shape, dtype)
    if (allocate := _allocate.get()) is not None:
        return np.ndarray(shape, dtype, np.asarray(allocate(size)))
    buffer = _taken(_rounded(size))
    return np.ndarray(shape, dtype, buffer, -buffer.ctypes.data % ALIGNMENT)


def empty_ordered(shape: Sequence[int], axes: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array of any contents whose axes lie in memory in this order, the outermost first.

    >>> empty_ordered((2, 3, 5), (1, 0, 2), np.int8).strides
    (5, 10, 1)
    """
    return empty([shape[axis] for axis in axes], dtype).transpose(inverse(axes))


def empty_like(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """Return an array of any contents whose axes lie in memory as those of ``array`` do."""
    dtype = array.dtype if dtype is None else dtype
    if array.flags.c_contiguous:
        return empty(array.shape, dtype)
    return empty_ordered(array.shape, order(array.strides), dtype)


@lru_cache
def order(strides: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of an array as they lie in memory, the outermost first."""
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


@lru_cache
def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the permutation that undoes one.

    >>> inverse((1, 2, 0, 3))
    (2, 0, 1, 3)
    """
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


@contextmanager
def taken_from(allocate: Callable[[int], Any] | None) -> Iterator[None]:
    """Let large arrays lie in the pieces of memory that ``allocate`` returns for their sizes.

    With None they lie in buffers again.
    """
    token = _allocate.set(allocate)
    try:
        yield
    finally:
        _allocate.reset(token)


def clear() -> None:
    """Free the buffers that no array uses."""
    with _lock:
        _shrink(0)


def _rounded(size: int) -> int:
    """Round bytes up by at most an eighth, so that arrays of about one size share buffers."""
    step = 1 << (size.bit_length() - 4)
    return -(-size // step) * step


def _taken(size: int) -> np.ndarray:
    with _lock:
        alike = _buffers.setdefault(size, [])
        place = next((i for i in reversed(range(len(alike))) if alike[i].is_idle()), None)
        if place is None:
            _shrink(IDLE_BYTES)
            buffer = _Buffer(size)
        else:
            buffer = alike.pop(place)
        alike.append(buffer)
        buffer.taken = next(_requests)
        return buffer.memory


def _shrink(most: int) -> None:
    """Free the idle buffers that were taken longest ago, until ``most`` bytes of them are left."""
    idle = [buffer for alike in _buffers.values() for buffer in alike if buffer.is_idle()]
    waiting = sum(buffer.memory.nbytes for buffer in idle)
    for buffer in sorted(idle, key=lambda buffer: buffer.taken):
        if waiting <= most:
            break
        _buffers[buffer.memory.nbytes - ALIGNMENT].remove(buffer)
        waiting -= buffer.memory.nbytes

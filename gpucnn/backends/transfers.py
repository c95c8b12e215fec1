"""Copies between host and device that the computation does not wait for.

A ``Transfers`` of a backend has a stream of its own beside the one that computes; page-locked host
memory, which alone a device copies from and to by itself; and marks, points in a stream's work that
another stream, or the host, can wait for. This one is the host's own, where memory is all one:
every copy is done when the call returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Mark(Protocol):
    """A point in the work of a stream; CuPy's events are such."""

    @property
    def done(self) -> bool:
        """Whether the work before it is done."""

    def synchronize(self) -> None:
        """Let the host wait until the work before it is done."""


class _Passed:
    done = True

    def synchronize(self) -> None:
        pass


class Transfers:
    """All but ``upload`` are for the thread and on the stream that computes."""

    def pinned(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """Return an array in page-locked host memory, its content undefined."""
        return np.empty(shape, dtype)

    def mark(self) -> Mark:
        """Mark the present point in the computation."""
        return _Passed()

    def wait(self, mark: Mark) -> None:
        """Let the computation from here on wait for a mark; the host goes on."""

    def upload(self, host: np.ndarray, device: Any, after: Mark) -> Mark:
        """Copy to the device on the stream of copies, once ``after`` is passed; mark the end.

        ``host`` is pinned and as large as ``device``, both C-contiguous and of one dtype. Any
        thread may call it, one at a time.
        """
        device[...] = host
        return _Passed()

    def download(self, device: Any, host: np.ndarray) -> Mark:
        """Copy to the host within the computation, in the order of its work; mark the end."""
        host[...] = device
        return _Passed()

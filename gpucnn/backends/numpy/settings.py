"""How NumPy itself is set, in each thread, while the backend's operations run.

Its BLAS computes with one thread (see ``threads``); the backend's own share the work.

As on any device, what overflows is an infinity and a difference of infinities a NaN, without a
warning.

Where an operand goes through memory in another way than the rest (a view with gaps, one row for
many rows), NumPy copies it into a buffer if two inner loops fit there. To start as many loops of
half of ``BUFFER`` elements or more takes less time, so that the buffers are kept as short as that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np

from .threads import limit_this_thread, one_blas_thread

BUFFER = 1024  # elements
SILENT = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}


def settle() -> None:
    """Set NumPy for a thread of the backend's own."""
    np.seterr(**SILENT)
    np.setbufsize(BUFFER)
    limit_this_thread(1)


@contextmanager
def quick() -> Iterator[None]:
    """Set NumPy for the caller's thread, and back again at the end."""
    with np.errstate(**SILENT):
        before = np.setbufsize(BUFFER)
        try:
            yield
        finally:
            np.setbufsize(before)


def settled(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation that sets NumPy and its BLAS while it runs."""

    @wraps(operation)
    def run(*arguments: Any, **keywords: Any) -> Any:
        with one_blas_thread(), quick():
            return operation(*arguments, **keywords)

    return run

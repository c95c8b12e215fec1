"""NumPy's BLAS held to one thread, for as long as the backend's own threads use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_lock = threading.Lock()
_depth = 0  # how many are inside one_blas_thread
_limit: Any = None


@cache
def _controller() -> Any:
    """Return what reaches the BLAS libraries of this process; None without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController  # finding them takes milliseconds
    except ModuleNotFoundError:
        return None
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run the body with one thread in each BLAS library; outermost of nested ones counts.

    BLAS threads wait for each other by spinning: beside busy neighbours, ours among them, they lose
    nearly everything. What was set before is set again at the end.
    """
    global _depth, _limit
    with _lock:
        _depth += 1
        if _depth == 1 and _controller() is not None:
            _limit = _controller().limit(limits=1)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _limit is not None:
                _limit.restore_original_limits()
                _limit = None

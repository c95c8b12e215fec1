"""NumPy's BLAS held to one thread, for as long as the backend's own threads use it."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from functools import cache
from typing import Any


@cache
def _libraries() -> list[Any]:
    """Return what reaches the BLAS libraries of this process; nothing without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController  # finding them takes milliseconds
    except ModuleNotFoundError:
        return []
    return ThreadpoolController().select(user_api="blas").lib_controllers


class _OneBlasThread(threading.local):
    """A context manager; each thread's own, so that only the outermost of nested ones costs."""

    depth = 0

    def __enter__(self) -> None:
        if self.depth == 0:
            _hold()
        self.depth += 1

    def __exit__(self, *error: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            _let_go()


_inside = _OneBlasThread()
_lock = threading.Lock()
_holders = 0  # the threads that are inside
_before: dict[Any, int] = {}  # what they hold to one thread, and how many it had


def one_blas_thread() -> AbstractContextManager[None]:
    """Run the body with one thread in each BLAS library; inside another's it costs nothing.

    BLAS threads wait for each other by spinning: beside busy neighbours, ours among them, they lose
    nearly everything. What was set before is set again at the end, but for what was changed inside.
    """
    return _inside


def _hold() -> None:
    global _holders
    with _lock:
        _holders += 1
        if _holders == 1:
            for library in _libraries():
                threads = library.get_num_threads()
                if threads != 1:
                    library.set_num_threads(1)
                    _before[library] = threads


def _let_go() -> None:
    global _holders
    with _lock:
        _holders -= 1
        if _holders == 0:
            _restore()


def _restore() -> None:
    # Of several Python threads threadpoolctl lets the first that lives set the number; what others
    # ask has no effect. So what cannot be set again now is when that thread leaves.
    for library, threads in [*_before.items()]:
        if library.get_num_threads() == 1:
            library.set_num_threads(threads)
        if library.get_num_threads() != 1:
            del _before[library]


def _after_fork() -> None:
    """In a forked process only the thread that forked lives on."""
    global _lock, _holders
    _lock = threading.Lock()
    _holders = int(_inside.depth > 0)
    if _holders == 0:
        _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

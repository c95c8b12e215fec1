"""How many threads NumPy's BLAS has: one, as a rule, for as long as the backend's own use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
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


def _is_mkl(library: Any) -> bool:
    return library.internal_api == "mkl"


class _Limit(threading.local):
    """A context manager; each thread's own, so that only the outermost of nested ones costs."""

    depth = 0

    def __init__(self, most: int) -> None:
        self.most = most

    def __enter__(self) -> None:
        if self.depth == 0:
            _enter(self.most)
            self.before = limit_this_thread(self.most)
        self.depth += 1

    def __exit__(self, *error: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            _restore_this_thread(self.before)
            _leave(self.most)


_lock = threading.Lock()
_limits: list[int] = []  # of the threads that are inside
_before: dict[Any, int] = {}  # how many threads a library had that was limited
_given: dict[Any, int] = {}  # and how many it was given


@cache
def at_most(threads: int) -> AbstractContextManager[None]:
    """Run the body with at most so many threads in each BLAS library; of several, the least counts.

    What was set before is set again at the end, but for what was changed inside.
    """
    return _Limit(threads)


def blas_threads() -> int:
    """Return how many threads the BLAS has now; of several libraries, the one with the fewest."""
    return min((library.get_num_threads() for library in _libraries()), default=1)


def one_blas_thread() -> AbstractContextManager[None]:
    """Run the body with one thread in each BLAS library; inside another's it costs nothing.

    BLAS threads wait for each other by spinning: beside busy neighbours, ours among them, they lose
    nearly everything.
    """
    return at_most(1)


def limit_this_thread(most: int) -> list[int]:
    """Give the BLAS at most so many threads in calls from this thread; return what it had.

    MKL alone is told so in each thread: its number for the whole process does not reach those that
    begin later, and there it starts others beside them. What it had is 0 where nothing was set.
    """
    before = [set_threads(most) for set_threads in _mkl_setters()]
    for set_threads, had in zip(_mkl_setters(), before, strict=True):
        set_threads(min(had or most, most))
    return before


def _restore_this_thread(before: list[int]) -> None:
    for set_threads, had in zip(_mkl_setters(), before, strict=True):
        set_threads(had)


@cache
def _mkl_setters() -> list[Callable[[int], int]]:
    """Return MKL's function that sets a thread's own number, and returns what it was before."""
    return [
        library.dynlib.MKL_Set_Num_Threads_Local for library in _libraries() if _is_mkl(library)
    ]


def _enter(most: int) -> None:
    with _lock:
        least = min(_limits, default=most + 1)
        _limits.append(most)
        if most < least:
            _settle()


def _leave(most: int) -> None:
    with _lock:
        _limits.remove(most)
        if most < min(_limits, default=most + 1):
            _settle()


def _settle() -> None:
    """Give each library as many threads as all who are inside allow, and as it had before.

    MKL, of which every thread takes care itself, apart.
    """
    shared = [library for library in _libraries() if not _is_mkl(library)]
    for library in shared if _limits else [*_before]:
        threads = library.get_num_threads()
        if threads != _given.get(library, threads):
            del _before[library]  # somebody has changed it since
        before = _before.get(library, threads)
        wanted = min([before, *_limits])
        if wanted != threads:
            _set(library, wanted)
        if _limits:
            _before[library], _given[library] = before, wanted
        else:
            _before.pop(library, None)
            _given.pop(library, None)


def _set(library: Any, threads: int) -> None:
    """Set a library's number of threads, whichever thread of the process has set it last.

    threadpoolctl lets one thread alone set it, for as long as that lives or until it is told that
    it is done: others' calls have no effect. Here one lock keeps them apart.
    """
    is_done = getattr(library, "clear_controlling_thread", lambda force: None)  # from 3.8 on
    is_done(force=True)
    library.set_num_threads(threads)
    is_done(force=True)


def _after_fork() -> None:
    """In a forked process only the thread that forked lives on."""
    global _lock
    _lock = threading.Lock()
    mine = [most for most in set(_limits) if at_most(most).depth]
    if _limits != mine:
        _limits[:] = mine
        _settle()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

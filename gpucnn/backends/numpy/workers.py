"""The threads that the backend computes with.

NumPy and its BLAS release the interpreter lock, so Python threads run side by side, and with one
BLAS thread in each the elementwise parts of an algorithm are shared as well as its products. Work
is cut into parts whose number and bounds depend on shapes alone, and part i belongs to thread
i mod n: results do not depend on how many threads there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue

import numpy as np

from .threads import one_blas_thread

# Who sets one of these for other libraries means this one, too; the first that is set counts.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _positive(value: str) -> int:
    return int(value) if value.isdecimal() else 0


@cache
def thread_count() -> int:
    """Return how many threads share the work: ``GPUCNN_NUM_THREADS``, else one of ``VARIABLES``.

    One a core if none is set.

    Raises:
        ValueError: ``GPUCNN_NUM_THREADS`` is no positive integer.
    """
    given = os.environ.get("GPUCNN_NUM_THREADS")
    if given:
        if not _positive(given):
            raise ValueError(f"GPUCNN_NUM_THREADS must be a positive integer. Received: {given!r}")
        return int(given)
    for name in VARIABLES:
        if count := _positive(os.environ.get(name, "")):
            return count
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Workers:
    """Threads that wait for parts of a caller's work; the caller does its own share itself."""

    def __init__(self, threads: int) -> None:
        self.busy = threading.Lock()
        self.waiting: list[SimpleQueue] = [SimpleQueue() for _ in range(threads - 1)]
        for number, queue in enumerate(self.waiting, 1):
            name = f"gpucnn-{number}"
            threading.Thread(target=self._serve, args=(queue,), name=name, daemon=True).start()

    def _serve(self, queue: SimpleQueue) -> None:
        # NumPy keeps these for each thread; the backend's operations set them for their callers.
        np.seterr(over="ignore", invalid="ignore", divide="ignore")
        while True:
            function, parts, done = queue.get()
            error = None
            try:
                for part in parts:
                    function(part)
            except BaseException as raised:
                error = raised
            function = parts = None  # what they hold can be freed before the next work comes
            done.put(error)

    def run(self, function: Callable[[int], object], parts: int) -> None:
        threads = 1 + len(self.waiting)
        helping = self.waiting[: parts - 1]
        done: SimpleQueue = SimpleQueue()  # of its own: whoever is interrupted waits no longer
        for number, queue in enumerate(helping, 1):
            queue.put((function, range(number, parts, threads), done))
        errors = []
        try:
            for part in range(0, parts, threads):
                function(part)
        except BaseException as raised:
            errors.append(raised)
        errors += [error for error in (done.get() for _ in helping) if error is not None]
        if errors:
            raise errors[0]


_workers: _Workers | None = None
_starting = threading.Lock()


def _forget() -> None:
    """In a forked process the threads are gone; new ones are started when there is work."""
    global _workers, _starting
    _workers, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run(function: Callable[[int], object], parts: int) -> None:
    """Call ``function(i)`` for each i in range(parts), shared among the threads; return when done.

    Where the threads are busy with another caller's work, the calling thread does all of it: so in
    a server that answers several requests at once each has a core.

    Raises:
        BaseException: what the first part that failed raised, after all have ended.
    """
    global _workers
    with one_blas_thread():
        if parts > 1 and thread_count() > 1:
            with _starting:
                workers = _workers = _workers or _Workers(thread_count())
            if workers.busy.acquire(blocking=False):
                try:
                    return workers.run(function, parts)
                finally:
                    workers.busy.release()
        for part in range(parts):
            function(part)

"""The threads that the backend computes with.

NumPy and its BLAS release the interpreter lock, so Python threads run side by side, and with one
BLAS thread in each the elementwise parts of an algorithm are shared as well as its products. Work
is cut into parts whose number and bounds depend on shapes alone, and no part knows who computes it:
results do not depend on how many threads there are. Each thread takes the next part when it is
ready, so that one which wakes late, or shares its core with a stranger, holds nobody up.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from .settings import settle

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


class _Run:
    """One call of ``run``: parts that the caller and its helpers take in turn."""

    def __init__(self, function: Callable[[int], object], parts: int) -> None:
        self.function, self.parts = function, parts
        self.take = itertools.count().__next__
        self.error: BaseException | None = None
        self.lock = threading.Lock()
        self.helping = 0
        self.is_closed = False
        self.helped = threading.Lock()  # held until the last helper of a closed run leaves

    def work(self) -> None:
        try:
            while (part := self.take()) < self.parts:
                self.function(part)
        except BaseException as error:
            self.parts = 0  # nobody begins another one
            self.error = self.error or error

    def help(self) -> None:
        with self.lock:
            if self.is_closed:
                return
            self.helping += 1
        self.work()
        with self.lock:
            self.helping -= 1
            if self.is_closed and self.helping == 0:
                self.helped.release()

    def close(self) -> None:
        """Wait for those who help; who comes later finds nothing to do."""
        self.helped.acquire()
        with self.lock:
            self.is_closed = True
            if self.helping == 0:
                return
        self.helped.acquire()


@cache
def _current_cpu() -> Callable[[], int] | None:
    """Return what says on which CPU the calling thread runs; None where threads stay unplaced."""
    try:
        return ctypes.CDLL(None).sched_getcpu if hasattr(os, "sched_setaffinity") else None
    except (AttributeError, OSError, TypeError):
        return None


class _Workers:
    """Threads that wait for a caller's run to help with.

    Linux often wakes a thread on the CPU of the one that wakes it, where it waits, for milliseconds
    perhaps, until it is moved. So they are kept off the caller's CPU, within what the caller may
    use.
    """

    def __init__(self, threads: int) -> None:
        self.busy = threading.Lock()
        self.current: _Run | None = None
        self.threads: list[threading.Thread] = []
        self.avoided: int | None = None  # the caller's CPU
        self.asleep = [threading.Lock() for _ in range(threads - 1)]  # released to wake one
        for number, asleep in enumerate(self.asleep, 1):
            asleep.acquire()
            name = f"gpucnn-{number}"
            thread = threading.Thread(target=self._serve, args=(asleep,), name=name, daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self, asleep: threading.Lock) -> None:
        settle()
        while asleep.acquire():
            if (run := self.current) is not None:
                run.help()
            run = None  # what it holds can be freed before the next one comes

    def _keep_off(self, cpu: int) -> None:
        self.avoided = cpu
        allowed = os.sched_getaffinity(0)  # the caller's
        for thread in self.threads:
            with suppress(OSError):  # what a container forbids
                os.sched_setaffinity(thread.native_id, allowed - {cpu} or allowed)

    def run(self, function: Callable[[int], object], parts: int) -> None:
        if (current_cpu := _current_cpu()) and (cpu := current_cpu()) != self.avoided:
            self._keep_off(cpu)
        self.current = run = _Run(function, parts)
        for asleep in self.asleep[: parts - 1]:
            if asleep.locked():  # else it has yet to wake from an earlier call
                asleep.release()
        try:
            run.work()
            run.close()
        finally:
            self.current = None
        if run.error is not None:
            raise run.error


_workers: _Workers | None = None
_starting = threading.Lock()


def _forget() -> None:
    """In a forked process the threads are gone; new ones are started when there is work."""
    global _workers, _starting
    _workers, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _started() -> _Workers:
    global _workers
    with _starting:
        _workers = _workers or _Workers(thread_count())
        return _workers


def run(function: Callable[[int], object], parts: int) -> None:
    """Call ``function(i)`` for each i in range(parts), shared among the threads; return when done.

    Where the threads are busy with another caller's work, the calling thread does all of it: so in
    a server that answers several requests at once each has a core.

    Raises:
        BaseException: what the first part that failed raised, after all that had begun have ended.
    """
    if parts > 1 and thread_count() > 1:
        workers = _workers or _started()
        if workers.busy.acquire(blocking=False):
            try:
                return workers.run(function, parts)
            finally:
                workers.busy.release()
    for part in range(parts):
        function(part)

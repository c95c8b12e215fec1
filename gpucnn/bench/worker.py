"""One library in a process of its own: ``python -m gpucnn.bench.worker SIDE THREADS``.

It reads a request a line, as JSON, and answers each with a line. What libraries print goes to the
standard error, so that nothing gets between the answers.

    {"do": "about"}                                            versions
    {"do": "prepare", "case": {...}, "check": true}            {"errors": {way: error or null}}
    {"do": "sample", "way": "NCHW", "seconds": 0.045}          {"seconds": of one call, "calls": n}
    {"do": "memory", "case": {...}, "way": "NCHW"}             {"peak": bytes, "added": bytes}

An answer {"failed": text} says that the library refused the request; the process goes on.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from statistics import median
from types import ModuleType
from typing import Any, TextIO

from . import memory
from .cases import STEPS, Case
from .reference import draw, expected, relative_error

SIDES = {"gpucnn": "ours", "torch": "torch_peer", "jax": "jax_peer"}  # modules of this package
FEWEST_CALLS = 3
MEMORY_CALLS = 3  # the second finds what the first has kept, as in a training


def sample(
    call: Callable[[], Any], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, int]:
    """Return the median seconds of a call, over calls that fill the seconds, and their number.

    The first call finds the caches as another process left them, and is not counted; unless it
    takes all the time by itself.
    """

    def timed() -> float:
        start = clock()
        call()
        return clock() - start

    first = timed()
    if first >= seconds:
        return first, 1
    times, end = [], clock() + seconds
    while len(times) < FEWEST_CALLS or clock() < end:
        times.append(timed())
    return median(times), len(times)


class Server:
    """Answers requests with one side's module; holds the case that was prepared last."""

    def __init__(self, side: ModuleType) -> None:
        self.side = side
        self.case: Case | None = None
        self.calls: dict[str, Callable[[], Any]] = {}

    def serve(self, requests: TextIO, answers: TextIO) -> None:
        for line in requests:
            request = json.loads(line)
            try:
                answer = getattr(self, request.pop("do"))(**request)
            except Exception as error:
                answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()

    def about(self) -> dict[str, Any]:
        return self.side.about()

    def prepare(self, case: dict[str, Any], check: bool) -> dict[str, Any]:
        """Bind a case in every way, run it once, and hold the results against float64."""
        self.calls.clear()  # the memory of the case before
        self.case = Case(**case)
        truth = expected(self.case, draw(self.case)) if check and self.case.checked else None
        errors: dict[str, float | None] = {}
        with self.side.running(self.case):
            for way in self.side.ways(self.case):
                self.calls[way] = self.side.bind(self.case, way)
                result = self.calls[way]()
                errors[way] = (
                    None
                    if truth is None
                    else relative_error(self.side.to_numpy(self.case, result), truth)
                )
        return {"errors": errors}

    def sample(self, way: str, seconds: float) -> dict[str, Any]:
        with self.side.running(self.case):
            taken, calls = sample(self.calls[way], seconds)
        return {"seconds": taken, "calls": calls}

    def memory(self, case: dict[str, Any], way: str) -> dict[str, Any]:
        """Run a case a few times in a process that has done nothing else.

        ``added`` is what a step takes beside the library itself, all its arrays counted; of a layer
        what it takes beside its inputs and its result.
        """
        self.case = Case(**case)
        with self.side.running(self.case):
            call = None if self.case.op in STEPS else self.side.bind(self.case, way)
            gc.collect()
            before = memory.start()
            call = call or self.side.bind(self.case, way)
            for _ in range(MEMORY_CALLS):
                result = None  # that of the call before is gone
                result = call()
        peak = memory.peak()
        given = 0 if self.case.op in STEPS else self.side.to_numpy(self.case, result).nbytes
        return {"peak": peak, "added": max(0, peak - before - given)}


def limit_cores(threads: int) -> None:
    """Leave the process so many of its cores, where the system knows how."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:threads])


def main(name: str, threads: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    limit_cores(int(threads))
    side = import_module(f"{__package__}.{SIDES[name]}")
    side.start(int(threads))
    Server(side).serve(sys.stdin, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The tuner: the candidates of a problem, compiled, timed, and the fastest kept."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ...base import Array, NormOnLoad, accumulator
from ..algorithms import Plan, Problem
from ..backend import CudaBackend
from ..compiler import compile_cubin, identity
from ..kernel import Kernel
from ..plans import shortlist
from .dry import DryRun
from .store import Entry
from .timing import Inputs, Timer

CANDIDATES = 12
NOISE = 1_000_003  # random numbers that inputs repeat: a prime, so that no rows are alike


class Tuner:
    """Finds the fastest plan of a problem on the current device.

    Args:
        backend: with ``TunedPlans``, which keep what is found.
        timer: times the candidates, a ``GraphTimer`` on a GPU.
        compile: makes the cubin of a kernel for "sm_90" or another architecture.

    Example:
        >>> tuner = Tuner(gpucnn.get_backend("cuda"), GraphTimer())              # doctest: +SKIP
        >>> tuner.tune(Problem("fprop", shape, "float32")).plan.algorithm        # doctest: +SKIP
        'winograd'
    """

    def __init__(
        self,
        backend: CudaBackend,
        timer: Timer,
        compile: Callable[[Kernel, str], bytes] = lambda *what: compile_cubin(*what)[0],
    ) -> None:
        self.backend, self.timer, self.compile = backend, timer, compile
        self._compiled: dict[str, bytes | Exception] = {}
        self._noise = np.random.default_rng(0).standard_normal(NOISE, np.float32)

    def tune(self, problem: Problem, again: bool = False) -> Entry:
        """Return what is kept of a problem, measured now if it was not before, or ``again``.

        Raises:
            RuntimeError: no candidate runs; the text says why.
            OSError: the result cannot be written.
        """
        entry = None if again else self.backend.plans.read(problem)
        if entry is None:
            entry = self._measure(problem)
            self.backend.plans.keep(problem, entry)
        return entry

    def _measure(self, problem: Problem) -> Entry:
        times: dict[Plan, float] = {}
        cubins: dict[Plan, dict[str, bytes]] = {}
        failures: dict[Plan, str] = {}
        needed: dict[Plan, list[Kernel]] = {}
        with self.timer.inputs(self._drawing(problem), _size(problem)) as inputs:
            for plan in shortlist(problem, CANDIDATES):
                with _noting(failures, plan):
                    dry = DryRun(self.backend)
                    _run(dry.backend, problem, plan, *inputs[0])
                    needed[plan] = list(dry.kernels)
            architecture = f"sm_{problem.architecture}"
            self._compile(architecture, (kernel for plan in needed for kernel in needed[plan]))
            for plan, kernels in needed.items():
                with _noting(failures, plan):
                    names = [identity(kernel, architecture) for kernel in kernels]
                    cubins[plan] = {name: self._cubin(name) for name in names}
                    self.backend.launcher.preload(cubins[plan])
                    calls = [partial(_run, self.backend, problem, plan, *each) for each in inputs]
                    times[plan] = self.timer.time(calls)
        if not times:
            reasons = "; ".join(dict.fromkeys(failures.values()))
            raise RuntimeError(f"tuner: no plan runs: {reasons}. Received: {problem}")
        best = min(times, key=times.__getitem__)
        return Entry(best, times, cubins[best], failures)

    def _compile(self, architecture: str, kernels: Iterable[Kernel]) -> None:
        """Compile in threads what was not compiled before; kernels of a module once."""
        wanted = {identity(kernel, architecture): kernel for kernel in kernels}
        names = [name for name in wanted if name not in self._compiled]

        def compiled(name: str) -> bytes | Exception:
            try:
                return self.compile(wanted[name], architecture)
            except Exception as error:
                return error

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC releases the GIL
            self._compiled.update(zip(names, pool.map(compiled, names), strict=True))

    def _cubin(self, name: str) -> bytes:
        cubin = self._compiled[name]
        if isinstance(cubin, Exception):
            raise cubin
        return cubin

    def _drawing(self, problem: Problem) -> Callable[[], Inputs]:
        """Return what makes the arrays of a problem, of noise: zeros would take less power."""
        xp, dtype = self.backend.xp, _dtype(problem.dtype)
        noise = self.backend.asarray(self._noise, dtype).view(f"u{dtype.itemsize}")

        def drawn(shape: tuple[int, ...]) -> Array:
            return xp.resize(noise, shape).view(dtype)

        def norm() -> NormOnLoad:
            channels, sums = problem.shape.channels, accumulator(dtype)
            statistics = xp.zeros(channels, sums), xp.ones(channels, sums)
            return NormOnLoad(drawn(channels), drawn(channels), *statistics, 1e-3, "relu")

        def draw() -> Inputs:
            arrays = (None if shape is None else drawn(shape) for shape in _shapes(problem))
            return (*arrays, *[norm() for _ in "n" if problem.prologue])

        return draw


def _run(backend: CudaBackend, problem: Problem, plan: Plan, *inputs: Any) -> Array:
    *arrays, on_load = inputs if problem.prologue else (*inputs, None)
    return backend.run_plan(problem, plan, *arrays, on_load=on_load)


def _shapes(problem: Problem) -> tuple[tuple[int, ...] | None, ...]:
    """Return the shapes of what ``run_plan`` is given."""
    s = problem.shape
    through = s.x_shape if problem.through else None
    return {
        "fprop": (s.x_shape, s.w_shape, (s.filters,), *[s.y_shape] * problem.residual),
        "dgrad": (s.y_shape, s.w_shape, through, *[s.x_shape] * problem.residual),
        "wgrad": (s.x_shape, s.y_shape),
    }[problem.direction]


def _size(problem: Problem) -> int:
    """Return the bytes of all that a problem reads and writes."""
    s = problem.shape
    numbers = sum(map(math.prod, (s.x_shape, s.w_shape, s.y_shape)))
    return numbers * _dtype(problem.dtype).itemsize


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes  # noqa: F401 - teaches NumPy the name
    return np.dtype(name)


@contextmanager
def _noting(failures: dict[Plan, str], plan: Plan) -> Iterator[None]:
    """Note why a plan fails, so that the others have their turn."""
    try:
        yield
    except Exception as error:
        failures[plan] = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]

"""What the tuner needs of a GPU, without one: a launcher, a clock and a compiler that pretend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import Plan
from gpucnn.backends.cuda.kernel import Kernel
from gpucnn.backends.cuda.tuning import Store, TunedPlans, Tuner


class FakeLauncher:
    """Launches nothing, and remembers the cubins that it was given."""

    device, architecture = 0, 90

    def __init__(self, **environment: str) -> None:
        self.preloaded: dict[str, bytes] = {}
        self._environment = {"gpu": "Fake H1", "driver": "1", "compiler": "2", "kernels": "3"}
        self._environment |= environment

    def environment(self) -> dict[str, str]:
        return self._environment

    def preload(self, cubins: Mapping[str, bytes]) -> None:
        self.preloaded.update(cubins)

    def launch(self, kernel: Kernel, *_: object) -> None: ...


class FakeTimer:
    """Runs a candidate once and reads its time off a function of the plan."""

    def __init__(self, microseconds: Callable[[Plan], float]) -> None:
        self.microseconds = microseconds
        self.timed: list[Plan] = []

    @contextmanager
    def inputs(self, draw: Callable[[], tuple], size: int) -> Iterator[list[tuple]]:
        yield [draw(), draw()]

    def time(self, calls: Sequence[Callable]) -> float:
        results = [call() for call in calls]
        assert len(results) == 2 and results[0] is not results[1]
        plan = next(argument for argument in calls[0].args if isinstance(argument, Plan))
        self.timed.append(plan)
        return self.microseconds(plan)


def fake_cubin(kernel: Kernel, architecture: str) -> bytes:
    return f"{kernel.file} {kernel.suffix} {architecture}".encode()


def fake_backend(folder: Path, launcher: FakeLauncher | None = None) -> CudaBackend:
    """Return a backend that finds what is tuned in ``folder``, as another process would."""
    launcher = launcher or FakeLauncher()
    return CudaBackend(np, launcher, TunedPlans(launcher, Store(folder)))


def fake_tuner(backend: CudaBackend, timer: FakeTimer, compile: Callable = fake_cubin) -> Tuner:
    return Tuner(backend, timer, compile)

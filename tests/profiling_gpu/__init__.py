"""The one command for a GPU, as far as a machine without one can show it."""

from profiling.gpu import cases, floors

H200 = floors.Ceilings.of("NVIDIA H200")
SET = cases.benchmark_set()


class Clock:
    """Stands still but for ``tick``."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

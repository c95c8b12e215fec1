"""A backend that plans and allocates as the real one does, and launches nothing."""

from __future__ import annotations

from typing import Any

from .. import plans as estimated
from ..algorithms import Plan, Problem
from ..backend import CudaBackend
from ..kernel import Kernel


class DryRun:
    """Notes what a backend is asked: ``backend``'s arrays are real, the numbers in them are not.

    Attributes:
        backend: to be run in place of the real one.
        problems: the convolutions that were asked for, each once, in order.
        kernels: the kernels that would have run, likewise.
    """

    def __init__(self, real: CudaBackend) -> None:
        self._launcher = real.launcher
        self.backend = CudaBackend(real.xp, self, self)
        self.problems: dict[Problem, None] = {}
        self.kernels: dict[Kernel, None] = {}

    # ---- as a planner ----------------------------------------------------------------------------

    def choose(self, problem: Problem) -> Plan:
        self.problems[problem] = None
        return estimated.choose(problem)

    # ---- as a launcher ---------------------------------------------------------------------------

    @property
    def device(self) -> int:
        return self._launcher.device

    @property
    def architecture(self) -> int:
        return self._launcher.architecture

    def launch(self, kernel: Kernel, *_: Any) -> None:
        self.kernels[kernel] = None

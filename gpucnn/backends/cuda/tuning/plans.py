"""The plan of a problem: the one measured here, or that ships for the GPU, or the estimate's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

from .. import plans as estimated
from ..algorithms import Plan, Problem
from ..launch import Launcher
from . import shipped
from .store import Entry, Store


class TunedLauncher(Launcher, Protocol):
    """A launcher that can say where it runs, and that takes cubins."""

    def environment(self) -> dict[str, str]: ...

    def preload(self, cubins: Mapping[str, bytes]) -> None: ...


class TunedPlans:
    """A ``Planner`` that looks on the disk, once for each problem; it compiles and times nothing.

    Args:
        launcher: gets the cubins that were kept with a plan.
        store: by default the one in ``cache_folder()``.
    """

    def __init__(self, launcher: TunedLauncher, store: Store | None = None) -> None:
        self.launcher = launcher
        self.store = store or Store()
        self._known = lru_cache(maxsize=4096)(self._find)

    def choose(self, problem: Problem) -> Plan:
        """Return the plan of a problem on the current device.

        Raises:
            ValueError: as ``plans.choose``.
        """
        return self._known(problem, self.launcher.device)

    def read(self, problem: Problem) -> Entry | None:
        """Return what is kept of a problem on the current device, or None."""
        return self.store.read(problem, self.launcher.environment())

    def keep(self, problem: Problem, entry: Entry) -> None:
        """Write down a measurement; from here on its plan is chosen."""
        self.store.write(problem, self.launcher.environment(), entry)
        self._known.cache_clear()

    def _find(self, problem: Problem, device: int) -> Plan:
        entry = self.read(problem)
        if entry is None:
            plan = shipped.find(problem, self.launcher.environment()["gpu"])
            return plan or estimated.choose(problem)
        self.launcher.preload(entry.cubins)
        return entry.plan

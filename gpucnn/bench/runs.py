"""Whole runs of the benchmark: every case on fresh processes, several times over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any

from . import cases
from .cases import Case
from .load import Load
from .processes import Refused, Worker, WorkerDied
from .protocol import PATIENCE, WINDOWS, Protocol
from .rows import OWN_CHOICE, PEER, SECOND_PEER, Row, add_run, key, new_row

HASWELL = "Haswell"  # OpenBLAS's core with AVX2, which runs on nearly every x86 machine in use


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peers_here() -> tuple[str, ...]:
    """Return the libraries to compare with that are installed."""
    return tuple(name for name in (PEER, SECOND_PEER) if find_spec(name) is not None)


@dataclass
class Plan:
    """What to measure and how often.

    Attributes:
        cases: in order.
        peers: "torch" and "jax", or fewer.
        cores: settings of OpenBLAS's core, ``OWN_CHOICE`` among them.
        runs: each on fresh processes; JAX, whose programs take seconds to compile, is in the first.
        windows: of a case in a run.
        threads: of each library.
        seconds: after which no case is begun any more.
        patience: seconds for repeating disturbed windows.
        memory: whether to measure the most memory of steps, too, after the first run.
    """

    cases: Sequence[Case]
    peers: Sequence[str]
    cores: Sequence[str] = (OWN_CHOICE,)
    runs: int = 1
    windows: int = WINDOWS
    threads: int = field(default_factory=usable_cores)
    seconds: float = float("inf")
    patience: float = PATIENCE
    memory: bool = True

    @classmethod
    def quick(cls, threads: int) -> Plan:
        """Return a plan for a minute: beside PyTorch alone, with the core that BLAS takes."""
        peers = [name for name in peers_here() if name == PEER]
        return cls(cases.quick(), peers, threads=threads, seconds=40.0, patience=10.0, memory=False)

    @classmethod
    def full(cls, threads: int) -> Plan:
        """Return a plan for a quarter of an hour on two cores."""
        cores = (OWN_CHOICE, HASWELL)
        return cls(cases.full(), peers_here(), cores, runs=3, threads=threads)


class Benchmark:
    """Carries out a plan.

    Args:
        plan: what to measure.
        rows: those of a run that is continued.
        begun, changed: called with a row before it is first measured, and after each change.
        make_worker, make_load, clock, sleep: in place of the real ones, in tests.
    """

    def __init__(
        self, plan: Plan, rows: Iterable[Row] = (), *,
        begun: Callable[[Row], Any] = lambda row: None,
        changed: Callable[[Row], Any] = lambda row: None,
        make_worker: Callable[..., Worker] = Worker, make_load: Callable[..., Load] = Load,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], Any] = time.sleep,
    ) -> None:  # fmt: skip
        self.plan, self.begun, self.changed = plan, begun, changed
        self.rows = {key(row): row for row in rows}
        self.make_worker, self.make_load, self.clock = make_worker, make_load, clock
        self.sleep = sleep
        self.cores = list(plan.cores)
        self.meta: dict[str, Any] = {}  # what describes the run
        self.patience = plan.patience

    def run(self) -> None:
        """Measure everything that the rows do not have yet."""
        end = self.clock() + self.plan.seconds
        for number in range(self.plan.runs):
            workers = self._workers()
            try:
                self._describe(workers)
                self._run(number, workers, end)
            finally:
                for worker in workers.values():
                    worker.close()
            if number == 0 and self.plan.memory:
                for case in self.plan.cases:
                    if case.measures_memory and self.clock() < end:
                        self._memory(case)

    def _workers(self) -> dict[str, Worker]:
        threads = self.plan.threads
        return {
            core: self.make_worker("gpucnn", threads, None if core == OWN_CHOICE else core)
            for core in self.cores
        } | {peer: self.make_worker(peer, threads) for peer in self.plan.peers}

    def _describe(self, workers: dict[str, Worker]) -> None:
        """Note versions; drop a setting of the core that this machine's BLAS knows nothing of."""
        if self.meta:
            return
        found: dict[str, dict[str, Any]] = {}
        for name, worker in workers.items():
            try:
                found[name] = worker.ask("about")
            except (WorkerDied, Refused) as error:
                self.meta[f"{name}_error"] = str(error)
        ours = found.get(OWN_CHOICE, {})
        for core in [core for core in self.cores if core != OWN_CHOICE]:
            if found.get(core, {}).get("core") in (None, ours.get("core")):
                self.cores.remove(core)
                workers.pop(core).close()
        self.meta |= {
            "threads": self.plan.threads, "numpy": ours.get("version"), "blas": ours.get("blas"),
            "cores": {core: found[core]["core"] for core in self.cores if core in found},
            **{peer: found.get(peer, {}).get("version") for peer in self.plan.peers},
            "torch_capability": found.get(PEER, {}).get("capability"),
        }  # fmt: skip

    def _run(self, number: int, workers: dict[str, Worker], end: float) -> None:
        def pids() -> list[int]:
            return [os.getpid(), *(w.pid for w in workers.values() if w.pid)]

        load = self.make_load(pids)
        self.meta["load_known"] = load.known
        protocol = Protocol(
            workers, load, windows=self.plan.windows, patience=self.patience, sleep=self.sleep
        )
        self.meta["left_out_cases"] = 0
        for case in self.plan.cases:
            if self._is_done(case, number):
                continue
            if self.clock() >= end:
                self.meta["left_out_cases"] += 1
                continue
            rows = [row for row in self._rows_of(case) if not _has(row, number)]
            names = [row["core"] for row in rows]
            names += [name for name in self.plan.peers if self._is_asked(name, number, rows)]
            outcome = protocol.measure(case, names, check=number == 0)
            for row in rows:
                add_run(row, case, outcome)
                self.changed(row)
        self.patience = protocol.patience

    def _is_done(self, case: Case, number: int) -> bool:
        rows = [self.rows.get(key(new_row(case, core))) for core in self.cores]
        return all(row is not None and _has(row, number) for row in rows)

    def _rows_of(self, case: Case) -> list[Row]:
        """Return the case's rows, one a core, new ones where there are none."""
        rows = []
        for core in self.cores:
            row = new_row(case, core)
            if key(row) not in self.rows:
                self.rows[key(row)] = row
                self.begun(row)
            rows.append(self.rows[key(row)])
        return rows

    @staticmethod
    def _is_asked(peer: str, number: int, rows: Sequence[Row]) -> bool:
        """Return whether a peer is measured: one that failed on a case is not asked again."""
        if peer == SECOND_PEER:
            return number == 0
        return not any("peer_error" in row for row in rows)

    def _memory(self, case: Case) -> None:
        """Note the most memory that a case takes, each side in a process that does nothing else."""
        row = self.rows.get(key(new_row(case, OWN_CHOICE)))
        if row is None or not row["runs"] or "ours_peak_bytes" in row:
            return
        sides = [("ours", "gpucnn", "gpucnn")]
        if row["peer"]:
            side, _, way = row["peer"].partition(" ")
            sides.append(("peer", side, way))
        for column, side, way in sides:
            worker = self.make_worker(side, self.plan.threads)
            try:
                found = worker.ask("memory", case=asdict(case), way=way)
                row |= {f"{column}_{name}_bytes": value for name, value in found.items()}
            except (WorkerDied, Refused) as error:
                row[f"{column}_memory_error"] = str(error)
            finally:
                worker.close()
        self.changed(row)


def _has(row: Row, number: int) -> bool:
    """Return whether a row has its run of this number, or has failed and gets no other."""
    return bool(row.get("error")) or len(row["runs"]) > number
